//! The tokens that a Rack signs: HS256 JWTs with the claims of the originals (protocol 3.7) and the standard ones beside them.
//!
//! One algorithm, fixed: a token's header is checked, never obeyed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::random::random_bytes;

/// Longer tokens are refused unread.
const LONGEST: usize = 8 * 1024;

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Claim `r`.
    Read,
    /// Claim `rw`.
    Write,
    /// Claim `rwa`.
    Admin,
}

impl Role {
    /// `r`, `rw`, `rwa`
    pub fn claim(self) -> &'static str {
        match self {
            Self::Read => "r",
            Self::Write => "rw",
            Self::Admin => "rwa",
        }
    }

    /// `system-read`, `system-write`, `system-admin`: the user claim of the originals.
    pub fn user(self) -> &'static str {
        match self {
            Self::Read => "system-read",
            Self::Write => "system-write",
            Self::Admin => "system-admin",
        }
    }

    /// Reads `read`, `write`, `admin`, as a caller asks for it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "read" => Some(Self::Read),
            "write" => Some(Self::Write),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }

    fn from_claim(claim: &str) -> Option<Self> {
        [Self::Read, Self::Write, Self::Admin].into_iter().find(|role| role.claim() == claim)
    }
}

/// Why a token is not accepted. `Display` is what the originals say where they say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT of ours.
    #[error("token is malformed")]
    Malformed,
    /// Another algorithm than HS256.
    #[error("token has an unexpected signing method")]
    Algorithm,
    /// Signed with a key that is not accepted (any more).
    #[error("signature is invalid")]
    Signature,
    /// Its time is over.
    #[error("token is expired")]
    Expired,
    /// Made for another Rack.
    #[error("token is for another rack")]
    Audience,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `system-read` and so on.
    pub user: String,
    /// What it may do.
    pub role: Role,
    /// Unix seconds.
    pub issued_at: i64,
    /// Unix seconds.
    pub expires_at: i64,
    /// Names the token, so that it can be revoked alone.
    pub id: String,
    /// Who signed: the Rack's name.
    pub issuer: String,
    /// For whom: the Rack's id.
    pub audience: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    typ: String,
    #[serde(default)]
    kid: String,
}

#[derive(Serialize, Deserialize)]
struct Body {
    user: String,
    role: String,
    #[serde(rename = "expiresAt")]
    expires_at: i64,
    exp: i64,
    iat: i64,
    jti: String,
    iss: String,
    aud: String,
}

/// A signing key with its name.
pub struct Signer {
    kid: String,
    key: Zeroizing<Vec<u8>>,
}

impl Signer {
    /// From the store. `key` has at least 32 bytes; `None` for less.
    pub fn new(kid: String, key: Vec<u8>) -> Option<Self> {
        (key.len() >= 32).then(|| Self { kid, key: Zeroizing::new(key) })
    }

    /// A new one with a random name.
    pub fn generate() -> Self {
        let kid = URL_SAFE_NO_PAD.encode(random_bytes::<6>());
        Self { kid, key: Zeroizing::new(random_bytes::<32>().to_vec()) }
    }

    /// Its name.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key itself, for the store.
    pub fn expose_key(&self) -> &[u8] {
        &self.key
    }

    fn mac(&self, message: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(message.as_bytes());
        Some(mac)
    }
}

/// A random token id.
pub fn token_id() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes::<12>())
}

/// Signs a token.
pub fn mint(claims: &Claims, signer: &Signer) -> String {
    let header = Header { alg: "HS256".to_owned(), typ: "JWT".to_owned(), kid: signer.kid.clone() };
    let body = Body {
        user: claims.user.clone(),
        role: claims.role.claim().to_owned(),
        expires_at: claims.expires_at,
        exp: claims.expires_at,
        iat: claims.issued_at,
        jti: claims.id.clone(),
        iss: claims.issuer.clone(),
        aud: claims.audience.clone(),
    };
    let part = |json: serde_json::Result<Vec<u8>>| URL_SAFE_NO_PAD.encode(json.unwrap_or_default());
    let message = format!("{}.{}", part(serde_json::to_vec(&header)), part(serde_json::to_vec(&body)));
    let signature = signer.mac(&message).map(|mac| URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())).unwrap_or_default();
    format!("{message}.{signature}")
}

/// Checks a token against the accepted signers. `now` is Unix seconds.
///
/// # Errors
/// [`TokenError`]; the signature is checked before anything that the token says is believed.
pub fn verify(token: &str, signers: &[Signer], now: i64, audience: &str) -> Result<Claims, TokenError> {
    if token.len() > LONGEST {
        return Err(TokenError::Malformed);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, body) = message.split_once('.').ok_or(TokenError::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
    if header.alg != "HS256" {
        return Err(TokenError::Algorithm);
    }
    let signature = decode(signature)?;
    let signer = signers.iter().find(|signer| signer.kid == header.kid).ok_or(TokenError::Signature)?;
    signer.mac(message).ok_or(TokenError::Signature)?.verify_slice(&signature).map_err(|_| TokenError::Signature)?;
    let body: Body = serde_json::from_slice(&decode(body)?).map_err(|_| TokenError::Malformed)?;
    let role = Role::from_claim(&body.role).ok_or(TokenError::Malformed)?;
    if body.expires_at != body.exp {
        return Err(TokenError::Malformed);
    }
    if body.exp <= now {
        return Err(TokenError::Expired);
    }
    if body.aud != audience {
        return Err(TokenError::Audience);
    }
    Ok(Claims { user: body.user, role, issued_at: body.iat, expires_at: body.exp, id: body.jti, issuer: body.iss, audience: body.aud })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn claims() -> Claims {
        Claims {
            user: Role::Write.user().to_owned(),
            role: Role::Write,
            issued_at: 1000,
            expires_at: 2000,
            id: token_id(),
            issuer: "main".to_owned(),
            audience: "rack-1".to_owned(),
        }
    }

    /// A token with any header and body, properly signed.
    fn forged(header: &Value, body: &Value, signer: &Signer) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(body.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(signer.mac(&message).unwrap().finalize().into_bytes());
        format!("{message}.{signature}")
    }

    #[test]
    fn a_token_is_believed_by_its_rack_until_it_expires() {
        let (signer, other) = (Signer::generate(), Signer::generate());
        let claims = claims();
        let token = mint(&claims, &signer);
        let signers = [other, signer];
        assert_eq!(verify(&token, &signers, 1999, "rack-1").unwrap(), claims);
        assert_eq!(verify(&token, &signers, 2000, "rack-1"), Err(TokenError::Expired));
        assert_eq!(verify(&token, &signers, 1500, "rack-2"), Err(TokenError::Audience));
        assert_eq!(verify(&token, &signers[..1], 1500, "rack-1"), Err(TokenError::Signature));
    }

    #[test]
    fn the_originals_find_the_claims_that_they_read() {
        let token = mint(&claims(), &Signer::generate());
        let body: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap();
        assert_eq!((&body["user"], &body["role"], &body["expiresAt"]), (&json!("system-write"), &json!("rw"), &json!(2000)));
        assert_eq!((&body["exp"], &body["aud"], &body["iss"]), (&json!(2000), &json!("rack-1"), &json!("main")));
    }

    #[test]
    fn no_trick_with_algorithms_or_claims_works() {
        let signer = Signer::generate();
        let good = json!({"user": "u", "role": "rw", "expiresAt": 2000, "exp": 2000, "iat": 1, "jti": "j", "iss": "i", "aud": "rack-1"});
        let head = |alg: &str| json!({"alg": alg, "typ": "JWT", "kid": signer.kid()});
        let check = |token: &str| verify(token, std::slice::from_ref(&signer), 1500, "rack-1");
        assert!(check(&forged(&head("HS256"), &good, &signer)).is_ok());
        for alg in ["none", "None", "HS384", "HS512", "RS256", "hs256", ""] {
            assert_eq!(check(&forged(&head(alg), &good, &signer)), Err(TokenError::Algorithm), "{alg}");
        }
        for claim in ["user", "role", "expiresAt", "exp", "iat", "jti", "iss", "aud"] {
            let mut body = good.clone();
            body.as_object_mut().unwrap().remove(claim);
            assert_eq!(check(&forged(&head("HS256"), &body, &signer)), Err(TokenError::Malformed), "without {claim}");
        }
        for (claim, value) in [("role", json!("rwx")), ("role", json!("")), ("exp", json!(9999)), ("expiresAt", json!("2000"))] {
            let mut body = good.clone();
            body[claim] = value;
            assert_eq!(check(&forged(&head("HS256"), &body, &signer)), Err(TokenError::Malformed), "{claim}");
        }
        for kid in ["", "../../etc/passwd", "nope"] {
            let head = json!({"alg": "HS256", "typ": "JWT", "kid": kid});
            assert_eq!(check(&forged(&head, &good, &signer)), Err(TokenError::Signature));
        }
        let token = forged(&head("HS256"), &good, &signer);
        let unsigned = token.rsplit_once('.').unwrap().0;
        assert_eq!(check(&format!("{unsigned}.")), Err(TokenError::Signature));
        assert_eq!(check(unsigned), Err(TokenError::Malformed));
    }

    #[test]
    fn a_short_key_is_no_key() {
        assert!(Signer::new("k".to_owned(), vec![0; 31]).is_none());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let signer = [Signer::generate()];
            prop_assert!(verify(&text, &signer, 0, "").is_err());
            let three = format!("{text}.{text}.{text}");
            prop_assert!(verify(&three, &signer, 0, "").is_err());
        }
    }
}
