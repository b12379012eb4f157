//! With what? Opens a Rack's sealed password and keeps the finished header value, together with the checked address and trust, for as long as
//! the Rack is in use.
//!
//! What lies open in memory is bounded: one value per Rack and generation, opened anew after [`AGE_MS`], dropped after [`IDLE_MS`]
//! without use, and at most [`MOST`] of them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convox_client::{Client, Context, Endpoint, Key};
use convox_model::{OrgId, RackId};
use convox_proxy::Upstream;
use convox_seal::{Binding, DataKeys, Keyring, OpenError, Sealed, Secret};
use convox_store::racks::RackRow;
use convox_tls::Trust;
use http::HeaderValue;
use rustls::ClientConfig;

use crate::meters::{Meters, RackMeter};
use crate::ops::plain;
use crate::snapshot::Snapshot;

/// An opened credential that nobody used for so long is dropped, milliseconds.
const IDLE_MS: i64 = 10 * 60 * 1000;
/// An opened credential is opened anew after so long, milliseconds.
const AGE_MS: i64 = 60 * 60 * 1000;
/// So many may lie open; of more, those that were not used for longest are dropped.
const MOST: usize = 2048;
/// How exactly the last use is known, milliseconds: shards would wait for each other if each request wrote it down.
const USED_MS: i64 = 5_000;

/// A Rack with what is cached of it.
pub(crate) struct RackEntry {
    pub(crate) row: RackRow,
    opened: ArcSwapOption<Opened>,
    used_ms: AtomicI64,
    seen: ArcSwapOption<Seen>,
    meter: OnceLock<Arc<RackMeter>>,
}

/// What a look at a Rack showed.
#[derive(Debug)]
pub(crate) struct Seen {
    /// `running`, `updating` ...; `unreachable` when it did not answer.
    pub(crate) status: String,
    /// Empty when it never told.
    pub(crate) version: String,
    /// Why it did not answer; empty when it did.
    pub(crate) fault: String,
    /// When that was, milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// When its certificate ends, milliseconds since 1970, and when that was looked up.
    pub(crate) certificate: Option<(i64, i64)>,
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
    at_ms: i64,
}

/// What opens credentials.
pub(crate) struct Credentials {
    keyring: Arc<Keyring>,
    /// For Racks without a pin. Read once: it takes milliseconds, for which a shard must not stop.
    roots: Result<Arc<ClientConfig>, String>,
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
        Self { row, opened: ArcSwapOption::empty(), used_ms: AtomicI64::new(0), seen: ArcSwapOption::empty(), meter: OnceLock::new() }
    }

    /// Where requests for it are counted: by its id, whatever else of it changes.
    pub(crate) fn meter(&self, meters: &Meters) -> &RackMeter {
        self.meter.get_or_init(|| meters.rack(self.row.id.as_str()))
    }

    /// When a request for it was last forwarded, milliseconds since 1970, to some seconds; 0 if not since this server's start.
    pub(crate) fn used_ms(&self) -> i64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// What lies open, if it is young enough.
    fn opened(&self, now_ms: i64) -> Option<Arc<Opened>> {
        if (now_ms - self.used_ms.load(Ordering::Relaxed)).abs() > USED_MS {
            self.used_ms.store(now_ms, Ordering::Relaxed);
        }
        self.opened.load().as_ref().filter(|opened| (now_ms - opened.at_ms).abs() < AGE_MS).cloned()
    }

    /// What the last look showed; `None` before the first.
    pub(crate) fn seen(&self) -> Option<Arc<Seen>> {
        self.seen.load_full()
    }

    /// `running`, `unreachable`, ... as last seen; `unknown` before that.
    pub(crate) fn status(&self) -> String {
        self.seen().map_or_else(|| "unknown".to_owned(), |seen| seen.status.clone())
    }

    /// Its version as last told; empty before that.
    pub(crate) fn version(&self) -> String {
        self.seen().map(|seen| seen.version.clone()).unwrap_or_default()
    }

    /// Whether nobody has looked at it yet.
    pub(crate) fn is_unseen(&self) -> bool {
        self.seen.load().is_none()
    }

    /// Keeps what a look at the Rack showed: its status and version, or why it did not answer.
    pub(crate) fn keep(&self, answered: Result<(&str, &str), String>, certificate: Option<(i64, i64)>, at_ms: i64) {
        let seen = match answered {
            Ok((status, version)) => Seen { status: plain(status), version: plain(version), fault: String::new(), at_ms, certificate },
            Err(fault) => Seen { status: "unreachable".to_owned(), version: self.version(), fault, at_ms, certificate },
        };
        self.seen.store(Some(Arc::new(seen)));
    }
}

impl Credentials {
    /// Reads this machine's certificate authorities. Without any, Racks with a pin can still be used.
    pub(crate) fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring, roots: convox_tls::client_config(&Trust::SystemRoots).map_err(|error| error.to_string()) }
    }

    /// Why Racks without a pin cannot be used, if so.
    pub(crate) fn without_roots(&self) -> Option<&str> {
        self.roots.as_ref().err().map(String::as_str)
    }

    /// What forwarding to `rack` needs; opened on first use.
    pub(crate) fn open(&self, rack: &RackEntry, snapshot: &Snapshot, now_ms: i64) -> Result<Arc<Opened>, CredentialError> {
        match rack.opened(now_ms) {
            Some(opened) => Ok(opened),
            None => self.open_anew(rack, snapshot, now_ms),
        }
    }

    /// A client of `rack` with its own credential, for what the Console's pages ask of it.
    pub(crate) fn client(&self, rack: &RackEntry, snapshot: &Snapshot) -> Result<Client, CredentialError> {
        let row = &rack.row;
        let address = |error: &dyn std::fmt::Display| CredentialError::Address(error.to_string());
        let password = open_password(row, &self.data_keys(snapshot, &row.org)?)?;
        let endpoint = Endpoint::console(&row.host, Key::new(password.expose())).map_err(|error| address(&error))?;
        Ok(Client::new(endpoint, trust(row.pin.as_deref())?, Context::default()))
    }

    fn data_keys(&self, snapshot: &Snapshot, org: &OrgId) -> Result<DataKeys, CredentialError> {
        let wrapped = snapshot.data_keys(org).ok_or(CredentialError::NoOrganization)?;
        Ok(self.keyring.unwrap_data_keys(wrapped, org.as_str())?)
    }

    #[cold]
    fn open_anew(&self, rack: &RackEntry, snapshot: &Snapshot, now_ms: i64) -> Result<Arc<Opened>, CredentialError> {
        let row = &rack.row;
        let address = |error: String| CredentialError::Address(error);
        let password = open_password(row, &self.data_keys(snapshot, &row.org)?)?;
        let (host, port) = split_host(&row.host).ok_or_else(|| address(row.host.clone()))?;
        let config = match trust(row.pin.as_deref())? {
            Trust::SystemRoots => self.roots.clone().map_err(address)?,
            pinned => convox_tls::client_config(&pinned).map_err(|error| address(error.to_string()))?,
        };
        let upstream = Upstream::new(row.id.as_str(), row.generation.unsigned_abs(), host, port, Some(config))
            .map_err(|error| address(error.to_string()))?
            .with_label(format!("rack {}", row.path()));
        let opened = Arc::new(Opened { upstream: Arc::new(upstream), authorization: basic(&password), at_ms: now_ms });
        rack.opened.store(Some(Arc::clone(&opened)));
        Ok(opened)
    }
}

/// Drops what was not used lately or has become too old, and beyond [`MOST`] what was not used for longest.
pub(crate) fn forget<'r>(racks: impl Iterator<Item = &'r Arc<RackEntry>>, now_ms: i64) {
    let mut open: Vec<(i64, &RackEntry)> = Vec::new();
    for rack in racks {
        let Some(at_ms) = rack.opened.load().as_ref().map(|opened| opened.at_ms) else { continue };
        let used_ms = rack.used_ms.load(Ordering::Relaxed);
        if now_ms - used_ms > IDLE_MS || (now_ms - at_ms).abs() >= AGE_MS {
            rack.opened.store(None);
        } else {
            open.push((used_ms, rack));
        }
    }
    open.sort_unstable_by_key(|(used_ms, _)| std::cmp::Reverse(*used_ms));
    for (_, rack) in open.iter().skip(MOST) {
        rack.opened.store(None);
    }
}

/// Seals a Rack's password for this Rack at this address with this certificate.
pub(crate) fn seal_password(keys: &DataKeys, org: &OrgId, rack: &RackId, host: &str, pin: Option<&str>, password: &Secret) -> Sealed {
    keys.seal(&Binding { org: org.as_str(), rack: rack.as_str(), field: &password_field(host, pin) }, password)
}

/// Opens a Rack's password with its organization's data keys.
pub(crate) fn open_password(row: &RackRow, keys: &DataKeys) -> Result<Secret, OpenError> {
    let field = password_field(&row.host, row.pin.as_deref());
    keys.open(&Binding { org: row.org.as_str(), rack: row.id.as_str(), field: &field }, &row.password)
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
pub(crate) mod tests {
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
        let key = keyring.unwrap_data_keys([&keyring.new_data_key(org.as_str())], org.as_str()).unwrap();
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
            protected: false,
            password_ms: 0,
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

    pub(crate) fn entry(name: &str) -> Arc<RackEntry> {
        Arc::new(RackEntry::new(RackRow {
            id: RackId::new(),
            org: OrgId::new(),
            org_name: "acme".to_owned(),
            name: name.to_owned(),
            provider: String::new(),
            host: "127.0.0.1:5443".to_owned(),
            pin: None,
            password: Sealed::from_bytes(Vec::new()),
            generation: 1,
            created_ms: 0,
            password_ms: 0,
            protected: false,
        }))
    }

    impl RackEntry {
        pub(crate) fn use_for_tests(&self, now_ms: i64) {
            self.used_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    fn lay_open(entry: &RackEntry, now_ms: i64) {
        let upstream = Arc::new(Upstream::new("r", 1, "127.0.0.1", 1, None).unwrap());
        entry.opened.store(Some(Arc::new(Opened { upstream, authorization: HeaderValue::from_static("x"), at_ms: now_ms })));
        entry.used_ms.store(now_ms, Ordering::Relaxed);
    }

    #[test]
    fn what_lies_open_is_bounded_in_age_and_in_number() {
        let (idle, used, old) = (entry("idle"), entry("used"), entry("old"));
        for rack in [&idle, &used, &old] {
            lay_open(rack, 1);
        }
        assert!(used.opened(IDLE_MS).is_some());
        assert!(old.opened(AGE_MS + 1).is_none(), "opened anew even when it is in use");
        forget([&idle, &used].into_iter(), IDLE_MS + 2);
        assert!(idle.opened.load().is_none() && used.opened.load().is_some());

        let many: Vec<Arc<RackEntry>> = (0..MOST + 2).map(|number| entry(&number.to_string())).collect();
        many.iter().zip(1..).for_each(|(rack, at_ms)| lay_open(rack, at_ms));
        forget(many.iter(), MOST as i64 + 2);
        let open: Vec<bool> = many.iter().map(|rack| rack.opened.load().is_some()).collect();
        assert_eq!(open.iter().filter(|open| **open).count(), MOST);
        assert_eq!(open.first_chunk(), Some(&[false, false]), "those that were not used for longest");
    }

    #[test]
    fn the_credential_is_marked_sensitive() {
        let value = basic(&Secret::new("secret".to_owned()));
        assert!(value.is_sensitive());
        assert_eq!(value, "Basic Y29udm94OnNlY3JldA==");
    }
}
