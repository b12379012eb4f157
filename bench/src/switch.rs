//! What a person waits for when the command line starts: time and memory of `convox switch` beside an empty program.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::Output;
use crate::measure::{self, median};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The command line to measure.
    #[arg(long)]
    convox: PathBuf,
    /// A program that does nothing.
    #[arg(long)]
    empty: PathBuf,
    /// Configuration directory with a Console and Racks in it. A local one is made if absent.
    #[arg(long)]
    config: Option<PathBuf>,
    #[arg(long, default_value_t = 200)]
    runs: usize,
    #[command(flatten)]
    output: Output,
}

struct Figures {
    name: &'static str,
    milliseconds: Vec<f64>,
    /// Largest resident set, in kilobytes.
    memory: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let made = tempfile::tempdir()?;
    let config = match &arguments.config {
        Some(config) => config.clone(),
        None => local_config(made.path())?,
    };
    let subjects: [(&'static str, &Path, &[&str]); 3] = [
        ("empty program", &arguments.empty, &[]),
        ("convox version", &arguments.convox, &["version"]),
        ("convox switch", &arguments.convox, &["switch"]),
    ];
    let mut figures: Vec<Figures> = subjects.iter().map(|(name, ..)| Figures { name, milliseconds: Vec::new(), memory: 0 }).collect();
    for _ in 0..arguments.runs {
        for ((name, program, words), figures) in subjects.iter().zip(&mut figures) {
            let mut command = Command::new(program);
            command.args(*words).env("CONVOX_CONFIG", &config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            let begun = Instant::now();
            let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
            figures.milliseconds.push(begun.elapsed().as_secs_f64() * 1000.0);
            if !output.status.success() && *name == "empty program" {
                bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
    for ((_, program, words), figures) in subjects.iter().zip(&mut figures) {
        figures.memory = memory(program, words, &config)?;
    }
    let json = json!({
        "machine": measure::machine(),
        "runs": arguments.runs,
        "figures": figures.iter().map(|figures| json!({
            "program": figures.name,
            "milliseconds": median(&figures.milliseconds),
            "max_rss_kilobytes": figures.memory,
        })).collect::<Vec<_>>(),
    });
    let mut table =
        format!("{}; medians of {} runs in turns.\n\n| program | ms | max RSS kB |\n|---|--:|--:|\n", measure::machine(), arguments.runs);
    for figures in &figures {
        table.push_str(&format!("| {} | {:.2} | {} |\n", figures.name, median(&figures.milliseconds), figures.memory));
    }
    measure::write(&arguments.output.out.join("switch.json"), &format!("{json:#}\n"))?;
    measure::write(&arguments.output.out.join("switch.md"), &table)?;
    std::io::stdout().write_all(table.as_bytes())?;
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

/// A configuration with one Rack selected, so that `switch` has something to say without asking a server.
fn local_config(directory: &Path) -> anyhow::Result<PathBuf> {
    let config = directory.join("config");
    std::fs::create_dir_all(&config)?;
    std::fs::write(config.join("host"), "127.0.0.1:1")?;
    std::fs::write(config.join("rack"), "bench/rack")?;
    Ok(config)
}
