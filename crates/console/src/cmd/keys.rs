//! The keys that seal, and the register of what they sealed.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use convox_store::data_keys::DataKeyRow;
use convox_store::register::Checked;
use serde_json::json;

use super::output::Output;
use super::{Desk, secret};
use crate::args::keys::KeysCommand;
use crate::ops::Ops;
use crate::ops::data_keys::Owner;
use crate::root::Source;
use crate::views;

/// Runs one of them.
pub(super) async fn run(command: KeysCommand) -> Result<()> {
    match command {
        KeysCommand::List { common } => {
            let desk = Desk::open(&common).await?;
            let orgs = desk.ops.orgs_named(None).await?;
            let rows = desk.ops.store.list_data_keys(None).await?;
            let view = |row: &DataKeyRow| {
                let newest = rows.iter().find(|other| other.owner == row.owner).is_some_and(|newest| newest.version == row.version);
                json!({
                    "owner": Ops::owner_name(&orgs, &row.owner), "version": row.version, "state": if newest { "active" } else { "old" },
                    "created": views::time(row.created_ms), "root_key": row.wrapped.wrapped_by().ok(),
                })
            };
            desk.output.list(&["owner", "version", "state", "created", "root_key"], rows.iter().map(view).collect())
        }
        KeysCommand::RollData { org, common } => {
            let desk = Desk::open(&common).await?;
            let mut texts = 0;
            let mut owners: Vec<Owner> = desk.ops.orgs_named(org.as_deref()).await?.into_iter().map(Owner::Org).collect();
            if org.is_none() {
                owners.push(Owner::Users);
            }
            for (done, owner) in owners.iter().enumerate() {
                let mut tell = |words: String| desk.output.progress(&format!("[{}/{}] {words}", done + 1, owners.len()));
                texts += desk.ops.roll_data_key(&desk.actor, owner, &mut tell).await?;
            }
            let words = format!("Rolled {} data keys; {texts} texts are sealed anew, and the old keys are destroyed.", owners.len());
            desk.output.value(&json!({ "data_keys": owners.len(), "resealed": texts }), &words)
        }
        KeysCommand::RollRoot { new_root_key_file, common } => {
            let desk = Desk::open(&common).await?;
            let given = new_root_key_file.as_deref().map(secret::from_file).transpose()?;
            let source = Source::of(&common.place)?;
            let mut tell = |words: String| desk.output.progress(&words);
            let rewrapped = desk.ops.roll_root_key(&desk.actor, &source, given, &mut tell).await?;
            let id = desk.ops.keyring.active_id();
            let words = format!("Rolled the root key: {id} wraps {rewrapped} data keys. Keep a copy of {}.", source.describe());
            desk.output.value(&json!({ "root_key": id, "rewrapped": rewrapped }), &words)
        }
        KeysCommand::RollCookies { common } => {
            let desk = Desk::open(&common).await?;
            let mut tell = |words: String| desk.output.progress(&words);
            desk.ops.roll_data_key(&desk.actor, &Owner::Cookies, &mut tell).await?;
            desk.output.value(&json!({ "rolled": "cookies" }), "Rolled the key of device cookies: those that were given are void.")
        }
        KeysCommand::Check { accept, at_least, common } => {
            let desk = Desk::open(&common).await?;
            if accept {
                let seq = desk.ops.accept_register(&desk.actor).await?;
                desk.ops.in_effect(seq).await;
            }
            let checked = desk.ops.check_register().await?;
            say(&desk.output, &checked, at_least)
        }
    }
}

/// What a look at the register showed; an error when something is not as it should be.
fn say(output: &Output, checked: &Checked, at_least: Option<u64>) -> Result<()> {
    let Checked { is_kept, number, texts, put_back } = checked;
    let is_behind = at_least.is_some_and(|least| number.is_some_and(|number| number < least));
    let is_whole = put_back.is_empty() && !is_behind && (number.is_some() || !is_kept);
    let value = json!({ "whole": is_whole, "kept": is_kept, "number": number, "texts": texts, "put_back": put_back });
    let mut words = match (is_kept, number) {
        (false, _) => format!("{texts} sealed texts; no register of them is kept yet, because a server of an earlier version runs."),
        (true, None) => format!("{texts} sealed texts; the register of them was taken out, edited or put back: none of them opens."),
        (true, Some(number)) => format!("{texts} sealed texts, {} of them put back; the register stands at {number}.", put_back.len()),
    };
    for what in put_back {
        let _ = write!(words, "\n  put back: {what}");
    }
    output.value(&value, &words)?;
    if is_behind {
        bail!(
            "the register stood at {} before: the database, or all that is sealed in it, is of an earlier time",
            at_least.unwrap_or_default()
        );
    }
    if !is_whole {
        bail!(
            "somebody wrote to the database past the Console, and what is named above is refused. Find out who; then add those Racks again and have \
             those authenticator apps set up again, or, if what is there now is right, run this with --accept"
        );
    }
    Ok(())
}
