//! `instances ...`: the machines of a Rack.

use base64::Engine as _;
use convox_wire::options::InstanceShellOptions;

use super::{exec, wait};
use crate::Ctx;
use crate::ago::ago;
use crate::args::{Instances, InstancesCommand};
use crate::error::Failure;
use crate::reach::Reached;
use crate::table::Table;
use crate::term;

pub(super) async fn run(ctx: &Ctx, args: Instances) -> Result<u8, Failure> {
    let rack = ctx.rack(&args.rack).await?;
    match args.command {
        None => ctx.watched(args.watch, async || list(ctx, &rack).await).await?,
        Some(InstancesCommand::Keyroll { wait }) => keyroll(ctx, &rack, wait.wait).await?,
        Some(InstancesCommand::Ssh { instance, command, key }) => return ssh(ctx, &rack, &instance, &command, key.as_deref()).await,
        Some(InstancesCommand::Terminate { instance }) => {
            ctx.announce(&rack);
            ctx.out.start("Terminating instance")?;
            rack.client.instance_terminate(&instance).await?;
            ctx.out.ok()?;
            ctx.out.result(&instance, &serde_json::json!({"instance": instance, "terminated": true}))?;
        }
    }
    Ok(0)
}

async fn list(ctx: &Ctx, rack: &Reached) -> Result<(), Failure> {
    let instances = rack.client.instances().await?;
    if ctx.out.is_json() {
        return ctx.out.json(&instances);
    }
    let percent = |share: f64| format!("{:.2}%", share * 100.0);
    let mut table = Table::new(&["ID", "STATUS", "STARTED", "PS", "CPU", "MEM", "PUBLIC", "PRIVATE"]);
    for instance in &instances {
        table.row([
            &instance.id,
            &instance.status,
            &ago(instance.started),
            &instance.processes.to_string(),
            &percent(instance.cpu),
            &percent(instance.memory),
            &instance.public_ip,
            &instance.private_ip,
        ]);
    }
    ctx.out.table(&table)
}

async fn keyroll(ctx: &Ctx, rack: &Reached, is_waited: bool) -> Result<(), Failure> {
    ctx.announce(rack);
    ctx.out.start("Rolling instance key")?;
    let pair = rack.client.instance_keyroll().await?;
    if is_waited {
        ctx.out.progress("\n")?;
        wait::rack_with_logs(&rack.client, &ctx.out).await?;
    }
    ctx.out.ok()?;
    // v3 Racks give the new key once; whoever asked has to keep it.
    let key = pair.and_then(|pair| pair.private_key.filter(|key| !key.is_empty()));
    if let (Some(key), false) = (&key, ctx.out.is_json()) {
        ctx.out.raw(format!("{}\n", key.trim_end()).as_bytes())?;
    }
    ctx.out.result("", &serde_json::json!({"rolled": true, "private_key": key}))
}

async fn ssh(ctx: &Ctx, rack: &Reached, instance: &str, command: &[String], key: Option<&str>) -> Result<u8, Failure> {
    let size = term::size(&ctx.env);
    let private_key = match key {
        Some(path) => {
            let text = std::fs::read(path).map_err(|error| Failure::new(format!("could not read {path}: {error}")))?;
            Some(base64::engine::general_purpose::STANDARD.encode(text))
        }
        None => None,
    };
    let options = InstanceShellOptions {
        command: (!command.is_empty()).then(|| command.join(" ")),
        private_key,
        height: size.map(|(rows, _)| i64::from(rows)),
        width: size.map(|(_, columns)| i64::from(columns)),
    };
    let socket = rack.client.instance_shell(instance, &options).await?;
    exec::attach(ctx, socket).await
}
