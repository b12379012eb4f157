//! What the compiler must never let happen to a secret: to be printed, copied or written out by accident.

use std::fmt::{Debug, Display};

use convox_seal::access::Signer;
use convox_seal::{ApiKey, DataKey, Keyring, LookupKey, RootKey, Secret, TotpSecret};
use serde::Serialize;
use static_assertions::{assert_impl_all, assert_not_impl_any};

assert_not_impl_any!(Secret: Debug, Display, Clone, Serialize, AsRef<str>, std::ops::Deref, PartialEq);
assert_not_impl_any!(ApiKey: Debug, Display, Clone, Serialize, AsRef<str>, std::ops::Deref, PartialEq);
assert_not_impl_any!(RootKey: Debug, Display, Clone, Serialize);
assert_not_impl_any!(DataKey: Debug, Display, Clone, Serialize);
assert_not_impl_any!(Keyring: Debug, Display, Clone, Serialize);
assert_not_impl_any!(TotpSecret: Debug, Display, Clone, Serialize);
assert_not_impl_any!(Signer: Debug, Display, Clone, Serialize);
// It may be cloned: a copy for whoever hashes.
assert_not_impl_any!(LookupKey: Debug, Display, Serialize);
// Held by servers with many threads.
assert_impl_all!(Keyring: Send, Sync);
assert_impl_all!(LookupKey: Send, Sync);
assert_impl_all!(Signer: Send, Sync);
