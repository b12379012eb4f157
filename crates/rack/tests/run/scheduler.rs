//! The scheduler with real processes: what an app's owner is promised.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use convox_rack::command::Command;
use convox_rack::logs::{LogQuery, LogStore};
use convox_rack::manifest::Manifest;
use convox_rack::runtime::{ExecSpec, ProcessStatus, Runtime};
use convox_rack::scheduler::{DesiredApp, Formation, OneOff, PromoteError, PromoteOptions, Scheduler};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{self, SOON, end_processes, is_running, wait_until};

/// Answers every request with its release and pid; `/health` with the status in the file `status`.
const SERVER: &str = r#"
use IO::Socket::INET;
$| = 1; $SIG{PIPE} = 'IGNORE';
my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ENV{PORT}, Listen => 64, ReuseAddr => 1) or die "port: $!";
print "listening\n";
while (1) {
    my $c = $s->accept or next;
    my $line = <$c>;
    while (my $h = <$c>) { last if $h =~ /^\r?\n$/ }
    my $status = 200;
    if (($line || '') =~ m{^GET /health} && open my $f, '<', 'status') { chomp($status = <$f>); }
    my $body = "$ENV{RELEASE} $$ $ENV{GREETING}";
    print $c "HTTP/1.1 $status X\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
    close $c;
}
"#;

const WEB: &str = "
environment:
  - GREETING=hi
services:
  web:
    command: exec perl server.pl
    port: 3000
    health: {path: /health, interval: 1, timeout: 1, grace: 1}
    termination: {grace: 2}
";

struct Bench {
    dir: tempfile::TempDir,
    logs: LogStore,
    runtime: Arc<dyn Runtime>,
    scheduler: Arc<Scheduler>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        end_processes(self.dir.path());
    }
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("src")).unwrap();
        std::fs::write(dir.path().join("src/server.pl"), SERVER).unwrap();
        let (logs, runtime, scheduler) = start(dir.path(), Vec::new()).await;
        Self { dir, logs, runtime, scheduler }
    }

    fn release(&self, id: &str, manifest: &str) -> DesiredApp {
        DesiredApp {
            app: "app".into(),
            release: id.into(),
            build: "B1".into(),
            manifest: Manifest::parse(manifest).unwrap(),
            dir: self.dir.path().join("src"),
            ..DesiredApp::default()
        }
    }

    async fn promote(&self, id: &str, manifest: &str) -> Result<(), PromoteError> {
        self.promote_app(self.release(id, manifest)).await
    }

    async fn promote_app(&self, app: DesiredApp) -> Result<(), PromoteError> {
        timeout(SOON, self.scheduler.promote(app, PromoteOptions::default())).await.unwrap()
    }

    fn port(&self) -> u16 {
        self.scheduler.services("app")[0].balancer.unwrap()
    }

    fn pids(&self) -> Vec<String> {
        let processes = self.scheduler.processes("app");
        processes
            .iter()
            .filter(|process| process.status == ProcessStatus::Running)
            .map(|process| process.pid.unwrap().to_string())
            .collect()
    }

    fn count(&self, status: ProcessStatus) -> usize {
        self.scheduler.processes("app").iter().filter(|process| process.status == status).count()
    }

    async fn log(&self) -> String {
        let lines: Vec<String> =
            self.logs.query("app", LogQuery::default()).map(|line| format!("{} {}\n", line.stream, line.message)).collect().await;
        lines.concat()
    }

    async fn wait_for_line(&self, text: &str) -> String {
        let query = LogQuery { follow: true, filter: Some(text.into()), ..LogQuery::default() };
        timeout(SOON, self.logs.query("app", query).next()).await.unwrap().unwrap().message
    }
}

async fn start(dir: &Path, apps: Vec<DesiredApp>) -> (LogStore, Arc<dyn Runtime>, Arc<Scheduler>) {
    support::start(dir, apps, BTreeMap::new()).await
}

async fn get(port: u16) -> Result<String, String> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(SOON, exchange).await.unwrap().map_err(|error| error.to_string())?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(answer),
    }
}

/// Clients that ask without a pause until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(port: u16) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..4).map(|_| {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            tokio::spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    if let Err(error) = get(port).await {
                        failures.push(error);
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        });
        Self { clients: clients.collect(), stop, asked }
    }

    /// How many requests were answered, and the failures.
    async fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.unwrap());
        }
        (self.asked.load(Ordering::Relaxed), failures)
    }
}

#[tokio::test]
async fn a_promoted_service_answers_with_its_environment() {
    let bench = Bench::new().await;
    let mut app = bench.release("R1", WEB);
    app.env.insert("GREETING".into(), "from the release".into());
    bench.promote_app(app).await.unwrap();
    let answer = get(bench.port()).await.unwrap();
    assert!(answer.starts_with("R1 ") && answer.ends_with(" from the release"), "{answer}");
    let state = &bench.scheduler.services("app")[0];
    assert_eq!((state.count, state.running, state.port), (1, 1, Some(3000)));
    let log = bench.log().await;
    assert!(log.contains("system/release/R1 release R1 is running"), "{log}");
}

#[tokio::test]
async fn a_promotion_fails_no_request() {
    let bench = Bench::new().await;
    bench.promote("R1", &WEB.replace("port:", "scale: 2\n    port:")).await.unwrap();
    let old = bench.pids();
    let load = Load::start(bench.port());
    bench.promote("R2", &WEB.replace("port:", "scale: 2\n    port:")).await.unwrap();
    assert!(get(bench.port()).await.unwrap().starts_with("R2 "));
    wait_until("the old processes are gone", || !old.iter().any(|pid| is_running(pid))).await;
    let (asked, failures) = load.stop().await;
    assert!(asked > 20, "{asked}");
    assert_eq!(failures, Vec::<String>::new(), "of {asked}");
    assert_eq!(bench.scheduler.processes("app").len(), 2);
}

#[tokio::test]
async fn a_failed_promotion_leaves_the_old_release_alone_and_says_why() {
    let bench = Bench::new().await;
    bench.promote("R1", WEB).await.unwrap();
    let old = bench.pids();
    let load = Load::start(bench.port());
    let error = bench.promote("R2", &WEB.replace("exec perl server.pl", "echo cannot find the database; exit 3")).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("exited with code 3 (3 failed starts); its last lines:\n  cannot find the database"), "{text}");
    let (_, failures) = load.stop().await;
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(bench.pids(), old);
    assert!(get(bench.port()).await.unwrap().starts_with("R1 "));
    let log = bench.log().await;
    assert!(log.contains("exited with code 3; starting another in 1 s"), "{log}");
    assert!(log.contains("exited with code 3; starting another in 2 s"), "{log}");
    assert!(log.contains("system/release/R2 release R2 not promoted: "), "{log}");
}

#[tokio::test]
async fn a_first_promotion_that_fails_leaves_nothing() {
    let bench = Bench::new().await;
    let unhealthy =
        "services:\n  web:\n    command: exec perl server.pl\n    port: 80\n    health: {path: /health, interval: 1, grace: 1}\n";
    std::fs::write(bench.dir.path().join("src/status"), "500").unwrap();
    let options = PromoteOptions { timeout: Some(Duration::from_secs(3)) };
    let error = bench.scheduler.promote(bench.release("R1", unhealthy), options).await.unwrap_err().to_string();
    assert!(error.contains("service web did not become healthy") && error.contains("listening"), "{error}");
    assert!(bench.scheduler.services("app").is_empty());
    assert!(bench.scheduler.processes("app").is_empty());
}

#[tokio::test]
async fn what_the_environment_lacks_is_named_before_anything_starts() {
    let bench = Bench::new().await;
    let manifest = "services:\n  web:\n    command: sleep 100\n    environment: [SECRET, ALSO, KNOWN=1]\n";
    let error = bench.promote("R1", manifest).await.unwrap_err();
    assert_eq!(error.to_string(), "required env: ALSO, SECRET");
    assert!(bench.runtime.list().is_empty());
}

#[tokio::test]
async fn what_this_rack_cannot_run_is_said_before_anything_starts() {
    let bench = Bench::new().await;
    let error = bench.promote("R1", "services:\n  web:\n    image: nginx\n").await.unwrap_err();
    assert!(error.to_string().contains("this Rack runs plain processes only"), "{error}");
    assert!(bench.runtime.list().is_empty());
}

#[tokio::test]
async fn a_process_that_dies_is_replaced_and_its_code_told() {
    let bench = Bench::new().await;
    bench.promote("R1", WEB).await.unwrap();
    let pid = bench.pids().remove(0);
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let line = bench.wait_for_line("was ended by signal 9 (exit code 137); starting another in 1 s").await;
    assert!(line.starts_with("process "), "{line}");
    wait_until("another one runs", || bench.count(ProcessStatus::Running) == 1).await;
    assert!(get(bench.port()).await.unwrap().starts_with("R1 "));
}

#[tokio::test]
async fn scaling_up_and_down_keeps_serving() {
    let bench = Bench::new().await;
    bench.promote("R1", WEB).await.unwrap();
    let scale = |count| bench.scheduler.scale("app", "web", Formation { count: Some(count), ..Formation::default() }).unwrap();
    scale(3);
    wait_until("three run", || bench.count(ProcessStatus::Running) == 3).await;
    let mut seen = BTreeSet::new();
    for _ in 0..9 {
        seen.insert(get(bench.port()).await.unwrap());
    }
    assert_eq!(seen.len(), 3);
    scale(1);
    wait_until("one is left", || bench.scheduler.processes("app").len() == 1).await;
    get(bench.port()).await.unwrap();
    scale(0);
    wait_until("none is left", || bench.scheduler.processes("app").is_empty()).await;
    assert!(get(bench.port()).await.unwrap_err().starts_with("HTTP/1.1 503 "));
    assert!(bench.scheduler.scale("app", "nope", Formation::default()).is_err());
    assert!(bench.scheduler.scale("nope", "web", Formation::default()).is_err());
}

#[tokio::test]
async fn a_restart_replaces_every_process_and_fails_no_request() {
    let bench = Bench::new().await;
    bench.promote("R1", &WEB.replace("port:", "scale: 2\n    port:")).await.unwrap();
    let old = bench.pids();
    let load = Load::start(bench.port());
    bench.scheduler.restart_service("app", "web").unwrap();
    wait_until("the old processes are gone", || !old.iter().any(|pid| is_running(pid))).await;
    wait_until("two run", || bench.count(ProcessStatus::Running) == 2).await;
    let (_, failures) = load.stop().await;
    assert_eq!(failures, Vec::<String>::new());
    bench.wait_for_line("service web restarted").await;
}

#[tokio::test]
async fn an_unhealthy_process_gets_no_connections_and_comes_back() {
    let bench = Bench::new().await;
    bench.promote("R1", WEB).await.unwrap();
    std::fs::write(bench.dir.path().join("src/status"), "500").unwrap();
    wait_until("it is unhealthy", || bench.count(ProcessStatus::Unhealthy) == 1).await;
    assert!(get(bench.port()).await.unwrap_err().starts_with("HTTP/1.1 503 "));
    std::fs::remove_file(bench.dir.path().join("src/status")).unwrap();
    wait_until("it is healthy again", || bench.count(ProcessStatus::Running) == 1).await;
    get(bench.port()).await.unwrap();
}

#[tokio::test]
async fn a_restarted_rack_finds_its_processes_and_ports_again() {
    let bench = Bench::new().await;
    let two = WEB.replace("port:", "scale: 2\n    port:");
    bench.promote("R1", &two).await.unwrap();
    let (pids, port) = (bench.pids(), bench.port());
    bench.scheduler.shutdown().await;
    let (_, _, second) = start(bench.dir.path(), vec![bench.release("R1", &two)]).await;
    wait_until("both are healthy", || second.services("app")[0].running == 2).await;
    let again: Vec<String> = second.processes("app").iter().map(|process| process.pid.unwrap().to_string()).collect();
    assert_eq!((again, second.services("app")[0].balancer), (pids, Some(port)));
    get(port).await.unwrap();
    second.shutdown().await;
    // Now it wants another release: what ran is surplus.
    let (_, _, third) = start(bench.dir.path(), vec![bench.release("R2", WEB)]).await;
    wait_until("only the new one runs", || {
        let processes = third.processes("app");
        processes.len() == 1 && processes[0].release == "R2" && processes[0].status == ProcessStatus::Running
    })
    .await;
    assert!(get(port).await.unwrap().starts_with("R2 "));
}

#[tokio::test]
async fn what_runs_of_an_app_that_cannot_be_read_runs_on_until_a_release_that_can_takes_over() {
    let bench = Bench::new().await;
    bench.promote("R1", WEB).await.unwrap();
    let (pids, port) = (bench.pids(), bench.port());
    bench.scheduler.shutdown().await;
    let held = BTreeMap::from([("app".to_owned(), "line 3, column 5: unknown key".to_owned())]);
    let (_, _, second) = support::start(bench.dir.path(), Vec::new(), held.clone()).await;
    assert!(get(port).await.unwrap().starts_with("R1 "), "it is served as before");
    assert!(bench.log().await.contains("The active release cannot be read: line 3, column 5: unknown key"));
    let running = second.processes("app");
    assert_eq!((running.len(), running[0].status, running[0].pid.unwrap().to_string()), (1, ProcessStatus::Running, pids[0].clone()));
    let refused = second.scale("app", "web", Formation::default()).unwrap_err().to_string();
    assert!(refused.contains("cannot be changed: line 3, column 5"), "{refused}");

    // A release that fails leaves it as it is; one that works takes its place, and no request fails on the way.
    let load = Load::start(port);
    let failing = second.promote(bench.release("R2", &WEB.replace("exec perl server.pl", "exit 4")), PromoteOptions::default());
    assert!(timeout(SOON, failing).await.unwrap().is_err());
    assert!(is_running(&pids[0]) && get(port).await.unwrap().starts_with("R1 "));
    timeout(SOON, second.promote(bench.release("R3", WEB), PromoteOptions::default())).await.unwrap().unwrap();
    wait_until("the old process is gone", || !is_running(&pids[0])).await;
    let (_, failures) = load.stop().await;
    assert_eq!(failures, Vec::<String>::new());
    assert!(get(port).await.unwrap().starts_with("R3 "));
    second.scale("app", "web", Formation::default()).unwrap();
}

#[tokio::test]
async fn a_host_name_is_the_first_apps_until_no_release_of_it_names_it() {
    let bench = Bench::new().await;
    let named = |app: &str, id: &str, domain: &str| DesiredApp {
        app: app.into(),
        ..bench.release(id, &WEB.replace("port: 3000", &format!("port: 3000\n    domain: {domain}")))
    };
    bench.promote_app(named("app", "R1", "shop.example.com,www.example.com")).await.unwrap();
    for wanted in ["shop.example.com", "other.example.com,WWW.example.com"] {
        let refused = bench.promote_app(named("thief", "R2", wanted)).await.unwrap_err();
        assert!(matches!(&refused, PromoteError::Name { owner, .. } if owner == "app"), "{refused}");
        assert_eq!(bench.scheduler.check_names(&named("thief", "R2", wanted)).unwrap_err().to_string(), refused.to_string());
        assert!(bench.scheduler.services("thief").is_empty(), "nothing was started");
    }
    bench.promote_app(named("app", "R3", "shop.example.com")).await.unwrap();
    bench.promote_app(named("thief", "R4", "www.example.com")).await.unwrap();
    // One that fails has claimed nothing; one that is over gives all back.
    let failing = DesiredApp {
        manifest: Manifest::parse("services: {web: {command: exit 4, domain: a.example.com}}").unwrap(),
        ..named("thief", "R5", "")
    };
    assert!(bench.promote_app(failing).await.is_err());
    bench.promote_app(named("app", "R6", "a.example.com")).await.unwrap();
    bench.scheduler.remove("app").await.unwrap();
    bench.promote_app(named("thief", "R7", "shop.example.com,a.example.com")).await.unwrap();
}

/// Starts the scheduler at a time when a timer of its app is due.
async fn due(bench: &Bench, concurrency: &str) -> (LogStore, Arc<Scheduler>) {
    let text = format!(
        "services: {{web: {{command: exec sleep 1000}}}}\ntimers: {{t: {{service: web, schedule: \"0 0 1 1 *\", command: exec sleep 1000, concurrency: {concurrency}}}}}\n"
    );
    let app = bench.release("R1", &text);
    std::fs::write(bench.dir.path().join("scheduler/timers.json"), r#"{"app": {"t": "2020-06-01T00:00:00Z"}}"#).unwrap();
    let (logs, _, scheduler) = start(bench.dir.path(), vec![app]).await;
    (logs, scheduler)
}

fn runs(scheduler: &Scheduler) -> Vec<String> {
    let runs = scheduler.processes("app").into_iter().filter(|process| process.timer.is_some() && process.status == ProcessStatus::Running);
    runs.map(|process| process.id).collect()
}

#[tokio::test]
async fn a_timer_that_is_due_while_its_last_run_goes_on_does_what_its_manifest_says() {
    let bench = Bench::new().await;
    bench.scheduler.shutdown().await;
    let (_, scheduler) = due(&bench, "Forbid").await;
    wait_until("the timer runs", || runs(&scheduler).len() == 1).await;
    let first = runs(&scheduler);
    scheduler.shutdown().await;
    // A run outlives its Rack, and counts with the next one.
    let (logs, scheduler) = due(&bench, "Forbid").await;
    let query = LogQuery { follow: true, filter: Some("is due and its run before is not over".into()), ..LogQuery::default() };
    timeout(SOON, logs.query("app", query).next()).await.unwrap().unwrap();
    assert_eq!(runs(&scheduler), first);
    scheduler.shutdown().await;
    let (_, scheduler) = due(&bench, "Allow").await;
    wait_until("a second one runs beside it", || runs(&scheduler).len() == 2).await;
    assert!(runs(&scheduler).contains(&first[0]));
    scheduler.shutdown().await;
    let (_, scheduler) = due(&bench, "Replace").await;
    wait_until("both have made room", || runs(&scheduler).len() == 1 && !runs(&scheduler).contains(&first[0])).await;
}

#[tokio::test]
async fn what_ended_while_the_rack_was_away_is_told_and_replaced() {
    let bench = Bench::new().await;
    bench.promote("R1", WEB).await.unwrap();
    let pid = bench.pids().remove(0);
    let record = bench.dir.path().join("processes").join(&bench.scheduler.processes("app")[0].id).join("exit.json");
    bench.scheduler.shutdown().await;
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap(), rustix::process::Signal::KILL).unwrap();
    wait_until("its end is recorded", || record.exists()).await;
    let (_, _, second) = start(bench.dir.path(), vec![bench.release("R1", WEB)]).await;
    wait_until("another one runs", || second.services("app")[0].running == 1).await;
    assert!(bench.log().await.contains("was ended by signal 9 (exit code 137) while the Rack was not running"));
}

#[tokio::test]
async fn there_are_never_two_of_a_singleton() {
    let bench = Bench::new().await;
    let script = "mkdir one || exit 7; trap 'rmdir one; exit 0' TERM; echo alone; while :; do sleep 0.1; done";
    let manifest = format!("services:\n  web:\n    singleton: true\n    command: \"{script}\"\n    termination: {{grace: 5}}\n");
    bench.promote("R1", &manifest).await.unwrap();
    bench.promote("R2", &manifest).await.unwrap();
    let log = bench.log().await;
    assert!(!log.contains("code 7"), "{log}");
    let running = bench.scheduler.processes("app");
    assert_eq!((running.len(), running[0].release.as_str()), (1, "R2"));
}

#[tokio::test]
async fn a_singleton_whose_successor_fails_comes_back() {
    let bench = Bench::new().await;
    let manifest = "services:\n  web:\n    singleton: true\n    command: exec sleep 1000\n";
    bench.promote("R1", manifest).await.unwrap();
    bench.promote("R2", &manifest.replace("exec sleep 1000", "exit 1")).await.unwrap_err();
    wait_until("the old one runs again", || {
        let processes = bench.scheduler.processes("app");
        processes.len() == 1 && processes[0].release == "R1" && processes[0].status == ProcessStatus::Running
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_promotion_is_undone_and_a_second_one_has_to_wait() {
    let bench = Bench::new().await;
    bench.promote("R1", WEB).await.unwrap();
    std::fs::write(bench.dir.path().join("src/slow.pl"), "sleep 1000").unwrap();
    let (scheduler, app) = (Arc::clone(&bench.scheduler), bench.release("R2", &WEB.replace("server.pl", "slow.pl")));
    let promotion = tokio::spawn(async move { scheduler.promote(app, PromoteOptions::default()).await });
    wait_until("a new process starts", || bench.scheduler.processes("app").len() == 2).await;
    assert!(matches!(bench.promote("R3", WEB).await, Err(PromoteError::Busy)));
    assert!(bench.scheduler.cancel("app"));
    let outcome = timeout(SOON, promotion).await.unwrap().unwrap();
    assert!(matches!(outcome, Err(PromoteError::Cancelled { .. })));
    assert_eq!(bench.scheduler.processes("app").len(), 1);
    assert!(!bench.scheduler.cancel("app"));
    bench.promote("R3", WEB).await.unwrap();
}

#[tokio::test]
async fn a_stopped_process_is_replaced_at_once() {
    let bench = Bench::new().await;
    bench.promote("R1", WEB).await.unwrap();
    let id = bench.scheduler.processes("app")[0].id.clone();
    bench.scheduler.stop_process("app", &id).await.unwrap();
    assert!(bench.scheduler.stop_process("other", &id).await.is_err());
    wait_until("another one runs", || bench.count(ProcessStatus::Running) == 1).await;
    assert_ne!(bench.scheduler.processes("app")[0].id, id);
    assert!(bench.log().await.contains("was stopped; starting another"));
}

#[tokio::test]
async fn a_one_off_has_the_services_environment_and_keeps_its_exit_code() {
    let bench = Bench::new().await;
    bench.promote("R1", WEB).await.unwrap();
    let release = bench.release("R1", WEB);
    let one_off = OneOff {
        service: "web".into(),
        command: Command::text("echo $GREETING $EXTRA $RELEASE; exit 5"),
        env: BTreeMap::from([("EXTRA".into(), "more".into())]),
        ..OneOff::default()
    };
    let process = bench.scheduler.run_one_off(&release, one_off).await.unwrap();
    wait_until("it has ended", || bench.scheduler.process("app", &process.id).unwrap().exit_code == Some(5)).await;
    assert!(bench.log().await.contains(&format!("service/web/{} hi more R1", process.id)));
    assert_eq!(bench.count(ProcessStatus::Failed), 1);
    let unknown = bench.scheduler.run_one_off(&release, OneOff { service: "nope".into(), ..OneOff::default() }).await;
    assert!(unknown.is_err());
}

#[tokio::test]
async fn a_run_whose_client_goes_away_leaves_nothing() {
    let bench = Bench::new().await;
    let release = bench.release("R1", WEB);
    let one_off = OneOff { service: "web".into(), command: Command::text("sleep 3600"), ..OneOff::default() };
    let process = bench.scheduler.run_one_off(&release, one_off.clone()).await.unwrap();
    let exec = |command: &str| bench.scheduler.exec("app", &process.id, ExecSpec { command: command.into(), ..ExecSpec::default() });
    // A session that ends in order leaves the process to its client.
    let stream = exec("exit 3").await.unwrap();
    assert_eq!(timeout(SOON, stream.exit).await.unwrap(), 3);
    assert_eq!(bench.scheduler.process("app", &process.id).unwrap().status, ProcessStatus::Running);
    drop(exec("sleep 1000").await.unwrap());
    wait_until("the sleep is stopped", || bench.scheduler.process("app", &process.id).unwrap().status.is_final()).await;
}

#[tokio::test]
async fn a_removed_app_leaves_no_process_and_no_port() {
    let bench = Bench::new().await;
    bench.promote("R1", WEB).await.unwrap();
    let release = bench.release("R1", WEB);
    let one_off = OneOff { service: "web".into(), command: Command::text("sleep 1000"), ..OneOff::default() };
    bench.scheduler.run_one_off(&release, one_off).await.unwrap();
    let pids: Vec<String> = bench.runtime.list().iter().map(|process| process.pid.unwrap().to_string()).collect();
    assert_eq!(pids.len(), 2);
    let port = bench.port();
    timeout(SOON, bench.scheduler.remove("app")).await.unwrap().unwrap();
    assert!(!pids.iter().any(|pid| is_running(pid)));
    assert!(bench.runtime.list().is_empty());
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    assert!(!std::fs::read_to_string(bench.dir.path().join("scheduler/ports.json")).unwrap().contains("app"));
}

#[tokio::test]
async fn a_service_that_loses_its_port_is_served_until_the_switch() {
    let bench = Bench::new().await;
    bench.promote("R1", WEB).await.unwrap();
    let port = bench.port();
    let without = "services:\n  web:\n    command: exit 1\n";
    bench.promote("R2", without).await.unwrap_err();
    assert!(get(port).await.unwrap().starts_with("R1 "));
    bench.promote("R3", &without.replace("exit 1", "exec sleep 1000")).await.unwrap();
    assert_eq!(bench.scheduler.services("app")[0].balancer, None);
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

#[tokio::test]
async fn linked_services_find_each_other() {
    let bench = Bench::new().await;
    let manifest = format!("{WEB}  asker:\n    links: [web]\n    command: echo url $WEB_URL; exec sleep 1000\n");
    bench.promote("R1", &manifest).await.unwrap();
    let line = bench.wait_for_line("url http").await;
    assert_eq!(line, format!("url http://127.0.0.1:{}", bench.port()));
}

#[tokio::test]
async fn the_example_apps_run() {
    let bench = Bench::new().await;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for name in ["hello-web", "worker"] {
        let mut app = bench.release("R1", &std::fs::read_to_string(examples.join(name).join("convox.yml")).unwrap());
        app.app = name.into();
        app.dir = examples.join(name).canonicalize().unwrap();
        app.env.insert("GREETING".into(), "Good morning".into());
        timeout(SOON, bench.scheduler.promote(app, PromoteOptions::default())).await.unwrap().unwrap();
    }
    let port = bench.scheduler.services("hello-web")[0].balancer.unwrap();
    assert!(get(port).await.unwrap().starts_with("Good morning from R1, process "));
    let mut logs = bench.logs.query("hello-web", LogQuery { filter: Some("GET / 200".into()), follow: true, ..LogQuery::default() });
    timeout(SOON, logs.next()).await.unwrap().unwrap();
    let mut logs = bench.logs.query("worker", LogQuery { filter: Some("job 1 done".into()), follow: true, ..LogQuery::default() });
    timeout(SOON, logs.next()).await.unwrap().unwrap();
}
