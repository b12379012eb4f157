//! Somebody as the data path knows them, by way of each of their keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use convox_model::{Grant, KeyId, Principal, UserId};
use convox_seal::KeyKind;
use convox_store::factors::Factor;
use convox_store::snapshot::KeyEntry;
use http::HeaderValue;

/// How exactly the last use of a key is known, milliseconds.
const USED_MS: i64 = 500;

/// A key that authenticates.
#[derive(Debug)]
pub(crate) struct KnownKey {
    pub(crate) principal: Principal,
    /// Their address as the value of a header.
    pub(crate) actor: HeaderValue,
    /// End, milliseconds since 1970.
    pub(crate) expires_ms: Option<i64>,
    /// What kind of key it is; `None` for the user as such, whom no key stands for.
    pub(crate) kind: Option<KeyKind>,
    /// Whether it is a session that is to go on under a new id, because its owner may do more or less than at its making.
    pub(crate) is_due: bool,
    /// Of a session: when its owner last proved who they are, milliseconds since 1970, and by which second factor.
    pub(crate) proven_ms: i64,
    pub(crate) factor: Option<Factor>,
    /// Of a command line's session: its API key.
    pub(super) goes_with: Option<KeyId>,
    /// Whether its owner has a second factor, and whether an organization of theirs requires one.
    pub(crate) has_factor: bool,
    pub(crate) needs_factor: bool,
    /// Whether a security key is among their factors.
    pub(crate) has_security_key: bool,
    /// Keyed hash, under which it is found.
    pub(super) hash: [u8; 32],
    /// Last use, milliseconds since 1970; 0 before the first. Outlives the snapshot.
    pub(super) used_ms: Arc<AtomicI64>,
}

impl KnownKey {
    /// Notes that it is used, to half a second: shards would wait for each other if each request wrote it down.
    pub(crate) fn note_use(&self, now_ms: i64) {
        if (now_ms - self.used_ms.load(Ordering::Relaxed)).abs() > USED_MS {
            self.used_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// When it was last used, milliseconds since 1970; 0 if not since this server's start.
    pub(crate) fn used_ms(&self) -> i64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// Whether it is a session, of a browser or a command line: such a key's end moves with its use.
    pub(crate) fn is_session(&self) -> bool {
        matches!(self.kind, Some(KeyKind::Session | KeyKind::CliSession))
    }
}

/// Somebody, with what is theirs.
#[derive(Clone, Debug)]
pub(super) struct Person {
    /// By way of none of their keys: what their invitation or the server's own command line speaks for.
    pub(super) known: Arc<KnownKey>,
    pub(super) keys: Arc<[KeyId]>,
}

/// What somebody can prove themselves by.
#[derive(Clone, Copy)]
pub(super) struct Has {
    pub(super) factor: bool,
    pub(super) security_key: bool,
}

impl Person {
    pub(super) fn new(user: &UserId, email: String, grants: Arc<[Grant]>, has: Has, needs_factor: bool) -> Self {
        // Addresses are plain ASCII when they come in; a row that was edited to something else names nobody.
        let actor = HeaderValue::from_str(&email).unwrap_or(HeaderValue::from_static("unknown"));
        let known = KnownKey {
            principal: Principal { user: user.clone(), email, key: None, key_last4: String::new(), grants, is_deploy: false, scope: None },
            actor,
            expires_ms: None,
            kind: None,
            is_due: false,
            proven_ms: 0,
            factor: None,
            goes_with: None,
            has_factor: has.factor,
            needs_factor,
            has_security_key: has.security_key,
            hash: [0; 32],
            used_ms: Arc::default(),
        };
        Self { known: Arc::new(known), keys: Arc::default() }
    }

    /// By way of one of their keys.
    pub(super) fn with(&self, key: KeyEntry, used_ms: Arc<AtomicI64>) -> KnownKey {
        let shown = if key.kind == KeyKind::Session { "web".to_owned() } else { key.last4 };
        KnownKey {
            principal: Principal {
                key: Some(key.id),
                key_last4: shown,
                is_deploy: key.kind == KeyKind::Deploy,
                scope: (!key.scope.is_everything()).then(|| Arc::new(key.scope)),
                ..self.known.principal.clone()
            },
            actor: self.known.actor.clone(),
            expires_ms: key.expires_ms,
            kind: Some(key.kind),
            is_due: key.is_due,
            proven_ms: key.proven_ms,
            factor: key.factor,
            goes_with: key.goes_with,
            has_factor: self.known.has_factor,
            needs_factor: self.known.needs_factor,
            has_security_key: self.known.has_security_key,
            hash: key.hash,
            used_ms,
        }
    }

    /// By way of the same key, as they are now.
    pub(super) fn again(&self, known: &KnownKey) -> KnownKey {
        let Principal { key, key_last4, is_deploy, scope, .. } = known.principal.clone();
        KnownKey {
            principal: Principal { key, key_last4, is_deploy, scope, ..self.known.principal.clone() },
            actor: self.known.actor.clone(),
            expires_ms: known.expires_ms,
            kind: known.kind,
            is_due: known.is_due,
            proven_ms: known.proven_ms,
            factor: known.factor,
            goes_with: known.goes_with.clone(),
            has_factor: self.known.has_factor,
            needs_factor: self.known.needs_factor,
            has_security_key: self.known.has_security_key,
            hash: known.hash,
            used_ms: Arc::clone(&known.used_ms),
        }
    }
}
