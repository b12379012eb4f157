//! What must stay secret: the forms of keys, their hashes, envelope encryption, signed tokens. No I/O, no async, and the one place
//! with ciphers: this is what an auditor reads.
//!
//! - [`Secret`]: text that cannot be shown, copied or logged by accident, wiped when dropped.
//! - [`ApiKey`], [`LookupKey`]: what callers carry, and the keyed hash under which it is found.
//! - [`password`]: Argon2id for what people choose.
//! - [`PasswordKey`]: how a Rack keeps its own password.
//! - [`RootKey`], [`Keyring`], [`DataKeys`]: root key -> data key per organization -> ciphertext bound to its place.
//! - [`TotpSecret`]: codes of authenticator apps. [`generate_recovery_code`]: for whoever lost theirs.
//! - [`access`]: the tokens that a Rack signs.
//! - [`chain`]: records that hold each other in place, such as audit events.
//! - [`pkce`]: whoever brings an authorization code is who asked for it.

pub mod access;
mod api_key;
pub mod chain;
mod envelope;
mod inventory;
mod keyring;
pub mod password;
pub mod pkce;
mod rack_password;
mod random;
mod recovery;
mod register;
mod secret;
mod totp;
mod weak;

pub use api_key::{ApiKey, KeyFormatError, KeyKind, LookupKey};
pub use envelope::{Binding, DataKey, DataKeys, OpenError, Sealed, WrappedDataKey};
pub use inventory::Credential;
pub use keyring::{Keyring, RootKey, RootKeyError};
pub use rack_password::PasswordKey;
pub use random::{generate_password, generate_suffix, generate_typed_code, random_bytes, read_typed_code};
pub use recovery::{generate_recovery_code, read_recovery_code};
pub use register::{Place, RegisterHead, RegisterKey, RegisterPage};
pub use secret::Secret;
pub use totp::TotpSecret;

/// Whether two byte strings are equal, in a time that depends on their lengths only.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    use subtle::ConstantTimeEq as _;
    a.ct_eq(b).into()
}
