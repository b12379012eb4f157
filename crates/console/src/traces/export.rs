//! Spans to a collector: OTLP over HTTP, in its form of JSON. Batches, bounded; what does not fit or cannot be sent is left out and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use convox_client::{Call, Client, Context as ClientContext, Endpoint};
use convox_seal::Secret;
use convox_tls::Trust;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Ended;

/// Requests that may wait.
const QUEUE: usize = 4096;
/// Requests of one message.
const BATCH: usize = 256;
/// How long a batch is collected.
const ROUND: Duration = Duration::from_secs(1);
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether and where traces are told.
#[derive(clap::Args, Clone)]
pub(crate) struct TraceOptions {
    /// Collector for traces: http://HOST:4318 or https://HOST, to which /v1/traces is added (OTLP over HTTP, JSON). None if not given. Headers
    /// for it are read from `OTEL_EXPORTER_OTLP_HEADERS`.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    pub(crate) otlp_endpoint: Option<String>,
    /// Share of the requests that are traced where the caller does not say: 0 to 1.
    #[arg(long, value_name = "RATIO", env = "OTEL_TRACES_SAMPLER_ARG", default_value_t = 1.0, value_parser = ratio)]
    pub(crate) trace_ratio: f64,
}

fn ratio(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or_else(|| "give 0 to 1".to_owned())
}

/// The way to the collector.
pub(crate) struct Traces {
    queue: mpsc::Sender<Ended>,
    ratio: f64,
    told: Arc<Told>,
}

/// What became of those that have ended.
#[derive(Default)]
struct Told {
    sent: AtomicU64,
    lost: AtomicU64,
}

/// The other end, for [`Exporter::run`].
pub(crate) struct Exporter {
    queue: mpsc::Receiver<Ended>,
    client: Client,
    headers: Vec<(String, Secret)>,
    service: String,
    node: String,
    told: Arc<Told>,
}

/// `NAME=VALUE,NAME=VALUE`, values with percent escapes, as the specification of the exporter has it. Faults are told at the start, and without
/// the value.
fn headers(given: &Secret) -> Result<Vec<(String, Secret)>> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_HEADERS";
    let mut headers = Vec::new();
    for pair in given.expose().split(',').filter(|pair| !pair.trim().is_empty()) {
        let Some((name, value)) = pair.split_once('=') else { bail!("{NAME} is NAME=VALUE,NAME=VALUE") };
        let name = name.trim().to_ascii_lowercase();
        if HeaderName::try_from(&name).is_err() {
            bail!("{NAME}: the name of a header is of letters, digits and hyphens");
        }
        let Some(value) = unescaped(value.trim()).filter(|value| HeaderValue::try_from(value.expose()).is_ok()) else {
            bail!("{NAME}: the value of {name} cannot be that of a header; %XX stands for a byte, and % itself is %25");
        };
        headers.push((name, value));
    }
    Ok(headers)
}

/// Percent escapes as the bytes that they stand for; `+` is itself.
fn unescaped(text: &str) -> Option<Secret> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().map(Secret::new)
}

impl Traces {
    /// Without a collector there is none.
    pub(crate) fn new(options: &TraceOptions, node: &str) -> Result<Option<(Self, Exporter)>> {
        let Some(url) = options.otlp_endpoint.as_deref().filter(|url| !url.is_empty()) else { return Ok(None) };
        let form = "--otlp-endpoint is http://HOST:PORT or https://HOST:PORT";
        let endpoint = Endpoint::parse(url).map_err(|error| anyhow::anyhow!("{form}: {error}"))?;
        let headers = headers(&Secret::new(std::env::var("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default()))?;
        let told = Arc::<Told>::default();
        let (queue, spans) = mpsc::channel(QUEUE);
        let service = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "convox-console".to_owned());
        let client = Client::new(endpoint, Trust::SystemRoots, ClientContext::default());
        let exporter = Exporter { queue: spans, client, headers, service, node: node.to_owned(), told: Arc::clone(&told) };
        Ok(Some((Self { queue, ratio: options.trace_ratio, told }, exporter)))
    }

    /// Whether a trace that begins here is told.
    pub(crate) fn samples(&self) -> bool {
        (super::random() >> 11) as f64 / ((1u64 << 53) as f64) < self.ratio
    }

    /// It has ended. Waits for nobody.
    pub(crate) fn ended(&self, ended: Ended) {
        if self.queue.try_send(ended).is_err() && self.told.lost.fetch_add(1, Relaxed).is_multiple_of(10_000) {
            tracing::warn!("traces are left out: the collector takes them more slowly than requests come");
        }
    }

    /// Requests that the collector took, and those that it was not told of: there were too many, or it did not take them.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.told.sent.load(Relaxed), self.told.lost.load(Relaxed))
    }
}

impl Exporter {
    /// Sends until every [`Traces`] is gone.
    pub(crate) async fn run(mut self) {
        let mut spans = Vec::with_capacity(BATCH);
        let mut is_well = true;
        while self.queue.recv_many(&mut spans, BATCH).await > 0 {
            let collected =
                tokio::time::timeout(ROUND, async { while spans.len() < BATCH && self.queue.recv_many(&mut spans, BATCH).await > 0 {} });
            let _ = collected.await;
            let (message, count) = (self.message(&spans), spans.len() as u64);
            spans.clear();
            let sent = self.send(&message).await;
            if sent.is_ok() { &self.told.sent } else { &self.told.lost }.fetch_add(count, Relaxed);
            if is_well != sent.is_ok() {
                is_well = sent.is_ok();
                match &sent {
                    Ok(()) => tracing::info!("the collector takes traces again"),
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "the collector does not take traces: they are left out"),
                }
            }
        }
    }

    async fn send(&self, message: &Value) -> Result<()> {
        let mut call = Call::post(&["v1", "traces"])?.header("content-type", "application/json")?;
        for (name, value) in &self.headers {
            call = call.header(name, value.expose())?;
        }
        tokio::time::timeout(PATIENCE, self.client.done(call.body(message.to_string().into_bytes())))
            .await
            .context("it did not answer in time")??;
        Ok(())
    }

    fn message(&self, ended: &[Ended]) -> Value {
        let spans: Vec<Value> = ended.iter().flat_map(spans).collect();
        json!({ "resourceSpans": [{
            "resource": { "attributes": [
                text("service.name", &self.service), text("service.version", env!("CARGO_PKG_VERSION")), text("service.instance.id", &self.node),
            ] },
            "scopeSpans": [{ "scope": { "name": "convox-console", "version": env!("CARGO_PKG_VERSION") }, "spans": spans }],
        }] })
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// Two spans: what was done here, and what was asked of the Rack.
fn spans(ended: &Ended) -> [Value; 2] {
    const SERVER: u8 = 2;
    const CLIENT: u8 = 3;
    const ERROR: u8 = 2;
    let Ended { begun, route, effect, rack, status, at, whole, upstream } = ended;
    let context = &begun.context;
    let end = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = |before: Duration| end.saturating_sub(before).as_nanos().to_string();
    let failed = status.is_none_or(|status| status >= 500);
    let mut attributes = vec![
        text("http.request.method", &begun.method),
        text("url.path", &begun.path),
        text("convox.rack.id", rack),
        text("convox.effect", effect),
        text("convox.request_id", &begun.request.to_string()),
    ];
    if let Some(status) = status {
        attributes.push(json!({ "key": "http.response.status_code", "value": { "intValue": status.to_string() } }));
    }
    let span = |own: u64, parent: u64, kind: u8, took: Duration| {
        let parent = if parent == 0 { String::new() } else { format!("{parent:016x}") };
        json!({
            "traceId": format!("{:032x}", context.trace), "spanId": format!("{own:016x}"), "parentSpanId": parent,
            "name": route, "kind": kind, "startTimeUnixNano": nanos(took), "endTimeUnixNano": nanos(Duration::ZERO),
            "attributes": attributes, "status": if failed { json!({ "code": ERROR }) } else { json!({}) },
        })
    };
    [span(context.own, context.parent, SERVER, *whole), span(context.client, context.own, CLIENT, (*upstream).min(*whole))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>> {
        let headers = headers(&Secret::new(text.to_owned()))?;
        Ok(headers.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect())
    }

    #[test]
    fn headers_of_the_collector_are_read_with_their_escapes() {
        let found = read("Authorization=Basic%20YTpi%3D%3D, x-scope=a+b%2Cc ,").unwrap();
        let wanted = [("authorization", "Basic YTpi=="), ("x-scope", "a+b,c")];
        assert_eq!(found, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(read("api-key=a=b").unwrap(), [("api-key".to_owned(), "a=b".to_owned())]);
        assert!(read("").unwrap().is_empty());
        for bad in ["secret", "key=secret%2", "key=secret%zz", "key=secret%0d%0aX: y", "k y=secret", "=secret", "key=secret%ff"] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("OTEL_EXPORTER_OTLP_HEADERS") && !error.contains("secret"), "{bad}: {error}");
        }
    }
}
