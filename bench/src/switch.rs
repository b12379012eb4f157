//! What a person waits for when the command line starts: time and memory of `convox switch` beside an empty program.
//!
//! Switching, and listing Racks, ask a real Console once, over TLS, on the same machine; without a name nothing is asked. It fails when one of them takes
//! 5 ms or 12 MB more than the empty program, the round trip included.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::Output;
use crate::contender::{Ground, RACK};
use crate::measure::{self, median};

/// What a command may take beyond an empty program.
const MOST_MS: f64 = 5.0;
const MOST_KB: u64 = 12 * 1024;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The command line to measure.
    #[arg(long)]
    convox: PathBuf,
    /// The Console to switch at.
    #[arg(long)]
    console: PathBuf,
    /// A program that does nothing.
    #[arg(long)]
    empty: PathBuf,
    #[arg(long, default_value_t = 200)]
    runs: usize,
    #[command(flatten)]
    output: Output,
}

struct Subject<'a> {
    name: &'static str,
    program: &'a Path,
    words: &'a [&'a str],
    milliseconds: Vec<f64>,
    /// Largest resident set, in kilobytes.
    memory: u64,
}

impl<'a> Subject<'a> {
    fn new(name: &'static str, program: &'a Path, words: &'a [&'a str]) -> Self {
        Self { name, program, words, milliseconds: Vec::new(), memory: 0 }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let ground = Ground::new(directory.path(), 0, 0)?;
    let (_upstream, port) = ground.upstream(true)?;
    let console = ground.console(&arguments.console, port)?;
    let config = directory.path().join("config");
    log_in(arguments, console.base.trim_start_matches("https://"), &console.secret, &ground.fingerprint, &config)?;

    let mut subjects = [
        Subject::new("empty program", &arguments.empty, &[]),
        Subject::new("convox help", &arguments.convox, &["help"]),
        Subject::new("convox switch (shows)", &arguments.convox, &["switch"]),
        Subject::new("convox switch org/rack (asks the Console)", &arguments.convox, &["switch", RACK]),
        Subject::new("convox racks (asks the Console)", &arguments.convox, &["racks"]),
    ];
    for _ in 0..arguments.runs {
        for subject in &mut subjects {
            let mut command = Command::new(subject.program);
            command.args(subject.words).env("CONVOX_CONFIG", &config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            let begun = Instant::now();
            let output = command.output().with_context(|| format!("cannot run {}", subject.program.display()))?;
            subject.milliseconds.push(begun.elapsed().as_secs_f64() * 1000.0);
            if !output.status.success() {
                bail!("{} failed: {}", subject.name, String::from_utf8_lossy(&output.stderr));
            }
        }
    }
    for subject in &mut subjects {
        subject.memory = memory(subject.program, subject.words, &config)?;
    }
    let json = json!({
        "machine": measure::machine(),
        "runs": arguments.runs,
        "figures": subjects.iter().map(|subject| json!({
            "program": subject.name,
            "milliseconds": median(&subject.milliseconds),
            "max_rss_kilobytes": subject.memory,
        })).collect::<Vec<_>>(),
    });
    let mut table =
        format!("{}; medians of {} runs in turns.\n\n| program | ms | max RSS kB |\n|---|--:|--:|\n", measure::machine(), arguments.runs);
    for subject in &subjects {
        table.push_str(&format!("| {} | {:.2} | {} |\n", subject.name, median(&subject.milliseconds), subject.memory));
    }
    measure::write(&arguments.output.out.join("switch.json"), &format!("{json:#}\n"))?;
    measure::write(&arguments.output.out.join("switch.md"), &table)?;
    std::io::stdout().write_all(table.as_bytes())?;
    let [empty, all @ ..] = &subjects;
    for subject in all {
        let more = median(&subject.milliseconds) - median(&empty.milliseconds);
        if more >= MOST_MS || subject.memory.saturating_sub(empty.memory) >= MOST_KB {
            bail!("{} takes {more:.2} ms and {} kB more than an empty program", subject.name, subject.memory.saturating_sub(empty.memory));
        }
    }
    Ok(())
}

fn log_in(arguments: &Arguments, host: &str, key: &str, fingerprint: &str, config: &Path) -> anyhow::Result<()> {
    let mut child = Command::new(&arguments.convox)
        .args(["login", host, "--fingerprint", fingerprint, "--password-stdin"])
        .env("CONVOX_CONFIG", config)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", arguments.convox.display()))?;
    // Closed at once, which ends the key.
    child.stdin.take().context("no input to write to")?.write_all(key.as_bytes())?;
    if !child.wait()?.success() {
        bail!("convox login failed");
    }
    Ok(())
}

/// As GNU time reports it.
fn memory(program: &Path, words: &[&str], config: &Path) -> anyhow::Result<u64> {
    let output = Command::new("/usr/bin/time")
        .args(["-f", "rss=%M"])
        .arg(program)
        .args(words)
        .env("CONVOX_CONFIG", config)
        .stdout(Stdio::null())
        .output()
        .context("cannot run /usr/bin/time: apt-get install time")?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines()
        .rev()
        .find_map(|line| line.strip_prefix("rss="))
        .and_then(|kilobytes| kilobytes.parse().ok())
        .with_context(|| format!("time said: {text}"))
}
