//! What a person wants to see of a certificate before trusting it. Whoever runs the server chose these texts, and they are shown at a
//! terminal before anything is trusted: they are bounded, and nothing in them reaches the terminal as a command.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Fingerprint;

/// More names than this are not shown.
const MOST_NAMES: usize = 32;

/// Longer texts are cut, characters. No DNS name is longer.
const LONGEST: usize = 253;

/// What is worth showing of a certificate. All texts are safe to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Of the leaf.
    pub fingerprint: Fingerprint,
    /// The subject as text; empty when it cannot be read.
    pub subject: String,
    /// DNS names and addresses that it is for, the first 32.
    pub names: Vec<String>,
    /// Unix seconds after which it is expired; 0 when it cannot be read.
    pub not_after: i64,
}

impl Certificate {
    /// Reads DER bytes. What cannot be read is left empty: the fingerprint is always right.
    pub fn read(der: &[u8]) -> Self {
        let fingerprint = Fingerprint::of(der);
        let Ok((_, parsed)) = X509Certificate::from_der(der) else {
            return Self { fingerprint, subject: String::new(), names: Vec::new(), not_after: 0 };
        };
        let names = parsed
            .subject_alternative_name()
            .ok()
            .flatten()
            .map_or_else(Vec::new, |extension| extension.value.general_names.iter().filter_map(shown_name).take(MOST_NAMES).collect());
        Self { fingerprint, subject: printable(&parsed.subject().to_string()), names, not_after: parsed.validity().not_after.timestamp() }
    }
}

fn shown_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(printable(name)),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    }
}

/// Printable ASCII as it is, everything else escaped: a name in another script cannot pass for one that it resembles.
fn printable(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(LONGEST) {
        if c == ' ' || c.is_ascii_graphic() {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
    }
    shown
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| std::net::Ipv6Addr::from(sixteen).to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_shows_its_subject_its_names_and_its_end() {
        let mut params = CertificateParams::new(vec!["rack.example.com".into(), "127.0.0.1".into(), "::1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "the rack");
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let read = Certificate::read(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der());
        assert_eq!(read.names, ["rack.example.com", "127.0.0.1", "::1"]);
        assert!(read.subject.contains("the rack"), "{}", read.subject);
        assert_eq!(read.not_after, 1_927_843_200, "3 February 2031, midnight UTC");
        let garbage = Certificate::read(b"garbage");
        assert_eq!((garbage.not_after, garbage.fingerprint), (0, Fingerprint::of(b"garbage")));
    }

    #[test]
    fn a_hostile_certificate_cannot_speak_to_the_terminal() {
        let mut params = CertificateParams::new(vec!["a\u{1b}[2J\r\nfingerprint  sha256:00".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "\u{202e}kcar eht\u{1b}]0;x\u{7}");
        params.subject_alt_names.extend((0..1000).map(|n| rcgen::SanType::DnsName(format!("n{n}").try_into().unwrap())));
        let read = Certificate::read(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der());
        assert_eq!(read.names.first().map(String::as_str), Some("a\\u{1b}[2J\\u{d}\\u{a}fingerprint  sha256:00"));
        assert_eq!(read.names.len(), MOST_NAMES);
        assert!(!read.subject.is_empty() && read.subject.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{:?}", read.subject);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            prop_assert_eq!(Certificate::read(&bytes).fingerprint, Fingerprint::of(&bytes));
            let mut der = rcgen::generate_simple_self_signed(vec!["rack".to_owned()]).unwrap().cert.der().to_vec();
            let at = at.index(der.len());
            der[at] = to;
            Certificate::read(&der);
        }
    }
}
