//! What a shell script should not hold. `cargo xtask arrows` fails when a room knows another that it must not know.

mod arrows;

use std::io::Write as _;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

fn main() -> ExitCode {
    match run() {
        Ok(said) => {
            let _ = writeln!(std::io::stdout(), "{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String> {
    let task = std::env::args().nth(1).unwrap_or_default();
    match task.as_str() {
        "arrows" => {
            let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .args(["metadata", "--format-version", "1", "--locked"])
                .output()
                .context("cargo metadata")?;
            ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
            let metadata = serde_json::from_slice(&output.stdout).context("the answer of cargo metadata")?;
            let faults = arrows::check(&metadata);
            ensure!(faults.is_empty(), "{}", faults.join("\n       "));
            Ok("arrows: every room knows only what it may".to_owned())
        }
        "" => bail!("which task? there is: arrows"),
        other => bail!("no task `{other}`; there is: arrows"),
    }
}
