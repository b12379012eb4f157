//! `services ...`, `balancers` and `restart`.

use convox_wire::api::Service;

use super::scale;
use crate::Ctx;
use crate::args::{Balancers, Restart, Services, ServicesCommand};
use crate::error::Failure;
use crate::output::Style;
use crate::reach::Reached;
use crate::table::Table;

pub(super) async fn run(ctx: &Ctx, args: Services) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    match args.command {
        None => ctx.watched(args.watch, async || list(ctx, &rack.client.services(&app).await?)).await?,
        Some(ServicesCommand::Update { service, size, wait }) => {
            scale::resize(ctx, &rack, &app, &service, &size, "Updating", wait.wait).await?;
        }
        Some(ServicesCommand::Restart { service }) => {
            restart(ctx, &rack, &app, &service).await?;
            ctx.out.result(&service, &serde_json::json!({"app": app, "restarted": [service]}))?;
        }
    }
    Ok(0)
}

/// The table is that of v3.
pub(super) async fn balancers(ctx: &Ctx, args: Balancers) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    let balancers = rack.client.balancers(&app).await?;
    if ctx.out.is_json() {
        ctx.out.json(&balancers)?;
        return Ok(0);
    }
    let mut table = Table::new(&["BALANCER", "SERVICE", "ENDPOINT"]);
    for balancer in &balancers {
        table.row([&balancer.name, &balancer.service, &balancer.endpoint]);
    }
    ctx.out.table(&table)?;
    Ok(0)
}

pub(super) async fn restart_all(ctx: &Ctx, args: Restart) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    restart_each(ctx, &rack, &app).await?;
    Ok(0)
}

/// Restarts the services of an app, one after the other.
pub(super) async fn restart_each(ctx: &Ctx, rack: &Reached, app: &str) -> Result<(), Failure> {
    let mut names: Vec<String> = rack.client.services(app).await?.into_iter().map(|service| service.name).collect();
    names.sort();
    for name in &names {
        restart(ctx, rack, app, name).await?;
    }
    ctx.out.result("", &serde_json::json!({"app": app, "restarted": names}))
}

async fn restart(ctx: &Ctx, rack: &Reached, app: &str, service: &str) -> Result<(), Failure> {
    ctx.out.start(&format!("Restarting {}", ctx.out.paint(Style::Service, service)))?;
    rack.client.service_restart(app, service).await?;
    ctx.out.ok()
}

fn list(ctx: &Ctx, services: &[Service]) -> Result<(), Failure> {
    if ctx.out.is_json() {
        return ctx.out.json(&services);
    }
    // The fourth column is there only where something would stand in it.
    let has_nlb = services.iter().any(|service| !service.nlb.is_empty());
    let mut table = Table::new(if has_nlb { &["SERVICE", "DOMAIN", "PORTS", "NLB PORTS"] } else { &["SERVICE", "DOMAIN", "PORTS"] });
    for service in services {
        let ports: Vec<String> = service
            .ports
            .iter()
            .map(|port| if port.container == 0 { port.balancer.to_string() } else { format!("{}:{}", port.balancer, port.container) })
            .collect();
        let mut row = vec![service.name.clone(), service.domain.clone(), ports.join(" ")];
        if has_nlb {
            row.push(service.nlb.iter().map(nlb_cell).collect::<Vec<_>>().join(" "));
        }
        table.push(row);
    }
    ctx.out.table(&table)
}

/// `P:C[/tls][(internal)][cz=t allow=N pcip=t]`
fn nlb_cell(port: &convox_wire::api::ServiceNlb) -> String {
    let mut cell = format!("{}:{}", port.port, port.container_port);
    if port.protocol == "tls" {
        cell.push_str("/tls");
    }
    if port.scheme == "internal" {
        cell.push_str("(internal)");
    }
    let mut traits = Vec::new();
    if let Some(cross_zone) = port.cross_zone {
        traits.push(format!("cz={cross_zone}"));
    }
    if !port.allow_cidr.is_empty() {
        traits.push(format!("allow={}", port.allow_cidr.len()));
    }
    if let Some(preserved) = port.preserve_client_ip {
        traits.push(format!("pcip={preserved}"));
    }
    if !traits.is_empty() {
        cell.push_str(&format!("[{}]", traits.join(" ")));
    }
    cell
}
