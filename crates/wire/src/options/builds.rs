//! Options of calls on builds and objects.

use super::{List, calls};
use crate::time::Time;

calls! {
    /// `POST /apps/{app}/builds`; the source's `url` is a loose value, see [`super::loose`].
    BuildCreateOptions {
        /// `K=V` items; a comma inside one is lost on the wire.
        build_args: List = form "build-args", secret;
        /// For people.
        description: String = form "description";
        /// Build for development.
        development: bool = form "development";
        /// v3: an image is pushed from outside.
        external: bool = form "external";
        /// Name of the manifest in the source; default `convox.yml`.
        manifest: String = form "manifest";
        /// Build from scratch.
        no_cache: bool = form "no-cache";
        /// Give services wildcard domains.
        wildcard_domain: bool = form "wildcard-domain";
        /// Commit.
        git_sha: String = form "git-sha";
    }

    /// v3: `POST /apps/{app}/builds/{id}/image`
    BuildImportImageOptions {
        /// Login of the source registry.
        src_creds_user: String = form "src-creds-user";
        /// Login of the source registry.
        src_creds_pass: String = form "src-creds-pass", secret;
    }

    /// `GET /apps/{app}/builds`
    BuildListOptions {
        /// At most so many.
        limit: i64 = query "limit";
    }

    /// `PUT /apps/{app}/builds/{id}`
    BuildUpdateOptions {
        /// End.
        ended: Time = form "ended";
        /// Unused by our Racks.
        entrypoint: String = form "entrypoint";
        /// URL of the log.
        logs: String = form "logs";
        /// The `convox.yml` used.
        manifest: String = form "manifest";
        /// The release made.
        release: String = form "release";
        /// Beginning.
        started: Time = form "started";
        /// created, running, complete, failed.
        status: String = form "status";
    }

    /// `POST /apps/{app}/objects/{key}`
    ObjectStoreOptions {
        /// v3: readable by everybody.
        public: bool = header "Public";
    }
}
