//! Who is it? From a request's `Authorization` to a [`Verified`] principal, by a keyed hash in memory. Nothing here decides about rights.

use std::sync::Arc;

use convox_model::{Clock, Principal};
use convox_seal::{ApiKey, KeyFormatError, KeyKind, LookupKey};
use convox_wire::basic::{Basic, parse_basic};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::snapshot::{KnownKey, Snapshot};

/// Somebody whose credential was checked. Made only here.
#[derive(Clone, Debug)]
pub(crate) struct Verified(Arc<KnownKey>);

impl Verified {
    /// Who.
    pub(crate) fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// When their key ends, milliseconds since 1970.
    pub(crate) fn expires_ms(&self) -> Option<i64> {
        self.0.expires_ms
    }
}

/// Why nobody was recognised. `Display` is what the caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("invalid credentials: no API key was sent; log in with `convox login`")]
    Missing,
    #[error("invalid credentials: {0}; copy the whole key, or make a new one in your account settings")]
    Format(KeyFormatError),
    #[error("invalid credentials: this API key is unknown or was revoked; make a new one in your account settings and log in again")]
    Unknown,
    /// The words that clients look for (protocol 3.3).
    #[error("cli token is expired: make a new one in your account settings and log in again")]
    Expired,
}

/// The credential in the headers: the password of `Basic`, or a `Bearer` token. The user name of `Basic` is given back too: it may
/// name a Rack.
pub(crate) fn credential(headers: &HeaderMap) -> Option<Basic> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    if let Some(token) = value.strip_prefix("Bearer ") {
        return Some(Basic { user: String::new(), password: token.trim().to_owned() });
    }
    parse_basic(value)
}

/// Looks a key up. Keys are letters, digits and `_`, which clients send as they are.
pub(crate) fn verify(key: &str, snapshot: &Snapshot, lookup: &LookupKey, clock: &dyn Clock) -> Result<Verified, AuthError> {
    if key.is_empty() {
        return Err(AuthError::Missing);
    }
    let key = ApiKey::parse(key).map_err(AuthError::Format)?;
    if key.kind() == KeyKind::Setup {
        return Err(AuthError::Format(KeyFormatError::Prefix));
    }
    let known = snapshot.key(&key.lookup_hash(lookup)).ok_or(AuthError::Unknown)?;
    if known.expires_ms.is_some_and(|end| end <= clock.now_ms()) {
        return Err(AuthError::Expired);
    }
    Ok(Verified(Arc::clone(known)))
}

/// Both steps for requests that the Console answers itself.
pub(crate) fn authenticate(headers: &HeaderMap, snapshot: &Snapshot, lookup: &LookupKey, clock: &dyn Clock) -> Result<Verified, AuthError> {
    let credential = credential(headers).ok_or(AuthError::Missing)?;
    verify(&credential.password, snapshot, lookup, clock)
}
