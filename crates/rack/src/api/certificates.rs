//! Certificates of the router: made here, brought along, chosen by the name that a caller asks for.

use std::time::Duration;

use convox_proxy::tls_server::{self, TlsServerError};
use convox_seal::Secret;
use convox_wire::api::Certificate;
use convox_wire::options::{CertificateCreateOptions, CertificateGenerateOptions};
use convox_wire::time::Time;
use http::StatusCode;

use super::{Answer, ApiError, Call, apps};
use crate::rack::Rack;
use crate::state::{CertificateRow, Issuer};

/// Names in one certificate.
const MOST_DOMAINS: usize = 10;
/// As long as the originals make theirs; who pins them learns of a new one, who does not gets one in time.
const LIFE: Duration = Duration::from_hours(24 * 365);
/// Longest chain or key, in bytes of PEM.
const LONGEST: usize = 256 * 1024;

fn shape(row: &CertificateRow) -> Certificate {
    Certificate {
        id: row.id.clone(),
        domain: row.domains.first().cloned().unwrap_or_default(),
        domains: row.domains.clone(),
        expiration: Time::from_millis(row.expires_ms),
        ..Certificate::default()
    }
}

fn unusable(error: &TlsServerError) -> ApiError {
    ApiError::bad(error.to_string())
}

/// One of the authority that the Rack asks.
async fn order(rack: &Rack, domains: &[String]) -> Result<(String, Secret), ApiError> {
    let acme = rack.acme.as_ref().ok_or_else(|| {
        ApiError::bad(
            "this rack asks no certificate authority: start it with --acme-directory, or import a certificate with `convox certs import`",
        )
    })?;
    acme.order(rack, domains).await.map_err(|reason| ApiError::new(StatusCode::BAD_GATEWAY, reason))
}

pub(super) async fn list(rack: &Rack) -> Result<Answer, ApiError> {
    let mut certificates: Vec<Certificate> = rack.state.certificates().await?.iter().map(shape).collect();
    certificates.sort_by_key(|certificate| certificate.id.to_ascii_uppercase());
    Ok(Answer::json(&certificates))
}

/// Takes one that somebody else signed.
pub(super) async fn create(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let options: CertificateCreateOptions = call.options()?;
    let either = |name: &str, classic: &str| call.loose(name).or_else(|| call.loose(classic)).unwrap_or_default().trim().to_owned();
    let (public, key) = (either("pub", "public"), Secret::new(either("key", "private")));
    let chain = options.chain.unwrap_or_default();
    if public.len().max(chain.len()).max(key.expose().len()) > LONGEST {
        return Err(ApiError::bad(format!("a certificate, its chain and its key have at most {LONGEST} bytes each")));
    }
    let chain = format!("{public}\n{}\n", chain.trim());
    let row = rack.keep_certificate(CertificateRow::new_id(), chain, key, Issuer::Import).await?;
    Ok(Answer::json(&shape(&row)))
}

/// Makes one, signed by itself.
pub(super) async fn generate(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let options: CertificateGenerateOptions = call.options()?;
    let issuer = match options.issuer.as_deref() {
        None | Some("") => Issuer::Own,
        // The originals' word for whatever authority they ask.
        Some("letsencrypt" | "acme") => Issuer::Acme,
        Some(_) => return Err(ApiError::bad("invalid issuer: leave it out, or give letsencrypt")),
    };
    let life = match options.duration.as_deref().filter(|text| !text.is_empty()) {
        None => LIFE,
        Some(text) => convox_wire::duration::go_parse(text)
            .ok()
            .filter(|life| (Duration::from_hours(1)..=Duration::from_hours(24 * 3650)).contains(life))
            .ok_or_else(|| ApiError::bad(format!("invalid duration: {text}; between 1h and 87600h")))?,
    };
    let domains: Vec<String> =
        call.loose("domains").unwrap_or_default().split(',').map(|domain| domain.trim().to_ascii_lowercase()).collect();
    if domains.len() > MOST_DOMAINS {
        return Err(ApiError::bad(format!("can not specify more than {MOST_DOMAINS} domain names")));
    }
    if let Some(domain) = domains.iter().find(|domain| !is_domain(domain)) {
        return Err(ApiError::bad(format!("must specify a domain: {domain:?} is none")));
    }
    let (chain, key) = if issuer == Issuer::Acme { order(rack, &domains).await? } else { own(&domains, life)? };
    let row = rack.keep_certificate(CertificateRow::new_id(), chain, key, issuer).await?;
    Ok(Answer::json(&shape(&row)))
}

fn own(domains: &[String], life: Duration) -> Result<(String, Secret), ApiError> {
    let names: Vec<&str> = domains.iter().map(String::as_str).collect();
    let (chain, key) = tls_server::generate_for(&names, life).map_err(|error| unusable(&error))?;
    Ok((chain, Secret::new(key)))
}

/// A host name, or `*.` and one.
fn is_domain(text: &str) -> bool {
    let host = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(is_label)
}

pub(super) async fn delete(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let id = call.var("id");
    let named = rack.scheduler.served(None).into_iter().find(|(_, service, _)| service.certificate.as_deref() == Some(id));
    if let Some((app, service, _)) = named {
        let words = format!(
            "certificate {id} is in use: convox.yml of app {app} names it for service {}; promote a release without it first",
            service.name
        );
        return Err(ApiError::new(StatusCode::CONFLICT, words));
    }
    if !rack.state.remove_certificate(id).await? {
        return Err(ApiError::not_found("certificate", id));
    }
    rack.serve_certificates().await?;
    Ok(Answer::Ok)
}

/// Chooses one for the names of a service. Wins over what its manifest chooses, until it is deleted.
pub(super) async fn apply(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::usable(rack, call).await?;
    let (name, port, id) = (call.var("service"), call.var("port"), call.loose("id").unwrap_or_default());
    let services = rack.scheduler.services(&app.name);
    let service = services.iter().find(|service| service.name == name).ok_or_else(|| ApiError::not_found("service", name))?;
    let ports: Vec<String> = service.balancer.iter().chain(&service.port).map(ToString::to_string).collect();
    // Where the router answers HTTPS the service has that port too.
    let front = rack.scheduler.fronts().1.map(|front| front.port().to_string());
    if port != "443" && !ports.iter().chain(&front).any(|known| known == port) {
        let known = ports.join(", ");
        return Err(ApiError::bad(format!(
            "service {name} has no port {port}; known: 443{}{known}",
            if known.is_empty() { "" } else { ", " }
        )));
    }
    let row =
        rack.state.certificates().await?.into_iter().find(|row| row.id == id).ok_or_else(|| ApiError::not_found("certificate", id))?;
    let hosts = rack.scheduler.served(Some(&app.name)).into_iter().find(|(_, service, _)| service.name == name);
    let hosts = hosts.map(|(_, _, hosts)| hosts).unwrap_or_default();
    if !hosts.iter().any(|host| row.covers(host)) {
        let names = row.domains.join(", ");
        let of_service = if hosts.is_empty() { "has no host name".to_owned() } else { format!("is served as {}", hosts.join(", ")) };
        return Err(ApiError::bad(format!("certificate {id} is for {names}, and service {name} {of_service}")));
    }
    if !rack.state.put_service_certificate(&app.name, name, id).await? {
        return Err(ApiError::not_found("certificate", id));
    }
    rack.serve_certificates().await?;
    Ok(Answer::Ok)
}

/// Makes those anew that were made here for names of this app. The path's variable is the app's name, whatever it is called.
pub(super) async fn renew(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let name = call.var("id");
    let app = apps::named(rack, name).await?;
    let hosts = rack.scheduler.hosts(&app.name);
    let is_of_app = |row: &CertificateRow| row.issuer != Issuer::Import && row.domains.iter().any(|domain| hosts.contains(domain));
    let rows: Vec<CertificateRow> = rack.state.certificates().await?.into_iter().filter(is_of_app).collect();
    if rows.is_empty() {
        let words = "no certificate for a domain of this app was made here; an imported one is replaced by importing its successor";
        return Err(ApiError::bad(format!("{words}: {name}")));
    }
    for row in rows {
        let (chain, key) = if row.issuer == Issuer::Acme { order(rack, &row.domains).await? } else { own(&row.domains, LIFE)? };
        rack.keep_certificate(row.id, chain, key, row.issuer).await?;
    }
    Ok(Answer::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts_and_nothing_else_get_a_certificate() {
        for good in ["example.com", "*.example.com", "a-b.c", "localhost"] {
            assert!(is_domain(good), "{good}");
        }
        for bad in ["", "*", "*.", "a..b", "-a.b", "a_b.c", "a.*.b", "a b", "https://a"] {
            assert!(!is_domain(bad), "{bad}");
        }
    }
}
