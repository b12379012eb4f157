//! Who may come in: the bearer of the Rack's password, or of a token that the Rack signed. Decided before anything else is done, a
//! WebSocket's upgrade included.

use std::time::Duration;

use convox_seal::Secret;
use convox_seal::access::{self, Claims, Expected, Role, Signer};
use convox_wire::basic::{go_encode, parse_basic};
use convox_wire::routes::Effect;
use tokio::sync::watch;

/// What a caller may do, and who they are for the log.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Password bearers are administrators.
    pub(crate) role: Role,
    /// `password` or the token's user.
    pub(crate) name: String,
    /// By what they came in; `None` for the password's bearer.
    token: Option<Token>,
}

#[derive(Clone, Copy, Debug)]
struct Token {
    /// Unix seconds.
    expires_at: i64,
    /// Of the keys that it was checked against.
    generation: u64,
}

impl Caller {
    /// When their token ends, Unix seconds.
    pub(crate) fn expires_at(&self) -> Option<i64> {
        self.token.map(|token| token.expires_at)
    }

    /// Whether the header `Convox-Actor` is believed: only the password's bearer may speak for others.
    pub(crate) fn may_name_actor(&self) -> bool {
        self.token.is_none()
    }
}

/// Checks credentials.
pub(crate) struct Door {
    password: Secret,
    encoded: Secret,
    /// The Rack's id: audience of its tokens.
    rack: String,
    keys: watch::Sender<Keys>,
}

/// The signing keys of now. A rotation makes the next generation, and whatever was opened by an older one ends.
struct Keys {
    generation: u64,
    signers: Vec<Signer>,
}

impl Door {
    pub(crate) fn new(password: Secret, rack: String, signers: Vec<Signer>) -> Self {
        let encoded = Secret::new(go_encode(password.expose()));
        Self { password, encoded, rack, keys: watch::Sender::new(Keys { generation: 0, signers }) }
    }

    /// Takes other signing keys.
    pub(crate) fn replace_signers(&self, signers: Vec<Signer>) {
        self.keys.send_modify(|keys| *keys = Keys { generation: keys.generation + 1, signers });
    }

    /// Ends when the caller's right to be here does, and says why; never for the password's bearer.
    pub(crate) async fn ended(&self, caller: &Caller, now: i64) -> &'static str {
        let Some(token) = caller.token else { return std::future::pending().await };
        let left = Duration::from_secs(u64::try_from(token.expires_at - now).unwrap_or(0));
        let mut keys = self.keys.subscribe();
        tokio::select! {
            () = tokio::time::sleep(left) => "the access token is expired",
            _ = keys.wait_for(|keys| keys.generation != token.generation) => "the access token was revoked: its signing key was rotated",
        }
    }

    /// Who brings this `Authorization`? The error is what the caller is told.
    pub(crate) fn caller(&self, authorization: Option<&str>, now: i64) -> Result<Caller, String> {
        let Some(basic) = authorization.and_then(parse_basic) else { return Err("invalid authentication".to_owned()) };
        if basic.user == "jwt" {
            let keys = self.keys.borrow();
            // The issuer is the Rack's name, which may change; its id does not.
            let expected = Expected { audience: &self.rack, issuer: None, originals: false };
            let claims: Claims = access::verify(&basic.password, &keys.signers, now, &expected)
                .map_err(|error| format!("invalid authentication: {error}"))?;
            let token = Token { expires_at: claims.expires_at, generation: keys.generation };
            return Ok(Caller { role: claims.role, name: claims.user, token: Some(token) });
        }
        // Both are compared, whatever the first says: the time tells nothing.
        let literal = self.password.matches(&basic.password);
        let encoded = self.encoded.matches(&basic.password);
        if literal | encoded {
            return Ok(Caller { role: Role::Admin, name: "password".to_owned(), token: None });
        }
        Err("invalid authentication".to_owned())
    }

    /// Signs a token.
    pub(crate) fn mint(&self, role: Role, issuer: &str, now: i64, expires_at: i64) -> Option<String> {
        let keys = self.keys.borrow();
        let claims = Claims {
            user: role.user().to_owned(),
            role,
            issued_at: now,
            expires_at,
            id: access::token_id(),
            issuer: issuer.to_owned(),
            audience: self.rack.clone(),
        };
        keys.signers.first().map(|signer| access::mint(&claims, signer))
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
    use super::*;
    use convox_wire::basic::Basic;

    fn door(password: &str) -> Door {
        Door::new(Secret::new(password.to_owned()), "rack-1".to_owned(), vec![Signer::generate()])
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

    #[test]
    fn a_token_carries_its_role_and_dies_with_its_key() {
        let door = door("pw");
        let token = door.mint(Role::Read, "main", 100, 200).unwrap();
        let header = Basic::header("jwt", &token);
        let caller = door.caller(Some(&header), 150).unwrap();
        assert!(caller.role == Role::Read && !caller.may_name_actor());
        assert_eq!(door.caller(Some(&header), 200).unwrap_err(), "invalid authentication: token is expired");
        door.replace_signers(vec![Signer::generate()]);
        assert!(door.caller(Some(&header), 150).is_err());
        // The password is no token and a token no password.
        assert!(door.caller(Some(&Basic::header("jwt", "pw")), 150).is_err());
        assert!(door.caller(Some(&Basic::header("convox", &token)), 150).is_err());
    }

    #[tokio::test]
    async fn what_a_token_opened_ends_with_it() {
        let door = door("pw");
        let header = Basic::header("jwt", &door.mint(Role::Write, "main", 100, 200).unwrap());
        let caller = door.caller(Some(&header), 150).unwrap();
        let bearer = door.caller(Some(&Basic::header("", "pw")), 150).unwrap();
        assert_eq!(door.ended(&caller, 199).await, "the access token is expired");
        tokio::select! {
            biased;
            _ = door.ended(&caller, 150) => panic!("it has 50 seconds left"),
            () = std::future::ready(()) => {}
        }
        // A rotation between the check of the credential and this wait is not missed.
        door.replace_signers(vec![Signer::generate()]);
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
