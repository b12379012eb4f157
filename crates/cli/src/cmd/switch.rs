//! `switch`: which Rack commands mean from now on. One `GET /racks`, and nothing of the Rack itself.

use serde::Serialize;

use crate::Ctx;
use crate::accounts::{self, Book};
use crate::args::Switch;
use crate::error::Failure;
use crate::output::Style;
use crate::reach::{full_name, matched};
use crate::settings::select::{self, Kind};
use crate::target::{self, Source};

#[derive(Serialize)]
struct Switched<'a> {
    rack: Option<&'a str>,
    host: &'a str,
}

#[derive(Serialize)]
struct SwitchedAccount<'a> {
    host: &'a str,
    account: &'a str,
}

pub(super) async fn run(ctx: &Ctx, args: &Switch) -> Result<u8, Failure> {
    let name = args.rack.as_deref().map(str::trim).filter(|name| !name.is_empty());
    if let Some(account) = &args.account {
        to_account(ctx, account, name.is_none())?;
    }
    match name {
        Some(name) => to(ctx, name).await,
        None if args.account.is_some() => Ok(0),
        None => show(ctx),
    }
}

/// Another account of the host that commands mean.
fn to_account(ctx: &Ctx, name: &str, is_all: bool) -> Result<(), Failure> {
    let name = accounts::checked(name)?;
    let host =
        target::host(&ctx.env, &ctx.settings)?.ok_or_else(|| Failure::new("not logged in anywhere").hint("convox login HOST"))?.value;
    ctx.settings.change(|change| {
        let book = Book::read(change.settings())?;
        let names = accounts::names(change.settings(), &book, &host)?;
        if !names.contains(&name) {
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Failure::new(format!("{host} has no account {name} (known: {known})"))
                .hint(format!("convox login {host} --account {name}")));
        }
        accounts::activate(change, &host, &name)
    })?;
    ctx.out.progress(&format!("Switched to account {name} of {host}\n"))?;
    // What is switched to is not what commands will mean.
    let chosen = accounts::choose(&ctx.env, &Book::read(&ctx.settings)?, &host)?;
    if chosen.value != name {
        ctx.out.talk(&format!("note: commands here still use the account {}, from {}", chosen.value, chosen.source));
    }
    if is_all && ctx.out.is_json() {
        ctx.out.json(&SwitchedAccount { host: &host, account: &name })?;
    }
    Ok(())
}

/// The Rack that is selected now: a line, empty when there is none.
fn show(ctx: &Ctx) -> Result<u8, Failure> {
    let target = target::resolve(&ctx.env, &ctx.settings, None)?;
    let rack = target.rack.as_ref().map(|rack| rack.value.as_str());
    if ctx.out.is_json() {
        ctx.out.json(&Switched { rack, host: &target.host.value })?;
    } else {
        ctx.out.line(&ctx.out.paint(Style::Rack, rack.unwrap_or_default()))?;
    }
    Ok(0)
}

async fn to(ctx: &Ctx, name: &str) -> Result<u8, Failure> {
    let (name, host) = match mine(ctx, name)? {
        Some(found) => found,
        None => behind(ctx, name).await?,
    };
    ctx.out.progress(&format!("Switched to {}\n", ctx.out.paint(Style::Rack, &name)))?;
    if ctx.out.is_json() {
        ctx.out.json(&Switched { rack: Some(&name), host: &host })?;
    }
    // What is switched to is not what commands will mean.
    if let Ok(target) = target::resolve(&ctx.env, &ctx.settings, None)
        && let Some(rack) = &target.rack
        && rack.value != name
        && !matches!(rack.source, Source::Saved(_))
    {
        ctx.out.talk(&format!("note: commands here still mean {}, from {}", rack.value, rack.source));
    }
    Ok(0)
}

/// A Rack that this machine knows by exactly that name: its host becomes the one that commands mean.
fn mine(ctx: &Ctx, name: &str) -> Result<Option<(String, String)>, Failure> {
    let Some(host) = ctx.settings.key("self-managed", name)? else {
        let is_file = !name.contains(['/', '\\']) && !name.starts_with('.') && !ctx.settings.text(&format!("racks/{name}"))?.is_empty();
        let is_dir = !name.contains(['/', '\\']) && !name.starts_with('.') && ctx.settings.path("racks").join(name).is_dir();
        if !is_file && !is_dir {
            return Ok(None);
        }
        let kind = if is_file { Kind::Direct } else { Kind::Terraform };
        ctx.settings.change(|change| select::write(change, "", name, kind))?;
        return Ok(Some((name.to_owned(), String::new())));
    };
    ctx.settings.change(|change| {
        change.remove("rack")?;
        change.set_text("host", &host)?;
        change.set_text("console", &host)
    })?;
    Ok(Some((name.to_owned(), host)))
}

/// A Rack behind the Console that one is logged in to.
async fn behind(ctx: &Ctx, name: &str) -> Result<(String, String), Failure> {
    let reached = ctx.host().await?;
    let host = reached.target.host.value.clone();
    let entries = match reached.client.racks().await {
        Ok(entries) => entries,
        Err(error) if error.is_not_found() => {
            let system = reached.client.system().await?;
            if system.name == name {
                return Ok((system.name, host));
            }
            return Err(Failure::new(format!("could not find rack: {name}"))
                .hint(format!("{host} is the Rack {} itself, not a Console: log in to another with convox login HOST", system.name)));
        }
        Err(error) => return Err(error.into()),
    };
    let names: Vec<String> = entries.iter().map(full_name).collect();
    let full = matched(name, &names)?;
    ctx.settings.change(|change| select::write(change, &host, &full, Kind::Console))?;
    Ok((full, host))
}
