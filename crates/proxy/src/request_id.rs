//! Twelve hexadecimal digits that name one request in answers, logs and the audit, and the trace that it is part of.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use http::{HeaderMap, HeaderName, HeaderValue};

/// Name of the header that carries the request id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Of the one that carries the trace, in answers that are errors.
const TRACE_ID: HeaderName = HeaderName::from_static("trace-id");

/// Name of one request: 48 bits, shown as 12 hexadecimal digits. Not a secret, and unique only as far as 48 random bits are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    name: u64,
    /// 0 if it is part of none that is known.
    trace: u128,
}

/// Of one trace. `Display` is its 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

impl fmt::Display for TraceId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:032x}", self.0)
    }
}

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish());
}

/// 64 bits that name something; no secret. SplitMix64: a step is one addition, and what is given is a good mix of it.
pub fn random_name() -> u64 {
    let state = STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        next
    });
    let mut mix = state;
    mix = (mix ^ (mix >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mix = (mix ^ (mix >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mix ^ (mix >> 31)
}

impl RequestId {
    /// The next one of this thread; each thread starts at a random place.
    pub fn next() -> Self {
        Self { name: random_name() >> 16, trace: 0 }
    }

    /// The same name, of a request that is part of this trace.
    #[must_use]
    pub fn in_trace(self, trace: u128) -> Self {
        Self { trace, ..self }
    }

    /// The trace, if it is known.
    pub fn trace(self) -> Option<TraceId> {
        (self.trace != 0).then_some(TraceId(self.trace))
    }

    /// Puts both into the head of an answer that is an error.
    pub fn name_error(self, headers: &mut HeaderMap) {
        headers.insert(REQUEST_ID, self.header());
        if let Some(trace) = self.trace()
            && let Ok(digits) = HeaderValue::try_from(trace.to_string())
        {
            headers.insert(TRACE_ID, digits);
        }
    }

    /// The digits, without an allocation.
    pub fn digits(self) -> [u8; 12] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        std::array::from_fn(|at| {
            let nibble = (self.name >> (44 - 4 * at)) & 0xf;
            HEX.get(nibble as usize).copied().unwrap_or(b'0')
        })
    }

    /// As the value of the header `Request-Id`.
    pub fn header(self) -> HeaderValue {
        HeaderValue::from_bytes(&self.digits()).unwrap_or(HeaderValue::from_static("000000000000"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:012x}", self.name)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_twelve_digits_and_differ() {
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| RequestId::next().to_string()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }

    #[test]
    fn the_header_and_the_text_are_the_same() {
        let id = RequestId::next();
        assert_eq!(id.header().to_str().unwrap(), id.to_string());
    }

    #[test]
    fn an_error_names_the_trace_where_there_is_one() {
        let (id, mut headers) = (RequestId::next(), HeaderMap::new());
        id.name_error(&mut headers);
        assert_eq!((headers.len(), id.trace()), (1, None));
        let within = id.in_trace(0xab);
        within.name_error(&mut headers);
        assert_eq!((within.to_string(), within.header()), (id.to_string(), id.header()));
        assert_eq!(headers["trace-id"], "000000000000000000000000000000ab");
    }
}
