//! Options of calls on the Rack itself: settings, tokens, machines, certificates, resources, events.

use std::time::Duration;

use super::{Map, calls};

calls! {
    /// `PUT /system`
    SystemUpdateOptions {
        /// Machines.
        count: i64 = form "count";
        /// v3.
        force: bool = form "force";
        /// Settings to change.
        parameters: Map = form "parameters", secret;
        /// Machine type.
        r#type: String = form "type";
        /// Version to become.
        version: String = form "version";
    }

    /// `POST /system/jwt/token`
    SystemJwtOptions {
        /// read, write, admin.
        role: String = form_or_header "role";
        /// Hours; text, since servers name a bad number themselves.
        duration_in_hour: String = form_or_header "durationInHour";
    }

    /// `PUT /system/jwt/rotate`
    SystemJwtRotateOptions {
        /// Ours: how long tokens of the key before are still accepted; not at all when absent, as with the originals.
        overlap: Duration = form "overlap";
    }

    /// Ours: `PUT /system/password`
    PasswordAcceptOptions {
        /// Accepted beside the present one from now on.
        password: String = form "password", secret;
        /// When the Rack itself ends the present one; only when it is told to, when absent.
        window: Duration = form "window";
    }

    /// Ours: `POST /system/password/retire`
    PasswordRetireOptions {
        /// Also ends the streams that were opened with the old password.
        cut: bool = form "cut";
    }

    /// `GET /system/processes`
    SystemProcessesOptions {
        /// Also those of apps.
        all: bool = query "all";
    }

    /// `GET /instances/{id}/shell`
    InstanceShellOptions {
        /// The command line; a login shell when absent.
        command: String = header "Command";
        /// v3: base64 of a PEM.
        private_key: String = header "Private-Key", secret;
        /// Rows of the terminal.
        height: i64 = header "Height";
        /// Columns of the terminal.
        width: i64 = header "Width";
    }

    /// `POST /certificates`; certificate and key are loose values `pub` and `key`.
    CertificateCreateOptions {
        /// PEM.
        chain: String = form "chain";
    }

    /// v3: `POST /certificates/generate`; `domains` is a loose value.
    CertificateGenerateOptions {
        /// Who signs.
        issuer: String = form "issuer";
        /// A Go duration.
        duration: String = form "duration";
    }

    /// v3: `GET /certificates`; clients send it as a body, which original servers do not read.
    CertificateListOptions {
        /// Only those that the Rack made.
        generated: bool = form "generated";
    }

    /// `POST /events`; the `action` is a loose value.
    EventSendOptions {
        /// What it is about.
        data: Map = form "data";
        /// What went wrong.
        error: String = form "error";
        /// `success` or `error`.
        status: String = form "status";
    }

    /// `POST /resources`; the `kind` is a loose value.
    ResourceCreateOptions {
        /// Made up when absent.
        name: String = form "name";
        /// Its settings.
        parameters: Map = form "parameters", secret;
    }

    /// `PUT /resources/{name}`
    ResourceUpdateOptions {
        /// Settings to change.
        parameters: Map = form "parameters", secret;
    }

    /// v3: `GET /apps/{app}/resources/{name}/console`
    ResourceConsoleOptions {
        /// Rows of the terminal.
        height: i64 = header "Height";
        /// Columns of the terminal.
        width: i64 = header "Width";
    }
}
