//! Administration on the server itself. Works on the database directly, beside a running server or without one; a change is in effect when
//! the command returns.

mod audit;
mod carry;
mod keys;
mod output;
pub(crate) mod place;
mod roll;
mod secret;
pub(crate) mod tls;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use convox_seal::{RootKey, Secret};
use convox_store::{LONGEST_PAGE, Page};
use serde_json::{Value, json};

use self::output::Output;
use crate::args::Common;
use crate::args::admin::Admin;
use crate::args::keys::{KeyCommand, ScopeFlags};
use crate::args::people::{Invitation, Member, Org, User};
use crate::args::racks::Rack;
use crate::ops::keys::{Roll, Wanted};
use crate::ops::racks::{NewRack, Pin};
use crate::ops::{Actor, Ops, OpsError};
use crate::root::{Source, kms};
use crate::views;

/// Lists on the command line show everything, within reason.
const MOST_PAGES: usize = 100;

/// Runs one command.
pub(crate) async fn run(command: Admin) -> Result<()> {
    match command {
        Admin::RootKey { out, kms } => make_root_key(&out, &kms).await,
        Admin::Setup { code, org, email, common } => setup(code, &org, &email, &common).await,
        Admin::User(command) => user(command).await,
        Admin::Org(command) => org(command).await,
        Admin::Member(command) => member(command).await,
        Admin::Invitation(command) => invitation(command).await,
        Admin::Key(command) => key(command).await,
        Admin::Keys(command) => keys::run(command).await,
        Admin::Rack(command) => rack(command).await,
        Admin::Audit(command) => audit::run(command).await,
        Admin::Migrate { from, to, json } => carry::migrate(&from, &to, json).await,
        Admin::Backup { out, place, json } => carry::backup(&out, &place, json).await,
        Admin::Restore { from, place, json } => carry::restore(&from, &place, json).await,
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

    /// Waits until running servers know of a change, then says it. The change is made, so it is said in any case: it may be a key, which
    /// is shown once.
    async fn done(&self, seq: i64, value: &Value, words: &str) -> Result<()> {
        if !self.ops.in_effect(seq).await {
            self.output.warn("a running server has not taken the change over; it does not trust its memory, and refuses, until it has")?;
        }
        self.output.value(value, words)
    }
}

/// Page after page, at most `limit` rows.
async fn pages<T>(
    limit: usize,
    mut next: impl AsyncFnMut(&Page) -> Result<Vec<T>, OpsError>,
    id: impl Fn(&T) -> &str,
) -> Result<Vec<T>, OpsError> {
    let mut all: Vec<T> = Vec::new();
    for _ in 0..MOST_PAGES {
        let left = i64::try_from(limit - all.len()).unwrap_or(LONGEST_PAGE).min(LONGEST_PAGE);
        let page = next(&Page { limit: left, after: all.last().map(|row| id(row).to_owned()) }).await?;
        let is_last = (page.len() as i64) < left;
        all.extend(page);
        if is_last || all.len() >= limit {
            break;
        }
    }
    Ok(all)
}

async fn all<T>(next: impl AsyncFnMut(&Page) -> Result<Vec<T>, OpsError>, id: impl Fn(&T) -> &str) -> Result<Vec<T>, OpsError> {
    pages(usize::MAX, next, id).await
}

async fn make_root_key(out: &Path, kms: &kms::Options) -> Result<()> {
    Source::at(out, kms)?.make(RootKey::generate()).await?;
    Output { json: false }.say(&format!("Made {}. Keep a copy of it apart from the database and its backups.", out.display()))
}

async fn setup(code: Option<String>, org: &str, email: &str, common: &Common) -> Result<()> {
    let desk = Desk::open(common).await?;
    let code = match code {
        Some(code) => Secret::new(code),
        None => secret::asked("Setup code: ")?,
    };
    let (key, made, seq) = desk.ops.setup(&desk.actor, &code, org, email, None).await?;
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
            let rows = all(async |page| desk.ops.list_users(&desk.actor, page).await, |row| row.id.as_str()).await?;
            desk.output.list(&["id", "email", "created"], rows.iter().map(views::user).collect())
        }
        User::ResetLink { email, url, common } => {
            let desk = Desk::open(&common).await?;
            let made = desk.ops.start_reset(&desk.actor, &email).await?;
            let (code, seq) = made.with_context(|| format!("no such user: {email}"))?;
            let link = format!("{url}/console/reset#{}", code.reveal());
            let words = format!("Link for {email}, good for one hour and once:\n{link}");
            desk.done(seq, &json!({ "email": email, "link": link }), &words).await
        }
        User::ResetFactor { email, common } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.reset_factors(&desk.actor, &email).await?;
            let words =
                format!("{email} has no second factor any more, and is signed out everywhere; they add a new one when they sign in.");
            desk.done(seq, &json!({ "email": email, "factors": 0 }), &words).await
        }
        User::SignOut { email: None, common, .. } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.sign_everybody_out(&desk.actor).await?;
            desk.done(seq, &json!({ "sessions": 0 }), "Everybody is signed out everywhere; API keys go on: `key list` lists those.").await
        }
        User::SignOut { email: Some(email), common, .. } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.sign_out_user(&desk.actor, &email).await?;
            let words = format!("{email} is signed out everywhere; their API keys go on: `key list --email {email}` lists those.");
            desk.done(seq, &json!({ "email": email, "sessions": 0 }), &words).await
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
            let rows = all(async |page| desk.ops.list_orgs(&desk.actor, page).await, |row| row.id.as_str()).await?;
            desk.output.list(&["id", "name", "created"], rows.iter().map(views::org).collect())
        }
        Org::RequireFactor { name, off, common } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.require_factor(&desk.actor, &name, !off).await?;
            let words = if off { "requires a second factor no longer" } else { "requires a second factor of its members" };
            desk.done(seq, &json!({ "name": name, "requires_factor": !off }), &format!("{name} {words}.")).await
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
            let rows = all(async |page| desk.ops.list_members(&desk.actor, &org, page).await, |row| row.user.as_str()).await?;
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

async fn invitation(command: Invitation) -> Result<()> {
    match command {
        Invitation::Create { email, org, role, url, common } => {
            let desk = Desk::open(&common).await?;
            let invited = desk.ops.invite(&desk.actor, &org, &email, role).await?;
            let link = format!("{url}/console/invitation#{}", invited.code.reveal());
            let words = format!("Link for {email}, good for a week and once:\n{link}");
            desk.done(invited.seq, &json!({ "email": invited.email, "role": role, "link": link }), &words).await
        }
        Invitation::List { org, common } => {
            let desk = Desk::open(&common).await?;
            let rows = all(async |page| desk.ops.list_invitations(&desk.actor, &org, page).await, |row| row.id.as_str()).await?;
            desk.output.list(&["id", "email", "role", "invited_by", "expires"], rows.iter().map(views::invitation).collect())
        }
        Invitation::Withdraw { id, org, common } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.uninvite(&desk.actor, &org, &id).await?;
            desk.done(seq, &json!({ "withdrawn": id }), "Withdrawn.").await
        }
    }
}

async fn key(command: KeyCommand) -> Result<()> {
    match command {
        KeyCommand::Create { email, name, kind, expires_in_hours, scope, common } => {
            let desk = Desk::open(&common).await?;
            let ScopeFlags { org: organization, rack: racks, app: apps, preset, may, network: networks } = scope;
            let wanted = Wanted { name, kind, expires_in_hours, organization, racks, apps, preset, may, networks };
            let made = desk.ops.create_key(&desk.actor, Some(&email), &wanted).await?;
            desk.done(made.seq, &views::made_key(&made), &format!("API key (shown once): {}", made.key.reveal())).await
        }
        KeyCommand::List { email, org, common } => {
            let desk = Desk::open(&common).await?;
            let list = async |page: &Page| match &org {
                Some(org) => desk.ops.list_deploy_keys(&desk.actor, org, page).await,
                None => desk.ops.list_keys(&desk.actor, email.as_deref(), page).await,
            };
            let rows = all(list, |row| row.id.as_str()).await?;
            let names = desk.ops.rack_names(&rows).await?;
            let view = |row| {
                let mut value = views::key(row, &names);
                value["scope"] = json!(views::scope(row, &names));
                value
            };
            desk.output.list(
                &["id", "email", "kind", "name", "last4", "state", "created", "used", "expires", "scope"],
                rows.iter().map(view).collect(),
            )
        }
        KeyCommand::Regenerate { email, overlap, common } => {
            let desk = Desk::open(&common).await?;
            let made = desk.ops.regenerate_key(&desk.actor, Some(&email), roll(overlap)).await?;
            desk.done(made.seq, &views::made_key(&made), &format!("API key (shown once): {}", made.key.reveal())).await
        }
        KeyCommand::Roll { id, overlap, common } => {
            let desk = Desk::open(&common).await?;
            let made = desk.ops.roll_key(&desk.actor, None, &id, roll(overlap)).await?;
            desk.done(made.seq, &views::made_key(&made), &format!("API key (shown once): {}", made.key.reveal())).await
        }
        KeyCommand::Revoke { id, common } => {
            let desk = Desk::open(&common).await?;
            let seq = desk.ops.revoke_key(&desk.actor, None, &id).await?;
            desk.done(seq, &json!({ "revoked": id }), "Revoked.").await
        }
    }
}

fn roll(overlap: Option<std::time::Duration>) -> Roll {
    Roll { overlap_seconds: overlap.map_or(0, |overlap| i64::try_from(overlap.as_secs()).unwrap_or(i64::MAX)) }
}

async fn rack(command: Rack) -> Result<()> {
    match command {
        Rack::Add { name, org, host, password_file, password_stdin, pin, trust_on_first_use, common } => {
            let desk = Desk::open(&common).await?;
            let password = match (password_file, password_stdin) {
                (Some(file), _) => secret::from_file(&file)?,
                (None, true) => secret::from_stdin()?,
                (None, false) => secret::asked("Password of the Rack: ")?,
            };
            let pin = match (pin, trust_on_first_use) {
                (Some(pin), _) => Pin::Exactly(pin),
                (None, true) => Pin::FirstUse,
                (None, false) => Pin::Verified,
            };
            let new = NewRack { org: &org, name: &name, host: &host, password: &password, pin };
            let added = desk.ops.add_rack(&desk.actor, new).await?;
            let certificate = match (&added.row.pin, added.probed.fingerprint) {
                (Some(pin), _) => format!("\nPinned certificate: {pin}"),
                (None, Some(fingerprint)) => format!("\nCertificate, verified by this machine's authorities: {fingerprint}"),
                (None, None) => String::new(),
            };
            let words = format!("Added rack {org}/{name} at {host} (version {}).{certificate}", added.probed.system.version);
            desk.done(added.seq, &views::added(&added), &words).await
        }
        Rack::Roll { .. } => roll::run(command).await,
        Rack::List { org, common } => {
            let desk = Desk::open(&common).await?;
            let rows = all(async |page| desk.ops.list_racks(&desk.actor, org.as_deref(), page).await, |row| row.id.as_str()).await?;
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
            let (seq, tokens) = desk.ops.remove_rack(&desk.actor, &org, &name).await?;
            let mut words = format!("Removed {org}/{name} from this Console; the Rack goes on.");
            if tokens > 0 {
                let _ = write!(
                    words,
                    "\nUp to {tokens} of its access tokens are still good there: whoever has its password ends them by `convox rack access revoke --all`."
                );
            }
            desk.done(seq, &json!({ "removed": name, "tokens_left": tokens }), &words).await
        }
    }
}
