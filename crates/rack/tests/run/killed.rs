//! A Rack that is killed at any moment loses no process and leaves none behind.
//!
//! The Rack here is this test program again, started with `HOST_DIR` set: a real process that can
//! be killed with all its tasks in whatever state they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use convox_rack::logs::LogQuery;
use convox_rack::manifest::Manifest;
use convox_rack::runtime::{ExecSpec, ProcessStatus};
use convox_rack::scheduler::{DesiredApp, Formation, PromoteOptions};
use futures_util::StreamExt;

use crate::support::{SOON, end_processes, is_running, runtime, start, wait_until};

const MANIFEST: &str = "
environment: [MARK]
services:
  web:
    command: exec perl server.pl
    port: 3000
    scale: 2
    termination: {grace: 1}
  worker:
    command: n=0; while :; do n=$((n+1)); echo line $n; sleep 0.05; done
    termination: {grace: 1}
";

const SERVER: &str = "
use IO::Socket::INET;
my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ENV{PORT}, Listen => 64, ReuseAddr => 1) or die;
while (1) { my $c = $s->accept or next; print $c $ENV{RELEASE}; close $c; }
";

fn release(dir: &Path, number: u32) -> DesiredApp {
    DesiredApp {
        app: "app".into(),
        release: format!("R{number}"),
        manifest: Manifest::parse(MANIFEST).unwrap(),
        env: BTreeMap::from([("MARK".into(), mark(dir))]),
        dir: dir.join("src"),
        ..DesiredApp::default()
    }
}

/// What every process of a test has in its environment, and nobody else.
fn mark(dir: &Path) -> String {
    format!("mark-{}", dir.file_name().unwrap().to_string_lossy())
}

/// The pids of all processes of a test, by whoever they were started and forgotten.
fn marked(dir: &Path) -> Vec<String> {
    let mark = format!("MARK={}\0", mark(dir));
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let pid = entry.file_name().to_string_lossy().into_owned();
        if environ.windows(mark.len()).any(|window| window == mark.as_bytes()) && is_running(&pid) {
            found.push(pid);
        }
    }
    found
}

/// The Rack that is killed: takes up release N, promotes N + 1, and goes on scaling, restarting
/// and running commands until it is.
#[tokio::test]
#[ignore = "a part of the tests below"]
async fn host() {
    let Ok(dir) = std::env::var("HOST_DIR") else { return };
    let number: u32 = std::env::var("HOST_RELEASE").unwrap().parse().unwrap();
    let dir = Path::new(&dir);
    let (_logs, _runtime, scheduler) = start(dir, vec![release(dir, number)], BTreeMap::new()).await;
    std::fs::write(dir.join("up"), "").unwrap();
    for round in 0..1000 {
        let _ = scheduler.promote(release(dir, number + 1 + round % 2), PromoteOptions::default()).await;
        let count = Formation { count: Some(1 + round % 3), ..Formation::default() };
        let _ = scheduler.scale("app", "web", count);
        let _ = scheduler.restart_service("app", "worker");
        for process in scheduler.processes("app") {
            if let Ok(stream) = scheduler.exec("app", &process.id, ExecSpec { command: "sleep 1000".into(), ..ExecSpec::default() }).await {
                tokio::spawn(async move {
                    let _stream = stream;
                    std::future::pending::<()>().await;
                });
            }
        }
    }
}

fn start_host(dir: &Path, number: u32) -> Child {
    let _ = std::fs::remove_file(dir.join("up"));
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::host", "--ignored", "--nocapture"])
        .env("HOST_DIR", dir)
        .env("HOST_RELEASE", number.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn new_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("src")).unwrap();
    std::fs::write(dir.path().join("src/server.pl"), SERVER).unwrap();
    dir
}

/// Different each time, without a dependency: the moment of a kill is to be any.
fn some_millis(most: u64) -> Duration {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    Duration::from_millis(u64::from(nanos / 1000) % most)
}

#[tokio::test]
async fn killed_at_any_moment_it_finds_everything_again_and_nothing_is_left_over() {
    let dir = new_dir();
    let dir = dir.path();
    for number in 0..12 {
        let mut host = start_host(dir, number);
        wait_until("the host is up", || dir.join("up").exists()).await;
        tokio::time::sleep(some_millis(1200)).await;
        host.kill().unwrap();
        host.wait().unwrap();
    }
    let (_logs, runtime, scheduler) = start(dir, vec![release(dir, 99)], BTreeMap::new()).await;
    wait_until("the wanted release runs and nothing else does", || {
        let processes = scheduler.processes("app");
        let is_good = |process: &convox_rack::runtime::ProcessState| process.release == "R99" && process.status == ProcessStatus::Running;
        processes.len() == 3 && processes.iter().all(is_good)
    })
    .await;
    // The worker is a shell with a sleep in it, which comes and goes.
    let known: Vec<String> = runtime.list().iter().filter_map(|process| process.pid).map(|pid| pid.to_string()).collect();
    let deadline = Instant::now() + SOON;
    loop {
        let strangers: Vec<String> = marked(dir).into_iter().filter(|pid| !known.contains(pid) && !is_child_of_any(pid, &known)).collect();
        if strangers.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "left over: {strangers:?}, known: {known:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(std::fs::read_dir(dir.join("processes")).unwrap().count(), 3);
    scheduler.remove("app").await.unwrap();
    wait_until("all are gone", || marked(dir).is_empty()).await;
}

fn is_child_of_any(pid: &str, parents: &[String]) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)).unwrap_or_default().to_owned();
    // Gone while we looked is as good.
    stat.is_empty() || parents.contains(&parent)
}

#[tokio::test]
async fn what_is_said_while_the_rack_is_dead_is_in_the_log() {
    let dir = new_dir();
    let dir = dir.path();
    let (logs, _) = runtime(dir);
    let last_line = || async {
        let query = LogQuery { filter: Some("line ".into()), tail: Some(1), ..LogQuery::default() };
        let line = logs.query("app", query).next().await;
        line.and_then(|line| line.message.strip_prefix("line ")?.parse::<u32>().ok()).unwrap_or(0)
    };
    let mut host = start_host(dir, 0);
    let deadline = Instant::now() + SOON;
    while last_line().await < 5 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    host.kill().unwrap();
    host.wait().unwrap();
    let at_death = last_line().await;
    while last_line().await < at_death + 5 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    end_processes(dir);
    wait_until("all are gone", || marked(dir).is_empty()).await;
}
