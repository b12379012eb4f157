//! Changes to accounts: under the lock of the directory, and in an order in which each account has its own key at every moment, whatever ends
//! us in between. A key is written to its new place before it leaves the old one; until then, the one in `accounts` counts.

use convox_client::Key;

use super::book::{Account, Book, MadeKey};
use super::{DEFAULT, Kept, Place, helper};
use crate::error::Failure;
use crate::settings::{Change, Settings};

/// What is kept of a login.
pub(crate) struct Login<'a> {
    pub(crate) key: &'a Key,
    pub(crate) place: &'a Place,
    pub(crate) user: Option<&'a str>,
    pub(crate) email: Option<&'a str>,
    pub(crate) made: Option<MadeKey>,
    /// Whether further logins keep their keys in the same place.
    pub(crate) is_usual: bool,
}

/// Keeps a key and makes its account the active one of the host. A helper must have the key already.
pub(crate) fn login(change: &Change<'_>, host: &str, name: &str, login: &Login<'_>) -> Result<(), Failure> {
    let mut book = Book::read(change.settings())?;
    let before = book.clone();
    if login.is_usual {
        book.store = login.place.name().map(str::to_owned);
    }
    // Who never named an account and keeps the key where the originals do needs no entry.
    let is_plain = name == DEFAULT && *login.place == Place::File && login.made.is_none() && !book.knows(host);
    if is_plain {
        if book != before {
            book.write(change)?;
        }
        change.set_key("auth", host, Some(login.key.expose()))?;
        return change.set_key("session", host, None);
    }
    set_aside(change.settings(), &mut book, host, name)?;
    let account = book.put(host, name);
    account.user = login.user.map(str::to_owned);
    account.email = login.email.map(str::to_owned);
    account.helper = login.place.name().map(str::to_owned);
    account.made = login.made.clone();
    account.session = None;
    account.key = (*login.place == Place::File).then(|| login.key.expose().to_owned());
    book.set_active(host, Some(name));
    book.write(change)?;
    settle(change, &mut book, host, name)
}

/// Puts a key that was rolled in the place of the one before: of the same account, where that was. `made` is what is now known of a key that
/// was made for this machine.
pub(crate) fn roll(change: &Change<'_>, host: &str, name: &str, place: &Place, key: &Key, made: &MadeKey) -> Result<(), Failure> {
    if let Place::Helper(helper) = place {
        helper::store(helper, host, name, key)?;
    }
    let mut book = Book::read(change.settings())?;
    let is_in_book = book.account(host, name).is_some_and(|account| account.key.is_some());
    if is_in_book || book.account(host, name).is_some_and(|account| account.made.is_some()) {
        let account = book.put(host, name);
        if is_in_book {
            account.key = Some(key.expose().to_owned());
        }
        if account.made.is_some() {
            account.made = Some(made.clone());
        }
        book.write(change)?;
    }
    if *place == Place::File && !is_in_book {
        change.set_key("auth", host, Some(key.expose()))?;
    }
    Ok(())
}

/// Keeps the keys of further logins in that place.
pub(crate) fn set_usual(change: &Change<'_>, place: &Place) -> Result<(), Failure> {
    let mut book = Book::read(change.settings())?;
    let usual = place.name().map(str::to_owned);
    if book.store == usual {
        return Ok(());
    }
    book.store = usual;
    book.write(change)
}

/// Makes an account the active one of its host.
pub(crate) fn activate(change: &Change<'_>, host: &str, name: &str) -> Result<(), Failure> {
    let mut book = Book::read(change.settings())?;
    if book.is_active(host, name) {
        return Ok(());
    }
    set_aside(change.settings(), &mut book, host, name)?;
    book.put(host, name);
    book.set_active(host, Some(name));
    book.write(change)?;
    settle(change, &mut book, host, name)
}

/// Takes the key and session of the account that was active out of the originals' files, into the book.
fn set_aside(settings: &Settings, book: &mut Book, host: &str, next: &str) -> Result<(), Failure> {
    let active = match book.active(host) {
        Some(active) => active.to_owned(),
        None if !book.knows(host) => DEFAULT.to_owned(),
        // Nobody is active: what is in `auth` all the same was written by another program, and is as good as any.
        None => DEFAULT.to_owned(),
    };
    if active == next {
        return Ok(());
    }
    let (key, session) = (settings.key("auth", host)?, settings.key("session", host)?);
    if book.account(host, &active).is_none() && key.is_none() {
        return Ok(());
    }
    let account = book.put(host, &active);
    if account.helper.is_none() && account.key.is_none() {
        account.key = key;
    }
    account.session = session;
    Ok(())
}

/// Puts the key and session of the account that is active now where the originals look for them, and out of the book.
fn settle(change: &Change<'_>, book: &mut Book, host: &str, name: &str) -> Result<(), Failure> {
    let account = book.put(host, name);
    let (key, session, is_in_file) = (account.key.take(), account.session.take(), account.helper.is_none());
    if is_in_file {
        if let Some(key) = &key {
            change.set_key("auth", host, Some(key))?;
        }
    } else {
        change.set_key("auth", host, None)?;
    }
    change.set_key("session", host, session.as_deref())?;
    if key.is_some() || session.is_some() {
        book.write(change)?;
    }
    Ok(())
}

/// Forgets an account; gives what was known of it. `None` when there was nothing. A helper is told by whoever asks for this.
pub(crate) fn forget(change: &Change<'_>, host: &str, name: &str) -> Result<Option<Account>, Failure> {
    let mut book = Book::read(change.settings())?;
    let is_active = book.is_active(host, name);
    let had_key = is_active && change.settings().key("auth", host)?.is_some();
    let account = book.take(host, name);
    if is_active {
        change.set_key("auth", host, None)?;
        change.set_key("session", host, None)?;
    }
    if account.is_some() {
        book.write(change)?;
    }
    Ok(account.or_else(|| had_key.then(Account::default)))
}

/// Moves the key of an account to another place, where it must be already if that is a helper.
pub(crate) fn relocate(change: &Change<'_>, host: &str, name: &str, kept: &Kept, to: &Place) -> Result<(), Failure> {
    let mut book = Book::read(change.settings())?;
    let was_known = book.knows(host);
    let is_active = book.is_active(host, name);
    let account = book.put(host, name);
    account.helper = to.name().map(str::to_owned);
    account.key = (*to == Place::File).then(|| kept.key.expose().to_owned());
    if !was_known {
        book.set_active(host, Some(name));
    }
    book.write(change)?;
    if is_active {
        let mut session = change.settings().key("session", host)?;
        std::mem::swap(&mut book.put(host, name).session, &mut session);
        settle(change, &mut book, host, name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{active_key, key, names};

    struct Case {
        _dir: tempfile::TempDir,
        settings: Settings,
    }

    impl Case {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let settings = Settings::new(dir.path().join("config"));
            Self { _dir: dir, settings }
        }

        fn log_in(&self, name: &str, key: &str) {
            let key = Key::new(key);
            let new = Login { key: &key, place: &Place::File, user: None, email: None, made: None, is_usual: false };
            self.settings.change(|change| login(change, "h", name, &new)).unwrap();
        }

        fn key(&self, name: &str) -> Option<String> {
            let book = Book::read(&self.settings).unwrap();
            key(&self.settings, &book, "h", name).unwrap().map(|kept| kept.key.expose().to_owned())
        }

        fn auth(&self) -> Option<String> {
            self.settings.key("auth", "h").unwrap()
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "a key that is there, beside `None` for one that is not")]
    fn text(key: &str) -> Option<String> {
        Some(key.to_owned())
    }

    #[test]
    fn who_names_no_account_has_the_files_of_the_originals_and_no_other() {
        let case = Case::new();
        case.log_in(DEFAULT, "k");
        assert_eq!((case.auth(), case.key(DEFAULT)), (text("k"), text("k")));
        assert!(!case.settings.path("accounts").exists());
        case.settings.change(|change| forget(change, "h", DEFAULT)).unwrap().map(drop).unwrap();
        assert_eq!((case.auth(), case.key(DEFAULT)), (None, None));
        assert!(case.settings.change(|change| forget(change, "h", DEFAULT)).unwrap().is_none());
    }

    #[test]
    fn each_account_keeps_its_key_and_the_originals_see_the_active_one() {
        let case = Case::new();
        case.log_in(DEFAULT, "first");
        case.settings.change(|change| change.set_key("session", "h", Some("s1"))).unwrap();
        case.log_in("work", "second");
        assert_eq!(case.settings.key("session", "h").unwrap(), None, "a session is one account's");
        case.log_in("home", "third");
        for (name, key) in [(DEFAULT, "first"), ("work", "second"), ("home", "third")] {
            assert_eq!(case.key(name), text(key), "{name}");
        }
        assert_eq!(case.auth(), text("third"));
        for name in ["work", DEFAULT, "home", DEFAULT] {
            case.settings.change(|change| activate(change, "h", name)).unwrap();
            assert_eq!(case.auth(), case.key(name), "{name}");
            let text = case.settings.text("accounts").unwrap();
            assert_eq!(text.matches("\"key\"").count(), 2, "no key is in two places: {text}");
        }
        assert_eq!(case.settings.key("session", "h").unwrap(), text("s1"));
        // Another program logs in meanwhile: that is the active account's key now.
        case.settings.change(|change| change.set_key("auth", "h", Some("theirs"))).unwrap();
        assert_eq!((case.key(DEFAULT), case.key("work")), (text("theirs"), text("second")));
        case.settings.change(|change| forget(change, "h", DEFAULT)).unwrap().map(drop).unwrap();
        assert_eq!((case.auth(), case.key("work")), (None, text("second")));
        let book = Book::read(&case.settings).unwrap();
        assert_eq!((book.active("h"), names(&case.settings, &book, "h").unwrap()), (None, vec!["home".to_owned(), "work".to_owned()]));
        assert!(active_key(&case.settings, "h").unwrap().is_none());
    }

    #[test]
    fn interrupted_anywhere_no_account_gets_the_key_of_another() {
        let case = Case::new();
        case.log_in("a", "ka");
        case.log_in("b", "kb");
        // After the book was written, before `auth` was: what a kill there leaves.
        case.settings
            .change(|change| {
                let mut book = Book::read(change.settings())?;
                set_aside(change.settings(), &mut book, "h", "a")?;
                book.set_active("h", Some("a"));
                book.write(change)
            })
            .unwrap();
        assert_eq!(case.auth(), text("kb"));
        assert_eq!((case.key("a"), case.key("b")), (text("ka"), text("kb")));
        case.settings.change(|change| activate(change, "h", "b")).unwrap();
        assert_eq!((case.key("a"), case.key("b"), case.auth()), (text("ka"), text("kb"), text("kb")));
        case.settings.change(|change| activate(change, "h", "a")).unwrap();
        assert_eq!((case.key("a"), case.key("b"), case.auth()), (text("ka"), text("kb"), text("ka")));
    }

    #[test]
    fn what_a_later_version_wrote_is_kept_and_a_broken_file_is_left_alone() {
        let case = Case::new();
        let later = r#"{"later": 1, "hosts": {"h": {"active": "a", "colour": "red", "accounts": {"a": {"key": "ka", "shape": "round"}}}}}"#;
        case.settings.change(|change| change.set_text("accounts", later)).unwrap();
        case.log_in("b", "kb");
        let text = case.settings.text("accounts").unwrap();
        for word in ["later", "colour", "shape"] {
            assert!(text.contains(word), "{text}");
        }
        case.settings.change(|change| change.set_text("accounts", "{\"hosts\": {\"h\": \"secretish\"}}")).unwrap();
        let failure = Book::read(&case.settings).map(drop).unwrap_err();
        assert!(
            failure.to_string().contains("accounts is not understood (line 1") && !failure.to_string().contains("secretish"),
            "{failure}"
        );
    }
}
