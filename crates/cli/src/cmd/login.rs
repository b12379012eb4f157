//! `login` and `logout`.

use std::io::Read;

use convox_client::console::{Identity, Token};
use convox_client::{Client, Error, Key};

use crate::Ctx;
use crate::accounts::{self, Book, MadeKey, Place, helper};
use crate::args::{Login, Logout};
use crate::error::Failure;
use crate::sign_in::{self, At};
use crate::target::{self, Choice, DEFAULT_HOST, Source, bare_host};
use crate::{pins, prompt};

/// More than any key; a file that was piped in by mistake is not read to its end.
const LONGEST_KEY: u64 = 64 * 1024;

#[derive(serde::Serialize)]
struct LoggedIn<'a> {
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    account: &'a str,
    /// The key that was made for this machine, or ended with the logout.
    #[serde(skip_serializing_if = "Option::is_none")]
    made_key: Option<&'a MadeKey>,
}

/// A key to log in with, and who supplied it.
struct Given {
    key: Key,
    source: Source,
    made: Option<MadeKey>,
}

impl Given {
    fn new(key: Key, source: Source) -> Self {
        Self { key, source, made: None }
    }

    fn made(token: &Token) -> Self {
        Self { key: token.key(), source: Source::Default, made: Some(sign_in::made(token)) }
    }
}

pub(super) async fn login(ctx: &Ctx, args: Login) -> Result<u8, Failure> {
    let host = match &args.host {
        Some(host) => bare_host(host).to_owned(),
        None => target::host(&ctx.env, &ctx.settings)?.map_or_else(|| DEFAULT_HOST.to_owned(), |choice| choice.value),
    };
    // A broken file, a name that is none and a helper that is not there are found before anything is asked or sent.
    let book = Book::read(&ctx.settings)?;
    let account = match &args.account {
        Some(name) => Choice { value: accounts::checked(name)?, source: Source::Flag("--account") },
        None => accounts::choose(&ctx.env, &book, &host)?,
    };
    let place = place(&args, &book, &host, &account.value)?;
    if let Place::Helper(name) = &place {
        helper::is_there(name)?;
    }
    let before = book.account(&host, &account.value).cloned();
    let (given, identity) = sign_in(ctx, &args, &book, &host, &account.value).await?;
    let kept = keep(ctx, &args, &host, &account, &place, &given, &identity);
    if let Err(failure) = kept {
        // A key that nobody has is not left behind.
        revoke(ctx, &args, &host, &given.key, given.made.as_ref()).await.ok();
        return Err(failure);
    }
    if let (Some(old), Some(new)) = (before.as_ref().and_then(|account| account.made.as_ref()), &given.made)
        && old.id != new.id
    {
        // The key that was made for this machine before has no use any more.
        if let Err(failure) = revoke(ctx, &args, &host, &given.key, Some(old)).await {
            ctx.out.talk(&format!("note: the key {} that this machine had before could not be revoked: {failure}", old.name));
        }
    }
    ctx.out.ok()?;
    if let Some(email) = identity.email.as_deref()
        && (given.made.is_some() || account.value != accounts::DEFAULT)
    {
        let named = if account.value == accounts::DEFAULT { String::new() } else { format!(", account {}", account.value) };
        let ends = given.made.as_ref().map(|made| format!("; the key {} ends {}", made.name, day(&made.expires))).unwrap_or_default();
        ctx.out.talk(&format!("Logged in as {email}{named}{ends}"));
    }
    if let Some(what) = identity.key.as_deref().filter(|what| !what.is_empty()) {
        ctx.out.talk(&format!("This is a {what}. It works on Racks within these limits; the Console itself is not for it."));
    }
    if ctx.out.is_json() {
        let (id, email) = (identity.id.as_deref(), identity.email.as_deref());
        ctx.out.json(&LoggedIn { host: &host, id, email, account: &account.value, made_key: given.made.as_ref() })?;
    }
    Ok(0)
}

/// The day of a time of RFC 3339.
fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or(time)
}

/// Where the key goes: as asked now, to the helper that has that account's key, or as asked at last.
fn place(args: &Login, book: &Book, host: &str, account: &str) -> Result<Place, Failure> {
    if let Some(asked) = &args.store {
        return Place::parse(asked);
    }
    let known = book.account(host, account).and_then(|account| account.helper.clone());
    Ok(known.or_else(|| book.store.clone()).map_or(Place::File, Place::Helper))
}

/// Finds a key that the host accepts, and whose it is.
async fn sign_in(ctx: &Ctx, args: &Login, book: &Book, host: &str, account: &str) -> Result<(Given, Identity), Failure> {
    let at = At { host, fingerprint: args.fingerprint };
    if args.device || args.no_browser {
        if !sign_in::is_offered(ctx, at).await? {
            return Err(sign_in::not_offered(host));
        }
        let given = by_browser(ctx, args, at).await?;
        let identity = attempt(ctx, args, host, &given.key).await?;
        return Ok((given, identity));
    }
    let mut given = match given(ctx, args)? {
        Some(given) => given,
        None => match accounts::key(&ctx.settings, book, host, account)? {
            Some(kept) => Given::new(kept.key, Source::Saved("auth")),
            None => ask(ctx, args, at).await?,
        },
    };
    if let Some(saved) = book.account(host, account)
        && matches!(given.source, Source::Saved(_))
    {
        given.made = saved.made.clone();
    }
    loop {
        match attempt(ctx, args, host, &given.key).await {
            Ok(identity) => return Ok((given, identity)),
            Err(failure) => {
                let refused = failure.cause().is_some_and(Error::is_about_the_key);
                if !refused || given.source != Source::Saved("auth") {
                    return Err(failure);
                }
                // The saved key was good once; say so instead of failing with a riddle, and let the person give another.
                if !ctx.env.stdin_is_terminal {
                    return Err(failure
                        .while_doing("the saved key was refused")
                        .hint(format!("give a new one: convox login {host} --password-stdin < FILE; the saved one is kept until then")));
                }
                ctx.out.progress("\n")?;
                ctx.out.talk(&format!("The saved key was refused: {failure}"));
                given = ask(ctx, args, at).await?;
            }
        }
    }
}

/// The first of: flag, standard input, environment.
fn given(ctx: &Ctx, args: &Login) -> Result<Option<Given>, Failure> {
    if args.password_stdin {
        let mut text = String::new();
        std::io::stdin().lock().take(LONGEST_KEY).read_to_string(&mut text)?;
        let key = text.trim();
        if key.is_empty() {
            return Err(Failure::new("standard input holds no password").hint("convox login HOST --password-stdin < FILE"));
        }
        return Ok(Some(Given::new(Key::new(key), Source::Flag("--password-stdin"))));
    }
    for (name, value) in [("--password", &args.password), ("--token", &args.token)] {
        if let Some(value) = value.as_deref().map(str::trim).filter(|value| !value.is_empty()) {
            return Ok(Some(Given::new(Key::new(value), Source::Flag(name))));
        }
    }
    for name in ["CONVOX_PASSWORD", "CONVOX_TOKEN"] {
        if let Some(value) = ctx.env.var(name) {
            return Ok(Some(Given::new(Key::new(value), Source::Variable(name))));
        }
    }
    Ok(None)
}

/// Asks the person: for a key, or where the host lets them, for a word to the browser.
async fn ask(ctx: &Ctx, args: &Login, at: At<'_>) -> Result<Given, Failure> {
    let host = at.host;
    if !ctx.env.stdin_is_terminal {
        return Err(Failure::new(format!("no password for {host}, and standard input is no terminal to ask at"))
            .hint(format!("convox login {host} --password-stdin < FILE, or set CONVOX_PASSWORD; or with --device, by any browser")));
    }
    let is_offered = sign_in::is_offered(ctx, at).await?;
    let question = match (is_offered, sign_in::browser::is_there(&ctx.env)) {
        (true, true) => "Press Enter to sign in with your browser, or paste an API key: ",
        (true, false) => "Press Enter to sign in with a browser on another device, or paste an API key: ",
        (false, _) => "Password: ",
    };
    let key = prompt::secret(question)?;
    match (key.is_empty(), is_offered) {
        (false, _) => Ok(Given::new(Key::new(key), Source::Default)),
        (true, true) => by_browser(ctx, args, at).await,
        (true, false) => Err(Failure::new("no password was given")),
    }
}

/// By the browser of this machine, or where there is none or none is wanted, by a code for another device.
async fn by_browser(ctx: &Ctx, args: &Login, at: At<'_>) -> Result<Given, Failure> {
    let is_elsewhere = args.device || !(args.no_browser || sign_in::browser::is_there(&ctx.env));
    let token =
        if is_elsewhere { sign_in::device::sign_in(ctx, at).await? } else { sign_in::browser::sign_in(ctx, at, !args.no_browser).await? };
    Ok(Given::made(&token))
}

async fn client(ctx: &Ctx, args: &Login, host: &str, key: &Key) -> Result<Client, Failure> {
    let endpoint = target::endpoint(&ctx.env, host, key.clone())?;
    let mut context = ctx.context(host, None)?;
    // A stale session must not stand in the way of a new login.
    context.session = None;
    pins::connect(&ctx.env, &ctx.settings, &ctx.out, &endpoint, &context, args.fingerprint).await
}

async fn attempt(ctx: &Ctx, args: &Login, host: &str, key: &Key) -> Result<Identity, Failure> {
    let client = client(ctx, args, host, key).await?;
    // Only now: what the certificate gives to say has been said.
    ctx.out.start(&format!("Authenticating with {host}"))?;
    Ok(client.auth().await?)
}

/// Key first: whatever ends us in between, a host without a key says what to do, and no key is lost.
fn keep(ctx: &Ctx, args: &Login, host: &str, account: &Choice, place: &Place, given: &Given, identity: &Identity) -> Result<(), Failure> {
    if let Place::Helper(name) = place {
        helper::store(name, host, &account.value, &given.key)?;
    }
    let new = accounts::Login {
        key: &given.key,
        place,
        user: identity.id.as_deref(),
        email: identity.email.as_deref(),
        made: given.made.clone(),
        is_usual: args.store.is_some(),
    };
    let before = ctx.settings.change(|change| {
        let before = Book::read(change.settings())?.account(host, &account.value).and_then(|account| account.helper.clone());
        accounts::login(change, host, &account.value, &new)?;
        if let Some(id) = &identity.id {
            change.set_text("id", id)?;
        }
        change.remove("rack")?;
        change.set_text("host", host)?;
        change.set_text("console", host)?;
        Ok(before)
    })?;
    // What another helper kept is not left lying there; but the login is done whatever that one says.
    if let Some(before) = before.filter(|before| *place != Place::Helper(before.clone()))
        && let Err(failure) = helper::erase(&before, host, &account.value)
    {
        ctx.out.talk(&format!("note: the key of before is still there: {failure}"));
    }
    Ok(())
}

/// Ends a key that was made for this machine. That it has ended already is what was wanted.
async fn revoke(ctx: &Ctx, args: &Login, host: &str, with: &Key, made: Option<&MadeKey>) -> Result<(), Failure> {
    let Some(made) = made else { return Ok(()) };
    match client(ctx, args, host, with).await?.revoke_key(None, &made.id).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_not_found() || error.is_about_the_key() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn logout(ctx: &Ctx, args: &Logout) -> Result<u8, Failure> {
    let host = match &args.host {
        Some(host) => bare_host(host).to_owned(),
        None => target::host(&ctx.env, &ctx.settings)?.map(|choice| choice.value).ok_or_else(|| Failure::new("not logged in anywhere"))?,
    };
    let book = Book::read(&ctx.settings)?;
    let account = match &args.account {
        Some(name) => accounts::checked(name)?,
        None => accounts::choose(&ctx.env, &book, &host)?.value,
    };
    let made = book.account(&host, &account).and_then(|account| account.made.clone());
    // The key that was made for this machine ends at the host too, if it is still the one that is here.
    let ended = match &made {
        None => Ok(()),
        Some(made) => match accounts::key(&ctx.settings, &book, &host, &account) {
            Ok(Some(kept)) if kept.key.expose().ends_with(&made.last4) => {
                revoke(ctx, &Login::default(), &host, &kept.key, Some(made)).await
            }
            Ok(_) => Ok(()),
            Err(failure) => Err(failure),
        },
    };
    // The key first: an account that is forgotten names no keychain in which its key could still be found.
    if let Some(keeper) =
        book.account(&host, &account).and_then(|account| account.helper.clone()).filter(|name| helper::is_there(name).is_ok())
    {
        helper::erase(&keeper, &host, &account)
            .map_err(|failure| failure.while_doing("nothing was forgotten: run this again when the keychain is open"))?;
    }
    let had = ctx.settings.change(|change| accounts::forget(change, &host, &account))?;
    let named = if account == accounts::DEFAULT { String::new() } else { format!(" (account {account})") };
    let Some(had) = had else {
        return Err(Failure::new(format!("not logged in to {host}{named}")));
    };
    let erased = had.helper.as_deref().map_or(Ok(()), |helper| helper::erase(helper, &host, &account));
    ctx.out.progress(&format!("Logged out of {host}{named}\n"))?;
    if ctx.env.var("CONVOX_PASSWORD").is_some() {
        ctx.out.talk("note: CONVOX_PASSWORD is set, and still logs in wherever commands go");
    }
    if let (Err(failure), Some(made)) = (ended, &made) {
        let words = format!("the key is gone from this machine, but {host} could not be told to end it: {failure}");
        return Err(Failure::new(words).hint(format!("revoke the key {} in your account there", made.name)));
    }
    erased.map_err(|failure| failure.while_doing("the account is gone from here, but its key is not"))?;
    if ctx.out.is_json() {
        ctx.out.json(&LoggedIn { host: &host, id: None, email: None, account: &account, made_key: made.as_ref() })?;
    }
    Ok(0)
}
