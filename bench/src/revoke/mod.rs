//! How long a revoked key lives: for new requests, for an open log stream, for an open shell. And whether any request that was begun after
//! the revocation was answered is still served (T26).
//!
//! Times are from the moment at which the revocation is sent, as a client sees them. On SQLite there is one Console; on PostgreSQL there are
//! two, and the key is revoked at one and used at the other. And three whose PostgreSQL goes away and comes back meanwhile ([`restart`]).

mod ground;
mod race;
mod restart;
mod streams;
pub(crate) mod wire;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use self::ground::Ground;
use self::race::{Plan, Tally, races};
use self::streams::{Times, streams};
use crate::postgres::Postgres;
use crate::{Output, measure};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Directory of the binary to test: convox-console.
    #[arg(long)]
    bin: PathBuf,
    /// Keys that are revoked with a log stream and a shell open, on each database.
    #[arg(long, default_value_t = 300)]
    streams: usize,
    /// Requests that are in flight across a revocation of their key, on each database.
    #[arg(long, default_value_t = 100_000)]
    runs: usize,
    /// Keys that are raced at the same time.
    #[arg(long, default_value_t = 8)]
    lanes: usize,
    /// Connections on which each of them is used.
    #[arg(long, default_value_t = 8)]
    callers: usize,
    /// Races end after so many seconds on each database, however many there were.
    #[arg(long, default_value_t = 600)]
    longest: u64,
    /// Rounds of three Consoles whose PostgreSQL is stopped for two seconds and for nine.
    #[arg(long, default_value_t = 3)]
    restarts: usize,
    /// Only where this is part of the name, such as `sqlite`, `two` or `three`.
    #[arg(long, default_value = "")]
    only: String,
    #[command(flatten)]
    output: Output,
}

/// What was found on one database.
struct Found {
    on: &'static str,
    times: Times,
    tally: Tally,
    race_seconds: f64,
    seconds: f64,
}

impl Found {
    fn rows(&self) -> [(&'static str, &[f64]); 4] {
        [
            ("answer to the revocation", &self.times.answer),
            ("last new request that is served", &self.times.request),
            ("open log stream ends", &self.times.log),
            ("open shell ends", &self.times.shell),
        ]
    }
}

/// All under this, whatever it is.
const PROMISE_MS: f64 = 1000.0;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let console = arguments.bin.join("convox-console");
    let console = console.canonicalize().with_context(|| format!("no {}", console.display()))?;
    let mut all = Vec::new();
    let is_wanted = |on: &str| on.to_lowercase().contains(&arguments.only.to_lowercase());
    for on in ["one Console on SQLite", "two Consoles on PostgreSQL"] {
        if is_wanted(on) {
            all.push(measure_on(arguments, &console, on).with_context(|| format!("with {on}"))?);
        }
    }
    let restarted = (arguments.restarts > 0 && is_wanted(restart::ON)).then(|| restart::measure(&console, arguments.restarts));
    report(arguments, &all, restarted.transpose().with_context(|| format!("with {}", restart::ON))?.as_ref())
}

fn measure_on(arguments: &Arguments, console: &Path, on: &'static str) -> anyhow::Result<Found> {
    let began = std::time::Instant::now();
    let directory = tempfile::tempdir()?;
    let postgres = on.contains("PostgreSQL").then(|| Postgres::start(&directory.path().join("postgres"))).transpose()?;
    let count = if postgres.is_some() { 2 } else { 1 };
    let ground = Ground::new(console, postgres.as_ref().map(|postgres| postgres.url.as_str()), count)?;
    let mut found = Found { on, times: Times::default(), tally: Tally::default(), race_seconds: 0.0, seconds: 0.0 };
    for run in 0..arguments.streams {
        streams(&ground, run, &mut found.times).with_context(|| format!("run {run}"))?;
    }
    writeln!(std::io::stderr(), "{on}: {} keys with open streams after {:.0} s", arguments.streams, began.elapsed().as_secs_f64())?;
    let races_began = std::time::Instant::now();
    let plan = Plan {
        lanes: arguments.lanes,
        callers: arguments.callers,
        runs: arguments.runs,
        longest: std::time::Duration::from_secs(arguments.longest),
    };
    found.tally = races(&ground, plan, |tally| {
        let Tally { races, runs, won, late, .. } = tally;
        let seconds = races_began.elapsed().as_secs_f64();
        let _ = writeln!(std::io::stderr(), "{on}: {runs} runs in {races} races after {seconds:.0} s, {won} served, {late} too late");
    })?;
    found.race_seconds = races_began.elapsed().as_secs_f64();
    found.seconds = began.elapsed().as_secs_f64();
    Ok(found)
}

fn report(arguments: &Arguments, all: &[Found], restarted: Option<&restart::Found>) -> anyhow::Result<()> {
    let figures: Vec<Value> = all
        .iter()
        .map(|found| {
            json!({
                "on": found.on, "races": found.tally.races, "runs": found.tally.runs, "runs_served": found.tally.won, "served_in_races": found.tally.served,
                "begun_after_the_answer_and_served": found.tally.late, "race_seconds": found.race_seconds, "seconds": found.seconds,
                "milliseconds": found.rows().iter().map(|(what, times)| json!({
                    "what": what, "p50": quantile(times, 0.5), "p90": quantile(times, 0.9), "p99": quantile(times, 0.99), "max": quantile(times, 1.0),
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    let json = json!({ "machine": measure::machine(), "streams": arguments.streams, "found": figures, "restarts": restarted.map(restart::Found::json) });
    let mut table = format!(
        "{}; {} keys with a log stream and a shell open on each, times from sending the revocation.\n\n\
         | on | what | p50 ms | p90 ms | p99 ms | max ms |\n|---|---|--:|--:|--:|--:|\n",
        measure::machine(),
        arguments.streams
    );
    for found in all {
        for (what, times) in found.rows() {
            let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|at| quantile(times, at));
            table.push_str(&format!("| {} | {what} | {p50:.1} | {p90:.1} | {p99:.1} | {max:.1} |\n", found.on));
        }
    }
    for Found { on, tally, race_seconds, .. } in all {
        let Tally { races, runs, won, served, late } = tally;
        table.push_str(&format!(
            "\n{on}: {runs} requests in flight across the revocation of their key (runs), in {races} races of {} keys at a time on {} connections each, \
             in {race_seconds:.0} s. {won} of them were served, and {served} requests of all; {late} that were begun after the revocation was answered.\n",
            arguments.lanes, arguments.callers
        ));
    }
    table.extend(restarted.map(restart::Found::table));
    measure::write(&arguments.output.out.join("revoke.json"), &format!("{json:#}\n"))?;
    measure::write(&arguments.output.out.join("revoke.md"), &table)?;
    std::io::stdout().write_all(table.as_bytes())?;
    restarted.map_or(Ok(()), restart::Found::ensure)?;
    for found in all {
        ensure!(
            found.tally.late == 0,
            "{}: {} requests were begun after a revocation was answered, and served all the same",
            found.on,
            found.tally.late
        );
        for (what, times) in found.rows() {
            ensure!(times.iter().all(|ms| *ms < PROMISE_MS), "{}: {what}: {:.0} ms", found.on, quantile(times, 1.0));
        }
    }
    Ok(())
}

fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * at).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|at| format!("{:.1}", quantile(&values, at))), ["100.0", "198.0", "200.0"]);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
