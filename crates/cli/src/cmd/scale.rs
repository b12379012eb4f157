//! `scale`: without numbers what is wanted and what runs; with numbers a change.

use std::collections::HashMap;

use convox_wire::options::{ProcessListOptions, ServiceUpdateOptions};
use serde::Serialize;

use super::wait;
use crate::Ctx;
use crate::args::{Scale, Size};
use crate::error::Failure;
use crate::output::Style;
use crate::reach::Reached;
use crate::table::Table;

pub(super) async fn run(ctx: &Ctx, args: Scale) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let service = args.service.as_deref().filter(|service| !service.is_empty());
    if options(&args.size) == ServiceUpdateOptions::default() {
        let rack = ctx.rack(&args.rack).await?;
        ctx.watched(args.watch, async || show(ctx, &rack, &app, service).await).await?;
        return Ok(0);
    }
    let service = service.ok_or_else(|| Failure::new("service name required").hint("convox scale SERVICE --count N"))?;
    let rack = ctx.rack(&args.rack).await?;
    resize(ctx, &rack, &app, service, &args.size, "Scaling", args.wait.wait).await?;
    Ok(0)
}

fn options(size: &Size) -> ServiceUpdateOptions {
    ServiceUpdateOptions {
        count: size.count,
        cpu: size.cpu,
        memory: size.memory,
        gpu: size.gpu,
        gpu_vendor: size.gpu_vendor.clone(),
        min: size.min,
        max: size.max,
    }
}

/// Asks for the new size, and if asked waits for it.
pub(super) async fn resize(
    ctx: &Ctx,
    rack: &Reached,
    app: &str,
    service: &str,
    size: &Size,
    verb: &str,
    is_waited: bool,
) -> Result<(), Failure> {
    let options = options(size);
    if options == ServiceUpdateOptions::default() {
        return Err(Failure::new("nothing to change").hint("--count N, --cpu UNITS, --memory MEGABYTES"));
    }
    check_range(rack, size).await?;
    ctx.out.start(&format!("{verb} {}", ctx.out.paint(Style::Service, service)))?;
    rack.client.service_update(app, service, &options).await?;
    if is_waited {
        ctx.out.progress("\n")?;
        wait::app_with_logs(&rack.client, &ctx.out, app, false).await?;
    }
    ctx.out.ok()?;
    let made = serde_json::json!({"app": app, "service": service, "count": size.count, "cpu": size.cpu, "memory": size.memory});
    ctx.out.result(service, &made)
}

/// Older Racks take `min` and `max` and do nothing; nobody shall think that they did.
async fn check_range(rack: &Reached, size: &Size) -> Result<(), Failure> {
    if size.min.is_none() && size.max.is_none() {
        return Ok(());
    }
    if size.min.is_some_and(|min| min < 0) {
        return Err(Failure::new("--min must be >= 0"));
    }
    if size.max.is_some_and(|max| max < 1) {
        return Err(Failure::new("--max must be >= 1"));
    }
    if let (Some(min), Some(max)) = (size.min, size.max)
        && max < min
    {
        return Err(Failure::new("--max must be >= --min"));
    }
    let version = rack.client.system().await?.version;
    if knows_no_range(&version) {
        return Err(Failure::new(format!("--min and --max need version 3.24.6 of the original rack or later; this one reports {version}"))
            .hint("--count N"));
    }
    Ok(())
}

/// Of the original Racks: v2's versions are dates, v3's have three numbers. Ours refuse what they cannot do.
fn knows_no_range(version: &str) -> bool {
    let version = version.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
    let mut numbers = version.split('.').map(|number| {
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap_or_default()
    });
    let mut next = || numbers.next().unwrap_or_default();
    let (major, minor, patch) = (next(), next(), next());
    major > 100_000 || (major == 3 && (minor, patch) < (24, 6))
}

#[derive(Serialize)]
struct Row {
    service: String,
    desired: i64,
    running: i64,
    cpu: i64,
    memory: i64,
}

async fn show(ctx: &Ctx, rack: &Reached, app: &str, only: Option<&str>) -> Result<(), Failure> {
    let mut services = rack.client.services(app).await?;
    if let Some(only) = only {
        services.retain(|service| service.name == only);
        if services.is_empty() {
            return Err(Failure::new(format!("service \"{only}\" not found in app {app}")).hint(format!("convox services -a {app}")));
        }
    }
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

#[cfg(test)]
mod tests {
    use super::knows_no_range;

    #[test]
    fn racks_that_would_ignore_a_range_are_known_by_their_version() {
        for old in ["20240101123456", "3.24.5", "3.9.0", "v3.24.5-rc1", "3.24"] {
            assert!(knows_no_range(old), "{old}");
        }
        for new in ["3.24.6", "3.24.6rc5", "v3.25.0", "4.0.0", "0.1.0", "", "dev"] {
            assert!(!knows_no_range(new), "{new}");
        }
    }
}
