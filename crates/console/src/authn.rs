//! Who is it? From a request's `Authorization` to a [`Verified`] principal, by a keyed hash in memory. Nothing here decides about
//! rights, and nothing here waits.
//!
//! In two steps: the key or the cookie tells who it is ([`Recognised`]); where their organization requires a second factor, a session that
//! was proven by one does the rest ([`Verified`]).

use std::net::IpAddr;
use std::sync::Arc;

use convox_model::{Clock, KeyId, Principal};
use convox_seal::{KeyFormatError, KeyKind, LookupKey};
use convox_wire::basic::read_basic;
use convox_wire::session::SessionDemand;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::snapshot::{About, KnownKey, Snapshot};

/// Room for a decoded credential: a key has 53 bytes, a user name that names a Rack less than 100. What does not fit is none of ours.
pub(crate) const ROOM: usize = 512;

const SESSION: HeaderName = HeaderName::from_static("session");
const VERSION: HeaderName = HeaderName::from_static("version");

/// Somebody whose key or cookie is good, and who may still owe a second factor. Opens only what asks for that factor.
#[derive(Clone, Debug)]
pub(crate) struct Recognised(Arc<KnownKey>);

/// Somebody whose credential was checked, with a second factor where one is needed. Made only here.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    known: Arc<KnownKey>,
    /// The command line's session that proved it.
    session: Option<KeyId>,
    /// Who they are where nothing was proven and something would have to be elsewhere: no member there.
    unproven: Option<Box<Principal>>,
}

impl Recognised {
    /// Who.
    pub(crate) fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// Their key or session.
    pub(crate) fn known(&self) -> &KnownKey {
        &self.0
    }

    /// For an API key: looks at the session that the caller brings with it, if what the request is about needs one.
    pub(crate) fn proven(
        self,
        headers: &HeaderMap,
        about: About<'_>,
        snapshot: &Snapshot,
        lookup: &LookupKey,
        clock: &dyn Clock,
    ) -> Result<Verified, AuthError> {
        let now_ms = clock.now_ms();
        if snapshot.is_proven(&self.0, None, About::Everything, now_ms) {
            return Ok(Verified { known: self.0, session: None, unproven: None });
        }
        let session = headers
            .get(SESSION)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| lookup.hash_key(text.trim()).ok())
            .and_then(|(_, hash)| snapshot.key(&hash)?.principal.key.as_ref())
            .and_then(|id| snapshot.cli_session(id, &self.0, now_ms));
        match session {
            Some(session) => {
                session.note_use(now_ms);
                let session = session.principal.key.clone();
                Ok(Verified { known: self.0, session, unproven: None })
            }
            None if snapshot.is_proven(&self.0, None, about, now_ms) => {
                let unproven = Some(Box::new(snapshot.unproven(&self.0.principal)));
                Ok(Verified { known: self.0, session: None, unproven })
            }
            None => Err(AuthError::Unproven(self.0)),
        }
    }

    /// For a browser's session.
    pub(crate) fn proven_session(self, snapshot: &Snapshot, clock: &dyn Clock) -> Result<Verified, Self> {
        if snapshot.is_proven(&self.0, None, About::Everything, clock.now_ms()) {
            Ok(Verified { known: self.0, session: None, unproven: None })
        } else {
            Err(self)
        }
    }
}

impl Verified {
    /// Who.
    pub(crate) fn principal(&self) -> &Principal {
        self.unproven.as_deref().unwrap_or(&self.known.principal)
    }

    /// Their key or session, as it was when they were verified.
    pub(crate) fn known(&self) -> &KnownKey {
        &self.known
    }

    /// The command line's session that proved a second factor, where one was needed.
    pub(crate) fn session(&self) -> Option<&KeyId> {
        self.session.as_ref()
    }

    /// Their address, ready to be sent to a Rack.
    pub(crate) fn actor(&self) -> HeaderValue {
        self.known.actor.clone()
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
    /// From outside the networks that it is for. Which those are is not said: whoever has a stolen key would go there.
    #[error("this API key may not be used from {1}; use it from where it is meant for, or ask whoever made it")]
    Elsewhere(Arc<KnownKey>, IpAddr),
    /// The words that clients look for (protocol 3.3).
    #[error("cli token is expired: make a new one in your account settings and log in again")]
    Expired(Arc<KnownKey>),
    /// The key is good, and its owner needs a second factor, which they have not proven from there.
    #[error("{}", if .0.has_factor { UNPROVEN } else { NO_FACTOR })]
    Unproven(Arc<KnownKey>),
}

const UNPROVEN: &str = "your organization requires a second factor for this; answer it when your command line asks";
const NO_FACTOR: &str = "your organization requires a second factor, and you have none; sign in to the Console in a browser and add one, \
     then try again";

impl AuthError {
    /// For the audit log.
    pub(crate) fn rule(&self) -> &'static str {
        match self {
            Self::Missing => "no-credential",
            Self::Format(_) => "malformed-credential",
            Self::Unknown(_) => "unknown-credential",
            Self::Expired(_) => "expired-credential",
            Self::Elsewhere(..) => "key-scope-network",
            Self::Unproven(_) => "second-factor-needed",
        }
    }

    /// Who it was, where that is known.
    pub(crate) fn known(&self) -> Option<&KnownKey> {
        match self {
            Self::Expired(known) | Self::Unproven(known) | Self::Elsewhere(known, _) => Some(known),
            Self::Missing | Self::Format(_) | Self::Unknown(_) => None,
        }
    }

    /// Whether a key was sent that is none of ours.
    pub(crate) fn is_stranger(&self) -> bool {
        matches!(self, Self::Format(_) | Self::Unknown(_))
    }

    /// What the answer is. A client takes a 401 with that header as the demand for a session, which it can only answer by a factor.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unproven(known) if !known.has_factor => StatusCode::FORBIDDEN,
            Self::Elsewhere(..) => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    /// The demand for a session that goes with the answer, in the form of the original clients (protocol 3.4). v2 can ask a security key and
    /// nothing else: for whoever has none it is to ask for the session right away, and is told where to answer (ADR 0024).
    pub(crate) fn demand(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        match self {
            Self::Unproven(known) if known.has_factor => {
                let demand = SessionDemand { path: SESSION_PATH.to_owned(), token: known.has_security_key || !is_v2(headers) };
                HeaderValue::from_str(&demand.to_string()).ok()
            }
            _ => None,
        }
    }
}

/// Whether a released v2 client asks.
pub(crate) fn is_v2(headers: &HeaderMap) -> bool {
    headers.get(VERSION).and_then(|value| value.to_str().ok()).is_some_and(convox_wire::session::is_v2)
}

/// Where a command line proves its second factor.
pub(crate) const SESSION_PATH: &str = "/session";

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
pub(crate) fn recognise(
    key: &str,
    peer: IpAddr,
    snapshot: &Snapshot,
    lookup: &LookupKey,
    clock: &dyn Clock,
) -> Result<Recognised, AuthError> {
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
    if known.principal.scope.as_ref().is_some_and(|scope| !scope.is_at_home(peer)) {
        return Err(AuthError::Elsewhere(Arc::clone(known), peer));
    }
    known.note_use(clock.now_ms());
    Ok(Recognised(Arc::clone(known)))
}

/// Who a browser's session belongs to; `None` once it has ended. Only for the value of our own cookie. Whether this is a use of it is for
/// the caller to say: a page that refreshes itself is none.
pub(crate) fn session(text: &str, snapshot: &Snapshot, lookup: &LookupKey, clock: &dyn Clock) -> Option<Recognised> {
    let (kind, hash) = lookup.hash_key(text).ok()?;
    let known = snapshot.key(&hash).filter(|known| kind == KeyKind::Session && known.kind == Some(KeyKind::Session))?;
    if known.expires_ms.is_none_or(|end| end <= clock.now_ms()) {
        return None;
    }
    Some(Recognised(Arc::clone(known)))
}

/// Finds the credential and looks it up, for requests that the Console answers itself.
pub(crate) fn identify(
    headers: &HeaderMap,
    peer: IpAddr,
    snapshot: &Snapshot,
    lookup: &LookupKey,
    clock: &dyn Clock,
) -> Result<Recognised, AuthError> {
    let mut room = [0; ROOM];
    let credential = credential(headers, &mut room).ok_or(AuthError::Missing)?;
    recognise(credential.key, peer, snapshot, lookup, clock)
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
