//! Which certificate each host may show: our own file `pins`, host -> `sha256:...`.
//!
//! A host whose certificate the system's authorities vouch for is not in it. One whose certificate nobody vouches for is
//! put there on first use, loudly; from then on every other certificate is refused before a byte of the key is sent.

use convox_client::{Client, Context, Endpoint, Scheme, inspect};
use convox_tls::{Certificate, Fingerprint, Trust};

use crate::env::Env;
use crate::error::Failure;
use crate::output::Printer;
use crate::prompt;
use crate::settings::Settings;

const FILE: &str = "pins";

/// The pin of a host, if it has one.
pub(crate) fn read(settings: &Settings, host: &str) -> Result<Option<Fingerprint>, Failure> {
    let Some(text) = settings.key(FILE, host)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        Failure::new(format!("the pin of {host} in {} is no fingerprint", settings.path(FILE).display()))
            .hint(format!("convox trust {host} --fingerprint sha256:..."))
    })
}

/// Sets or (`None`) removes the pin of a host.
pub(crate) fn write(settings: &Settings, host: &str, pin: Option<Fingerprint>) -> Result<(), Failure> {
    settings.change(|change| change.set_key(FILE, host, pin.map(|pin| pin.to_string()).as_deref()))
}

/// A client that is connected to `endpoint` and trusts it; no request has been sent.
///
/// `expected` is a fingerprint that the person gave: nothing else is accepted, and it is remembered.
pub(crate) async fn connect(
    env: &Env,
    settings: &Settings,
    out: &Printer,
    endpoint: &Endpoint,
    context: &Context,
    expected: Option<Fingerprint>,
) -> Result<Client, Failure> {
    let host = endpoint.authority();
    if endpoint.scheme() == Scheme::Http {
        if expected.is_some() {
            return Err(Failure::new(format!("{host} is spoken to in clear text, where there is no certificate to compare"))
                .hint("leave --fingerprint out, or name the host without http://"));
        }
        let client = Client::new(endpoint.clone(), Trust::SystemRoots, context.clone());
        client.connect().await?;
        return Ok(client);
    }
    let known = match expected {
        Some(pin) => Some(pin),
        None => read(settings, host)?,
    };
    let trust = known.map_or(Trust::SystemRoots, Trust::Pinned);
    let client = Client::new(endpoint.clone(), trust, context.clone());
    match client.connect().await {
        Ok(()) => {
            let shown = client.fingerprint();
            match (known, shown) {
                // A pinned connection lets nothing else through: the old key signed for the new certificate.
                (Some(pin), Some(shown)) if pin != shown => {
                    out.talk(&format!("NOTICE: the certificate of {host} has changed, and the old one vouches for the new one"));
                    out.talk(&format!("  was          {pin}"));
                    out.talk(&format!("  is           {shown}"));
                    write(settings, host, Some(shown))?;
                }
                _ if expected.is_some() => write(settings, host, expected)?,
                _ => {}
            }
            return Ok(client);
        }
        Err(error) if known.is_none() && error.is_unknown_certificate() => {
            if env.is_true("CONVOX_STRICT_TLS") {
                let shown = inspect(endpoint, &context.proxies).await?;
                return Err(Failure::from(error).hint(format!(
                    "CONVOX_STRICT_TLS is set, so nothing is trusted on first use. If {} is right: convox trust {host} --fingerprint {}",
                    shown.fingerprint, shown.fingerprint
                )));
            }
        }
        Err(error) => return Err(error.into()),
    }
    let shown = inspect(endpoint, &context.proxies).await?;
    first_use(env, settings, out, host, &shown)?;
    // A second connection, which accepts this certificate alone: the server proves that it holds the key to it.
    let client = Client::new(endpoint.clone(), Trust::Pinned(shown.fingerprint), context.clone());
    client.connect().await?;
    write(settings, host, Some(shown.fingerprint))?;
    Ok(client)
}

/// Tells the person what is about to be trusted, and asks where somebody can answer.
fn first_use(env: &Env, settings: &Settings, out: &Printer, host: &str, shown: &Certificate) -> Result<(), Failure> {
    out.talk(&format!("WARNING: no authority that this machine trusts vouches for the certificate of {host}"));
    out.talk(&format!("  fingerprint  {}", shown.fingerprint));
    if !shown.names.is_empty() {
        out.talk(&format!("  made for     {}", shown.names.join(", ")));
    }
    if env.stdin_is_terminal && env.stderr_is_terminal {
        if !prompt::confirm("Is this the fingerprint that the server's owner sees?")? {
            return Err(
                Failure::new(format!("the certificate of {host} was not accepted")).hint("ask the server's owner for its fingerprint")
            );
        }
    } else {
        out.talk("  It is trusted from now on, and any other is refused. Compare it with what the server printed when it started;");
        out.talk(&format!("  if it differs: convox trust {host} --forget, and tell the server's owner."));
    }
    out.talk(&format!("  remembered   {}", settings.path(FILE).display()));
    Ok(())
}
