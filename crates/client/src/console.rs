//! One function per endpoint of a Console itself (protocol section 5).

use convox_wire::api::RackEntry;
use convox_wire::form::Params;
use serde::Deserialize;
use serde_json::Value;

use crate::{Call, Client, Error, Key};

/// Who a key belongs to, as far as the server says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// The user's id at a Console; a Rack names none.
    pub id: Option<String>,
    /// The user's e-mail address, from Consoles that say it.
    pub email: Option<String>,
    /// What the key is when it is less than the user, from Consoles that say it: `deploy key ci: acme/main; ci-legacy`.
    pub key: Option<String>,
}

impl Client {
    /// `GET /auth`: is the key good? A Rack answers `ok`, a Console who it belongs to.
    pub async fn auth(&self) -> Result<Identity, Error> {
        let body = self.send(Call::get(&["auth"])?).await?.bytes(64 * 1024).await?;
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Our Console: how far the roll of a Rack's password is, and the rule by which it is rolled.
    pub async fn roll_status(&self, rack: &str) -> Result<Value, Error> {
        self.value(Call::get(&password_of(rack)?)?).await
    }

    /// Our Console: begins to roll a Rack's password.
    pub async fn roll_begin(&self, rack: &str, options: &Value) -> Result<Value, Error> {
        self.value(Call::post(&password_of(rack)?)?.body(options.to_string())).await
    }

    /// Our Console: goes back to the old password.
    pub async fn roll_undo(&self, rack: &str) -> Result<Value, Error> {
        self.value(Call::delete(&password_of(rack)?)?).await
    }

    /// `GET /racks`: the Racks that the caller may use. A Rack itself answers [`Error::NotFound`].
    pub async fn racks(&self) -> Result<Vec<RackEntry>, Error> {
        self.list(Call::get(&["racks"])?).await
    }
}

/// What a command line is called where it signs in by a browser.
const CLIENT: &str = "convox-cli";
const BY_DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What is told of the ways to sign in (RFC 8414), as far as it matters here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    convox_console: u32,
    code_challenge_methods_supported: Vec<String>,
}

/// A sign-in that waits for somebody on another device (RFC 8628).
#[derive(Clone, Deserialize)]
pub struct DeviceAuthorization {
    device_code: String,
    /// What that person types.
    pub user_code: String,
    /// How long it waits, seconds.
    pub expires_in: u64,
    /// Between two questions, seconds.
    #[serde(default = "usual_interval")]
    pub interval: u64,
}

fn usual_interval() -> u64 {
    5
}

/// A key that a Console made for this machine.
#[derive(Clone, Deserialize)]
pub struct Token {
    access_token: String,
    /// Its id.
    pub key_id: String,
    /// Its name.
    pub key_name: String,
    /// Its end, RFC 3339.
    pub expires: String,
}

/// What came of a question for a key.
#[derive(Clone)]
pub enum Granted {
    /// The key.
    Token(Token),
    /// Nobody decided yet.
    Pending,
    /// The same, and asked too often.
    SlowDown,
    /// Somebody said no.
    Denied,
    /// Nobody decided in time, or the code was used before.
    Ended,
}

impl Token {
    /// The key itself.
    pub fn key(&self) -> Key {
        Key::new(self.access_token.clone())
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.access_token);
    }
}

impl Drop for DeviceAuthorization {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.device_code);
    }
}

impl Client {
    /// Whether this host lets command lines sign in by a browser: our Console does. Nothing secret is asked or sent.
    ///
    /// # Errors
    /// Only when nothing can be known: the host cannot be reached.
    pub async fn offers_sign_in(&self) -> Result<bool, Error> {
        match self.value::<Metadata>(Call::get(&[".well-known", "oauth-authorization-server"])?).await {
            Ok(told) => Ok(told.convox_console >= 1 && told.code_challenge_methods_supported.iter().any(|method| method == "S256")),
            Err(
                error @ (Error::Lookup { .. }
                | Error::Refused { .. }
                | Error::Unreachable { .. }
                | Error::Timeout { .. }
                | Error::Proxy { .. }
                | Error::Tls { .. }
                | Error::Closed { .. }),
            ) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Begins a sign-in that somebody approves on another device.
    pub async fn authorize_device(&self, device: &str) -> Result<DeviceAuthorization, Error> {
        let form = Params::new().with("client_id", CLIENT).with("device_name", device);
        self.value(Call::post(&["api", "v1", "oauth", "device_authorization"])?.form(&form)).await
    }

    /// Asks whether somebody did.
    pub async fn poll_device(&self, device: &DeviceAuthorization) -> Result<Granted, Error> {
        let form = Params::new().with("grant_type", BY_DEVICE).with("client_id", CLIENT).with("device_code", device.device_code.as_str());
        self.token(form).await
    }

    /// A key for the code that a browser brought.
    pub async fn exchange_code(&self, code: &Key, redirect_uri: &str, verifier: &Key) -> Result<Granted, Error> {
        let form = Params::new()
            .with("grant_type", "authorization_code")
            .with("client_id", CLIENT)
            .with("code", code.expose())
            .with("redirect_uri", redirect_uri)
            .with("code_verifier", verifier.expose());
        self.token(form).await
    }

    async fn token(&self, form: Params) -> Result<Granted, Error> {
        match self.value(Call::post(&["api", "v1", "oauth", "token"])?.form(&form)).await {
            Ok(token) => Ok(Granted::Token(token)),
            Err(Error::Server { status: 400, message, .. }) => match message.as_str() {
                "authorization_pending" => Ok(Granted::Pending),
                "slow_down" => Ok(Granted::SlowDown),
                "access_denied" => Ok(Granted::Denied),
                "expired_token" | "invalid_grant" => Ok(Granted::Ended),
                _ => Err(Error::Server { status: 400, message, request_id: None }),
            },
            Err(error) => Err(error),
        }
    }
}

/// The path of a Rack's password below a Console's API.
fn password_of(rack: &str) -> Result<[&str; 7], Error> {
    let (org, name) = rack.split_once('/').ok_or_else(|| Error::input(format!("`{rack}` is no org/rack")))?;
    Ok(["api", "v1", "organizations", org, "racks", name, "password"])
}
