//! Which request at a Rack belongs to which of a caller: W3C trace context, taken from callers, passed to Racks, and told to a collector where
//! there is one ([`export`]). ADR 0030.

pub(crate) mod export;

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use convox_proxy::{Outcome, RequestId};
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
        let mut said = headers.get_all(TRACEPARENT).iter();
        let caller = match (said.next(), said.next()) {
            (Some(only), None) => parse(only.as_bytes()),
            _ => None,
        };
        let (own, client) = (random(), random());
        match caller {
            Some((trace, parent, is_sampled)) => Self { trace, parent, own, client, is_sampled },
            None => Self { trace: (u128::from(random()) << 64) | u128::from(random()), parent: 0, own, client, is_sampled: samples() },
        }
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
        let mut text = String::with_capacity(55);
        let _ = write!(text, "00-{:032x}-{:016x}-{:02x}", self.trace, self.client, u8::from(self.is_sampled));
        // Digits and hyphens only.
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// `00-TRACE-SPAN-FLAGS` of version 00, or the beginning of a later one. Trace, span, and whether it is sampled.
fn parse(text: &[u8]) -> Option<(u128, u64, bool)> {
    let text = std::str::from_utf8(text).ok()?;
    let hex = |part: &str, length: usize| {
        let is_hex = part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        is_hex.then(|| u128::from_str_radix(part, 16).ok()).flatten()
    };
    let mut parts = text.splitn(5, '-');
    let version = hex(parts.next()?, 2)?;
    let (trace, span, flags) = (hex(parts.next()?, 32)?, hex(parts.next()?, 16)?, hex(parts.next()?, 2)?);
    let is_known = match version {
        0 => parts.next().is_none(),
        0xff => false,
        _ => true,
    };
    (is_known && trace != 0 && span != 0).then_some((trace, u64::try_from(span).ok()?, flags & 1 == 1))
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
    fn only_what_is_well_formed_is_taken() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(parse(good.as_bytes()), Some((0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7, true)));
        assert_eq!(parse(good.replace("-01", "-fe").as_bytes()).map(|(.., sampled)| sampled), Some(false));
        assert!(parse(format!("cc{}-later", &good[2..]).as_bytes()).is_some(), "a later version begins alike");
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "é",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_callers_trace_goes_on_under_another_span_and_a_strange_one_begins_anew() {
        let mut headers = HeaderMap::new();
        let said = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert(TRACEPARENT, HeaderValue::from_static(said));
        let context = Context::of(&headers, || false);
        let passed = context.header();
        let passed = passed.to_str().unwrap();
        assert!(passed.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && passed.ends_with("-01") && passed != said);
        assert!(parse(passed.as_bytes()).is_some() && !context.is_new());
        // Twice is not at all.
        headers.append(TRACEPARENT, HeaderValue::from_static(said));
        let context = Context::of(&headers, || true);
        assert!(context.is_new() && context.is_sampled && parse(context.header().as_bytes()).is_some());
        assert_ne!(context.header(), Context::of(&headers, || true).header());
    }
}
