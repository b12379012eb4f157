//! The tokens that a Rack signs: HS256 JWTs with the claims of the originals (protocol 3.7) and the standard ones beside them.
//!
//! One algorithm, fixed: a token's header is checked, never obeyed. Why no JWT crate: `docs/adr/0005-own-hs256.md`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::random::random_bytes;

/// Longer tokens are refused unread.
const LONGEST: usize = 8 * 1024;

/// How far a clock may have been set back since a token was signed, seconds. The end of a token knows no such grace.
const CLOCK_SET_BACK: i64 = 60;

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

    /// `read`, `write`, `admin`
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// Reads `read`, `write`, `admin`, as a caller asks for it.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Read, Self::Write, Self::Admin].into_iter().find(|role| role.name() == name)
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
    /// Signed in the future.
    #[error("token is not valid yet")]
    NotYetValid,
    /// Made for another Rack.
    #[error("token is for another rack")]
    Audience,
    /// Made by another issuer.
    #[error("token is from another issuer")]
    Issuer,
}

/// What a token must say to be believed, beside its signature and its time.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// For whom: the Rack's id.
    pub audience: &'a str,
    /// Who signed; `None` where whoever holds the key may call itself as it likes.
    pub issuer: Option<&'a str>,
    /// Whether tokens in the form of the originals are believed too: only `user`, `role` and `expiresAt`, no key id. They name neither Rack
    /// nor token, so they are good for every Rack with the same key, and cannot be revoked alone.
    pub originals: bool,
}

/// What a token says. In one of the originals' form, `issued_at` is 0, and `id`, `issuer` and `audience` are empty.
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

/// Any other member (`crit`, `jwk`, `x5c`, ...) asks the reader for something, and is refused.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
}

/// The first three are all that the originals have; ours have all.
#[derive(Serialize, Deserialize)]
struct Body {
    user: String,
    role: String,
    #[serde(rename = "expiresAt")]
    expires_at: i64,
    exp: Option<i64>,
    iat: Option<i64>,
    jti: Option<String>,
    iss: Option<String>,
    aud: Option<String>,
}

/// A signing key with its name.
pub struct Signer {
    kid: String,
    key: Zeroizing<Vec<u8>>,
    /// Unix seconds from which on nothing that it signed is believed.
    ends_at: Option<i64>,
}

impl Signer {
    /// From the store. `key` has at least 32 bytes; `None` for less.
    pub fn new(kid: String, key: Vec<u8>) -> Option<Self> {
        (key.len() >= 32).then(|| Self { kid, key: Zeroizing::new(key), ends_at: None })
    }

    /// A new one with a random name.
    pub fn generate() -> Self {
        let kid = URL_SAFE_NO_PAD.encode(random_bytes::<6>());
        Self { kid, key: Zeroizing::new(random_bytes::<32>().to_vec()), ends_at: None }
    }

    /// The same, believed until `ends_at` (Unix seconds) only: a key that was rotated, in its last hours.
    #[must_use]
    pub fn ending_at(self, ends_at: Option<i64>) -> Self {
        Self { ends_at, ..self }
    }

    /// Its name.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// When it is not believed any more, Unix seconds; `None` for one that has no end yet.
    pub fn ends_at(&self) -> Option<i64> {
        self.ends_at
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
    let header = Header { alg: "HS256".to_owned(), typ: "JWT".to_owned(), kid: Some(signer.kid.clone()) };
    let body = Body {
        user: claims.user.clone(),
        role: claims.role.claim().to_owned(),
        expires_at: claims.expires_at,
        exp: Some(claims.expires_at),
        iat: Some(claims.issued_at),
        jti: Some(claims.id.clone()),
        iss: Some(claims.issuer.clone()),
        aud: Some(claims.audience.clone()),
    };
    let part = |json: serde_json::Result<Vec<u8>>| URL_SAFE_NO_PAD.encode(json.unwrap_or_default());
    let message = format!("{}.{}", part(serde_json::to_vec(&header)), part(serde_json::to_vec(&body)));
    let signature = signer.mac(&message).map(|mac| URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())).unwrap_or_default();
    format!("{message}.{signature}")
}

/// Checks a token against the accepted signers. `now` is Unix seconds. A token ends with the key that signed it, if that is earlier: its
/// `expires_at` says so.
///
/// # Errors
/// [`TokenError`]; the signature is checked before anything that the token says is believed.
pub fn verify(token: &str, signers: &[Signer], now: i64, expected: &Expected<'_>) -> Result<Claims, TokenError> {
    verify_by(token, signers, now, expected).map(|(claims, _)| claims)
}

/// As [`verify`], with the signer whose key it was.
///
/// # Errors
/// [`TokenError`].
pub fn verify_by<'s>(token: &str, signers: &'s [Signer], now: i64, expected: &Expected<'_>) -> Result<(Claims, &'s Signer), TokenError> {
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
    if header.typ != "JWT" || (header.kid.is_none() && !expected.originals) {
        return Err(TokenError::Malformed);
    }
    let signature = decode(signature)?;
    // Without a key id any signer may have signed. A key id only chooses among them: it is never a path or a query.
    let named = |signer: &&Signer| header.kid.as_ref().is_none_or(|kid| *kid == signer.kid);
    let signed = |signer: &Signer| signer.mac(message).is_some_and(|mac| mac.verify_slice(&signature).is_ok());
    let live = |signer: &&Signer| signer.ends_at.is_none_or(|end| end > now);
    let signer = signers.iter().filter(live).filter(named).find(|signer| signed(signer)).ok_or(TokenError::Signature)?;
    let body: Body = serde_json::from_slice(&decode(body)?).map_err(|_| TokenError::Malformed)?;
    let mut claims = claims(header.kid.is_none(), body).ok_or(TokenError::Malformed)?;
    claims.expires_at = claims.expires_at.min(signer.ends_at.unwrap_or(i64::MAX));
    if claims.expires_at <= now {
        return Err(TokenError::Expired);
    }
    if header.kid.is_none() {
        return Ok((claims, signer));
    }
    if claims.issued_at > now.saturating_add(CLOCK_SET_BACK) {
        return Err(TokenError::NotYetValid);
    }
    if claims.audience != expected.audience {
        return Err(TokenError::Audience);
    }
    if expected.issuer.is_some_and(|issuer| claims.issuer != issuer) {
        return Err(TokenError::Issuer);
    }
    Ok((claims, signer))
}

/// All standard claims, or, in the form of the originals, none. A token that lost one is neither.
fn claims(original: bool, body: Body) -> Option<Claims> {
    let role = Role::from_claim(&body.role)?;
    let (user, expires_at) = (body.user, body.expires_at);
    match (body.exp, body.iat, body.jti, body.iss, body.aud) {
        (Some(exp), Some(issued_at), Some(id), Some(issuer), Some(audience)) if !original && exp == expires_at => {
            Some(Claims { user, role, issued_at, expires_at, id, issuer, audience })
        }
        (None, None, None, None, None) if original => {
            Some(Claims { user, role, issued_at: 0, expires_at, id: String::new(), issuer: String::new(), audience: String::new() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
