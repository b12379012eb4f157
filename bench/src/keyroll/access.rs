//! The key that signs a Rack's tokens: rotated with an overlap, so that whoever works with a token of the old key goes on until the window ends.

use std::time::{Duration, Instant};

use anyhow::bail;
use convox_client::Client;

use super::ground::{Dead, Ground};
use super::{Roll, Victim};

const OVERLAP: Duration = Duration::from_secs(4);

/// A token of the old key, and how far the roll is.
#[derive(Default)]
pub(crate) struct SigningKey {
    old: String,
    /// When it was first asked for: an answer that was lost may have begun the window.
    asked: Option<Instant>,
    sent: bool,
    answered: bool,
}

impl SigningKey {
    fn bearer(&self, ground: &Ground) -> anyhow::Result<Client> {
        ground.doors.straight("jwt", &self.old)
    }
}

impl Roll for SigningKey {
    fn key(&self) -> &'static str {
        "Rack signing key"
    }

    fn steps(&self) -> &'static [&'static str] {
        &["asked", "overlap"]
    }

    fn victims(&self, _: &str) -> &'static [Victim] {
        &[Victim::Rack, Victim::Console(0)]
    }

    async fn begin(&mut self, ground: &Ground, _: Option<&'static str>) -> anyhow::Result<()> {
        // Those who work with one have it from before, too.
        self.old = ground.people.token.holds();
        self.bearer(ground)?.system().await?;
        (self.asked, self.sent, self.answered) = (Some(Instant::now()), false, false);
        // Whoever asks does not wait: the kill may come before, between or after.
        let client = ground.person(1)?;
        tokio::spawn(async move { client.access_key_rotate(Some(OVERLAP)).await });
        Ok(())
    }

    async fn step(&mut self, ground: &Ground) -> anyhow::Result<Option<String>> {
        if !std::mem::replace(&mut self.sent, true) {
            return Ok(Some("asked".to_owned()));
        }
        if !self.answered {
            // An answer that was cut off: asked again, as a person would.
            ground.person(1)?.access_key_rotate(Some(OVERLAP)).await?;
            self.answered = true;
            return Ok(Some("overlap".to_owned()));
        }
        let since = self.asked.map(|asked| asked.elapsed()).unwrap_or_default();
        if self.old == ground.people.token.holds() && since > OVERLAP / 2 {
            ground.people.token.give(&ground.person(1)?.access_token("read", 1).await?);
        }
        if !self.bearer(ground)?.system().await.is_err_and(|error| error.is_about_the_key()) {
            return Ok(Some("overlap".to_owned()));
        }
        if since < OVERLAP {
            bail!("a token of the old key is refused before its window ended");
        }
        Ok(None)
    }

    async fn check(&mut self, ground: &Ground) -> anyhow::Result<()> {
        ground.bury(Dead::Token(self.old.clone()));
        match self.bearer(ground)?.system().await {
            Err(error) if error.is_about_the_key() => {}
            other => bail!("a token of the old key works after its window: {:?}", other.map(|_| ())),
        }
        let new = ground.person(0)?.access_token("read", 1).await?;
        ground.doors.straight("jwt", &new)?.system().await?;
        Ok(())
    }
}
