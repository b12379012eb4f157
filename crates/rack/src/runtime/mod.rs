//! What runs apps: the seam between the scheduler and an engine.
//!
//! A runtime knows single processes and nothing of apps' desired state, health or traffic: the
//! scheduler decides, the runtime carries out. There are two: [`process`], plain supervised child
//! processes of the Rack's own user, which is no isolation (`docs/adr/0012`), and [`container`],
//! containers of Docker or Podman (`docs/adr/0015`). Both keep a shim beside each process.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

pub mod container;
pub mod process;
mod terminal_input;

pub use container::ContainerRuntime;
pub use process::ProcessRuntime;
pub(crate) use process::files::replace_durably;
pub(crate) use terminal_input::TerminalInput;

/// Why a process exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessKind {
    /// Part of a service: the scheduler keeps the wanted number of these running.
    #[default]
    Service,
    /// Started by `run`: lives until it ends by itself or is stopped, and is never restarted.
    OneOff,
    /// The server of a resource.
    Resource,
}

impl ProcessKind {
    /// The stream that log lines of such a process carry.
    pub(crate) fn stream(self, name: &str, timer: Option<&str>, process: &str) -> String {
        if let Some(timer) = timer {
            return format!("timer/{timer}/{process}");
        }
        match self {
            Self::Resource => format!("resource/{}/{process}", name.trim_start_matches(RESOURCE)),
            Self::Service | Self::OneOff => format!("service/{name}/{process}"),
        }
    }
}

/// What a resource's name gets before it where services stand too, none of whose names has an underscore.
pub(crate) const RESOURCE: &str = "resource_";

/// Everything a runtime needs to start one process.
#[derive(Clone, Default)]
pub struct ProcessSpec {
    /// Id, unique on this Rack: letters, digits and dashes.
    pub id: String,
    /// Name of the app.
    pub app: String,
    /// Name of the service.
    pub service: String,
    /// Id of the release whose code and environment this is.
    pub release: String,
    /// The argument vector; a shell command is `["sh", "-c", text]`.
    pub command: Vec<String>,
    /// Whether that is what became of a text: in an image without a shell it is split into words instead.
    pub is_text: bool,
    /// The whole environment of the process. Holds secrets.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub dir: PathBuf,
    /// The TCP port that the process was told to listen on, in `PORT`.
    pub port: Option<u16>,
    /// Why it exists.
    pub kind: ProcessKind,
    /// How long it may take to end after SIGTERM before SIGKILL.
    pub stop_grace: Duration,
    /// Id of the build whose image it runs, where there are images.
    pub build: String,
    /// The port that the manifest gives it, on which it listens where it has a network of its own.
    pub own_port: Option<u16>,
    /// How much of the machine it may use, where that is enforced.
    pub limits: Limits,
    /// Volumes as the manifest writes them.
    pub volumes: Vec<String>,
    /// Whether it wants the rights of the machine's root.
    pub privileged: bool,
    /// Whether it wants an init before it.
    pub init: bool,
    /// Labels of its container.
    pub labels: BTreeMap<String, String>,
    /// The image that it runs instead of its build's.
    pub image: Option<String>,
    /// Whether it runs as a plain process even where others run in containers.
    pub plain: bool,
    /// Whether it is asked to end by SIGINT instead of SIGTERM.
    pub interrupt: bool,
    /// The timer that it is a run of.
    pub timer: Option<String>,
}

/// How much of the machine a process may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Share of the processor when it is scarce, 1024 to a core.
    pub cpu: Option<u32>,
    /// Most of the processor, 1024 to a core.
    pub cpu_most: Option<u32>,
    /// Most memory, in MB.
    pub memory: Option<u32>,
}

/// What stands between a process and the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Nothing: it runs from the source directory, with the machine's programs.
    None,
    /// A container, made from an image.
    Container {
        /// Whether it has a network of its own, so that it listens on the manifest's port.
        own_network: bool,
        /// The machine's address as containers see it; the loopback address if they share the machine's network.
        machine: IpAddr,
    },
}

impl Isolation {
    /// Whether processes are made from images.
    pub fn has_images(self) -> bool {
        matches!(self, Self::Container { .. })
    }

    /// Whether processes have a network of their own.
    pub fn has_own_network(self) -> bool {
        matches!(self, Self::Container { own_network: true, .. })
    }

    /// The address under which a process reaches the machine that it runs on.
    pub fn machine(self) -> IpAddr {
        match self {
            Self::Container { machine, .. } => machine,
            Self::None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

impl fmt::Debug for ProcessSpec {
    /// Without the values of the environment: they are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessSpec")
            .field("id", &self.id)
            .field("app", &self.app)
            .field("service", &self.service)
            .field("release", &self.release)
            .field("command", &self.command)
            .field("dir", &self.dir)
            .field("port", &self.port)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessStatus {
    /// Asked for, or running but not yet healthy.
    #[default]
    Starting,
    /// Running, and healthy as far as anyone checks.
    Running,
    /// Running, but its health check fails.
    Unhealthy,
    /// Told to stop and not yet gone.
    Stopping,
    /// Ended with exit code 0.
    Complete,
    /// Ended with another code, or by a signal, or never started.
    Failed,
}

impl ProcessStatus {
    /// The word of the wire protocol; clients wait for `running`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Stopping => "stopping",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }

    /// Whether the process has ended.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Failed)
    }
}

/// What is known of one process. Carries no environment.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessState {
    /// Id given in the spec.
    pub id: String,
    /// Name of the app.
    pub app: String,
    /// Name of the service.
    pub service: String,
    /// Id of the release.
    pub release: String,
    /// The argument vector.
    pub command: Vec<String>,
    /// Working directory.
    pub dir: PathBuf,
    /// The process's own TCP port on the loopback address.
    pub port: Option<u16>,
    /// Why it exists.
    pub kind: ProcessKind,
    /// The timer that it is a run of.
    pub timer: Option<String>,
    /// Where it is in its life. A runtime says `Running` for what runs; the scheduler, which
    /// checks health, tells `Starting` and `Unhealthy` apart.
    pub status: ProcessStatus,
    /// Exit code once ended: the process's own, or 128 + the signal that ended it.
    pub exit_code: Option<i32>,
    /// Process id on this machine, once started and until ended.
    pub pid: Option<u32>,
    /// When it was started.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Whether the last health check passed (or there is none to pass).
    pub healthy: bool,
}

impl ProcessState {
    /// The stream that its log lines carry, `service/NAME/ID`.
    pub fn stream(&self) -> String {
        self.kind.stream(&self.service, self.timer.as_deref(), &self.id)
    }

    /// The command as one line for people: a shell command without its `sh -c`.
    pub fn command_line(&self) -> String {
        match self.command.as_slice() {
            [sh, flag, text] if sh == "sh" && flag == "-c" => text.clone(),
            words => words.join(" "),
        }
    }
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Height in rows.
    pub rows: u16,
    /// Width in columns.
    pub columns: u16,
}

impl Default for TerminalSize {
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// A command to run inside a running process's directory and environment.
#[derive(Clone, Default)]
pub struct ExecSpec {
    /// The command; run by `sh -c`.
    pub command: String,
    /// A real terminal of this size, or plain pipes.
    pub tty: Option<TerminalSize>,
    /// Added to, and winning over, the process's environment. Holds secrets.
    pub env: BTreeMap<String, String>,
    /// Standard input is empty from the start (v3 `Disable-Stdin`).
    pub no_input: bool,
    /// Run by the image's ENTRYPOINT, where there is an image.
    pub entrypoint: bool,
}

impl fmt::Debug for ExecSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSpec").field("command", &self.command).field("tty", &self.tty).finish_non_exhaustive()
    }
}

/// The two ends of a running exec.
///
/// Read `output` to its end (it ends when the command has ended and everything it wrote was
/// read), then await `exit`. Dropping `exit` before it is ready means that the client is gone:
/// the command and everything it started is ended.
pub struct ExecStream {
    /// Standard input. Shutting it down (or dropping it) gives the command an end of file.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// Standard output and standard error together. Not read means the command waits.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    /// Exit code: the command's own, or 128 + the signal that ended it.
    pub exit: BoxFuture<'static, i32>,
}

/// What a runtime could not do. Every text says on what, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No process has this id.
    #[error("process not found: {0}; see `convox ps` for those there are")]
    NotFound(String),
    /// The process has ended, so nothing can be run in it.
    #[error("process {0} is not running; see `convox ps` for those that are")]
    NotRunning(String),
    /// There already is a process with this id.
    #[error("process id {0} is taken")]
    Exists(String),
    /// The process could not be started.
    #[error("could not start process {id}: {reason}")]
    Start {
        /// Id of the process.
        id: String,
        /// What went wrong, for the person who deployed it.
        reason: String,
    },
    /// A file or another part of the machine refused.
    #[error("process runtime: {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The system's own word.
        source: std::io::Error,
    },
}

/// Runs processes. Object safe: the Rack holds an `Arc<dyn Runtime>`.
pub trait Runtime: Send + Sync + 'static {
    /// What stands between its processes and the machine.
    fn isolation(&self) -> Isolation;

    /// Starts a process and returns once it runs (or once it is known why not).
    fn start(&self, spec: ProcessSpec) -> BoxFuture<'_, Result<ProcessState, RuntimeError>>;

    /// Ends a process and everything it started: SIGTERM, then after `grace` (the spec's own if
    /// none is given) SIGKILL. Returns when it is gone. Ending an ended process does nothing.
    fn stop<'a>(&'a self, id: &'a str, grace: Option<Duration>) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// The state of one process; ended ones stay known until they are forgotten.
    fn get(&self, id: &str) -> Option<ProcessState>;

    /// The states of all processes, ended ones included, oldest first.
    fn list(&self) -> Vec<ProcessState>;

    /// Waits until a process has ended and returns its last state.
    fn wait<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ProcessState, RuntimeError>>;

    /// Forgets an ended process and what is kept of it. Does nothing to a running one.
    fn forget<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()>;

    /// Runs a command in a running process's directory and environment.
    fn exec<'a>(&'a self, id: &'a str, spec: ExecSpec) -> BoxFuture<'a, Result<ExecStream, RuntimeError>>;

    /// Makes sure of an image, from its registry if the machine has none. `Err` says why there is none.
    fn ensure_image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { Err(format!("{image} cannot be run here: this Rack runs plain processes")) })
    }

    /// Deletes what is kept for an app beyond its processes: its volumes. To be called when no process of it is left.
    fn forget_app<'a>(&'a self, _app: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async { Ok(()) })
    }

    /// Finds the processes of an earlier run of the Rack again. Called once, before anything
    /// else. Returns all that are known: still running ones, and those that ended meanwhile with
    /// their exit code.
    fn adopt(&self) -> BoxFuture<'_, Result<Vec<ProcessState>, RuntimeError>>;
}
