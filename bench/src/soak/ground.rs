//! What everything runs on: two Consoles, organizations with a real Rack each, and a clock that can jump.
//!
//! Every Rack has the same name and apps of its own, whose names say whose they are: an answer from a wrong one shows.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;

use super::caller::{Caller, Door};
use crate::server::Server;
use crate::site::{Site, key};

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
    pub(super) clock: Clock,
    /// Of somebody in each organization.
    pub(super) keys: Vec<String>,
    // Last: it goes when nothing stands on it any more.
    pub(super) site: Site,
}

impl Ground {
    pub(super) async fn start(bin: &Path, jumps: bool) -> anyhow::Result<Self> {
        let mut site = Site::new(bin, "soakRackPasswordSoakRackPassword12345678")?;
        let clock = Clock::new(site.path("clock"), jumps)?;
        site.env = clock.env()?;
        let mut ground = Self { consoles: Vec::new(), racks: Vec::new(), clock, keys: Vec::new(), site };
        for number in 0..RACKS {
            let place = place(number);
            ground.racks.push(ground.site.rack(&place, &place, &["--runtime", "process"])?);
        }
        for number in 0..CONSOLES {
            let console = ground.site.console(number)?;
            if number == 0 {
                ground.site.set_up(&console, "org0", "user0@example.com")?;
            }
            ground.consoles.push(console);
        }
        for number in 0..RACKS {
            ground.add_org(number).with_context(|| format!("organization {number}"))?;
        }
        ground.fill().await?;
        Ok(ground)
    }

    fn add_org(&mut self, number: usize) -> anyhow::Result<()> {
        let (org, email) = (format!("org{number}"), format!("user{number}@example.com"));
        if number > 0 {
            self.site.admin(&["org", "create", &org])?;
            self.site.admin(&["user", "add", &email])?;
            self.site.admin(&["member", "add", &email, "--org", &org, "--role", "administrator"])?;
        }
        self.site.add(self.racks.get(number).context("no such Rack")?, "main", &org)?;
        self.keys.push(key(&self.site.admin(&["key", "create", "--email", &email, "--name", "soak"])?)?);
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
            self.site.end(rack, &place(number));
        }
    }
}

/// Where a Rack keeps its data, and its own name.
fn place(rack: usize) -> String {
    format!("rack{rack}")
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
