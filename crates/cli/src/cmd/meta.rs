//! What is about the program itself: help, version, completion, manual pages.

use clap::CommandFactory;
use serde::Serialize;

use crate::args::{self, Cli, Completion, RackFlag, help};
use crate::error::Failure;
use crate::target;
use crate::{Ctx, VERSION};

#[derive(Serialize)]
struct Versions {
    client: &'static str,
    server: Option<String>,
    host: Option<String>,
}

/// `client` always answers; `server` is `none` where nothing is configured.
pub(super) async fn version(ctx: &Ctx, rack: &RackFlag) -> Result<u8, Failure> {
    if !ctx.out.is_json() {
        ctx.out.line(&format!("client: {VERSION}"))?;
    }
    let mut versions = Versions { client: VERSION, server: None, host: None };
    if target::resolve(&ctx.env, &ctx.settings, rack.rack.as_deref()).is_ok() {
        let rack = ctx.rack(rack).await?;
        versions.server = Some(rack.client.system().await?.version);
        versions.host = Some(rack.target.host.value);
    }
    if ctx.out.is_json() {
        ctx.out.json(&versions)?;
        return Ok(0);
    }
    match (versions.server, versions.host) {
        (Some(server), Some(host)) => ctx.out.line(&format!("server: {server} ({host})"))?,
        _ => ctx.out.line("server: none")?,
    }
    Ok(0)
}

pub(super) fn help(ctx: &Ctx, words: &[String]) -> Result<u8, Failure> {
    ctx.out.raw(help::about_words(words).as_bytes())?;
    Ok(0)
}

pub(super) fn completion(ctx: &Ctx, args: &Completion) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "convox", &mut script);
    ctx.out.raw(&script)?;
    Ok(0)
}

/// The program's page on standard output, or every page as a file.
pub(super) fn man(ctx: &Ctx, words: &args::Man) -> Result<u8, Failure> {
    let pages = args::man::pages(Cli::command())?;
    let Some(dir) = &words.dir else {
        let own = pages.first().map(|(_, text)| text.as_slice()).unwrap_or_default();
        ctx.out.raw(own)?;
        return Ok(0);
    };
    let cannot = |error: std::io::Error| Failure::new(format!("could not write to {}: {error}", dir.display()));
    std::fs::create_dir_all(dir).map_err(cannot)?;
    for (name, text) in &pages {
        std::fs::write(dir.join(name), text).map_err(cannot)?;
    }
    if ctx.out.is_json() {
        ctx.out.json(&serde_json::json!({"dir": dir, "pages": pages.len()}))?;
    } else {
        ctx.out.talk(&format!("Wrote {} pages to {}", pages.len(), dir.display()));
    }
    Ok(0)
}
