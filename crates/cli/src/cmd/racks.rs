//! `racks`: those behind the Console, and those that this machine knows itself.

use std::time::Duration;

use convox_client::Client;
use convox_tls::Trust;
use convox_wire::api::RackEntry;
use serde::Serialize;

use crate::Ctx;
use crate::args::WatchFlag;
use crate::error::Failure;
use crate::pins;
use crate::reach::{Reached, full_name};
use crate::table::Table;
use crate::target::{self, Choice, Source, Target};

/// For the status of a Rack that this machine knows: a listing does not wait for the dead.
const PATIENCE: Duration = Duration::from_secs(3);

/// One row of `racks --json`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    provider: String,
    status: String,
    /// Where the Rack is known from: a Console's host, or `this machine`.
    from: String,
    /// Where it is spoken to.
    host: String,
}

pub(super) async fn list(ctx: &Ctx, watch: WatchFlag) -> Result<u8, Failure> {
    ctx.watched(watch, async || show_all(ctx).await).await?;
    Ok(0)
}

async fn show_all(ctx: &Ctx) -> Result<(), Failure> {
    let mut rows = machine(ctx).await?;
    let console = match ctx.host().await {
        Ok(reached) => remote(&reached).await,
        Err(failure) => Err(failure),
    };
    let failed = match console {
        Ok(found) => {
            rows.extend(found);
            None
        }
        // A Console that does not answer is no reason to hide what is known without it, and no reason to say nothing.
        Err(failure) if rows.is_empty() || failure.cause().is_some() => Some(failure),
        // Somebody who has Racks of their own need not be logged in.
        Err(_) => None,
    };
    if let Some(failure) = failed {
        if !rows.is_empty() {
            show(ctx, rows)?;
        }
        return Err(failure);
    }
    show(ctx, rows)
}

fn show(ctx: &Ctx, mut rows: Vec<Row>) -> Result<(), Failure> {
    rows.sort();
    rows.dedup_by(|a, b| a.name == b.name && a.host == b.host);
    if ctx.out.is_json() {
        return ctx.out.json(&rows);
    }
    let mut table = Table::new(&["NAME", "STATUS"]);
    for row in &rows {
        table.row([&row.name, &row.status]);
    }
    ctx.out.table(&table)
}

/// The Console's list; a Rack that is logged in to directly is its own only entry.
pub(super) async fn remote(reached: &Reached) -> Result<Vec<Row>, Failure> {
    let host = reached.target.host.value.clone();
    match reached.client.racks().await {
        Ok(entries) => Ok(entries.iter().map(|entry| behind(entry, &host)).collect()),
        Err(error) if error.is_not_found() => {
            let system = reached.client.system().await?;
            Ok(vec![Row { name: system.name, provider: system.provider, status: system.status, from: "this login".to_owned(), host }])
        }
        Err(error) => Err(error.into()),
    }
}

fn behind(entry: &RackEntry, host: &str) -> Row {
    let provider = if entry.provider.is_empty() { "unknown" } else { &entry.provider };
    Row {
        name: full_name(entry),
        provider: provider.to_owned(),
        status: entry.status.clone(),
        from: host.to_owned(),
        host: host.to_owned(),
    }
}

/// Racks that this machine knows by name: those of `rack install`, and v3's `racks/`. All are asked at once; one that does
/// not answer is `unknown`.
async fn machine(ctx: &Ctx) -> Result<Vec<Row>, Failure> {
    let mut names: Vec<String> = ctx.settings.map("self-managed")?.into_keys().collect();
    names.extend(ctx.settings.list("racks"));
    names.sort();
    names.dedup();
    let rows = futures_util::future::join_all(names.into_iter().map(|name| row(ctx, name))).await;
    Ok(rows)
}

async fn row(ctx: &Ctx, name: String) -> Row {
    let target = target::on_this_machine(&ctx.env, &ctx.settings, &Choice { value: name.clone(), source: Source::Machine("racks") });
    let (host, asked) = match target {
        Ok(Some(target)) => (target.host.value.clone(), tokio::time::timeout(PATIENCE, status(ctx, &target)).await.ok()),
        _ => (String::new(), None),
    };
    let (provider, status) = asked.and_then(Result::ok).unwrap_or_else(|| ("unknown".to_owned(), "unknown".to_owned()));
    Row { name, provider, status, from: "this machine".to_owned(), host }
}

async fn status(ctx: &Ctx, target: &Target) -> Result<(String, String), Failure> {
    // A listing decides nothing about trust: what is not pinned must be vouched for.
    let host = target.endpoint.authority();
    let trust = pins::read(&ctx.settings, host)?.map_or(Trust::SystemRoots, Trust::Pinned);
    let system = Client::new(target.endpoint.clone(), trust, ctx.context(host, None)?).system().await?;
    Ok((system.provider, system.status))
}
