//! Where the servers of a trial are: Consoles that share one PostgreSQL and one root key, Racks beside them, and a directory for all of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::postgres::Postgres;
use crate::server::Server;

pub(crate) struct Site {
    /// Directory of the programs.
    pub(crate) bin: PathBuf,
    /// What every server has in its environment.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) postgres: Postgres,
    // Last: the directory goes when nothing uses it any more.
    directory: TempDir,
}

impl Site {
    /// With a database, a root key, and a file with the password of its Racks.
    pub(crate) fn new(bin: &Path, password: &str) -> anyhow::Result<Self> {
        let bin = bin.canonicalize().with_context(|| format!("no {}", bin.display()))?;
        let directory = tempfile::tempdir()?;
        let postgres = Postgres::start(&directory.path().join("postgres"))?;
        let site = Self { bin, env: Vec::new(), postgres, directory };
        std::fs::write(site.password(), password)?;
        answer(Command::new(site.bin.join("convox-console")).args(["root-key", "--out"]).arg(site.path("root.key")))?;
        Ok(site)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The file with the password of its Racks.
    pub(crate) fn password(&self) -> PathBuf {
        self.path("rack.password")
    }

    /// A Rack with that name for itself, whose data and log are in `place`.
    pub(crate) fn rack(&self, place: &str, name: &str, more: &[&str]) -> anyhow::Result<Server> {
        let (data, password) = (self.text(place), self.password().display().to_string());
        let args = [&["serve", "--name", name, "--data", &data, "--password-file", &password], more].concat();
        let args = args.into_iter().map(str::to_owned).collect();
        Server::start(self.bin.join("convox-rack"), args, self.env.clone(), self.path(&format!("{place}.log")), false)
    }

    /// Kills it, and ends what outlives it by design but must not outlive the trial.
    pub(crate) fn end(&self, rack: &mut Server, place: &str) {
        rack.kill();
        let mut stop = Command::new(self.bin.join("convox-rack"));
        let _ = stop.args(["stop-apps", "--data"]).arg(self.path(place)).stdout(Stdio::null()).status();
    }

    /// One more on the same database; the first one, of number 0, says how it is set up.
    pub(crate) fn console(&self, number: usize) -> anyhow::Result<Server> {
        let (data, root_key) = (self.text(&format!("console{number}")), self.text("root.key"));
        let args = ["serve", "--data", &data, "--root-key-file", &root_key, "--shards", "1"].map(str::to_owned).to_vec();
        let env = [self.env.clone(), vec![("CONVOX_DATABASE".to_owned(), self.postgres.url.clone())]].concat();
        Server::start(self.bin.join("convox-console"), args, env, self.path(&format!("console{number}.log")), number == 0)
    }

    /// `convox-console ARGS` on their database, ready to run.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_with(args, &self.path("root.key"))
    }

    /// The same with another root key.
    pub(crate) fn command_with(&self, args: &[&str], root_key: &Path) -> Command {
        let mut command = Command::new(self.bin.join("convox-console"));
        command.args(args).arg("--data").arg(self.path("console0")).arg("--root-key-file").arg(root_key);
        command.env("CONVOX_DATABASE", &self.postgres.url);
        command
    }

    /// `convox-console ARGS --json`, on their database.
    pub(crate) fn admin(&self, args: &[&str]) -> anyhow::Result<Value> {
        answer(self.command(args).arg("--json"))
    }

    /// The first organization and its first member, with the code that the first Console said. Gives that member's API key.
    pub(crate) fn set_up(&self, console: &Server, org: &str, email: &str) -> anyhow::Result<String> {
        let code = console.setup_code.as_deref().context("no setup code")?;
        key(&self.admin(&["setup", "--code", code, "--org", org, "--email", email])?)
    }

    /// Puts a Rack behind the Consoles.
    pub(crate) fn add(&self, rack: &Server, name: &str, org: &str) -> anyhow::Result<()> {
        let (pin, password) = (rack.pin.to_string(), self.password().display().to_string());
        self.admin(&["rack", "add", name, "--org", org, "--host", &rack.host, "--pin", &pin, "--password-file", &password])?;
        Ok(())
    }
}

/// The API key in what a command printed.
pub(crate) fn key(made: &Value) -> anyhow::Result<String> {
    Ok(made["api_key"].as_str().context("no API key")?.to_owned())
}

/// What it prints as JSON, if anything.
fn answer(command: &mut Command) -> anyhow::Result<Value> {
    let output = command.output().context("cannot run convox-console")?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        let args: Vec<_> = command.get_args().take(2).map(|arg| arg.to_string_lossy()).collect();
        bail!("convox-console {}: {stderr}", args.join(" "));
    }
    Ok(serde_json::from_str(stdout.trim()).unwrap_or(Value::Null))
}
