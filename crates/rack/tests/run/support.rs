//! What the tests of the runtime and the scheduler share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use convox_rack::logs::{LogLimits, LogStore};
use convox_rack::router::RouterConfig;
use convox_rack::runtime::{ProcessRuntime, Runtime};
use convox_rack::scheduler::{DesiredApp, Scheduler, SchedulerConfig};

/// Longer than anything here takes on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// Logs and a runtime on a data directory, as the Rack has them.
pub(crate) fn runtime(dir: &Path) -> (LogStore, ProcessRuntime) {
    let logs = LogStore::open(&dir.join("logs"), LogLimits::default()).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_convox-rack"));
    let runtime = ProcessRuntime::new(&dir.join("processes"), program, logs.clone()).unwrap();
    (logs, runtime)
}

/// A scheduler on them, with these apps, and others whose active release cannot be read.
pub(crate) async fn start(
    dir: &Path,
    apps: Vec<DesiredApp>,
    held: BTreeMap<String, String>,
) -> (LogStore, Arc<dyn Runtime>, Arc<Scheduler>) {
    let (logs, runtime) = runtime(dir);
    let runtime: Arc<dyn Runtime> = Arc::new(runtime);
    let config = SchedulerConfig {
        rack: "test".into(),
        dir: dir.join("scheduler"),
        resources: dir.join("resources"),
        program: env!("CARGO_BIN_EXE_convox-rack").into(),
        router: RouterConfig::default(),
    };
    let scheduler = Scheduler::start(config, Arc::clone(&runtime), logs.clone(), apps, held).await.unwrap();
    (logs, runtime, scheduler)
}

/// Ends what still runs under a data directory: processes outlive a Rack by design, but not a
/// test.
pub(crate) fn end_processes(dir: &Path) {
    use std::io::Write as _;
    if let Ok(mut router) = std::os::unix::net::UnixStream::connect(dir.join("scheduler/router.sock")) {
        let _ = router.write_all(b"\"End\"\n");
    }
    let Ok(processes) = std::fs::read_dir(dir.join("processes")) else { return };
    for process in processes.flatten() {
        if let Some(shim) = shim_of(&process.path())
            && !process.path().join("exit.json").exists()
        {
            let _ = rustix::process::kill_process(shim, rustix::process::Signal::TERM);
        }
    }
}

/// The shim of one process directory.
pub(crate) fn shim_of(process: &Path) -> Option<rustix::process::Pid> {
    let started: serde_json::Value = serde_json::from_slice(&std::fs::read(process.join("started.json")).ok()?).ok()?;
    rustix::process::Pid::from_raw(i32::try_from(started["shim"]["pid"].as_i64()?).ok()?)
}

/// Whether a process runs; a zombie does not.
pub(crate) fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(PathBuf::from("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

/// Waits for a condition, with a deadline.
pub(crate) async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
