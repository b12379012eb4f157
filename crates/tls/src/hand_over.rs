//! How a pin follows a server to its next certificate: the old key vouches for the new one, inside the handshake.
//!
//! Beside its own leaf a server sends pairs of certificates: the leaf that it had before, and a **hand-over**, signed by the key of that leaf,
//! which holds the public key of the one after it. Whoever pinned the earlier leaf finds it there, follows the signatures to the leaf that the
//! server proves to hold, and has lost nothing: without the old key nobody can make a hand-over. Why this form: `docs/adr/`.

use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;

use crate::Fingerprint;

/// The one name in a hand-over. No authority gives it to anybody, so no other certificate that the old key may have signed is one.
pub const NAME: &str = "hand-over.convox.invalid";

/// More certificates than this are not looked at.
const MOST: usize = 16;
/// Nor so many hand-overs in a row.
const LONGEST: usize = 8;

/// Whether certificates among `shown` lead from the one with the pinned fingerprint to the key of `leaf`.
pub(crate) fn leads(pinned: Fingerprint, leaf: &CertificateDer<'_>, shown: &[CertificateDer<'_>], now: UnixTime) -> bool {
    let shown = shown.get(..MOST).unwrap_or(shown);
    let Some(mut from) = shown.iter().find(|der| Fingerprint::of(der) == pinned) else { return false };
    let Some(goal) = public_key(leaf) else { return false };
    for _ in 0..LONGEST {
        let Some(key) = shown.iter().find(|over| is_signed_by(over, from, now)).and_then(public_key) else { return false };
        if key == goal {
            return true;
        }
        let Some(next) = shown.iter().find(|der| **der != *from && !is_hand_over(der) && public_key(der).as_ref() == Some(&key)) else {
            return false;
        };
        from = next;
    }
    false
}

fn public_key(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    ParsedCertificate::try_from(der).ok().map(|parsed| parsed.subject_public_key_info().as_ref().to_vec())
}

fn is_hand_over(der: &CertificateDer<'_>) -> bool {
    let Ok(name) = ServerName::try_from(NAME) else { return false };
    ParsedCertificate::try_from(der).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}

/// Whether `over` is a hand-over that the key of `from` signed, and is valid now.
fn is_signed_by(over: &CertificateDer<'_>, from: &CertificateDer<'_>, now: UnixTime) -> bool {
    let mut signer = RootCertStore::empty();
    if !is_hand_over(over) || signer.add(from.clone().into_owned()).is_err() {
        return false;
    }
    let algorithms = crate::provider().signature_verification_algorithms.all;
    ParsedCertificate::try_from(over)
        .is_ok_and(|parsed| verify_server_cert_signed_by_trust_anchor(&parsed, &signer, &[], now, algorithms).is_ok())
}
