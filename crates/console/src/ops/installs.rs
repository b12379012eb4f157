//! Racks on the Console's own machine: one `convox-rack` for each, in the background, with a password that nobody sees and that lies on
//! no disk in the clear. It gets it through a pipe, at every start anew.
//!
//! A Rack outlives the Console that started it. One that does not run (the machine was restarted) is started again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use convox_model::{RackId, RackName, Role};
use convox_seal::{Secret, generate_password};
use convox_store::installs::InstallRow;
use convox_tls::Fingerprint;

use super::racks::{Added, NewRack, Pin};
use super::{Actor, Entered, Ops, OpsError};
use crate::credentials::open_password;

/// How long a Rack may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where Racks of this machine live: `DIR/racks/ID/`.
#[derive(Clone, Debug)]
pub(crate) struct Homes(PathBuf);

/// The directory of one of them.
struct Home(PathBuf);

impl Homes {
    pub(crate) fn below(data: &Path) -> Self {
        Self(data.join("racks"))
    }

    fn of(&self, id: &str) -> Home {
        Home(self.0.join(id))
    }
}

impl Home {
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.file(name)).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Process id, if it runs. A pid alone may by now belong to somebody else, so its start counts too.
    fn running(&self) -> Option<rustix::process::Pid> {
        let text = self.text("pid")?;
        let (pid, start) = text.split_once(' ')?;
        let pid: i32 = pid.parse().ok()?;
        (started(pid.unsigned_abs()).as_deref() == Some(start)).then(|| rustix::process::Pid::from_raw(pid)).flatten()
    }

    /// Address and fingerprint of the last start that became ready.
    fn ready(&self) -> Option<(String, Fingerprint)> {
        let text = self.text("out")?;
        let rest = text.lines().find_map(|line| line.strip_prefix("listening on https://"))?;
        let (host, fingerprint) = rest.split_once(" fingerprint ")?;
        Some((host.to_owned(), fingerprint.trim().parse().ok()?))
    }

    /// Starts the Rack on `listen`, and gives it its password.
    fn start(&self, program: &Path, name: &str, listen: &str, password: &Secret) -> io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.file("log"))?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", listen, "--name", name, "--password-file", "/dev/stdin", "--data"])
            .arg(self.file("data"))
            .env_clear()
            .envs(["PATH", "HOME", "LANG", "TZ"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .current_dir(&self.0)
            .stdin(Stdio::piped())
            .stdout(File::create(self.file("out"))?)
            .stderr(log);
        // What ends the Console is not meant for it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(password.expose().as_bytes())?;
        }
        fs::write(self.file("pid"), format!("{} {}", child.id(), started(child.id()).unwrap_or_default()))?;
        Ok(child)
    }

    /// Waits until it listens; if it does not, gives its last words.
    async fn until_ready(&self, child: &mut Child) -> Result<(String, Fingerprint), String> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(ready) = self.ready() {
                return Ok(ready);
            }
            let ended = child.try_wait().ok().flatten();
            if ended.is_some() || tokio::time::Instant::now() > end {
                let _ = child.kill();
                let _ = child.wait();
                let log = self.text("log").unwrap_or_default();
                let last = log.lines().last().unwrap_or("it said nothing").to_owned();
                let why =
                    ended.map_or_else(|| format!("not ready within {} s", PATIENCE.as_secs()), |status| format!("it ended ({status})"));
                return Err(format!("{why}: {last}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// When a process was started, as the system counts; `None` if there is none.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the rest are numbers.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// The Rack's program: beside this one, or on `PATH`.
fn program() -> Result<PathBuf, OpsError> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.canonicalize().ok()?.parent()?.join("convox-rack")));
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).map(|dir| dir.join("convox-rack")).collect::<Vec<_>>());
    let found = beside.into_iter().chain(on_path.into_iter().flatten()).find(|path| path.is_file());
    found.ok_or_else(|| {
        OpsError::Conflict("the program convox-rack is not on the Console's machine; put it beside convox-console".to_owned())
    })
}

/// Nobody waits for it, but its end must be noticed, or its entry stays in the table of processes.
fn leave(mut child: Child) {
    std::thread::spawn(move || child.wait());
}

impl Ops {
    /// Begins to install a Rack; gives the id under which its progress is written down.
    pub(crate) async fn begin_install(&self, actor: &Actor, homes: &Homes, org: &str, name: &str) -> Result<String, OpsError> {
        let name: RackName = name.parse()?;
        let entered = self.enter(actor, org, Role::Operator).await?;
        let program = program()?;
        let id = RackId::new();
        let act = self.act_in(actor, &entered, "RackInstall", name.as_str(), &format!("racks/{name}"));
        self.store.insert_install(id.as_str(), &entered.org.id, name.as_str(), &act).await?;
        let (ops, actor, home) = (self.clone(), actor.clone(), homes.of(id.as_str()));
        let install = id.to_string();
        tokio::spawn(async move {
            let ended = ops.install(&actor, &home, &program, &entered, &name, id.clone()).await;
            let now_ms = ops.clock.now_ms();
            let kept = match ended {
                Ok(added) => {
                    let done = format!("Added to {} as {}.", entered.org.name, added.row.path());
                    ops.store.end_install(id.as_str(), "done", &done, now_ms).await
                }
                Err(error) => {
                    home.remove();
                    ops.store.end_install(id.as_str(), "failed", &format!("Failed: {error}"), now_ms).await
                }
            };
            if let Err(error) = kept {
                tracing::error!(%error, "how an installation ended could not be written down");
            }
        });
        Ok(install)
    }

    async fn install(
        &self,
        actor: &Actor,
        home: &Home,
        program: &Path,
        entered: &Entered,
        name: &RackName,
        id: RackId,
    ) -> Result<Added, OpsError> {
        let say = async |line: &str| self.store.log_install(id.as_str(), line).await;
        let cannot = |what: &str, error: &dyn std::fmt::Display| OpsError::Rack(format!("{what}: {error}"));
        say("Making a directory and a password.").await?;
        fs::create_dir_all(&home.0).and_then(|()| private(&home.0)).map_err(|error| cannot("the directory could not be made", &error))?;
        let password = generate_password();
        say("Starting the Rack.").await?;
        let mut child = home
            .start(program, name.as_str(), "127.0.0.1:0", &password)
            .map_err(|error| cannot("the Rack could not be started", &error))?;
        let ready = home.until_ready(&mut child).await;
        leave(child);
        let (host, fingerprint) = ready.map_err(|words| cannot("the Rack did not start", &words))?;
        say(&format!("It listens on {host} with the certificate {fingerprint}.")).await?;
        say("Asking it with its password, over the pinned certificate.").await?;
        let pin = Pin::Exactly(fingerprint);
        let new = NewRack { org: &entered.org.name, name: name.as_str(), host: &host, password: &password, pin };
        self.add_rack_as(actor, new, id.clone()).await
    }

    /// One installation with its log, for who may add Racks.
    pub(crate) async fn find_install(&self, actor: &Actor, org: &str, id: &str) -> Result<InstallRow, OpsError> {
        let entered = self.enter(actor, org, Role::Operator).await?;
        let found = self.store.find_install(&entered.org.id, id).await?;
        found.ok_or_else(|| OpsError::Missing("there is no such installation".to_owned()))
    }

    /// The last installations in an organization.
    pub(crate) async fn list_installs(&self, actor: &Actor, org: &str) -> Result<Vec<InstallRow>, OpsError> {
        let entered = self.enter(actor, org, Role::Operator).await?;
        Ok(self.store.list_installs(&entered.org.id).await?)
    }

    /// Starts the Racks of this machine that do not run, and clears away what a killed Console left half-installed.
    pub(crate) async fn revive_racks(&self, homes: &Homes, is_start: bool) -> Result<(), OpsError> {
        let entries = fs::read_dir(&homes.0).into_iter().flatten().flatten();
        let ids: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        for id in ids {
            let home = homes.of(&id);
            match self.store.find_rack_by_id(&RackId::from_text(id.clone())).await? {
                Some(row) if home.running().is_none() => {
                    let entered = self.enter(&Actor::host(), &row.org_name, Role::Operator).await?;
                    let broken = |error| OpsError::Rack(format!("the stored credential of {} cannot be used: {error}", row.path()));
                    let password = open_password(&row, &self.data_keys(&entered.org).await?).map_err(broken)?;
                    tracing::info!(rack.name = %row.path(), "starting the Rack again: it did not run");
                    match home.start(&program()?, &row.name, &row.host, &password) {
                        Ok(child) => leave(child),
                        Err(error) => tracing::error!(rack.name = %row.path(), %error, "the Rack could not be started again"),
                    }
                }
                Some(_) => {}
                // Nobody else installs here: what is unfinished when the server starts was cut off.
                None if is_start && self.store.is_install_running(&id).await? => {
                    home.remove();
                    let words = "Failed: the Console was restarted meanwhile; install the Rack again.";
                    self.store.end_install(&id, "failed", words, self.clock.now_ms()).await?;
                }
                None => {}
            }
        }
        Ok(())
    }
}

impl Home {
    /// Ends what runs and takes the directory away.
    fn remove(&self) {
        if let Some(pid) = self.running() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "a directory of an installation that failed could not be removed");
        }
    }
}

fn private(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
}
