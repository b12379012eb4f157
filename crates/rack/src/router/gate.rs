//! HTTP by host name: from the head of a request to a healthy process of the right service.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use convox_proxy::{Body, Forward, Gate, Outcome, Permit, Reason, RequestId, Upstream, Verdict};
use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use ipnet::IpNet;

use super::balancer::{Counted, Pool};
use super::table::{CLASSES, Target, class};

/// Where certificate authorities look for their answer.
const CHALLENGE: &str = "/.well-known/acme-challenge/";
/// Headers that say where a request came from.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// Who answers under a name, and whom.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) pool: Arc<Pool>,
    /// Empty is from everywhere.
    pub(super) allowed: Arc<[IpNet]>,
    /// By HTTP also where HTTPS is answered.
    pub(super) plain_http: bool,
}

impl Site {
    fn lets_in(&self, from: IpAddr) -> bool {
        self.allowed.is_empty() || self.allowed.iter().any(|network| network.contains(&from))
    }
}

/// Whether a list of networks lets somebody in. Whoever is on this machine is, so that nobody locks himself out.
pub(crate) fn lets_in(allowed: &[IpNet], from: IpAddr) -> bool {
    let is_named = || allowed.iter().any(|network| network.contains(&from));
    allowed.is_empty() || from.is_loopback() || is_named() || is_of_this_machine(from)
}

/// Whether this is an address of ours: the kernel would go there from the very same one. Connecting by UDP sends nothing. (That a socket
/// can be bound to it says less: where `ip_nonlocal_bind` is set, one can be bound to any.)
fn is_of_this_machine(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

/// Who is served under which name. Swapped whole.
#[derive(Default)]
pub(super) struct Names {
    /// By host name, lower case; `*.example.com` stands for every name with one more part.
    pub(super) sites: HashMap<String, Site>,
    pub(super) challenges: HashMap<String, String>,
    /// Networks that are let in at all; empty is everybody.
    pub(super) allowed: Vec<IpNet>,
}

impl Names {
    fn site(&self, host: &str) -> Option<&Site> {
        let exact = self.sites.get(host);
        let wildcard = || host.split_once('.').and_then(|(_, parent)| self.sites.get(&format!("*.{parent}")));
        exact.or_else(wildcard)
    }
}

/// One listening address.
pub(super) struct Door {
    pub(super) names: Arc<ArcSwap<Names>>,
    pub(super) scheme: &'static str,
    pub(super) port: u16,
    /// The port on which HTTPS is answered; 0 while it is not.
    pub(super) https: Arc<AtomicU16>,
    /// What was answered here, without a service.
    pub(super) own: Arc<[AtomicU64; CLASSES]>,
}

impl Gate for Door {
    type Permit = Passage;

    async fn decide(&self, head: &Parts, peer: SocketAddr) -> Verdict<Passage> {
        let verdict = self.passage(head, peer).await;
        if let Verdict::Reply(reply) = &verdict
            && let Some(count) = self.own.get(class(reply.status().as_u16()))
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }
}

impl Door {
    async fn passage(&self, head: &Parts, peer: SocketAddr) -> Verdict<Passage> {
        let names = self.names.load_full();
        if let Some(token) = head.uri.path().strip_prefix(CHALLENGE)
            && let Some(answer) = names.challenges.get(token)
        {
            return Verdict::Reply(text(StatusCode::OK, answer.clone()));
        }
        let from = peer.ip().to_canonical();
        if !lets_in(&names.allowed, from) {
            return Verdict::Reply(text(StatusCode::FORBIDDEN, "this rack does not serve your network\n"));
        }
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let host = without_port(host).to_ascii_lowercase();
        let Some(site) = names.site(&host) else {
            return Verdict::Reply(text(StatusCode::NOT_FOUND, "no app is served under this name\n"));
        };
        if !site.lets_in(from) {
            return Verdict::Reply(text(StatusCode::FORBIDDEN, "this app is not served to your network\n"));
        }
        let https = self.https.load(Ordering::Relaxed);
        if self.scheme == "http" && https != 0 && !site.plain_http {
            return Verdict::Reply(to_https(&host, https, head));
        }
        let pool = Arc::clone(&site.pool);
        let Some(counted) = pool.next_soon().await else {
            return Verdict::Reply(text(StatusCode::SERVICE_UNAVAILABLE, "no healthy process of this service; see `convox logs`\n"));
        };
        let upstream = Arc::clone(&counted.0.upstream);
        let tried = Mutex::new((vec![counted.0.target.clone()], Some(counted)));
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"));
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

/// Sends the caller to the same place by HTTPS, with the same method and body.
fn to_https(host: &str, port: u16, head: &Parts) -> Response<Body> {
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path } else { "/" };
    let mut response = text(StatusCode::PERMANENT_REDIRECT, "use https\n");
    match HeaderValue::from_str(&format!("https://{host}{port}{path}")) {
        Ok(location) => drop(response.headers_mut().insert(LOCATION, location)),
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    response
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

    fn finished(self, outcome: Outcome) {
        self.pool.answered(outcome.status, outcome.duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_exactly_or_by_their_wildcard() {
        let (one, any) = (Arc::new(Pool::new()), Arc::new(Pool::new()));
        let names = Names {
            sites: HashMap::from([
                ("web.shop.example.com".to_owned(), site(&one, &[])),
                ("*.shop.example.com".to_owned(), site(&any, &[])),
            ]),
            ..Names::default()
        };
        let is = |host: &str, pool: &Arc<Pool>| names.site(host).is_some_and(|found| Arc::ptr_eq(&found.pool, pool));
        assert!(is("web.shop.example.com", &one) && is("api.shop.example.com", &any));
        assert!(names.site("a.b.shop.example.com").is_none() && names.site("shop.example.com").is_none() && names.site("").is_none());
    }

    fn site(pool: &Arc<Pool>, allowed: &[&str]) -> Site {
        let allowed = allowed.iter().map(|network| network.parse().unwrap()).collect();
        Site { pool: Arc::clone(pool), allowed, plain_http: false }
    }

    /// What is answered to a request without forwarding it: status and place.
    async fn reply(door: &Door, from: &str, host: &str, path: &str) -> (u16, String) {
        let request = http::Request::builder().uri(path).header(HOST, host).body(()).unwrap();
        match door.decide(&request.into_parts().0, from.parse().unwrap()).await {
            Verdict::Reply(reply) => {
                let place = reply.headers().get(LOCATION).map(|place| place.to_str().unwrap().to_owned());
                (reply.status().as_u16(), place.unwrap_or_default())
            }
            _ => (200, String::new()),
        }
    }

    fn door(site: Site, scheme: &'static str, https: u16) -> Door {
        let challenges = HashMap::from([("token".to_owned(), "answer".to_owned())]);
        let names = Names { sites: HashMap::from([("web.example.com".to_owned(), site)]), challenges, ..Names::default() };
        Door { names: Arc::new(ArcSwap::from_pointee(names)), scheme, port: 80, https: Arc::new(https.into()), own: Arc::default() }
    }

    #[tokio::test]
    async fn http_is_sent_to_https_where_that_is_answered_and_wanted() {
        let pool = Arc::new(Pool::new());
        pool.set(&[Target { process: "p".to_owned(), port: 1, tls: false }]).unwrap();
        let secure = door(site(&pool, &[]), "http", 443);
        let of = |path: &'static str| reply(&secure, "192.0.2.1:9", "Web.example.com:80", path);
        assert_eq!(of("/a?b=c").await, (308, "https://web.example.com/a?b=c".to_owned()));
        assert_eq!(of("/.well-known/acme-challenge/token").await.0, 200, "authorities ask by HTTP");
        assert_eq!(reply(&secure, "192.0.2.1:9", "other.example.com", "/").await.0, 404);
        let elsewhere = door(site(&pool, &[]), "http", 8443);
        assert_eq!(reply(&elsewhere, "192.0.2.1:9", "web.example.com", "/").await.1, "https://web.example.com:8443/");
        let plain = Site { plain_http: true, ..site(&pool, &[]) };
        for door in [door(site(&pool, &[]), "http", 0), door(plain, "http", 443), door(site(&pool, &[]), "https", 443)] {
            assert_eq!(reply(&door, "192.0.2.1:9", "web.example.com", "/").await.0, 200);
        }
    }

    #[tokio::test]
    async fn a_whitelist_keeps_others_out_on_both_doors() {
        let pool = Arc::new(Pool::new());
        pool.set(&[Target { process: "p".to_owned(), port: 1, tls: false }]).unwrap();
        for scheme in ["http", "https"] {
            let door = door(site(&pool, &["10.0.0.0/8", "2001:db8::/32"]), scheme, 0);
            for (from, status) in [
                ("10.1.2.3:9", 200),
                ("[::ffff:10.1.2.3]:9", 200),
                ("[2001:db8::1]:9", 200),
                ("11.1.2.3:9", 403),
                ("127.0.0.1:9", 403),
                ("[::1]:9", 403),
            ] {
                assert_eq!(reply(&door, from, "web.example.com", "/").await.0, status, "{scheme} {from}");
            }
        }
    }

    #[tokio::test]
    async fn the_racks_own_list_keeps_others_out_of_every_app_but_not_the_authority_and_this_machine() {
        let pool = Arc::new(Pool::new());
        pool.set(&[Target { process: "p".to_owned(), port: 1, tls: false }]).unwrap();
        let door = door(site(&pool, &[]), "https", 0);
        let mut names = Names { allowed: vec!["10.0.0.0/8".parse().unwrap()], ..Names::default() };
        names.sites.insert("web.example.com".to_owned(), site(&pool, &[]));
        names.challenges.insert("token".to_owned(), "answer".to_owned());
        door.names.store(Arc::new(names));
        for (from, path, status) in [
            ("10.1.2.3:9", "/", 200),
            ("127.0.0.1:9", "/", 200),
            ("[::1]:9", "/", 200),
            ("192.0.2.1:9", "/", 403),
            ("192.0.2.1:9", "/.well-known/acme-challenge/token", 200),
        ] {
            assert_eq!(reply(&door, from, "web.example.com", path).await.0, status, "{from} {path}");
        }
    }

    #[test]
    fn who_comes_from_an_address_of_this_machine_is_let_in() {
        let list = ["203.0.113.0/24".parse().unwrap()];
        // What this machine goes out with, where it has a way out; nothing is sent.
        let outside = UdpSocket::bind("0.0.0.0:0").unwrap();
        if outside.connect("198.51.100.1:9").is_ok() {
            let own = outside.local_addr().unwrap().ip();
            assert!(lets_in(&list, own), "{own}");
        }
        assert!(is_of_this_machine("127.0.0.1".parse().unwrap()));
        for other in ["198.51.100.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "2001:db8::1", "fe80::1"] {
            assert!(!lets_in(&list, other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn a_port_is_no_part_of_a_name() {
        assert_eq!(
            [without_port("a.b:80"), without_port("a.b"), without_port("[::1]:80"), without_port(":80")],
            ["a.b", "a.b", "[::1]", ":80"]
        );
    }
}
