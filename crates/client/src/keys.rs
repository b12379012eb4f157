//! API keys at a Console: its own API, below `/api/v1`.

use http::Method;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Call, Client, Error, Key};

/// A key as the Console lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyInfo {
    /// Its id.
    pub id: String,
    /// Address of its owner, who made it.
    pub email: String,
    /// `user` or `deploy`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Last four characters.
    pub last4: String,
    /// `active`; `rolled` when another one has its place and it is good until its end; `pending` when it will take another's place.
    pub state: String,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// Last use, RFC 3339.
    pub used: Option<String>,
    /// Its end, RFC 3339.
    pub expires: Option<String>,
    /// The organization that it is limited to.
    pub organization: Option<String>,
    /// The Racks that it is limited to.
    pub racks: Vec<String>,
    /// The apps that it is limited to.
    pub apps: Vec<String>,
    /// The effects and commands that it is limited to.
    pub may: Vec<String>,
    /// The networks that it is limited to.
    pub networks: Vec<String>,
}

/// A key that was just made.
#[derive(Debug, Deserialize)]
pub struct MadeKey {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `user` or `deploy`.
    pub kind: String,
    /// The key itself, this once.
    #[serde(deserialize_with = "secret")]
    pub api_key: Key,
    /// Last four characters.
    pub last4: String,
    /// Its end, RFC 3339.
    #[serde(default)]
    pub expires: Option<String>,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
    String::deserialize(deserializer).map(Key::new)
}

/// A key that is wanted; empty lists limit nothing.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WantedKey {
    /// Unique among its owner's.
    pub name: String,
    /// `user` or `deploy`.
    pub kind: String,
    /// Hours until it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_hours: Option<u64>,
    /// The organization that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// Racks of it.
    pub racks: Vec<String>,
    /// Apps.
    pub apps: Vec<String>,
    /// A set of commands that has a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Effects and commands.
    pub may: Vec<String>,
    /// Networks.
    pub networks: Vec<String>,
}

#[derive(Serialize)]
struct Roll {
    overlap_seconds: u64,
}

/// `/api/v1/keys`, or `/api/v1/organizations/ORG/keys`, and what comes below.
fn call<'p>(method: Method, org: Option<&'p str>, below: &[&'p str]) -> Result<Call, Error> {
    let mut pieces = vec!["api", "v1"];
    if let Some(org) = org {
        pieces.extend(["organizations", org]);
    }
    pieces.push("keys");
    pieces.extend(below);
    Call::new(method, &pieces)
}

fn json(call: Call, body: &impl Serialize) -> Result<Call, Error> {
    let text = serde_json::to_vec(body).map_err(|error| Error::Input(error.to_string()))?;
    Ok(call.header("content-type", "application/json")?.body(text))
}

impl Client {
    /// One's own keys, or the deploy keys of an organization: all of them.
    pub async fn keys(&self, org: Option<&str>) -> Result<Vec<KeyInfo>, Error> {
        const PAGE: usize = 500;
        let mut all: Vec<KeyInfo> = Vec::new();
        loop {
            let path = call(Method::GET, org, &[])?.path().to_owned();
            let after = all.last().map(|key| format!("&after={}", key.id)).unwrap_or_default();
            let page: Vec<KeyInfo> = self.list(Call::raw(Method::GET, format!("{path}?limit={PAGE}{after}"))).await?;
            let is_last = page.len() < PAGE;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// The key that asks.
    pub async fn current_key(&self) -> Result<KeyInfo, Error> {
        self.value(call(Method::GET, None, &["current"])?).await
    }

    /// Makes a key.
    pub async fn create_key(&self, wanted: &WantedKey) -> Result<MadeKey, Error> {
        self.value(json(call(Method::POST, None, &[])?, wanted)?).await
    }

    /// Makes a key that will take the place of the one that asks. Both are good until [`Self::finish_key_roll`] is asked for by the new one.
    pub async fn begin_key_roll(&self, overlap_seconds: u64) -> Result<MadeKey, Error> {
        self.value(json(call(Method::POST, None, &["roll"])?, &Roll { overlap_seconds })?).await
    }

    /// The key that asks takes its place; the one before is dead, or is good for the overlap. Asking again changes nothing.
    pub async fn finish_key_roll(&self) -> Result<(), Error> {
        self.done(call(Method::POST, None, &["roll", "finish"])?).await
    }

    /// Puts a new key in the place of another one.
    pub async fn roll_key(&self, org: Option<&str>, id: &str, overlap_seconds: u64) -> Result<MadeKey, Error> {
        self.value(json(call(Method::POST, org, &[id, "roll"])?, &Roll { overlap_seconds })?).await
    }

    /// Revokes a key.
    pub async fn revoke_key(&self, org: Option<&str>, id: &str) -> Result<(), Error> {
        self.done(call(Method::DELETE, org, &[id])?).await
    }
}
