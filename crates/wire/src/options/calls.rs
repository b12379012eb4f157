//! One struct per call.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{OptionError, Options, Placed, Source, Value};
use crate::time::Time;

type Map = BTreeMap<String, String>;
type List = Vec<String>;

macro_rules! calls {
    ($($(#[$about:meta])* $name:ident { $($(#[$meta:meta])* $field:ident : $type:ty = $place:ident $wire:literal;)* })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Debug, Default, PartialEq)]
            pub struct $name {
                $($(#[$meta])* pub $field: Option<$type>,)*
            }

            impl Options for $name {
                fn encode(&self) -> Placed {
                    let mut placed = Placed::default();
                    $(if let Some(value) = &self.$field {
                        calls!(@put placed, $place, $wire, value.to_text());
                    })*
                    placed
                }

                fn decode(source: &dyn Source) -> Result<Self, OptionError> {
                    Ok(Self {
                        $($field: source
                            .$place($wire)
                            .map(<$type as Value>::from_text)
                            .transpose()
                            .map_err(|reason| OptionError { name: $wire, reason })?,)*
                    })
                }
            }
        )*

        #[cfg(test)]
        pub(super) const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
    (@put $placed:ident, header, $wire:literal, $text:expr) => { $placed.headers.push(($wire, $text)) };
    (@put $placed:ident, form, $wire:literal, $text:expr) => { $placed.form.set($wire, $text) };
    (@put $placed:ident, query, $wire:literal, $text:expr) => { $placed.query.set($wire, $text) };
}

calls! {
    /// `POST /apps`
    AppCreateOptions {
        /// Default `2`.
        generation: String = form "generation";
        /// v3.
        timeout: i64 = form "timeout";
    }

    /// `PUT /apps/{app}`
    AppUpdateOptions {
        /// Whether deletion is refused.
        lock: bool = form "lock";
        /// Settings to change.
        parameters: Map = form "parameters";
    }

    /// `POST /apps/{app}/builds`
    BuildCreateOptions {
        /// `K=V` items; a comma inside one is lost on the wire.
        build_args: List = form "build-args";
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

    /// `POST /apps/{app}/builds/{id}/image`
    BuildImportImageOptions {
        /// Login of the source registry.
        src_creds_user: String = form "src-creds-user";
        /// Login of the source registry. A secret.
        src_creds_pass: String = form "src-creds-pass";
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

    /// Every log stream.
    LogsOptions {
        /// Only lines that contain this.
        filter: String = header "Filter";
        /// Go on with what comes; default true.
        follow: bool = header "Follow";
        /// v3.
        max_log_requests: i64 = header "Maxlogrequests";
        /// Begin each line with time and stream.
        prefix: bool = header "Prefix";
        /// Begin so long ago; default two minutes.
        since: Duration = header "Since";
        /// v3: of the process before.
        previous: bool = header "Previous";
        /// v3: at most so many old lines.
        tail: i64 = header "Tail";
    }

    /// `GET .../metrics`
    MetricsOptions {
        /// End.
        end: Time = query "end";
        /// Names, all when absent.
        metrics: List = query "metrics";
        /// Beginning.
        start: Time = query "start";
        /// Seconds between points.
        period: i64 = query "period";
    }

    /// `GET /apps/{app}/processes/{pid}/exec`
    ProcessExecOptions {
        /// The command line.
        command: String = header "Command";
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
        environment: Map = header "Environment";
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

    /// `POST /apps/{app}/releases`
    ReleaseCreateOptions {
        /// Build instead of the newest release's.
        build: String = form "build";
        /// For people.
        description: String = form "description";
        /// The whole environment. A secret.
        env: String = form "env";
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
    }

    /// `PUT /apps/{app}/services/{service}`
    ServiceUpdateOptions {
        /// Processes.
        count: i64 = form "count";
        /// CPU units.
        cpu: i64 = form "cpu";
        /// v3.
        gpu: i64 = form "gpu";
        /// v3.
        gpu_vendor: String = form "gpu-vendor";
        /// v3: fewest processes.
        min: i64 = form "min";
        /// v3: most processes.
        max: i64 = form "max";
        /// Megabytes.
        memory: i64 = form "memory";
    }

    /// `POST /system/jwt/token`
    SystemJwtOptions {
        /// read, write, admin.
        role: String = form "role";
        /// Hours; text, since servers name a bad number themselves.
        duration_in_hour: String = form "durationInHour";
    }

    /// `GET /system/processes`
    SystemProcessesOptions {
        /// Also those of apps.
        all: bool = query "all";
    }

    /// `PUT /system`
    SystemUpdateOptions {
        /// Machines.
        count: i64 = form "count";
        /// v3.
        force: bool = form "force";
        /// Settings to change.
        parameters: Map = form "parameters";
        /// Machine type.
        r#type: String = form "type";
        /// Version to become.
        version: String = form "version";
    }
}

impl AppCreateOptions {
    /// `2` unless given.
    pub fn generation(&self) -> &str {
        self.generation.as_deref().filter(|text| !text.is_empty()).unwrap_or("2")
    }
}

impl LogsOptions {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn options_travel_where_the_originals_put_them() {
        let run = ProcessRunOptions {
            command: Some("sleep 3600".into()),
            environment: Some([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2 3".to_owned())].into()),
            ..Default::default()
        };
        let placed = run.encode();
        assert_eq!(placed.headers, [("Command", "sleep 3600".to_owned()), ("Environment", "A=1&B=2+3".to_owned())]);
        assert!(placed.form.is_empty() && placed.query.is_empty());

        let update = AppUpdateOptions { lock: Some(true), parameters: Some([("A".to_owned(), "1".to_owned())].into()) };
        assert_eq!(update.encode().form.encode(), "lock=true&parameters=A%3D1");
        let list = ReleaseListOptions { limit: Some(1) };
        assert_eq!(list.encode().query.encode(), "limit=1");
        let logs = LogsOptions { since: Some(Duration::from_mins(5)), follow: Some(false), ..Default::default() };
        assert_eq!(logs.encode().headers, [("Follow", "false".to_owned()), ("Since", "5m0s".to_owned())]);
        assert_eq!(LogsOptions::default().encode(), Placed::default());
        assert_eq!(LogsOptions::default().since(), Duration::from_mins(2));
    }

    #[test]
    fn a_bad_value_names_its_option() {
        let placed = Placed { headers: vec![("Since", "yesterday".to_owned())], ..Default::default() };
        let error = LogsOptions::decode(&placed).unwrap_err();
        assert!(error.to_string().contains("Since") && error.to_string().contains("yesterday"), "{error}");
        assert!(ServiceUpdateOptions::decode(&Placed { form: [("count", "many")].into_iter().collect(), ..Default::default() }).is_err());
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        prop::option::of(".*")
    }

    fn map() -> impl Strategy<Value = Option<Map>> {
        prop::option::of(prop::collection::btree_map(".*", ".*", 0..4))
    }

    /// Empty lists read back as such, and items hold no commas.
    fn list() -> impl Strategy<Value = Option<List>> {
        prop::option::of(prop::collection::vec("[^,]+", 0..4))
    }

    fn time() -> impl Strategy<Value = Option<Time>> {
        prop::option::of((0i64..4_000_000_000_000).prop_map(Time::from_millis))
    }

    fn duration() -> impl Strategy<Value = Option<Duration>> {
        prop::option::of((0..u64::MAX / 4).prop_map(Duration::from_nanos))
    }

    macro_rules! survives {
        ($($test:ident: $name:ident { $($field:ident: $strategy:expr),* $(,)? })*) => {
            proptest! {
                $(#[test]
                fn $test($($field in $strategy),*) {
                    let options = $name { $($field),* };
                    prop_assert_eq!($name::decode(&options.encode()).unwrap(), options);
                })*
            }

            #[test]
            fn every_call_has_a_round_trip() {
                assert_eq!(super::NAMES, &[$(stringify!($name)),*]);
            }
        };
    }

    survives! {
        app_create: AppCreateOptions { generation: text(), timeout: any::<Option<i64>>() }
        app_update: AppUpdateOptions { lock: any::<Option<bool>>(), parameters: map() }
        build_create: BuildCreateOptions {
            build_args: list(), description: text(), development: any::<Option<bool>>(), external: any::<Option<bool>>(), manifest: text(),
            no_cache: any::<Option<bool>>(), wildcard_domain: any::<Option<bool>>(), git_sha: text(),
        }
        build_import_image: BuildImportImageOptions { src_creds_user: text(), src_creds_pass: text() }
        build_list: BuildListOptions { limit: any::<Option<i64>>() }
        build_update: BuildUpdateOptions {
            ended: time(), entrypoint: text(), logs: text(), manifest: text(), release: text(), started: time(), status: text(),
        }
        logs: LogsOptions {
            filter: text(), follow: any::<Option<bool>>(), max_log_requests: any::<Option<i64>>(), prefix: any::<Option<bool>>(),
            since: duration(), previous: any::<Option<bool>>(), tail: any::<Option<i64>>(),
        }
        metrics: MetricsOptions { end: time(), metrics: list(), start: time(), period: any::<Option<i64>>() }
        process_exec: ProcessExecOptions {
            command: text(), disable_stdin: any::<Option<bool>>(), entrypoint: any::<Option<bool>>(), height: any::<Option<i64>>(),
            tty: any::<Option<bool>>(), width: any::<Option<i64>>(),
        }
        process_list: ProcessListOptions { release: text(), service: text() }
        process_run: ProcessRunOptions {
            command: text(), cpu: any::<Option<i64>>(), cpu_limit: any::<Option<i64>>(), environment: map(), gpu: any::<Option<i64>>(),
            gpu_vendor: text(), height: any::<Option<i64>>(), image: text(), memory: any::<Option<i64>>(), memory_limit: any::<Option<i64>>(),
            node_labels: text(), privileged: any::<Option<bool>>(), release: text(), system_critical: any::<Option<bool>>(),
            use_service_volume: any::<Option<bool>>(), volumes: map(), width: any::<Option<i64>>(),
        }
        release_create: ReleaseCreateOptions { build: text(), description: text(), env: text(), parent_release: text() }
        release_list: ReleaseListOptions { limit: any::<Option<i64>>() }
        release_promote: ReleasePromoteOptions {
            development: any::<Option<bool>>(), force: any::<Option<bool>>(), idle: any::<Option<bool>>(), min: any::<Option<i64>>(),
            max: any::<Option<i64>>(), timeout: any::<Option<i64>>(),
        }
        service_update: ServiceUpdateOptions {
            count: any::<Option<i64>>(), cpu: any::<Option<i64>>(), gpu: any::<Option<i64>>(), gpu_vendor: text(), min: any::<Option<i64>>(),
            max: any::<Option<i64>>(), memory: any::<Option<i64>>(),
        }
        system_jwt: SystemJwtOptions { role: text(), duration_in_hour: text() }
        system_processes: SystemProcessesOptions { all: any::<Option<bool>>() }
        system_update: SystemUpdateOptions {
            count: any::<Option<i64>>(), force: any::<Option<bool>>(), parameters: map(), r#type: text(), version: text(),
        }
    }
}
