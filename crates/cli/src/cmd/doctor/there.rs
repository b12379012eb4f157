//! What can be wrong on the way to the server, at it, and at the Rack behind it.

use std::time::Duration;

use convox_client::console::Identity;
use convox_client::{Client, Context, Error, Look, Proxies, Scheme, inspect};
use convox_tls::{TlsFault, Trust};
use jiff::{SignedDuration, Timestamp};

use super::{Findings, here};
use crate::Ctx;
use crate::accounts::{self, Book};
use crate::error::Failure;
use crate::reach::{full_name, matched};
use crate::target::{Source, Target};
use crate::{pins, settings::Settings};

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Clocks may differ by so much: the server's time has whole seconds, and its answer takes a while.
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// A key that ends so soon is worth a word.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

/// From the proxy to the Rack; ends where it cannot go on.
pub(super) async fn look(ctx: &Ctx, target: Target, findings: &mut Findings) {
    let proxies = Proxies::from_env(|name| ctx.env.var(name));
    if !here::proxy(&ctx.env, &target.endpoint, &proxies, findings) {
        return;
    }
    let Some(client) = connected(ctx, &target, proxies, findings).await else { return };
    let Some(answer) = within(&target, client.look(), findings, "key").await else { return };
    clock(&answer, findings);
    if !key(&ctx.settings, &target, answer.verdict, findings) {
        return;
    }
    rack(client, &target, findings).await;
}

/// What came within the time; a fault of that step if nothing did.
async fn within<T>(
    target: &Target,
    step: impl Future<Output = Result<T, Error>>,
    findings: &mut Findings,
    check: &'static str,
) -> Option<T> {
    let late = || Error::Timeout { host: target.endpoint.authority().to_owned(), doing: "waiting for its answer" };
    match tokio::time::timeout(PATIENCE, step).await.unwrap_or_else(|_| Err(late())) {
        Ok(value) => Some(value),
        Err(error) => {
            findings.failure(check, &Failure::from(error));
            None
        }
    }
}

/// A connection whose certificate is trusted; the key is not sent yet.
async fn connected(ctx: &Ctx, target: &Target, proxies: Proxies, findings: &mut Findings) -> Option<Client> {
    let host = target.endpoint.authority();
    let (pin, session) = match pins::read(&ctx.settings, host).and_then(|pin| Ok((pin, accounts::session(&ctx.env, &ctx.settings, host)?)))
    {
        Ok(found) => found,
        Err(failure) => {
            findings.failure("configuration", &failure);
            return None;
        }
    };
    // Nobody is asked for a second factor: that would be a change.
    let context = Context { rack: None, session, actor: ctx.env.var("CONVOX_ACTOR"), proxies: proxies.clone(), answerer: None };
    let client = Client::new(target.endpoint.clone(), pin.map_or(Trust::SystemRoots, Trust::Pinned), context);
    let late = || Error::Timeout { host: host.to_owned(), doing: "connecting" };
    let error = match tokio::time::timeout(PATIENCE, client.connect()).await.unwrap_or_else(|_| Err(late())) {
        Ok(()) => {
            findings.ok("network", format!("{host} answers"));
            if target.endpoint.scheme() == Scheme::Http {
                let advice = "whoever listens in has the key: use https:// (unset X_DEV_ALLOW_HTTP)";
                findings.warn("certificate", "none: this is clear text", advice);
                return Some(client);
            }
            match pin {
                Some(pin) if client.fingerprint() == Some(pin) => findings.ok("certificate", format!("{pin}, as remembered")),
                Some(_) => findings.ok("certificate", "new, and the remembered one vouches for it"),
                None => findings.ok("certificate", "vouched for by an authority that this machine trusts"),
            }
            return Some(client);
        }
        Err(error) => error,
    };
    let Error::Tls { fault, .. } = &error else {
        let check = if matches!(error, Error::Proxy { .. }) { "proxy" } else { "network" };
        if check == "proxy" {
            findings.0.retain(|finding| finding.check != check);
        }
        findings.failure(check, &Failure::from(error));
        return None;
    };
    findings.ok("network", format!("{host} answers"));
    let shown = tokio::time::timeout(PATIENCE, inspect(&target.endpoint, &proxies)).await.ok().and_then(Result::ok);
    let now = Timestamp::now();
    match (fault, shown) {
        (TlsFault::Expired | TlsFault::NotYetValid, Some(shown)) => {
            let end = Timestamp::from_second(shown.not_after).map_or_else(|_| "unknown".to_owned(), |end| end.to_string());
            let found = format!("{error}; it ends {end}, and this machine's clock says {}", now.round(jiff::Unit::Second).unwrap_or(now));
            let advice =
                "if the clock is wrong, set it (timedatectl set-ntp true); if not, the server needs a new certificate: tell its owner";
            findings.fault("certificate", found, advice);
        }
        (TlsFault::UnknownIssuer | TlsFault::WrongName, Some(shown)) if pin.is_none() && !ctx.env.is_true("CONVOX_STRICT_TLS") => {
            let found = format!("no authority vouches for it, and none is remembered: {}", shown.fingerprint);
            let advice = format!(
                "the next command trusts it, or asks you: compare it with what the server printed when it started; then convox trust {host} --fingerprint {}",
                shown.fingerprint
            );
            findings.warn("certificate", found, advice);
        }
        _ => findings.failure("certificate", &Failure::from(error)),
    }
    None
}

fn clock(answer: &Look, findings: &mut Findings) {
    const CHECK: &str = "clock";
    let there = answer.date.as_deref().and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let Some(there) = there else { return findings.ok(CHECK, "the server does not say what time it is") };
    let ahead = Timestamp::now().duration_since(there.timestamp());
    if ahead.abs() <= SKEW {
        return findings.ok(CHECK, "as the server's");
    }
    let which = if ahead.is_positive() { "ahead of" } else { "behind" };
    let found = format!("this machine's clock is {} s {which} the server's", ahead.abs().as_secs());
    let advice = "times in lists are wrong by that, and certificates and keys seem to begin and end then: set the clock of the one that is wrong \
                  (timedatectl set-ntp true)";
    findings.warn(CHECK, found, advice);
}

/// Whether it is worth going on.
fn key(settings: &Settings, target: &Target, verdict: Result<Identity, Error>, findings: &mut Findings) -> bool {
    const CHECK: &str = "key";
    let identity = match verdict {
        Ok(identity) => identity,
        Err(error) => {
            let source = &target.key;
            let from = if matches!(source, Source::Saved(_)) { String::new() } else { format!(" (the key is from {source})") };
            let advice = match &error {
                Error::Unauthorized { .. } | Error::Expired { .. } if !from.is_empty() => {
                    Some(format!("give a current key there, or take it away so that the saved one counts: {source}"))
                }
                Error::NotFound { .. } => Some(format!("is {} a Convox Console or Rack? check host and port", target.endpoint.authority())),
                Error::Forbidden { .. } => Some("use the key from where it is meant for, or ask who made it".to_owned()),
                error => error.hint(),
            };
            findings.add(CHECK, super::Status::Fault, format!("{error}{from}"), advice);
            return false;
        }
    };
    let who = identity.email.or(identity.key).or(identity.id).unwrap_or_else(|| format!("{} of a Rack", target.endpoint.user()));
    let account = target.account.as_ref().map(|account| account.value.as_str());
    let end = Book::read(settings).ok().and_then(|book| {
        let account = book.account(target.endpoint.authority(), account?)?;
        account.made.as_ref()?.expires.parse::<Timestamp>().ok()
    });
    match end.filter(|end| end.duration_since(Timestamp::now()) < SOON) {
        Some(end) => findings.warn(CHECK, format!("good, {who}; it ends {end}"), "convox keys roll, or convox login before then"),
        None => findings.ok(CHECK, format!("good, {who}")),
    }
    true
}

async fn rack(client: Client, target: &Target, findings: &mut Findings) {
    const CHECK: &str = "rack";
    let host = target.endpoint.authority();
    let list = match tokio::time::timeout(PATIENCE, client.racks()).await {
        // A Rack itself.
        Ok(Err(error)) if error.is_not_found() => None,
        Ok(Err(error @ Error::Session { .. })) => {
            return findings.warn(CHECK, error.to_string(), "run any command at a terminal, such as convox racks, and answer there");
        }
        Ok(Err(error)) => return findings.failure(CHECK, &Failure::from(error)),
        Ok(Ok(list)) => Some(list),
        Err(_) => return findings.fault(CHECK, format!("{host} does not list its Racks in time"), "try again later, or ask who runs it"),
    };
    let is_direct = matches!(target.host.source, Source::Machine(_));
    let (client, name) = match (list, target.rack.as_ref().filter(|_| !is_direct)) {
        (None, _) => (client, host.to_owned()),
        (Some(list), None) => {
            let found = format!("none is selected, of {} that you may use", list.len());
            return findings.warn(CHECK, found, "convox racks lists them, convox switch NAME selects one");
        }
        (Some(list), Some(choice)) => {
            let names: Vec<String> = list.iter().map(full_name).collect();
            match matched(&choice.value, &names) {
                Ok(name) => (client.with_rack(name.clone()), name),
                Err(failure) => return findings.failure(CHECK, &failure),
            }
        }
    };
    match tokio::time::timeout(PATIENCE, client.system()).await {
        Ok(Ok(system)) => findings.ok(CHECK, format!("{name} is {}, version {}", system.status, system.version)),
        Ok(Err(Error::Server { status: status @ 502..=504, message, .. })) if name != host => {
            let found = format!("{host} answers, but the Rack {name} behind it does not ({status}): {message}");
            findings.fault(CHECK, found, "whoever runs the Rack has to look whether it runs, and whether the Console can reach it");
        }
        Ok(Err(error)) => findings.failure(CHECK, &Failure::from(error)),
        Err(_) => findings.fault(CHECK, format!("{name} does not answer in time"), "whoever runs the Rack has to look whether it is well"),
    }
}
