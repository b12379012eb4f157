//! One server process of ours, started on a free port and found there again after a crash.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use convox_tls::Fingerprint;

/// A running `convox-rack` or `convox-console`.
pub struct Server {
    program: &'static str,
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// Words before the program, of one that watches it.
    under: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    /// `127.0.0.1:PORT`; stays the same over restarts.
    pub host: String,
    /// Of the certificate that it presents.
    pub fingerprint: Fingerprint,
    /// The one-time setup code, from a Console that has no users yet.
    pub setup_code: Option<String>,
    /// `127.0.0.1:PORT` where it tells its metrics, if it was asked to.
    pub metrics: Option<String>,
    /// How long it took to say that it listens, the last time.
    pub ready_after: Duration,
}

impl Server {
    /// Starts `program` with `args` plus `--listen 127.0.0.1:0`; its log goes to `log`.
    pub fn start(program: &'static str, args: &[&str], log: &Path) -> Result<Self> {
        Self::start_with(program, args, &[], log)
    }

    /// The same with these variables.
    pub fn start_with(program: &'static str, args: &[&str], env: &[(&str, &str)], log: &Path) -> Result<Self> {
        let mut server = Self::new(program, args, env, log)?;
        server.launch()?;
        Ok(server)
    }

    fn new(program: &'static str, args: &[&str], env: &[(&str, &str)], log: &Path) -> Result<Self> {
        Ok(Self {
            program,
            args: args.iter().map(ToString::to_string).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            log: log.to_path_buf(),
            child: None,
            host: "127.0.0.1:0".to_owned(),
            fingerprint: "sha256:0000000000000000000000000000000000000000000000000000000000000000".parse().context("fingerprint")?,
            setup_code: None,
            metrics: None,
            ready_after: Duration::ZERO,
            under: Vec::new(),
        })
    }

    /// From its next start on it runs under another program, such as [`crate::power::recorder`]; by itself again with no words.
    pub fn run_under(&mut self, words: Vec<String>) {
        self.under = words;
    }

    fn launch(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let (program, began) = (crate::binary(self.program), Instant::now());
        let mut command = match self.under.split_first() {
            None => Command::new(program),
            Some((watcher, words)) => {
                let mut command = Command::new(watcher);
                command.args(words).arg(program);
                command
            }
        };
        let mut child = command
            .args(&self.args)
            .args(["--listen", &self.host])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .env_remove("CONVOX_PASSWORD")
            .envs(self.env.iter().cloned())
            .spawn()
            .with_context(|| format!("could not start {}", self.program))?;
        let stdout = child.stdout.take().context("no stdout")?;
        self.child = Some(child);
        let (send, lines) = mpsc::channel();
        // Keeps reading after the ready line, so that the server never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let mut ready = false;
        // The setup code comes right after the ready line, when there is one.
        while let Ok(line) = lines.recv_timeout(if ready { Duration::from_millis(300) } else { Duration::from_secs(30) }) {
            if let Some(rest) = line.strip_prefix("listening on https://") {
                let (host, fingerprint) = rest.split_once(" fingerprint ").context("no fingerprint in the ready line")?;
                self.host = host.to_owned();
                self.fingerprint = fingerprint.trim().parse().ok().context("fingerprint in the ready line")?;
                ready = true;
                self.ready_after = began.elapsed();
                if self.program == "convox-rack" || self.setup_code.is_some() {
                    break;
                }
            } else if let Some(address) = line.strip_prefix("metrics on http://") {
                self.metrics = address.strip_suffix("/metrics").map(str::to_owned);
            } else if let Some(code) = line.strip_prefix("setup code: ") {
                self.setup_code = Some(code.trim().to_owned());
                if ready {
                    break;
                }
            }
        }
        if !ready {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            bail!("{} was not ready within 30 s; its log:\n{log}", self.program);
        }
        Ok(())
    }

    /// The process id; 0 when it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Whoever watches ends by itself when the server has.
            let watched = if self.under.is_empty() { None } else { only_child(child.id()) };
            match watched.and_then(rustix::process::Pid::from_raw) {
                Some(server) => drop(rustix::process::kill_process(server, rustix::process::Signal::KILL)),
                None => drop(child.kill()),
            }
            let _ = child.wait();
        }
    }

    /// Asks it to end (`SIGTERM`) and gives its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let ended = crate::eventually(Duration::from_secs(30), || child.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        ended.and_then(|status| status.code())
    }

    /// Waits until it has ended by itself; gives its exit code.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let mut child = self.child.take()?;
        let ended = crate::eventually(limit, || child.try_wait().ok().flatten());
        if ended.is_none() {
            self.child = Some(child);
        }
        ended.and_then(|status| status.code())
    }

    /// Starts it again, on the same port and data.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.launch()
    }

    /// Everything that it wrote to standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn only_child(of: u32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        // Apps and their router outlive their Rack by design; a test's must not outlive the test.
        let data = self.args.iter().skip_while(|arg| *arg != "--data").nth(1);
        if let ("convox-rack", Some(data)) = (self.program, data) {
            let mut stop = Command::new(crate::binary(self.program));
            let _ = stop.args(["stop-apps", "--data", data]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}
