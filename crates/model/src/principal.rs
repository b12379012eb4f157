//! Who acts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{KeyId, OrgId, RackId, UserId};
use crate::scope::Scope;

/// What a member may do in an organization, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything of the organization's Racks, works on apps.
    Developer,
    /// Works on the Racks themselves too.
    Operator,
    /// Everything: members, keys, and the credentials of Racks.
    Administrator,
}

impl Role {
    /// All roles, least first.
    pub const ALL: [Self; 3] = [Self::Developer, Self::Operator, Self::Administrator];

    /// `developer`, `operator`, `administrator`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Developer => "developer",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is one of developer, operator, administrator")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// A role in an organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Where.
    pub org: OrgId,
    /// What.
    pub role: Role,
}

/// Who acts: a user, by way of one of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The user.
    pub user: UserId,
    /// Their address, by which people know them.
    pub email: String,
    /// The key in use; `None` for the command line on the server itself.
    pub key: Option<KeyId>,
    /// Its last four characters, for the audit log.
    pub key_last4: String,
    /// Their roles.
    pub grants: Arc<[Grant]>,
    /// Whether the key is a machine's: it works on Racks, not on the Console.
    pub is_deploy: bool,
    /// What the key is limited to; `None` for all that its owner may do.
    pub scope: Option<Arc<Scope>>,
}

impl Principal {
    /// Their role in `org`; `None` for strangers.
    pub fn role_in(&self, org: &OrgId) -> Option<Role> {
        self.grants.iter().find(|grant| grant.org == *org).map(|grant| grant.role)
    }

    /// Whether a Rack exists for them: they are a member of its organization, and the key is not for others only.
    pub fn sees(&self, org: &OrgId, rack: &RackId) -> bool {
        self.role_in(org).is_some() && self.scope.as_ref().is_none_or(|scope| scope.sees(org, rack))
    }

    /// Whether the key is less than the person: for some Racks, some commands, or for a machine. What the Console itself keeps (members,
    /// other keys, the audit log) is not for such a key.
    pub fn is_limited(&self) -> bool {
        self.is_deploy || self.scope.is_some()
    }
}
