//! The certificates of Rack and Console: the old key signs the new one, and everybody who pinned the first follows.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use convox_client::{Endpoint, Key, Proxies, inspect};

use super::ground::Ground;
use super::{Roll, Victim};

pub(crate) struct Certificate {
    of_console: bool,
    rolling: Option<Child>,
    before: String,
}

impl Certificate {
    pub(crate) fn of_rack() -> Self {
        Self { of_console: false, rolling: None, before: String::new() }
    }

    pub(crate) fn of_console() -> Self {
        Self { of_console: true, rolling: None, before: String::new() }
    }

    fn place(&self, ground: &Ground) -> (PathBuf, PathBuf, String) {
        if self.of_console {
            let host = ground.consoles.first().map(|console| console.host.clone()).unwrap_or_default();
            (ground.site.bin.join("convox-console"), ground.site.path("console0"), host)
        } else {
            (ground.site.bin.join("convox-rack"), ground.site.path("rack"), ground.rack.host.clone())
        }
    }

    fn launch(&mut self, ground: &Ground) -> anyhow::Result<()> {
        let (program, data, _) = self.place(ground);
        let rolling = Command::new(program).args(["tls", "roll", "--data"]).arg(data).stdout(Stdio::null()).spawn()?;
        self.rolling = Some(rolling);
        Ok(())
    }

    async fn shown(&self, ground: &Ground) -> anyhow::Result<String> {
        let (_, _, host) = self.place(ground);
        Ok(inspect(&Endpoint::console(&host, Key::new(""))?, &Proxies::default()).await?.fingerprint.to_string())
    }
}

impl Roll for Certificate {
    fn key(&self) -> &'static str {
        if self.of_console { "TLS key of the Console" } else { "TLS key of the Rack" }
    }

    fn steps(&self) -> &'static [&'static str] {
        &["rolling", "written"]
    }

    fn victims(&self, _: &str) -> &'static [Victim] {
        if self.of_console { &[Victim::Roller, Victim::Console(0)] } else { &[Victim::Roller, Victim::Rack, Victim::Console(0)] }
    }

    async fn begin(&mut self, ground: &Ground, _: Option<&'static str>) -> anyhow::Result<()> {
        self.before = self.shown(ground).await?;
        self.launch(ground)
    }

    async fn interrupt(&mut self, ground: &Ground) -> anyhow::Result<()> {
        if let Some(mut rolling) = self.rolling.take() {
            let _ = rolling.kill();
            let _ = rolling.wait();
        }
        self.launch(ground)
    }

    async fn step(&mut self, ground: &Ground) -> anyhow::Result<Option<String>> {
        if let Some(rolling) = &mut self.rolling {
            match rolling.try_wait()? {
                None => return Ok(Some("rolling".to_owned())),
                Some(status) if !status.success() => bail!("tls roll failed: {status}"),
                Some(_) => self.rolling = None,
            }
            return Ok(Some("written".to_owned()));
        }
        Ok((self.shown(ground).await? == self.before).then(|| "written".to_owned()))
    }

    async fn check(&mut self, ground: &Ground) -> anyhow::Result<()> {
        // Everybody here still has the pin from before the roll.
        if self.of_console {
            ground.person(0)?.system().await.context("a client with the pin of before is refused")?;
        } else {
            ground
                .doors
                .straight("jwt", &ground.people.token.holds())?
                .system()
                .await
                .context("a client with the pin of before is refused")?;
            for console in 0..ground.consoles.len() {
                ground.person(console)?.system().await.context("a Console with the pin of before is refused")?;
            }
        }
        ground.doors.follow(self.of_console.then_some(0), self.shown(ground).await?.parse()?)
    }
}
