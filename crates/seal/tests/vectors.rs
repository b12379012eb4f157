//! Frozen: what earlier versions wrote must open for ever. Not one of these values was made by this crate, but by libsodium and Python's
//! hmac and zlib (`vectors.py`), so two implementations agree on every form. A test that fails here is a broken form, not a value to update.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use convox_seal::access::{Claims, Expected, Role, Signer, mint, verify};
use convox_seal::{ApiKey, Binding, DataKey, KeyKind, Keyring, LookupKey, OpenError, RootKey, Sealed, Secret, WrappedDataKey, password};
use sha2::{Digest, Sha256};

/// HKDF-SHA256 of the root key.
const ROOT_ID: &str = "353dfe148928f20f";
/// Version, root key id, nonce, data key id and key, tag; bound to `org-1`.
const WRAPPED: &str = concat!(
    "01353dfe148928f20f9f6c951e2abb104bb78b59109f5a8bfe0c7a9af8261165db622058427f8c1333183521fc34deb878bdbaa5476f48",
    "1f71820d07d5c09567c57ae211432ff97d352b15219aac77f723f44170bcc3d213c4",
);
/// Version, data key id, nonce, `pässword`, tag; bound to `org-1`, `rack-1`, `password`.
const SEALED: &str =
    concat!("011c4787217f2a440b89d066f403346e8ac8ae97be7ec7d6965daaea94199fb14dbf7efd44d491a5103d1034054da24f86833a9c41cc06", "99ccbd",);
/// Prefix, 32 bytes in base 62, CRC-32 in base 62.
const API_KEY: &str = "cxu_n3SKTF5ynHBbxcRhnJyYNmACkYyllCCOPiMcALm9eiM3OHchk";
/// Its HMAC-SHA256.
const LOOKUP: &str = "2291948de91cff195420ec608ece7f974121657185a524db8eddb23f0991bf9b";
/// Argon2id of `correct horse`.
const PASSWORD: &str = "$argon2id$v=19$m=19456,t=2,p=1$GeTOkyPlU9O/SP/7mmpZrg$G23V0l2WyErVa1n3s8FhA4QXK+XC6/N2ewCjDVxbShI";
/// With every claim.
const TOKEN: &str = concat!(
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImtpZC0xIn0.eyJ1c2VyIjoic3lzdGVtLXdyaXRlIiwicm9sZSI6InJ3IiwiZXhwaX",
    "Jlc0F0IjoyMDAwMDAwMDAwLCJleHAiOjIwMDAwMDAwMDAsImlhdCI6MTkwMDAwMDAwMCwianRpIjoidG9rZW4tMSIsImlzcyI6Im1haW4iLCJh",
    "dWQiOiJyYWNrLTEifQ.E8OdhAe_2dJ3bc7dO6QiCETO2IY4BHZ_fhk9g57NVmo",
);
/// In the form of the originals.
const ORIGINAL: &str = concat!(
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ1c2VyIjoic3lzdGVtLXdyaXRlIiwicm9sZSI6InJ3IiwiZXhwaXJlc0F0IjoyMDAwMDAwM",
    "DAwfQ.QYdaLJrkH62YukXLrkNTR2ZAN0NXBPKVk_NJ4x4aZ6o",
);

const PLACE: Binding<'static> = Binding { org: "org-1", rack: "rack-1", field: "password" };

/// Derived, so that no usable key stands here for anybody to copy.
fn fixed(what: &str) -> [u8; 32] {
    Sha256::digest(format!("convox-seal test vectors: {what}")).into()
}

fn root() -> RootKey {
    RootKey::parse(&fixed("root key").map(|byte| format!("{byte:02x}")).concat()).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn data_key() -> DataKey {
    Keyring::new(root()).unwrap_data_key(&WrappedDataKey::from_bytes(bytes(WRAPPED)), "org-1").unwrap()
}

#[test]
fn a_root_key_keeps_its_name() {
    assert_eq!(root().id(), ROOT_ID);
}

#[test]
fn what_was_sealed_opens_in_its_place() {
    let sealed = Sealed::from_bytes(bytes(SEALED));
    assert_eq!(data_key().open(&PLACE, &sealed).unwrap().expose(), "pässword");
    assert_eq!(data_key().open(&Binding { rack: "rack-2", ..PLACE }, &sealed).err(), Some(OpenError::Refused));
    let wrapped = WrappedDataKey::from_bytes(bytes(WRAPPED));
    assert_eq!(Keyring::new(root()).unwrap_data_key(&wrapped, "org-2").err(), Some(OpenError::Refused));
}

#[test]
fn what_is_sealed_today_has_the_same_form() {
    let sealed = data_key().seal(&PLACE, &Secret::new("pässword".to_owned()));
    let (then, now) = (bytes(SEALED), sealed.as_bytes());
    assert_eq!((now.len(), &now[..9]), (then.len(), &then[..9]));
    let wrapped = Keyring::new(root()).new_data_key("org-1");
    assert_eq!((wrapped.as_bytes().len(), &wrapped.as_bytes()[..9]), (bytes(WRAPPED).len(), &bytes(WRAPPED)[..9]));
}

#[test]
fn a_key_in_use_stays_a_key_and_is_found_again() {
    let key = ApiKey::parse(API_KEY).unwrap();
    assert!(key.kind() == KeyKind::User);
    assert_eq!(key.lookup_hash(&LookupKey::derive(&root())).to_vec(), bytes(LOOKUP));
}

#[test]
fn a_stored_password_hash_lets_its_owner_in() {
    assert!(password::verify(&Secret::new("correct horse".to_owned()), PASSWORD));
    assert!(!password::verify(&Secret::new("correct horsf".to_owned()), PASSWORD));
    assert!(!password::needs_rehash(PASSWORD));
}

#[test]
fn tokens_are_signed_and_read_as_ever() {
    let signer = Signer::new("kid-1".to_owned(), fixed("signer").to_vec()).unwrap();
    let claims = Claims {
        user: "system-write".to_owned(),
        role: Role::Write,
        issued_at: 1_900_000_000,
        expires_at: 2_000_000_000,
        id: "token-1".to_owned(),
        issuer: "main".to_owned(),
        audience: "rack-1".to_owned(),
    };
    assert_eq!(mint(&claims, &signer), TOKEN);
    let expected = Expected { audience: "rack-1", issuer: Some("main"), originals: true };
    assert_eq!(verify(TOKEN, std::slice::from_ref(&signer), 1_950_000_000, &expected).unwrap(), claims);
    let original = verify(ORIGINAL, &[signer], 1_950_000_000, &expected).unwrap();
    assert_eq!((original.role, original.expires_at, original.audience.as_str()), (Role::Write, 2_000_000_000, ""));
}
