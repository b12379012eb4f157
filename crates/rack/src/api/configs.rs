//! Configs of apps: named texts, set as base64 and given back as they are.

use base64::Engine as _;
use convox_seal::Secret;
use convox_wire::api::AppConfig;

use super::{Answer, ApiError, Call, apps};
use crate::rack::Rack;

/// Longest config, bytes.
const LONGEST: usize = 1 << 20;
/// Most configs of an app.
const MOST: usize = 100;

pub(super) async fn list(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let names = rack.state.config_names(&app.name).await?;
    let list: Vec<AppConfig> = names.into_iter().map(|name| AppConfig { name, ..AppConfig::default() }).collect();
    Ok(Answer::json(&list))
}

pub(super) async fn get(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let name = call.var("name");
    let value = rack.state.config(&app.name, name).await?.ok_or_else(|| ApiError::not_found("app config", name))?;
    Ok(Answer::json(&AppConfig { name: name.to_owned(), value: String::from_utf8_lossy(&value).into_owned() }))
}

pub(super) async fn set(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let name = call.var("name");
    let is_name = (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !is_name {
        return Err(ApiError::bad("a config's name has at most 64 letters, digits, dashes, dots and underscores"));
    }
    let value = base64::engine::general_purpose::STANDARD
        .decode(call.loose("value").unwrap_or_default())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| ApiError::bad("the value must be text in base64"))?;
    if value.len() > LONGEST {
        return Err(ApiError::bad(format!("a config has at most {LONGEST} bytes")));
    }
    let names = rack.state.config_names(&app.name).await?;
    if names.len() >= MOST && !names.iter().any(|known| known == name) {
        return Err(ApiError::bad(format!("an app has at most {MOST} configs")));
    }
    rack.state.put_config(&app.name, name, &Secret::new(value)).await?;
    Ok(Answer::Ok)
}
