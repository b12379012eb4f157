//! HTTP by host name: from the head of a request to a healthy process of the right service.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use convox_proxy::{Body, Forward, Gate, Outcome, Permit, Reason, RequestId, Upstream, Verdict};
use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::balancer::{Counted, Pool};
use super::table::Target;

/// Where certificate authorities look for their answer.
const CHALLENGE: &str = "/.well-known/acme-challenge/";
/// Headers that say where a request came from.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// Who is served under which name. Swapped whole.
#[derive(Default)]
pub(super) struct Names {
    /// By host name, lower case; `*.example.com` stands for every name with one more part.
    pub(super) pools: HashMap<String, Arc<Pool>>,
    pub(super) challenges: HashMap<String, String>,
}

impl Names {
    fn pool(&self, host: &str) -> Option<Arc<Pool>> {
        let exact = self.pools.get(host);
        let wildcard = || host.split_once('.').and_then(|(_, parent)| self.pools.get(&format!("*.{parent}")));
        exact.or_else(wildcard).cloned()
    }
}

/// One listening address.
pub(super) struct Door {
    pub(super) names: Arc<ArcSwap<Names>>,
    pub(super) scheme: &'static str,
    pub(super) port: u16,
}

impl Gate for Door {
    type Permit = Passage;

    async fn decide(&self, head: &Parts, peer: SocketAddr) -> Verdict<Passage> {
        let names = self.names.load_full();
        if let Some(token) = head.uri.path().strip_prefix(CHALLENGE)
            && let Some(answer) = names.challenges.get(token)
        {
            return Verdict::Reply(text(StatusCode::OK, answer.clone()));
        }
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let host = without_port(host).to_ascii_lowercase();
        let Some(pool) = names.pool(&host) else {
            return Verdict::Reply(text(StatusCode::NOT_FOUND, "no app is served under this name\n"));
        };
        let Some(counted) = pool.next_soon().await else {
            return Verdict::Reply(text(StatusCode::SERVICE_UNAVAILABLE, "no healthy process of this service; see `convox logs`\n"));
        };
        let upstream = Arc::clone(&counted.0.upstream);
        let tried = Mutex::new((vec![counted.0.target.clone()], Some(counted)));
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"));
        let from = match peer.ip() {
            IpAddr::V6(address) => address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4),
            address @ IpAddr::V4(_) => address,
        };
        Verdict::Forward(Forward {
            permit: Passage { pool, tried },
            upstream,
            authorization: HeaderValue::from_static(""),
            path_and_query: None,
            add: vec![
                (FORWARDED_FOR, value(&from.to_string())),
                (FORWARDED_PROTO, HeaderValue::from_static(self.scheme)),
                (FORWARDED_PORT, HeaderValue::from(self.port)),
            ],
            request_id: RequestId::next(),
        })
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

fn text(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// One request on its way through: counts for its process until the last byte of the answer.
pub(super) struct Passage {
    pool: Arc<Pool>,
    tried: Mutex<(Vec<Target>, Option<Counted>)>,
}

impl Permit for Passage {
    fn revoked(&self) -> Pin<Box<dyn Future<Output = Reason> + Send>> {
        Box::pin(std::future::pending())
    }

    fn instead(&self, _failed: &Upstream) -> Option<Arc<Upstream>> {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let other = self.pool.next(&tried.0)?;
        tried.0.push(other.0.target.clone());
        let upstream = Arc::clone(&other.0.upstream);
        tried.1 = Some(other);
        Some(upstream)
    }

    fn finished(self, _outcome: Outcome) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_exactly_or_by_their_wildcard() {
        let (one, any) = (Arc::new(Pool::new()), Arc::new(Pool::new()));
        let names = Names {
            pools: HashMap::from([
                ("web.shop.example.com".to_owned(), Arc::clone(&one)),
                ("*.shop.example.com".to_owned(), Arc::clone(&any)),
            ]),
            ..Names::default()
        };
        let is = |host: &str, pool: &Arc<Pool>| names.pool(host).is_some_and(|found| Arc::ptr_eq(&found, pool));
        assert!(is("web.shop.example.com", &one) && is("api.shop.example.com", &any));
        assert!(names.pool("a.b.shop.example.com").is_none() && names.pool("shop.example.com").is_none() && names.pool("").is_none());
    }

    #[test]
    fn a_port_is_no_part_of_a_name() {
        assert_eq!(
            [without_port("a.b:80"), without_port("a.b"), without_port("[::1]:80"), without_port(":80")],
            ["a.b", "a.b", "[::1]", ":80"]
        );
    }
}
