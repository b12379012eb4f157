//! With what? Opens a Rack's sealed password and keeps the finished header value, together with the checked address and trust, for as long as
//! the Rack is in use.
//!
//! The value in memory is bounded: one per Rack and generation, dropped after [`IDLE_MS`] without use.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convox_model::{OrgId, RackId};
use convox_proxy::Upstream;
use convox_seal::{Binding, DataKey, Keyring, OpenError, Sealed, Secret};
use convox_store::racks::RackRow;
use convox_tls::Trust;
use http::HeaderValue;

use crate::snapshot::Snapshot;

/// An opened credential that nobody used for so long is dropped, milliseconds.
const IDLE_MS: i64 = 10 * 60 * 1000;

const UNKNOWN: i64 = 0;
const RUNNING: i64 = 1;
const UNREACHABLE: i64 = 2;

/// A Rack with what is cached of it.
pub(crate) struct RackEntry {
    pub(crate) row: RackRow,
    opened: ArcSwapOption<Opened>,
    used_ms: AtomicI64,
    healthy: AtomicI64,
}

impl std::fmt::Debug for RackEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RackEntry").field("path", &self.row.path()).finish_non_exhaustive()
    }
}

/// What forwarding needs.
pub(crate) struct Opened {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) authorization: HeaderValue,
}

/// Why a Rack's credential cannot be used. For the log and, shortened, for the caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("the Rack's password could not be opened: {0}")]
    Open(#[from] OpenError),
    #[error("the Rack's organization is gone")]
    NoOrganization,
    #[error("the Rack's address cannot be used: {0}")]
    Address(String),
}

impl RackEntry {
    pub(crate) fn new(row: RackRow) -> Self {
        Self { row, opened: ArcSwapOption::empty(), used_ms: AtomicI64::new(0), healthy: AtomicI64::new(UNKNOWN) }
    }

    /// What forwarding to this Rack needs; opened on first use.
    pub(crate) fn open(&self, snapshot: &Snapshot, keyring: &Keyring, now_ms: i64) -> Result<Arc<Opened>, CredentialError> {
        self.used_ms.store(now_ms, Ordering::Relaxed);
        if let Some(opened) = &*self.opened.load() {
            return Ok(Arc::clone(opened));
        }
        let wrapped = snapshot.data_key(&self.row.org).ok_or(CredentialError::NoOrganization)?;
        let password = open_password(&self.row, &keyring.unwrap_data_key(wrapped, self.row.org.as_str())?)?;
        let (host, port) = split_host(&self.row.host).ok_or_else(|| CredentialError::Address(self.row.host.clone()))?;
        let config =
            convox_tls::client_config(&trust(self.row.pin.as_deref())?).map_err(|error| CredentialError::Address(error.to_string()))?;
        let upstream = Upstream::new(self.row.id.as_str(), self.row.generation.unsigned_abs(), host, port, Some(config))
            .map_err(|error| CredentialError::Address(error.to_string()))?
            .with_label(format!("rack {}", self.row.path()));
        let opened = Arc::new(Opened { upstream: Arc::new(upstream), authorization: basic(&password) });
        self.opened.store(Some(Arc::clone(&opened)));
        Ok(opened)
    }

    /// Drops what was not used lately.
    pub(crate) fn forget_idle(&self, now_ms: i64) {
        if now_ms - self.used_ms.load(Ordering::Relaxed) > IDLE_MS {
            self.opened.store(None);
        }
    }

    /// `running`, `unreachable` or `unknown`, as last seen.
    pub(crate) fn status(&self) -> &'static str {
        match self.healthy.load(Ordering::Relaxed) {
            RUNNING => "running",
            UNREACHABLE => "unreachable",
            _ => "unknown",
        }
    }

    /// Whether nobody has looked at it yet.
    pub(crate) fn is_unseen(&self) -> bool {
        self.healthy.load(Ordering::Relaxed) == UNKNOWN
    }

    /// Keeps what a look at the Rack showed.
    pub(crate) fn seen(&self, running: bool) {
        self.healthy.store(if running { RUNNING } else { UNREACHABLE }, Ordering::Relaxed);
    }
}

/// Seals a Rack's password for this Rack at this address with this certificate.
pub(crate) fn seal_password(key: &DataKey, org: &OrgId, rack: &RackId, host: &str, pin: Option<&str>, password: &Secret) -> Sealed {
    key.seal(&Binding { org: org.as_str(), rack: rack.as_str(), field: &password_field(host, pin) }, password)
}

/// Opens a Rack's password with its organization's data key.
pub(crate) fn open_password(row: &RackRow, key: &DataKey) -> Result<Secret, OpenError> {
    let field = password_field(&row.host, row.pin.as_deref());
    key.open(&Binding { org: row.org.as_str(), rack: row.id.as_str(), field: &field }, &row.password)
}

/// Address and pin are part of the place: whoever can edit the table, but has no root key, cannot have the password sent elsewhere.
fn password_field(host: &str, pin: Option<&str>) -> String {
    format!("password\n{host}\n{}", pin.unwrap_or_default())
}

/// Whom to believe for a Rack with this pin.
pub(crate) fn trust(pin: Option<&str>) -> Result<Trust, CredentialError> {
    match pin {
        None => Ok(Trust::SystemRoots),
        Some(pin) => pin.parse().map(Trust::Pinned).map_err(|_| CredentialError::Address("its pinned fingerprint is broken".to_owned())),
    }
}

/// Host and port of `HOST`, `HOST:PORT` or `[V6]:PORT`; the port is 443 when it is not given.
pub(crate) fn split_host(host: &str) -> Option<(&str, u16)> {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => Some((name, port.parse().ok().filter(|port| *port != 0)?)),
        _ => Some((host, 443)),
    }
}

/// The header of the Rack's own password, user `convox`, as the Go clients encode it.
fn basic(password: &Secret) -> HeaderValue {
    let plain = convox_seal::Secret::new(format!("convox:{}", convox_wire::basic::go_encode(password.expose())));
    let text = Secret::new(format!("Basic {}", STANDARD.encode(plain.expose())));
    // Base64 is always a legal header value.
    let mut value = HeaderValue::from_str(text.expose()).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_split_at_their_port() {
        assert_eq!(split_host("rack.example.com"), Some(("rack.example.com", 443)));
        assert_eq!(split_host("127.0.0.1:5443"), Some(("127.0.0.1", 5443)));
        assert_eq!(split_host("[::1]:5443"), Some(("[::1]", 5443)));
        assert_eq!(split_host("[::1]"), Some(("[::1]", 443)));
        assert_eq!(split_host("rack:0"), None);
        assert_eq!(split_host("rack:x"), None);
    }

    #[test]
    fn a_password_opens_for_its_own_address_and_certificate_only() {
        let keyring = Keyring::new(convox_seal::RootKey::parse(convox_seal::RootKey::generate().expose()).unwrap());
        let (org, id) = (OrgId::new(), RackId::new());
        let key = keyring.unwrap_data_key(&keyring.new_data_key(org.as_str()), org.as_str()).unwrap();
        let pin = convox_tls::Fingerprint::of(b"its certificate").to_string();
        let row = RackRow {
            password: seal_password(&key, &org, &id, "rack.example.com:5443", Some(&pin), &Secret::new("secret".to_owned())),
            id,
            org,
            org_name: "acme".to_owned(),
            name: "main".to_owned(),
            provider: "local".to_owned(),
            host: "rack.example.com:5443".to_owned(),
            pin: Some(pin),
            generation: 1,
            created_ms: 0,
        };
        assert!(open_password(&row, &key).unwrap().matches("secret"));
        let renamed = RackRow { name: "other".to_owned(), generation: 2, ..row.clone() };
        assert!(open_password(&renamed, &key).unwrap().matches("secret"), "a name is only a name");
        // What an edited table might say.
        for edited in [
            RackRow { host: "evil.example.com:5443".to_owned(), ..row.clone() },
            RackRow { pin: Some(convox_tls::Fingerprint::of(b"another").to_string()), ..row.clone() },
            RackRow { pin: None, ..row.clone() },
            RackRow { id: RackId::new(), ..row.clone() },
            RackRow { org: OrgId::new(), ..row.clone() },
        ] {
            assert_eq!(open_password(&edited, &key).err(), Some(OpenError::Refused), "{} {:?}", edited.host, edited.pin);
        }
    }

    #[test]
    fn the_credential_is_marked_sensitive() {
        let value = basic(&Secret::new("secret".to_owned()));
        assert!(value.is_sensitive());
        assert_eq!(value, "Basic Y29udm94OnNlY3JldA==");
    }
}
