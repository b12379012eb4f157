//! Certificates of an authority (RFC 8555), for the names of apps: asked for when a name has none, and again before one ends. The authority's
//! question, a file below the name, is answered by the router.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use convox_proxy::tls_server;
use convox_seal::Secret;
use instant_acme::{
    self as acme, Account, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::rack::{Rack, SYSTEM_LOG};
use crate::state::{CertificateRow, Issuer, now_ms};

/// How long an order may take.
const PATIENCE: Duration = Duration::from_mins(3);
/// Pause between looks for names without a certificate.
const LOOK: Duration = Duration::from_secs(10);
/// Pause between two orders for a name, whatever became of the first: authorities count.
const AGAIN: Duration = Duration::from_hours(1);
/// A certificate that ends within this time is replaced, in milliseconds: 30 days; or within the last third of its own, if that is shorter.
const EARLY: i64 = 30 * 24 * 3600 * 1000;

/// How an authority says that it has no such account.
const UNKNOWN_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// The authority that a Rack asks.
pub(crate) struct Acme {
    directory: String,
    ca: Option<PathBuf>,
    email: Option<String>,
    /// One order at a time: the first one makes the account.
    room: Mutex<()>,
}

impl Acme {
    pub(crate) fn new(directory: String, ca: Option<PathBuf>, email: Option<String>) -> Self {
        Self { directory, ca, email, room: Mutex::default() }
    }

    /// A certificate for these names, and its key. The error says what the authority says.
    pub(crate) async fn order(&self, rack: &Rack, domains: &[String]) -> Result<(String, Secret), String> {
        if let Some(domain) = domains.iter().find(|domain| domain.starts_with('*')) {
            return Err(format!(
                "{domain}: certificates for all names below one are given by authorities only to who changes its DNS; name each, or import one"
            ));
        }
        let _room = self.room.lock().await;
        let mut tokens = Vec::new();
        let outcome = timeout(PATIENCE, self.order_now(rack, domains, &mut tokens)).await;
        for token in tokens {
            rack.scheduler.challenge(&token, None).await;
        }
        let names = domains.join(", ");
        outcome
            .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
            .map_err(|reason| format!("no certificate for {names} from {}: {reason}", self.directory))
    }

    async fn order_now(&self, rack: &Rack, domains: &[String], tokens: &mut Vec<String>) -> Result<(String, Secret), String> {
        let account = self.account(rack).await?;
        let names: Vec<Identifier> = domains.iter().cloned().map(Identifier::Dns).collect();
        let order = match account.new_order(&NewOrder::new(&names)).await {
            Err(acme::Error::Api(problem)) if problem.r#type.as_deref() == Some(UNKNOWN_ACCOUNT) => {
                // It was closed there, or the authority began anew: what is kept of it opens nothing any more.
                let words = format!("{} does not know the account of this Rack any more: another one is made", self.directory);
                rack.logs.append(SYSTEM_LOG, "system/rack", &words);
                rack.state.remove_acme_account(&self.directory).await.map_err(said)?;
                self.account(rack).await?.new_order(&NewOrder::new(&names)).await
            }
            order => order,
        };
        let mut order = order.map_err(said)?;
        answer(rack, &mut order, tokens).await?;
        let retries = RetryPolicy::default().timeout(PATIENCE);
        let status = order.poll_ready(&retries).await.map_err(said)?;
        if status != OrderStatus::Ready {
            return Err(refusal(&mut order).await);
        }
        let key = Secret::new(order.finalize().await.map_err(said)?);
        let chain = order.poll_certificate(&retries).await.map_err(said)?;
        Ok((chain, key))
    }

    async fn account(&self, rack: &Rack) -> Result<Account, String> {
        let builder = match &self.ca {
            Some(ca) => Account::builder_with_root(ca),
            None => Account::builder(),
        };
        let builder = builder.map_err(said)?;
        if let Some(known) = rack.state.acme_account(&self.directory).await.map_err(said)? {
            let credentials =
                serde_json::from_str(known.expose()).map_err(|_| "the account that is kept for it cannot be read".to_owned())?;
            return builder.from_credentials(credentials).await.map_err(said);
        }
        let contact: Vec<String> = self.email.iter().map(|email| format!("mailto:{email}")).collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = builder.create(&wanted, self.directory.clone(), None).await.map_err(said)?;
        let text = Secret::new(serde_json::to_string(&credentials).map_err(said)?);
        rack.state.put_acme_account(&self.directory, &text).await.map_err(said)?;
        Ok(account)
    }
}

fn said(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Puts the answer to each of the authority's questions where it looks, and tells it so.
async fn answer(rack: &Rack, order: &mut Order, tokens: &mut Vec<String>) -> Result<(), String> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(said)?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let challenge = authorization.challenge(ChallengeType::Http01);
        let mut challenge = challenge.ok_or("it asks no question that is answered over HTTP")?;
        let token = challenge.token.clone();
        tokens.push(token.clone());
        rack.scheduler.challenge(&token, Some(challenge.key_authorization().as_str().to_owned())).await;
        challenge.set_ready().await.map_err(said)?;
    }
    Ok(())
}

/// What an authority found wrong with an answer.
async fn refusal(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        if let Some(problem) = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return problem.to_string();
        }
    }
    "it refuses, and does not say why".to_owned()
}

/// Sees to it that every name of a running app has a certificate.
pub(crate) async fn follow(rack: Arc<Rack>) {
    let Some(acme) = &rack.acme else { return };
    let mut tried: HashMap<String, Instant> = HashMap::new();
    loop {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = rack.ending.cancelled() => return,
        }
        let wanted = match wanted(&rack).await {
            Ok(wanted) => wanted,
            Err(error) => {
                tracing::warn!(%error, "which names need a certificate could not be read");
                continue;
            }
        };
        for (app, domain, id) in wanted {
            if tried.get(&domain).is_some_and(|since| since.elapsed() < AGAIN) {
                continue;
            }
            tried.insert(domain.clone(), Instant::now());
            let outcome = match acme.order(&rack, std::slice::from_ref(&domain)).await {
                Ok((chain, key)) => {
                    let kept = rack.keep_certificate(id.unwrap_or_else(CertificateRow::new_id), chain, key, Issuer::Acme).await;
                    kept.map_err(|error| error.to_string())
                }
                Err(reason) => Err(reason),
            };
            let line = match outcome {
                Ok(row) => format!("certificate {} for {domain} is served", row.id),
                Err(reason) => format!("{reason}; it is asked again in an hour"),
            };
            rack.logs.append(&app, "system/router", &line);
        }
    }
}

/// How long before its end a certificate is replaced, in milliseconds.
fn early(row: &CertificateRow) -> i64 {
    let leaf = tls_server::inspect(row.chain.as_bytes(), row.key.expose().as_bytes());
    leaf.map_or(EARLY, |leaf| EARLY.min(leaf.expires.saturating_sub(leaf.begins).saturating_mul(1000) / 3))
}

/// App and name of what needs a certificate, and the id of the one to replace.
async fn wanted(rack: &Rack) -> Result<Vec<(String, String, Option<String>)>, convox_db::DbError> {
    let (apps, certificates) = (rack.state.apps().await?, rack.state.certificates().await?);
    let mut wanted = Vec::new();
    for app in apps {
        for host in rack.scheduler.hosts(&app.name).into_iter().filter(|host| !host.starts_with('*')) {
            let covers = |row: &&CertificateRow| row.covers(&host);
            // One that somebody imported or had made here is that person's choice, to its end.
            let is_good = |row: &CertificateRow| {
                let left = row.expires_ms - now_ms();
                // How long it lives is read from it only where that can matter: each is looked at every few seconds.
                left > 0 && (row.issuer != Issuer::Acme || left > EARLY || left > early(row))
            };
            if certificates.iter().filter(covers).any(is_good) {
                continue;
            }
            let of_ours = |row: &&CertificateRow| row.issuer == Issuer::Acme && row.domains == [host.clone()];
            let id = certificates.iter().find(of_ours).map(|row| row.id.clone());
            wanted.push((app.name.clone(), host, id));
        }
    }
    Ok(wanted)
}
