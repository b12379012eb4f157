//! PostgreSQL for a trial, ended and started again as often as it wants.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::contender::free_port;

/// A database server of its own, on loopback.
pub(crate) struct Postgres {
    pub(crate) url: String,
    data: PathBuf,
    bin: PathBuf,
}

impl Postgres {
    pub(crate) fn start(data: &Path) -> anyhow::Result<Self> {
        let newest = std::fs::read_dir("/usr/lib/postgresql").context("no PostgreSQL: apt-get install postgresql")?;
        let bin = newest.flatten().map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
        let bin = bin.context("no initdb: apt-get install postgresql")?;
        std::fs::create_dir(data)?;
        if rustix::process::getuid().is_root() {
            // PostgreSQL refuses to run as root, and must be able to get there.
            let above = data.parent().unwrap_or(data);
            std::fs::set_permissions(above, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
            done(Command::new("chown").arg("postgres").arg(data))?;
        }
        let port = free_port()?;
        let postgres = Self { url: format!("postgres://convox@127.0.0.1:{port}/postgres"), data: data.to_owned(), bin };
        done(postgres.command("initdb").arg("-D").arg(data).args(["-U", "convox", "--auth=trust", "--no-sync"]))?;
        postgres.run()?;
        Ok(postgres)
    }

    /// Starts it, on the data that is there; ready when this returns.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let port = self.url.rsplit_once(':').and_then(|(_, rest)| rest.split_once('/')).map(|(port, _)| port).unwrap_or_default();
        let options = format!("-h 127.0.0.1 -p {port} -k {} -c max_connections=200", self.data.display());
        done(self.command("pg_ctl").arg("-D").arg(&self.data).arg("-l").arg(self.data.join("log")).args(["-w", "-o", &options, "start"]))
    }

    /// Ends it without a shutdown, and starts it again: it recovers from its log.
    pub(crate) fn crash(&self) -> anyhow::Result<()> {
        self.stop("immediate")?;
        self.run()
    }

    /// Ends it: `fast` cuts those who are connected, `immediate` is a crash.
    pub(crate) fn stop(&self, mode: &str) -> anyhow::Result<()> {
        done(self.command("pg_ctl").arg("-D").arg(&self.data).args(["-m", mode, "-w", "stop"]))
    }

    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = Command::new(if rustix::process::getuid().is_root() { Path::new("runuser") } else { &program });
        if rustix::process::getuid().is_root() {
            command.args(["-u", "postgres", "--"]).arg(&program);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.command("pg_ctl").arg("-D").arg(&self.data).args(["-m", "immediate", "stop"]).status();
    }
}

/// Runs it; its failure is ours.
pub(crate) fn done(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if status.success() { Ok(()) } else { bail!("{} failed: {status}", command.get_program().display()) }
}
