//! Whether this server should get requests, for whoever spreads them over servers.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use convox_wire::readiness::{Check, Readiness};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use crate::state::App;

/// Looks, in memory only.
pub(crate) fn look(app: &App) -> Readiness {
    let lag = app.snapshots.since_look();
    let stale = || format!("the database was last read {:.1} s ago, so its memory is not trusted", lag.as_secs_f64());
    Readiness::from(vec![
        Check::new("database", true, (!app.snapshots.is_trusted()).then(stale)),
        Check::new("root_key", true, root_key(app)),
        Check::new("running", true, app.is_draining().then(|| "it ends: open requests finish, new ones go elsewhere".to_owned())),
        // Reads go on without the log; whoever takes all servers away for it takes those away too.
        Check::new("audit_log", false, audit_log(app)),
    ])
}

/// What is wrong with the audit log, or with the second one.
fn audit_log(app: &App) -> Option<String> {
    if app.audit.is_failing() {
        return Some("it cannot be written, so only reads are forwarded".to_owned());
    }
    let second = app.audit.second()?;
    let (waiting, left, faults) = (second.waiting(), second.left(), second.faults());
    if second.is_used() {
        let full = second.bytes() * 100 / second.limit().max(1);
        return Some(format!("the database does not take it: {waiting} entries wait in the second log, which is {full} % full"));
    }
    if faults > 0 {
        return Some(format!("the second log was changed by somebody, at {faults} places or more: see `convox-console audit verify`"));
    }
    (left > 0).then(|| format!("the database refuses {left} entries of the second log; they stay there, and are tried again"))
}

/// Organizations that are tried at most.
const TRIED: usize = 8;

/// Whether what is sealed can be opened: what is sealed of one organization at least, for the key is one for all. One whose rows were damaged
/// must not take this server from the others.
fn root_key(app: &App) -> Option<String> {
    let snapshot = app.snapshots.now();
    let mut fault = None;
    for (org, wrapped) in snapshot.all_data_keys().take(TRIED) {
        match app.keyring.unwrap_data_keys(wrapped, org.as_str()) {
            Ok(_) => return None,
            Err(error) => fault = Some(format!("it does not open what is sealed: {error}")),
        }
    }
    fault
}

/// `GET /ready`
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let readiness = look(&app);
    let status = StatusCode::from_u16(readiness.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    (status, [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], readiness.to_body()).into_response()
}
