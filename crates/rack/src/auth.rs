//! Who may come in: the bearer of the Rack's password, or of a token that the Rack signed. Decided before anything else is done, a
//! WebSocket's upgrade included.

use std::collections::HashSet;
use std::time::Duration;

use convox_seal::access::{self, Claims, Expected, Role, Signer};
use convox_seal::{PasswordKey, constant_time_eq};
use convox_wire::basic::parse_basic;
use convox_wire::routes::Effect;
use tokio::sync::watch;

use crate::state::{Asker, PasswordRow, Passwords};

/// What a caller may do, and who they are for the log.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Password bearers are administrators.
    pub(crate) role: Role,
    /// `password` or the token's user.
    pub(crate) name: String,
    /// By what they came in.
    by: By,
}

#[derive(Clone, Debug)]
enum By {
    /// The password with this keyed hash.
    Password {
        hash: [u8; 32],
        is_next: bool,
    },
    Token(Token),
}

#[derive(Clone, Debug)]
struct Token {
    id: String,
    /// The key that signed it.
    kid: String,
    /// Unix seconds.
    expires_at: i64,
}

impl Caller {
    /// When their token ends, Unix seconds.
    pub(crate) fn expires_at(&self) -> Option<i64> {
        self.token().map(|token| token.expires_at)
    }

    /// The id of their token.
    pub(crate) fn token_id(&self) -> Option<&str> {
        self.token().map(|token| token.id.as_str())
    }

    fn token(&self) -> Option<&Token> {
        match &self.by {
            By::Token(token) => Some(token),
            By::Password { .. } => None,
        }
    }

    /// Whether they came in by the password that is to take the place of the present one.
    pub(crate) fn has_next_password(&self) -> bool {
        matches!(self.by, By::Password { is_next: true, .. })
    }

    /// By what they came in, for a change that looks again whether it still counts.
    pub(crate) fn asker(&self) -> Asker<'_> {
        match &self.by {
            By::Password { hash, .. } => Asker::Password(hash),
            By::Token(token) => Asker::Token { id: &token.id, kid: &token.kid },
        }
    }

    /// Whether the header `Convox-Actor` is believed: only the password's bearer may speak for others.
    pub(crate) fn may_name_actor(&self) -> bool {
        self.token().is_none()
    }
}

/// Checks credentials.
pub(crate) struct Door {
    hasher: PasswordKey,
    /// The Rack's id: audience of its tokens.
    rack: String,
    known: watch::Sender<Known>,
}

/// What opens the door now. Whatever was opened by something that is no longer in here ends.
pub(crate) struct Known {
    pub(crate) passwords: Passwords,
    pub(crate) signers: Vec<Signer>,
    /// Tokens that were revoked and would otherwise be believed.
    pub(crate) revoked: HashSet<String>,
    /// Keyed hashes of dead passwords whose streams are to end too.
    pub(crate) cut: HashSet<[u8; 32]>,
}

impl Known {
    /// Whether it lets in exactly what `other` does.
    fn is_same(&self, other: &Self) -> bool {
        let signers = |known: &Self| known.signers.iter().map(|signer| (signer.kid().to_owned(), signer.ends_at())).collect::<Vec<_>>();
        self.passwords == other.passwords && self.revoked == other.revoked && self.cut == other.cut && signers(self) == signers(other)
    }
}

impl Door {
    pub(crate) fn new(hasher: PasswordKey, rack: String, known: Known) -> Self {
        Self { hasher, rack, known: watch::Sender::new(known) }
    }

    /// Lets in what `known` says from now on; what was cut stays cut.
    pub(crate) fn replace(&self, mut known: Known) {
        self.known.send_if_modified(|now| {
            known.cut.extend(&now.cut);
            let is_other = !now.is_same(&known);
            if is_other {
                *now = known;
            }
            is_other
        });
    }

    /// Whether what the caller came in by would let them in now, too: a body may have taken its time. The error is what they are told.
    pub(crate) fn still(&self, caller: &Caller, now: i64) -> Result<(), &'static str> {
        let known = self.known.borrow();
        match &caller.by {
            By::Password { hash, .. } => {
                let is = |row: &PasswordRow| constant_time_eq(&row.hash, hash);
                let counts = is(&known.passwords.current) | known.passwords.next.as_ref().is_some_and(is);
                if counts { Ok(()) } else { Err("invalid authentication: the password was rolled meanwhile") }
            }
            By::Token(token) if known.revoked.contains(&token.id) => Err("invalid authentication: token is revoked"),
            By::Token(token) => match known.signers.iter().find(|signer| signer.kid() == token.kid) {
                None => Err("invalid authentication: token is revoked"),
                Some(signer) if now >= token.expires_at.min(signer.ends_at().unwrap_or(i64::MAX)) => {
                    Err("invalid authentication: token is expired")
                }
                Some(_) => Ok(()),
            },
        }
    }

    /// Ends when the caller's right to be here does, and says why.
    pub(crate) async fn ended(&self, caller: &Caller, now: i64) -> &'static str {
        let mut known = self.known.subscribe();
        let started = tokio::time::Instant::now();
        loop {
            let ends_at = {
                let known = known.borrow_and_update();
                match &caller.by {
                    By::Password { hash, .. } if known.cut.contains(hash) => return "the Rack's password was rolled; connect again",
                    By::Password { .. } => None,
                    By::Token(token) if known.revoked.contains(&token.id) => return "the access token was revoked",
                    By::Token(token) => match known.signers.iter().find(|signer| signer.kid() == token.kid) {
                        None => return "the access token was revoked: its signing key was rotated",
                        Some(signer) => Some(token.expires_at.min(signer.ends_at().unwrap_or(i64::MAX))),
                    },
                }
            };
            let now = now + i64::try_from(started.elapsed().as_secs()).unwrap_or(0);
            let left = ends_at.map(|end| Duration::from_secs(u64::try_from(end - now).unwrap_or(0)));
            tokio::select! {
                () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => return "the access token is expired",
                // The sender goes with the Rack.
                Ok(()) = known.changed() => {}
                else => return std::future::pending().await,
            }
        }
    }

    /// Who brings this `Authorization`? The error is what the caller is told.
    pub(crate) fn caller(&self, authorization: Option<&str>, now: i64) -> Result<Caller, String> {
        let Some(basic) = authorization.and_then(parse_basic) else { return Err("invalid authentication".to_owned()) };
        let known = self.known.borrow();
        if basic.user == "jwt" {
            // The issuer is the Rack's name, which may change; its id does not.
            let expected = Expected { audience: &self.rack, issuer: None, originals: false };
            let (claims, signer): (Claims, &Signer) = access::verify_by(&basic.password, &known.signers, now, &expected)
                .map_err(|error| format!("invalid authentication: {error}"))?;
            if known.revoked.contains(&claims.id) {
                return Err("invalid authentication: token is revoked".to_owned());
            }
            let token = Token { id: claims.id, kid: signer.kid().to_owned(), expires_at: claims.expires_at };
            return Ok(Caller { role: claims.role, name: claims.user, by: By::Token(token) });
        }
        // All are compared, whatever the first says: the time tells nothing.
        let said = self.hasher.hash(&basic.password);
        let is = |row: &PasswordRow| constant_time_eq(&row.hash, &said) | constant_time_eq(&row.encoded, &said);
        let (is_current, next) = (is(&known.passwords.current), known.passwords.next.as_ref());
        let is_next = next.is_some_and(is);
        let row = if is_current { Some(&known.passwords.current) } else { next.filter(|_| is_next) };
        let Some(row) = row else { return Err("invalid authentication".to_owned()) };
        let by = By::Password { hash: row.hash, is_next: !is_current };
        Ok(Caller { role: Role::Admin, name: "password".to_owned(), by })
    }

    /// Signs a token under `id` by the key `kid`; `None` where that signs no more.
    pub(crate) fn mint(&self, kid: &str, id: String, role: Role, issuer: &str, now: i64, expires_at: i64) -> Option<String> {
        let known = self.known.borrow();
        let claims = Claims {
            user: role.user().to_owned(),
            role,
            issued_at: now,
            expires_at,
            id,
            issuer: issuer.to_owned(),
            audience: self.rack.clone(),
        };
        known.signers.iter().find(|signer| signer.kid() == kid && signer.ends_at().is_none()).map(|signer| access::mint(&claims, signer))
    }
}

/// Whether a role allows an effect: `read` sees no secrets and opens nothing, `write` makes no credentials.
pub(crate) fn allows(role: Role, effect: Effect) -> bool {
    match role {
        Role::Read => effect == Effect::Read,
        Role::Write => effect != Effect::Admin,
        Role::Admin => true,
    }
}

#[cfg(test)]
mod tests {
    use convox_seal::RootKey;
    use convox_wire::basic::{Basic, go_encode};

    use super::*;

    fn hasher() -> PasswordKey {
        PasswordKey::derive(&RootKey::parse(RootKey::generate().expose()).unwrap())
    }

    fn row(hasher: &PasswordKey, password: &str) -> PasswordRow {
        PasswordRow { hash: hasher.hash(password), encoded: hasher.hash(&go_encode(password)), created_ms: 0, retire_ms: None }
    }

    fn known(current: PasswordRow, next: Option<PasswordRow>, signers: Vec<Signer>) -> Known {
        Known { passwords: Passwords { current, next }, signers, revoked: HashSet::new(), cut: HashSet::new() }
    }

    fn door(password: &str) -> Door {
        let hasher = hasher();
        let current = row(&hasher, password);
        Door::new(hasher, "rack-1".to_owned(), known(current, None, vec![Signer::generate()]))
    }

    impl Door {
        fn rotate(&self) {
            let passwords = self.known.borrow().passwords.clone();
            self.replace(known(passwords.current, passwords.next, vec![Signer::generate()]));
        }
    }

    fn mint(door: &Door, role: Role) -> String {
        let kid = door.known.borrow().signers[0].kid().to_owned();
        Basic::header("jwt", &door.mint(&kid, access::token_id(), role, "main", 100, 200).unwrap())
    }

    #[test]
    fn the_password_is_accepted_literally_and_as_go_encodes_it() {
        let door = door("p /@:+%w");
        assert!(door.caller(Some(&Basic::header("convox", "p /@:+%w")), 0).is_ok());
        assert!(door.caller(Some(&Basic::header("", "p /@:+%w")), 0).is_ok(), "the user does not matter");
        for wrong in [None, Some("Basic"), Some("Bearer x"), Some("Basic eDo="), Some(Basic::header("convox", "p").as_str())] {
            assert_eq!(door.caller(wrong, 0).unwrap_err(), "invalid authentication");
        }
    }

    #[tokio::test]
    async fn two_passwords_are_accepted_while_a_roll_is_under_way() {
        let hasher = hasher();
        let (old, new) = (row(&hasher, "old"), row(&hasher, "new /+"));
        let signer = || vec![Signer::generate()];
        let door = Door::new(hasher, "rack-1".to_owned(), known(old.clone(), Some(new.clone()), signer()));
        let caller = |password: &str| door.caller(Some(&Basic::header("convox", password)), 0);
        let (by_old, by_new) = (caller("old").unwrap(), caller("new /+").unwrap());
        assert!(!by_old.has_next_password() && by_new.has_next_password());
        assert!(door.still(&by_old, 0).is_ok() && door.still(&by_new, 0).is_ok());
        door.replace(known(new.clone(), None, signer()));
        // A request that was under way with the old one comes too late, too.
        assert!(door.still(&by_old, 0).is_err() && door.still(&by_new, 0).is_ok());
        assert!(caller("old").is_err() && !caller("new /+").unwrap().has_next_password());
        // What the old one opened goes on, unless it was to end.
        for caller in [&by_old, &by_new] {
            tokio::select! {
                biased;
                _ = door.ended(caller, 0) => panic!("a roll cuts nothing by itself"),
                () = std::future::ready(()) => {}
            }
        }
        door.replace(Known { cut: HashSet::from([old.hash]), ..known(new, None, signer()) });
        assert!(door.ended(&by_old, 0).await.contains("rolled"));
        tokio::select! {
            biased;
            _ = door.ended(&by_new, 0) => panic!("it came in by the new one"),
            () = std::future::ready(()) => {}
        }
    }

    #[test]
    fn a_token_carries_its_role_and_dies_with_its_key_or_by_its_id() {
        let door = door("pw");
        let header = mint(&door, Role::Read);
        let caller = door.caller(Some(&header), 150).unwrap();
        assert!(caller.role == Role::Read && !caller.may_name_actor());
        assert_eq!(door.caller(Some(&header), 200).unwrap_err(), "invalid authentication: token is expired");
        let other = mint(&door, Role::Read);
        door.known.send_modify(|known| known.revoked.extend(caller.token_id().map(str::to_owned)));
        assert_eq!(door.caller(Some(&header), 150).unwrap_err(), "invalid authentication: token is revoked");
        assert_eq!(door.still(&caller, 150), Err("invalid authentication: token is revoked"));
        let by_other = door.caller(Some(&other), 150).unwrap();
        assert_eq!((door.still(&by_other, 199), door.still(&by_other, 200).is_err()), (Ok(()), true));
        let before = door.known.borrow().signers[0].kid().to_owned();
        door.rotate();
        assert!(
            door.mint(&before, access::token_id(), Role::Read, "main", 100, 200).is_none(),
            "what was kept before a rotation is not signed after it"
        );
        assert!(door.still(&by_other, 150).is_err());
        assert!(door.caller(Some(&other), 150).is_err());
        // The password is no token and a token no password.
        assert!(door.caller(Some(&Basic::header("jwt", "pw")), 150).is_err());
        assert!(door.caller(Some(&Basic::header("convox", "x")), 150).is_err());
    }

    #[tokio::test]
    async fn what_a_token_opened_ends_with_it() {
        let door = door("pw");
        let caller = door.caller(Some(&mint(&door, Role::Write)), 150).unwrap();
        let bearer = door.caller(Some(&Basic::header("", "pw")), 150).unwrap();
        assert_eq!(door.ended(&caller, 199).await, "the access token is expired");
        tokio::select! {
            biased;
            _ = door.ended(&caller, 150) => panic!("it has 50 seconds left"),
            () = std::future::ready(()) => {}
        }
        // A rotation between the check of the credential and this wait is not missed.
        door.rotate();
        assert!(door.ended(&caller, 150).await.contains("rotated"));
        tokio::select! {
            biased;
            _ = door.ended(&bearer, 150) => panic!("a password has no end"),
            () = std::future::ready(()) => {}
        }
    }

    #[test]
    fn a_reader_sees_no_secrets_and_a_writer_makes_no_credentials() {
        let allowed = |role| Effect::ALL.into_iter().filter(|effect| allows(role, *effect)).collect::<Vec<_>>();
        assert_eq!(allowed(Role::Read), [Effect::Read]);
        assert_eq!(allowed(Role::Write), [Effect::Read, Effect::ReadSecret, Effect::Write, Effect::Shell]);
        assert_eq!(allowed(Role::Admin), Effect::ALL);
    }
}
