//! What went wrong in a handshake, in words that tell a person what to do.

use std::fmt;
use std::io;

use rustls::{CertificateError, InvalidMessage};

use crate::Fingerprint;
use crate::verify::PinMismatch;

const NO_TLS: &str = "the server does not speak TLS on this port (is it a plain HTTP port?)";

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
    let certificate = match error {
        rustls::Error::InvalidCertificate(certificate) => certificate,
        // What a plain HTTP server's answer looks like: the commonest way to reach the wrong port.
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => return TlsFault::Protocol(NO_TLS.to_owned()),
        other => return TlsFault::Protocol(other.to_string()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_found_however_deep_it_is_wrapped_and_nothing_else_is_one() {
        let tls = || rustls::Error::InvalidCertificate(CertificateError::Expired);
        assert_eq!(classify(&io::Error::other(tls())), Some(TlsFault::Expired));
        assert_eq!(classify(&io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls()))), Some(TlsFault::Expired));
        assert_eq!(classify(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
        assert_eq!(classify(&io::Error::other("expired")), None);
    }

    #[test]
    fn every_fault_says_something_else() {
        let (a, b) = (Fingerprint::of(b"a"), Fingerprint::of(b"b"));
        let faults = [
            TlsFault::UnknownIssuer,
            TlsFault::WrongName,
            TlsFault::Expired,
            TlsFault::NotYetValid,
            TlsFault::PinChanged { expected: a, found: b },
            TlsFault::Protocol("x".to_owned()),
        ];
        let texts: std::collections::BTreeSet<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), faults.len());
        let changed = faults[4].to_string();
        assert!(changed.contains(&a.to_string()) && changed.contains(&b.to_string()), "{changed}");
        // Clients of the original use a server's text as a format.
        assert!(texts.iter().all(|text| !text.contains('%')));
    }
}
