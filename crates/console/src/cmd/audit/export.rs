//! The log for others: events as lines of JSON or as CSV, and whole chains, which can be checked without the database.

use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use convox_model::Event;
use convox_seal::chain::digest;
use convox_store::audit::Filter;
use convox_store::audit::check::{Place, Record};
use convox_store::{LONGEST_PAGE, Page};
use serde_json::json;

use super::super::Desk;
use super::filter;
use crate::args::audit::{Format, Wanted};
use crate::args::{Common, Place as Where};
use crate::hex::hex;
use crate::table;
use crate::views;

pub(super) async fn run(wanted: &Wanted, format: Format, out: Option<&Path>, place: Where) -> Result<()> {
    let desk = Desk::open(&Common { place, json: true }).await?;
    let to: Box<dyn Write> = match out {
        Some(path) => {
            let file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
            Box::new(file.with_context(|| format!("could not make {}; an existing file is never overwritten", path.display()))?)
        }
        None => Box::new(std::io::stdout()),
    };
    let mut to = BufWriter::new(to);
    let filter = filter(&desk, wanted)?;
    let written = match format {
        Format::Lines | Format::Csv => events(&desk, wanted, filter, format, &mut to).await,
        Format::Chain => chains(&desk, wanted, filter, &mut to).await,
    };
    match written.and_then(|()| Ok(to.flush()?)) {
        // Whoever read it has enough.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) => Ok(()),
        other => other,
    }
}

/// Newest first, page after page.
async fn events(desk: &Desk, wanted: &Wanted, filter: Filter, format: Format, to: &mut impl Write) -> Result<()> {
    if format == Format::Csv {
        to.write_all(table::row(table::COLUMNS.iter().map(|name| (*name).to_owned())).as_bytes())?;
    }
    let mut page = Page::first(LONGEST_PAGE);
    loop {
        let events = desk.ops.list_audit(&desk.actor, wanted.org.as_deref(), filter.clone(), &page).await?;
        for event in &events {
            match format {
                Format::Csv => to.write_all(table::event(&views::event(event)).as_bytes())?,
                _ => writeln!(to, "{}", event.to_json_line())?,
            }
        }
        page.after = events.last().map(|event| event.id.clone());
        if (events.len() as i64) < LONGEST_PAGE {
            return Ok(());
        }
    }
}

/// Whole chains, in their order. What the filter leaves out stands there as its digest, so that the rest can be checked all the same.
async fn chains(desk: &Desk, wanted: &Wanted, filter: Filter, to: &mut impl Write) -> Result<()> {
    let store = &desk.ops.store;
    let org_id = match &wanted.org {
        Some(name) => Some(store.find_org(name).await?.with_context(|| format!("no such organization: {name}"))?.id.to_string()),
        None => None,
    };
    let mut wanted_ids: HashSet<String> = HashSet::new();
    for chain in store.list_chains(org_id.as_deref()).await? {
        let name = chain.name();
        let place = |place: &Place| json!({ "number": place.number, "link": hex(&place.link), "seal": hex(&place.seal) });
        writeln!(to, "{}", json!({ "chain": name, "begins": place(&chain.anchor) }))?;
        let mut after = chain.anchor.number;
        loop {
            let entries = store.chain_entries(chain.id, after, chain.head.number).await?;
            let Some(last) = entries.last().map(|entry| entry.number) else { break };
            for entry in entries {
                let (number, link, line) = (entry.number, hex(&entry.link), entry.line());
                let shown = match &entry.record {
                    Record::Event { line, id, .. } => {
                        let is_wanted = serde_json::from_str::<Event>(line).is_ok_and(|event| matches(&filter, &event));
                        if is_wanted && !is_open(&filter) {
                            wanted_ids.insert(id.clone());
                        }
                        is_wanted.then_some("event")
                    }
                    Record::End(end) => (is_open(&filter) || wanted_ids.contains(&end.of)).then_some("end"),
                };
                // The text goes in as it is: it is what the chain holds.
                match shown {
                    Some(kind) => writeln!(to, r#"{{"chain":"{name}","number":{number},"link":"{link}","{kind}":{line}}}"#)?,
                    None => writeln!(to, r#"{{"chain":"{name}","number":{number},"link":"{link}","digest":"{}"}}"#, hex(&digest(&line)))?,
                }
            }
            after = last;
        }
        writeln!(to, "{}", json!({ "chain": name, "ends": place(&chain.head) }))?;
    }
    Ok(())
}

/// Whether it leaves nothing out.
fn is_open(filter: &Filter) -> bool {
    let Filter { actor, org: _, rack, app, effect, decision, since_ms, until_ms } = filter;
    [actor, rack, app, effect, decision].iter().all(|text| text.is_empty()) && *since_ms <= 0 && until_ms.is_none()
}

/// What the database does for lists.
fn matches(filter: &Filter, event: &Event) -> bool {
    let Filter { actor, org: _, rack, app, effect, decision, since_ms, until_ms } = filter;
    let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
    fits(actor, &event.actor)
        && fits(rack, &event.rack)
        && fits(app, &event.app)
        && fits(effect, &event.effect)
        && fits(decision, &event.decision)
        && event.at_ms >= *since_ms
        && until_ms.is_none_or(|until_ms| event.at_ms < until_ms)
}
