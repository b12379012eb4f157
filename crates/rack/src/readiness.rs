//! Whether this Rack should get requests, for whoever watches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use convox_proxy::Body;
use convox_wire::readiness::{ALIVE, Check, Readiness};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};

use crate::rack::Rack;

/// How often the database is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Without a good look for so long, the Rack is not ready.
const TRUST: Duration = Duration::from_secs(5);

/// When the database was last read.
pub(crate) struct Looked {
    started: Instant,
    /// Milliseconds after `started`.
    at_ms: AtomicU64,
}

impl Default for Looked {
    fn default() -> Self {
        Self { started: Instant::now(), at_ms: AtomicU64::new(0) }
    }
}

impl Looked {
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn since(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms().saturating_sub(self.at_ms.load(Relaxed)))
    }
}

/// Looks at the database for ever.
pub(crate) async fn follow(rack: Arc<Rack>) {
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let asked_ms = rack.looked.elapsed_ms();
        match tokio::time::timeout(TRUST, rack.state.look()).await {
            Ok(Ok(())) => rack.looked.at_ms.store(asked_ms, Relaxed),
            Ok(Err(error)) => tracing::warn!(%error, "the database cannot be read"),
            Err(_) => tracing::warn!("the database did not answer within {} s", TRUST.as_secs()),
        }
    }
}

/// Answers without asking who asks; `None` for any other request. Looks at memory only, so that nobody makes work by asking.
pub(crate) fn answer(rack: &Rack, method: &Method, path: &str) -> Option<Response<Body>> {
    if method != Method::GET {
        return None;
    }
    match path {
        "/health" => Some(response(StatusCode::OK, "text/plain; charset=utf-8", ALIVE.to_owned())),
        "/ready" => {
            let readiness = look(rack);
            let status = StatusCode::from_u16(readiness.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            Some(response(status, "application/json", readiness.to_body()))
        }
        _ => None,
    }
}

/// Whether requests should come here.
pub(crate) fn is_ready(rack: &Rack) -> bool {
    look(rack).is_ready()
}

fn look(rack: &Rack) -> Readiness {
    let since = rack.looked.since();
    let failures = rack.scheduler.router_failures().len();
    Readiness::from(vec![
        Check::new("database", true, (since >= TRUST).then(|| format!("it was last read {:.1} s ago", since.as_secs_f64()))),
        Check::new("running", true, rack.ending.is_cancelled().then(|| "it ends: open requests finish, new ones are not taken".to_owned())),
        // Apps on other ports are reached.
        Check::new("router", false, (failures > 0).then(|| format!("it cannot listen on {failures} of its addresses; the log names them"))),
    ])
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_not_read_any_more_ages() {
        let looked = Looked { started: Instant::now().checked_sub(Duration::from_secs(9)).unwrap(), at_ms: AtomicU64::new(1_000) };
        assert!(looked.since() >= Duration::from_secs(8) && looked.since() >= TRUST);
        looked.at_ms.store(looked.elapsed_ms(), Relaxed);
        assert!(looked.since() < TRUST);
    }
}
