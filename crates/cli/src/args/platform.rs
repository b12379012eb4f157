//! What belongs to the Rack or its machines: certs, ssl, registries, instances, proxy.

use clap::{Args, Subcommand};

use super::flags::{AppFlag, IdFlag, RackFlag, WaitFlag, WatchFlag};

/// `certs`
#[derive(Args, Debug)]
pub(crate) struct Certs {
    #[command(flatten)]
    pub(crate) rack: RackFlag,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    /// those only that the Rack made itself (v3)
    #[arg(long)]
    pub(crate) generated: bool,
    #[command(flatten)]
    pub(crate) watch: WatchFlag,
    #[command(subcommand)]
    pub(crate) command: Option<CertsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// delete a certificate
    #[command(after_help = "EXAMPLES\n  convox certs delete cert-1a2b3c")]
    Delete {
        #[arg(value_name = "cert")]
        cert: String,
    },
    /// generate a certificate
    #[command(after_help = "EXAMPLES\n  convox certs generate example.com www.example.com")]
    Generate {
        #[arg(value_name = "domain", required = true)]
        domains: Vec<String>,
        /// who signs it (v3)
        #[arg(long, value_name = "issuer")]
        issuer: Option<String>,
        /// how long it is valid (v3)
        #[arg(long, value_name = "duration")]
        duration: Option<String>,
        #[command(flatten)]
        id: IdFlag,
    },
    /// import a certificate
    #[command(after_help = "EXAMPLES\n  convox certs import example.com.crt example.com.key --chain intermediate.crt")]
    Import {
        #[arg(value_name = "pub")]
        public: String,
        #[arg(value_name = "key")]
        key: String,
        /// intermediate certificates
        #[arg(long, value_name = "chain")]
        chain: Option<String>,
        #[command(flatten)]
        id: IdFlag,
    },
    /// renew the certificates of an app
    #[command(after_help = "EXAMPLES\n  convox certs renew -a shop")]
    Renew,
}

/// `ssl`
#[derive(Args, Debug)]
pub(crate) struct Ssl {
    #[command(flatten)]
    pub(crate) rack: RackFlag,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(subcommand)]
    pub(crate) command: Option<SslCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SslCommand {
    /// choose the certificate of a service
    #[command(after_help = "EXAMPLES\n  convox ssl update web:443 cert-1a2b3c -a shop")]
    Update {
        #[arg(value_name = "process:port")]
        endpoint: String,
        #[arg(value_name = "certificate")]
        certificate: String,
        #[command(flatten)]
        wait: WaitFlag,
    },
}

/// `registries`
#[derive(Args, Debug)]
pub(crate) struct Registries {
    #[command(flatten)]
    pub(crate) rack: RackFlag,
    #[command(flatten)]
    pub(crate) watch: WatchFlag,
    #[command(subcommand)]
    pub(crate) command: Option<RegistriesCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RegistriesCommand {
    /// add a private registry
    #[command(after_help = "EXAMPLES\n  convox registries add registry.example.com ci --password-stdin < password")]
    Add {
        #[arg(value_name = "server")]
        server: String,
        #[arg(value_name = "username")]
        username: String,
        /// visible to others on this machine: prefer --password-stdin
        #[arg(value_name = "password", required_unless_present = "password_stdin")]
        password: Option<String>,
        /// read the password from standard input
        #[arg(long, conflicts_with = "password")]
        password_stdin: bool,
    },
    /// remove private registry
    #[command(after_help = "EXAMPLES\n  convox registries remove registry.example.com")]
    Remove {
        #[arg(value_name = "server")]
        server: String,
    },
}

/// `instances`
#[derive(Args, Debug)]
pub(crate) struct Instances {
    #[command(flatten)]
    pub(crate) rack: RackFlag,
    #[command(flatten)]
    pub(crate) watch: WatchFlag,
    #[command(subcommand)]
    pub(crate) command: Option<InstancesCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InstancesCommand {
    /// roll ssh key on instances
    #[command(after_help = "EXAMPLES\n  convox instances keyroll --wait")]
    Keyroll {
        #[command(flatten)]
        wait: WaitFlag,
    },
    /// run a shell on an instance
    #[command(after_help = "EXAMPLES\n  convox instances ssh i-1a2b3c\n  convox instances ssh i-1a2b3c -- df -h")]
    Ssh {
        #[arg(value_name = "instance")]
        instance: String,
        #[arg(value_name = "command")]
        command: Vec<String>,
        /// file with the private key of the instance (v3)
        #[arg(long, value_name = "file")]
        key: Option<String>,
    },
    /// terminate an instance
    #[command(after_help = "EXAMPLES\n  convox instances terminate i-1a2b3c")]
    Terminate {
        #[arg(value_name = "instance")]
        instance: String,
    },
}

/// `proxy`
#[derive(Args, Debug)]
pub(crate) struct Proxy {
    /// listen on `port` here, and connect from inside the Rack to `host:hostport`
    #[arg(value_name = "[port:]host:hostport", required = true)]
    pub(crate) ways: Vec<String>,
    #[command(flatten)]
    pub(crate) tls: TlsFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
}

/// `--tls/-t`
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct TlsFlag {
    /// wrap connection in tls
    #[arg(short = 't', long)]
    pub(crate) tls: bool,
}
