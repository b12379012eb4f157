//! Who is it? From a request's `Authorization` to a [`Verified`] principal, by a keyed hash in memory. Nothing here decides about
//! rights, and nothing here waits.

use std::sync::Arc;

use convox_model::{Clock, Principal};
use convox_seal::{KeyFormatError, KeyKind, LookupKey};
use convox_wire::basic::read_basic;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use crate::snapshot::{KnownKey, Snapshot};

/// Room for a decoded credential: a key has 53 bytes, a user name that names a Rack less than 100. What does not fit is none of ours.
pub(crate) const ROOM: usize = 512;

/// Somebody whose credential was checked. Made only here.
#[derive(Clone, Debug)]
pub(crate) struct Verified(Arc<KnownKey>);

impl Verified {
    /// Who.
    pub(crate) fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// Whether it is a session that is to go on under a new id.
    pub(crate) fn is_due(&self) -> bool {
        self.0.is_due
    }

    /// Notes that it is used.
    pub(crate) fn note_use(&self, clock: &dyn Clock) {
        self.0.note_use(clock.now_ms());
    }

    /// Their address, ready to be sent to a Rack.
    pub(crate) fn actor(&self) -> HeaderValue {
        self.0.actor.clone()
    }
}

/// Why nobody was recognised. `Display` is what the caller is told.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("invalid credentials: no API key was sent; log in with `convox login`")]
    Missing,
    #[error("invalid credentials: {0}; copy the whole key, or make a new one in your account settings")]
    Format(KeyFormatError),
    /// Revoked or never made here, with its last four characters: they tell a key that is still in use somewhere.
    #[error("invalid credentials: this API key is unknown or was revoked; make a new one in your account settings and log in again")]
    Unknown(String),
    /// The words that clients look for (protocol 3.3).
    #[error("cli token is expired: make a new one in your account settings and log in again")]
    Expired(Arc<KnownKey>),
}

impl AuthError {
    /// For the audit log.
    pub(crate) fn rule(&self) -> &'static str {
        match self {
            Self::Missing => "no-credential",
            Self::Format(_) => "malformed-credential",
            Self::Unknown(_) => "unknown-credential",
            Self::Expired(_) => "expired-credential",
        }
    }
}

/// What a caller says of themselves, as it travelled. No `Debug`: it holds a secret.
#[derive(Clone, Copy)]
pub(crate) struct Credential<'b> {
    /// User name of `Basic`: it may name a Rack.
    pub(crate) user: &'b str,
    pub(crate) key: &'b str,
}

/// The credential in the headers: the password of `Basic`, or a `Bearer` token.
pub(crate) fn credential<'b>(headers: &'b HeaderMap, room: &'b mut [u8; ROOM]) -> Option<Credential<'b>> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    if let Some((scheme, token)) = value.split_at_checked(7)
        && scheme.eq_ignore_ascii_case(b"bearer ")
    {
        return Some(Credential { user: "", key: std::str::from_utf8(token.trim_ascii()).ok()? });
    }
    let (user, key) = read_basic(value, room)?;
    Some(Credential { user, key })
}

/// Looks a key up: its checksum first, then its keyed hash. Keys are letters, digits and `_`, so Go's encoding of one is the key itself.
pub(crate) fn verify(key: &str, snapshot: &Snapshot, lookup: &LookupKey, clock: &dyn Clock) -> Result<Verified, AuthError> {
    if key.is_empty() {
        return Err(AuthError::Missing);
    }
    let (kind, hash) = lookup.hash_key(key).map_err(AuthError::Format)?;
    // A one-time code is for its one use, and a session is for the cookie of the browser that has it.
    if !kind.is_api_key() {
        return Err(AuthError::Format(KeyFormatError::Prefix));
    }
    let known =
        snapshot.key(&hash).ok_or_else(|| AuthError::Unknown(key.chars().rev().take(4).collect::<Vec<_>>().into_iter().rev().collect()))?;
    if known.expires_ms.is_some_and(|end| end <= clock.now_ms()) {
        return Err(AuthError::Expired(Arc::clone(known)));
    }
    known.note_use(clock.now_ms());
    Ok(Verified(Arc::clone(known)))
}

/// Who a browser's session belongs to; `None` once it has ended. Only for the value of our own cookie. Whether this is a use of it is for
/// the caller to say: a page that refreshes itself is none.
pub(crate) fn session(text: &str, snapshot: &Snapshot, lookup: &LookupKey, clock: &dyn Clock) -> Option<Verified> {
    let (kind, hash) = lookup.hash_key(text).ok()?;
    let known = snapshot.key(&hash).filter(|known| kind == KeyKind::Session && known.is_session)?;
    if known.expires_ms.is_none_or(|end| end <= clock.now_ms()) {
        return None;
    }
    Some(Verified(Arc::clone(known)))
}

/// Both steps, for requests that the Console answers itself.
pub(crate) fn authenticate(headers: &HeaderMap, snapshot: &Snapshot, lookup: &LookupKey, clock: &dyn Clock) -> Result<Verified, AuthError> {
    let mut room = [0; ROOM];
    let credential = credential(headers, &mut room).ok_or(AuthError::Missing)?;
    verify(credential.key, snapshot, lookup, clock)
}

#[cfg(test)]
mod tests {
    use convox_wire::basic::Basic;

    use super::*;

    fn read(value: &str) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        credential(&headers, &mut [0; ROOM]).map(|found| (found.user.to_owned(), found.key.to_owned()))
    }

    #[test]
    fn a_key_is_found_in_either_scheme() {
        let pair = |user: &str, key: &str| Some((user.to_owned(), key.to_owned()));
        assert_eq!(read(&Basic::header("convox", "cxu_1")), pair("convox", "cxu_1"));
        assert_eq!(read("bearer  cxu_1 "), pair("", "cxu_1"));
        assert_eq!(read("Bearer cxu_1"), pair("", "cxu_1"));
    }

    #[test]
    fn what_is_no_credential_of_ours_is_none() {
        for value in ["", "Basic", "Basic !", "Digest x", "Bearer", "cxu_1", &Basic::header("convox", &"a".repeat(ROOM))] {
            assert_eq!(read(value), None, "{value}");
        }
    }
}
