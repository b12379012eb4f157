//! `accounts`: who is logged in where, and where each key is kept; `accounts move` keeps them elsewhere.

use serde::Serialize;

use crate::Ctx;
use crate::accounts::{self, Book, Place, helper};
use crate::args::{Accounts, AccountsCommand, AccountsMove};
use crate::error::Failure;
use crate::table::Table;
use crate::target::{self, bare_host};

#[derive(Serialize)]
struct Row {
    host: String,
    account: String,
    /// Whether commands at that host use it, from here.
    active: bool,
    /// What decided that.
    source: Option<String>,
    email: Option<String>,
    /// `file`, or the program.
    kept: String,
    /// Name and end of a key that was made for this machine.
    key: Option<String>,
    expires: Option<String>,
}

pub(super) fn run(ctx: &Ctx, args: Accounts) -> Result<u8, Failure> {
    match args.command {
        Some(AccountsCommand::Move(args)) => relocate(ctx, &args),
        None => list(ctx),
    }
}

fn rows(ctx: &Ctx) -> Result<Vec<Row>, Failure> {
    let book = Book::read(&ctx.settings)?;
    let mut rows = Vec::new();
    for host in accounts::hosts(&ctx.settings, &book)? {
        let chosen = accounts::choose(&ctx.env, &book, &host)?;
        for name in accounts::names(&ctx.settings, &book, &host)? {
            let known = book.account(&host, &name).cloned().unwrap_or_default();
            let active = chosen.value == name;
            rows.push(Row {
                active,
                source: active.then(|| chosen.source.to_string()),
                email: known.email.clone(),
                kept: known.helper.as_deref().map_or_else(|| "file".to_owned(), helper::program),
                key: known.made.as_ref().map(|made| made.name.clone()),
                expires: known.made.as_ref().map(|made| made.expires.clone()),
                host: host.clone(),
                account: name,
            });
        }
    }
    Ok(rows)
}

fn list(ctx: &Ctx) -> Result<u8, Failure> {
    let rows = rows(ctx)?;
    if ctx.out.is_json() {
        ctx.out.json(&rows)?;
        return Ok(0);
    }
    let current = target::host(&ctx.env, &ctx.settings)?.map(|choice| choice.value);
    let mut table = Table::new(&["HOST", "ACCOUNT", "ACTIVE", "USER", "EXPIRES", "KEPT"]);
    for row in &rows {
        let active = match (&row.source, current.as_deref() == Some(row.host.as_str())) {
            (Some(source), true) => format!("now ({source})"),
            (Some(source), false) => format!("there ({source})"),
            (None, _) => String::new(),
        };
        let expires = row.expires.as_deref().and_then(|time| time.split('T').next()).unwrap_or_default();
        table.row([&row.host, &row.account, &active, row.email.as_deref().unwrap_or_default(), expires, &row.kept]);
    }
    ctx.out.table(&table)?;
    Ok(0)
}

#[derive(Serialize)]
struct Moved {
    host: String,
    account: String,
    kept: String,
}

/// One account after the other: each is whole in one place or the other at every moment.
fn relocate(ctx: &Ctx, args: &AccountsMove) -> Result<u8, Failure> {
    let to = Place::parse(&args.place)?;
    if let Place::Helper(name) = &to {
        helper::is_there(name)?;
    }
    let host = args.host.as_deref().map(bare_host);
    let is_meant = |row: &Row| host.is_none_or(|host| row.host == host) && args.account.as_ref().is_none_or(|name| row.account == *name);
    let meant: Vec<Row> = rows(ctx)?.into_iter().filter(is_meant).collect();
    if meant.is_empty() {
        return Err(Failure::new("no such account").hint("convox accounts lists them"));
    }
    let mut moved = Vec::new();
    for row in meant {
        let book = Book::read(&ctx.settings)?;
        let Some(kept) = accounts::key(&ctx.settings, &book, &row.host, &row.account)? else { continue };
        if kept.place != to {
            if let Place::Helper(name) = &to {
                helper::store(name, &row.host, &row.account, &kept.key)?;
            }
            ctx.settings.change(|change| accounts::relocate(change, &row.host, &row.account, &kept, &to))?;
            if let Place::Helper(before) = &kept.place
                && let Err(failure) = helper::erase(before, &row.host, &row.account)
            {
                ctx.out.talk(&format!("note: the key is still there, too: {failure}"));
            }
        }
        let place = to.describe(&ctx.settings);
        ctx.out.progress(&format!("{} of {} is kept in {place}\n", row.account, row.host))?;
        moved.push(Moved { host: row.host, account: row.account, kept: row.kept });
    }
    if host.is_none() && args.account.is_none() {
        ctx.settings.change(|change| accounts::set_usual(change, &to))?;
    }
    if ctx.out.is_json() {
        let kept = if let Place::Helper(name) = &to { helper::program(name) } else { "file".to_owned() };
        for row in &mut moved {
            row.kept.clone_from(&kept);
        }
        ctx.out.json(&moved)?;
    }
    Ok(0)
}
