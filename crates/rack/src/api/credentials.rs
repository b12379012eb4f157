//! The Rack's own credentials: its password, rolled in two phases, and the tokens that it signs.

use std::sync::Arc;

use convox_seal::Secret;
use convox_seal::access::{self, Role};
use convox_wire::api::{Passwords, SystemJwt, TokenInfo};
use convox_wire::options::{PasswordAcceptOptions, PasswordRetireOptions, SystemJwtOptions, SystemJwtRotateOptions};
use convox_wire::time::Time;
use http::StatusCode;

use super::{Answer, ApiError, Call, actor};
use crate::credentials::fault;
use crate::rack::Rack;
use crate::state::{Accepted, Asker, TokenRow, now_ms};

/// Longest life of a token, hours: a year.
const LONGEST_HOURS: i64 = 8760;
/// Longest time for which two passwords, or two signing keys, are accepted, milliseconds: as long as a token may live.
const LONGEST_WINDOW_MS: i64 = LONGEST_HOURS * 3_600_000;

/// Under which id the Console wants a token to be known: it has written it down.
const TOKEN_ID: &str = "convox-token-id";

fn window_ms(window: Option<std::time::Duration>) -> Result<Option<i64>, ApiError> {
    let Some(window) = window else { return Ok(None) };
    match i64::try_from(window.as_millis()) {
        Ok(ms) if ms <= LONGEST_WINDOW_MS => Ok(Some(ms)),
        _ => Err(ApiError::bad(format!("the overlap is too long: {LONGEST_HOURS} hours at most"))),
    }
}

/// Which passwords are accepted, without a word of them.
pub(super) async fn passwords(rack: &Rack) -> Result<Answer, ApiError> {
    let passwords = rack.state.passwords().await?.ok_or_else(|| ApiError::bad("this rack has no password"))?;
    let time = |ms: Option<i64>| ms.map(Time::from_millis).unwrap_or_default();
    Ok(Answer::json(&Passwords {
        current: Time::from_millis(passwords.current.created_ms),
        next: time(passwords.next.as_ref().map(|next| next.created_ms)),
        ends: time(passwords.next.as_ref().and_then(|next| next.retire_ms)),
    }))
}

/// First phase: a further password is accepted beside the present one.
pub(super) async fn accept(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    only_password(call)?;
    let options: PasswordAcceptOptions = call.options()?;
    let password = Secret::new(options.password.unwrap_or_default());
    if let Some(fault) = fault(&password) {
        return Err(ApiError::bad(format!("the new password is {fault}")));
    }
    let retire_ms = window_ms(options.window)?.map(|window_ms| now_ms() + window_ms);
    match rack.state.accept_password(&password, retire_ms, call.caller.asker()).await?? {
        Accepted::Yes => {
            rack.renew_door().await?;
            Ok(Answer::Ok)
        }
        Accepted::IsCurrent => Err(ApiError::new(StatusCode::CONFLICT, "that is the present password")),
        Accepted::Another(since_ms) => {
            let since = Time::from_millis(since_ms).to_option();
            let words = format!("another roll of the password is under way since {since}: finish it with its password, or take it back");
            Err(ApiError::new(StatusCode::CONFLICT, words))
        }
    }
}

/// Second phase: the old password is refused. Only for whoever brings the new one: they have switched.
pub(super) async fn retire(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    only_password(call)?;
    let options: PasswordRetireOptions = call.options()?;
    if rack.state.passwords().await?.is_some_and(|passwords| passwords.next.is_some()) && !call.caller.has_next_password() {
        return Err(ApiError::new(StatusCode::CONFLICT, "come with the new password to end the old one"));
    }
    // Without a roll there is nothing left to end: it was said twice.
    rack.retire_password(options.cut.unwrap_or(false), call.caller.asker()).await??;
    Ok(Answer::Ok)
}

/// The other way out: the new password is refused again.
pub(super) async fn undo(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    only_password(call)?;
    if call.caller.has_next_password() {
        return Err(ApiError::new(StatusCode::CONFLICT, "come with the old password to take the new one back"));
    }
    rack.state.undo_password(call.caller.asker()).await??;
    rack.renew_door().await?;
    Ok(Answer::Ok)
}

/// A token opens for a while; whoever could make a password with it would never go.
fn only_password(call: &Call) -> Result<(), ApiError> {
    match call.caller.token_id() {
        None => Ok(()),
        Some(_) => Err(ApiError::new(StatusCode::FORBIDDEN, "an access token cannot roll the password; come with the password")),
    }
}

/// Signs a token. Its life is bounded, and by that of the caller's own token; so are its rights.
pub(super) async fn token(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let options: SystemJwtOptions = call.options()?;
    let role = call.loose("role").or(options.role.as_deref()).and_then(Role::from_name);
    let role = role.ok_or_else(|| ApiError::bad("invalid role: must be read, write, or admin"))?;
    if role > call.caller.role {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "a token cannot make one with more rights than its own"));
    }
    let hours = call.loose("durationInHour").and_then(|text| text.parse::<i64>().ok()).filter(|hours| (1..=LONGEST_HOURS).contains(hours));
    let hours = hours.ok_or_else(|| ApiError::bad(format!("invalid duration: between 1 and {LONGEST_HOURS} hours")))?;
    let now = jiff::Timestamp::now().as_second();
    let expires_at = (now + hours * 3600).min(call.caller.expires_at().unwrap_or(i64::MAX));
    let id = token_id(call)?;
    let made_by = actor(&call.caller, &call.headers);
    let kept = rack.state.insert_token(&id, role, &made_by, expires_at.saturating_mul(1000), call.caller.asker()).await??;
    let kid = kept.ok_or_else(|| ApiError::new(StatusCode::CONFLICT, "a token of this id was made or revoked before"))?;
    let mint = || rack.door.mint(&kid, id.clone(), role, &rack.name, now, expires_at);
    let token = match mint() {
        Some(token) => Some(token),
        // The key is newer than what is known here, or gone already.
        None => {
            rack.renew_door().await?;
            mint()
        }
    };
    let token = token.ok_or_else(|| ApiError::new(StatusCode::CONFLICT, "the signing key was rotated at this moment; ask again"))?;
    Ok(Answer::json(&SystemJwt { token }))
}

/// A new id, or the one under which the Console wrote the token down.
fn token_id(call: &Call) -> Result<String, ApiError> {
    let wanted = call.headers.get(TOKEN_ID).filter(|_| call.caller.may_name_actor());
    let Some(wanted) = wanted else { return Ok(access::token_id()) };
    let wanted = wanted.to_str().unwrap_or_default();
    let is_plain = wanted.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if !is_plain || !(8..=64).contains(&wanted.len()) {
        return Err(ApiError::bad("Convox-Token-Id: 8 to 64 letters, digits, `-` and `_`"));
    }
    Ok(wanted.to_owned())
}

/// A new signing key. Tokens of the one before are dead when this is answered, unless an overlap was asked for.
pub(super) async fn rotate(rack: &Arc<Rack>, call: &Call) -> Result<Answer, ApiError> {
    let options: SystemJwtRotateOptions = call.options()?;
    rack.state.rotate_signers(window_ms(options.overlap)?.unwrap_or(0), call.caller.asker()).await??;
    rack.renew_door().await?;
    Ok(Answer::Ok)
}

/// Tokens that could still be used, and those that were revoked before their end.
pub(super) async fn tokens(rack: &Rack) -> Result<Answer, ApiError> {
    Ok(Answer::json(&rack.state.tokens().await?.into_iter().map(shape).collect::<Vec<_>>()))
}

fn shape(row: TokenRow) -> TokenInfo {
    let role = [Role::Read, Role::Write, Role::Admin].into_iter().find(|role| role.claim() == row.role);
    TokenInfo {
        id: row.id,
        parent: row.parent,
        role: role.map_or("", Role::name).to_owned(),
        made_by: row.made_by,
        created: Time::from_millis(row.created_ms),
        expires: Time::from_millis(row.expires_ms),
        revoked: row.revoked_ms.map(Time::from_millis).unwrap_or_default(),
    }
}

/// Ends one token and all that came from it. Whoever gives out ids (the Console) may end one before it is made.
pub(super) async fn revoke(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let id = call.var("id");
    let beforehand = call.caller.may_name_actor() && call.loose("beforehand") == Some("true");
    if id.len() > 64 {
        return Err(ApiError::not_found("token", id));
    }
    let was_there = rack.state.revoke_token(id, beforehand).await?;
    rack.renew_door().await?;
    if was_there || beforehand { Ok(Answer::Ok) } else { Err(ApiError::not_found("token", id)) }
}

/// Ends every token there is.
pub(super) async fn revoke_all(rack: &Rack) -> Result<Answer, ApiError> {
    for token in rack.state.tokens().await? {
        rack.state.revoke_token(&token.id, false).await?;
    }
    // Those that were made before this Rack kept a list end with their key.
    let _ = rack.state.rotate_signers(0, Asker::Host).await?;
    rack.renew_door().await?;
    Ok(Answer::Ok)
}
