//! The browser of this machine (RFC 8252): it is sent to the Console's page, and brings a one-time code back to an address of this machine.
//!
//! The code alone is worth nothing: the Console gives a key for it only to who knows what was hashed when it was asked for (PKCE, S256), and
//! that never leaves this process. The address that the browser is started with stands in lists of processes, where others on this machine
//! see it; so it is one of our own, good once, and what must not be seen comes only after it.

use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use convox_client::Key;
use convox_client::console::{Granted, Token};
use convox_wire::form::Params;
use sha2::{Digest as _, Sha256};

use super::callback::{Awaited, Brought, Callback};
use super::{At, denied, device_name};
use crate::Ctx;
use crate::env::Env;
use crate::error::Failure;

/// How long somebody may take to approve.
const PATIENCE: Duration = Duration::from_mins(10);

/// So many random bytes, as text that may stand in an address.
pub(crate) fn random<const N: usize>() -> Result<String, Failure> {
    let mut bytes = zeroize::Zeroizing::new([0; N]);
    getrandom::fill(&mut bytes[..]).map_err(|error| Failure::new(format!("this machine gives no random bytes: {error}")))?;
    Ok(URL_SAFE_NO_PAD.encode(&bytes[..]))
}

/// `opens` says whether to start the browser, or only to show the address.
pub(crate) async fn sign_in(ctx: &Ctx, at: At<'_>, opens: bool) -> Result<Token, Failure> {
    let verifier = Key::new(random::<32>()?);
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose().as_bytes()));
    let (state, path, start) = (random::<16>()?, random::<16>()?, random::<16>()?);
    let callback = Callback::listen(&path, &start, Awaited::Code(state.clone())).await?;
    let query = Params::new()
        .with("response_type", "code")
        .with("client_id", "convox-cli")
        .with("redirect_uri", callback.redirect_uri())
        .with("state", state.as_str())
        .with("code_challenge", challenge)
        .with("code_challenge_method", "S256")
        .with("device_name", device_name(ctx));
    let url = at.page(ctx, &format!("/console/authorize?{}", query.encode()))?;
    callback.leads_to(&url);
    if opens && open(&ctx.env, &callback.start_uri()) {
        ctx.out.talk(&format!(
            "Your browser asks you to approve this. If it did not open, open this address in one on this machine:\n\n  {url}\n"
        ));
    } else {
        ctx.out.talk(&format!("Open this address in a browser on this machine:\n\n  {url}\n"));
    }
    ctx.out.talk("Waiting, at most ten minutes (Ctrl-C to stop)...");
    let late = || Failure::new("nobody approved in time").hint(format!("convox login {}; or with --device, on another device", at.host));
    let brought = tokio::time::timeout(PATIENCE, callback.wait()).await.map_err(|_| late())??;
    let (code, browser) = match brought {
        Brought::Code(code, browser) => (code, browser),
        Brought::Data(_, browser) | Brought::Denied(browser) => {
            browser.say("Nothing was signed in. You can close this page.").await;
            return Err(denied());
        }
    };
    // A connection of now: one of minutes ago may have been closed by the other side.
    let granted = match at.client(ctx).await {
        Ok(client) => client.exchange_code(&code, &callback.redirect_uri(), &verifier).await.map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    match granted {
        Ok(Granted::Token(token)) => {
            browser.lead(&at.page(ctx, "/console/authorize/done")?).await;
            Ok(token)
        }
        refused => {
            browser.say("The sign-in failed; your terminal says why. You can close this page.").await;
            match refused {
                Ok(Granted::Denied) => Err(denied()),
                Ok(_) => {
                    Err(Failure::new("the code that the browser brought is not good (any more)").hint(format!("convox login {}", at.host)))
                }
                Err(failure) => Err(failure),
            }
        }
    }
}

/// The program that opens an address here; `None` on a machine without a screen.
fn opener(env: &Env) -> Option<(String, Vec<&'static str>)> {
    // As with git and others: a list of programs, of which the first counts.
    if let Some(browser) =
        env.var("BROWSER").and_then(|list| list.split(':').next().map(str::to_owned)).filter(|browser| !browser.is_empty())
    {
        return Some((browser, Vec::new()));
    }
    if cfg!(target_os = "macos") {
        return Some(("open".to_owned(), Vec::new()));
    }
    if cfg!(windows) {
        return Some(("rundll32".to_owned(), vec!["url.dll,FileProtocolHandler"]));
    }
    (env.var("DISPLAY").is_some() || env.var("WAYLAND_DISPLAY").is_some()).then(|| ("xdg-open".to_owned(), Vec::new()))
}

/// Whether a browser can be opened here, as far as can be known without trying.
pub(crate) fn is_there(env: &Env) -> bool {
    opener(env).is_some()
}

pub(crate) fn open(env: &Env, url: &str) -> bool {
    let Some((program, args)) = opener(env) else { return false };
    let mut command = Command::new(program);
    command.args(args).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env_remove("CONVOX_PASSWORD").env_remove("CONVOX_TOKEN").env_remove("RACK_URL");
    // It may run as long as it likes.
    command.spawn().is_ok()
}
