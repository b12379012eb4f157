//! Objects, builds and releases: what a deploy leaves behind.

use std::fmt;

use super::{Hidden, shapes};
use crate::time::Time;

shapes! {
    /// A build. `status`: created, running, complete, failed.
    #[derive(Debug)]
    pub struct Build {
        /// `B` and ten letters.
        id: String = "id",
        /// Whose it is.
        app: String = "app",
        /// Given by who built.
        description: String = "description",
        /// Of the image; may be empty.
        entrypoint: String = "entrypoint",
        /// Commit that was built; may be empty.
        git_sha: String = "git-sha",
        /// `object://...` of the log, or the log itself.
        logs: String = "logs",
        /// Text of the `convox.yml`.
        manifest: String = "manifest",
        /// Process that builds; may be empty.
        process: String = "process",
        /// The release made of it; empty until then.
        release: String = "release",
        /// Why it failed; empty otherwise.
        reason: String = "reason",
        /// v3: image repository.
        #[serde(skip_serializing_if = "String::is_empty")]
        repository: String = "repository",
        /// See above.
        status: String = "status",
        /// v2: asked for a wildcard domain.
        wildcard_domain: bool = "wildcard-domain",
        /// When it began.
        started: Time = "started",
        /// When it ended; zero while it runs.
        ended: Time = "ended",
    }

    /// A build together with an environment. The environment holds secrets: hidden in `Debug`.
    pub struct Release {
        /// `R` and ten letters; in the list of a Rack's own releases its version.
        id: String = "id",
        /// Whose it is.
        app: String = "app",
        /// The build.
        build: String = "build",
        /// Lines of `K=V`; see [`crate::env`].
        env: String = "env",
        /// Text of the `convox.yml`.
        manifest: String = "manifest",
        /// What changed.
        description: String = "description",
        /// When it was made.
        created: Time = "created",
    }

    /// Where an uploaded object lies. Its one key is `Url`, with a capital, as Go writes a field without a tag.
    #[derive(Debug)]
    pub struct Object {
        /// `object://{app}/{key}`
        #[serde(alias = "url", alias = "URL")]
        url: String = "Url",
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Release")
            .field("id", &self.id)
            .field("app", &self.app)
            .field("build", &self.build)
            .field("env", &Hidden::text(&self.env))
            .field("description", &self.description)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}
