//! Which request at a Rack belongs to which of a caller: W3C trace context, taken from callers, passed to Racks, and told to a collector where
//! there is one ([`export`]). ADR 0030.

pub(crate) mod export;

use std::time::{Duration, Instant, SystemTime};

use convox_proxy::{Outcome, RequestId};
use convox_wire::trace::TraceParent;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use export::Traces;

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The place of one request in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    trace: u128,
    /// The caller's span; 0 when the trace begins here.
    parent: u64,
    /// What is done with the request here.
    own: u64,
    /// What is asked of the Rack; the parent of whatever happens there.
    client: u64,
    is_sampled: bool,
}

impl Context {
    /// Of a caller who says where they are in a trace; anew for one who does not, or not well.
    pub(crate) fn of(headers: &HeaderMap, samples: impl FnOnce() -> bool) -> Self {
        let (own, client) = (random(), random());
        match said(headers) {
            Some(TraceParent { trace, span, is_sampled }) => Self { trace, parent: span, own, client, is_sampled },
            None => Self { trace: (u128::from(random()) << 64) | u128::from(random()), parent: 0, own, client, is_sampled: samples() },
        }
    }

    /// The name of a request, with this trace.
    pub(crate) fn names(&self, id: RequestId) -> RequestId {
        id.in_trace(self.trace)
    }

    /// Whether it begins here, so that what else the caller says of a trace means nothing.
    pub(crate) fn is_new(&self) -> bool {
        self.parent == 0
    }

    /// Whether it is to be told.
    pub(crate) fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// For the Rack.
    pub(crate) fn header(&self) -> HeaderValue {
        // Without the machinery of `write!`: each request that is forwarded has one.
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let digits = |place: &mut [u8], mut number: u128| {
            for digit in place.iter_mut().rev() {
                *digit = b"0123456789abcdef".get((number & 0xf) as usize).copied().unwrap_or(b'0');
                number >>= 4;
            }
        };
        for (place, number) in [(3..35, self.trace), (36..52, u128::from(self.client)), (53..55, u128::from(self.is_sampled))] {
            digits(text.get_mut(place).unwrap_or_default(), number);
        }
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// What the caller says of it, if that is well formed.
fn said(headers: &HeaderMap) -> Option<TraceParent> {
    TraceParent::of(headers.get_all(TRACEPARENT).iter().map(HeaderValue::as_bytes))
}

/// The name of a request with the trace that its caller says it is part of.
pub(crate) fn named(id: RequestId, headers: &HeaderMap) -> RequestId {
    said(headers).map_or(id, |said| id.in_trace(said.trace))
}

/// Names spans; no secret. Never 0.
fn random() -> u64 {
    convox_proxy::random_name().max(1)
}

/// Of a method or a path, in characters, as in the audit log.
const LONGEST: usize = 1024;

/// A request that is told to the collector when it ends. Method and path, as in the log: no query, no header, nobody's name.
#[derive(Debug)]
pub(crate) struct Begun {
    context: Context,
    began: Instant,
    method: String,
    path: String,
    request: RequestId,
}

/// One that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    begun: Begun,
    route: &'static str,
    effect: &'static str,
    rack: String,
    status: Option<u16>,
    at: SystemTime,
    whole: Duration,
    /// At the Rack.
    upstream: Duration,
}

impl Begun {
    pub(crate) fn new(context: Context, head: &Parts, request: RequestId, began: Instant) -> Self {
        // They wait in a queue that is bounded by their number.
        let short = |text: &str| text.chars().take(LONGEST).collect();
        Self { context, began, method: short(head.method.as_str()), path: short(head.uri.path()), request }
    }

    pub(crate) fn end(self, route: &'static str, effect: &'static str, rack: &str, outcome: &Outcome) -> Ended {
        Ended {
            route,
            effect,
            rack: rack.to_owned(),
            status: outcome.status.map(|status| status.as_u16()),
            at: SystemTime::now(),
            whole: self.began.elapsed(),
            upstream: outcome.duration,
            begun: self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_trace_goes_on_under_another_span_and_a_strange_one_begins_anew() {
        let mut headers = HeaderMap::new();
        let said = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert(TRACEPARENT, HeaderValue::from_static(said));
        let context = Context::of(&headers, || false);
        let passed = context.header();
        let passed = passed.to_str().unwrap();
        assert!(passed.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && passed.ends_with("-01") && passed != said);
        assert!(TraceParent::parse(passed.as_bytes()).is_some() && !context.is_new());
        // Twice is not at all.
        headers.append(TRACEPARENT, HeaderValue::from_static(said));
        let context = Context::of(&headers, || true);
        assert!(context.is_new() && context.is_sampled && TraceParent::parse(context.header().as_bytes()).is_some());
        assert_ne!(context.header(), Context::of(&headers, || true).header());
    }
}
