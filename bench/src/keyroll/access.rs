//! The key that signs a Rack's tokens: rotated with an overlap, so that whoever works with a token of the old key goes on until the window ends.

use std::time::{Duration, Instant};

use anyhow::bail;
use convox_client::Client;

use super::ground::Ground;
use super::{Roll, Victim};

const OVERLAP: Duration = Duration::from_secs(4);

/// A token of the old key, and when that was to end.
#[derive(Default)]
pub(crate) struct SigningKey {
    old: String,
    ends: Option<Instant>,
    sent: bool,
}

impl SigningKey {
    fn bearer(&self, ground: &Ground) -> anyhow::Result<Client> {
        ground.straight("jwt", &self.old)
    }
}

impl Roll for SigningKey {
    fn key(&self) -> &'static str {
        "Rack signing key"
    }

    fn steps(&self) -> &'static [&'static str] {
        &["asked", "overlap"]
    }

    fn victims(&self) -> &'static [Victim] {
        &[Victim::Rack, Victim::Console(0)]
    }

    async fn begin(&mut self, ground: &Ground) -> anyhow::Result<()> {
        self.old = ground.person(0)?.access_token("read", 1).await?;
        self.bearer(ground)?.system().await?;
        (self.ends, self.sent) = (None, false);
        // Whoever asks does not wait: the kill may come before, between or after.
        let client = ground.person(1)?;
        tokio::spawn(async move { client.access_key_rotate(Some(OVERLAP)).await });
        Ok(())
    }

    async fn step(&mut self, ground: &Ground) -> anyhow::Result<Option<String>> {
        if !std::mem::replace(&mut self.sent, true) {
            return Ok(Some("asked".to_owned()));
        }
        match self.ends {
            // An answer that was cut off: asked again, as a person would.
            None => {
                ground.person(1)?.access_key_rotate(Some(OVERLAP)).await?;
                self.ends = Some(Instant::now() + OVERLAP + Duration::from_secs(2));
                Ok(Some("overlap".to_owned()))
            }
            Some(ends) if Instant::now() < ends => {
                let left = ends.duration_since(Instant::now());
                if left > Duration::from_secs(3) && self.bearer(ground)?.system().await.is_err_and(|error| error.is_about_the_key()) {
                    bail!("a token of the old key is refused before its window ended");
                }
                Ok(Some("overlap".to_owned()))
            }
            Some(_) => Ok(None),
        }
    }

    async fn check(&mut self, ground: &Ground) -> anyhow::Result<()> {
        match self.bearer(ground)?.system().await {
            Err(error) if error.is_about_the_key() => {}
            other => bail!("a token of the old key works after its window: {:?}", other.map(|_| ())),
        }
        let new = ground.person(0)?.access_token("read", 1).await?;
        ground.straight("jwt", &new)?.system().await?;
        Ok(())
    }
}
