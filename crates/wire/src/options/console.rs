//! Options of calls that a Console answers itself (protocol 5.1).

use super::calls;

calls! {
    /// v3: `POST /racks`, when an installed Rack moves to a Console.
    RackCreateOptions {
        /// `org/rack`
        name: String = form "name";
        /// A JSON object.
        params: String = form "params", secret;
        /// `aws`, `local`, ...
        provider: String = form "provider";
        /// The installer's state, raw.
        state: String = form "state", secret;
    }

    /// v3: `PUT /racks/{org}/{rack}`
    RackUpdateOptions {
        /// A JSON object; the word `null` when only the version changes.
        params: String = form "params", secret;
        /// Version to become.
        version: String = form "version";
        /// Also where it is not safe.
        force: bool = form "force";
    }

    /// v3: `POST /racks/{org}/{rack}/install`
    RackInstallOptions {
        /// `org/rack`
        name: String = form "name";
        /// A JSON object with at least `region`.
        params: String = form "params", secret;
        /// `aws`, ...
        provider: String = form "provider";
        /// Id of the cloud account.
        runtime: String = form "runtime";
        /// Newest when empty.
        version: String = form "version";
    }

    /// `PUT /racks/{org}/{rack}/runtimes`
    RuntimeAttachOptions {
        /// Id of the cloud account.
        runtime: String = form "runtime";
    }

    /// v3: `POST /racks/{org}/{rack}/workflows/{id}/run`
    WorkflowRunOptions {
        /// The app.
        app: String = form "app";
        /// What to build.
        branch: String = form "branch";
        /// What to build.
        commit: String = form "commit";
        /// For people.
        title: String = form "title";
    }
}
