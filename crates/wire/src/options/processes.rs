//! Options of calls on processes, their logs, files and metrics.

use std::time::Duration;

use super::{List, Map, calls};
use crate::time::Time;

calls! {
    /// Every log stream.
    LogOptions {
        /// Only lines that contain this.
        filter: String = header "Filter";
        /// Go on with what comes; default true.
        follow: bool = header "Follow";
        /// v3.
        max_log_requests: i64 = header "Maxlogrequests";
        /// Begin each line with time and stream; default false.
        prefix: bool = header "Prefix";
        /// Begin so long ago; default two minutes.
        since: Duration = header "Since";
        /// v3: of the process before.
        previous: bool = header "Previous";
        /// v3: at most so many old lines.
        tail: i64 = header "Tail";
    }

    /// `GET .../metrics`, and v3 `GET /apps/{app}/metrics-by-service`
    MetricsOptions {
        /// End.
        end: Time = query "end";
        /// Names, all when absent.
        metrics: List = query "metrics";
        /// Beginning.
        start: Time = query "start";
        /// Seconds between points.
        period: i64 = query "period";
        /// v3, by service: which; all when absent.
        services: List = query "services";
    }

    /// `GET /apps/{app}/processes/{pid}/exec`
    ProcessExecOptions {
        /// The command line.
        command: String = header_or_form "Command";
        /// v3: take no input.
        disable_stdin: bool = header "Disable-Stdin";
        /// Run through the image's entrypoint.
        entrypoint: bool = header "Entrypoint";
        /// Rows of the terminal.
        height: i64 = header "Height";
        /// Whether there is a terminal; default true.
        tty: bool = header "Tty";
        /// Columns of the terminal.
        width: i64 = header "Width";
    }

    /// `GET /apps/{app}/processes`
    ProcessListOptions {
        /// Only of this release.
        release: String = query "release";
        /// Only of this service.
        service: String = query "service";
    }

    /// `POST /apps/{app}/services/{service}/processes`
    ProcessRunOptions {
        /// The command line; the service's own when absent.
        command: String = header "Command";
        /// v3: CPU units.
        cpu: i64 = header "Cpu";
        /// v3.
        cpu_limit: i64 = header "Cpu-Limit";
        /// Added to the release's environment.
        environment: Map = header "Environment", secret;
        /// v3.
        gpu: i64 = header "Gpu";
        /// v3.
        gpu_vendor: String = header "Gpu-Vendor";
        /// Rows of the terminal.
        height: i64 = header "Height";
        /// Image instead of the service's.
        image: String = header "Image";
        /// Megabytes.
        memory: i64 = header "Memory";
        /// v3.
        memory_limit: i64 = header "Memory-Limit";
        /// v3.
        node_labels: String = header "Node-Labels";
        /// v3.
        privileged: bool = header "Privileged";
        /// Release instead of the active one.
        release: String = header "Release";
        /// v3.
        system_critical: bool = header "System-Critical";
        /// v3.
        use_service_volume: bool = header "Use-Service-Volume";
        /// Volumes.
        volumes: Map = header "Volumes";
        /// Columns of the terminal.
        width: i64 = header "Width";
    }

    /// `POST /apps/{app}/processes/{pid}/files`
    FilesUploadOptions {
        /// v3: more flags for unpacking.
        tar_extra: String = query "tar-extra";
    }
}

impl LogOptions {
    /// Two minutes unless given.
    pub fn since(&self) -> Duration {
        self.since.unwrap_or(Duration::from_mins(2))
    }

    /// True unless given.
    pub fn follow(&self) -> bool {
        self.follow.unwrap_or(true)
    }

    /// False unless given.
    pub fn prefix(&self) -> bool {
        self.prefix.unwrap_or(false)
    }
}

impl ProcessExecOptions {
    /// True unless given.
    pub fn tty(&self) -> bool {
        self.tty.unwrap_or(true)
    }
}
