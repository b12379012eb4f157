//! Is the log whole? On the database, or on an exported file without one.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use convox_model::Event;
use convox_seal::chain::{ChainKey, digest};
use convox_store::audit::Entry;
use convox_store::audit::carry::Known;
use convox_store::audit::check::{Checker, Fault, Place};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::output::Output;
use super::super::place;
use crate::args::audit::MaybePlace;
use crate::audit::spill::{self, Reading};
use crate::hex::{from_hex, hex};

/// What was found.
#[derive(Default)]
struct Found {
    chains: usize,
    events: u64,
    /// Entries of an export of which only the digest is there.
    left_out: u64,
    /// Entries that were removed because of their age.
    removed: i64,
    /// Events from before there were chains.
    unchained: i64,
    /// Entries of the second log that are not in the database yet.
    waiting: u64,
    /// Whether seals were looked at.
    sealed: bool,
    /// Newest entry and link of each chain: whoever notes them elsewhere can tell later whether the log was set back.
    heads: Vec<(String, Place)>,
    faults: Vec<Fault>,
}

pub(super) async fn run(org: Option<&str>, file: Option<&Path>, spill: Option<&Path>, maybe: &MaybePlace, json: bool) -> Result<()> {
    let found = match file {
        Some(file) => in_file(file, maybe).await?,
        None => in_database(org, spill, maybe).await?,
    };
    say(&found, json)
}

async fn in_database(org: Option<&str>, spill: Option<&Path>, maybe: &MaybePlace) -> Result<Found> {
    let ops = place::open(&maybe.whole()?).await?;
    // First: what is carried meanwhile is then in the database.
    let spilled = spill.map(|dir| in_spill(dir, &ops.lookup.chain_key())).transpose()?;
    let org_id = match org {
        Some(name) => Some(ops.store.find_org(name).await?.with_context(|| format!("no such organization: {name}"))?.id.to_string()),
        None => None,
    };
    let mut found = Found { sealed: true, ..Found::default() };
    for chain in ops.store.list_chains(org_id.as_deref()).await? {
        let (events, faults) = ops.store.check_chain(&chain).await?;
        found.chains += 1;
        found.events += events;
        found.removed += chain.anchor.number;
        found.faults.extend(faults);
        found.heads.push((chain.name(), chain.head));
    }
    if org_id.is_some() {
        // Those that are nobody's say how many chains there must be of all.
        for chain in ops.store.list_chains(Some("")).await? {
            found.faults.extend(ops.store.check_head(&chain).await?);
        }
    }
    let (unchained, strays) = ops.store.check_outside(org_id.as_deref()).await?;
    found.unchained = unchained;
    found.faults.extend(strays);
    found.faults.extend(ops.store.check_audit_register().await?);
    for (entries, faults) in spilled.into_iter().flatten() {
        let known = ops.store.known_entries(&entries).await?;
        found.waiting += known.iter().filter(|known| **known == Known::No).count() as u64;
        found.faults.extend(faults);
        for (entry, _) in entries.iter().zip(known).filter(|(_, known)| *known == Known::Otherwise) {
            let (Entry::Event(event), what) = (entry, "the second log has another event of this id than the database") else {
                continue;
            };
            found.faults.push(Fault { chain: "spill".to_owned(), number: 0, event: event.id.clone(), what: what.to_owned() });
        }
    }
    Ok(found)
}

/// The sound entries of each file of the second log, and what is wrong with it. A server may be writing there.
fn in_spill(dir: &Path, key: &ChainKey) -> Result<Vec<(Vec<Entry>, Vec<Fault>)>> {
    let read = |path: &Path| -> std::io::Result<(Vec<Entry>, Vec<Fault>)> {
        let (mut reading, mut entries) = (Reading::open(path, key)?, Vec::new());
        while let Some(entry) = reading.next_entry()? {
            entries.push(entry);
        }
        Ok((entries, reading.faults))
    };
    let mut all = Vec::new();
    for path in spill::files(dir).with_context(|| format!("could not read {}", dir.display()))? {
        match read(&path) {
            Ok(found) => all.push(found),
            // It is in the database now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("could not read {}", path.display())),
        }
    }
    Ok(all)
}

/// A line of an export in form `chain`.
#[derive(Deserialize)]
struct Line<'a> {
    chain: String,
    #[serde(default)]
    begins: Option<Written>,
    #[serde(default)]
    ends: Option<Written>,
    #[serde(default)]
    number: i64,
    #[serde(default)]
    link: String,
    #[serde(default, borrow)]
    event: Option<&'a RawValue>,
    #[serde(default, borrow)]
    end: Option<&'a RawValue>,
    #[serde(default)]
    digest: Option<String>,
}

#[derive(Deserialize)]
struct Written {
    number: i64,
    link: String,
    seal: String,
}

impl Written {
    fn place(&self) -> Place {
        let bytes = |text| from_hex(text).unwrap_or_default();
        Place { number: self.number, link: bytes(&self.link), seal: bytes(&self.seal) }
    }
}

async fn in_file(path: &Path, maybe: &MaybePlace) -> Result<Found> {
    let key: Option<ChainKey> = match maybe.whole().ok().filter(|_| maybe.has_data()) {
        Some(place) => Some(place::open(&place).await?.lookup.chain_key()),
        None => None,
    };
    let file = std::fs::File::open(path).with_context(|| format!("could not open {}", path.display()))?;
    let mut found = Found { sealed: key.is_some(), ..Found::default() };
    let mut open: BTreeMap<String, Checker<'_>> = BTreeMap::new();
    for (at, line) in std::io::BufReader::new(file).lines().enumerate() {
        let at = at + 1;
        let line = line.with_context(|| format!("{} cannot be read at line {at}", path.display()))?;
        let Ok(Line { chain, begins, ends, number, link, event, end, digest: given }) = serde_json::from_str::<Line<'_>>(&line) else {
            bail!("line {at} of {} is no line of an export: make one with `convox-console audit export --format chain`", path.display());
        };
        if let Some(begins) = begins {
            found.chains += 1;
            found.removed += begins.number;
            open.insert(chain.clone(), Checker::new(&chain, &begins.place(), key.as_ref()));
            continue;
        }
        let Some(checker) = open.get_mut(&chain) else {
            bail!("line {at} of {}: chain {chain} has not begun; lines before it are missing", path.display());
        };
        if let Some(ends) = ends {
            let place = ends.place();
            if let Some(checker) = open.remove(&chain) {
                found.faults.extend(checker.end(&place));
            }
            found.heads.push((chain, place));
            continue;
        }
        let link = from_hex(&link).unwrap_or_default();
        match (event, end, given.and_then(|text| from_hex(&text))) {
            (Some(event), None, None) => {
                found.events += 1;
                let id = serde_json::from_str::<Event>(event.get()).map(|event| event.id).unwrap_or_default();
                checker.entry(number, &id, &digest(event.get()), &link);
            }
            (None, Some(end), None) => {
                let of = serde_json::from_str::<Value>(end.get()).ok().and_then(|end| end["of"].as_str().map(str::to_owned));
                checker.entry(number, &of.unwrap_or_default(), &digest(end.get()), &link);
            }
            (None, None, Some(given)) if given.len() == 32 => {
                found.left_out += 1;
                checker.entry(number, "", &<[u8; 32]>::try_from(given.as_slice()).unwrap_or_default(), &link);
            }
            _ => bail!("line {at} of {} has neither event, end nor digest", path.display()),
        }
    }
    for chain in open.into_keys() {
        found.faults.push(Fault { chain, number: 0, event: String::new(), what: "the file ends before this chain does".to_owned() });
    }
    Ok(found)
}

fn say(found: &Found, json: bool) -> Result<()> {
    let output = Output { json };
    let faults: Vec<Value> = found
        .faults
        .iter()
        .map(|fault| json!({ "chain": fault.chain, "number": fault.number, "event": fault.event, "what": fault.what }))
        .collect();
    let heads: Vec<Value> =
        found.heads.iter().map(|(chain, head)| json!({ "chain": chain, "number": head.number, "link": hex(&head.link) })).collect();
    let value = json!({
        "whole": found.faults.is_empty(), "chains": found.chains, "events": found.events, "left_out": found.left_out,
        "removed": found.removed, "unchained": found.unchained, "waiting": found.waiting, "sealed": found.sealed, "heads": heads, "faults": faults,
    });
    let mut words = format!("{} events in {} chains", found.events, found.chains);
    for (count, what) in [
        (found.left_out as i64, "entries left out of the export, whose digests fit"),
        (found.removed, "entries removed earlier because of their age"),
        (found.unchained, "events from before there were chains, which cannot be checked"),
        (found.waiting as i64, "entries wait in the second log to be carried into the database"),
    ] {
        if count > 0 {
            words.push_str(&format!("; {count} {what}"));
        }
    }
    words.push('.');
    if !found.sealed {
        words.push_str(" Seals were not checked, since no root key was given: a whole file can also be one that somebody wrote anew.");
    }
    for fault in &found.faults {
        let event = if fault.event.is_empty() { String::new() } else { format!(", event {}", fault.event) };
        let place = if fault.chain.is_empty() { String::new() } else { format!("chain {} at {}", fault.chain, fault.number) };
        words.push_str(&format!("\nBROKEN: {place}{event}: {}", fault.what));
    }
    if found.faults.is_empty() {
        words.push_str(" Whole.");
    }
    output.value(&value, &words)?;
    if !found.faults.is_empty() {
        bail!("the audit log is not whole: {} faults", found.faults.len());
    }
    Ok(())
}
