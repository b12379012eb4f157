//! `scale`: without numbers what is wanted and what runs; with numbers a change.

use std::collections::HashMap;

use convox_wire::options::{ProcessListOptions, ServiceUpdateOptions};
use serde::Serialize;

use super::wait;
use crate::Ctx;
use crate::args::Scale;
use crate::error::Failure;
use crate::output::Style;
use crate::reach::Reached;
use crate::table::Table;

pub(super) async fn run(ctx: &Ctx, args: Scale) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    if args.count.is_none() && args.cpu.is_none() && args.memory.is_none() {
        if args.service.is_some() {
            return Err(Failure::new("0 args required").hint("convox scale SERVICE --count N, or convox scale to list"));
        }
        show(ctx, &ctx.rack(&args.rack).await?, &app).await?;
        return Ok(0);
    }
    let service = args.service.as_deref().ok_or_else(|| Failure::new("service name required").hint("convox scale SERVICE --count N"))?;
    let rack = ctx.rack(&args.rack).await?;
    let options = ServiceUpdateOptions { count: args.count, cpu: args.cpu, memory: args.memory, ..ServiceUpdateOptions::default() };
    ctx.out.start(&format!("Scaling {}", ctx.out.paint(Style::Service, service)))?;
    rack.client.service_update(&app, service, &options).await?;
    if args.wait.wait {
        ctx.out.progress("\n")?;
        wait::app_with_logs(&rack.client, &ctx.out, &app, false).await?;
    }
    ctx.out.ok()?;
    let made = serde_json::json!({"app": app, "service": service, "count": args.count, "cpu": args.cpu, "memory": args.memory});
    ctx.out.result(service, &made)?;
    Ok(0)
}

#[derive(Serialize)]
struct Row {
    service: String,
    desired: i64,
    running: i64,
    cpu: i64,
    memory: i64,
}

async fn show(ctx: &Ctx, rack: &Reached, app: &str) -> Result<(), Failure> {
    let mut services = rack.client.services(app).await?;
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let mut running: HashMap<String, i64> = HashMap::new();
    for process in rack.client.processes(app, &ProcessListOptions::default()).await? {
        *running.entry(process.name).or_default() += 1;
    }
    let rows: Vec<Row> = services
        .into_iter()
        .map(|service| Row {
            running: running.get(&service.name).copied().unwrap_or_default(),
            service: service.name,
            desired: service.count,
            cpu: service.cpu,
            memory: service.memory,
        })
        .collect();
    if ctx.out.is_json() {
        return ctx.out.json(&rows);
    }
    let mut table = Table::new(&["SERVICE", "DESIRED", "RUNNING", "CPU", "MEMORY"]);
    for row in &rows {
        table.row([&row.service, &row.desired.to_string(), &row.running.to_string(), &row.cpu.to_string(), &row.memory.to_string()]);
    }
    ctx.out.table(&table)
}
