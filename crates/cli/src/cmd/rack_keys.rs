//! `rack password ...`, and what is done about access credentials but making them.

use std::time::Duration;

use serde_json::json;

use crate::Ctx;
use crate::ago::ago;
use crate::args::{AccessCommand, AccessKey, RackFlag, RackPassword};
use crate::error::Failure;
use crate::reach::Reached;
use crate::table::{Info, Table};

/// How often a roll is asked how far it is.
const AGAIN: Duration = Duration::from_millis(500);
/// A fault that lasts so long is told as the command's own.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) async fn access(ctx: &Ctx, flag: &RackFlag, command: &AccessCommand) -> Result<(), Failure> {
    let rack = ctx.rack(flag).await?;
    match command {
        AccessCommand::Key(AccessKey::Rotate { overlap }) => {
            ctx.announce(&rack);
            rack.client.access_key_rotate(*overlap).await?;
            if let Some(overlap) = overlap {
                ctx.out.talk(&format!("credentials of the old key work for {} s more", overlap.as_secs()));
            }
            ctx.out.ok()?;
            let overlap = overlap.map_or(0, |overlap| overlap.as_secs());
            ctx.out.result("", &json!({"rotated": true, "overlap_seconds": overlap, "target": rack.target.describe()}))
        }
        AccessCommand::List => {
            let tokens = rack.client.access_tokens().await.map_err(not_ours)?;
            if ctx.out.is_json() {
                return ctx.out.json(&tokens);
            }
            let mut table = Table::new(&["ID", "ROLE", "MADE BY", "CREATED", "EXPIRES", "STATUS"]);
            for token in &tokens {
                let status = if token.revoked.is_zero() { "active".to_owned() } else { format!("revoked {}", ago(token.revoked)) };
                table.row([&token.id, &token.role, &token.made_by, &ago(token.created), &ago(token.expires), &status]);
            }
            ctx.out.table(&table)
        }
        AccessCommand::Revoke { id, .. } => {
            ctx.announce(&rack);
            ctx.out.start("Revoking")?;
            rack.client.access_revoke(id.as_deref()).await.map_err(not_ours)?;
            ctx.out.ok()?;
            ctx.out.result("", &json!({"revoked": id.as_deref().unwrap_or("all"), "target": rack.target.describe()}))
        }
    }
}

/// A Rack of the originals knows no single credential.
fn not_ours(error: convox_client::Error) -> Failure {
    match &error {
        convox_client::Error::NotFound { message } if message.starts_with("response status") => {
            Failure::new("this rack does not know its credentials one by one").hint("end all of them: convox rack access key rotate")
        }
        _ => error.into(),
    }
}

pub(super) async fn password(ctx: &Ctx, flag: &RackFlag, command: &RackPassword) -> Result<(), Failure> {
    let rack = ctx.rack(flag).await?;
    let Some(name) = rack.client.rack().map(str::to_owned) else {
        return Err(Failure::new("no console knows the password of this rack")
            .hint("on the rack's own machine: convox-rack password roll --data DIR --out FILE"));
    };
    match command {
        RackPassword::Status => {
            let status = rack.client.roll_status(&name).await?;
            if ctx.out.is_json() {
                return ctx.out.json(&status);
            }
            let mut info = Info::new();
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            info.add("Rack", &name);
            info.add("Roll", status["roll"]["step"].as_str().unwrap_or("none under way"));
            if !text(&status["roll"]["fault"]).is_empty() {
                info.add("Fault", text(&status["roll"]["fault"]));
            }
            if status["roll"].is_null() && !text(&status["last_fault"]).is_empty() {
                info.add("Last roll", format!("came to nothing: {}", text(&status["last_fault"])));
            }
            if !text(&status["wanted"]).is_empty() {
                info.add("Known to", "perhaps somebody who left");
            }
            let days = status["every_days"].as_i64().unwrap_or(0);
            info.add("By itself", if days == 0 { "never".to_owned() } else { format!("every {days} days") });
            info.add("Entered by", if status["entered_by_a_person"] == json!(true) { "a person" } else { "nobody: the console made it" });
            ctx.out.info(&info)
        }
        RackPassword::Undo => {
            ctx.announce(&rack);
            ctx.out.start("Going back to the old password")?;
            rack.client.roll_undo(&name).await?;
            if until_over(ctx, &rack, &name).await?.is_some_and(|fault| fault.is_empty()) {
                return Err(Failure::new("it was too late: the old password was refused already, and the new one is in use"));
            }
            ctx.out.ok()?;
            ctx.out.result("", &json!({"undone": true, "target": rack.target.describe()}))
        }
        RackPassword::Roll { window, cut_streams, no_wait } => {
            ctx.announce(&rack);
            ctx.out.start("Rolling the password")?;
            let options = json!({"window_seconds": window.map(|window| window.as_secs()), "cut_streams": cut_streams});
            rack.client.roll_begin(&name, &options).await?;
            if !no_wait && let Some(fault) = until_over(ctx, &rack, &name).await?.filter(|fault| !fault.is_empty()) {
                return Err(
                    Failure::new(format!("the password was not rolled: {fault}")).hint("`convox rack password status` says how it stands")
                );
            }
            ctx.out.ok()?;
            ctx.out.result("", &json!({"rolled": !no_wait, "target": rack.target.describe()}))
        }
    }
}

/// Waits until no roll is under way, and says what it waits for; gives why it came to nothing, empty if it did not, of a Console that says so. A
/// fault may pass: the Console tries on, and so does this for a while.
async fn until_over(ctx: &Ctx, rack: &Reached, name: &str) -> Result<Option<String>, Failure> {
    let began = tokio::time::Instant::now();
    let (mut said, mut faulty) = (String::new(), None::<tokio::time::Instant>);
    loop {
        let (words, fault) = match rack.client.roll_status(name).await {
            Ok(status) if status["roll"].is_null() => return Ok(status["last_fault"].as_str().map(str::to_owned)),
            Ok(status) => {
                let roll = &status["roll"];
                let step = roll["step"].as_str().unwrap_or_default();
                let words = match roll["window_seconds"].as_i64() {
                    Some(window) if window > 0 && step == "switched" => {
                        format!("the new password is in use; the old one is accepted for {window} s more")
                    }
                    _ => format!("the roll is at: {step}"),
                };
                (words, roll["fault"].as_str().filter(|fault| !fault.is_empty()).map(str::to_owned))
            }
            Err(error) => (said.clone(), Some(error.to_string())),
        };
        if let Some(fault) = &fault {
            let since = *faulty.get_or_insert_with(tokio::time::Instant::now);
            if since.elapsed() > PATIENCE {
                return Err(Failure::new(fault.clone())
                    .hint("the console tries on; look with `convox rack password status`, or go back with `convox rack password undo`"));
            }
        } else {
            faulty = None;
        }
        let words = fault.map_or(words, |fault| format!("it does not go on, and is tried again: {fault}"));
        // What is over at once needs no words.
        if words != said && began.elapsed() >= Duration::from_secs(1) {
            ctx.out.talk(&format!("{}  {words}", if said.is_empty() { "\n" } else { "" }));
            said = words;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
