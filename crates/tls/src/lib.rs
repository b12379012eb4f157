//! Trust: whose certificate is good enough to be told a secret.
//!
//! One room for the command line and the Console's relay, so that there is one pin verifier to read and test. Sans I/O: it makes rustls
//! configurations and explains their errors; whoever uses it owns the sockets.
//!
//! - [`Trust`], [`client_config`]: system roots, own roots, or one exact certificate.
//! - [`hand_over`]: how a pin follows a server to its next certificate.
//! - [`unverified_config`]: for processes of the same machine, whose certificates prove nothing that the connection does not.
//! - [`inspect_config`]: learns a server's [`Certificate`] without telling it anything.
//! - [`TlsFault`], [`classify`]: what went wrong, in a person's words.

mod certificate;
mod fault;
mod fingerprint;
pub mod hand_over;
mod verify;

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

pub use certificate::Certificate;
pub use fault::{TlsFault, classify, classify_rustls};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use verify::CapturedLeaf;

/// Whom to believe.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The certificate authorities of this machine (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured).
    SystemRoots,
    /// These authorities and no others.
    Roots(Vec<CertificateDer<'static>>),
    /// Exactly this leaf certificate, whatever name and dates it carries; or one that its key handed over to ([`hand_over`]): whoever connected
    /// then compares the fingerprint that it saw, and keeps it in place of this one.
    Pinned(Fingerprint),
}

/// Why no configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The machine has no certificate authorities, or they cannot be read.
    #[error("no certificate authorities found on this machine: {0} (install ca-certificates, or pin the server's fingerprint)")]
    NoRoots(String),
    /// A root certificate is not one.
    #[error("a root certificate is not valid: {0}")]
    BadRoot(rustls::Error),
    /// The cipher suites of this build do not fit together.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// The one provider of primitives: aws-lc-rs.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// A client configuration that believes `trust` and nobody else. HTTP/1.1 only. Sessions are resumed.
///
/// # Errors
/// [`TlsError::NoRoots`] for [`Trust::SystemRoots`] on a machine without any; [`TlsError::BadRoot`] for [`Trust::Roots`].
pub fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(TlsError::Setup)?;
    let mut config = match trust {
        Trust::SystemRoots => builder.dangerous().with_custom_certificate_verifier(vouched(system_roots()?)?).with_no_client_auth(),
        Trust::Roots(roots) => {
            let mut store = RootCertStore::empty();
            for root in roots {
                store.add(root.clone()).map_err(TlsError::BadRoot)?;
            }
            builder.dangerous().with_custom_certificate_verifier(vouched(store)?).with_no_client_auth()
        }
        Trust::Pinned(expected) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verify::Pinned::new(*expected))).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A configuration whose handshake always fails, after it put the server's leaf certificate into the second value. Nothing but
/// the greeting is ever sent.
///
/// # Errors
/// [`TlsError::Setup`].
pub fn inspect_config() -> Result<(Arc<ClientConfig>, CapturedLeaf), TlsError> {
    let captured = CapturedLeaf::default();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verify::Inspecting::new(captured.clone())))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), captured))
}

/// A client configuration that believes whoever answers: encryption, and no question of who it is. For a connection that can lead nowhere else, such as
/// one to a process of this machine on the loopback address. HTTP/1.1 only; sessions are resumed.
///
/// # Errors
/// [`TlsError::Setup`].
pub fn unverified_config() -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verify::Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn vouched(roots: RootCertStore) -> Result<Arc<verify::Vouched>, TlsError> {
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TlsError::Setup(rustls::Error::General(error.to_string())))?;
    Ok(Arc::new(verify::Vouched::new(authorities)))
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let reasons: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::NoRoots(if reasons.is_empty() { "none are installed".to_owned() } else { reasons.join("; ") }));
    }
    Ok(store)
}
