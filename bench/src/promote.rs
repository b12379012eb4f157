//! Load on an app while everything is done to it that replaces its processes, and to its Rack what ends Racks: not one request may fail.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::Output;
use crate::measure;
use crate::rack::{HOST, Rack};

/// Callers, each with a connection that it keeps.
const WORKERS: u32 = 64;
/// A connection is given up after so many requests, so that new ones are made all the time.
const PER_CONNECTION: u32 = 200;
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    rack: PathBuf,
    #[arg(long)]
    convox: PathBuf,
    /// Requests per second.
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Times that each thing is done.
    #[arg(long, default_value_t = 3)]
    times: u32,
    /// Processes of the app.
    #[arg(long, default_value_t = 2)]
    processes: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    answered: AtomicU64,
    /// Ticks that no worker was free for.
    late: AtomicU64,
    stop: AtomicBool,
    failed: Mutex<Vec<String>>,
    /// Microseconds, of the step under way.
    latency: Mutex<Vec<u32>>,
}

/// What was done, and how requests fared meanwhile.
struct Step {
    what: &'static str,
    seconds: f64,
    requests: u64,
    failed: usize,
    p50: f64,
    p99: f64,
    longest: f64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let all = (0..std::thread::available_parallelism()?.get()).map(|core| core.to_string()).collect::<Vec<_>>().join(",");
    let mut rack = Rack::start(&arguments.rack, &arguments.convox, directory.path(), &all, &all, arguments.processes)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let counts = Arc::new(Counts::default());
    let workers = runtime.block_on(async { load(rack.http, arguments.rate, &counts) });
    // The app is there until nobody asks it any more.
    let outcome = steps(arguments, &mut rack, &counts);
    counts.stop.store(true, Relaxed);
    runtime.block_on(async {
        let mut workers = workers;
        while workers.join_next().await.is_some() {}
    });
    let steps = outcome?;
    report(arguments, &steps, &counts)
}

fn steps(arguments: &Arguments, rack: &mut Rack, counts: &Arc<Counts>) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut step = |what: &'static str, rack: &mut Rack, work: &mut dyn FnMut(&mut Rack) -> anyhow::Result<()>| -> anyhow::Result<()> {
        counts.latency.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let (begun, failed) = (Instant::now(), failures(counts));
        work(rack).with_context(|| what.to_owned())?;
        // What the end of it brings about belongs to it.
        std::thread::sleep(Duration::from_secs(3));
        let latency = std::mem::take(&mut *counts.latency.lock().unwrap_or_else(PoisonError::into_inner));
        let done = Step::new(what, begun.elapsed(), latency, failures(counts) - failed);
        writeln!(std::io::stderr(), "{what}: {} requests, {} failed, p99 {:.1} ms", done.requests, done.failed, done.p99)?;
        steps.push(done);
        Ok(())
    };
    step("nothing", rack, &mut |_| {
        std::thread::sleep(Duration::from_secs(5));
        Ok(())
    })?;
    for time in 0..arguments.times {
        let colour = format!("COLOUR=shade{time}");
        let (count, more) = (arguments.processes.to_string(), (arguments.processes + 2).to_string());
        step("promote", rack, &mut |rack| rack.convox(&["env", "set", &colour, "-a", "shop", "--promote", "--wait"]))?;
        step("scale up", rack, &mut |rack| {
            rack.convox(&["scale", "web", "--count", &more, "-a", "shop"])?;
            until(rack, arguments.processes as usize + 2)
        })?;
        step("scale down", rack, &mut |rack| {
            rack.convox(&["scale", "web", "--count", &count, "-a", "shop"])?;
            until(rack, arguments.processes as usize)
        })?;
        step("restart", rack, &mut |rack| {
            let before = rack.processes()?;
            rack.convox(&["restart", "-a", "shop"])?;
            wait("the restart", || Ok(rack.processes()?.iter().all(|process| !before.contains(process))))
        })?;
        step("kill -9 of the Rack", rack, &mut |rack| {
            rack.kill()?;
            std::thread::sleep(Duration::from_secs(2));
            rack.launch()?;
            until(rack, arguments.processes as usize)
        })?;
        let colour = format!("COLOUR=tint{time}");
        step("kill -9 of the Rack while it promotes", rack, &mut |rack| {
            let before = rack.processes()?;
            let mut client = rack.convox_beside(&["env", "set", &colour, "-a", "shop", "--promote", "--wait"])?;
            wait("the promotion's begin", || Ok(rack.processes_that(|_| true)?.iter().any(|process| !before.contains(process))))?;
            rack.kill()?;
            rack.launch()?;
            let _ = client.wait();
            wait("the promotion's end", || {
                let now = rack.processes()?;
                Ok(now.len() == arguments.processes as usize && now.iter().all(|process| !before.contains(process)))
            })
        })?;
    }
    Ok(steps)
}

fn until(rack: &Rack, count: usize) -> anyhow::Result<()> {
    wait("as many processes as wanted", || Ok(rack.processes()?.len() == count))
}

fn wait(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_mins(2);
    while Instant::now() < deadline {
        // A Rack that is just coming up refuses; it is asked again.
        if holds().unwrap_or(false) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("never: {what}")
}

fn failures(counts: &Counts) -> usize {
    counts.failed.lock().unwrap_or_else(PoisonError::into_inner).len()
}

impl Step {
    fn new(what: &'static str, time: Duration, mut latency: Vec<u32>, failed: usize) -> Self {
        latency.sort_unstable();
        let at = |share: f64| {
            let place = (latency.len().saturating_sub(1) as f64 * share) as usize;
            latency.get(place).map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
        };
        Self { what, seconds: time.as_secs_f64(), requests: latency.len() as u64, failed, p50: at(0.5), p99: at(0.99), longest: at(1.0) }
    }
}

fn load(address: SocketAddr, rate: u32, counts: &Arc<Counts>) -> JoinSet<()> {
    let mut workers = JoinSet::new();
    let each = Duration::from_secs_f64(f64::from(WORKERS) / f64::from(rate.max(1)));
    for number in 0..WORKERS {
        let first = Instant::now() + each.mul_f64(f64::from(number) / f64::from(WORKERS));
        workers.spawn(work(address, first, each, Arc::clone(counts)));
    }
    workers
}

async fn work(address: SocketAddr, first: Instant, each: Duration, counts: Arc<Counts>) {
    let mut interval = tokio::time::interval_at(first, each);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut connection: Option<(TcpStream, u32)> = None;
    let mut due = first;
    loop {
        let tick = interval.tick().await;
        if counts.stop.load(Relaxed) {
            return;
        }
        counts.late.fetch_add(u64::from(tick.duration_since(due) > each), Relaxed);
        due = tick + each;
        counts.sent.fetch_add(1, Relaxed);
        let begun = Instant::now();
        let kept = connection.take().filter(|(_, used)| *used < PER_CONNECTION);
        let asked = timeout(PATIENCE, ask(address, kept)).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        match asked {
            Ok(kept) => {
                counts.answered.fetch_add(1, Relaxed);
                let micros = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
                counts.latency.lock().unwrap_or_else(PoisonError::into_inner).push(micros);
                connection = Some(kept);
            }
            Err(reason) => counts.failed.lock().unwrap_or_else(PoisonError::into_inner).push(reason),
        }
    }
}

/// One request; nothing is tried again.
async fn ask(address: SocketAddr, kept: Option<(TcpStream, u32)>) -> Result<(TcpStream, u32), String> {
    let (mut stream, used) = match kept {
        Some(kept) => kept,
        None => (TcpStream::connect(address).await.map_err(|error| format!("connecting: {error}"))?, 0),
    };
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("sending on a connection that served {used}: {error}"))?;
    let mut reply = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut reply).await.map_err(|error| format!("reading: {error}"))? == 0 {
            return Err(format!("closed after {} bytes on a connection that served {used}", reply.len()));
        }
        let text = String::from_utf8_lossy(&reply);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(format!("{}: {}", head.lines().next().unwrap_or_default(), body.trim()));
        }
        let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let length = length.ok_or_else(|| format!("no length: {head}"))?;
        if body.len() >= length {
            return Ok((stream, used + 1));
        }
    }
}

fn report(arguments: &Arguments, steps: &[Step], counts: &Counts) -> anyhow::Result<()> {
    let failed = counts.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (sent, answered, late) = (counts.sent.load(Relaxed), counts.answered.load(Relaxed), counts.late.load(Relaxed));
    let conditions = format!(
        "{}; {} requests/s by {WORKERS} callers with kept connections, each renewed after {PER_CONNECTION} requests, through the router to {} processes; nothing is tried again by the callers.",
        measure::machine(),
        arguments.rate,
        arguments.processes
    );
    let mut table = format!(
        "{conditions}\n\n{sent} requests, {answered} answered, **{} failed**; {late} were sent late.\n\n| done meanwhile | s | requests | failed | p50 ms | p99 ms | longest ms |\n|---|--:|--:|--:|--:|--:|--:|\n",
        failed.len()
    );
    for step in steps {
        table.push_str(&format!(
            "| {} | {:.1} | {} | {} | {:.2} | {:.2} | {:.1} |\n",
            step.what, step.seconds, step.requests, step.failed, step.p50, step.p99, step.longest
        ));
    }
    let json = json!({
        "conditions": conditions,
        "sent": sent,
        "answered": answered,
        "failed": failed.len(),
        "late": late,
        "reasons": failed.iter().take(20).collect::<Vec<_>>(),
        "steps": steps.iter().map(|step| json!({
            "what": step.what, "seconds": step.seconds, "requests": step.requests, "failed": step.failed,
            "p50_ms": step.p50, "p99_ms": step.p99, "longest_ms": step.longest,
        })).collect::<Vec<_>>(),
    });
    measure::write(&arguments.output.out.join("load-on-promote.json"), &format!("{json:#}\n"))?;
    measure::write(&arguments.output.out.join("load-on-promote.md"), &table)?;
    std::io::stdout().write_all(table.as_bytes())?;
    if let Some(first) = failed.first() {
        bail!("{} of {sent} requests failed, the first: {first}", failed.len());
    }
    Ok(())
}
