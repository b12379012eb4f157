//! What is about the program itself: help, version, completion.

use clap::CommandFactory;
use serde::Serialize;

use crate::args::{Cli, Completion, RackFlag, help};
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
