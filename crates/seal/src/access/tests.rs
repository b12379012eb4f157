//! Tokens are refused in more ways than they are accepted.

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

const HERE: Expected<'static> = Expected { audience: "rack-1", issuer: Some("main"), originals: false };
const ORIGINALS: Expected<'static> = Expected { originals: true, ..HERE };

#[test]
fn a_token_is_believed_by_its_rack_until_it_expires() {
    let (signer, other) = (Signer::generate(), Signer::generate());
    let claims = claims();
    let token = mint(&claims, &signer);
    let signers = [other, signer];
    for expected in [HERE, ORIGINALS, Expected { issuer: None, ..HERE }] {
        assert_eq!(verify(&token, &signers, 1999, &expected).unwrap(), claims);
        assert_eq!(verify(&token, &signers, 2000, &expected), Err(TokenError::Expired));
        assert_eq!(verify(&token, &signers, 2300, &expected), Err(TokenError::Expired), "no grace");
        assert_eq!(verify(&token, &signers, 1500, &Expected { audience: "rack-2", ..expected }), Err(TokenError::Audience));
        assert_eq!(verify(&token, &signers, 1500, &Expected { issuer: Some("other"), ..expected }), Err(TokenError::Issuer));
        assert_eq!(verify(&token, &signers[..1], 1500, &expected), Err(TokenError::Signature));
        assert_eq!(verify(&token, &signers, 999 - CLOCK_SET_BACK, &expected), Err(TokenError::NotYetValid));
        assert_eq!(verify(&token, &signers, 1000 - CLOCK_SET_BACK, &expected).unwrap(), claims);
    }
    assert_eq!(TokenError::Expired.to_string(), "token is expired", "clients look for these words");
}

#[test]
fn roles_are_the_letters_of_the_originals() {
    let letters = [Role::Read, Role::Write, Role::Admin].map(|role| (role.claim(), role.user()));
    assert_eq!(letters, [("r", "system-read"), ("rw", "system-write"), ("rwa", "system-admin")]);
    assert_eq!(
        ["read", "write", "admin", "r", "Read", ""].map(Role::from_name).map(|role| role.map(Role::claim)),
        [Some("r"), Some("rw"), Some("rwa"), None, None, None]
    );
}

#[test]
fn the_originals_find_the_claims_that_they_read() {
    let token = mint(&claims(), &Signer::generate());
    let body: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap();
    assert_eq!((&body["user"], &body["role"], &body["expiresAt"]), (&json!("system-write"), &json!("rw"), &json!(2000)));
    assert_eq!((&body["exp"], &body["aud"], &body["iss"]), (&json!(2000), &json!("rack-1"), &json!("main")));
}

#[test]
fn a_token_of_the_originals_is_believed_only_where_that_was_asked_for() {
    let (signer, other) = (Signer::generate(), Signer::generate());
    let (head, body) = (json!({"alg": "HS256", "typ": "JWT"}), json!({"user": "system-read", "role": "r", "expiresAt": 2000}));
    let token = forged(&head, &body, &signer);
    let signers = [other, signer];
    let read = verify(&token, &signers, 1999, &ORIGINALS).unwrap();
    assert_eq!((read.role, read.user.as_str(), read.expires_at, read.id.as_str()), (Role::Read, "system-read", 2000, ""));
    assert_eq!(verify(&token, &signers, 2000, &ORIGINALS), Err(TokenError::Expired));
    assert_eq!(verify(&token, &signers[..1], 1999, &ORIGINALS), Err(TokenError::Signature));
    assert_eq!(verify(&token, &signers, 1999, &HERE), Err(TokenError::Malformed));
    // Half of a token is none: ours without its key id, an original's with one, or with some of our claims.
    let [_, signer] = &signers;
    let full = json!({"user": "u", "role": "rw", "expiresAt": 2000, "exp": 2000, "iat": 1, "jti": "j", "iss": "main", "aud": "rack-1"});
    let with_kid = json!({"alg": "HS256", "typ": "JWT", "kid": signer.kid()});
    let mut half = body.clone();
    half["aud"] = json!("rack-2");
    for (head, body) in [(&head, &full), (&with_kid, &body), (&head, &half)] {
        assert_eq!(verify(&forged(head, body, signer), &signers, 1999, &ORIGINALS), Err(TokenError::Malformed), "{head} {body}");
    }
}

#[test]
fn no_trick_with_algorithms_or_claims_works() {
    let signer = Signer::generate();
    let good = json!({"user": "u", "role": "rw", "expiresAt": 2000, "exp": 2000, "iat": 1, "jti": "j", "iss": "main", "aud": "rack-1"});
    let head = |alg: &str| json!({"alg": alg, "typ": "JWT", "kid": signer.kid()});
    for expected in [HERE, ORIGINALS] {
        let check = |token: &str| verify(token, std::slice::from_ref(&signer), 1500, &expected);
        assert!(check(&forged(&head("HS256"), &good, &signer)).is_ok());
        for alg in ["none", "None", "HS384", "HS512", "RS256", "hs256", ""] {
            assert_eq!(check(&forged(&head(alg), &good, &signer)), Err(TokenError::Algorithm), "{alg}");
        }
        for claim in ["user", "role", "expiresAt", "exp", "iat", "jti", "iss", "aud"] {
            let mut body = good.clone();
            body.as_object_mut().unwrap().remove(claim);
            assert_eq!(check(&forged(&head("HS256"), &body, &signer)), Err(TokenError::Malformed), "without {claim}");
        }
        for (claim, value) in [
            ("role", json!("rwx")),
            ("role", json!("")),
            ("role", json!("wr")),
            ("exp", json!(9999)),
            ("exp", json!(null)),
            ("expiresAt", json!("2000")),
            ("expiresAt", json!(2000.5)),
            ("expiresAt", json!(1e300)),
            ("aud", json!(["rack-1", "rack-2"])),
        ] {
            let mut body = good.clone();
            body[claim] = value;
            assert_eq!(check(&forged(&head("HS256"), &body, &signer)), Err(TokenError::Malformed), "{claim}");
        }
        for kid in ["", "../../etc/passwd", "nope", "' OR 1=1 --"] {
            let head = json!({"alg": "HS256", "typ": "JWT", "kid": kid});
            assert_eq!(check(&forged(&head, &good, &signer)), Err(TokenError::Signature));
        }
        for (member, value) in [("crit", json!(["exp"])), ("jwk", json!({})), ("x5u", json!("https://evil")), ("b64", json!(false))] {
            let mut head = head("HS256");
            head[member] = value;
            assert_eq!(check(&forged(&head, &good, &signer)), Err(TokenError::Malformed), "{member}");
        }
        let token = forged(&head("HS256"), &good, &signer);
        let unsigned = token.rsplit_once('.').unwrap().0;
        assert_eq!(check(&format!("{unsigned}.")), Err(TokenError::Signature));
        assert_eq!(check(unsigned), Err(TokenError::Malformed));
        assert_eq!(check(&format!("{token}=")), Err(TokenError::Malformed), "one token has one form");
        assert_eq!(check(&"a.".repeat(LONGEST)), Err(TokenError::Malformed));
    }
}

#[test]
fn a_claim_given_twice_is_refused_whichever_would_win() {
    let signer = Signer::generate();
    let head = json!({"alg": "HS256", "typ": "JWT", "kid": signer.kid()}).to_string();
    let body = r#"{"user":"u","role":"r","role":"rwa","expiresAt":2000,"exp":2000,"iat":1,"jti":"j","iss":"main","aud":"rack-1"}"#;
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(body));
    let signature = URL_SAFE_NO_PAD.encode(signer.mac(&message).unwrap().finalize().into_bytes());
    assert_eq!(verify(&format!("{message}.{signature}"), &[signer], 1500, &HERE), Err(TokenError::Malformed));
}

#[test]
fn a_rotated_key_is_believed_until_its_window_ends_and_its_tokens_no_longer() {
    let (old, new) = (Signer::generate(), Signer::generate());
    let claims = claims();
    let token = mint(&claims, &old);
    let signers = [new, old.ending_at(Some(1600))];
    let (read, signer) = verify_by(&token, &signers, 1599, &HERE).unwrap();
    assert_eq!((read.expires_at, signer.kid()), (1600, signers[1].kid()), "the earlier end counts");
    assert_eq!(verify(&token, &signers, 1600, &HERE), Err(TokenError::Signature));
    let far = [Signer::new(signers[1].kid().to_owned(), signers[1].expose_key().to_vec()).unwrap().ending_at(Some(9000))];
    assert_eq!(verify(&token, &far, 1999, &HERE).unwrap().expires_at, 2000, "a window makes no token live longer");
    assert_eq!(verify(&token, &far, 2000, &HERE), Err(TokenError::Expired));
}

#[test]
fn a_short_key_is_no_key() {
    assert!(Signer::new("k".to_owned(), vec![0; 31]).is_none());
}

proptest! {
    #[test]
    fn no_text_panics(text in ".*", expected in prop::sample::select(vec![HERE, ORIGINALS])) {
        let signer = [Signer::generate()];
        prop_assert!(verify(&text, &signer, 0, &expected).is_err());
        let three = format!("{text}.{text}.{text}");
        prop_assert!(verify(&three, &signer, 0, &expected).is_err());
    }

    /// Whatever was signed as a token, however odd, is an answer and no panic; and what is no JSON of ours is no token.
    #[test]
    fn nothing_that_was_signed_panics(head in ".*", body in ".*", now in any::<i64>()) {
        let signer = Signer::generate();
        let head = if head.len() % 2 == 0 { json!({"alg": "HS256", "typ": "JWT"}).to_string() } else { head };
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(body));
        let signature = URL_SAFE_NO_PAD.encode(signer.mac(&message).unwrap().finalize().into_bytes());
        let token = format!("{message}.{signature}");
        prop_assert!(verify(&token, &[signer], now, &ORIGINALS).is_err());
    }

    #[test]
    fn any_changed_character_is_noticed(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.-]") {
        let signer = [Signer::generate()];
        let token = mint(&claims(), &signer[0]);
        let at = at.index(token.len());
        prop_assume!(token[at..=at] != to);
        let changed = format!("{}{to}{}", &token[..at], &token[at + 1..]);
        prop_assert!(verify(&changed, &signer, 1500, &ORIGINALS).is_err());
    }

    #[test]
    fn what_was_minted_is_what_is_read(user in ".*", issuer in ".*", audience in ".*", issued_at in 0i64..1 << 40, life in 1i64..1 << 40) {
        let signer = [Signer::generate()];
        let claims = Claims { user, issuer, audience, issued_at, expires_at: issued_at + life, ..claims() };
        let expected = Expected { audience: &claims.audience, issuer: Some(&claims.issuer), originals: false };
        prop_assert_eq!(verify(&mint(&claims, &signer[0]), &signer, issued_at, &expected).unwrap(), claims);
    }
}
