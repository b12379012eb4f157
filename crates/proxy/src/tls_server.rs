//! TLS towards callers: a certificate from PEM, or one made here.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What ALPN calls HTTP/2.
pub(crate) const HTTP_2: &[u8] = b"h2";

/// A certificate with its key, ready to serve. Clones share it, also after [`TlsServer::reload`].
#[derive(Clone)]
pub struct TlsServer {
    pub(crate) config: Arc<ServerConfig>,
    current: Arc<Current>,
}

/// The certificates of the next handshake: one for whoever asks for no name that has its own.
#[derive(Debug)]
struct Current {
    default: RwLock<Arc<CertifiedKey>>,
    /// By lower-case name; `*.example.com` stands for every name with one more part.
    names: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl Current {
    fn get(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.default.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn of_name(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let wildcard = name.split_once('.').and_then(|(_, parent)| names.get(&format!("*.{parent}")));
        names.get(&name).or(wildcard).cloned()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(hello.server_name().and_then(|name| self.of_name(name)).unwrap_or_else(|| self.get()))
    }
}

/// Why a certificate cannot be served, or not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsServerError {
    /// The PEM text of the certificate holds none, or a broken one.
    #[error("the certificate file is not PEM with a certificate: {0}")]
    Certificate(String),
    /// The PEM text of the key holds none, or a broken one.
    #[error("the key file is not PEM with a private key: {0}")]
    Key(String),
    /// Certificate and key do not work together.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[source] rustls::Error),
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Generate(String),
}

impl TlsServer {
    /// From PEM texts: the certificate chain, leaf first, and its private key (PKCS #8, PKCS #1 or SEC 1).
    ///
    /// Speaks TLS 1.2 and 1.3, offers HTTP/2 and HTTP/1.1, and resumes sessions by tickets that this process alone can open.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsServerError> {
        let current = Arc::new(Current { default: RwLock::new(Arc::new(read(certificate, key)?)), names: RwLock::default() });
        let mut config = ServerConfig::builder_with_provider(convox_tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsServerError::Unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsServerError::Unusable)?;
        Ok(Self { config: Arc::new(config), current })
    }

    /// Serves another certificate from the next handshake on; connections that are open stay. Without an error or not at all.
    ///
    /// # Errors
    /// As for [`TlsServer::from_pem`].
    pub fn reload(&self, certificate: &[u8], key: &[u8]) -> Result<(), TlsServerError> {
        let certified = Arc::new(read(certificate, key)?);
        *self.current.default.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }

    /// Serves these certificates to callers who ask for one of their names (SNI), from the next handshake on, in place of those
    /// given before: names, certificate, key. Says which could not be used, by their place in the list.
    pub fn set_names<'a>(
        &self,
        certificates: impl IntoIterator<Item = (&'a [String], &'a [u8], &'a [u8])>,
    ) -> Vec<(usize, TlsServerError)> {
        let mut names = HashMap::new();
        let mut unusable = Vec::new();
        for (place, (domains, certificate, key)) in certificates.into_iter().enumerate() {
            match read(certificate, key).map(Arc::new) {
                Ok(certified) => names.extend(domains.iter().map(|domain| (domain.to_ascii_lowercase(), Arc::clone(&certified)))),
                Err(error) => unusable.push((place, error)),
            }
        }
        *self.current.names.write().unwrap_or_else(PoisonError::into_inner) = names;
        unusable
    }

    /// SHA-256 of the leaf certificate, the value that clients pin.
    pub fn fingerprint(&self) -> convox_tls::Fingerprint {
        convox_tls::Fingerprint::of(self.current.get().cert.first().map(AsRef::as_ref).unwrap_or_default())
    }
}

/// A chain that has a leaf, with its own key.
fn read(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsServerError> {
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsServerError::Certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(TlsServerError::Certificate("no certificate found".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsServerError::Key(error.to_string()))?;
    CertifiedKey::from_der(chain, key, &convox_tls::provider()).map_err(TlsServerError::Unusable)
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its domains, lower case.
    pub names: Vec<String>,
    /// Beginning of its validity, seconds since 1970.
    pub begins: i64,
    /// End of its validity, seconds since 1970.
    pub expires: i64,
}

/// Reads the leaf of a chain, and makes sure that chain and key can be served.
///
/// # Errors
/// As for [`TlsServer::from_pem`].
pub fn inspect(certificate: &[u8], key: &[u8]) -> Result<Leaf, TlsServerError> {
    use x509_parser::extensions::GeneralName;
    let certified = read(certificate, key)?;
    let leaf = certified.cert.first().map(AsRef::as_ref).unwrap_or_default();
    let broken = |error: &dyn fmt::Display| TlsServerError::Certificate(error.to_string());
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| broken(&error))?;
    let alternatives = parsed.subject_alternative_name().map_err(|error| broken(&error))?;
    let names = alternatives.iter().flat_map(|names| &names.value.general_names);
    let names = names.filter_map(|name| if let GeneralName::DNSName(name) = name { Some(name.to_ascii_lowercase()) } else { None });
    let validity = parsed.validity();
    Ok(Leaf { names: names.collect(), begins: validity.not_before.timestamp(), expires: validity.not_after.timestamp() })
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("TlsServer").finish_non_exhaustive()
    }
}

/// Makes a self-signed certificate for these names and IP addresses, and its key: `(certificate, key)` as PEM.
///
/// Valid for ten years, since its users pin it: what an expiry would catch, a changed pin catches.
///
/// # Errors
/// When a name is none.
pub fn generate(names: &[&str]) -> Result<(String, String), TlsServerError> {
    generate_for(names, std::time::Duration::from_hours(24 * 3650))
}

/// The same, valid for as long as is said.
///
/// # Errors
/// When a name is none.
pub fn generate_for(names: &[&str], life: std::time::Duration) -> Result<(String, String), TlsServerError> {
    let failed = |error: rcgen::Error| TlsServerError::Generate(error.to_string());
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let mut params = rcgen::CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).map_err(failed)?;
    let name = names.first().copied().unwrap_or("localhost");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let now = std::time::SystemTime::now();
    params.not_before = (now - std::time::Duration::from_hours(24)).into();
    params.not_after = (now + life).into();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Makes a certificate and its key for a server whose callers pinned the one in `before`: for the same names, with the old one and a
/// hand-over behind it ([`convox_tls::hand_over`]), and what was behind the old one, as far back as is worth sending.
///
/// `given` is the certificate and key to go on with, if they are not to be made.
///
/// # Errors
/// When the old pair, or the one given, cannot be used.
pub fn hand_over(before: &[u8], before_key: &[u8], given: Option<(&[u8], &[u8])>) -> Result<(String, String), TlsServerError> {
    let failed = |error: rcgen::Error| TlsServerError::Generate(error.to_string());
    let old = read(before, before_key)?;
    let leaf = old.cert.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
    let (chain, key) = match given {
        Some((chain, key)) => {
            read(chain, key)?;
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|error| TlsServerError::Certificate(error.to_string()));
            (text(chain)?, text(key)?)
        }
        None => {
            let names = convox_tls::Certificate::read(&leaf).names;
            generate(&names.iter().map(String::as_str).collect::<Vec<_>>())?
        }
    };
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| TlsServerError::Key(error.to_string()));
    let old_key = rcgen::KeyPair::from_pem(&text(before_key)?).map_err(failed)?;
    let signer = rcgen::Issuer::from_ca_cert_der(&leaf, old_key).map_err(failed)?;
    let new_key = rcgen::KeyPair::from_pem(&key).map_err(failed)?;
    let mut params = rcgen::CertificateParams::new(vec![convox_tls::hand_over::NAME.to_owned()]).map_err(failed)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "hand-over");
    let now = std::time::SystemTime::now();
    params.not_before = (now - std::time::Duration::from_hours(24)).into();
    params.not_after = (now + std::time::Duration::from_hours(24 * HAND_OVER_DAYS)).into();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let over = params.signed_by(&new_key, &signer).map_err(failed)?;
    let mut all = chain;
    for der in [over.der(), &leaf].into_iter().chain(old.cert.iter().skip(1).take(BEHIND)) {
        if !all.ends_with('\n') {
            all.push('\n');
        }
        all.push_str(&pem(der));
    }
    Ok((all, key))
}

/// How long a hand-over is believed: whoever did not connect for so long compares fingerprints again.
const HAND_OVER_DAYS: u64 = 400;
/// So many older certificates are sent along: each handshake carries them.
const BEHIND: usize = 6;

fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
