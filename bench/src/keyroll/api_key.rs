//! Keys of callers: of a person, and of a machine that deploys. In two steps by whoever has it, with an overlap: some take the new one at once, some
//! only shortly before the old one ends.

use std::time::{Duration, Instant};

use anyhow::bail;
use convox_client::Error;
use tokio::task::JoinHandle;

use super::ground::{Dead, Ground};
use super::{Roll, Victim};

const OVERLAP: Duration = Duration::from_secs(3);
/// The late ones go over after so much of it.
const LATE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Person,
    Machine,
}

/// What is under way.
enum Stage {
    /// A new one was asked for.
    Asked(JoinHandle<Result<String, Error>>),
    /// It is kept, and both are good.
    Both(Instant),
    /// It was said that the new one takes the old one's place.
    Finishing(JoinHandle<Result<(), Error>>),
    /// The old one has its end.
    Overlap,
}

pub(crate) struct ApiKey {
    whose: Whose,
    old: String,
    new: String,
    stage: Option<Stage>,
    /// Not before this the old one may be refused.
    ends: Option<Instant>,
}

impl ApiKey {
    pub(crate) fn of(whose: Whose) -> Self {
        Self { whose, old: String::new(), new: String::new(), stage: None, ends: None }
    }

    fn ask(&self, ground: &Ground) -> anyhow::Result<Stage> {
        let client = ground.doors.console(0, &self.old, None)?;
        let asked = async move { client.begin_key_roll(OVERLAP.as_secs()).await.map(|made| made.api_key.expose().to_owned()) };
        Ok(Stage::Asked(tokio::spawn(asked)))
    }

    fn finish(&mut self, ground: &Ground) -> anyhow::Result<Stage> {
        let hands = if self.whose == Whose::Person { &ground.people.user } else { &ground.people.deploy };
        let [early, late] = hands;
        if self.ends.is_none() {
            // Counted from the first time that it was said: an answer that was lost may have begun the overlap.
            self.ends = Some(Instant::now() + OVERLAP);
            early.give(&self.new);
            let (late, new) = (late.clone(), self.new.clone());
            tokio::spawn(async move {
                tokio::time::sleep(LATE).await;
                late.give(&new);
            });
        }
        let client = ground.doors.console(0, &self.new, None)?;
        Ok(Stage::Finishing(tokio::spawn(async move { client.finish_key_roll().await })))
    }

    /// At how many Consoles the old one is refused.
    async fn refused_at(&self, ground: &Ground) -> anyhow::Result<usize> {
        let mut refused = 0;
        for console in 0..ground.consoles.len() {
            let answer = ground.doors.console(console, &self.old, None)?.auth().await;
            refused += usize::from(answer.is_err_and(|error| error.is_about_the_key()));
        }
        if refused > 0 && self.ends.is_none_or(|ends| Instant::now() < ends) {
            bail!("the old key is refused before its overlap is over");
        }
        Ok(refused)
    }
}

impl Roll for ApiKey {
    fn key(&self) -> &'static str {
        if self.whose == Whose::Person { "user API key" } else { "deploy key" }
    }

    fn steps(&self) -> &'static [&'static str] {
        &["asked", "both", "finishing", "overlap"]
    }

    fn victims(&self, step: &str) -> &'static [Victim] {
        // The one that is asked; and where both must know of two keys, the other one too.
        let both_know = self.whose == Whose::Person && ["both", "overlap"].contains(&step);
        if both_know { &[Victim::Console(0), Victim::Console(1)] } else { &[Victim::Console(0)] }
    }

    async fn begin(&mut self, ground: &Ground, _: Option<&'static str>) -> anyhow::Result<()> {
        let hands = if self.whose == Whose::Person { &ground.people.user } else { &ground.people.deploy };
        self.old = hands[1].holds();
        self.ends = None;
        self.stage = Some(self.ask(ground)?);
        Ok(())
    }

    async fn step(&mut self, ground: &Ground) -> anyhow::Result<Option<String>> {
        let Some(stage) = self.stage.take() else { return Ok(None) };
        let (name, next) = match stage {
            Stage::Asked(asked) if !asked.is_finished() => ("asked", Stage::Asked(asked)),
            Stage::Asked(asked) => match asked.await? {
                Ok(new) => {
                    self.new = new;
                    ("both", Stage::Both(Instant::now()))
                }
                // An answer that was cut off: asked again, as whoever has the key would.
                Err(_) => ("asked", self.ask(ground)?),
            },
            Stage::Both(since) if since.elapsed() < Duration::from_millis(300) => {
                self.refused_at(ground).await?;
                ("both", Stage::Both(since))
            }
            Stage::Both(_) => ("finishing", self.finish(ground)?),
            Stage::Finishing(finishing) if !finishing.is_finished() => ("finishing", Stage::Finishing(finishing)),
            Stage::Finishing(finishing) => match finishing.await? {
                Ok(()) => ("overlap", Stage::Overlap),
                Err(_) => ("finishing", self.finish(ground)?),
            },
            Stage::Overlap if self.refused_at(ground).await? == ground.consoles.len() => return Ok(None),
            Stage::Overlap => ("overlap", Stage::Overlap),
        };
        self.stage = Some(next);
        Ok(Some(name.to_owned()))
    }

    async fn check(&mut self, ground: &Ground) -> anyhow::Result<()> {
        for console in 0..ground.consoles.len() {
            ground.doors.person(console, &self.new)?.done(convox_client::Call::get(&["apps"])?).await?;
        }
        ground.bury(Dead::ApiKey(self.old.clone()));
        Ok(())
    }
}
