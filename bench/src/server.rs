//! One process of ours, found again on its port after a kill.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use convox_tls::Fingerprint;

use crate::contender::{START, said};

/// A Console or a Rack.
pub(crate) struct Server {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
    pub(crate) host: String,
    /// Of the certificate at its first start: what clients pinned.
    pub(crate) pin: Fingerprint,
    pub(crate) setup_code: Option<String>,
}

impl Server {
    pub(crate) fn start(
        program: PathBuf,
        args: Vec<String>,
        env: Vec<(String, String)>,
        log: PathBuf,
        wants_code: bool,
    ) -> anyhow::Result<Self> {
        let pin = Fingerprint::of(b"");
        let mut server = Self { program, args, env, log, child: None, host: "127.0.0.1:0".to_owned(), pin, setup_code: None };
        server.pin = server.launch(wants_code)?;
        Ok(server)
    }

    fn launch(&mut self, wants_code: bool) -> anyhow::Result<Fingerprint> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).args(["--listen", &self.host]).envs(self.env.iter().cloned());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let said = said(&mut child);
        self.child = Some(child);
        let said = said?;
        let mut pin = None;
        loop {
            let line = said.recv_timeout(START).with_context(|| {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                format!("{} is not ready; its log ends with: {}", self.program.display(), log.lines().last().unwrap_or_default())
            })?;
            if let Some((host, shown)) = line.strip_prefix("listening on https://").and_then(|rest| rest.split_once(" fingerprint ")) {
                host.clone_into(&mut self.host);
                pin = Some(shown.trim().parse()?);
            }
            if let Some(code) = line.strip_prefix("setup code: ") {
                self.setup_code = Some(code.trim().to_owned());
            }
            if let Some(pin) = pin.filter(|_| !wants_code || self.setup_code.is_some()) {
                return Ok(pin);
            }
        }
    }

    /// Its process, 0 when it does not run.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, and says how long it took until it was ready.
    pub(crate) fn again(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.launch(false)?;
        Ok(began.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
