//! Accounts: several people, or one person in several roles, on the same host; and where the key of each is kept.
//!
//! The key of a host's active account is in `auth`, where the original clients look for it; keys of the others, and what is known of all, are
//! in our own file `accounts` ([`book`]). A key that is kept by a helper program ([`helper`]) is in no file. A host without an entry in
//! `accounts` has one account, `default`.

mod book;
mod change;
pub(crate) mod helper;

use convox_client::Key;

pub(crate) use book::{Book, MadeKey};
pub(crate) use change::{Login, activate, forget, login, relocate, roll, set_usual};

use crate::env::Env;
use crate::error::Failure;
use crate::settings::{Settings, local};
use crate::target::{Choice, Source};

/// The account that everybody has who never named one.
pub(crate) const DEFAULT: &str = "default";

/// Where a key is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `auth` or `accounts`, readable by their owner only.
    File,
    /// A program that speaks the protocol of docker's credential helpers.
    Helper(String),
}

impl Place {
    /// From what people type: `file`, the name of a helper, or a path.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        match text.trim() {
            "file" => Ok(Self::File),
            name => helper::checked(name).map(Self::Helper),
        }
    }

    /// Which `accounts` writes down.
    fn name(&self) -> Option<&str> {
        match self {
            Self::File => None,
            Self::Helper(name) => Some(name),
        }
    }

    /// For people.
    pub(crate) fn describe(&self, settings: &Settings) -> String {
        match self {
            Self::File => format!("{}, readable by you only", settings.path("auth").display()),
            Self::Helper(name) => helper::program(name),
        }
    }
}

/// A name that an account may have: what fits into a file of one line and into an address.
pub(crate) fn checked(name: &str) -> Result<String, Failure> {
    let name = name.trim();
    let is_name = (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte));
    if is_name {
        Ok(name.to_owned())
    } else {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
        Err(Failure::new(format!("`{shown}` is no name for an account"))
            .hint("1 to 64 letters, digits, dots, dashes, underscores, @ and +"))
    }
}

/// The account that a command at `host` means, and who says so: `CONVOX_ACCOUNT`, `./.convox/account`, the active one.
pub(crate) fn choose(env: &Env, book: &Book, host: &str) -> Result<Choice, Failure> {
    if let Some(name) = env.var("CONVOX_ACCOUNT") {
        return Ok(Choice {
            value: checked(&name).map_err(|failure| failure.while_doing("CONVOX_ACCOUNT"))?,
            source: Source::Variable("CONVOX_ACCOUNT"),
        });
    }
    if let Some((name, file)) = local::read(env.cwd(), "account") {
        return Ok(Choice { value: checked(&name).map_err(|failure| failure.while_doing(&file))?, source: Source::Project(file) });
    }
    Ok(match book.active(host) {
        Some(name) => Choice { value: name.to_owned(), source: Source::Saved("accounts") },
        None => Choice { value: DEFAULT.to_owned(), source: Source::Default },
    })
}

/// A key that was found, and where.
pub(crate) struct Kept {
    pub(crate) key: Key,
    pub(crate) place: Place,
}

/// The key of an account; `None` when it has none.
pub(crate) fn key(settings: &Settings, book: &Book, host: &str, name: &str) -> Result<Option<Kept>, Failure> {
    let account = book.account(host, name);
    if let Some(helper) = account.and_then(|account| account.helper.as_deref()) {
        let found = helper::get(helper, host, name)?;
        return Ok(found.map(|key| Kept { key, place: Place::Helper(helper.to_owned()) }));
    }
    // What a change was about to move into `auth` when it was interrupted counts more than what is still there.
    let file = |key: String| Kept { key: Key::new(key), place: Place::File };
    if let Some(key) = account.and_then(|account| account.key.clone()) {
        return Ok(Some(file(key)));
    }
    if book.is_active(host, name) { Ok(settings.key("auth", host)?.map(file)) } else { Ok(None) }
}

/// The key of the account that was chosen. Where nobody is active, nobody is meant until somebody is named.
pub(crate) fn chosen_key(settings: &Settings, book: &Book, host: &str, choice: &Choice) -> Result<Option<Kept>, Failure> {
    if matches!(choice.source, Source::Default) && !book.is_active(host, &choice.value) {
        return Ok(None);
    }
    key(settings, book, host, &choice.value)
}

/// The key of the account that is active at `host`: for a Rack of this machine, which has a key of its own.
pub(crate) fn active_key(settings: &Settings, host: &str) -> Result<Option<Kept>, Failure> {
    let book = Book::read(settings)?;
    let name = book.active(host).unwrap_or(DEFAULT).to_owned();
    if book.is_active(host, &name) { key(settings, &book, host, &name) } else { Ok(None) }
}

/// The session with a second factor of the account that a command at `host` means.
pub(crate) fn session(env: &Env, settings: &Settings, host: &str) -> Result<Option<String>, Failure> {
    let book = Book::read(settings)?;
    let name = choose(env, &book, host)?.value;
    if book.is_active(host, &name) {
        return settings.key("session", host);
    }
    Ok(book.account(host, &name).and_then(|account| account.session.clone()))
}

/// Keeps the session that a second factor opened for the account that a command at `host` means.
pub(crate) fn keep_session(env: &Env, settings: &Settings, host: &str, id: &str) -> Result<(), Failure> {
    settings.change(|change| {
        let mut book = Book::read(change.settings())?;
        let name = choose(env, &book, host)?.value;
        if book.is_active(host, &name) || book.account(host, &name).is_none() {
            return change.set_key("session", host, Some(id));
        }
        book.put(host, &name).session = Some(id.to_owned());
        book.write(change)
    })
}

/// Says what to do about an account that is not there.
pub(crate) fn missing(settings: &Settings, book: &Book, host: &str, choice: &Choice) -> Failure {
    let others = names(settings, book, host).unwrap_or_default();
    let is_plain = choice.value == DEFAULT && matches!(choice.source, Source::Default);
    if is_plain && others.is_empty() {
        return Failure::new(format!("not logged in to {host}")).hint(format!("convox login {host}"));
    }
    let failure = match &choice.source {
        _ if is_plain => Failure::new(format!("no account of {host} is active")),
        Source::Default | Source::Saved(_) => Failure::new(format!("the account {} of {host} has no key", choice.value)),
        source => Failure::new(format!("{host} has no account {} (from {source})", choice.value)),
    };
    let log_in = if is_plain { format!("convox login {host}") } else { format!("convox login {host} --account {}", choice.value) };
    failure.hint(if others.is_empty() { log_in } else { format!("{log_in}; or convox switch --account {}", others.join("|")) })
}

/// Names of the accounts of a host, sorted.
pub(crate) fn names(settings: &Settings, book: &Book, host: &str) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = book.names(host).map(str::to_owned).collect();
    if names.is_empty() && book.active(host).is_none() && settings.key("auth", host)?.is_some() {
        names.push(DEFAULT.to_owned());
    }
    Ok(names)
}

/// Whether anybody is logged in to a host.
pub(crate) fn is_logged_in(settings: &Settings, host: &str) -> Result<bool, Failure> {
    Ok(!names(settings, &Book::read(settings)?, host)?.is_empty())
}

/// Every host that somebody is logged in to, sorted.
pub(crate) fn hosts(settings: &Settings, book: &Book) -> Result<Vec<String>, Failure> {
    let mut hosts: Vec<String> = settings.map("auth")?.into_iter().filter(|(_, key)| !key.is_empty()).map(|(host, _)| host).collect();
    hosts.extend(book.hosts().map(str::to_owned));
    hosts.sort();
    hosts.dedup();
    Ok(hosts)
}
