//! Passkeys and security keys: the one place that speaks WebAuthn. Takes and gives JSON; keeps nothing.
//!
//! A *passkey* verifies its owner (a fingerprint, a PIN), so that it stands for a password and a second factor at once. A *security key*
//! only notices that somebody touched it: it is a second factor, and the only kind that the original command lines can ask, since they speak
//! U2F to it. Why so, and why this library: ADR 0021.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use convox_model::UserId;
use convox_store::factors::Factor;
use convox_store::passkeys::PasskeyRow;
use serde_json::Value;
use webauthn_rs::prelude::{
    AuthenticationResult, Credential, DiscoverableAuthentication, DiscoverableKey, Passkey, PasskeyRegistration, PublicKeyCredential,
    RegisterPublicKeyCredential, SecurityKey, SecurityKeyAuthentication, SecurityKeyRegistration, Url, Uuid, Webauthn, WebauthnBuilder,
    WebauthnError,
};

/// How authenticators call this Console.
const NAME: &str = "Convox Console";

/// Passkeys of one Console; none where it has no name of its own.
#[derive(Clone)]
pub(crate) struct Passkeys(Option<Arc<Webauthn>>);

/// A ceremony that begins.
pub(crate) struct Started {
    /// Names it: its random challenge, in base64 for URLs.
    pub(crate) id: String,
    /// For `navigator.credentials`.
    pub(crate) options: Value,
    /// To judge the answer by.
    pub(crate) state: Vec<u8>,
}

/// An authenticator that was just added.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) credential_id: Vec<u8>,
    pub(crate) credential: String,
}

/// A right answer.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Which of those that were asked; its row.
    pub(crate) row: PasskeyRow,
    /// The row's credential from now on, with its new counter.
    pub(crate) credential: String,
}

/// Why an answer counts for nothing. `Display` is for whoever gave it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasskeyFault {
    #[error("this Console has no name of its own, so it has no passkeys; whoever runs it starts it with --url https://NAME")]
    NoName,
    #[error("the answer of the passkey cannot be read; try again")]
    Malformed,
    #[error("that passkey is not one of this account; use one that was added to it")]
    Unknown,
    #[error("the passkey has not verified who you are; set a PIN or a fingerprint for it, or use another one")]
    NotVerified,
    #[error("the passkey may have been copied: its counter went back; remove it from your account, and add another one")]
    Copied,
    #[error("the passkey did not answer as it should; try again")]
    Wrong,
}

impl From<WebauthnError> for PasskeyFault {
    fn from(error: WebauthnError) -> Self {
        tracing::debug!(%error, "an answer of a passkey was refused");
        match error {
            WebauthnError::CredentialNotFound => Self::Unknown,
            WebauthnError::UserNotVerified => Self::NotVerified,
            WebauthnError::CredentialPossibleCompromise => Self::Copied,
            _ => Self::Wrong,
        }
    }
}

impl Passkeys {
    /// For the Console at `url`. An address is no name: browsers have no passkeys for it.
    pub(crate) fn at(url: Option<&str>) -> Self {
        Self(url.and_then(build).map(Arc::new))
    }

    /// Whether there can be any.
    pub(crate) fn are_there(&self) -> bool {
        self.0.is_some()
    }

    fn webauthn(&self) -> Result<&Webauthn, PasskeyFault> {
        self.0.as_deref().ok_or(PasskeyFault::NoName)
    }

    /// Begins to add one beside those that are there.
    pub(crate) fn start_adding(&self, kind: Factor, user: &UserId, email: &str, there: &[PasskeyRow]) -> Result<Started, PasskeyFault> {
        let webauthn = self.webauthn()?;
        let user = Uuid::parse_str(user.as_str()).map_err(|_| PasskeyFault::Wrong)?;
        let there = Some(there.iter().map(|row| row.credential_id.clone()).collect());
        if kind == Factor::SecurityKey {
            let (options, state) = webauthn.start_securitykey_registration(user, email, email, there, None, None)?;
            return started(&options, &state);
        }
        let (options, state) = webauthn.start_passkey_registration(user, email, email, there)?;
        let mut started = started(&options, &state)?;
        // Where it can, it keeps by itself whose it is, so that nobody has to say so first.
        if let Some(choice) = started.options.pointer_mut("/publicKey/authenticatorSelection").and_then(Value::as_object_mut) {
            choice.insert("residentKey".to_owned(), "preferred".into());
        }
        Ok(started)
    }

    /// Judges what an authenticator that is to be added says.
    pub(crate) fn finish_adding(&self, kind: Factor, state: &[u8], answer: &str) -> Result<Added, PasskeyFault> {
        let webauthn = self.webauthn()?;
        let answer: RegisterPublicKeyCredential = read(answer)?;
        let credential: Credential = if kind == Factor::SecurityKey {
            webauthn.finish_securitykey_registration(&answer, &kept::<SecurityKeyRegistration>(state)?)?.into()
        } else {
            webauthn.finish_passkey_registration(&answer, &kept::<PasskeyRegistration>(state)?)?.into()
        };
        Ok(Added { credential_id: credential.cred_id.clone(), credential: text(&credential)? })
    }

    /// Asks for one of `rows` as a second factor.
    pub(crate) fn start_proof(&self, rows: &[PasskeyRow]) -> Result<Started, PasskeyFault> {
        // Both kinds answer the same question here; what each has promised when it was added still holds.
        let keys: Vec<SecurityKey> = rows.iter().map(|row| Ok(credential(row)?.into())).collect::<Result<_, PasskeyFault>>()?;
        let (options, state) = self.webauthn()?.start_securitykey_authentication(&keys)?;
        let mut started = started(&options, &state)?;
        if let Some(options) = started.options.pointer_mut("/publicKey").and_then(Value::as_object_mut) {
            // The library hints at security keys alone. A passkey has promised to verify its owner, and has to be asked for it.
            options.remove("hints");
            if rows.iter().any(|row| row.kind == Factor::Passkey) {
                options.insert("userVerification".to_owned(), "preferred".into());
            }
        }
        Ok(started)
    }

    /// Judges the answer. `rows` are those of the account as they are now.
    pub(crate) fn finish_proof(&self, state: &[u8], answer: &str, rows: &[PasskeyRow]) -> Result<Answered, PasskeyFault> {
        let answer: PublicKeyCredential = read(answer)?;
        let result = self.webauthn()?.finish_securitykey_authentication(&answer, &kept::<SecurityKeyAuthentication>(state)?)?;
        answered(&result, rows)
    }

    /// Asks for a passkey of anybody.
    pub(crate) fn start_sign_in(&self) -> Result<Started, PasskeyFault> {
        let (options, state) = self.webauthn()?.start_discoverable_authentication()?;
        let mut started = started(&options, &state)?;
        // It is asked for by a button, not beside a field.
        if let Some(options) = started.options.as_object_mut() {
            options.remove("mediation");
        }
        Ok(started)
    }

    /// Who the answer says that they are; to be judged by [`Self::finish_sign_in`].
    pub(crate) fn identify(&self, answer: &str) -> Result<UserId, PasskeyFault> {
        let answer: PublicKeyCredential = read(answer)?;
        let (user, _) = self.webauthn()?.identify_discoverable_authentication(&answer).map_err(|_| PasskeyFault::Unknown)?;
        Ok(UserId::from_text(user.to_string()))
    }

    /// Judges the answer of somebody who has `rows`.
    pub(crate) fn finish_sign_in(&self, state: &[u8], answer: &str, rows: &[PasskeyRow]) -> Result<Answered, PasskeyFault> {
        let answer: PublicKeyCredential = read(answer)?;
        let row = rows
            .iter()
            .find(|row| row.kind == Factor::Passkey && row.credential_id == answer.get_credential_id())
            .ok_or(PasskeyFault::Unknown)?;
        let key = DiscoverableKey::from(Passkey::from(credential(row)?));
        let result = self.webauthn()?.finish_discoverable_authentication_v2(&answer, kept::<DiscoverableAuthentication>(state)?, &key)?;
        answered(&result, rows)
    }

    /// A challenge in the form that the original command lines read: its bytes in padded base64.
    pub(crate) fn for_command_line(started: &Started) -> Value {
        let mut options = started.options.clone();
        let standard = |value: &mut Value| {
            if let Some(bytes) = value.as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()) {
                *value = STANDARD.encode(bytes).into();
            }
        };
        if let Some(options) = options.pointer_mut("/publicKey").and_then(Value::as_object_mut) {
            options.remove("extensions");
            options.entry("challenge").and_modify(standard);
            for one in options.get_mut("allowCredentials").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(one) = one.as_object_mut() {
                    one.entry("id").and_modify(standard);
                }
            }
        }
        options
    }
}

fn build(url: &str) -> Option<Webauthn> {
    let url = Url::parse(url).ok()?;
    let name = url.domain()?.to_owned();
    // What the original command lines say of themselves has no port.
    let portless = Url::parse(&format!("https://{name}")).ok()?;
    let builder = WebauthnBuilder::new(&name, &url)
        .ok()?
        .append_allowed_origin(&portless)
        .rp_name(NAME)
        .danger_set_user_presence_only_security_keys(true);
    builder.build().inspect_err(|error| tracing::warn!(%error, "there are no passkeys")).ok()
}

fn started(options: &impl serde::Serialize, state: &impl serde::Serialize) -> Result<Started, PasskeyFault> {
    let options = serde_json::to_value(options).map_err(|_| PasskeyFault::Wrong)?;
    let id = options.pointer("/publicKey/challenge").and_then(Value::as_str).ok_or(PasskeyFault::Wrong)?.to_owned();
    Ok(Started { id, options, state: serde_json::to_vec(state).map_err(|_| PasskeyFault::Wrong)? })
}

fn kept<T: serde::de::DeserializeOwned>(state: &[u8]) -> Result<T, PasskeyFault> {
    serde_json::from_slice(state).map_err(|_| PasskeyFault::Wrong)
}

fn credential(row: &PasskeyRow) -> Result<Credential, PasskeyFault> {
    serde_json::from_str(&row.credential).map_err(|_| PasskeyFault::Unknown)
}

fn text(credential: &Credential) -> Result<String, PasskeyFault> {
    serde_json::to_string(credential).map_err(|_| PasskeyFault::Wrong)
}

/// The row that answered, if it is still there, with what has changed in it.
fn answered(result: &AuthenticationResult, rows: &[PasskeyRow]) -> Result<Answered, PasskeyFault> {
    let row = rows.iter().find(|row| row.credential_id == **result.cred_id()).ok_or(PasskeyFault::Unknown)?;
    let mut passkey = Passkey::from(credential(row)?);
    passkey.update_credential(result);
    Ok(Answered { row: row.clone(), credential: text(&passkey.into())? })
}

/// An answer as JSON, with bytes in any base64: browsers leave padding away, the original command lines may not.
fn read<T: serde::de::DeserializeOwned>(answer: &str) -> Result<T, PasskeyFault> {
    let mut value: Value = serde_json::from_str(answer).map_err(|_| PasskeyFault::Malformed)?;
    let plain = |value: &mut Value| {
        if let Value::String(text) = value {
            *text = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
        }
    };
    if let Some(fields) = value.as_object_mut() {
        fields.entry("id").and_modify(plain);
        fields.entry("rawId").and_modify(plain);
        for field in fields.get_mut("response").and_then(Value::as_object_mut).into_iter().flat_map(serde_json::Map::values_mut) {
            plain(field);
        }
    }
    serde_json::from_value(value).map_err(|_| PasskeyFault::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_no_passkeys_and_a_name_has() {
        for (url, are_there) in [
            (None, false),
            (Some("https://127.0.0.1:8443"), false),
            (Some("https://[::1]"), false),
            (Some("https://console.example.com"), true),
            (Some("https://localhost:8443"), true),
        ] {
            assert_eq!(Passkeys::at(url).are_there(), are_there, "{url:?}");
        }
        assert!(matches!(Passkeys::at(None).start_sign_in(), Err(PasskeyFault::NoName)));
    }

    #[test]
    fn a_passkey_is_asked_to_verify_and_to_be_found_and_a_security_key_to_be_touched() {
        let passkeys = Passkeys::at(Some("https://console.example.com:8443"));
        let user = UserId::new();
        let of = |kind| passkeys.start_adding(kind, &user, "ada@example.com", &[]).unwrap();
        let (passkey, key) = (of(Factor::Passkey), of(Factor::SecurityKey));
        let at = |started: &Started, pointer: &str| started.options.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(at(&passkey, "/publicKey/rp/id"), "console.example.com");
        assert_eq!(at(&passkey, "/publicKey/authenticatorSelection/userVerification"), "required");
        assert_eq!(at(&passkey, "/publicKey/authenticatorSelection/residentKey"), "preferred");
        assert_eq!(at(&key, "/publicKey/authenticatorSelection/userVerification"), "discouraged");
        assert_eq!(at(&passkey, "/publicKey/challenge"), passkey.id.as_str());
        assert_ne!(passkey.id, key.id);
        let sign_in = passkeys.start_sign_in().unwrap();
        assert_eq!(at(&sign_in, "/publicKey/userVerification"), "required");
        assert_eq!(sign_in.options.get("mediation"), None);
    }

    #[test]
    fn no_answer_panics() {
        let passkeys = Passkeys::at(Some("https://console.example.com"));
        let state = passkeys.start_sign_in().unwrap().state;
        for answer in
            ["", "{}", "[]", "null", "{\"id\":1}", "{\"id\":\"x\",\"rawId\":\"x\",\"type\":\"public-key\",\"response\":{}}", "\"\u{0}\""]
        {
            assert!(passkeys.finish_sign_in(&state, answer, &[]).is_err(), "{answer}");
            assert!(passkeys.finish_proof(&state, answer, &[]).is_err(), "{answer}");
            assert!(passkeys.finish_adding(Factor::Passkey, &state, answer).is_err(), "{answer}");
            assert!(passkeys.identify(answer).is_err(), "{answer}");
        }
    }
}
