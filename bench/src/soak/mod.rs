//! A long trial: two Consoles on one PostgreSQL and three organizations with a real Rack each, under 70 % of the load that they take here, with
//! logs open, while Racks are killed, PostgreSQL is stopped and the clock jumps.
//!
//! Every answer says by its content which Rack gave it. What fails must be explained by an outage of the very thing that was asked; memory
//! and descriptors of the servers stay as they were.

mod caller;
mod faults;
mod ground;
mod load;
mod sizes;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;

use self::faults::Outage;
use self::ground::Ground;
use self::load::{Tally, lock};
use self::sizes::Sizes;
use crate::{Output, measure};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Directory of the binaries to test: convox-console and convox-rack.
    #[arg(long)]
    bin: PathBuf,
    /// How long it lasts.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Seconds at full load, from which 70 % are taken.
    #[arg(long, default_value_t = 15)]
    calibrate: u64,
    /// Requests a second, instead of finding out.
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds between two outages.
    #[arg(long, default_value_t = 15)]
    pause: u64,
    /// Percent of the time after which memory and descriptors stay as they are.
    #[arg(long, default_value_t = 25.0)]
    warm_up: f64,
    /// Percent that they may grow all the same.
    #[arg(long, default_value_t = 2.0)]
    growth: f64,
    /// Leave the clock alone.
    #[arg(long)]
    no_jumps: bool,
    #[command(flatten)]
    output: Output,
}

/// Descriptors that come and go.
const SPARE: f64 = 2.0;

struct Found {
    most: f64,
    rate: f64,
    seconds: f64,
    outages: Vec<Outage>,
    sizes: Vec<Sizes>,
    warm: Instant,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    crate::origin::descriptors()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let tally = Arc::<Tally>::default();
    let found = runtime.block_on(trial(arguments, &tally))?;
    report(arguments, &tally, &found)
}

async fn trial(arguments: &Arguments, tally: &Arc<Tally>) -> anyhow::Result<Found> {
    let mut ground = Ground::start(&arguments.bin, !arguments.no_jumps).await?;
    let mut logs = load::logs(&ground, tally)?;
    let mut workers = load::workers(&ground, tally)?;
    let (most, rate) = match arguments.rate {
        Some(rate) => (f64::NAN, rate),
        None => {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let (began, before) = (Instant::now(), tally.answered.load(Relaxed));
            tokio::time::sleep(Duration::from_secs(arguments.calibrate)).await;
            let most = (tally.answered.load(Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
            (most, most * 0.7)
        }
    };
    tally.pace(rate);
    writeln!(std::io::stderr(), "at most {most:.0} requests/s here; {rate:.0} from now on")?;
    lock(&tally.latency).clear();
    let (began, long) = (Instant::now(), Duration::from_secs_f64(arguments.minutes * 60.0));
    let stop = Arc::<AtomicBool>::default();
    // Those that are never killed.
    let mut of: Vec<_> = ground.consoles.iter().enumerate().map(|(number, console)| (format!("Console {number}"), console.pid())).collect();
    of.extend(ground.racks.first().map(|rack| ("Rack 0".to_owned(), rack.pid())));
    let sizes = sizes::follow(of, &stop);
    let outages = faults::go_on(&mut ground, Duration::from_secs(arguments.pause), began + long).await;
    stop.store(true, Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    let sizes = sizes.join().map_err(|_| anyhow::anyhow!("the sizes were not looked at"))?;
    tally.stop();
    logs.abort_all();
    while workers.join_next().await.is_some() {}
    while logs.join_next().await.is_some() {}
    let outages = outages.context("what happens meanwhile could not be done")?;
    Ok(Found { most, rate, seconds, outages, sizes, warm: began + long.mul_f64(arguments.warm_up / 100.0) })
}

fn report(arguments: &Arguments, tally: &Tally, found: &Found) -> anyhow::Result<()> {
    let (answered, audited, lines) = (tally.answered.load(Relaxed), tally.audited.load(Relaxed), tally.lines.load(Relaxed));
    let wrong = lock(&tally.wrong).clone();
    let troubles = lock(&tally.troubles);
    let (mut explained, mut unexplained) = (BTreeMap::<&str, usize>::new(), Vec::new());
    for trouble in troubles.iter() {
        match found.outages.iter().find(|outage| outage.explains(trouble)) {
            Some(outage) => *explained.entry(outage.name()).or_default() += 1,
            None => unexplained.push(format!("rack {}: {}", trouble.rack, trouble.what)),
        }
    }
    let mut events = BTreeMap::<&str, usize>::new();
    for outage in &found.outages {
        *events.entry(outage.name()).or_default() += 1;
    }
    let mut latency = lock(&tally.latency).clone();
    latency.sort_unstable();
    let at = |share: f64| {
        latency.get((latency.len().saturating_sub(1) as f64 * share) as usize).map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    };
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(at);

    let mut table = format!(
        "{}; {:.1} minutes at {:.0} requests/s (at most {:.0} were taken here), to {} Racks through {} Consoles on one PostgreSQL; {} log streams open at the end.\n\n\
         {answered} requests answered, {audited} of them audited; {lines} lines of logs; **{} from a wrong Rack**. p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms.\n\n\
         | happened | times | failed for it |\n|---|--:|--:|\n",
        measure::machine(),
        found.seconds / 60.0,
        found.rate,
        found.most,
        ground::RACKS,
        ground::CONSOLES,
        tally.open.load(Relaxed),
        wrong.len(),
    );
    for (what, times) in &events {
        table.push_str(&format!("| {what} | {times} | {} |\n", explained.get(what).copied().unwrap_or(0)));
    }
    table.push_str(&format!("| nothing that explains it | | {} |\n", unexplained.len()));
    table.push_str("\n| server | MB after warming up | MB at the end | growth % | descriptors | at the end |\n|---|--:|--:|--:|--:|--:|\n");
    let (mut sizes, mut grown) = (Vec::new(), Vec::new());
    for one in &found.sizes {
        let (memory, descriptors) =
            one.changes(found.warm, &found.outages).with_context(|| format!("{} was not looked at for long enough", one.name))?;
        let growth = memory.growth();
        table.push_str(&format!(
            "| {} | {:.1} | {:.1} | {growth:.1} | {:.0} | {:.0} |\n",
            one.name, memory.first, memory.last, descriptors.first, descriptors.last
        ));
        if growth > arguments.growth {
            grown.push(format!("{}: memory by {growth:.1} %", one.name));
        }
        if descriptors.last > descriptors.first + SPARE && descriptors.growth() > arguments.growth {
            grown.push(format!("{}: descriptors from {:.0} to {:.0}", one.name, descriptors.first, descriptors.last));
        }
        sizes.push(json!({
            "server": one.name, "megabytes": [memory.first, memory.last], "growth_percent": growth, "descriptors": [descriptors.first, descriptors.last],
        }));
    }
    let json = json!({
        "machine": measure::machine(), "seconds": found.seconds, "most_per_second": found.most, "rate": found.rate, "answered": answered,
        "audited": audited, "log_lines": lines, "wrong": wrong, "events": events, "failed_for": explained,
        "unexplained": unexplained.len(), "first_unexplained": unexplained.iter().take(20).collect::<Vec<_>>(),
        "p50_ms": p50, "p99_ms": p99, "p999_ms": p999, "sizes": sizes,
    });
    measure::write(&arguments.output.out.join("soak.json"), &format!("{json:#}\n"))?;
    measure::write(&arguments.output.out.join("soak.md"), &table)?;
    std::io::stdout().write_all(table.as_bytes())?;
    ensure!(wrong.is_empty(), "{} answers came from a wrong Rack, the first: {}", wrong.len(), wrong.first().map_or("", String::as_str));
    ensure!(lines > 0, "no log had a line, so nothing is known of them");
    if let Some(first) = unexplained.first() {
        anyhow::bail!("{} failures that no outage explains, the first: {first}", unexplained.len());
    }
    ensure!(grown.is_empty(), "not as it was after warming up: {}", grown.join("; "));
    Ok(())
}
