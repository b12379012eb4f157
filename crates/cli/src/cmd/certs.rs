//! `certs ...` and `ssl ...`.

use std::collections::HashMap;

use convox_wire::options::{CertificateCreateOptions, CertificateGenerateOptions, CertificateListOptions};
use serde::Serialize;

use super::wait;
use crate::Ctx;
use crate::ago::ago;
use crate::args::{Certs, CertsCommand, Ssl, SslCommand};
use crate::error::Failure;
use crate::output::Style;
use crate::reach::Reached;
use crate::table::Table;

pub(super) async fn run(ctx: &Ctx, args: Certs) -> Result<u8, Failure> {
    let rack = ctx.rack(&args.rack).await?;
    match args.command {
        None => ctx.watched(args.watch, async || list(ctx, &rack, args.generated).await).await?,
        Some(CertsCommand::Delete { cert }) => {
            ctx.out.start(&format!("Deleting certificate {}", ctx.out.paint(Style::Id, &cert)))?;
            rack.client.certificate_delete(&cert).await?;
            ctx.out.ok()?;
            ctx.out.result(&cert, &serde_json::json!({"certificate": cert, "deleted": true}))?;
        }
        Some(CertsCommand::Generate { domains, issuer, duration, id }) => {
            if let Some(bad) = domains.iter().find(|domain| domain.contains(',')) {
                return Err(Failure::new(format!("a domain holds no comma: {bad}")));
            }
            let out = ctx.out.with_id(id.id);
            out.start("Generating certificate")?;
            let made = rack.client.certificate_generate(&domains, &CertificateGenerateOptions { issuer, duration }).await?;
            out.ok_with(&out.paint(Style::Id, &made.id))?;
            out.result(&made.id, &made)?;
        }
        Some(CertsCommand::Import { public, key, chain, id }) => {
            let out = ctx.out.with_id(id.id);
            // Read before anything is said: a wrong file name is no failed import.
            let (public, key) = (read(&public)?, read(&key)?);
            let chain = chain.as_deref().map(read).transpose()?;
            out.start("Importing certificate")?;
            let made = rack.client.certificate_create(&public, &key, &CertificateCreateOptions { chain }).await?;
            out.ok_with(&out.paint(Style::Id, &made.id))?;
            out.result(&made.id, &made)?;
        }
        Some(CertsCommand::Renew) => {
            let app = ctx.app(&args.app)?;
            ctx.out.start(&format!("Renewing certificate {}", ctx.out.paint(Style::App, &app)))?;
            rack.client.certificate_renew(&app).await?;
            ctx.out.ok()?;
            ctx.out.result(&app, &serde_json::json!({"app": app, "renewed": true}))?;
        }
    }
    Ok(0)
}

fn read(path: &str) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::new(format!("could not read {path}: {error}")))
}

async fn list(ctx: &Ctx, rack: &Reached, generated: bool) -> Result<(), Failure> {
    let options = CertificateListOptions { generated: generated.then_some(true) };
    let certificates = rack.client.certificates(&options).await?;
    if ctx.out.is_json() {
        return ctx.out.json(&certificates);
    }
    let mut table = Table::new(&["ID", "DOMAIN", "EXPIRES"]);
    for certificate in &certificates {
        table.row([&certificate.id, &certificate.domain, &ago(certificate.expiration)]);
    }
    ctx.out.table(&table)
}

pub(super) async fn ssl(ctx: &Ctx, args: Ssl) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    match args.command {
        None => endpoints(ctx, &rack, &app).await?,
        Some(SslCommand::Update { endpoint, certificate, wait }) => {
            update(ctx, &rack, &app, &endpoint, &certificate, wait.wait).await?;
        }
    }
    Ok(0)
}

#[derive(Serialize)]
struct Endpoint {
    endpoint: String,
    certificate: String,
    domain: String,
    expires: convox_wire::time::Time,
}

async fn endpoints(ctx: &Ctx, rack: &Reached, app: &str) -> Result<(), Failure> {
    let services = rack.client.services(app).await?;
    let certificates: HashMap<String, _> = rack
        .client
        .certificates(&CertificateListOptions::default())
        .await?
        .into_iter()
        .map(|certificate| (certificate.id.clone(), certificate))
        .collect();
    let mut rows = Vec::new();
    for service in &services {
        for port in service.ports.iter().filter(|port| !port.certificate.is_empty()) {
            let known = certificates.get(&port.certificate);
            rows.push(Endpoint {
                endpoint: format!("{}:{}", service.name, port.balancer),
                certificate: port.certificate.clone(),
                domain: known.map(|certificate| certificate.domain.clone()).unwrap_or_default(),
                expires: known.map(|certificate| certificate.expiration).unwrap_or_default(),
            });
        }
    }
    if ctx.out.is_json() {
        return ctx.out.json(&rows);
    }
    let mut table = Table::new(&["ENDPOINT", "CERTIFICATE", "DOMAIN", "EXPIRES"]);
    for row in &rows {
        table.row([&row.endpoint, &row.certificate, &row.domain, &ago(row.expires)]);
    }
    ctx.out.table(&table)
}

async fn update(ctx: &Ctx, rack: &Reached, app: &str, endpoint: &str, certificate: &str, is_waited: bool) -> Result<(), Failure> {
    let (service, port) = endpoint
        .split_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok())
        .ok_or_else(|| Failure::new("process:port required as first argument"))?;
    ctx.out.start("Updating certificate")?;
    rack.client.certificate_apply(app, service, port, certificate).await?;
    if is_waited {
        wait::app_running(&rack.client, app, false).await?;
    }
    ctx.out.ok()?;
    ctx.out.result(certificate, &serde_json::json!({"app": app, "endpoint": endpoint, "certificate": certificate}))
}
