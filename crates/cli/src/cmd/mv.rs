//! `rack mv`: a Rack that this machine knows by name goes behind the Console, or comes back. New place first, old place after.

use convox_client::Key;

use crate::Ctx;
use crate::accounts;
use crate::error::Failure;
use crate::output::Style;
use crate::prompt;
use crate::reach::Reached;

pub(super) async fn run(ctx: &Ctx, from: &str, to: &str, force: bool) -> Result<(), Failure> {
    let short = |name: &str| name.rsplit_once('/').map_or(name, |(_, short)| short).to_owned();
    if short(from) != short(to) {
        return Err(Failure::new("rack name must remain same"));
    }
    match (from.split_once('/'), to.split_once('/')) {
        (None, Some((organization, name))) => into_console(ctx, organization, name, force).await?,
        (Some((organization, name)), None) => out_of_console(ctx, organization, name, force).await?,
        _ => {
            return Err(Failure::new("one of the two names has to be ORG/RACK, the other the same RACK without an organization")
                .hint("convox rack mv staging acme/staging, or convox rack mv acme/staging staging"));
        }
    }
    ctx.out.ok()?;
    ctx.out.result(to, &serde_json::json!({"from": from, "to": to}))
}

/// Who knows where the Rack is and what opens it: this machine.
fn known(ctx: &Ctx, name: &str) -> Result<(String, Key, Option<String>), Failure> {
    let missing = || {
        Failure::new(format!("this machine knows no rack {name}"))
            .hint("what convox racks lists as being of this machine can be moved; other racks are added on the Console's own page")
    };
    let host = ctx.settings.key("self-managed", name)?.ok_or_else(missing)?;
    let kept = accounts::active_key(&ctx.settings, &host)?.ok_or_else(|| {
        Failure::new(format!("the password of the rack {name} at {host} is not saved here")).hint(format!("convox login {host}"))
    })?;
    Ok((host.clone(), kept.key, ctx.settings.key("pins", &host)?))
}

fn agreed(ctx: &Ctx, force: bool, question: &str) -> Result<(), Failure> {
    if force || !ctx.env.stdin_is_terminal || prompt::confirm(question)? { Ok(()) } else { Err(Failure::new("nothing was moved")) }
}

/// The Console that one is logged in to; a Rack's own API has no such place.
async fn console(ctx: &Ctx) -> Result<Reached, Failure> {
    let reached = ctx.host().await?;
    match reached.client.racks().await {
        Ok(_) => Ok(reached),
        Err(error) if error.is_not_found() => {
            Err(Failure::new(format!("{} is a rack, not a Console", reached.target.host.value)).hint("convox login CONSOLE"))
        }
        Err(error) => Err(error.into()),
    }
}

async fn into_console(ctx: &Ctx, organization: &str, name: &str, force: bool) -> Result<(), Failure> {
    let (host, password, pin) = known(ctx, name)?;
    let console = console(ctx).await?;
    agreed(ctx, force, &format!("Give the password of {name} at {host} to the Console {}?", console.target.host.value))?;
    starting(ctx, name, &format!("{organization}/{name}"))?;
    console.client.rack_add(organization, name, &host, &password, pin.as_deref()).await.map_err(unsupported)?;
    // The key stays: it is what lets the Rack come back. The name now means the Console's.
    ctx.settings.change(|change| change.set_key("self-managed", name, None))
}

async fn out_of_console(ctx: &Ctx, organization: &str, name: &str, force: bool) -> Result<(), Failure> {
    let console = console(ctx).await?;
    let full = format!("{organization}/{name}");
    let host = console.client.rack_host(&full).await?;
    // A Console gives no password away, so the Rack can come back only to where it is known.
    if accounts::active_key(&ctx.settings, &host)?.is_none() {
        return Err(Failure::new(format!("the password of {full} at {host} is not saved here, and a Console gives none away"))
            .hint(format!("convox login {host}, if you know it")));
    }
    agreed(ctx, force, &format!("Take {full} out of the Console {}?", console.target.host.value))?;
    starting(ctx, &full, name)?;
    ctx.settings.change(|change| change.set_key("self-managed", name, Some(&host)))?;
    console.client.rack_remove(organization, name).await.map_err(unsupported)
}

fn starting(ctx: &Ctx, from: &str, to: &str) -> Result<(), Failure> {
    ctx.out.start(&format!("moving rack {} to {}", ctx.out.paint(Style::Rack, from), ctx.out.paint(Style::Rack, to)))
}

fn unsupported(error: convox_client::Error) -> Failure {
    let is_unknown = error.is_not_found();
    let failure = Failure::from(error);
    if is_unknown {
        failure.hint("the original Consoles move racks by their Terraform state only: use the original v3 convox")
    } else {
        failure
    }
}
