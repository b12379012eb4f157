//! Who may come in: the bearer of the Rack's password, or of a token that the Rack signed. Decided before anything else is done, a
//! WebSocket's upgrade included.

use std::sync::RwLock;

use convox_seal::Secret;
use convox_seal::access::{self, Claims, Expected, Role, Signer};
use convox_wire::basic::{go_encode, parse_basic};
use convox_wire::routes::Effect;

/// What a caller may do, and who they are for the log.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Password bearers are administrators.
    pub(crate) role: Role,
    /// `password` or the token's user.
    pub(crate) name: String,
    /// When their token ends, Unix seconds.
    pub(crate) expires_at: Option<i64>,
    /// Whether the header `Convox-Actor` is believed: only the password's bearer may speak for others.
    pub(crate) may_name_actor: bool,
}

/// Checks credentials.
pub(crate) struct Door {
    password: Secret,
    encoded: Secret,
    /// The Rack's id: audience of its tokens.
    rack: String,
    signers: RwLock<Vec<Signer>>,
}

impl Door {
    pub(crate) fn new(password: Secret, rack: String, signers: Vec<Signer>) -> Self {
        let encoded = Secret::new(go_encode(password.expose()));
        Self { password, encoded, rack, signers: RwLock::new(signers) }
    }

    /// Takes other signing keys.
    pub(crate) fn replace_signers(&self, signers: Vec<Signer>) {
        *self.signers.write().unwrap_or_else(std::sync::PoisonError::into_inner) = signers;
    }

    /// Who brings this `Authorization`? The error is what the caller is told.
    pub(crate) fn caller(&self, authorization: Option<&str>, now: i64) -> Result<Caller, String> {
        let Some(basic) = authorization.and_then(parse_basic) else { return Err("invalid authentication".to_owned()) };
        if basic.user == "jwt" {
            let signers = self.signers.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            // The issuer is the Rack's name, which may change; its id does not.
            let expected = Expected { audience: &self.rack, issuer: None, originals: false };
            let claims: Claims =
                access::verify(&basic.password, &signers, now, &expected).map_err(|error| format!("invalid authentication: {error}"))?;
            return Ok(Caller { role: claims.role, name: claims.user, expires_at: Some(claims.expires_at), may_name_actor: false });
        }
        // Both are compared, whatever the first says: the time tells nothing.
        let literal = self.password.matches(&basic.password);
        let encoded = self.encoded.matches(&basic.password);
        if literal | encoded {
            return Ok(Caller { role: Role::Admin, name: "password".to_owned(), expires_at: None, may_name_actor: true });
        }
        Err("invalid authentication".to_owned())
    }

    /// Signs a token.
    pub(crate) fn mint(&self, role: Role, issuer: &str, now: i64, expires_at: i64) -> Option<String> {
        let signers = self.signers.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let claims = Claims {
            user: role.user().to_owned(),
            role,
            issued_at: now,
            expires_at,
            id: access::token_id(),
            issuer: issuer.to_owned(),
            audience: self.rack.clone(),
        };
        signers.first().map(|signer| access::mint(&claims, signer))
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
        assert!(caller.role == Role::Read && !caller.may_name_actor);
        assert_eq!(door.caller(Some(&header), 200).unwrap_err(), "invalid authentication: token is expired");
        door.replace_signers(vec![Signer::generate()]);
        assert!(door.caller(Some(&header), 150).is_err());
        // The password is no token and a token no password.
        assert!(door.caller(Some(&Basic::header("jwt", "pw")), 150).is_err());
        assert!(door.caller(Some(&Basic::header("convox", &token)), 150).is_err());
    }

    #[test]
    fn a_reader_sees_no_secrets_and_a_writer_makes_no_credentials() {
        let allowed = |role| Effect::ALL.into_iter().filter(|effect| allows(role, *effect)).collect::<Vec<_>>();
        assert_eq!(allowed(Role::Read), [Effect::Read]);
        assert_eq!(allowed(Role::Write), [Effect::Read, Effect::ReadSecret, Effect::Write, Effect::Shell]);
        assert_eq!(allowed(Role::Admin), Effect::ALL);
    }
}
