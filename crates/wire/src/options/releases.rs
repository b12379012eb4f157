//! Options of calls on releases.

use super::calls;

calls! {
    /// `POST /apps/{app}/releases`
    ReleaseCreateOptions {
        /// Build instead of the newest release's.
        build: String = form "build";
        /// For people.
        description: String = form "description";
        /// The whole environment.
        env: String = form "env", secret;
        /// v3: release to start from instead of the newest.
        parent_release: String = form "parent-release";
    }

    /// `GET /apps/{app}/releases`
    ReleaseListOptions {
        /// At most so many.
        limit: i64 = query "limit";
    }

    /// `POST /apps/{app}/releases/{id}/promote`
    ReleasePromoteOptions {
        /// For development.
        development: bool = form "development";
        /// Also while the app is updating.
        force: bool = form "force";
        /// Scale idle services down.
        idle: bool = form "idle";
        /// Fewest healthy processes meanwhile, percent.
        min: i64 = form "min";
        /// Most processes meanwhile, percent.
        max: i64 = form "max";
        /// Seconds.
        timeout: i64 = form "timeout";
        /// v2: databases to protect.
        xrds: String = form "xrds";
        /// v2: databases to pass over.
        xignore: String = form "xignore";
        /// v2: snapshot to take.
        xsnapshot: String = form "xsnapshot";
    }
}
