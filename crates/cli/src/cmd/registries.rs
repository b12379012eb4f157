//! `registries ...`: where builds get private images.

use std::io::Read;

use crate::Ctx;
use crate::args::{Registries, RegistriesCommand};
use crate::error::Failure;
use crate::reach::Reached;
use crate::table::Table;

pub(super) async fn run(ctx: &Ctx, args: Registries) -> Result<u8, Failure> {
    match args.command {
        None => {
            let rack = ctx.rack(&args.rack).await?;
            ctx.watched(args.watch, async || list(ctx, &rack).await).await?;
        }
        Some(RegistriesCommand::Add { server, username, password, password_stdin }) => {
            let password = if password_stdin { piped()? } else { password.unwrap_or_default() };
            if password.is_empty() {
                return Err(Failure::new("the password is empty"));
            }
            let rack = ctx.rack(&args.rack).await?;
            ctx.out.start("Adding registry")?;
            rack.client.registry_add(&server, &username, &password).await?;
            ctx.out.ok()?;
            ctx.out.result(&server, &serde_json::json!({"server": server, "username": username}))?;
        }
        Some(RegistriesCommand::Remove { server }) => {
            let rack = ctx.rack(&args.rack).await?;
            ctx.out.start("Removing registry")?;
            rack.client.registry_remove(&server).await?;
            ctx.out.ok()?;
            ctx.out.result(&server, &serde_json::json!({"server": server, "removed": true}))?;
        }
    }
    Ok(0)
}

async fn list(ctx: &Ctx, rack: &Reached) -> Result<(), Failure> {
    let registries = rack.client.registries().await?;
    if ctx.out.is_json() {
        // Racks give the passwords away to whoever may read secrets; a list is no place for them.
        let rows: Vec<_> =
            registries.iter().map(|registry| serde_json::json!({"server": registry.server, "username": registry.username})).collect();
        return ctx.out.json(&rows);
    }
    let mut table = Table::new(&["SERVER", "USERNAME"]);
    for registry in &registries {
        table.row([&registry.server, &registry.username]);
    }
    ctx.out.table(&table)
}

/// The first line of standard input.
pub(super) fn piped() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(64 * 1024)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(format!("could not read standard input: {error}")))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
