//! May they? The only maker of a [`Permit`]. Forwarding takes one by value, so a request that nobody decided about cannot be forwarded.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use convox_model::{Decision, Request, Role, decide};
use convox_proxy::{Outcome, Reason};
use convox_wire::exit;
use convox_wire::routes::{Effect, Route};
use http::StatusCode;

use crate::audit::{End, Entry};
use crate::authn::Verified;
use crate::credentials::RackEntry;
use crate::front::NoRack;
use crate::meters::Timing;
use crate::snapshot::About;
use crate::state::App;
use crate::traces::Begun;

/// Exit code of a shell that was cut: the original clients take a missing one for success.
const CUT: i32 = 255;
/// Close code of a server that ends.
const RESTART: u16 = 1012;

/// Proof that a principal may do this to this Rack. It hears when that is no longer so, and tells the audit log how it ended.
pub(crate) struct Permit {
    claim: Claim,
    /// Id of the audit event, where there is one.
    event: Option<String>,
    /// When the request that is forwarded with it came.
    since: Option<Instant>,
    /// What is told of it to a collector of traces.
    trace: Option<Box<Begun>>,
    pub(crate) rule: &'static str,
}

/// Who wants what, to be decided again and again.
#[derive(Clone)]
struct Claim {
    app: Arc<App>,
    who: Verified,
    rack: Arc<RackEntry>,
    route: &'static Route,
    named_app: Option<Box<str>>,
}

/// A refusal.
pub(crate) struct Refusal {
    pub(crate) rule: &'static str,
    pub(crate) status: StatusCode,
    /// For the caller.
    pub(crate) message: String,
}

/// Decides. The app is the one that the path names.
pub(crate) fn authorize(
    app: &Arc<App>,
    who: &Verified,
    rack: &Arc<RackEntry>,
    route: &'static Route,
    named_app: Option<&str>,
) -> Result<Permit, Refusal> {
    match decide(who.principal(), &Request { org: &rack.row.org, rack: &rack.row.id, route, app: named_app }) {
        Decision::Allow { rule } => Ok(Permit {
            claim: Claim { app: Arc::clone(app), who: who.clone(), rack: Arc::clone(rack), route, named_app: named_app.map(Box::from) },
            event: None,
            since: None,
            trace: None,
            rule,
        }),
        Decision::Deny { rule, visible: true, .. } if route.is_about_the_password() => Err(Refusal {
            rule,
            status: StatusCode::FORBIDDEN,
            message: format!("the Console rolls the password of {} by itself; use `convox rack password roll`", rack.row.path()),
        }),
        Decision::Deny { rule, visible: true, needs } => {
            Err(Refusal { rule, status: StatusCode::FORBIDDEN, message: why(who, rack, route, rule, needs) })
        }
        // As if there were no such Rack.
        Decision::Deny { rule, visible: false, .. } => {
            Err(Refusal { rule, status: StatusCode::NOT_FOUND, message: NoRack::unknown(&rack.row.path()).to_string() })
        }
    }
}

/// Why not, and which rule said so: what a role lacks, or what is missing in the scope of the key.
fn why(who: &Verified, rack: &RackEntry, route: &Route, rule: &str, needs: Option<Role>) -> String {
    let (path, org, effect) = (rack.row.path(), &rack.row.org_name, route.effect);
    let Some(scope) = who.principal().scope.as_ref().filter(|_| needs.is_none()) else {
        let needs = needs.map_or("administrator", Role::as_str);
        return format!("you may not do this on {path}: it has effect {effect} and needs the role {needs}; ask an administrator of {org}");
    };
    let limit = if rule == "key-scope-app" {
        format!("it is limited to {}", scope.apps.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
    } else {
        let may: Vec<&str> = scope.may.iter().map(|may| may.as_str()).collect();
        format!("it may {}, and this is {}, with effect {effect}", may.join(", "), route.name)
    };
    format!("this key may not do this on {path} (rule {rule}): {limit}; ask an administrator of {org} for a key with another scope")
}

/// Why a permit does not hold any more. `Display` is for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ended {
    #[error("invalid credentials: the API key was revoked")]
    KeyRevoked,
    #[error("cli token is expired")]
    KeyExpired,
    #[error("your second factor is needed again: the session that it opened has ended; run the command again")]
    Unproven,
    #[error("the rack was removed from the Console, or its address was changed")]
    RackRemoved,
    #[error("your access to this rack has ended")]
    NoAccess,
    #[error("the Console cannot reach its database, so it cannot tell whether you still have access")]
    Untrusted,
}

impl Ended {
    /// Of an answer that has not begun.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::KeyRevoked | Self::KeyExpired | Self::Unproven => StatusCode::UNAUTHORIZED,
            Self::RackRemoved => StatusCode::NOT_FOUND,
            Self::NoAccess => StatusCode::FORBIDDEN,
            Self::Untrusted => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Claim {
    /// Why it does not hold any more; `None` while it does.
    fn ended(&self) -> Option<Ended> {
        let Self { app, who, rack, route, named_app } = self;
        if !app.snapshots.is_trusted() {
            return Some(Ended::Untrusted);
        }
        let snapshot = app.snapshots.now();
        let Some(known) = snapshot.again(who.principal()) else { return Some(Ended::KeyRevoked) };
        if known.expires_ms.is_some_and(|end| end <= app.clock.now_ms()) {
            return Some(Ended::KeyExpired);
        }
        if !snapshot.is_proven(known, who.session(), About::Org(&rack.row.org), app.clock.now_ms()) {
            return Some(Ended::Unproven);
        }
        if snapshot.rack_by_id(&rack.row.org, &rack.row.id).is_none_or(|now| now.row.generation != rack.row.generation) {
            return Some(Ended::RackRemoved);
        }
        match decide(&known.principal, &Request { org: &rack.row.org, rack: &rack.row.id, route, app: named_app.as_deref() }) {
            Decision::Allow { .. } => None,
            Decision::Deny { .. } => Some(Ended::NoAccess),
        }
    }

    /// When their key, or the session that goes with it, ends as things stand now, milliseconds since 1970: an end can move while a stream is
    /// open.
    fn ends_ms(&self) -> Option<i64> {
        let snapshot = self.app.snapshots.now();
        let known = snapshot.again(self.who.principal())?;
        let session = self.who.session().and_then(|id| snapshot.cli_session(id, known, self.app.clock.now_ms()));
        known.expires_ms.into_iter().chain(session.and_then(|session| session.expires_ms)).min()
    }

    /// A cut, in the words and forms that the clients understand: text, and for a shell an exit code that is not success.
    fn cut(&self, code: u16, text: String) -> Reason {
        let mut messages = Vec::new();
        if self.route.socket {
            messages.push(format!("ERROR: {text}\n"));
            if self.route.effect == Effect::Shell {
                messages.push(exit::marker(CUT));
            }
        }
        Reason { code, text, messages }
    }
}

impl Permit {
    /// Why it does not hold any more; `None` while it does.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.claim.ended()
    }

    /// The Rack that it is for.
    pub(crate) fn rack(&self) -> &RackEntry {
        &self.claim.rack
    }

    /// What it lets them do.
    pub(crate) fn effect(&self) -> Effect {
        self.claim.route.effect
    }

    /// Forwarded for a request that came then.
    pub(crate) fn since(self, began: Instant, trace: Option<Box<Begun>>) -> Self {
        Self { since: Some(began), trace, ..self }
    }

    /// Who has it.
    pub(crate) fn principal(&self) -> &convox_model::Principal {
        self.claim.who.principal()
    }

    /// Whether the Rack will sign a token for them, with which they need the Console no more.
    pub(crate) fn makes_token(&self) -> bool {
        self.claim.route.name == "SystemJwtToken"
    }

    /// Ties the permit to the audit event that was written for it.
    pub(crate) fn with_event(mut self, id: String) -> Self {
        self.event = Some(id);
        self
    }

    /// It is not used after all: this is what the caller is told instead.
    pub(crate) fn unused(self, status: StatusCode) {
        self.settle(Some(status), 0, 0, Duration::ZERO);
    }

    fn settle(self, status: Option<StatusCode>, bytes_up: u64, bytes_down: u64, duration: Duration) {
        if let Some(id) = self.event {
            let status = status.map(|status| status.as_u16());
            let number = |count: u128| i64::try_from(count).unwrap_or(i64::MAX);
            let (bytes_up, bytes_down, duration_ms) = (number(bytes_up.into()), number(bytes_down.into()), number(duration.as_millis()));
            let end = End { of: id, status, bytes_up, bytes_down, duration_ms };
            self.claim.app.audit.outcome(Entry::End { org_id: self.claim.rack.row.org.to_string(), end });
        }
    }
}

impl convox_proxy::Permit for Permit {
    /// Decides again whenever the snapshot changes, and at the end of the key; and ends when the server does.
    fn revoked(&self) -> Pin<Box<dyn Future<Output = Reason> + Send>> {
        let claim = self.claim.clone();
        Box::pin(async move {
            let mut changes = claim.app.snapshots.watch();
            let mut ending = claim.app.ending.subscribe();
            loop {
                if let Some(ended) = claim.ended() {
                    return claim.cut(Reason::policy("").code, ended.to_string());
                }
                if *ending.borrow_and_update() {
                    return claim.cut(RESTART, "the Console is restarting; try again in a moment".to_owned());
                }
                let end = claim.ends_ms().map(|end| Duration::from_millis((end - claim.app.clock.now_ms()).max(0).unsigned_abs() + 1));
                tokio::select! {
                    // Neither sender goes before `claim.app` does.
                    _ = changes.changed() => {}
                    _ = ending.changed() => {}
                    () = tokio::time::sleep(end.unwrap_or_default()), if end.is_some() => {}
                }
            }
        })
    }

    fn is_revoked(&self) -> bool {
        self.ended().is_some()
    }

    fn finished(mut self, outcome: Outcome) {
        if let (Some(traces), Some(begun)) = (&self.claim.app.traces, self.trace.take()) {
            let Claim { route, rack, .. } = &self.claim;
            traces.ended(begun.end(route.name, route.effect.as_str(), rack.row.id.as_str(), &outcome));
        }
        let Outcome { status, bytes_up, bytes_down, duration, answered_after, .. } = outcome;
        let meters = &self.claim.app.meters;
        if let Some(answered_after) = answered_after {
            meters.time(Timing::Upstream, answered_after);
        }
        if let Some(since) = self.since.filter(|_| !self.claim.route.socket) {
            meters.time(Timing::Whole, since.elapsed());
        }
        self.claim.rack.meter(meters).add(answered_after.is_none());
        self.settle(status, bytes_up, bytes_down, duration);
    }
}
