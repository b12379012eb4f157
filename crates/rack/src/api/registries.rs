//! Logins of private image registries.

use std::sync::Arc;

use convox_seal::Secret;
use convox_wire::api::Registry;

use super::{Answer, ApiError, Call};
use crate::builds::RegistryLogin;
use crate::rack::Rack;

/// Longest host, user and password.
const LONGEST: usize = 4096;

fn shape(login: &RegistryLogin, password: &str) -> Registry {
    Registry { server: login.server.clone(), username: login.username.clone(), password: password.to_owned() }
}

pub(super) async fn add(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let value = |name: &str| call.loose(name).unwrap_or_default().trim().to_owned();
    let (server, username, password) = (value("server"), value("username"), value("password"));
    let is_host = !server.is_empty() && server.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:/".contains(&byte));
    if !is_host || server.len() > LONGEST {
        return Err(ApiError::bad("server must be a registry's host, such as ghcr.io"));
    }
    if username.is_empty() || password.is_empty() || username.len().max(password.len()) > LONGEST {
        return Err(ApiError::bad("username and password of the registry are needed"));
    }
    let login = RegistryLogin { server, username, password: Arc::new(Secret::new(password)) };
    rack.state.put_registry(&login).await?;
    Ok(Answer::json(&shape(&login, "")))
}

/// Without passwords: nobody needs to read them back, and the clients show none.
pub(super) async fn list(rack: &Rack) -> Result<Answer, ApiError> {
    let logins = rack.state.registry_logins().await?;
    Ok(Answer::json(&logins.iter().map(|login| shape(login, "")).collect::<Vec<_>>()))
}

pub(super) async fn remove(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    // Classic clients name it in the query.
    let server = Some(call.var("server")).filter(|server| !server.is_empty()).or(call.loose("server")).unwrap_or_default();
    if !rack.state.remove_registry(server).await? {
        return Err(ApiError::not_found("registry", server));
    }
    Ok(Answer::Ok)
}
