//! Signing in without a key to paste: by a browser on this machine ([`browser`]), or by a short code on another device ([`device`]). Either
//! way the Console makes a key for this machine, and nobody ever sees it.
//!
//! All requests go to the host that the person named: no address that it answers with is followed.

pub(crate) mod browser;
pub(crate) mod callback;
pub(crate) mod device;

use convox_client::console::Token;
use convox_client::{Client, Endpoint, Scheme};
use convox_tls::Fingerprint;

use crate::Ctx;
use crate::error::Failure;
use crate::pins;

/// The host that somebody signs in to, and which certificate it must have.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) host: &'a str,
    pub(crate) fingerprint: Option<Fingerprint>,
}

impl At<'_> {
    fn endpoint(&self, ctx: &Ctx) -> Result<Endpoint, Failure> {
        let endpoint = Endpoint::anonymous(self.host)?;
        Ok(if ctx.env.is_true("X_DEV_ALLOW_HTTP") { endpoint.insecure() } else { endpoint })
    }

    /// A client that says of itself nothing at all.
    async fn client(&self, ctx: &Ctx) -> Result<Client, Failure> {
        let mut context = ctx.context(self.host, None)?;
        (context.session, context.actor) = (None, None);
        pins::connect(&ctx.env, &ctx.settings, &ctx.out, &self.endpoint(ctx)?, &context, self.fingerprint).await
    }

    /// Where a page of the Console is.
    fn page(&self, ctx: &Ctx, path: &str) -> Result<String, Failure> {
        let scheme = if self.endpoint(ctx)?.scheme() == Scheme::Http { "http" } else { "https" };
        Ok(format!("{scheme}://{}{path}", self.host))
    }
}

/// Whether the host is a Console that one can sign in to without a key.
pub(crate) async fn is_offered(ctx: &Ctx, at: At<'_>) -> Result<bool, Failure> {
    Ok(at.client(ctx).await?.offers_sign_in().await?)
}

/// What to say where it is not.
pub(crate) fn not_offered(host: &str) -> Failure {
    Failure::new(format!("{host} does not let a command line sign in by a browser"))
        .hint(format!("convox login {host} --password-stdin < FILE"))
}

/// What this machine calls itself, for whoever is asked.
fn device_name(ctx: &Ctx) -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = ctx.env.var("COMPUTERNAME").unwrap_or_default();
    #[cfg(unix)]
    let _ = ctx;
    name
}

/// What is kept of a key that was made for this machine.
pub(crate) fn made(token: &Token) -> crate::accounts::MadeKey {
    let key = token.key();
    let last4 = key.expose().get(key.expose().len().saturating_sub(4)..).unwrap_or_default().to_owned();
    crate::accounts::MadeKey { id: token.key_id.clone(), name: token.key_name.clone(), last4, expires: token.expires.clone() }
}

fn denied() -> Failure {
    Failure::new("the sign-in was denied")
        .hint("whoever was asked said no; if that was not you, change your password at the Console. Else run this again")
}
