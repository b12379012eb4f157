//! What went wrong in a handshake, in words that tell a person what to do.

use std::fmt;
use std::io;

use rustls::CertificateError;

use crate::Fingerprint;
use crate::verify::PinMismatch;

/// Why a TLS connection was refused, before any application byte was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// Nobody that this machine trusts vouches for the certificate (self-signed, private authority).
    UnknownIssuer,
    /// The certificate is for other names.
    WrongName,
    /// The certificate's time is over.
    Expired,
    /// The certificate's time has not come.
    NotYetValid,
    /// The server showed another certificate than the pinned one.
    PinChanged {
        /// The pin.
        expected: Fingerprint,
        /// What the server showed.
        found: Fingerprint,
    },
    /// Anything else; the text is rustls's.
    Protocol(String),
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIssuer => f.write_str("nobody that this machine trusts vouches for the certificate"),
            Self::WrongName => f.write_str("the certificate is for another name"),
            Self::Expired => f.write_str("the certificate has expired"),
            Self::NotYetValid => f.write_str("the certificate is not valid yet"),
            Self::PinChanged { expected, found } => {
                write!(f, "the certificate has changed: pinned is {expected}, the server shows {found}")
            }
            Self::Protocol(text) => write!(f, "TLS handshake failed: {text}"),
        }
    }
}

impl std::error::Error for TlsFault {}

/// The fault inside an I/O error, as `tokio-rustls` and rustls's streams wrap it; `None` when it is not about TLS.
pub fn classify(error: &io::Error) -> Option<TlsFault> {
    let inner = error.get_ref()?;
    if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
        return Some(classify_rustls(tls));
    }
    inner.downcast_ref::<io::Error>().and_then(classify)
}

/// The fault that a rustls error means.
pub fn classify_rustls(error: &rustls::Error) -> TlsFault {
    let rustls::Error::InvalidCertificate(certificate) = error else {
        return TlsFault::Protocol(error.to_string());
    };
    match certificate {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFault::NotYetValid,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => TlsFault::WrongName,
        CertificateError::UnknownIssuer => TlsFault::UnknownIssuer,
        CertificateError::Other(other) => match other.0.downcast_ref::<PinMismatch>() {
            Some(mismatch) => TlsFault::PinChanged { expected: mismatch.expected, found: mismatch.found },
            // webpki says so of a self-signed end-entity certificate that is its own authority.
            None if other.to_string().contains("CaUsedAsEndEntity") => TlsFault::UnknownIssuer,
            None => TlsFault::Protocol(other.to_string()),
        },
        rest => TlsFault::Protocol(rustls::Error::InvalidCertificate(rest.clone()).to_string()),
    }
}
