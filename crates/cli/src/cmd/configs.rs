//! `configs` and `config ...`

use std::io::Read;

use super::services;
use crate::Ctx;
use crate::args::{ConfigCommand, ConfigSet, Configs};
use crate::error::Failure;
use crate::table::Table;

/// The longest text that is read; Racks take less.
const LONGEST: u64 = 16 * 1024 * 1024;

pub(super) async fn list(ctx: &Ctx, args: Configs) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    ctx.watched(args.watch, async || {
        let configs = rack.client.app_configs(&app).await?;
        let names: Vec<&str> = configs.iter().map(|config| config.name.as_str()).collect();
        if ctx.out.is_json() {
            return ctx.out.json(&names);
        }
        let mut table = Table::new(&["CONFIG-ID"]);
        for name in names {
            table.row([name]);
        }
        ctx.out.table(&table)
    })
    .await?;
    Ok(0)
}

pub(super) async fn run(ctx: &Ctx, command: ConfigCommand) -> Result<u8, Failure> {
    match command {
        ConfigCommand::Get { name, app, rack } => {
            let app = ctx.app(&app)?;
            let config = ctx.rack(&rack).await?.client.app_config(&app, &name).await?;
            if ctx.out.is_json() {
                ctx.out.json(&config)?;
            } else {
                ctx.out.line(&config.value)?;
            }
            Ok(0)
        }
        ConfigCommand::Set(args) => set(ctx, args).await,
    }
}

async fn set(ctx: &Ctx, args: ConfigSet) -> Result<u8, Failure> {
    let text = text(ctx, &args)?;
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    ctx.out.start(&format!("Setting config {}", args.name))?;
    rack.client.app_config_set(&app, &args.name, &text).await?;
    ctx.out.ok()?;
    if args.restart {
        services::restart_each(ctx, &rack, &app).await?;
        return Ok(0);
    }
    ctx.out.result(&args.name, &serde_json::json!({"app": app, "config": args.name}))?;
    Ok(0)
}

/// From the file; else what is piped in, else the value.
fn text(ctx: &Ctx, args: &ConfigSet) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    match (&args.file, &args.value) {
        (Some(path), _) => {
            let read = std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut text));
            read.map_err(|error| Failure::new(format!("failed to read the file {path}: {error}")))?;
        }
        (None, Some(value)) => {
            if !ctx.env.stdin_is_terminal {
                let read = std::io::stdin().lock().take(LONGEST).read_to_end(&mut text);
                read.map_err(|error| Failure::new(format!("could not read standard input: {error}")))?;
            }
            // v3 takes an empty pipe for an empty text; whoever gives a value means it.
            if text.is_empty() {
                text.extend_from_slice(value.as_bytes());
            }
        }
        (None, None) => return Err(Failure::new("--file or --value flag is required")),
    }
    Ok(text)
}
