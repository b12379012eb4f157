//! What everything runs on: a PostgreSQL of its own, two Consoles on it, organizations with a real Rack each, and a clock that can jump.
//!
//! Every Rack has the same name and apps of its own, whose names say whose they are: an answer from a wrong one shows.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use serde_json::Value;
use tempfile::TempDir;

use super::caller::{Caller, Door};
use crate::keyroll::ground::{Postgres, Server};

pub(super) const CONSOLES: usize = 2;
/// Organizations, each with one Rack. The first one's is never killed, so that its memory can be followed.
pub(super) const RACKS: usize = 3;
/// Apps of each.
pub(super) const APPS: usize = 20;

/// The clock of all servers: real time and what is in a file, which `libfaketime` reads every second.
pub(super) struct Clock(Option<PathBuf>);

impl Clock {
    fn new(file: PathBuf, jumps: bool) -> anyhow::Result<Self> {
        if !jumps {
            return Ok(Self(None));
        }
        std::fs::write(&file, "+0")?;
        Ok(Self(Some(file)))
    }

    fn env(&self) -> anyhow::Result<Vec<(String, String)>> {
        let Some(file) = &self.0 else { return Ok(Vec::new()) };
        let libraries = std::fs::read_dir("/usr/lib").context("/usr/lib")?.flatten();
        let library = libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
        let library = library.context("no libfaketime: apt-get install libfaketime, or leave clock jumps out with --no-jumps")?;
        let pairs = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            // Only the time of day jumps; no clock of a kernel that counts from its start does.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        Ok(pairs.map(|(name, value)| (name.to_owned(), value)).to_vec())
    }

    /// So many seconds from real time on.
    pub(super) fn jump(&self, seconds: i64) -> anyhow::Result<()> {
        if let Some(file) = &self.0 {
            // At once or not at all: whoever reads half a number would jump elsewhere.
            let next = file.with_extension("next");
            std::fs::write(&next, format!("{seconds:+}"))?;
            std::fs::rename(next, file)?;
        }
        Ok(())
    }

    pub(super) fn jumps(&self) -> bool {
        self.0.is_some()
    }
}

pub(super) struct Ground {
    pub(super) consoles: Vec<Server>,
    pub(super) racks: Vec<Server>,
    pub(super) postgres: Postgres,
    pub(super) clock: Clock,
    /// Of somebody in each organization.
    pub(super) keys: Vec<String>,
    bin: PathBuf,
    directory: TempDir,
}

impl Ground {
    pub(super) async fn start(bin: &Path, jumps: bool) -> anyhow::Result<Self> {
        let bin = bin.canonicalize().with_context(|| format!("no {}", bin.display()))?;
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let text = |name: &str| at(name).display().to_string();
        let clock = Clock::new(at("clock"), jumps)?;
        let postgres = Postgres::start(&at("postgres"))?;
        std::fs::write(at("password"), "soakRackPasswordSoakRackPassword12345678")?;
        let mut racks = Vec::new();
        for number in 0..RACKS {
            let (name, data) = (format!("rack{number}"), text(&format!("rack{number}")));
            let args = ["serve", "--runtime", "process", "--name", &name, "--data", &data, "--password-file", &text("password")];
            let log = at(&format!("rack{number}.log"));
            racks.push(Server::start(bin.join("convox-rack"), args.map(str::to_owned).to_vec(), clock.env()?, log, false)?);
        }
        let made = Command::new(bin.join("convox-console")).args(["root-key", "--out", &text("root.key")]).output()?;
        if !made.status.success() {
            bail!("convox-console root-key failed: {}", String::from_utf8_lossy(&made.stderr));
        }
        let mut ground = Self { consoles: Vec::new(), racks, postgres, clock, keys: Vec::new(), bin, directory };
        for number in 0..CONSOLES {
            ground.add_console(number)?;
            if number == 0 {
                let code = ground.consoles.first().and_then(|console| console.setup_code.clone()).context("no setup code")?;
                ground.admin(&["setup", "--code", &code, "--org", "org0", "--email", "user0@example.com"])?;
            }
        }
        for number in 0..RACKS {
            ground.add_org(number).with_context(|| format!("organization {number}"))?;
        }
        ground.fill().await?;
        Ok(ground)
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn add_console(&mut self, number: usize) -> anyhow::Result<()> {
        let (data, root_key) = (self.path(&format!("console{number}")), self.path("root.key"));
        let args = ["serve", "--data", &data, "--root-key-file", &root_key, "--shards", "1"].map(str::to_owned).to_vec();
        let env = [self.clock.env()?, vec![("CONVOX_DATABASE".to_owned(), self.postgres.url.clone())]].concat();
        let log = PathBuf::from(self.path(&format!("console{number}.log")));
        self.consoles.push(Server::start(self.bin.join("convox-console"), args, env, log, number == 0)?);
        Ok(())
    }

    /// `convox-console ARGS --json`, on the database of both.
    fn admin(&self, args: &[&str]) -> anyhow::Result<Value> {
        let mut command = Command::new(self.bin.join("convox-console"));
        command.args(args).args(["--json", "--data", &self.path("console0"), "--root-key-file", &self.path("root.key")]);
        let output = command.env("CONVOX_DATABASE", &self.postgres.url).output().context("cannot run convox-console")?;
        if !output.status.success() {
            bail!("convox-console {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn add_org(&mut self, number: usize) -> anyhow::Result<()> {
        let (org, email) = (format!("org{number}"), format!("user{number}@example.com"));
        if number > 0 {
            self.admin(&["org", "create", &org])?;
            self.admin(&["user", "add", &email])?;
            self.admin(&["member", "add", &email, "--org", &org, "--role", "administrator"])?;
        }
        let rack = self.racks.get(number).context("no such Rack")?;
        let (host, pin) = (rack.host.clone(), rack.pin.to_string());
        self.admin(&["rack", "add", "main", "--org", &org, "--host", &host, "--pin", &pin, "--password-file", &self.path("password")])?;
        let made = self.admin(&["key", "create", "--email", &email, "--name", "soak"])?;
        self.keys.push(made["api_key"].as_str().context("no API key")?.to_owned());
        Ok(())
    }

    /// The way to a Console for whoever belongs to an organization.
    pub(super) fn door(&self, console: usize, rack: usize) -> anyhow::Result<Door> {
        let console = self.consoles.get(console).context("no such Console")?;
        let key = self.keys.get(rack).context("no such organization")?;
        Door::new(&console.host, &console.pin.to_string(), key, rack)
    }

    /// Apps, and in each of them a text that says whose it is.
    async fn fill(&self) -> anyhow::Result<()> {
        for rack in 0..RACKS {
            let mut caller = Caller::new(self.door(0, rack)?);
            for app in 0..APPS {
                let name = own(rack, app);
                let value = base64::engine::general_purpose::STANDARD.encode(&name).replace('+', "%2B").replace('=', "%3D");
                for (line, form) in
                    [("POST /apps", format!("name={name}")), (&format!("PUT /apps/{name}/configs/who"), format!("value={value}"))]
                {
                    let (status, body) = caller.send(line, &form).await?;
                    if status != 200 {
                        bail!("{line}: {status} {body}");
                    }
                }
            }
        }
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for (number, rack) in self.racks.iter_mut().enumerate() {
            rack.kill();
            let data = self.directory.path().join(format!("rack{number}"));
            // Its router outlives it by design, but not the trial.
            let mut command = Command::new(self.bin.join("convox-rack"));
            let _ = command.args(["stop-apps", "--data"]).arg(data).stdout(std::process::Stdio::null()).status();
        }
    }
}

/// Name of an app that only this Rack has.
pub(super) fn own(rack: usize, app: usize) -> String {
    format!("only-{rack}-{app}-x")
}

/// Whether a text speaks of a Rack other than this one.
pub(super) fn is_of_another(rack: usize, text: &str) -> bool {
    let own = format!("{rack}-");
    text.match_indices("only-").any(|(at, found)| !text.get(at + found.len()..).is_some_and(|rest| rest.starts_with(&own)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_of_another_rack_is_noticed() {
        assert!(!is_of_another(1, &format!("{} {}", own(1, 2), own(1, 11))));
        assert!(is_of_another(1, &format!("{} {}", own(1, 2), own(2, 1))));
        assert!(is_of_another(1, &own(11, 1)) && is_of_another(11, &own(1, 1)));
        assert!(!is_of_another(1, "only") && !is_of_another(1, "nothing"));
    }
}
