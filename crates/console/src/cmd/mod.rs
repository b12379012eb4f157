//! Administration on the server itself. Works on the database directly, beside a running server or without one; a change is in effect when
//! the command returns.

mod output;
pub(crate) mod place;

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use convox_seal::{KeyKind, RootKey, Secret};
use convox_store::Page;
use convox_store::audit::Filter;
use serde_json::{Value, json};

use self::output::Output;
use crate::args::{Admin, AuditCommand, Common, KeyCommand, Member, Org, Rack, User};
use crate::ops::racks::Pin;
use crate::ops::{Actor, Ops};
use crate::views;

/// Lists on the command line show everything, within reason.
const ALL: i64 = 100_000;

/// Runs one command.
pub(crate) async fn run(command: Admin) -> Result<()> {
    match command {
        Admin::RootKey { out } => make_root_key(&out),
        Admin::Setup { code, org, email, common } => setup(code, &org, &email, &common).await,
        Admin::User(command) => user(command).await,
        Admin::Org(command) => org(command).await,
        Admin::Member(command) => member(command).await,
        Admin::Key(command) => key(command).await,
        Admin::Rack(command) => rack(command).await,
        Admin::Audit(command) => audit(command).await,
    }
}

/// What every command works with.
struct Desk {
    ops: Ops,
    actor: Actor,
    output: Output,
}

impl Desk {
    async fn open(common: &Common) -> Result<Self> {
        Ok(Self { ops: place::open(&common.place).await?, actor: Actor::host(), output: Output { json: common.json } })
    }

    /// Waits until running servers know of a change, then says it.
    async fn done(&self, seq: i64, value: &Value, words: &str) -> Result<()> {
        if !self.ops.in_effect(seq).await? {
            self.output
                .warn("a running server has not taken the change over within two seconds; it will, or it stops trusting its memory")?;
        }
        self.output.value(value, words)
    }
}

fn make_root_key(out: &Path) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(out)
        .with_context(|| format!("could not make {} (an existing root key is never overwritten)", out.display()))?;
    let key = RootKey::generate();
    file.write_all(key.expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    Ok(())
}

async fn setup(code: Option<String>, org: &str, email: &str, common: &Common) -> Result<()> {
    let desk = Desk::open(common).await?;
    let code = match code {
        Some(code) => Secret::new(code),
        None => from_stdin()?,
    };
    let (key, made, seq) = desk.ops.setup(&desk.actor, &code, org, email).await?;
    let value = json!({ "organization": made.org_name.as_str(), "email": made.email.as_str(), "api_key": key.reveal() });
    let words = format!("Organization {} with administrator {}.\nAPI key (shown once): {}", made.org_name, made.email, key.reveal());
    desk.done(seq, &value, &words).await
}

async fn user(command: User) -> Result<()> {
    match command {
        User::Add { email, common } => {
            let desk = Desk::open(&common).await?;
            let (id, seq) = desk.ops.add_user(&desk.actor, &email).await?;
            desk.done(seq, &json!({ "id": id, "email": email }), &format!("Added user {email}.")).await
        }
        User::List { common } => {
            let desk = Desk::open(&common).await?;
            let rows = desk.ops.list_users(&Page::first(ALL)).await?;
            desk.output.list(&["id", "email", "created"], rows.iter().map(views::user).collect())
        }
        User::Remove { email, common } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.remove_user(&desk.actor, &email).await?;
            desk.done(seq, &json!({ "removed": email }), &format!("Removed user {email}.")).await
        }
    }
}

async fn org(command: Org) -> Result<()> {
    match command {
        Org::Create { name, common } => {
            let desk = Desk::open(&common).await?;
            let (id, seq) = desk.ops.create_org(&desk.actor, &name).await?;
            desk.done(seq, &json!({ "id": id, "name": name }), &format!("Made organization {name}.")).await
        }
        Org::List { common } => {
            let desk = Desk::open(&common).await?;
            let rows = desk.ops.list_orgs(&desk.actor, &Page::first(ALL)).await?;
            desk.output.list(&["id", "name", "created"], rows.iter().map(views::org).collect())
        }
        Org::Rename { name, to, common } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.rename_org(&desk.actor, &name, &to).await?;
            desk.done(seq, &json!({ "name": to }), &format!("{name} is now {to}.")).await
        }
    }
}

async fn member(command: Member) -> Result<()> {
    match command {
        Member::Add { email, org, role, common } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.add_member(&desk.actor, &org, &email, role).await?;
            desk.done(seq, &json!({ "email": email, "role": role }), &format!("{email} is now {role} in {org}.")).await
        }
        Member::List { org, common } => {
            let desk = Desk::open(&common).await?;
            let rows = desk.ops.list_members(&desk.actor, &org, &Page::first(ALL)).await?;
            desk.output.list(&["email", "role", "created"], rows.iter().map(views::member).collect())
        }
        Member::Role { email, org, role, common } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.change_member(&desk.actor, &org, &email, role).await?;
            desk.done(seq, &json!({ "email": email, "role": role }), &format!("{email} is now {role} in {org}.")).await
        }
        Member::Remove { email, org, common } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.remove_member(&desk.actor, &org, &email).await?;
            desk.done(seq, &json!({ "removed": email }), &format!("{email} is no longer a member of {org}.")).await
        }
    }
}

async fn key(command: KeyCommand) -> Result<()> {
    match command {
        KeyCommand::Create { email, name, kind, expires_in_hours, common } => {
            let desk = Desk::open(&common).await?;
            let kind = KeyKind::from_name(&kind).filter(|kind| *kind != KeyKind::Setup).context("--kind is user or deploy")?;
            let made = desk.ops.create_key(&desk.actor, Some(&email), &name, kind, expires_in_hours).await?;
            desk.done(made.seq, &views::made_key(&made), &format!("API key (shown once): {}", made.key.reveal())).await
        }
        KeyCommand::List { email, common } => {
            let desk = Desk::open(&common).await?;
            let rows = desk.ops.list_keys(&desk.actor, email.as_deref(), &Page::first(ALL)).await?;
            desk.output.list(&["id", "email", "kind", "name", "last4", "created", "expires"], rows.iter().map(views::key).collect())
        }
        KeyCommand::Regenerate { email, common } => {
            let desk = Desk::open(&common).await?;
            let made = desk.ops.regenerate_key(&desk.actor, Some(&email)).await?;
            desk.done(made.seq, &views::made_key(&made), &format!("API key (shown once): {}", made.key.reveal())).await
        }
        KeyCommand::Revoke { id, common } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.revoke_key(&desk.actor, &id).await?;
            desk.done(seq, &json!({ "revoked": id }), "Revoked.").await
        }
    }
}

async fn rack(command: Rack) -> Result<()> {
    match command {
        Rack::Add { name, org, host, password_file, password_stdin, pin, trust_on_first_use, common } => {
            let desk = Desk::open(&common).await?;
            let password = match (password_file, password_stdin) {
                (Some(file), _) => from_file(&file)?,
                (None, true) => from_stdin()?,
                (None, false) => bail!("give the Rack's password with --password-file or --password-stdin"),
            };
            let pin = match (pin, trust_on_first_use) {
                (Some(pin), _) => Pin::Exactly(pin),
                (None, true) => Pin::FirstUse,
                (None, false) => Pin::Verified,
            };
            let added = desk.ops.add_rack(&desk.actor, &org, &name, &host, &password, pin).await?;
            let pinned = added.row.pin.as_ref().map(|pin| format!("\nPinned certificate: {pin}")).unwrap_or_default();
            let words = format!("Added rack {org}/{name} at {host} (version {}).{pinned}", added.probed.system.version);
            desk.done(added.seq, &views::rack(&added.row), &words).await
        }
        Rack::List { org, common } => {
            let desk = Desk::open(&common).await?;
            let rows = desk.ops.list_racks(&desk.actor, org.as_deref(), &Page::first(ALL)).await?;
            desk.output.list(&["organization", "name", "provider", "host", "pin"], rows.iter().map(views::rack).collect())
        }
        Rack::Probe { name, org, common } => {
            let desk = Desk::open(&common).await?;
            let probed = desk.ops.probe_rack(&desk.actor, &org, &name).await?;
            let words = format!("{org}/{name} answers: status {}, version {}.", probed.system.status, probed.system.version);
            desk.output.value(&views::probed(&probed), &words)
        }
        Rack::Rename { name, org, to, common } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.rename_rack(&desk.actor, &org, &name, &to).await?;
            desk.done(seq, &json!({ "name": to }), &format!("{org}/{name} is now {org}/{to}.")).await
        }
        Rack::Remove { name, org, common } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.remove_rack(&desk.actor, &org, &name).await?;
            desk.done(seq, &json!({ "removed": name }), &format!("Removed {org}/{name} from this Console; the Rack goes on.")).await
        }
    }
}

async fn audit(command: AuditCommand) -> Result<()> {
    let AuditCommand::List { actor, org, rack, app, effect, decision, limit, common } = command;
    let desk = Desk::open(&common).await?;
    let filter = Filter { actor, org, rack, app, effect, decision, since_ms: 0 };
    let events = desk.ops.list_audit(&desk.actor, &filter, &Page::first(limit)).await?;
    let rows: Vec<Value> = events
        .iter()
        .map(|event| {
            let mut value = json!(event);
            value["at"] = json!(jiff::Timestamp::from_millisecond(event.at_ms).map(|at| at.to_string()).unwrap_or_default());
            value
        })
        .collect();
    desk.output.list(&["at", "actor", "org", "rack", "effect", "action", "path", "decision", "rule", "status"], rows)
}

fn from_stdin() -> Result<Secret> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("could not read standard input")?;
    let secret = Secret::new(text.trim().to_owned());
    if secret.is_empty() {
        bail!("nothing came on standard input");
    }
    Ok(secret)
}

fn from_file(path: &Path) -> Result<Secret> {
    let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    Ok(Secret::new(text.trim().to_owned()))
}
