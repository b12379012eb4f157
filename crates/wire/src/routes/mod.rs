//! **The route table**: every Rack route of both generations with its effect, and the match of a request against it.
//!
//! Whoever decides about a request (the Console's policy, the Rack's token roles) reads this table; what matches no row is refused.
//! A match is made on exactly the bytes that would be forwarded: paths that two parsers could read differently match nothing.

mod find;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use find::{Match, match_route};
pub use table::ROUTES;

/// What a request does to a Rack, from harmless to mighty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Sees state.
    Read,
    /// Sees secrets: environments, exports, files, credentials.
    ReadSecret,
    /// Changes state.
    Write,
    /// Runs anything: exec, run, instance shell, TCP proxy.
    Shell,
    /// Makes or rolls credentials of the Rack, or money limits.
    Admin,
}

impl Effect {
    /// All of them, from harmless to mighty.
    pub const ALL: [Self; 5] = [Self::Read, Self::ReadSecret, Self::Write, Self::Shell, Self::Admin];

    /// `read`, `read-secret`, `write`, `shell`, `admin`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadSecret => "read-secret",
            Self::Write => "write",
            Self::Shell => "shell",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an effect is one of read, read-secret, write, shell, admin")]
pub struct UnknownEffect;

impl FromStr for Effect {
    type Err = UnknownEffect;

    fn from_str(text: &str) -> Result<Self, UnknownEffect> {
        Self::ALL.into_iter().find(|effect| effect.as_str() == text).ok_or(UnknownEffect)
    }
}

/// Which Racks serve a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// convox/rack only.
    V2,
    /// convox/convox only.
    V3,
    /// Both.
    Both,
    /// Racks older than both.
    Classic,
    /// Our Racks only.
    Ours,
}

/// A row of the table.
#[derive(Debug)]
pub struct Route {
    /// The SDK's name of the call.
    pub name: &'static str,
    /// `GET`, ... or `ANY`.
    pub method: &'static str,
    /// Segments are literal, `{name}`, `{name}.tgz`, or, at the end, `{name*}` for all that follows.
    pub pattern: &'static str,
    /// Whether it is a WebSocket; then a request without the upgrade does not match, and the other way round.
    pub socket: bool,
    /// What it does.
    pub effect: Effect,
    /// Where it exists.
    pub generation: Generation,
}

impl Route {
    /// Whether it is about the Rack's password itself: for whoever has that, and never through a Console, which rolls it by itself and would
    /// lock itself out.
    pub fn is_about_the_password(&self) -> bool {
        self.pattern == "/system/password" || self.pattern.starts_with("/system/password/")
    }
}
