//! The process runtime with real shims and real processes.

use std::collections::BTreeMap;
use std::time::Duration;

use convox_rack::logs::{LogLimits, LogQuery, LogStore, MESSAGE_CAP};
use convox_rack::runtime::{ExecSpec, ExecStream, ProcessRuntime, ProcessSpec, ProcessStatus, Runtime, RuntimeError, TerminalSize};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{SOON, end_processes, is_running, runtime, shim_of, wait_until};

struct Bench {
    dir: tempfile::TempDir,
    logs: LogStore,
    runtime: ProcessRuntime,
}

impl Drop for Bench {
    fn drop(&mut self) {
        end_processes(self.dir.path());
    }
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (logs, runtime) = runtime(dir.path());
        Self { dir, logs, runtime }
    }

    fn spec(&self, id: &str, script: &str) -> ProcessSpec {
        ProcessSpec {
            id: id.into(),
            app: "app".into(),
            service: "web".into(),
            release: "R1".into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            env: BTreeMap::from([("PATH".into(), std::env::var("PATH").unwrap()), ("GREETING".into(), "hello canary-7f3a".into())]),
            dir: self.dir.path().to_owned(),
            stop_grace: Duration::from_secs(5),
            ..ProcessSpec::default()
        }
    }

    async fn start(&self, id: &str, script: &str) {
        self.runtime.start(self.spec(id, script)).await.unwrap();
    }

    async fn log(&self) -> Vec<String> {
        self.logs.query("app", LogQuery::default()).map(|line| format!("{} {}", line.stream, line.message)).collect().await
    }

    async fn wait_for_line(&self, text: &str) -> String {
        let query = LogQuery { follow: true, filter: Some(text.into()), ..LogQuery::default() };
        timeout(SOON, self.logs.query("app", query).next()).await.unwrap().unwrap().message
    }

    async fn code(&self, id: &str) -> i32 {
        timeout(SOON, self.runtime.wait(id)).await.unwrap().unwrap().exit_code.unwrap()
    }

    async fn exec(&self, id: &str, command: &str, tty: Option<TerminalSize>) -> ExecStream {
        let spec = ExecSpec { command: command.into(), tty, ..ExecSpec::default() };
        self.runtime.exec(id, spec).await.unwrap()
    }
}

async fn finish(mut stream: ExecStream) -> (String, i32) {
    let mut output = Vec::new();
    timeout(SOON, stream.output.read_to_end(&mut output)).await.unwrap().unwrap();
    let code = timeout(SOON, stream.exit).await.unwrap();
    (String::from_utf8_lossy(&output).into_owned(), code)
}

#[tokio::test]
async fn output_is_kept_line_by_line_and_the_exit_code_recorded() {
    let bench = Bench::new();
    bench.start("a1", "echo $GREETING; printf 'no end'; echo oops >&2; exit 3").await;
    assert_eq!(bench.code("a1").await, 3);
    let mut log = bench.log().await;
    log.sort();
    assert_eq!(log, ["service/web/a1 hello canary-7f3a", "service/web/a1 no end", "service/web/a1 oops"]);
    assert_eq!(bench.runtime.get("a1").unwrap().status, ProcessStatus::Failed);
}

/// The most memory that a process had so far, in KB.
fn most_memory(pid: rustix::process::Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_flood_of_output_takes_bounded_disk_and_memory() {
    let dir = tempfile::tempdir().unwrap();
    let limits = LogLimits { segment_bytes: 1 << 20, segments: 4, ..LogLimits::default() };
    let logs = LogStore::open(&dir.path().join("logs"), limits).unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_convox-rack"));
    let runtime = ProcessRuntime::new(&dir.path().join("processes"), program, logs.clone()).unwrap();
    let bench = Bench { dir, logs, runtime };
    // Many lines, then one that does not end.
    let flood = "yes 'a line of a flood that goes on and on' | head -c 40000000; head -c 40000000 /dev/zero | tr '\\0' x; echo; echo the end; sleep 1000";
    bench.start("a1", flood).await;
    bench.wait_for_line("the end").await;
    let shim = shim_of(&bench.dir.path().join("processes/a1")).unwrap();
    let memory = most_memory(shim);
    assert!(memory < 64 << 10, "the shim had {memory} KB");
    let kept: u64 = std::fs::read_dir(bench.dir.path().join("logs/app")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!((3 << 20..6 << 20).contains(&kept), "{kept} bytes of 80 MB are kept in four files of 1 MB");
    let lines = bench.log().await;
    assert!(lines.iter().all(|line| line.len() <= MESSAGE_CAP + "service/web/a1 ".len()), "long lines come in pieces");
    assert_eq!(lines.last().unwrap(), "service/web/a1 the end");
    bench.runtime.stop("a1", Some(Duration::ZERO)).await.unwrap();
}

#[tokio::test]
async fn a_signal_becomes_its_number_and_128() {
    let bench = Bench::new();
    bench.start("a1", "kill -USR1 $$; sleep 100").await;
    assert_eq!(bench.code("a1").await, 128 + 10);
}

#[tokio::test]
async fn a_command_that_is_not_there_says_so() {
    let bench = Bench::new();
    let mut spec = bench.spec("a1", "");
    spec.command = vec!["no-such-program-here".into()];
    let error = bench.runtime.start(spec).await.unwrap_err();
    assert!(error.to_string().contains("command not found: no-such-program-here"), "{error}");
    assert!(bench.runtime.list().is_empty());
    assert_eq!(std::fs::read_dir(bench.dir.path().join("processes")).unwrap().count(), 0);
}

#[tokio::test]
async fn stop_ends_the_whole_group_and_waits_for_it() {
    let bench = Bench::new();
    // A grandchild in a session of its own, and one that ignores SIGTERM.
    let script =
        "setsid sh -c 'echo away $$; sleep 1000' & (trap '' TERM; echo stubborn $(sh -c 'echo $PPID'); while :; do sleep 1; done) & wait";
    let mut spec = bench.spec("a1", script);
    spec.stop_grace = Duration::from_secs(1);
    bench.runtime.start(spec).await.unwrap();
    let away = bench.wait_for_line("away ").await;
    let stubborn = bench.wait_for_line("stubborn ").await;
    let pids: Vec<&str> = [&away, &stubborn].map(|line| line.split_once(' ').unwrap().1).to_vec();
    assert!(pids.iter().all(|pid| is_running(pid)));
    timeout(SOON, bench.runtime.stop("a1", None)).await.unwrap().unwrap();
    assert!(!pids.iter().any(|pid| is_running(pid)));
    assert_eq!(bench.runtime.get("a1").unwrap().exit_code, Some(143));
}

#[tokio::test]
async fn grandchildren_end_when_the_process_does() {
    let bench = Bench::new();
    bench.start("a1", "setsid sh -c 'sleep 1000' >/dev/null 2>&1 & echo pid $!; exit 0").await;
    let line = bench.wait_for_line("pid ").await;
    assert_eq!(bench.code("a1").await, 0);
    assert!(!is_running(line.strip_prefix("pid ").unwrap()));
}

#[tokio::test]
async fn sigterm_is_passed_on_and_its_handler_may_finish() {
    let bench = Bench::new();
    bench.start("a1", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done").await;
    bench.wait_for_line("ready").await;
    timeout(SOON, bench.runtime.stop("a1", None)).await.unwrap().unwrap();
    assert_eq!(bench.runtime.get("a1").unwrap().exit_code, Some(7));
    assert!(bench.log().await.contains(&"service/web/a1 bye".to_owned()));
}

#[tokio::test]
async fn no_secret_is_in_any_argument_list_and_the_kept_one_goes_with_the_process() {
    let bench = Bench::new();
    bench.start("a1", "echo up; sleep 1000").await;
    bench.wait_for_line("up").await;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains("canary-7f3a"));
    }
    use std::os::unix::fs::PermissionsExt;
    let env = bench.dir.path().join("processes/a1/env.json");
    assert_eq!(std::fs::metadata(&env).unwrap().permissions().mode() & 0o777, 0o600);
    timeout(SOON, bench.runtime.stop("a1", Some(Duration::ZERO))).await.unwrap().unwrap();
    assert!(!env.exists());
    bench.runtime.forget("a1").await;
    assert!(!bench.dir.path().join("processes/a1").exists());
    assert!(bench.runtime.get("a1").is_none());
}

#[tokio::test]
async fn another_runtime_finds_what_runs_and_what_ended() {
    let bench = Bench::new();
    bench.start("runs", "echo up; sleep 1000").await;
    bench.start("ended", "exit 9").await;
    assert_eq!(bench.code("ended").await, 9);
    let pid = bench.runtime.get("runs").unwrap().pid;
    let (_, second) = runtime(bench.dir.path());
    let found = second.adopt().await.unwrap();
    let status: BTreeMap<_, _> = found.iter().map(|state| (state.id.as_str(), (state.status, state.exit_code))).collect();
    assert_eq!(status["runs"], (ProcessStatus::Running, None));
    assert_eq!(status["ended"], (ProcessStatus::Failed, Some(9)));
    assert_eq!(second.get("runs").unwrap().pid, pid);
    timeout(SOON, second.stop("runs", None)).await.unwrap().unwrap();
    assert_eq!(second.get("runs").unwrap().exit_code, Some(143));
}

#[tokio::test]
async fn everything_can_be_ended_without_a_rack() {
    let bench = Bench::new();
    bench.start("a1", "sleep 1000").await;
    bench.start("a2", "sleep 1000").await;
    let (_, second) = runtime(bench.dir.path());
    assert_eq!(timeout(SOON, second.stop_all()).await.unwrap().unwrap(), 2);
    assert!(second.list().is_empty());
    assert_eq!(second.stop_all().await.unwrap(), 0);
}

#[tokio::test]
async fn a_pid_that_went_to_somebody_else_is_left_alone() {
    let bench = Bench::new();
    bench.start("a1", "exit 0").await;
    bench.code("a1").await;
    // As if the shim had been killed before it recorded the end, and a stranger had its pid.
    let stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let dir = bench.dir.path().join("processes/a1");
    std::fs::remove_file(dir.join("exit.json")).unwrap();
    let started = std::fs::read_to_string(dir.join("started.json")).unwrap();
    let mut started: serde_json::Value = serde_json::from_str(&started).unwrap();
    started["shim"]["pid"] = stranger.id().into();
    started["process"]["pid"] = stranger.id().into();
    std::fs::write(dir.join("started.json"), started.to_string()).unwrap();
    let (_, second) = runtime(bench.dir.path());
    let found = second.adopt().await.unwrap();
    assert_eq!(found[0].exit_code, Some(137));
    assert!(is_running(&stranger.id().to_string()));
    let mut stranger = stranger;
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn a_directory_without_a_living_shim_is_cleaned() {
    let bench = Bench::new();
    let dir = bench.dir.path().join("processes/stale");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("lock"), "").unwrap();
    std::fs::write(dir.join("env.json"), "{}").unwrap();
    assert!(bench.runtime.adopt().await.unwrap().is_empty());
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_killed_shim_takes_its_process_along() {
    let bench = Bench::new();
    bench.start("a1", "echo pid $$; sleep 1000").await;
    let line = bench.wait_for_line("pid ").await;
    let shim = shim_of(&bench.dir.path().join("processes/a1")).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    assert_eq!(bench.code("a1").await, 137);
    wait_until("the process is gone", || !is_running(line.strip_prefix("pid ").unwrap())).await;
}

#[tokio::test]
async fn exec_on_pipes_has_the_processes_environment_and_gives_its_code() {
    let bench = Bench::new();
    bench.start("a1", "sleep 1000").await;
    let mut stream = bench.exec("a1", "cat; echo $GREETING >&2; pwd; exit 42", None).await;
    stream.input.write_all(b"from outside\n").await.unwrap();
    stream.input.shutdown().await.unwrap();
    let (output, code) = finish(stream).await;
    assert_eq!(output, format!("from outside\nhello canary-7f3a\n{}\n", bench.dir.path().display()));
    assert_eq!(code, 42);
}

#[tokio::test]
async fn ten_megabytes_arrive_intact_on_pipes_and_on_a_terminal() {
    let bench = Bench::new();
    bench.start("a1", "sleep 1000").await;
    let command = "perl -e 'print \"0123456789abcde\\n\" x (10 * 1024 * 64)'";
    let expected = 10 * 1024 * 64;
    let (output, code) = finish(bench.exec("a1", command, None).await).await;
    assert_eq!((output.len(), code), (expected * 16, 0));
    assert!(output.lines().all(|line| line == "0123456789abcde"));
    let (output, code) = finish(bench.exec("a1", command, Some(TerminalSize::default())).await).await;
    assert_eq!((output.lines().count(), code), (expected, 0));
    assert!(output.lines().all(|line| line == "0123456789abcde"));
}

#[tokio::test]
async fn a_terminal_has_its_size_and_is_the_controlling_one() {
    let bench = Bench::new();
    bench.start("a1", "sleep 1000").await;
    let size = TerminalSize { rows: 33, columns: 121 };
    let (output, code) =
        finish(bench.exec("a1", "stty size; test -t 0 && test -t 1 && test -t 2 && echo all; echo tty > /dev/tty", Some(size)).await).await;
    assert_eq!((output.as_str(), code), ("33 121\r\nall\r\ntty\r\n", 0));
}

#[tokio::test]
async fn ctrl_c_reaches_the_command_and_not_the_process() {
    let bench = Bench::new();
    bench.start("a1", "sleep 1000").await;
    let mut stream = bench.exec("a1", "echo ready; exec sleep 1000", Some(TerminalSize::default())).await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"ready\r\n") {
        let count = timeout(SOON, stream.output.read_buf(&mut seen)).await.unwrap().unwrap();
        assert!(count > 0);
    }
    stream.input.write_all(&[3]).await.unwrap();
    let (_, code) = finish(stream).await;
    assert_eq!(code, 130);
    assert_eq!(bench.runtime.get("a1").unwrap().status, ProcessStatus::Running);
}

#[tokio::test]
async fn an_interactive_shell_has_job_control() {
    let bench = Bench::new();
    bench.start("a1", "sleep 1000").await;
    let mut stream = bench.exec("a1", "PS1= exec bash --norc --noprofile -i", Some(TerminalSize::default())).await;
    let mut seen = Vec::new();
    // It speaks once its child is there: a shell that is stopped between vfork and exec of a child cannot stop itself, on any terminal.
    stream.input.write_all(b"stty -echo; sh -c 'sleep 1000 & echo go; wait'\n").await.unwrap();
    while !String::from_utf8_lossy(&seen).contains("go\r\n") {
        timeout(SOON, stream.output.read_buf(&mut seen)).await.unwrap().unwrap();
    }
    // Ctrl-Z.
    stream.input.write_all(&[26]).await.unwrap();
    while !String::from_utf8_lossy(&seen).contains("Stopped") {
        timeout(SOON, stream.output.read_buf(&mut seen)).await.unwrap().unwrap();
    }
    // Asked once, a shell stays for a job that it does not yet know to be dead; asked twice, it goes.
    stream.input.write_all(b"kill -9 %1\nexit 3\nexit 3\n").await.unwrap();
    assert_eq!(finish(stream).await.1, 3);
}

#[tokio::test]
async fn an_end_of_input_reaches_a_program_on_a_terminal() {
    let bench = Bench::new();
    bench.start("a1", "sleep 1000").await;
    let mut stream = bench.exec("a1", "stty -echo; echo ready; cat; echo done", Some(TerminalSize::default())).await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"ready\r\n") {
        timeout(SOON, stream.output.read_buf(&mut seen)).await.unwrap().unwrap();
    }
    stream.input.write_all(b"one\ntwo").await.unwrap();
    stream.input.shutdown().await.unwrap();
    assert_eq!(finish(stream).await, ("one\r\ntwodone\r\n".to_owned(), 0));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_everything_it_started() {
    let bench = Bench::new();
    bench.start("a1", "sleep 1000").await;
    for tty in [None, Some(TerminalSize::default())] {
        let command = "trap '' HUP TERM; setsid sleep 1000 & echo $$ $!; wait; sleep 1000";
        let mut stream = bench.exec("a1", command, tty).await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"\n") {
            timeout(SOON, stream.output.read_buf(&mut seen)).await.unwrap().unwrap();
        }
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.split_whitespace().all(is_running), "{seen}");
        drop(stream);
        wait_until("all are gone", || !seen.split_whitespace().any(is_running)).await;
    }
}

#[tokio::test]
async fn exec_ends_with_the_process_it_runs_in() {
    let bench = Bench::new();
    bench.start("a1", "sleep 1000").await;
    let stream = bench.exec("a1", "sleep 1000", None).await;
    timeout(SOON, bench.runtime.stop("a1", Some(Duration::ZERO))).await.unwrap().unwrap();
    finish(stream).await;
    let refused = bench.runtime.exec("a1", ExecSpec::default()).await.err();
    assert!(matches!(refused, Some(RuntimeError::NotRunning(_))));
}

#[tokio::test]
async fn a_reader_that_does_not_read_makes_the_command_wait() {
    let bench = Bench::new();
    bench.start("a1", "sleep 1000").await;
    let marker = bench.dir.path().join("done");
    let command = format!("head -c 1000000 /dev/zero; touch {}", marker.display());
    let stream = bench.exec("a1", &command, None).await;
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_millis(300) {
        assert!(!marker.exists());
        tokio::task::yield_now().await;
    }
    let (output, code) = finish(stream).await;
    assert_eq!((output.len(), code), (1_000_000, 0));
    assert!(marker.exists());
}
