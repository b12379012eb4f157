//! `login` and `logout`.

use std::io::Read;

use convox_client::{Client, Error, Key};

use crate::Ctx;
use crate::args::Login;
use crate::error::Failure;
use crate::settings::Settings;
use crate::target::{self, DEFAULT_HOST, Source, bare_host};
use crate::{pins, prompt};

/// More than any key; a file that was piped in by mistake is not read to its end.
const LONGEST_KEY: u64 = 64 * 1024;

#[derive(serde::Serialize)]
struct LoggedIn<'a> {
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
}

pub(super) async fn login(ctx: &Ctx, args: Login) -> Result<u8, Failure> {
    let host = match &args.host {
        Some(host) => bare_host(host).to_owned(),
        None => target::host(&ctx.env, &ctx.settings)?.map_or_else(|| DEFAULT_HOST.to_owned(), |choice| choice.value),
    };
    // A broken file is found before anything is asked or sent.
    let saved = ctx.settings.key("auth", &host)?;
    let (mut key, mut source) = given(ctx, &args, saved)?;
    if key.is_empty() {
        key = ask(ctx, &host)?;
        source = Source::Default;
    }
    let identity = loop {
        match attempt(ctx, &args, &host, &key).await {
            Ok(identity) => break identity,
            Err(failure) => {
                let refused = failure.cause().is_some_and(Error::is_about_the_key);
                if !refused || source != Source::Saved("auth") {
                    return Err(failure);
                }
                // The saved key was good once; say so instead of failing with a riddle, and let the person give another.
                if !ctx.env.stdin_is_terminal {
                    return Err(failure
                        .while_doing("the saved key was refused")
                        .hint(format!("give a new one: convox login {host} --password-stdin < FILE; the saved one is kept until then")));
                }
                ctx.out.progress("\n")?;
                ctx.out.talk(&format!("The saved key was refused: {failure}"));
                key = ask(ctx, &host)?;
                source = Source::Default;
            }
        }
    };
    save(&ctx.settings, &host, &key, identity.id.as_deref())?;
    ctx.out.ok()?;
    if ctx.out.is_json() {
        ctx.out.json(&LoggedIn { host: &host, id: identity.id.as_deref(), email: identity.email.as_deref() })?;
    }
    Ok(0)
}

/// The first of: flag, standard input, environment, saved. Empty when there is none.
fn given(ctx: &Ctx, args: &Login, saved: Option<String>) -> Result<(Key, Source), Failure> {
    if args.password_stdin {
        let mut text = String::new();
        std::io::stdin().lock().take(LONGEST_KEY).read_to_string(&mut text)?;
        let key = text.trim();
        if key.is_empty() {
            return Err(Failure::new("standard input holds no password").hint("convox login HOST --password-stdin < FILE"));
        }
        return Ok((Key::new(key), Source::Flag("--password-stdin")));
    }
    for (name, value) in [("--password", &args.password), ("--token", &args.token)] {
        if let Some(value) = value.as_deref().map(str::trim).filter(|value| !value.is_empty()) {
            return Ok((Key::new(value), Source::Flag(name)));
        }
    }
    for name in ["CONVOX_PASSWORD", "CONVOX_TOKEN"] {
        if let Some(value) = ctx.env.var(name) {
            return Ok((Key::new(value), Source::Variable(name)));
        }
    }
    Ok(saved.map_or((Key::new(""), Source::Default), |key| (Key::new(key), Source::Saved("auth"))))
}

fn ask(ctx: &Ctx, host: &str) -> Result<Key, Failure> {
    if !ctx.env.stdin_is_terminal {
        return Err(Failure::new(format!("no password for {host}, and standard input is no terminal to ask at"))
            .hint(format!("convox login {host} --password-stdin < FILE, or set CONVOX_PASSWORD")));
    }
    let key = prompt::secret("Password: ")?;
    if key.is_empty() {
        return Err(Failure::new("no password was given"));
    }
    Ok(Key::new(key))
}

async fn attempt(ctx: &Ctx, args: &Login, host: &str, key: &Key) -> Result<convox_client::console::Identity, Failure> {
    let endpoint = target::endpoint(&ctx.env, host, key.clone())?;
    let mut context = ctx.context(host, None)?;
    // A stale session must not stand in the way of a new login.
    context.session = None;
    let client: Client = pins::connect(&ctx.env, &ctx.settings, &ctx.out, &endpoint, &context, args.fingerprint).await?;
    // Only now: what the certificate gives to say has been said.
    ctx.out.start(&format!("Authenticating with {host}"))?;
    Ok(client.auth().await?)
}

/// Key first: whatever ends us in between, a host without a key says what to do, and no key is lost.
fn save(settings: &Settings, host: &str, key: &Key, id: Option<&str>) -> Result<(), Failure> {
    settings.change(|change| {
        change.set_key("auth", host, Some(key.expose()))?;
        change.set_key("session", host, None)?;
        if let Some(id) = id {
            change.set_text("id", id)?;
        }
        change.remove("rack")?;
        change.set_text("host", host)?;
        change.set_text("console", host).map(drop)
    })
}

pub(super) fn logout(ctx: &Ctx, host: Option<&str>) -> Result<u8, Failure> {
    let host = match host {
        Some(host) => bare_host(host).to_owned(),
        None => target::host(&ctx.env, &ctx.settings)?.map(|choice| choice.value).ok_or_else(|| Failure::new("not logged in anywhere"))?,
    };
    let had = ctx.settings.change(|change| {
        let had = change.settings().key("auth", &host)?.is_some();
        change.set_key("auth", &host, None)?;
        change.set_key("session", &host, None)?;
        Ok(had)
    })?;
    if !had {
        return Err(Failure::new(format!("not logged in to {host}")));
    }
    ctx.out.progress(&format!("Logged out of {host}\n"))?;
    if ctx.env.var("CONVOX_PASSWORD").is_some() {
        ctx.out.talk("note: CONVOX_PASSWORD is set, and still logs in wherever commands go");
    }
    if ctx.out.is_json() {
        ctx.out.json(&LoggedIn { host: &host, id: None, email: None })?;
    }
    Ok(0)
}
