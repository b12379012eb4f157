//! What runs: ps, logs, run, exec, scale, services, restart, resources.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::flags::{AppFlag, RackFlag, WaitFlag, WatchFlag, duration};
use super::platform::TlsFlag;

/// `ps`
#[derive(Args, Debug)]
pub(crate) struct Ps {
    #[command(flatten)]
    pub(crate) rack: RackFlag,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    /// of this release only
    #[arg(long, value_name = "release")]
    pub(crate) release: Option<String>,
    /// of this service only
    #[arg(short = 's', long, value_name = "service")]
    pub(crate) service: Option<String>,
    #[command(flatten)]
    pub(crate) watch: WatchFlag,
    #[command(subcommand)]
    pub(crate) command: Option<PsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PsCommand {
    /// get information about a process
    #[command(after_help = "EXAMPLES\n  convox ps info web-1a2b3c -a shop")]
    Info {
        #[arg(value_name = "process")]
        process: String,
        #[command(flatten)]
        watch: WatchFlag,
    },
    /// stop a process
    #[command(after_help = "EXAMPLES\n  convox ps stop web-1a2b3c -a shop")]
    Stop {
        #[arg(value_name = "process")]
        process: String,
    },
}

/// Which log lines.
#[derive(Args, Debug, Default)]
pub(crate) struct LogFlags {
    /// show only lines that contain this
    #[arg(long, value_name = "text")]
    pub(crate) filter: Option<String>,
    /// stop at the end of what is there
    #[arg(long)]
    pub(crate) no_follow: bool,
    /// show lines since a duration ago (2m)
    #[arg(long, value_name = "duration", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// show at most so many lines of what is there (v3)
    #[arg(long, value_name = "lines")]
    pub(crate) tail: Option<i64>,
    /// lines of processes that ended before, too (v3)
    #[arg(long)]
    pub(crate) allow_previous: bool,
    /// how many logs a Rack on Kubernetes reads at once (v3)
    #[arg(long, value_name = "count")]
    pub(crate) max_log_requests: Option<i64>,
}

/// `logs`
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// show lines of this service only (v3)
    #[arg(short = 's', long, value_name = "service")]
    pub(crate) service: Option<String>,
    #[command(flatten)]
    pub(crate) flags: LogFlags,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
}

/// `exec pid command...`
#[derive(Args, Debug)]
pub(crate) struct Exec {
    #[arg(value_name = "pid")]
    pub(crate) process: String,
    #[arg(value_name = "command", required = true)]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
}

/// `run service command...`
#[derive(Args, Debug)]
pub(crate) struct Run {
    #[arg(value_name = "service")]
    pub(crate) service: String,
    #[arg(value_name = "command", required = true)]
    pub(crate) command: Vec<String>,
    /// run process in the background
    #[arg(short = 'd', long)]
    pub(crate) detach: bool,
    /// set to false to disable the entrypoint of the container
    #[arg(short = 'e', long, value_name = "bool", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", hide_default_value = true)]
    pub(crate) entrypoint: String,
    /// run this release instead of the active one
    #[arg(long, value_name = "release")]
    pub(crate) release: Option<String>,
    /// end the process after this many seconds (3600)
    #[arg(short = 't', long, value_name = "seconds")]
    pub(crate) timeout: Option<u64>,
    #[command(flatten)]
    pub(crate) needs: Needs,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
}

/// What a new process asks for, and where it may run. A Rack that cannot give it says so.
#[derive(Args, Debug)]
pub(crate) struct Needs {
    /// cpu units that are kept for the process (v3)
    #[arg(long, value_name = "units")]
    pub(crate) cpu: Option<i64>,
    /// most cpu units that it may use (v3)
    #[arg(long, value_name = "units")]
    pub(crate) cpu_limit: Option<i64>,
    /// megabytes of memory that are kept for it (v3)
    #[arg(long, value_name = "megabytes")]
    pub(crate) memory: Option<i64>,
    /// most megabytes of memory that it may use (v3)
    #[arg(long, value_name = "megabytes")]
    pub(crate) memory_limit: Option<i64>,
    /// gpus that it gets (v3)
    #[arg(long, value_name = "count")]
    pub(crate) gpu: Option<i64>,
    /// whose gpus: nvidia, amd (v3)
    #[arg(long, value_name = "vendor")]
    pub(crate) gpu_vendor: Option<String>,
    /// labels of the nodes where it may run (v3)
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub(crate) node_labels: Option<String>,
    /// evict other processes rather than this one (v3)
    #[arg(long)]
    pub(crate) system_critical: bool,
    /// give it the volumes of its service (v3)
    #[arg(long)]
    pub(crate) use_service_volume: bool,
}

/// What a service is scaled to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Size {
    /// number of processes
    #[arg(long, value_name = "count")]
    pub(crate) count: Option<i64>,
    /// cpu units of each process
    #[arg(long, value_name = "cpu")]
    pub(crate) cpu: Option<i64>,
    /// megabytes of memory of each process
    #[arg(long, value_name = "memory")]
    pub(crate) memory: Option<i64>,
    /// gpus of each process (v3)
    #[arg(long, value_name = "count")]
    pub(crate) gpu: Option<i64>,
    /// whose gpus: nvidia, amd (v3)
    #[arg(long, value_name = "vendor")]
    pub(crate) gpu_vendor: Option<String>,
    /// fewest processes, where the Rack scales by itself (v3)
    #[arg(long, value_name = "count", conflicts_with = "count")]
    pub(crate) min: Option<i64>,
    /// most processes, where the Rack scales by itself (v3)
    #[arg(long, value_name = "count", conflicts_with = "count")]
    pub(crate) max: Option<i64>,
}

/// `scale [service]`
#[derive(Args, Debug)]
pub(crate) struct Scale {
    #[arg(value_name = "service")]
    pub(crate) service: Option<String>,
    #[command(flatten)]
    pub(crate) size: Size,
    #[command(flatten)]
    pub(crate) wait: WaitFlag,
    #[command(flatten)]
    pub(crate) watch: WatchFlag,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
}

/// `balancers`
#[derive(Args, Debug)]
pub(crate) struct Balancers {
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
}

/// `services`
#[derive(Args, Debug)]
pub(crate) struct Services {
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
    #[command(flatten)]
    pub(crate) watch: WatchFlag,
    #[command(subcommand)]
    pub(crate) command: Option<ServicesCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServicesCommand {
    /// restart a service
    #[command(after_help = "EXAMPLES\n  convox services restart web -a shop")]
    Restart {
        #[arg(value_name = "service")]
        service: String,
    },
    /// scale a service, as v3 also calls it
    #[command(after_help = "EXAMPLES\n  convox services update web --count 3 -a shop --wait")]
    Update {
        #[arg(value_name = "service")]
        service: String,
        #[command(flatten)]
        size: Size,
        #[command(flatten)]
        wait: WaitFlag,
    },
}

/// `restart`
#[derive(Args, Debug)]
pub(crate) struct Restart {
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
}

/// `resources`
#[derive(Args, Debug)]
pub(crate) struct Resources {
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
    #[command(flatten)]
    pub(crate) watch: WatchFlag,
    #[command(subcommand)]
    pub(crate) command: Option<ResourcesCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ResourcesCommand {
    /// start a console for a resource
    #[command(after_help = "EXAMPLES\n  convox resources console database -a shop")]
    Console {
        #[arg(value_name = "resource")]
        resource: String,
    },
    /// export data from a resource
    #[command(after_help = "EXAMPLES\n  convox resources export database -a shop -f database.sql")]
    Export {
        #[arg(value_name = "resource")]
        resource: String,
        /// export to file
        #[arg(short = 'f', long, value_name = "file")]
        file: Option<String>,
    },
    /// import data to a resource
    #[command(after_help = "EXAMPLES\n  convox resources import database -a shop -f database.sql")]
    Import {
        #[arg(value_name = "resource")]
        resource: String,
        /// import from file
        #[arg(short = 'f', long, value_name = "file")]
        file: Option<String>,
    },
    /// proxy a local port to a resource
    #[command(after_help = "EXAMPLES\n  convox resources proxy database -a shop --port 15432")]
    Proxy {
        #[arg(value_name = "resource")]
        resource: String,
        /// local port; the resource's own unless given
        #[arg(short = 'p', long, value_name = "port")]
        port: Option<u16>,
        #[command(flatten)]
        tls: TlsFlag,
    },
    /// get information about a resource
    #[command(after_help = "EXAMPLES\n  convox resources info database -a shop")]
    Info {
        #[arg(value_name = "resource")]
        resource: String,
    },
    /// get url for a resource
    #[command(after_help = "EXAMPLES\n  psql \"$(convox resources url database -a shop)\"")]
    Url {
        #[arg(value_name = "resource")]
        resource: String,
    },
}

/// `cp src dst`
#[derive(Args, Debug)]
pub(crate) struct Cp {
    #[arg(value_name = "[pid:]src")]
    pub(crate) source: String,
    #[arg(value_name = "[pid:]dst")]
    pub(crate) destination: String,
    /// more flags for the tar that unpacks in the process (v3)
    #[arg(long, value_name = "flags", allow_hyphen_values = true)]
    pub(crate) tar_extra: Option<String>,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
}

/// `test [dir]`
#[derive(Args, Debug)]
pub(crate) struct Test {
    #[arg(value_name = "dir")]
    pub(crate) dir: Option<String>,
    /// description
    #[arg(short = 'd', long, value_name = "text")]
    pub(crate) description: Option<String>,
    /// use existing release to run tests
    #[arg(long, value_name = "release")]
    pub(crate) release: Option<String>,
    /// end each test after this many seconds (3600)
    #[arg(short = 't', long, value_name = "seconds")]
    pub(crate) timeout: Option<u64>,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
}
