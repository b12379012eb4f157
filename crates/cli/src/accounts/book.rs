//! The file `accounts`: which accounts each host has, which is active, and what is known of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::accounts::DEFAULT;
use crate::error::Failure;
use crate::settings::{Change, Settings};

pub(super) const FILE: &str = "accounts";

/// All of it. What a later version added is kept.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Book {
    /// Helper that keeps the keys of further logins; none for the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
    hosts: BTreeMap<String, Host>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
struct Host {
    /// Name of the account whose key commands use; none after it was logged out.
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<String>,
    accounts: BTreeMap<String, Account>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// One account. No `Debug`: it may hold a key.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Account {
    /// Whose, as the host said at the login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
    /// Their id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// Helper that keeps the key; none for the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) helper: Option<String>,
    /// The key of an account that is not active and kept in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// The same of its session with a second factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    /// The key, if it was made for this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) made: Option<MadeKey>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// A key that the host made for this machine, which ends with the logout.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct MadeKey {
    /// Its id at the host.
    pub(crate) id: String,
    /// Its name there.
    pub(crate) name: String,
    /// Its last four characters: it may have been replaced by another program since.
    pub(crate) last4: String,
    /// Its end, RFC 3339.
    pub(crate) expires: String,
}

impl Book {
    pub(crate) fn read(settings: &Settings) -> Result<Self, Failure> {
        let text = settings.text(FILE)?;
        if text.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(&text).map_err(|error| {
            // The place of the fault, never the text: it may be a key.
            let place = format!("line {}, column {}", error.line(), error.column());
            Failure::new(format!("{} is not understood ({place})", settings.path(FILE).display()))
                .hint("repair it, or move it away and log in again; nothing was changed")
        })
    }

    pub(super) fn write(&self, change: &Change<'_>) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).map_err(|_| Failure::new("accounts could not be written down"))?;
        change.set_text(FILE, &text).map(drop)
    }

    /// Whether anything is known of a host.
    pub(super) fn knows(&self, host: &str) -> bool {
        self.hosts.contains_key(host)
    }

    /// Name of the active account; `None` if nothing is known of the host, or its active account was logged out.
    pub(crate) fn active(&self, host: &str) -> Option<&str> {
        self.hosts.get(host)?.active.as_deref()
    }

    /// Whether `auth` is where the key of that account belongs.
    pub(crate) fn is_active(&self, host: &str, name: &str) -> bool {
        match self.hosts.get(host) {
            Some(known) => known.active.as_deref() == Some(name),
            None => name == DEFAULT,
        }
    }

    pub(crate) fn account(&self, host: &str, name: &str) -> Option<&Account> {
        self.hosts.get(host)?.accounts.get(name)
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().filter(|(_, known)| !known.accounts.is_empty()).map(|(host, _)| host.as_str())
    }

    pub(crate) fn names(&self, host: &str) -> impl Iterator<Item = &str> {
        self.hosts.get(host).into_iter().flat_map(|known| known.accounts.keys()).map(String::as_str)
    }

    /// The account of that name, made if it is not there.
    pub(super) fn put(&mut self, host: &str, name: &str) -> &mut Account {
        self.hosts.entry(host.to_owned()).or_default().accounts.entry(name.to_owned()).or_default()
    }

    pub(super) fn set_active(&mut self, host: &str, name: Option<&str>) {
        self.hosts.entry(host.to_owned()).or_default().active = name.map(str::to_owned);
    }

    pub(super) fn take(&mut self, host: &str, name: &str) -> Option<Account> {
        let known = self.hosts.get_mut(host)?;
        let account = known.accounts.remove(name);
        if known.active.as_deref() == Some(name) {
            known.active = None;
        }
        if known.accounts.is_empty() {
            self.hosts.remove(host);
        }
        account
    }
}
