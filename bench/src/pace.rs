//! Load at a fixed rate, whatever the answers take: latency as callers see it who do not wait for each other.
//!
//! A thread for each connection, blocking, since the timers of an asynchronous runtime are coarser than what is measured.

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::revoke::wire::Connection;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Host and port, TLS.
    #[arg(long)]
    address: String,
    /// The certificate there.
    #[arg(long)]
    pin: String,
    #[arg(long)]
    path: String,
    /// `Name: value`
    #[arg(long)]
    header: Vec<String>,
    /// Requests per second, of all connections together.
    #[arg(long)]
    rate: u32,
    #[arg(long, default_value_t = 64)]
    connections: u32,
    #[arg(long, default_value_t = 4)]
    seconds: u64,
}

/// What callers saw, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Paced {
    pub(crate) requests: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// Makes the load in a process of its own, on `core`.
pub(crate) fn load(core: usize, arguments: &Arguments) -> anyhow::Result<Paced> {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(std::env::current_exe()?).arg("pace");
    command.args(["--address", &arguments.address, "--pin", &arguments.pin, "--path", &arguments.path]);
    command.args(["--rate", &arguments.rate.to_string(), "--connections", &arguments.connections.to_string()]);
    command.args(["--seconds", &arguments.seconds.to_string()]);
    for header in &arguments.header {
        command.args(["--header", header]);
    }
    let output = command.output().context("cannot run taskset: apt-get install util-linux")?;
    if !output.status.success() {
        bail!("the paced load failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

impl Arguments {
    /// The same load, as it is sent to one contender.
    pub(crate) fn new(base: &str, pin: &str, path: &str, header: Vec<String>, rate: u32, connections: usize, seconds: u64) -> Self {
        let address = base.rsplit('/').next().unwrap_or_default().to_owned();
        let connections = u32::try_from(connections).unwrap_or(u32::MAX);
        Self { address, pin: pin.to_owned(), path: path.to_owned(), header, rate, connections, seconds }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.rate > 0 && arguments.connections > 0, "a rate and connections are needed");
    let mut request = format!("GET {} HTTP/1.1\r\nHost: bench\r\n", arguments.path);
    for header in &arguments.header {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    let each = Duration::from_secs_f64(f64::from(arguments.connections) / f64::from(arguments.rate));
    let opened: Vec<Connection> =
        (0..arguments.connections).map(|_| Connection::open(&arguments.address, &arguments.pin)).collect::<anyhow::Result<_>>()?;
    let begin = Instant::now() + Duration::from_millis(50);
    let end = begin + Duration::from_secs(arguments.seconds);
    let workers: Vec<_> = opened
        .into_iter()
        .zip(0_u32..)
        .map(|(connection, number)| {
            let (request, first) = (request.clone(), begin + each.mul_f64(f64::from(number) / f64::from(arguments.connections)));
            std::thread::spawn(move || work(connection, request.as_bytes(), first, each, end))
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.join().map_err(|_| anyhow::anyhow!("a caller died"))??);
    }
    all.sort_unstable();
    let at = |share: f64| {
        let place = (all.len().saturating_sub(1) as f64 * share) as usize;
        all.get(place).map_or(f64::NAN, |time: &Duration| time.as_secs_f64() * 1000.0)
    };
    let paced = Paced { requests: all.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999) };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&paced)?)?;
    Ok(())
}

fn work(mut connection: Connection, request: &[u8], first: Instant, each: Duration, end: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut all = Vec::new();
    let mut due = first;
    while due < end {
        let wait = due.saturating_duration_since(Instant::now());
        std::thread::sleep(wait);
        // A caller that was woken late is not the server's doing; one that still waited for the answer before is.
        let begun = if wait.is_zero() { due } else { Instant::now() };
        let status = connection.again(request)?;
        ensure!(status == 200, "an answer of {status}");
        all.push(begun.elapsed());
        due += each;
    }
    Ok(all)
}
