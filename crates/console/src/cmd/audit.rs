//! The audit log on the command line: reading, checking, exporting, and how long it is kept.

mod export;
mod verify;

use anyhow::{Context as _, Result};
use convox_store::Page;
use convox_store::audit::Filter;
use convox_store::audit::retention::Rule;
use serde_json::json;

use super::{Desk, pages};
use crate::args::Common;
use crate::args::audit::{AuditCommand, Hold, Wanted};
use crate::views;

pub(super) async fn run(command: AuditCommand) -> Result<()> {
    match command {
        AuditCommand::List { wanted, limit, common } => list(&wanted, limit, &common).await,
        AuditCommand::Verify { org, file, audit_spill, place, json } => {
            verify::run(org.as_deref(), file.as_deref(), audit_spill.as_deref(), &place, json).await
        }
        AuditCommand::Export { wanted, format, out, place } => export::run(&wanted, format, out.as_deref(), place).await,
        AuditCommand::Retention { org, keep, hold, common } => retention(org.as_deref(), keep, hold, &common).await,
        AuditCommand::Prune { common } => prune(&common).await,
    }
}

/// What was asked for, but for the organization.
fn filter(desk: &Desk, wanted: &Wanted) -> Result<Filter> {
    let Wanted { actor, rack, app, effect, decision, since, until, .. } = wanted.clone();
    let ago = |option: &str, text: Option<String>| {
        let Some(text) = text else { return Ok(None) };
        let ago = convox_wire::duration::go_parse(&text).with_context(|| format!("{option} {text}: give a duration such as 30m or 24h"))?;
        anyhow::Ok(Some(desk.ops.clock.now_ms() - i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
    };
    let since_ms = ago("--since", since)?.unwrap_or(0);
    Ok(Filter { actor, rack, app, effect, decision, since_ms, until_ms: ago("--until", until)?, org: None })
}

async fn list(wanted: &Wanted, limit: i64, common: &Common) -> Result<()> {
    let desk = Desk::open(common).await?;
    let filter = filter(&desk, wanted)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let next = async |page: &Page| desk.ops.list_audit(&desk.actor, wanted.org.as_deref(), filter.clone(), page).await;
    let events = pages(limit, next, |event| event.id.as_str()).await?;
    desk.output.list(
        &["at", "actor", "org", "rack", "effect", "action", "path", "decision", "rule", "status"],
        events.iter().map(views::event).collect(),
    )
}

const DAY_MS: i64 = 86_400_000;

async fn retention(org: Option<&str>, keep: Option<String>, hold: Option<Hold>, common: &Common) -> Result<()> {
    let desk = Desk::open(common).await?;
    if keep.is_none() && hold.is_none() {
        let rules = desk.ops.list_audit_rules().await?;
        let rows = rules.into_iter().map(|(org, rule)| rule_view(&org, rule)).collect();
        return desk.output.list(&["organization", "keep_days", "hold"], rows);
    }
    let (id, before) = desk.ops.audit_rule(&desk.actor, org).await?;
    let keep_ms = match keep.as_deref() {
        None => before.keep_ms,
        Some("forever") => None,
        Some(days) => Some(
            days.parse::<i64>().ok().filter(|days| (1..=36_500).contains(days)).context("--keep: give a number of days, or forever")?
                * DAY_MS,
        ),
    };
    let rule = Rule { keep_ms, hold: hold.map_or(before.hold, |hold| hold == Hold::On) };
    let seq = desk.ops.set_audit_rule(&desk.actor, org, &id, rule).await?;
    let name = org.unwrap_or("-");
    let kept = rule.keep_ms.map_or_else(|| "for ever".to_owned(), |ms| format!("for {} days", ms / DAY_MS));
    let held = if rule.hold { "; on hold, so nothing is removed" } else { "" };
    desk.done(seq, &rule_view(name, rule), &format!("Events of {name} are kept {kept}{held}.")).await
}

fn rule_view(org: &str, rule: Rule) -> serde_json::Value {
    json!({ "organization": org, "keep_days": rule.keep_ms.map(|ms| ms / DAY_MS), "hold": rule.hold })
}

async fn prune(common: &Common) -> Result<()> {
    let desk = Desk::open(common).await?;
    let removed = desk.ops.prune_audit(&desk.actor).await?;
    desk.output.value(&json!({ "removed": removed }), &format!("Removed {removed} entries that were older than the rules keep."))
}
