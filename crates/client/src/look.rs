//! A server as whoever looks for a fault sees it: what it says of the time, and of the key.

use crate::console::Identity;
use crate::{Call, Client, Error};

/// An answer to [`Client::look`].
pub struct Look {
    /// The server's time, as it was sent in `Date`.
    pub date: Option<String>,
    /// What it says of the key.
    pub verdict: Result<Identity, Error>,
}

impl Client {
    /// `GET /auth`, whatever the answer is.
    ///
    /// # Errors
    /// What kept an answer from coming.
    pub async fn look(&self) -> Result<Look, Error> {
        let reply = self.exchange(Call::get(&["auth"])?).await?;
        let date = reply.header("date").map(str::to_owned);
        let verdict = match self.accept(reply).await {
            Ok(reply) => reply.bytes(64 * 1024).await.map(|body| serde_json::from_slice(&body).unwrap_or_default()),
            Err(error) => Err(error),
        };
        Ok(Look { date, verdict })
    }
}
