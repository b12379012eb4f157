//! Command lines that sign in without a key to paste: a browser on the same machine carries a one-time code to them (RFC 6749 with PKCE, RFC
//! 8252), or a person types a short code on any device (RFC 8628). Either way somebody who is signed in to the web says yes, and what the
//! command line gets is a named key of theirs with an end.

use convox_model::Event;
use convox_seal::{ApiKey, KeyKind, Secret, generate_suffix, generate_typed_code, pkce, read_typed_code};
use convox_store::authorizations::{Approved, Decision, DeviceRow, NewCode, NewDevice, Polled, Typed};

use super::keys::Made;
use super::{Actor, Ops, OpsError};

/// How the command line calls itself. There are no others: whatever it is, a person approves it.
pub(crate) const CLIENT: &str = "convox-cli";
/// How long the code is good that a browser carries, milliseconds.
const CODE_MS: i64 = 60_000;
/// How long a person has to type the code of a device, milliseconds.
pub(crate) const DEVICE_MS: i64 = 600_000;
/// How long a command line waits between two questions, milliseconds.
pub(crate) const INTERVAL_MS: i64 = 5_000;
/// How long the key of a command line may live, days.
pub(crate) const LIVES: [i64; 5] = [1, 7, 30, 90, 365];
/// The one that is proposed.
pub(crate) const USUAL_LIFE: i64 = 90;
const DAY_MS: i64 = 24 * 3_600_000;
/// Longest name of a machine.
const LONGEST_DEVICE: usize = 40;

/// What a command line asks for by its browser. Made only of parameters that were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) redirect_uri: String,
    pub(crate) state: String,
    pub(crate) challenge: String,
    pub(crate) device: String,
}

impl Asked {
    /// Checks what came along. The address that the code will go to is on the browser's own machine, and nothing but that.
    pub(crate) fn read(redirect_uri: &str, state: &str, challenge: &str, device: &str) -> Result<Self, OpsError> {
        let bad = |what: &str| {
            Err(OpsError::Input(format!(
                "the command line asked in a way that is not understood ({what}); update convox and run `convox login` again"
            )))
        };
        let is_word = |text: &str, longest: usize| {
            (1..=longest).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let place = redirect_uri.strip_prefix("http://127.0.0.1:").and_then(|rest| rest.split_once('/'));
        let is_here = place.is_some_and(|(port, path)| {
            port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port) && is_word(path, 128)
        });
        if !is_here {
            return bad("redirect_uri");
        }
        if !is_word(state, 128) {
            return bad("state");
        }
        if !pkce::is_challenge(challenge) {
            return bad("code_challenge");
        }
        Ok(Self {
            redirect_uri: redirect_uri.to_owned(),
            state: state.to_owned(),
            challenge: challenge.to_owned(),
            device: device_name(device),
        })
    }

    /// Where the browser takes an answer: `code=...` or `error=...`.
    pub(crate) fn answer(&self, answer: &str) -> String {
        format!("{}?{answer}&state={}", self.redirect_uri, self.state)
    }
}

/// What a machine calls itself, in letters that look like nothing else.
fn device_name(given: &str) -> String {
    let name: String =
        given.chars().take(LONGEST_DEVICE).map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

/// A name for the key of that machine, unlike those of its keys before.
pub(crate) fn key_name(device: &str) -> String {
    format!("{device}-{}", generate_suffix(6))
}

/// A device authorization that was just begun: the only moment at which its codes are known.
pub(crate) struct Begun {
    pub(crate) device_code: ApiKey,
    pub(crate) user_code: Secret,
    /// To be in the log before the codes are given away.
    pub(crate) event: Event,
}

/// Why a command line gets no key (yet): `error` of RFC 6749, 5.2, and RFC 8628, 3.5.
#[derive(Debug)]
pub(crate) enum NoKey {
    /// The code is none, was used, or has ended; or what came with it does not fit.
    InvalidGrant(&'static str),
    Pending,
    SlowDown,
    Denied,
    Expired,
    Other(OpsError),
}

impl From<OpsError> for NoKey {
    fn from(error: OpsError) -> Self {
        match error {
            // Whoever approved it was signed out in between.
            OpsError::Forbidden(_) => Self::Denied,
            OpsError::Conflict(_) | OpsError::Missing(_) => {
                Self::InvalidGrant("a key of that name is there, or its owner is gone; sign in again")
            }
            error => Self::Other(error),
        }
    }
}

impl From<convox_store::StoreError> for NoKey {
    fn from(error: convox_store::StoreError) -> Self {
        OpsError::from(error).into()
    }
}

/// A key for a command line, and whose.
pub(crate) struct Granted {
    pub(crate) made: Made,
    pub(crate) approved: Approved,
}

impl Ops {
    /// Somebody says yes to a command line on the machine of their browser; gives the code for it.
    pub(crate) async fn approve_code(&self, actor: &Actor, asked: &Asked, key_name: &str, days: i64) -> Result<(ApiKey, i64), OpsError> {
        let (session, email) = signed_in(actor)?;
        let code = ApiKey::generate(KeyKind::Authorization);
        let new = NewCode {
            hash: code.lookup_hash(&self.lookup),
            session: session.clone(),
            challenge: asked.challenge.clone(),
            redirect_uri: asked.redirect_uri.clone(),
            device: asked.device.clone(),
            key_name: checked_name(key_name)?,
            key_life_ms: checked_life_ms(days)?,
            expires_ms: self.clock.now_ms() + CODE_MS,
        };
        let act = actor.act(&*self.clock, "AuthorizationApprove", format!("/users/{email}/keys/{key_name}"));
        let seq = self.store.insert_code(&new, &act).await?;
        Ok((code, seq))
    }

    /// A key in exchange for the code that a browser carried. Whatever is wrong with what came along, the code is used up.
    pub(crate) async fn exchange_code(
        &self,
        actor: &Actor,
        code: &Secret,
        redirect_uri: &str,
        verifier: &Secret,
    ) -> Result<Granted, NoKey> {
        const NONE: NoKey = NoKey::InvalidGrant("this code was used or has ended; run `convox login` again");
        let Ok((KeyKind::Authorization, hash)) = self.lookup.hash_key(code.expose()) else { return Err(NONE) };
        let taken = self.store.take_code(&hash, self.clock.now_ms()).await?.ok_or(NONE)?;
        if taken.redirect_uri != redirect_uri || !pkce::is_verified(&taken.challenge, verifier) {
            return Err(NoKey::InvalidGrant("this code was asked for by somebody else; run `convox login` again"));
        }
        self.grant(actor, taken.approved, "authorization-code").await
    }

    /// A command line asks to be signed in from another device.
    pub(crate) async fn begin_device(&self, actor: &Actor, device: &str) -> Result<Begun, OpsError> {
        let (device_code, user_code) = (ApiKey::generate(KeyKind::Device), generate_typed_code());
        let new = NewDevice {
            id: uuid::Uuid::now_v7().to_string(),
            device_hash: device_code.lookup_hash(&self.lookup),
            user_hash: self.lookup.hash(&user_code),
            device: device_name(device),
            peer: actor.peer.clone(),
            network: super::guesses::network(&actor.peer),
            wide: super::guesses::wide_network(&actor.peer),
            expires_ms: self.clock.now_ms() + DEVICE_MS,
            interval_ms: INTERVAL_MS,
        };
        let event = actor.event(&*self.clock, "DeviceAuthorize", format!("/device-authorizations/{}/{}", new.id, new.device));
        let event = Event { rule: "device-authorization".to_owned(), ..event };
        self.store.insert_device(&new, self.clock.now_ms()).await?;
        Ok(Begun { device_code, user_code, event })
    }

    /// What the code leads to that somebody typed.
    pub(crate) async fn type_code(&self, actor: &Actor, typed: &str) -> Result<Typed, OpsError> {
        let who = actor.principal.as_ref().ok_or_else(|| OpsError::Input("who types this code?".to_owned()))?;
        // What cannot be a code is looked up too: it is a wrong one like any other.
        let hash = self.lookup.hash(&read_typed_code(typed).unwrap_or_else(|| Secret::new(String::new())));
        Ok(self.store.type_code(&hash, &who.user, self.clock.now_ms()).await?)
    }

    /// Somebody decides about the device whose code they typed; `None` for no.
    pub(crate) async fn decide_device(
        &self,
        actor: &Actor,
        typed: &str,
        row: &DeviceRow,
        yes: Option<(&str, i64)>,
    ) -> Result<i64, OpsError> {
        let (session, email) = signed_in(actor)?;
        let code = read_typed_code(typed).ok_or_else(|| OpsError::Input("that is no code".to_owned()))?;
        let place = format!("/device-authorizations/{}/{}", row.id, row.device);
        let (decision, action, target) = match yes {
            Some((name, days)) => {
                let decision = Decision::Approve { key_name: checked_name(name)?, key_life_ms: checked_life_ms(days)? };
                (decision, "DeviceApprove", format!("{place}/users/{email}/keys/{name}"))
            }
            None => (Decision::Deny, "DeviceDeny", place),
        };
        let act = actor.act(&*self.clock, action, target);
        Ok(self.store.decide_device(&self.lookup.hash(&code), session, &decision, &act).await?)
    }

    /// A command line asks whether somebody decided.
    pub(crate) async fn poll_device(&self, actor: &Actor, code: &Secret) -> Result<Granted, NoKey> {
        let Ok((KeyKind::Device, hash)) = self.lookup.hash_key(code.expose()) else {
            return Err(NoKey::InvalidGrant("that is no device code"));
        };
        match self.store.poll_device(&hash, self.clock.now_ms()).await? {
            Polled::Pending => Err(NoKey::Pending),
            Polled::SlowDown => Err(NoKey::SlowDown),
            Polled::Denied => Err(NoKey::Denied),
            Polled::Gone => Err(NoKey::Expired),
            Polled::Approved(approved) => self.grant(actor, approved, "device-authorization").await,
        }
    }

    /// Makes the key that was approved, if whoever approved it still may.
    async fn grant(&self, actor: &Actor, approved: Approved, rule: &str) -> Result<Granted, NoKey> {
        let key = ApiKey::generate(KeyKind::User);
        let expires_ms = Some(self.clock.now_ms() + approved.key_life_ms);
        let row = self.key_row(&key, approved.user.clone(), approved.key_name.clone(), expires_ms);
        let target = format!("/users/{}/keys/{}", approved.email, approved.key_name);
        let mut act = actor.act_as(&*self.clock, &approved.user, &approved.email, "KeyCreate", target, rule);
        act.key = Some(approved.session.clone());
        let seq = self.store.insert_key(&row, &act).await?;
        Ok(Granted { made: Made { id: row.id, name: row.name, key, expires_ms, seq }, approved })
    }
}

/// The session and the address of whoever says yes or no. A key does not: only who is at a browser does.
fn signed_in(actor: &Actor) -> Result<(&convox_model::KeyId, &str), OpsError> {
    let who = actor.principal.as_ref();
    let session = who.and_then(|who| Some((who.key.as_ref()?, who.email.as_str())));
    session.ok_or_else(|| OpsError::Input("who signs in?".to_owned()))
}

fn checked_name(name: &str) -> Result<String, OpsError> {
    let is_name = (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_name { Ok(name.to_owned()) } else { Err(OpsError::Input("that is no name for a key; start again on that machine".to_owned())) }
}

fn checked_life_ms(days: i64) -> Result<i64, OpsError> {
    if LIVES.contains(&days) { Ok(days * DAY_MS) } else { Err(OpsError::Input("choose how long the key lives".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn read(redirect_uri: &str, state: &str, challenge: &str) -> bool {
        Asked::read(redirect_uri, state, challenge, "x").is_ok()
    }

    #[test]
    fn a_code_goes_to_the_browsers_own_machine_only() {
        assert!(read("http://127.0.0.1:40123/aZ09-_", "s", CHALLENGE));
        for uri in [
            "",
            "http://127.0.0.1/x",
            "http://127.0.0.1:0/x",
            "http://127.0.0.1:00080/x",
            "http://127.0.0.1:+80/x",
            "http://127.0.0.1:65536/x",
            "http://127.0.0.1:80@evil.example/x",
            "http://127.0.0.1:80/",
            "http://127.0.0.1:80/x?y",
            "http://127.0.0.1:80/x#y",
            "http://127.0.0.1:80/x/../y",
            "http://127.0.0.1.evil.example:80/x",
            "http://localhost:80/x",
            "http://[::1]:80/x",
            "https://127.0.0.1:80/x",
            "https://evil.example/x",
            "javascript:alert(1)",
            " http://127.0.0.1:80/x",
            &format!("http://127.0.0.1:80/{}", "x".repeat(129)),
        ] {
            assert!(!read(uri, "s", CHALLENGE), "{uri}");
        }
        // T20: what made other parsers send codes elsewhere.
        let starts = [
            "//",
            "///",
            "/\\",
            "\\\\",
            "http:",
            "http:/",
            "http:///",
            "HTTP://",
            "https://",
            "http://127.0.0.1:80@",
            "http://127.0.0.1:80\\@",
            "http://127.0.0.1#@",
            "http://127.0.0.1?@",
            "http://127.1:80/",
            "http://2130706433:80/",
            "http://0x7f.1:80/",
            "http://[::ffff:127.0.0.1]:80/",
            "http://127.0.0.1:80/\t",
            "http://127.0.0.1:80/\r\n",
            "http://127.0.0.1:80/%2f..",
            "http://127.0.0.1:8\u{660}/",
            "http://127.0.0.1\u{3002}x:80/",
            "http://user@127.0.0.1:80/",
            "ftp://127.0.0.1:80/",
            "data:text/html,",
            "\u{202e}",
            "http://127.0.0.1.:80/",
            "http://127.0.0.1:80//",
        ];
        let ends = [
            "",
            "evil.example",
            "evil.example/x",
            "@evil.example",
            "?x=evil.example",
            "#evil.example",
            ".evil.example",
            "%00evil.example",
            "/../evil",
            "\u{2028}",
            "x y",
            "evil.example:80/x",
        ];
        assert!(starts.len() * ends.len() > 300);
        for uri in starts.iter().flat_map(|start| ends.iter().map(move |end| format!("{start}{end}"))) {
            assert!(!read(&uri, "s", CHALLENGE), "{uri:?}");
        }
        for state in ["", "a b", "a&b", "ä", &"x".repeat(129)] {
            assert!(!read("http://127.0.0.1:80/x", state, CHALLENGE), "{state}");
        }
        assert!(!read("http://127.0.0.1:80/x", "s", "plain"));
    }

    #[test]
    fn a_machine_cannot_dress_its_name_up() {
        for (given, shown) in [
            ("ada-laptop.local", "ada-laptop.local"),
            ("", "unnamed"),
            ("\u{202e}evil<b>", "evil-b"),
            ("аdmin", "dmin"),
            ("..", "unnamed"),
            ("a\r\nb", "a--b"),
        ] {
            assert_eq!(device_name(given), shown);
        }
        assert_eq!(device_name(&"x".repeat(500)).len(), LONGEST_DEVICE);
        let name = key_name(&"x".repeat(LONGEST_DEVICE));
        assert_eq!(checked_name(&name).unwrap(), name);
        assert_ne!(key_name("a"), key_name("a"));
    }

    #[test]
    fn a_key_ends() {
        assert!(LIVES.contains(&USUAL_LIFE));
        assert_eq!(checked_life_ms(90).unwrap(), 7_776_000_000);
        for days in [0, -1, 2, 366, i64::MAX] {
            assert!(checked_life_ms(days).is_err(), "{days}");
        }
    }
}
