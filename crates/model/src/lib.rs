//! Domain words and pure rules: who acts, what they may do, what is written down about it. No I/O.
//!
//! - [`id`], [`name`]: ids and validated names.
//! - [`principal`]: who acts, with which role in which organization.
//! - [`scope`], [`network`]: what a key is limited to.
//! - [`policy`]: [`decide`], the one place where a right is a right.
//! - [`audit`]: the audit event.
//! - [`clock`]: time that tests can hold still.

pub mod audit;
pub mod clock;
pub mod id;
pub mod name;
pub mod network;
pub mod policy;
pub mod principal;
pub mod scope;
mod text;

pub use audit::Event;
pub use clock::{Clock, MockClock, SystemClock};
pub use id::{KeyId, OrgId, RackId, UserId};
pub use name::{Email, NameError, OrgName, RackName};
pub use network::{Network, NetworkError};
pub use policy::{Decision, Request, decide};
pub use principal::{Grant, Principal, Role};
pub use scope::{May, Preset, Scope};
