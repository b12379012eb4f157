//! What this Rack does, told as text at an address of its own: `--metrics-listen`. Counts of requests by name come from the router, which is a
//! process of its own and is asked for them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use convox_meters::{CONTENT_TYPE, Histogram, Text, process};
use convox_proxy::{Body, Local, Server};
use convox_wire::routes::Effect;
use http::header::{CACHE_CONTROL, CONTENT_TYPE as KIND};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::rack::{Rack, VERSION};
use crate::readiness;
use crate::router::{CLASSES, Counted, class};
use crate::state::now_ms;

const PREFIX: &str = "convox_rack_";
const DAY: f64 = 24.0 * 60.0 * 60.0 * 1000.0;
/// All effects, and none where there was no route.
const EFFECTS: usize = Effect::ALL.len() + 1;

/// Counters of the API.
#[derive(Default)]
pub(crate) struct Meters {
    requests: [[AtomicU64; CLASSES]; EFFECTS],
    /// Until the head of the answer, without WebSockets.
    times: Histogram,
}

impl Meters {
    /// One more request, answered with this status after so long; without an effect where there was no route.
    pub(crate) fn answered(&self, effect: Option<Effect>, status: StatusCode, took: Duration) {
        let row = effect.map_or(0, |effect| effect as usize + 1);
        let class = class(status.as_u16());
        if let Some(count) = self.requests.get(row).and_then(|row| row.get(class)) {
            count.fetch_add(1, Relaxed);
        }
        if status != StatusCode::SWITCHING_PROTOCOLS {
            self.times.add(took);
        }
    }
}

/// Serves until the process ends; gives the address, whose port may have been picked.
pub(crate) fn serve(rack: Arc<Rack>, server: Server) -> SocketAddr {
    let bound = server.local_addr();
    tokio::spawn(async move {
        if let Err(error) = server.run_local(Watched(rack), std::future::pending()).await {
            tracing::error!(%error, "metrics cannot be served");
        }
    });
    bound
}

/// What monitoring may ask.
#[derive(Clone)]
struct Watched(Arc<Rack>);

impl Local for Watched {
    async fn call(&self, request: Request<Incoming>, _peer: SocketAddr) -> Response<Body> {
        let (method, path) = (request.method(), request.uri().path());
        if let Some(answer) = readiness::answer(&self.0, method, path) {
            return answer;
        }
        if !(method == Method::GET && path == "/metrics") {
            let mut response = Response::new(Body::from("there are /metrics, /health and /ready\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
        let mut response = Response::new(Body::from(all(&self.0).await));
        response.headers_mut().insert(KIND, HeaderValue::from_static(CONTENT_TYPE));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

async fn all(rack: &Arc<Rack>) -> String {
    let logs = rack.logs.clone();
    // Each by itself: what cannot be told now leaves the rest as it is.
    let (router, certificates, sizes) =
        tokio::join!(rack.scheduler.router_counts(), rack.state.certificate_ends(), tokio::task::spawn_blocking(move || logs.sizes()));
    let mut text = Text::new(PREFIX);
    text.head("info", "gauge", "This program.");
    text.line("info", &[("version", env!("CARGO_PKG_VERSION")), ("rack", &rack.name), ("rack_version", VERSION)], 1);
    requests(&mut text, &rack.meters);
    text.one("streams", "gauge", "Open WebSockets of the API.", rack.streams.len());
    processes(&mut text, rack);
    text.one("builds_running", "gauge", "Builds that are being made.", rack.builder.running());
    text.head(
        "log_bytes",
        "gauge",
        "Bytes of logs on the disk, by app; builds' logs stand beside it as APP_builds, the rack's own is _rack.",
    );
    for (log, bytes) in sizes.unwrap_or_default() {
        text.line("log_bytes", &[("log", &log)], bytes);
    }
    text.head("certificate_days_left", "gauge", "Days until a certificate of the router ends; less than 0 when it has.");
    for (id, domain, expires_ms) in certificates.unwrap_or_default() {
        text.line("certificate_days_left", &[("certificate", &id), ("domain", &domain)], (expires_ms - now_ms()) as f64 / DAY);
    }
    routed(&mut text, router.as_ref());
    text.one("ready", "gauge", "Whether this rack takes requests.", u8::from(readiness::is_ready(rack)));
    for (name, kind, help, value) in process::all() {
        text.plain(name, kind, help, value);
    }
    text.finish()
}

/// `2xx`; `none` for callers who went away before there was a status.
fn class_name(class: usize) -> String {
    if class == 0 { "none".to_owned() } else { format!("{class}xx") }
}

fn requests(text: &mut Text, meters: &Meters) {
    text.head("requests_total", "counter", "Requests of the API by what they would do and how they were answered.");
    let names = std::iter::once("unknown").chain(Effect::ALL.into_iter().map(Effect::as_str));
    for (name, row) in names.zip(&meters.requests) {
        // No caller of the API goes without an answer.
        for (class, count) in row.iter().enumerate().skip(1) {
            text.line("requests_total", &[("effect", name), ("status", &class_name(class))], count.load(Relaxed));
        }
    }
    text.head("request_seconds", "histogram", "From the head of a request of the API to the head of its answer, without WebSockets.");
    text.times("request_seconds", &[], &meters.times.read());
}

fn processes(text: &mut Text, rack: &Rack) {
    let mut counts: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for process in rack.scheduler.all_processes() {
        *counts.entry((process.app.clone(), process.status.as_str())).or_default() += 1;
    }
    text.head("processes", "gauge", "Processes of apps by state, as `convox ps` names it.");
    for ((app, state), count) in counts {
        text.line("processes", &[("app", &app), ("state", state)], count);
    }
}

fn routed(text: &mut Text, router: Option<&Counted>) {
    text.one(
        "router_answers",
        "gauge",
        "Whether the router says what it did; without it there is nothing of it here.",
        u8::from(router.is_some()),
    );
    let Some(counted) = router else { return };
    text.head("router_requests_total", "counter", "Requests by host name; without app and service those that none got.");
    for (class, count) in counted.own.iter().enumerate() {
        text.line("router_requests_total", &[("app", ""), ("service", ""), ("status", &class_name(class))], count);
    }
    for service in &counted.services {
        for (class, count) in service.by_class.iter().enumerate() {
            let labels = [("app", service.app.as_str()), ("service", &service.service), ("status", &class_name(class))];
            text.line("router_requests_total", &labels, count);
        }
    }
    text.head(
        "router_request_seconds",
        "histogram",
        "From the head of a request by host name to the last byte of its answer, without WebSockets.",
    );
    for service in &counted.services {
        text.times("router_request_seconds", &[("app", &service.app), ("service", &service.service)], &service.times);
    }
    text.one("router_connections", "gauge", "Connections of callers to the router, and requests of HTTP/2.", counted.callers);
    text.one("router_streams", "gauge", "Open WebSockets of apps.", counted.tunnels);
    text.one("router_connections_failed_total", "counter", "Connections to processes that could not be opened.", counted.failed);
}
