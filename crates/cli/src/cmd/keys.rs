//! `keys ...`: API keys at a Console.
//!
//! The key in use is rolled in two steps, so that no moment is without a good one: the Console makes a new one beside it, the new one is kept
//! here, and then, asked by the new one, the Console ends the old one. Wherever that stops, the kept key is good.

use std::time::Duration;

use convox_client::keys::{KeyInfo, MadeKey, WantedKey};
use convox_client::{Client, Error};
use convox_wire::time::Time;
use serde::Serialize;

use crate::Ctx;
use crate::accounts::{self, Place};
use crate::ago::ago;
use crate::args::{Keys, KeysCommand, KeysCreate};
use crate::error::Failure;
use crate::reach::Reached;
use crate::table::Table;
use crate::target::Source;

pub(super) async fn run(ctx: &Ctx, args: Keys) -> Result<u8, Failure> {
    let reached = ctx.host().await?;
    let org = args.org.org.as_deref();
    let done = match args.command {
        None => list(ctx, &reached.client, org).await,
        Some(KeysCommand::Create(wanted)) => create(ctx, &reached.client, org, wanted).await,
        Some(KeysCommand::Roll { key: None, overlap }) if org.is_none() => roll_own(ctx, &reached, overlap).await,
        Some(KeysCommand::Roll { key: None, .. }) => {
            Err(Failure::new("which of the organization's keys?").hint("convox keys --org ORG lists them"))
        }
        Some(KeysCommand::Roll { key: Some(key), overlap }) => roll(ctx, &reached, org, &key, overlap).await,
        Some(KeysCommand::Revoke { key }) => revoke(ctx, &reached.client, org, &key).await,
    };
    match done {
        Ok(()) => Ok(0),
        // A Rack has no such route, and an older Console neither.
        Err(failure) if failure.cause().is_some_and(|cause| matches!(cause, Error::NotFound { .. }) && is_bare(cause)) => {
            Err(Failure::new(format!("{} keeps no API keys", reached.target.host.value))
                .hint("log in to a Console; a Rack has one password"))
        }
        Err(failure) => Err(failure),
    }
}

/// A 404 without words of its own: what is there does not know the route.
fn is_bare(error: &Error) -> bool {
    !error.to_string().contains("there is no such") && !error.to_string().contains("no such ")
}

async fn list(ctx: &Ctx, client: &Client, org: Option<&str>) -> Result<(), Failure> {
    let keys = client.keys(org).await?;
    // A roll that was cut off after the new key was kept is finished by whoever has it.
    if org.is_none() && client.current_key().await.is_ok_and(|own| own.state == "pending") {
        client.finish_key_roll().await?;
        ctx.out.talk("Finished the roll of your key that was cut off: the old one is dead.");
        return show(ctx, &client.keys(org).await?);
    }
    show(ctx, &keys)
}

fn show(ctx: &Ctx, keys: &[KeyInfo]) -> Result<(), Failure> {
    if ctx.out.is_json() {
        return ctx.out.json(&keys);
    }
    let mut table = Table::new(&["NAME", "KIND", "KEY", "STATE", "CREATED", "USED", "EXPIRES", "SCOPE"]);
    for key in keys {
        let used = if key.used.is_some() { when(key.used.as_deref()) } else { "never".to_owned() };
        let expires = if key.expires.is_some() { when(key.expires.as_deref()) } else { "never".to_owned() };
        let end = format!("...{}", key.last4);
        table.row([&key.name, &key.kind, &end, &key.state, &when(key.created.as_deref()), &used, &expires, &scope(key)]);
    }
    ctx.out.table(&table)
}

fn when(time: Option<&str>) -> String {
    time.and_then(|text| text.parse::<jiff::Timestamp>().ok()).map(|time| ago(Time::from(time))).unwrap_or_default()
}

/// What a key is limited to; `everything` of its owner's.
fn scope(key: &KeyInfo) -> String {
    let mut parts = Vec::new();
    match (&key.organization, key.racks.is_empty()) {
        (Some(org), true) => parts.push(format!("{org}/*")),
        (_, false) => parts.push(key.racks.join(", ")),
        (None, true) => {}
    }
    for (what, list) in [("apps ", &key.apps), ("may ", &key.may), ("from ", &key.networks)] {
        if !list.is_empty() {
            parts.push(format!("{what}{}", list.join(", ")));
        }
    }
    if parts.is_empty() { "everything".to_owned() } else { parts.join("; ") }
}

async fn create(ctx: &Ctx, client: &Client, org: Option<&str>, args: KeysCreate) -> Result<(), Failure> {
    if org.is_none() && (args.deploy || !args.rack.is_empty()) {
        let what = if args.deploy { "a deploy key is an organization's" } else { "a Rack is an organization's" };
        return Err(Failure::new(what).hint("name it: --org ORG"));
    }
    let expires_in_hours = match args.expires {
        Some(time) if time.as_secs() % 3600 != 0 || time.is_zero() => {
            return Err(Failure::new("a key ends after whole hours").hint("--expires 24h, or 720h for 30 days"));
        }
        time => time.map(|time| time.as_secs() / 3600),
    };
    let wanted = WantedKey {
        name: args.name,
        kind: if args.deploy { "deploy" } else { "user" }.to_owned(),
        expires_in_hours,
        organization: org.map(str::to_owned),
        racks: args.rack,
        apps: args.app,
        preset: args.preset,
        may: args.may,
        networks: args.network,
    };
    let made = client.create_key(&wanted).await?;
    tell(ctx, &made)
}

/// A key that was made, with the key itself.
#[derive(Serialize)]
struct Told<'a> {
    id: &'a str,
    name: &'a str,
    kind: &'a str,
    last4: &'a str,
    expires: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
    /// Whether it is the one that this machine uses from now on.
    saved: bool,
}

fn told(made: &MadeKey, saved: bool) -> Told<'_> {
    let MadeKey { id, name, kind, api_key, last4, expires } = made;
    Told { id, name, kind, last4, expires: expires.as_deref(), api_key: (!saved).then(|| api_key.expose()), saved }
}

/// The key is data; that it is shown once is talk.
fn tell(ctx: &Ctx, made: &MadeKey) -> Result<(), Failure> {
    if ctx.out.is_json() {
        return ctx.out.json(&told(made, false));
    }
    ctx.out.talk(&format!("The key {}, shown this once:", made.name));
    ctx.out.line(made.api_key.expose())
}

fn seconds(overlap: Option<Duration>) -> u64 {
    overlap.map_or(0, |overlap| overlap.as_secs())
}

fn until(overlap: Option<Duration>) -> String {
    match overlap.filter(|overlap| !overlap.is_zero()) {
        None => "the old one is dead".to_owned(),
        Some(overlap) => format!("the old one is good for another {}", convox_wire::duration::go_format(overlap)),
    }
}

/// Rolls the key in use.
async fn roll_own(ctx: &Ctx, reached: &Reached, overlap: Option<Duration>) -> Result<(), Failure> {
    // A roll that was cut off is finished first: it is the one that was kept which is rolled.
    if reached.client.current_key().await.is_ok_and(|own| own.state == "pending") {
        reached.client.finish_key_roll().await?;
    }
    let made = reached.client.begin_key_roll(seconds(overlap)).await?;
    let saved = matches!(reached.target.key, Source::Saved(_));
    if saved {
        // On the disk before the old one ends.
        keep(ctx, reached, &made)?;
    } else {
        // It came from a variable or an argument, which are not ours to change: whoever gave it takes the new one from here.
        tell(ctx, &made)?;
    }
    finish(ctx, reached, &made).await?;
    if saved && ctx.out.is_json() {
        return ctx.out.json(&told(&made, true));
    }
    let where_to = if saved { "saved" } else { "yours to keep" };
    ctx.out.talk(&format!("Rolled {}: the new key is {where_to}, {}.", made.name, until(overlap)));
    Ok(())
}

fn keep(ctx: &Ctx, reached: &Reached, made: &MadeKey) -> Result<(), Failure> {
    let (host, target) = (reached.target.endpoint.authority(), &reached.target);
    let account = target.account.as_ref().map_or(accounts::DEFAULT, |account| account.value.as_str());
    let place = target.place.clone().unwrap_or(Place::File);
    let known = accounts::MadeKey {
        id: made.id.clone(),
        name: made.name.clone(),
        last4: made.last4.clone(),
        expires: made.expires.clone().unwrap_or_default(),
    };
    ctx.settings.change(|change| accounts::roll(change, host, account, &place, &made.api_key, &known))
}

/// Asked by the new key, so that the Console knows that it was kept.
async fn finish(ctx: &Ctx, reached: &Reached, made: &MadeKey) -> Result<(), Failure> {
    let endpoint = reached.target.endpoint.clone().with_key(made.api_key.clone());
    let context = ctx.context(endpoint.authority(), None)?;
    let client = crate::pins::connect(&ctx.env, &ctx.settings, &ctx.out, &endpoint, &context, None).await?;
    client.finish_key_roll().await.map_err(|error| {
        Failure::from(error)
            .while_doing("the new key is kept and good, but the old one is still good too")
            .hint("`convox keys` tries again to end the old one")
    })
}

/// The key of that id, or the one of that name that is in its place.
async fn named(client: &Client, org: Option<&str>, key: &str) -> Result<KeyInfo, Failure> {
    let keys = client.keys(org).await?;
    let found =
        keys.iter().find(|known| known.id == key).or_else(|| keys.iter().find(|known| known.name == key && known.state == "active"));
    found.cloned().ok_or_else(|| {
        Failure::new(format!("there is no key named {key}"))
            .hint("`convox keys` lists yours, `convox keys --org ORG` those of an organization")
    })
}

async fn roll(ctx: &Ctx, reached: &Reached, org: Option<&str>, key: &str, overlap: Option<Duration>) -> Result<(), Failure> {
    let known = named(&reached.client, org, key).await?;
    if org.is_none() && reached.client.current_key().await.is_ok_and(|own| own.id == known.id) {
        return roll_own(ctx, reached, overlap).await;
    }
    let made = reached.client.roll_key(org, &known.id, seconds(overlap)).await?;
    tell(ctx, &made)?;
    ctx.out.talk(&format!("Rolled {}: {}.", made.name, until(overlap)));
    Ok(())
}

async fn revoke(ctx: &Ctx, client: &Client, org: Option<&str>, key: &str) -> Result<(), Failure> {
    let known = named(client, org, key).await?;
    client.revoke_key(org, &known.id).await?;
    if ctx.out.is_json() {
        return ctx.out.json(&serde_json::json!({ "revoked": known.id, "name": known.name }));
    }
    ctx.out.talk(&format!("Revoked {}; what it had open is cut.", known.name));
    Ok(())
}
