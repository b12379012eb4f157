//! `env mask ...`: names whose values a terminal does not show. The list is a config of the app, as v3 keeps it.

use std::collections::{BTreeMap, BTreeSet};

use convox_wire::env as text;

use crate::Ctx;
use crate::args::MaskCommand;
use crate::error::Failure;
use crate::output::Style;
use crate::reach::Reached;

/// Where v3 keeps the list.
const CONFIG: &str = "cli-env-mask";
/// As many as v3 takes.
const MOST: usize = 500;
const HIDDEN: &str = "****";

pub(super) async fn run(ctx: &Ctx, rack: &Reached, app: &str, command: Option<MaskCommand>) -> Result<(), Failure> {
    let mut keys = masked(rack, app).await?;
    let (verb, named) = match command {
        None => {
            if ctx.out.is_json() {
                return ctx.out.json(&keys);
            }
            for key in &keys {
                ctx.out.line(key)?;
            }
            return Ok(());
        }
        Some(MaskCommand::Set { keys: named }) => {
            for key in &named {
                check(key)?;
            }
            keys.extend(named.iter().cloned());
            ("Setting", named)
        }
        Some(MaskCommand::Unset { keys: named }) => {
            keys.retain(|key| !named.contains(key));
            ("Unsetting", named)
        }
    };
    if keys.len() > MOST {
        return Err(Failure::new(format!("too many masked keys (max {MOST}, got {})", keys.len())));
    }
    let named: BTreeSet<String> = named.into_iter().collect();
    let painted: Vec<String> = named.iter().map(|key| ctx.out.paint(Style::Id, key)).collect();
    ctx.out.start(&format!("{verb} masked env keys {}", painted.join(", ")))?;
    let list: Vec<&str> = keys.iter().map(String::as_str).collect();
    rack.client.app_config_set(app, CONFIG, list.join(",").as_bytes()).await.map_err(|error| {
        let is_unknown = error.is_not_found();
        let failure = Failure::from(error);
        if is_unknown { failure.hint("this rack may keep no configs of apps, so it cannot keep the list") } else { failure }
    })?;
    ctx.out.ok()?;
    ctx.out.result("", &keys)
}

fn check(key: &str) -> Result<(), Failure> {
    if key.contains('=') {
        return Err(Failure::new("use `convox env set KEY=VALUE` to set env values. `convox env mask set` takes key names only"));
    }
    if key.is_empty() || key.contains(|char: char| char.is_whitespace() || char.is_control() || char == ',') {
        return Err(Failure::new(format!("invalid env key name: {key:?} (must not contain whitespace, commas or control characters)")));
    }
    Ok(())
}

/// The list; empty where nobody made one, or the Rack keeps none.
async fn masked(rack: &Reached, app: &str) -> Result<BTreeSet<String>, Failure> {
    match rack.client.app_config(app, CONFIG).await {
        Ok(config) => Ok(config.value.split(',').map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned).collect()),
        // A wrong app's name is told; a Rack or an app without such a config has no list.
        Err(error) if error.is_not_found() && !error.to_string().contains("app not found") => Ok(BTreeSet::new()),
        Err(error) => Err(error.into()),
    }
}

/// `vars` as a terminal may show them; elsewhere they are data, and stay.
pub(super) async fn applied(ctx: &Ctx, rack: &Reached, app: &str, mut vars: BTreeMap<String, String>) -> BTreeMap<String, String> {
    if !ctx.env.stdout_is_terminal || vars.is_empty() {
        return vars;
    }
    // A list that cannot be read hides nothing, and must not take the environment away from who may read it.
    let keys = masked(rack, app).await.unwrap_or_default();
    for (key, value) in &mut vars {
        if keys.contains(key) {
            HIDDEN.clone_into(value);
        }
    }
    vars
}

/// The same for an environment as it travels.
pub(super) async fn applied_to_text(ctx: &Ctx, rack: &Reached, app: &str, env: String) -> String {
    if !ctx.env.stdout_is_terminal || env.is_empty() {
        return env;
    }
    text::format(&applied(ctx, rack, app, text::parse(&env)).await)
}
