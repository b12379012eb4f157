//! Every key rolled while people work: real Consoles (two, on one PostgreSQL), a real Rack with a real sshd, requests at a fixed rate through them,
//! and `kill -9` at each step of each roll: of the server that does or serves it, and where a program does it, of that program.
//!
//! **What counts as a failed request.** People's clients balance over both Consoles, as a balancer in front of them would: a request (a GET) whose
//! connection is refused or cut is sent once more to the other one, and how many that were is told. Any answer but success is a failure, and so is
//! none. When the Rack itself was killed, what it would have answered between the kill and its being ready again is counted apart: nobody else can
//! answer for it.
//!
//! **Who works.** Half with a person's API key and half with a deploy key; of each, some take a new key at once and some shortly before the old one
//! ends. A few go straight to the Rack with a token, and take a new one in the window of its signing key.
//!
//! **What must hold after each kill.** The roll ends (forward or back) within a minute of the restart: by itself, or where a person or a program was
//! doing it, when they say it again. The new key works and the old one is refused: each roll checks that itself, one file for each kind of key. A
//! server that was killed is ready again within two seconds. After each kind of key everything is killed at once, the database too; what was rolled or
//! revoked before stays refused.
//!
//! **What is not here.** Sessions have no key of their own: each is random, and its keyed hash is under the lookup key. The lookup key and
//! a Rack's state key do not roll. Passwords of the mail and database servers and the KMS token are rolled where they come from.

mod access;
mod api_key;
pub(crate) mod ground;
mod host;
mod load;
mod password;
mod seals;
mod tls;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use self::ground::Ground;
use self::load::{Answers, Load};
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
    /// Nothing is killed, and everything is killed once in the end.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    output: Output,
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Nobody,
    Console(usize),
    Rack,
    /// The program that does the roll.
    Roller,
}

/// Within which a server that was killed is ready again. Told for what `cargo build` makes, held to for a release.
const START: Duration = Duration::from_secs(2);

impl std::fmt::Display for Victim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Console(number) => write!(f, "Console {}", number + 1),
            Self::Rack => f.write_str("the Rack"),
            Self::Roller => f.write_str("the program that rolls"),
        }
    }
}

/// A kind of key, and how it rolls.
pub(crate) trait Roll {
    /// As the table of keys in docs/security.md calls it.
    fn key(&self) -> &'static str;
    /// Its steps, in order.
    fn steps(&self) -> &'static [&'static str];
    /// Who is killed at a step, each once: whose death could leave it half-done.
    fn victims(&self, step: &str) -> &'static [Victim];
    /// Begins a roll, and comes back while it is under way or when it is over. A program that does it may be killed as soon as it reaches a step, which
    /// is asked for then.
    async fn begin(&mut self, ground: &Ground, kill_at: Option<&'static str>) -> anyhow::Result<()>;
    /// Kills the program that does it, and says it again.
    async fn interrupt(&mut self, _ground: &Ground) -> anyhow::Result<()> {
        bail!("no program does this roll")
    }
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
    /// How long the victim took to be ready again.
    start: Duration,
    answers: Answers,
}

/// Everything was killed at once.
struct Crash {
    after: &'static str,
    /// Keys that were rolled before, and are refused after it.
    dead: usize,
    start: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let began = Instant::now();
        let mut trial = Trial { arguments, ground: Ground::start(&arguments.bin).await?, done: Vec::new(), crashes: Vec::new() };
        trial.roll(password::Password::default()).await?;
        trial.roll(access::SigningKey::default()).await?;
        trial.roll(tls::Certificate::of_rack()).await?;
        trial.roll(tls::Certificate::of_console()).await?;
        trial.roll(host::HostKey::default()).await?;
        trial.roll(api_key::ApiKey::of(api_key::Whose::Person)).await?;
        trial.roll(api_key::ApiKey::of(api_key::Whose::Machine)).await?;
        trial.roll(seals::Seal::of_data()).await?;
        trial.roll(seals::Seal::of_root()).await?;
        trial.roll(seals::Cookies::default()).await?;
        if arguments.quick {
            trial.crash("all of them").await?;
        }
        trial.report(began.elapsed())
    })
}

struct Trial<'a> {
    arguments: &'a Arguments,
    ground: Ground,
    done: Vec<Done>,
    crashes: Vec<Crash>,
}

impl Trial<'_> {
    /// Rolls one kind of key with nobody killed, then once for each step and victim; then kills everything.
    async fn roll(&mut self, mut roll: impl Roll) -> anyhow::Result<()> {
        if !roll.key().contains(&self.arguments.only) {
            return Ok(());
        }
        let mut plan = vec![("none", Victim::Nobody)];
        for _ in 0..if self.arguments.quick { 0 } else { self.arguments.repeat } {
            plan.extend(roll.steps().iter().flat_map(|step| roll.victims(step).iter().map(|victim| (*step, *victim))));
        }
        for (number, (step, victim)) in plan.into_iter().enumerate() {
            let done = once(&mut roll, step, victim, number, self.arguments.rate, &mut self.ground)
                .await
                .with_context(|| format!("{}: {victim} killed at `{step}`", roll.key()))?;
            let Answers { answered, by_the_other, while_down, failed } = &done.answers;
            say(&format!(
                "{}, {victim} killed at `{step}`: over after {:.1} s, {answered} answered ({by_the_other} by the other Console), {} failed, {while_down} while the Rack was down; up again in {:.2} s\n",
                done.key,
                done.seconds,
                failed.len(),
                done.start.as_secs_f64(),
            ))?;
            self.done.push(done);
        }
        if self.arguments.quick { Ok(()) } else { self.crash(roll.key()).await }
    }

    async fn crash(&mut self, after: &'static str) -> anyhow::Result<()> {
        let start = self.ground.crash()?;
        let dead =
            self.ground.dead_stay_dead().await.with_context(|| format!("after everything was killed, after the rolls of {after}"))?;
        say(&format!("everything killed: {dead} keys that were rolled are refused; up again in {:.2} s\n", start.as_secs_f64()))?;
        self.crashes.push(Crash { after, dead, start });
        Ok(())
    }

    fn report(&self, took: Duration) -> anyhow::Result<()> {
        let Self { arguments, done, crashes, .. } = self;
        let rolls: Vec<Value> = done
            .iter()
            .map(|done| {
                let Answers { answered, by_the_other, while_down, failed } = &done.answers;
                json!({
                    "key": done.key, "killed": done.victim.to_string(), "at": done.step, "seconds": done.seconds,
                    "ready_again_seconds": done.start.as_secs_f64(), "answered": answered, "answered_by_the_other_console": by_the_other,
                    "failed": failed, "while_the_rack_was_down": while_down,
                })
            })
            .collect();
        let all_killed: Vec<Value> = crashes
            .iter()
            .map(|crash| json!({ "after": crash.after, "refused": crash.dead, "ready_again_seconds": crash.start.as_secs_f64() }))
            .collect();
        let (machine, rate) = (measure::machine(), arguments.rate);
        let json = json!({
            "machine": machine, "requests_per_second_asked": rate, "seconds": took.as_secs_f64(), "rolls": rolls, "all_killed_at_once": all_killed,
        });
        let mut table = format!(
            "{machine}; {rate} requests/s asked for through two Consoles on one PostgreSQL, and {} straight to the Rack with tokens; {:.0} s in all.\n\n\
             | key | killed | at | roll s | ready again s | answered | by the other Console | failed | while the Rack was down |\n\
             |---|---|---|--:|--:|--:|--:|--:|--:|\n",
            f64::from(rate) / 80.0,
            took.as_secs_f64(),
        );
        for Done { key, step, victim, seconds, start, answers } in done {
            let Answers { answered, by_the_other, while_down, failed } = answers;
            let (start, failed) = (start.as_secs_f64(), failed.len());
            table.push_str(&format!(
                "| {key} | {victim} | {step} | {seconds:.1} | {start:.2} | {answered} | {by_the_other} | {failed} | {while_down} |\n"
            ));
        }
        for Crash { after, dead, start } in crashes {
            table.push_str(&format!(
                "| {dead} that were rolled | everything at once, the database too | after {after} | | {:.2} | all refused | | | |\n",
                start.as_secs_f64()
            ));
        }
        measure::write(&arguments.output.out.join("keyroll.json"), &format!("{json:#}\n"))?;
        measure::write(&arguments.output.out.join("keyroll.md"), &table)?;
        std::io::Write::write_all(&mut std::io::stdout(), table.as_bytes())?;
        let failed: Vec<&String> = done.iter().flat_map(|done| &done.answers.failed).collect();
        if let Some(first) = failed.first() {
            bail!("{} requests failed; the first: {first}", failed.len());
        }
        let slowest = done.iter().map(|done| done.start).chain(crashes.iter().map(|crash| crash.start)).max().unwrap_or_default();
        if slowest > START && !cfg!(debug_assertions) {
            bail!("a server that was killed was ready again only after {:.2} s", slowest.as_secs_f64());
        }
        Ok(())
    }
}

fn say(words: &str) -> anyhow::Result<()> {
    Ok(std::io::Write::write_all(&mut std::io::stderr(), words.as_bytes())?)
}

async fn once(
    roll: &mut impl Roll,
    step: &'static str,
    victim: Victim,
    number: usize,
    rate: u32,
    ground: &mut Ground,
) -> anyhow::Result<Done> {
    let load = Load::start(ground, rate);
    // Something is under way on every connection before it begins.
    tokio::time::sleep(Duration::from_millis(250)).await;
    let began = Instant::now();
    let (mut killed, mut down, mut start) = (victim == Victim::Nobody, Duration::ZERO, Duration::ZERO);
    roll.begin(ground, (victim == Victim::Roller).then_some(step)).await?;
    while began.elapsed() < Duration::from_mins(1) {
        let now = roll.step(ground).await?;
        if !killed && now.as_deref().is_none_or(|at| at == step) {
            // Another moment of the step each time: between writing it down and the end of what follows.
            tokio::time::sleep(Duration::from_millis((number as u64 * 7) % 40)).await;
            killed = true;
            if victim == Victim::Roller {
                roll.interrupt(ground).await?;
                continue;
            }
            let fell = Instant::now();
            load.is_down(victim == Victim::Rack);
            ground.kill(victim);
            start = ground.restart(victim).await?;
            load.is_down(false);
            down = fell.elapsed();
            continue;
        }
        if killed && now.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if let Some(at) = roll.step(ground).await? {
        bail!("it is not over a minute later: {at}");
    }
    let seconds = began.elapsed().saturating_sub(down).as_secs_f64();
    roll.check(ground).await?;
    tokio::time::sleep(Duration::from_millis(250)).await;
    Ok(Done { key: roll.key(), step: step.to_owned(), victim, seconds, start, answers: load.stop().await })
}
