//! `env ...`: the environment of an app's newest release; every change makes a release.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};

use convox_wire::env as text;
use convox_wire::options::ReleaseCreateOptions;

use super::mask;
use super::releases::{Made, promote};
use crate::Ctx;
use crate::args::{Env, EnvCommand, EnvSet, OfRelease};
use crate::error::Failure;
use crate::output::{Printer, Style};
use crate::reach::Reached;

type Vars = BTreeMap<String, String>;

pub(super) async fn run(ctx: &Ctx, args: Env) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    match args.command {
        None => {
            ctx.watched(args.watch, async || {
                let vars = vars_of(&rack, &app, &args.of).await?;
                if ctx.out.is_json() {
                    return ctx.out.json(&vars);
                }
                let shown = if args.reveal { vars } else { mask::applied(ctx, &rack, &app, vars).await };
                ctx.out.line(&text::format(&shown))
            })
            .await?;
        }
        Some(EnvCommand::Get { key, of }) => get(ctx, &rack, &app, &key, &of).await?,
        Some(EnvCommand::Mask { command }) => mask::run(ctx, &rack, &app, command).await?,
        Some(EnvCommand::Set(set_args)) => set(ctx, &rack, &app, &set_args).await?,
        Some(EnvCommand::Unset { keys, of, id, after }) => {
            let mut vars = vars_of(&rack, &app, &of).await?;
            for key in &keys {
                vars.remove(key);
            }
            let out = ctx.out.with_id(id.id);
            change(&out, &rack, &app, "Unsetting", keys, &vars, of, after.promote.then_some(after.wait.wait)).await?;
        }
        Some(EnvCommand::Edit { of, after }) => {
            let vars = vars_of(&rack, &app, &of).await?;
            let edited = edit(ctx, &app, &vars)?;
            let keys = edited.keys().cloned().collect();
            change(&ctx.out, &rack, &app, "Setting", keys, &edited, of, after.promote.then_some(after.wait.wait)).await?;
        }
    }
    Ok(0)
}

/// Of the release that was named, else of the newest one, promoted or not; empty when there is none.
async fn vars_of(rack: &Reached, app: &str, of: &OfRelease) -> Result<Vars, Failure> {
    if let Some(id) = of.release.as_deref().filter(|id| !id.is_empty()) {
        return Ok(text::parse(&rack.client.release(app, id).await?.env));
    }
    let releases = rack.client.releases(app, Some(1)).await?;
    let Some(newest) = releases.first() else { return Ok(Vars::new()) };
    Ok(text::parse(&rack.client.release(app, &newest.id).await?.env))
}

async fn get(ctx: &Ctx, rack: &Reached, app: &str, key: &str, of: &OfRelease) -> Result<(), Failure> {
    let vars = vars_of(rack, app, of).await?;
    let value = vars.get(key).ok_or_else(|| Failure::new(format!("env not found: {key}")))?;
    if ctx.out.is_json() {
        return ctx.out.json(&serde_json::json!({ key: value }));
    }
    ctx.out.line(value)
}

async fn set(ctx: &Ctx, rack: &Reached, app: &str, args: &EnvSet) -> Result<(), Failure> {
    let mut words = args.pairs.clone();
    // As the originals: whatever is piped in counts too, which is how a whole file is set without showing it in `ps`.
    if !ctx.env.stdin_is_terminal {
        words.extend(piped()?);
    }
    let mut vars = if args.replace { Vars::new() } else { vars_of(rack, app, &args.of).await? };
    let mut keys = Vec::new();
    for word in &words {
        // Items without `=` are passed over, as the originals do: files have comments and empty lines.
        if let Some((key, value)) = word.split_once('=')
            && !key.trim().is_empty()
        {
            let value = value.trim_end_matches('\r');
            if value.contains(['\n', '\r', '\0']) {
                return Err(
                    Failure::new(format!("the value of {} has more than one line", key.trim())).hint("encode it, for example in base64")
                );
            }
            keys.push(key.trim().to_owned());
            vars.insert(key.trim().to_owned(), value.to_owned());
        }
    }
    if keys.is_empty() && !args.replace {
        return Err(Failure::new("no key=value given").hint("convox env set KEY=VALUE"));
    }
    let out = ctx.out.with_id(args.id.id);
    change(&out, rack, app, "Setting", keys, &vars, args.of.clone(), args.after.promote.then_some(args.after.wait.wait)).await
}

/// Lines of standard input.
fn piped() -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for line in std::io::stdin().lock().take(16 * 1024 * 1024).lines() {
        lines.push(line.map_err(|error| Failure::new(format!("could not read standard input: {error}")))?);
    }
    Ok(lines)
}

/// Makes a release with `vars` that goes on from `of`, and promotes it if `promoted` (whether to wait) is given.
#[expect(clippy::too_many_arguments, reason = "what is changed, where, and what follows; each is named at the call")]
async fn change(
    out: &Printer,
    rack: &Reached,
    app: &str,
    verb: &str,
    mut keys: Vec<String>,
    vars: &Vars,
    of: OfRelease,
    promoted: Option<bool>,
) -> Result<(), Failure> {
    keys.sort();
    let painted: Vec<String> = keys.iter().map(|key| out.paint(Style::Id, key)).collect();
    out.start(&format!("{verb} {}", painted.join(", ")))?;
    let parent_release = of.release.filter(|id| !id.is_empty());
    let options = ReleaseCreateOptions { env: Some(text::format(vars)), parent_release, ..ReleaseCreateOptions::default() };
    let release = rack.client.release_create(app, &options).await?;
    out.ok()?;
    out.progress(&format!("Release: {}\n", out.paint(Style::Release, &release.id)))?;
    if let Some(is_waited) = promoted {
        promote(out, rack, app, &release.id, false, is_waited).await?;
    }
    out.result(&release.id, &Made { app, build: None, release: &release.id, promoted: promoted.is_some(), target: rack.target.describe() })
}

/// Opens `$EDITOR` on a private file, which is gone afterwards.
fn edit(ctx: &Ctx, app: &str, vars: &Vars) -> Result<Vars, Failure> {
    let cannot = |error: std::io::Error| Failure::new(format!("could not prepare a file to edit: {error}"));
    let safe: String = app.chars().map(|char| if char.is_ascii_alphanumeric() || char == '-' { char } else { '_' }).collect();
    let dir = tempfile::tempdir().map_err(cannot)?;
    let path = dir.path().join(format!("{safe}.env"));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&path).and_then(|mut file| file.write_all(text::format(vars).as_bytes())).map_err(cannot)?;
    let editor = ctx.env.var("EDITOR").unwrap_or_else(|| "vi".to_owned());
    // `EDITOR` may hold arguments (`code --wait`).
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status = std::process::Command::new(program)
        .args(words)
        .arg(&path)
        .status()
        .map_err(|error| Failure::new(format!("could not start the editor {program}: {error}")).hint("set EDITOR"))?;
    if !status.success() {
        return Err(Failure::new(format!("the editor ended with {status}; nothing was changed")));
    }
    Ok(text::parse(&std::fs::read_to_string(&path).map_err(cannot)?))
}
