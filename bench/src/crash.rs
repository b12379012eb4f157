//! Kills and cuts of the power by the thousand (T35): the crash tests, a piece at a time, until there were enough or the time is over. What was
//! done is kept in a file, so that the next run goes on.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{Output, measure};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Cuts of the power.
    #[arg(long, default_value_t = 10_000)]
    cuts: u64,
    /// Kills of each server.
    #[arg(long, default_value_t = 10_000)]
    kills: u64,
    /// For so long; the next run goes on.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Forget what was done before.
    #[arg(long)]
    fresh: bool,
    /// What was done so far.
    #[arg(long, default_value = "target/crash.jsonl")]
    figures: PathBuf,
    /// Cargo's profile of the tests and the servers.
    #[arg(long, default_value = "release")]
    profile: String,
    #[command(flatten)]
    output: Output,
}

/// A test that is run again and again.
struct Trial {
    what: &'static str,
    counted: &'static str,
    test: &'static str,
    variable: &'static str,
    piece: u64,
}

const TRIALS: [Trial; 3] = [
    Trial {
        what: "cuts",
        counted: "cuts",
        test: "power::a_cut_of_the_power_at_any_moment_loses_nothing_that_was_confirmed_and_leaves_nothing_by_half",
        variable: "CONVOX_TEST_CUTS",
        piece: 1_000,
    },
    Trial {
        what: "kills of the Rack",
        counted: "kills",
        test: "crash::crash_of_the_rack_loses_nothing_that_it_confirmed",
        variable: "CONVOX_TEST_KILLS",
        piece: 250,
    },
    Trial {
        what: "kills of the Console",
        counted: "kills",
        test: "crash::crash_of_the_console_loses_nothing_that_it_confirmed",
        variable: "CONVOX_TEST_KILLS",
        piece: 250,
    },
];

/// Of one trial.
#[derive(Default)]
struct Sum {
    count: u64,
    changes: u64,
    pieces: u64,
    slowest_start_ms: u64,
    seconds: f64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let figures = std::path::absolute(&arguments.figures)?;
    if arguments.fresh && figures.exists() {
        std::fs::remove_file(&figures)?;
    }
    let end = Instant::now() + Duration::from_secs(arguments.minutes * 60);
    let mut fault = None;
    loop {
        let open: Vec<(&Trial, u64)> = TRIALS
            .iter()
            .map(|trial| {
                let wanted = if trial.counted == "cuts" { arguments.cuts } else { arguments.kills };
                Ok((trial, wanted.saturating_sub(sum(&figures, trial)?.count)))
            })
            .collect::<anyhow::Result<_>>()?;
        // The one that is furthest behind, in pieces: whenever the time is over, something was done of each.
        let next = open.into_iter().filter(|(_, left)| *left > 0).max_by_key(|(trial, left)| left.div_ceil(trial.piece));
        let Some((trial, left)) = next.filter(|_| Instant::now() < end) else { break };
        writeln!(std::io::stderr(), "{}: {left} to go", trial.what)?;
        if let Err(error) = piece(arguments, trial, left.min(trial.piece), &figures) {
            fault = Some(error);
            break;
        }
    }
    report(arguments, &figures)?;
    fault.map_or(Ok(()), Err)
}

fn piece(arguments: &Arguments, trial: &Trial, count: u64, figures: &Path) -> anyhow::Result<()> {
    let profile = if arguments.profile == "debug" { "dev" } else { &arguments.profile };
    let status = Command::new("cargo")
        .args(["test", "--quiet", "--locked", "--profile", profile])
        // What is built together with the servers has their features.
        .args(["-p", "convox-bench", "-p", "convox-console", "-p", "convox-rack", "-p", "convox", "-p", "convox-tests"])
        .args(["--test", "it", "--", "--exact", trial.test, "--nocapture"])
        .env(trial.variable, count.to_string())
        .env("CONVOX_TEST_FIGURES", figures)
        .stdout(std::io::stderr())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "{}: a test failed; its seed and its words are above", trial.what);
    Ok(())
}

fn sum(figures: &Path, trial: &Trial) -> anyhow::Result<Sum> {
    let mut sum = Sum::default();
    let text = if figures.exists() { std::fs::read_to_string(figures)? } else { String::new() };
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("{}: {line}", figures.display()))?;
        if line["what"] != trial.what {
            continue;
        }
        let number = |field: &str| line[field].as_u64().unwrap_or_default();
        sum.count += number(trial.counted);
        sum.changes += number("changes");
        sum.pieces += 1;
        sum.slowest_start_ms = sum.slowest_start_ms.max(number("slowest_start_ms"));
        sum.seconds += line["seconds"].as_f64().unwrap_or_default();
    }
    Ok(sum)
}

fn report(arguments: &Arguments, figures: &Path) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let mut table =
        format!("{}\n\n| what | how many | confirmed changes | slowest start ms | seconds |\n|---|--:|--:|--:|--:|\n", measure::machine());
    for trial in &TRIALS {
        let Sum { count, changes, pieces, slowest_start_ms, seconds } = sum(figures, trial)?;
        table.push_str(&format!("| {} | {count} | {changes} | {slowest_start_ms} | {seconds:.0} |\n", trial.what));
        rows.push(json!({
            "what": trial.what, "count": count, "changes": changes, "pieces": pieces, "slowest_start_ms": slowest_start_ms, "seconds": seconds,
        }));
    }
    table.push_str("\nNothing that was confirmed was lost, nothing that was revoked came back, and nothing was there by half: a piece in which anything was is not counted here.\n");
    let all = json!({ "machine": measure::machine(), "profile": arguments.profile, "found": rows });
    measure::write(&arguments.output.out.join("crash.json"), &format!("{all:#}\n"))?;
    measure::write(&arguments.output.out.join("crash.md"), &table)?;
    std::io::stdout().write_all(table.as_bytes())?;
    Ok(())
}
