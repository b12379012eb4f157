//! A key management service: it keeps a key that never leaves it, and wraps root keys with it. Asked when the Console starts and when the
//! root key is rolled.
//!
//! The first one is the transit interface of Vault, which others speak too: `encrypt` and `decrypt` over HTTPS, with a token.

use std::path::PathBuf;
use std::pin::Pin;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use convox_client::{Call, Client, Context, Endpoint};
use convox_seal::Secret;
use convox_tls::{Fingerprint, Trust};
use serde::Deserialize;
use serde_json::json;

/// How long one call may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Which one, if any.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// KMS that seals the root key: https://HOST:PORT/MOUNT/KEY of a Vault-compatible transit interface
    #[arg(long, value_name = "URL", env = "CONVOX_ROOT_KEY_KMS")]
    pub(crate) root_key_kms: Option<String>,
    /// File with the token for the KMS; else the variable VAULT_TOKEN
    #[arg(long, value_name = "FILE", env = "CONVOX_KMS_TOKEN_FILE")]
    pub(crate) kms_token_file: Option<PathBuf>,
    /// Fingerprint (sha256:...) of the KMS's certificate; without it this machine's authorities decide
    #[arg(long, value_name = "FINGERPRINT", env = "CONVOX_KMS_PIN")]
    pub(crate) kms_pin: Option<Fingerprint>,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Something that keeps a key and wraps others with it.
pub(crate) trait Kms: Send + Sync {
    /// For messages.
    fn name(&self) -> String;

    /// What only this KMS opens, as one word of text.
    fn wrap<'a>(&'a self, plain: &'a Secret) -> Answer<'a, String>;

    /// Opens it.
    fn unwrap<'a>(&'a self, wrapped: &'a str) -> Answer<'a, Secret>;
}

/// The KMS that the options name.
pub(crate) fn of(options: &Options) -> Result<Option<Box<dyn Kms>>> {
    let Some(url) = &options.root_key_kms else { return Ok(None) };
    Ok(Some(Box::new(Transit::new(url, options)?)))
}

/// Vault's transit interface.
struct Transit {
    client: Client,
    host: String,
    mount: String,
    key: String,
    /// Read anew for each call: tokens of a KMS are renewed, and none is to stay in memory.
    token_file: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Reply<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: String,
}

impl Transit {
    fn new(url: &str, options: &Options) -> Result<Self> {
        let form = "--root-key-kms is https://HOST:PORT/MOUNT/KEY, such as https://vault.example.com:8200/transit/convox";
        let (place, key) = url.rsplit_once('/').context(form)?;
        let (place, mount) = place.rsplit_once('/').context(form)?;
        let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !place.starts_with("https://")
            || place.contains('@')
            || !word(mount)
            || !word(key)
            || mount.starts_with('.')
            || key.starts_with('.')
        {
            bail!("{form}");
        }
        let endpoint = Endpoint::parse(place).map_err(|error| anyhow::anyhow!("{form}: {error}"))?;
        let host = endpoint.authority().to_owned();
        let trust = options.kms_pin.map_or(Trust::SystemRoots, Trust::Pinned);
        let client = Client::new(endpoint, trust, Context::default());
        let transit = Self { client, host, mount: mount.to_owned(), key: key.to_owned(), token_file: options.kms_token_file.clone() };
        // Better to know now.
        transit.token()?;
        Ok(transit)
    }

    fn token(&self) -> Result<Secret> {
        let token = match &self.token_file {
            Some(file) => {
                std::fs::read_to_string(file).with_context(|| format!("could not read the KMS's token from {}", file.display()))?
            }
            None => std::env::var("VAULT_TOKEN").context("the KMS needs a token: give --kms-token-file, or set VAULT_TOKEN")?,
        };
        Ok(Secret::new(Secret::new(token).expose().trim().to_owned()))
    }

    async fn ask<T: serde::de::DeserializeOwned + Send>(&self, what: &str, body: Secret) -> Result<T> {
        let failed = || format!("the KMS at {} did not {what}", self.host);
        let call = Call::post(&["v1", &self.mount, what, &self.key])?
            .header("x-vault-token", self.token()?.expose())?
            .header("content-type", "application/json")?
            .body(body.expose().as_bytes().to_vec());
        let reply: Reply<T> = tokio::time::timeout(PATIENCE, self.client.value(call)).await.with_context(failed)?.with_context(failed)?;
        Ok(reply.data)
    }
}

impl Kms for Transit {
    fn name(&self) -> String {
        format!("the KMS at {}", self.host)
    }

    fn wrap<'a>(&'a self, plain: &'a Secret) -> Answer<'a, String> {
        Box::pin(async move {
            let body = Secret::new(json!({ "plaintext": STANDARD.encode(plain.expose()) }).to_string());
            let Encrypted { ciphertext } = self.ask("encrypt", body).await?;
            if ciphertext.is_empty() || ciphertext.contains(|c: char| c.is_whitespace() || c == ',' || c.is_control()) {
                bail!("the KMS at {} gave no ciphertext", self.host);
            }
            // A key that cannot be opened again is no key: better to know now.
            if !self.unwrap(&ciphertext).await?.matches(plain.expose()) {
                bail!("the KMS at {} does not open what it wrapped", self.host);
            }
            Ok(ciphertext)
        })
    }

    fn unwrap<'a>(&'a self, wrapped: &'a str) -> Answer<'a, Secret> {
        Box::pin(async move {
            let Decrypted { plaintext } = self.ask("decrypt", Secret::new(json!({ "ciphertext": wrapped }).to_string())).await?;
            let plaintext = Secret::new(plaintext);
            let bytes = STANDARD.decode(plaintext.expose()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            Ok(Secret::new(bytes.with_context(|| format!("the KMS at {} gave something else than a root key", self.host))?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_https_address_with_mount_and_key_is_a_kms() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "s.token\n").unwrap();
        let options = Options { kms_token_file: Some(token), ..Options::default() };
        assert!(Transit::new("https://vault.example.com:8200/transit/convox", &options).is_ok());
        for bad in [
            "",
            "https://vault.example.com",
            "https://vault.example.com/convox",
            "http://vault.example.com/transit/convox",
            "https://user:pw@vault.example.com/transit/convox",
            "https://vault.example.com/transit/",
            "https://vault.example.com/../convox",
            "https://vault.example.com/transit/a?b",
            "vault.example.com/transit/convox",
        ] {
            assert!(Transit::new(bad, &options).is_err(), "{bad}");
        }
    }
}
