//! `convox-console rack roll`: begins a roll and carries it on itself, beside a running server or without one.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use super::Desk;
use crate::args::racks::Rack;
use crate::ops::OpsError;
use crate::ops::rolls::{Manner, Stand};
use crate::views;

pub(super) async fn run(command: Rack) -> Result<()> {
    let Rack::Roll { name, org, window, cut_streams, no_wait, undo, status, every_days, common } = command else { return Ok(()) };
    let desk = Desk::open(&common).await?;
    let holder = format!("command line {}", std::process::id());
    if status {
        let (roll, rule) = desk.ops.roll_status(&desk.actor, &org, &name).await?;
        let mut words = match &roll {
            None if rule.fault.is_empty() => format!("The password of {org}/{name} is not being rolled."),
            None => format!("The password of {org}/{name} is not being rolled; the last roll came to nothing: {}", rule.fault),
            Some(roll) if roll.fault.is_empty() => format!("The roll of {org}/{name} is at: {}.", roll.step.as_str()),
            Some(roll) => format!("The roll of {org}/{name} is at: {}. It does not go on: {}", roll.step.as_str(), roll.fault),
        };
        if !rule.wanted.is_empty() {
            words.push_str("\nSomebody who left may know the password.");
        }
        return desk.output.value(&views::roll(roll.as_ref(), &rule), &words);
    }
    if let Some(days) = every_days {
        let seq = desk.ops.schedule_rolls(&desk.actor, &org, &name, days).await?;
        let words = match days {
            0 => format!("The password of {org}/{name} is not rolled by itself."),
            days => format!("The password of {org}/{name} is rolled whenever it is {days} days old, by a running server."),
        };
        return desk.done(seq, &json!({ "every_days": days }), &words).await;
    }
    let (rack, seq) = if undo {
        desk.ops.undo_roll(&desk.actor, &org, &name, &holder).await?
    } else {
        match desk.ops.begin_roll(&desk.actor, &org, &name, Manner { window, cut: cut_streams }).await {
            // Said again after it was cut off: carried on.
            Err(OpsError::Conflict(words)) if desk.ops.roll_status(&desk.actor, &org, &name).await?.0.is_some() => {
                desk.output.warn(&format!("{words}; carrying that on"))?;
                let (roll, _) = desk.ops.roll_status(&desk.actor, &org, &name).await?;
                match roll {
                    Some(roll) => (roll.rack, 0),
                    None => bail!("the roll is over meanwhile"),
                }
            }
            begun => begun?,
        }
    };
    if no_wait {
        return desk
            .done(seq, &json!({ "rack": format!("{org}/{name}"), "state": "begun" }), "Begun; a running server carries it on.")
            .await;
    }
    let mut said = String::new();
    loop {
        match desk.ops.advance_roll(&rack, &holder).await? {
            Stand::Over => break,
            Stand::Held => tokio::time::sleep(Duration::from_millis(200)).await,
            Stand::Waits(wait, why) => {
                if said != why {
                    desk.output.warn(&why)?;
                    said = why;
                }
                tokio::time::sleep(wait.min(Duration::from_secs(1))).await;
            }
        }
    }
    let words = if undo {
        format!("{org}/{name} has its old password; the new one is refused.")
    } else {
        format!("{org}/{name} has a new password, which nobody has seen; the old one is refused.")
    };
    desk.done(0, &json!({ "rack": format!("{org}/{name}"), "state": if undo { "undone" } else { "rolled" } }), &words).await
}
