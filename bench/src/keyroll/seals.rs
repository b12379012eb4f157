//! Keys of the Console itself, each rolled by a program beside the running servers: data keys and the root key, of which it tells each step before it
//! takes it, and the key of device cookies.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::ground::Ground;
use super::{Roll, Victim};

/// `convox-console keys roll-...` while it runs.
struct Running {
    child: Arc<Mutex<Child>>,
    told: mpsc::Receiver<String>,
}

pub(crate) struct Seal {
    of_root: bool,
    running: Option<Running>,
    /// What it said since it began.
    said: Vec<String>,
    killed: bool,
    /// The root key's file, before.
    before: String,
    /// The newest version of the organization's data key, before.
    version: i64,
}

impl Seal {
    pub(crate) fn of_data() -> Self {
        Self { of_root: false, running: None, said: Vec::new(), killed: false, before: String::new(), version: 0 }
    }

    pub(crate) fn of_root() -> Self {
        Self { of_root: true, ..Self::of_data() }
    }

    fn launch(&mut self, ground: &Ground, kill_at: Option<&'static str>) -> anyhow::Result<()> {
        let command = if self.of_root { "roll-root" } else { "roll-data" };
        let mut child = ground.site.command(&["keys", command]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().context("nothing to read")?;
        let child = Arc::new(Mutex::new(child));
        let (send, told) = mpsc::channel();
        let victim = Arc::clone(&child);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // At once, since a step may be over in a millisecond.
                if kill_at.is_some_and(|step| line.contains(step)) {
                    let _ = victim.lock().unwrap_or_else(PoisonError::into_inner).kill();
                }
                let _ = send.send(line);
            }
        });
        self.killed = kill_at.is_some();
        self.running = Some(Running { child, told });
        Ok(())
    }

    fn keys(ground: &Ground) -> anyhow::Result<Vec<Value>> {
        ground.site.admin(&["keys", "list"])?.as_array().cloned().context("no list")
    }
}

impl Roll for Seal {
    fn key(&self) -> &'static str {
        if self.of_root { "root key" } else { "data keys" }
    }

    fn steps(&self) -> &'static [&'static str] {
        if self.of_root {
            &["making the next root key", "waiting until every server knows", "wraps from now on", "wrapping data key", "taking root key"]
        } else {
            &["making version", "sealing the password", "destroying older versions"]
        }
    }

    fn victims(&self, step: &str) -> &'static [Victim] {
        // Where servers wait for each other. The other steps of the root key are this program's and the database's.
        let servers_know = !self.of_root || ["waiting until every server knows", "wraps from now on", "taking root key"].contains(&step);
        if servers_know { &[Victim::Roller, Victim::Console(0)] } else { &[Victim::Roller] }
    }

    async fn begin(&mut self, ground: &Ground, kill_at: Option<&'static str>) -> anyhow::Result<()> {
        self.before = std::fs::read_to_string(ground.site.path("root.key"))?;
        self.version = newest(&Self::keys(ground)?);
        self.said.clear();
        self.launch(ground, kill_at)
    }

    async fn step(&mut self, _: &Ground) -> anyhow::Result<Option<String>> {
        let Some(running) = &self.running else { return Ok(None) };
        match running.told.try_recv() {
            Ok(line) => {
                let step = self.steps().iter().find(|step| line.contains(*step)).map_or_else(|| line.clone(), |step| (*step).to_owned());
                self.said.push(line);
                Ok(Some(step))
            }
            Err(mpsc::TryRecvError::Empty) => Ok(Some("running".to_owned())),
            Err(mpsc::TryRecvError::Disconnected) => {
                let status = running.child.lock().unwrap_or_else(PoisonError::into_inner).wait()?;
                if !status.success() && !self.killed {
                    bail!("it failed ({status}): {}", self.said.join("; "));
                }
                self.running = None;
                Ok(None)
            }
        }
    }

    async fn interrupt(&mut self, ground: &Ground) -> anyhow::Result<()> {
        if let Some(running) = self.running.take() {
            let mut child = running.child.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = child.kill();
            let _ = child.wait();
        }
        self.launch(ground, None)
    }

    async fn check(&mut self, ground: &Ground) -> anyhow::Result<()> {
        let (keys, now) = (Self::keys(ground)?, std::fs::read_to_string(ground.site.path("root.key"))?);
        let said = || self.said.join("; ");
        if self.of_root {
            let roots: std::collections::BTreeSet<_> = keys.iter().map(|row| row["root_key"].to_string()).collect();
            if roots.len() != 1 || now.lines().count() != 1 || now == self.before {
                bail!("half done: {roots:?}, {} lines; it said: {}", now.lines().count(), said());
            }
            let left = std::fs::read_dir(ground.site.path(""))?
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(".convox-root-"));
            if left.count() > 0 {
                bail!("a file with root keys was left behind");
            }
            let old = ground.site.path("old.key");
            std::fs::write(&old, &self.before)?;
            let output = ground.site.command_with(&["keys", "list"], &old).output()?;
            std::fs::remove_file(&old)?;
            if output.status.success() {
                bail!("the old root key still opens the database");
            }
        } else {
            let of_org: Vec<_> = keys.iter().filter(|row| row["owner"] == super::ground::ORG).collect();
            if of_org.len() != 1 || newest(&keys) <= self.version {
                bail!("half done: {of_org:?} after version {}; it said: {}", self.version, said());
            }
        }
        for console in 0..ground.consoles.len() {
            ground.person(console)?.system().await.context("the Rack's password does not open")?;
        }
        Ok(())
    }
}

fn newest(keys: &[Value]) -> i64 {
    keys.iter().filter(|row| row["owner"] == super::ground::ORG).filter_map(|row| row["version"].as_i64()).max().unwrap_or(0)
}

/// The key of device cookies: one command, in effect on all servers when it ends.
#[derive(Default)]
pub(crate) struct Cookies {
    running: Option<Child>,
}

impl Roll for Cookies {
    fn key(&self) -> &'static str {
        "key of device cookies"
    }

    fn steps(&self) -> &'static [&'static str] {
        &["rolling"]
    }

    fn victims(&self, _: &str) -> &'static [Victim] {
        &[Victim::Roller, Victim::Console(0)]
    }

    async fn begin(&mut self, ground: &Ground, _: Option<&'static str>) -> anyhow::Result<()> {
        self.running = Some(ground.site.command(&["keys", "roll-cookies"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        Ok(())
    }

    async fn step(&mut self, _: &Ground) -> anyhow::Result<Option<String>> {
        let Some(running) = &mut self.running else { return Ok(None) };
        match running.try_wait()? {
            None => Ok(Some("rolling".to_owned())),
            Some(status) if status.success() => {
                self.running = None;
                Ok(None)
            }
            Some(status) => bail!("it failed ({status})"),
        }
    }

    async fn interrupt(&mut self, ground: &Ground) -> anyhow::Result<()> {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
        self.begin(ground, None).await
    }

    async fn check(&mut self, ground: &Ground) -> anyhow::Result<()> {
        for console in 0..ground.consoles.len() {
            ground.person(console)?.system().await.context("requests do not go on after the roll")?;
        }
        Ok(())
    }
}
