//! May they? The only maker of a [`Permit`]. Forwarding takes one by value, so a request that nobody decided about cannot be forwarded.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use convox_model::{Decision, Request, decide};
use convox_proxy::{Outcome, Reason};
use convox_wire::routes::Route;

use crate::audit::Entry;
use crate::authn::Verified;
use crate::credentials::RackEntry;
use crate::state::App;

/// Proof that a principal may do this to this Rack. It hears when that is no longer so, and tells the audit log how it ended.
pub(crate) struct Permit {
    app: Arc<App>,
    who: Verified,
    rack: Arc<RackEntry>,
    route: &'static Route,
    named_app: Option<String>,
    /// Id of the audit event, where there is one.
    event: Option<String>,
    pub(crate) rule: &'static str,
}

/// A refusal.
pub(crate) struct Refusal {
    pub(crate) rule: &'static str,
    /// Whether the caller may know that the Rack exists.
    pub(crate) visible: bool,
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
    match decide(who.principal(), &Request { org: &rack.row.org, route, app: named_app }) {
        Decision::Allow { rule } => Ok(Permit {
            app: Arc::clone(app),
            who: who.clone(),
            rack: Arc::clone(rack),
            route,
            named_app: named_app.map(str::to_owned),
            event: None,
            rule,
        }),
        Decision::Deny { rule, visible, needs } => Err(Refusal {
            rule,
            visible,
            message: match needs {
                Some(role) => format!(
                    "you may not do this on {}: it has effect {} and needs the role {role}; ask an administrator of {}",
                    rack.row.path(),
                    route.effect,
                    rack.row.org_name
                ),
                None => format!("no such rack: {}", rack.row.path()),
            },
        }),
    }
}

impl Permit {
    /// Why it does not hold any more; `None` while it does.
    pub(crate) fn ended(&self) -> Option<&'static str> {
        no_longer(&self.app, &self.who, &self.rack, self.route, self.named_app.as_deref())
    }

    /// Ties the permit to the audit event that was written for it.
    pub(crate) fn with_event(mut self, id: String) -> Self {
        self.event = Some(id);
        self
    }
}

impl convox_proxy::Permit for Permit {
    /// Decides again whenever the snapshot changes, and at the end of the key.
    fn revoked(&self) -> Pin<Box<dyn Future<Output = Reason> + Send>> {
        let (app, who, rack, route, named_app) =
            (Arc::clone(&self.app), self.who.clone(), Arc::clone(&self.rack), self.route, self.named_app.clone());
        Box::pin(async move {
            let mut changes = app.snapshots.watch();
            loop {
                if let Some(reason) = no_longer(&app, &who, &rack, route, named_app.as_deref()) {
                    return Reason::policy(reason);
                }
                let end = who.expires_ms().map(|end| Duration::from_millis((end - app.clock.now_ms()).max(0).unsigned_abs() + 1));
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() {
                        return Reason::policy("the Console is shutting down");
                    },
                    () = tokio::time::sleep(end.unwrap_or(Duration::MAX)), if end.is_some() => {}
                }
            }
        })
    }

    fn is_revoked(&self) -> bool {
        self.ended().is_some()
    }

    fn finished(self, outcome: Outcome) {
        if let Some(id) = self.event {
            let status = outcome.status.map_or(0, |status| status.as_u16());
            self.app.audit.note(Entry::Outcome { id, status });
        }
    }
}

/// Why the permit does not hold any more; `None` while it does.
fn no_longer(app: &App, who: &Verified, rack: &RackEntry, route: &'static Route, named_app: Option<&str>) -> Option<&'static str> {
    let snapshot = app.snapshots.now();
    let Some(known) = snapshot.again(who.principal()) else { return Some("the API key was revoked") };
    if known.expires_ms.is_some_and(|end| end <= app.clock.now_ms()) {
        return Some("cli token is expired");
    }
    if snapshot.rack_by_id(&rack.row.org, &rack.row.id).is_none() {
        return Some("the Rack was removed from the Console");
    }
    match decide(&known.principal, &Request { org: &rack.row.org, route, app: named_app }) {
        Decision::Allow { .. } => None,
        Decision::Deny { .. } => Some("your access to this Rack has ended"),
    }
}
