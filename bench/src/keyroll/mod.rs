//! Every key rolled while people work: real Consoles (two, on one PostgreSQL), a real Rack, requests at a fixed rate through them, and
//! `kill -9` at each step of each roll.
//!
//! **What counts as a failed request.** People's clients balance over both Consoles, as a balancer in front of them would: a request (a GET) whose
//! connection is refused or cut is sent once more to the other one. Any answer but success is a failure, and so is none. When the Rack itself was
//! killed, what it would have answered between the kill and its being ready again is counted apart: nobody else can answer for it.
//!
//! **What must hold after each kill.** The roll ends (forward or back) within a minute of the restart without anybody's help, the new key works and the
//! old one is refused: each roll checks that itself. One file for each kind of key.

mod access;
pub(crate) mod ground;
mod load;
mod password;
mod tls;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use self::ground::Ground;
use self::load::Load;
use crate::{Output, measure};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Directory of the binaries to test: convox-console and convox-rack.
    #[arg(long)]
    bin: PathBuf,
    /// Requests per second.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Times that each step is killed at, at another moment in it.
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Only rolls whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    #[command(flatten)]
    output: Output,
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Nobody,
    Console(usize),
    Rack,
}

impl std::fmt::Display for Victim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Console(number) => write!(f, "Console {}", number + 1),
            Self::Rack => f.write_str("the Rack"),
        }
    }
}

/// A kind of key, and how it rolls.
pub(crate) trait Roll {
    /// As the table of keys in docs/security.md calls it.
    fn key(&self) -> &'static str;
    /// Its steps, in order: at each, each victim is killed once.
    fn steps(&self) -> &'static [&'static str];
    /// Whose death could leave it half-done.
    fn victims(&self) -> &'static [Victim];
    /// Begins a roll, and comes back while it is under way or when it is over.
    async fn begin(&mut self, ground: &Ground) -> anyhow::Result<()>;
    /// The step that it stands at; `None` when it is over.
    async fn step(&mut self, ground: &Ground) -> anyhow::Result<Option<String>>;
    /// The new key works, the old one is refused, nothing is half-done.
    async fn check(&mut self, ground: &Ground) -> anyhow::Result<()>;
}

/// One roll that was carried to its end.
struct Done {
    key: &'static str,
    step: String,
    victim: Victim,
    seconds: f64,
    answered: u64,
    failed: Vec<String>,
    while_down: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut ground = Ground::start(&arguments.bin).await?;
        let mut all = Vec::new();
        rolled(password::Password::default(), arguments, &mut ground, &mut all).await?;
        rolled(access::SigningKey::default(), arguments, &mut ground, &mut all).await?;
        rolled(tls::Certificate::of_rack(), arguments, &mut ground, &mut all).await?;
        rolled(tls::Certificate::of_console(), arguments, &mut ground, &mut all).await?;
        report(arguments, &all)
    })
}

/// Rolls one kind of key with nobody killed, then once for each step and victim.
async fn rolled(mut roll: impl Roll, arguments: &Arguments, ground: &mut Ground, all: &mut Vec<Done>) -> anyhow::Result<()> {
    if !roll.key().contains(&arguments.only) {
        return Ok(());
    }
    let mut plan = vec![("none", Victim::Nobody)];
    for _ in 0..arguments.repeat {
        plan.extend(roll.steps().iter().flat_map(|step| roll.victims().iter().map(|victim| (*step, *victim))));
    }
    for (number, (step, victim)) in plan.into_iter().enumerate() {
        let done = once(&mut roll, step, victim, number, arguments.rate, ground)
            .await
            .with_context(|| format!("{}: {victim} killed at `{step}`", roll.key()))?;
        let line = format!(
            "{}, {victim} killed at `{step}`: over after {:.1} s, {} requests answered, {} failed, {} while the Rack was down\n",
            done.key,
            done.seconds,
            done.answered,
            done.failed.len(),
            done.while_down
        );
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes())?;
        all.push(done);
    }
    Ok(())
}

async fn once(roll: &mut impl Roll, step: &str, victim: Victim, number: usize, rate: u32, ground: &mut Ground) -> anyhow::Result<Done> {
    let load = Load::start(ground, rate)?;
    // Something is under way on every connection before it begins.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    let (mut killed, mut down) = (victim == Victim::Nobody, Duration::ZERO);
    roll.begin(ground).await?;
    while began.elapsed() < Duration::from_mins(1) {
        let now = roll.step(ground).await;
        if !killed && (matches!(&now, Ok(Some(at)) if at == step) || matches!(&now, Ok(None))) {
            // Another moment of the step each time: between writing it down and the end of what follows.
            tokio::time::sleep(Duration::from_millis((number as u64 * 7) % 40)).await;
            let fell = Instant::now();
            load.is_down(victim == Victim::Rack);
            ground.kill(victim);
            ground.restart(victim).await?;
            load.is_down(false);
            down = fell.elapsed();
            killed = true;
            continue;
        }
        if killed && matches!(now, Ok(None)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if roll.step(ground).await?.is_some() {
        bail!("it is not over a minute later: {:?}", roll.step(ground).await?);
    }
    let seconds = began.elapsed().saturating_sub(down).as_secs_f64();
    roll.check(ground).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (answered, failed, while_down) = load.stop().await;
    Ok(Done { key: roll.key(), step: step.to_owned(), victim, seconds, answered, failed, while_down })
}

fn report(arguments: &Arguments, all: &[Done]) -> anyhow::Result<()> {
    let figures: Vec<Value> = all
        .iter()
        .map(|done| {
            json!({
                "key": done.key, "killed": done.victim.to_string(), "at": done.step, "seconds": done.seconds,
                "answered": done.answered, "failed": done.failed, "while_the_rack_was_down": done.while_down,
            })
        })
        .collect();
    let json = json!({ "machine": measure::machine(), "requests_per_second_asked": arguments.rate, "rolls": figures });
    let mut table = format!(
        "{}; {} requests/s asked for.\n\n| key | killed | at | s | answered | failed | while the Rack was down |\n|---|---|---|--:|--:|--:|--:|\n",
        measure::machine(),
        arguments.rate
    );
    for done in all {
        let Done { key, step, victim, seconds, answered, failed, while_down } = done;
        table.push_str(&format!("| {key} | {victim} | {step} | {seconds:.1} | {answered} | {} | {while_down} |\n", failed.len()));
    }
    measure::write(&arguments.output.out.join("keyroll.json"), &format!("{json:#}\n"))?;
    measure::write(&arguments.output.out.join("keyroll.md"), &table)?;
    std::io::Write::write_all(&mut std::io::stdout(), table.as_bytes())?;
    let failed: Vec<&String> = all.iter().flat_map(|done| &done.failed).collect();
    match failed.first() {
        None => Ok(()),
        Some(first) => bail!("{} requests failed; the first: {first}", failed.len()),
    }
}
