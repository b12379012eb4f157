//! The Rack's password: two phases, carried on by whichever Console lives.

use anyhow::{Context as _, bail};
use convox_client::Call;
use serde_json::{Value, json};

use super::ground::{Dead, Ground, ORG, RACK};
use super::{Roll, Victim};

/// A password that the Rack accepts: the first one lies in the file that it was started with.
#[derive(Default)]
pub(crate) struct Password {
    rolls: u32,
}

const PATH: [&str; 7] = ["api", "v1", "organizations", ORG, "racks", RACK, "password"];

impl Roll for Password {
    fn key(&self) -> &'static str {
        "Rack password"
    }

    fn steps(&self) -> &'static [&'static str] {
        &["begun", "accepted", "switched"]
    }

    fn victims(&self, _: &str) -> &'static [Victim] {
        &[Victim::Console(0), Victim::Console(1), Victim::Rack]
    }

    async fn begin(&mut self, ground: &Ground, _: Option<&'static str>) -> anyhow::Result<()> {
        self.rolls += 1;
        let options = json!({ "window_seconds": 2 }).to_string();
        ground.ask(|| Ok(Call::post(&PATH)?.body(options.clone()))).await?;
        Ok(())
    }

    async fn step(&mut self, ground: &Ground) -> anyhow::Result<Option<String>> {
        let status: Value = ground.ask(|| Call::get(&PATH)).await?;
        Ok(status["roll"]["step"].as_str().map(str::to_owned))
    }

    async fn check(&mut self, ground: &Ground) -> anyhow::Result<()> {
        for console in 0..ground.consoles.len() {
            ground.person(console)?.system().await.context("the new password does not work")?;
        }
        let file = std::fs::read_to_string(ground.site.password())?;
        match ground.doors.straight("convox", &file)?.auth().await {
            Err(error) if error.is_about_the_key() => {
                if self.rolls == 1 {
                    ground.bury(Dead::RackPassword(file));
                }
                Ok(())
            }
            other => bail!("the first password is not refused after {} rolls: {:?}", self.rolls, other.map(|_| ())),
        }
    }
}
