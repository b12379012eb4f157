//! Sessions that a second factor opens (protocol 3.4): a 401 with a demand, a challenge, its answer, and the same request again. Who answers
//! is for whoever made the client: a person at a terminal, mostly.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use convox_wire::session::SessionDemand;
use http::Method;
use serde::Deserialize;

use crate::{Call, Client, Error};

/// More than any challenge.
const LONGEST_CHALLENGE: usize = 64 * 1024;

/// What is to be answered.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// Names it; goes back with the answer.
    pub id: String,
    /// As the server sent it: JSON for an authenticator.
    pub json: Bytes,
    /// By what our own Console takes an answer, such as `browser` and `code`; nothing from others, which take an authenticator's.
    pub answers: Vec<String>,
}

/// Who answers demands for a session. Gives its id.
pub trait Answer: Send + Sync {
    /// Answers `demand`, by calls of `client` that are not demanded a session for themselves.
    fn answer<'a>(
        &'a self,
        client: &'a Client,
        demand: &'a SessionDemand,
    ) -> Pin<Box<dyn Future<Output = Result<String, Error>> + Send + 'a>>;
}

/// An [`Answer`] that clones share.
#[derive(Clone)]
pub struct Answerer(pub Arc<dyn Answer>);

impl fmt::Debug for Answerer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answerer")
    }
}

#[derive(Deserialize)]
struct Made {
    #[serde(default)]
    id: String,
}

impl Client {
    /// `GET` of the path that a demand names.
    pub async fn challenge(&self, demand: &SessionDemand) -> Result<Challenge, Error> {
        let reply = self.attempted(Call::raw(Method::GET, demand.path.clone())).await?;
        let id = reply.header("challenge").unwrap_or_default().to_owned();
        let answers = reply.header("session-answers").unwrap_or_default();
        let answers = answers.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect();
        Ok(Challenge { id, json: reply.bytes(LONGEST_CHALLENGE).await?, answers })
    }

    /// `POST` of the answer there; with neither challenge nor answer where none is needed. Gives the session's id.
    pub async fn open_session(&self, demand: &SessionDemand, challenge: Option<&str>, answer: Vec<u8>) -> Result<String, Error> {
        let mut call = Call::raw(Method::POST, demand.path.clone()).body(answer);
        if let Some(id) = challenge {
            call = call.header("Challenge", id)?;
        }
        let body = self.attempted(call).await?.bytes(LONGEST_CHALLENGE).await?;
        let made: Made = serde_json::from_slice(&body).unwrap_or(Made { id: String::new() });
        if made.id.is_empty() || !made.id.bytes().all(|byte| byte.is_ascii_graphic()) {
            let host = self.endpoint().authority().to_owned();
            return Err(Error::Protocol { host, reason: "it gave no session for the answer".to_owned() });
        }
        Ok(made.id)
    }
}
