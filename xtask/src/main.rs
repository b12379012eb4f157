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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn every_decision_has_a_number_of_its_own_and_its_title_says_the_same() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/adr");
        let mut numbers = BTreeSet::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let number = path.file_name().unwrap().to_string_lossy().split('-').next().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with(&format!("# {number}. ")), "{}: another number in its title", path.display());
            assert!(numbers.insert(number), "{}: its number is taken", path.display());
        }
        assert!(numbers.len() > 20);
    }
}
