//! `ps ...`

use convox_wire::api::Process;
use convox_wire::options::ProcessListOptions;

use crate::Ctx;
use crate::ago::ago;
use crate::args::{Ps, PsCommand};
use crate::error::Failure;
use crate::output::Style;
use crate::table::{Info, Table};

pub(super) async fn run(ctx: &Ctx, args: Ps) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    match args.command {
        None => {
            let options = ProcessListOptions { release: args.release, service: args.service };
            ctx.watched(args.watch, async || list(ctx, &rack.client.processes(&app, &options).await?)).await?;
        }
        Some(PsCommand::Info { process, watch }) => {
            ctx.watched(watch, async || info(ctx, &rack.client.process(&app, &process).await?)).await?;
        }
        Some(PsCommand::Stop { process }) => {
            ctx.out.start(&format!("Stopping {}", ctx.out.paint(Style::Process, &process)))?;
            rack.client.process_stop(&app, &process).await?;
            ctx.out.ok()?;
            ctx.out.result(&process, &serde_json::json!({"app": app, "process": process, "stopped": true}))?;
        }
    }
    Ok(0)
}

fn list(ctx: &Ctx, processes: &[Process]) -> Result<(), Failure> {
    if ctx.out.is_json() {
        return ctx.out.json(&processes);
    }
    let mut table = Table::new(&["ID", "SERVICE", "STATUS", "RELEASE", "STARTED", "COMMAND"]);
    for process in processes {
        table.row([&process.id, &process.name, &process.status, &process.release, &ago(process.started), &process.command]);
    }
    ctx.out.table(&table)
}

fn info(ctx: &Ctx, process: &Process) -> Result<(), Failure> {
    if ctx.out.is_json() {
        return ctx.out.json(process);
    }
    let mut info = Info::new();
    info.add("Id", &process.id).add("App", &process.app).add("Command", &process.command).add("Instance", &process.instance);
    info.add("Release", &process.release).add("Service", &process.name).add("Started", ago(process.started));
    info.add("Status", &process.status);
    ctx.out.info(&info)
}
