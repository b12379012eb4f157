//! `trust`: which certificate of a host is accepted.

use convox_client::{Key, Proxies, inspect};
use serde::Serialize;

use crate::Ctx;
use crate::args::Trust;
use crate::error::Failure;
use crate::pins;
use crate::table::Info;
use crate::target::{self, bare_host};

#[derive(Serialize)]
struct Shown {
    host: String,
    /// What is accepted; `null` when the system's authorities decide.
    pinned: Option<String>,
    /// What the server shows now; `null` when it was not asked.
    shown: Option<String>,
}

pub(super) async fn run(ctx: &Ctx, args: Trust) -> Result<u8, Failure> {
    let host = bare_host(&args.host).to_owned();
    let endpoint = target::endpoint(&ctx.env, &host, Key::new(""))?;
    let mut shown = Shown { host: host.clone(), pinned: None, shown: None };
    if args.forget {
        pins::write(&ctx.settings, &host, None)?;
        ctx.out.progress(&format!("The certificate of {host} is judged by this machine's authorities again\n"))?;
    } else if let Some(pin) = args.fingerprint {
        pins::write(&ctx.settings, &host, Some(pin))?;
        shown.pinned = Some(pin.to_string());
        ctx.out.progress(&format!("Only the certificate {pin} of {host} is accepted from now on\n"))?;
    } else {
        let certificate = inspect(&endpoint, &Proxies::from_env(|name| ctx.env.var(name))).await?;
        shown.pinned = pins::read(&ctx.settings, &host)?.map(|pin| pin.to_string());
        shown.shown = Some(certificate.fingerprint.to_string());
        if !ctx.out.is_json() {
            let mut info = Info::new();
            info.add("Host", &host).add("Shown", certificate.fingerprint.to_string());
            info.add("Accepted", shown.pinned.as_deref().unwrap_or("what this machine's authorities vouch for"));
            info.add("Names", certificate.names.join(", "));
            ctx.out.info(&info)?;
        }
    }
    if ctx.out.is_json() {
        ctx.out.json(&shown)?;
    }
    Ok(0)
}
