//! One function per endpoint of a Console itself (protocol section 5).

use convox_wire::api::RackEntry;
use serde::Deserialize;

use crate::{Call, Client, Error};

/// Who a key belongs to, as far as the server says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// The user's id at a Console; a Rack names none.
    pub id: Option<String>,
    /// The user's e-mail address, from Consoles that say it.
    pub email: Option<String>,
}

impl Client {
    /// `GET /auth`: is the key good? A Rack answers `ok`, a Console who it belongs to.
    pub async fn auth(&self) -> Result<Identity, Error> {
        let body = self.send(Call::get(&["auth"])?).await?.bytes(64 * 1024).await?;
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    /// `GET /racks`: the Racks that the caller may use. A Rack itself answers [`Error::NotFound`].
    pub async fn racks(&self) -> Result<Vec<RackEntry>, Error> {
        self.list(Call::get(&["racks"])?).await
    }
}
