//! Where a caller is: the address of the connection, or, when that is a proxy that was listed at the start, the one that the proxy names.
//! Nobody else's forwarding headers are looked at.

use std::net::IpAddr;

use convox_model::Network;
use http::{HeaderMap, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies whose word is believed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies(Vec<Network>);

impl Proxies {
    pub(crate) fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The caller's address. Each proxy appends whom it saw, so it is read from its end: the first address that is no listed proxy's. What
    /// stands before that was sent by somebody who may say anything.
    pub(crate) fn caller(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut caller = peer.to_canonical();
        let lines: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or("?")).collect();
        for named in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            if !self.has(caller) {
                break;
            }
            // What cannot be read names nobody: the proxy itself is as far as we know.
            let Ok(named) = named.trim().parse::<IpAddr>() else { break };
            caller = named.to_canonical();
        }
        caller
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(peer: &str, lines: &[&'static str]) -> String {
        let proxies = Proxies::new(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::5".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, http::HeaderValue::from_static(line));
        }
        proxies.caller(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_a_listed_proxy_is_believed() {
        assert_eq!(caller("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(caller("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(caller("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(caller("2001:db8::5", &["2001:db8::77"]), "2001:db8::77");
        assert_eq!(caller("10.0.0.1", &[]), "10.0.0.1");
        let nobody = Proxies::default();
        let headers = HeaderMap::from_iter([(FORWARDED_FOR, http::HeaderValue::from_static("198.51.100.1"))]);
        assert_eq!(nobody.caller("127.0.0.1".parse().unwrap(), &headers).to_string(), "127.0.0.1");
    }

    #[test]
    fn what_the_caller_wrote_before_the_proxies_does_not_count() {
        assert_eq!(caller("10.0.0.1", &["192.0.2.1, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(caller("10.0.0.1", &["192.0.2.1, 198.51.100.1, 10.9.9.9"]), "198.51.100.1");
        assert_eq!(caller("10.0.0.1", &["192.0.2.1", "198.51.100.1"]), "198.51.100.1", "the last line is the nearest");
        assert_eq!(caller("10.0.0.1", &["10.0.0.2, 10.0.0.3"]), "10.0.0.2", "all of them are proxies");
    }

    #[test]
    fn what_cannot_be_read_leaves_the_proxy_itself() {
        for line in ["unknown", "", "198.51.100.1:443", "\"198.51.100.1\"", "_hidden", "198.51.100.1, x"] {
            assert_eq!(caller("10.0.0.1", &[line]), "10.0.0.1", "{line}");
        }
    }
}
