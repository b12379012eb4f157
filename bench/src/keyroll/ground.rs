//! What everything runs on: two Consoles, one Rack behind them with one host that it logs in to, and who works.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use convox_client::keys::WantedKey;
use convox_client::{Call, Client, Context, Endpoint, Key};
use convox_tls::{Fingerprint, Trust};
use serde_json::Value;

use super::Victim;
use super::host::Host;
use super::load::People;
use crate::server::Server;
use crate::site::Site;

pub(crate) const ORG: &str = "acme";
pub(crate) const RACK: &str = "main";

/// One of them: its port stays the same over restarts; the pin is that of whoever connected lately.
struct Door {
    host: String,
    pin: Mutex<Fingerprint>,
}

impl Door {
    fn of(server: &Server) -> Self {
        Self { host: server.host.clone(), pin: Mutex::new(server.pin) }
    }

    fn pin(&self) -> Fingerprint {
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where everybody knocks.
pub(crate) struct Doors {
    consoles: Vec<Door>,
    rack: Door,
}

impl Doors {
    /// Everybody has followed this server to its next certificate, as clients of ours do, and keeps its pin from now on; `None` for the Rack.
    pub(crate) fn follow(&self, console: Option<usize>, pin: Fingerprint) -> anyhow::Result<()> {
        let door = console.map_or(Some(&self.rack), |console| self.consoles.get(console)).context("no such Console")?;
        *door.pin.lock().unwrap_or_else(PoisonError::into_inner) = pin;
        Ok(())
    }

    /// At a Console, with any key; for the Console itself without a Rack.
    pub(crate) fn console(&self, console: usize, key: &str, rack: Option<String>) -> anyhow::Result<Client> {
        let door = self.consoles.get(console).context("no such Console")?;
        let context = Context { rack, ..Context::default() };
        Ok(Client::new(Endpoint::console(&door.host, Key::new(key))?, Trust::Pinned(door.pin()), context))
    }

    /// At a Console, for the Rack.
    pub(crate) fn person(&self, console: usize, key: &str) -> anyhow::Result<Client> {
        self.console(console, key, Some(format!("{ORG}/{RACK}")))
    }

    /// Straight to the Rack: user `convox` with a password, or `jwt` with a token.
    pub(crate) fn straight(&self, user: &str, secret: &str) -> anyhow::Result<Client> {
        let Door { host, .. } = &self.rack;
        let endpoint = Endpoint::parse(&format!("https://{user}:{secret}@{host}"))?;
        Ok(Client::new(endpoint, Trust::Pinned(self.rack.pin()), Context::default()))
    }
}

/// Something that opened a door once, and must not do so ever again.
pub(crate) enum Dead {
    ApiKey(String),
    RackPassword(String),
    Token(String),
}

pub(crate) struct Ground {
    pub(crate) consoles: Vec<Server>,
    pub(crate) rack: Server,
    pub(crate) host: Host,
    pub(crate) doors: Arc<Doors>,
    /// The administrator's API key. It is not rolled.
    pub(crate) key: String,
    pub(crate) people: People,
    dead: Mutex<Vec<Dead>>,
    // Last: it goes when nothing stands on it any more.
    pub(crate) site: Site,
}

impl Ground {
    pub(crate) async fn start(bin: &Path) -> anyhow::Result<Self> {
        let site = Site::new(bin, "benchRackPasswordBenchRackPassword12345678")?;
        std::fs::create_dir(site.path("host"))?;
        let host = Host::start(&site.path("host"))?;
        let rack = site.rack("rack", RACK, &["--instances", &host.instances()?.display().to_string()])?;
        let first = site.console(0)?;
        let key = site.set_up(&first, ORG, "ada@example.com")?;
        let consoles = vec![first, site.console(1)?];
        let doors = Arc::new(Doors { consoles: consoles.iter().map(Door::of).collect(), rack: Door::of(&rack) });
        let ground = Self { consoles, rack, host, doors, key, people: People::default(), dead: Mutex::default(), site };
        ground.site.add(&ground.rack, RACK, ORG)?;
        ground.employ().await?;
        Ok(ground)
    }

    /// Gives everybody who works something to work with.
    async fn employ(&self) -> anyhow::Result<()> {
        let client = self.doors.console(0, &self.key, None)?;
        let user = WantedKey { name: "laptop".to_owned(), kind: "user".to_owned(), ..WantedKey::default() };
        let deploy = WantedKey {
            name: "ci".to_owned(),
            kind: "deploy".to_owned(),
            organization: Some(ORG.to_owned()),
            racks: vec![RACK.to_owned()],
            may: vec!["read".to_owned(), "read-secret".to_owned()],
            ..WantedKey::default()
        };
        for (hands, wanted) in [(&self.people.user, user), (&self.people.deploy, deploy)] {
            let key = client.create_key(&wanted).await?.api_key.expose().to_owned();
            for hand in hands {
                hand.give(&key);
            }
        }
        self.people.token.give(&self.person(0)?.access_token("read", 1).await?);
        Ok(())
    }

    /// Somebody with the administrator's key, at one of the Consoles, for the Rack.
    pub(crate) fn person(&self, console: usize) -> anyhow::Result<Client> {
        self.doors.person(console, &self.key)
    }

    /// Asks the Console's API, whichever Console answers.
    pub(crate) async fn ask(&self, make: impl Fn() -> Result<Call, convox_client::Error>) -> anyhow::Result<Value> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            for console in 0..self.consoles.len() {
                match self.doors.console(console, &self.key, None)?.value(make()?).await {
                    Ok(value) => return Ok(value),
                    Err(error) if Instant::now() > end => return Err(error.into()),
                    Err(convox_client::Error::Server { status: 400..=499, message, .. }) => bail!("{message}"),
                    Err(_) => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Nobody | Victim::Roller => {}
            Victim::Console(number) => self.consoles.get_mut(number).into_iter().for_each(Server::kill),
            Victim::Rack => self.rack.kill(),
        }
    }

    /// Starts it again a moment later; says how long the start took.
    pub(crate) async fn restart(&mut self, victim: Victim) -> anyhow::Result<Duration> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        match victim {
            Victim::Nobody | Victim::Roller => Ok(Duration::ZERO),
            Victim::Console(number) => self.consoles.get_mut(number).context("no such Console")?.again(),
            Victim::Rack => self.rack.again(),
        }
    }

    /// Remembers what must not open anything any more.
    pub(crate) fn bury(&self, dead: Dead) {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).push(dead);
    }

    /// `kill -9` for everything at once, the database too (what it had not synced is lost); then everything is started again. Gives the longest start
    /// of a server of ours.
    pub(crate) fn crash(&mut self) -> anyhow::Result<Duration> {
        self.consoles.iter_mut().for_each(Server::kill);
        self.rack.kill();
        self.site.postgres.crash()?;
        let mut longest = self.rack.again()?;
        for console in &mut self.consoles {
            longest = longest.max(console.again()?);
        }
        Ok(longest)
    }

    /// Whatever was buried opens nothing, at neither Console; what lives, lives. Gives how many were tried.
    pub(crate) async fn dead_stay_dead(&self) -> anyhow::Result<usize> {
        let dead = std::mem::take(&mut *self.dead.lock().unwrap_or_else(PoisonError::into_inner));
        for one in &dead {
            match one {
                Dead::ApiKey(key) => {
                    for console in 0..self.consoles.len() {
                        refused(self.doors.console(console, key, None)?.auth().await, "an API key")?;
                    }
                }
                Dead::RackPassword(password) => refused(self.doors.straight("convox", password)?.auth().await, "a Rack password")?,
                Dead::Token(token) => refused(self.doors.straight("jwt", token)?.system().await, "a token")?,
            }
        }
        for console in 0..self.consoles.len() {
            self.person(console)?.system().await.context("what lives does not work any more")?;
        }
        let count = dead.len();
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).extend(dead);
        Ok(count)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.site.end(&mut self.rack, "rack");
    }
}

fn refused<T>(answer: Result<T, convox_client::Error>, what: &str) -> anyhow::Result<()> {
    match answer {
        Err(error) if error.is_about_the_key() => Ok(()),
        other => bail!("{what} that was revoked or rolled is not refused: {:?}", other.map(drop)),
    }
}
