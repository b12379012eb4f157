//! `whoami`: host, user, Rack, and which setting decided each.

use serde::Serialize;

use crate::Ctx;
use crate::accounts::Book;
use crate::args::RackFlag;
use crate::error::Failure;
use crate::table::Info;
use crate::target::Choice;

#[derive(Serialize)]
struct Identity {
    host: String,
    host_source: String,
    key_source: String,
    /// Where the key is kept; `null` when it comes from the environment.
    kept: Option<String>,
    account: Option<String>,
    account_source: Option<String>,
    /// Name and end of the key, if it was made for this machine.
    key_name: Option<String>,
    expires: Option<String>,
    user: Option<String>,
    email: Option<String>,
    rack: Option<String>,
    rack_source: Option<String>,
    /// Settings that name another Rack and do not count.
    overruled: Vec<Overruled>,
    /// Fingerprint of the server's certificate.
    fingerprint: Option<String>,
    config: String,
}

#[derive(Serialize)]
struct Overruled {
    rack: String,
    source: String,
}

pub(super) async fn run(ctx: &Ctx, rack: &RackFlag) -> Result<u8, Failure> {
    let reached = ctx.rack(rack).await?;
    let who = reached.client.auth().await?;
    let target = &reached.target;
    let book = Book::read(&ctx.settings)?;
    let account = target.account.as_ref();
    let made = account.and_then(|account| book.account(&target.host.value, &account.value)).and_then(|account| account.made.as_ref());
    let identity = Identity {
        kept: target.place.as_ref().map(|place| place.describe(&ctx.settings)),
        account: account.map(|account| account.value.clone()),
        account_source: account.map(|account| account.source.to_string()),
        key_name: made.map(|made| made.name.clone()),
        expires: made.map(|made| made.expires.clone()),
        host: target.host.value.clone(),
        host_source: target.host.source.to_string(),
        key_source: target.key.to_string(),
        user: who.id,
        email: who.email,
        rack: target.rack.as_ref().map(|rack| rack.value.clone()),
        rack_source: target.rack.as_ref().map(|rack| rack.source.to_string()),
        overruled: target
            .overruled
            .iter()
            .map(|Choice { value, source }| Overruled { rack: value.clone(), source: source.to_string() })
            .collect(),
        fingerprint: reached.client.fingerprint().map(|fingerprint| fingerprint.to_string()),
        config: ctx.settings.dir().display().to_string(),
    };
    if ctx.out.is_json() {
        ctx.out.json(&identity)?;
        return Ok(0);
    }
    let mut info = Info::new();
    info.add("Host", format!("{} ({})", identity.host, identity.host_source));
    match (&identity.email, &identity.user) {
        (Some(email), _) => info.add("User", email),
        (None, Some(id)) => info.add("User", id),
        (None, None) => info.add("User", format!("{} (a Rack knows no users)", target.endpoint.user())),
    };
    if let (Some(account), Some(source)) = (&identity.account, &identity.account_source)
        && (account != crate::accounts::DEFAULT || book.active(&identity.host).is_some())
    {
        info.add("Account", format!("{account} ({source})"));
    }
    let mut key = identity.key_source.clone();
    if let (Some(name), Some(expires)) = (&identity.key_name, &identity.expires) {
        key.push_str(&format!("\n{name}, made for this machine, ends {}", expires.split('T').next().unwrap_or(expires)));
    }
    info.add("Key", key);
    if let Some(kept) = &identity.kept {
        info.add("Kept", kept);
    }
    match (&identity.rack, &identity.rack_source) {
        (Some(rack), Some(source)) => {
            let lost: Vec<String> = identity.overruled.iter().map(|other| format!("\nnot {} ({})", other.rack, other.source)).collect();
            info.add("Rack", format!("{rack} ({source}){}", lost.concat()))
        }
        _ => info.add("Rack", "none selected"),
    };
    info.add("Config", &identity.config);
    ctx.out.info(&info)?;
    Ok(0)
}
