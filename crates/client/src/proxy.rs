//! `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`: which proxy, if any, lies between us and a host.

use std::net::IpAddr;

use crate::{Endpoint, Error, Key, Scheme};

/// The proxies that the environment names; [`Proxies::default`] is none.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    https: Option<String>,
    http: Option<String>,
    except: Vec<String>,
}

/// An HTTP proxy to `CONNECT` through.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `Some` when the URL holds user and password: the value of `Proxy-Authorization`.
    pub(crate) authorization: Option<Key>,
}

impl Proxies {
    /// Reads the usual variables, upper case before lower case, through `var`.
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| {
            var(name).or_else(|| var(&name.to_ascii_lowercase())).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        Self {
            https: get("HTTPS_PROXY"),
            // Inside CGI, HTTP_PROXY may be the request header `Proxy` (httpoxy).
            http: if var("REQUEST_METHOD").is_some() { None } else { get("HTTP_PROXY") },
            except: get("NO_PROXY")
                .map(|list| list.split(',').map(|item| item.trim().to_ascii_lowercase()).filter(|item| !item.is_empty()).collect())
                .unwrap_or_default(),
        }
    }

    /// `host:port` of the proxy that lies between us and an endpoint, if there is one.
    ///
    /// # Errors
    /// [`Error::Proxy`] when the variable names none that can be used.
    pub fn between(&self, endpoint: &Endpoint) -> Result<Option<String>, Error> {
        let proxy = self.of(endpoint.scheme(), endpoint.host(), endpoint.port())?;
        Ok(proxy.map(|proxy| format!("{}:{}", proxy.host, proxy.port)))
    }

    pub(crate) fn of(&self, scheme: Scheme, host: &str, port: u16) -> Result<Option<Proxy>, Error> {
        let url = match scheme {
            Scheme::Https => &self.https,
            Scheme::Http => &self.http,
        };
        let Some(url) = url else { return Ok(None) };
        if is_loopback(host) || self.except.iter().any(|item| excepts(item, host, port)) {
            return Ok(None);
        }
        parse(url).map(Some)
    }
}

/// Whether a host is this machine, spoken to as itself: `localhost`, or a loopback address.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// One item of `NO_PROXY`: `*`, a name (with its subdomains), `.suffix`, an address, a network; each with `:port` or not.
fn excepts(item: &str, host: &str, port: u16) -> bool {
    if item == "*" {
        return true;
    }
    let host = host.to_ascii_lowercase();
    if let Some((network, bits)) = item.split_once('/') {
        return match (network.parse::<IpAddr>(), bits.parse::<u32>(), host.parse::<IpAddr>()) {
            (Ok(network), Ok(bits), Ok(address)) => in_network(network, bits, address),
            _ => false,
        };
    }
    let (item, wanted_port) = match item.rsplit_once(':') {
        Some((name, digits)) if item.parse::<IpAddr>().is_err() => (name, digits.parse::<u16>().ok()),
        _ => (item, None),
    };
    if wanted_port.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let item = item.trim_start_matches('[').trim_end_matches(']');
    match item.strip_prefix("*.").or_else(|| item.strip_prefix('.')) {
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')),
        None => host == item || host.strip_suffix(item).is_some_and(|rest| rest.ends_with('.')),
    }
}

fn in_network(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let shift = |width: u32| width.checked_sub(bits);
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            shift(32).is_some_and(|by| (network.to_bits() ^ address.to_bits()).checked_shr(by).unwrap_or(0) == 0)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            shift(128).is_some_and(|by| (network.to_bits() ^ address.to_bits()).checked_shr(by).unwrap_or(0) == 0)
        }
        _ => false,
    }
}

fn parse(url: &str) -> Result<Proxy, Error> {
    let bad = |reason: &str| Error::Proxy { proxy: "in the environment".to_owned(), reason: reason.to_owned() };
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    if !full.starts_with("http://") {
        return Err(bad("only http:// proxies are supported (the connection inside is TLS all the same)"));
    }
    let endpoint = crate::Endpoint::parse(&full).map_err(|error| bad(&error.to_string()))?;
    let authorization = endpoint.password().map(|password| {
        use base64::Engine as _;
        let pair = format!("{}:{}", endpoint.user(), password.expose());
        Key::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
    });
    Ok(Proxy { host: endpoint.host().to_owned(), port: endpoint.port(), authorization })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(vars: &[(&str, &str)]) -> Proxies {
        Proxies::from_env(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_proxy_of_the_scheme_is_taken_and_loopback_never_goes_through_one() {
        let set = proxies(&[("HTTPS_PROXY", "http://u:p@proxy:3128"), ("http_proxy", "other")]);
        let proxy = set.of(Scheme::Https, "h.example", 443).unwrap().unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy", 3128));
        assert_eq!(proxy.authorization.unwrap().expose(), "Basic dTpw");
        assert_eq!(set.of(Scheme::Http, "h.example", 80).unwrap().unwrap().host, "other");
        for host in ["localhost", "127.0.0.1", "::1"] {
            assert!(set.of(Scheme::Https, host, 443).unwrap().is_none());
        }
        assert!(proxies(&[("HTTPS_PROXY", "socks5://p")]).of(Scheme::Https, "h", 443).is_err());
    }

    #[test]
    fn no_proxy_takes_names_suffixes_ports_addresses_and_networks() {
        for (item, host, port, out) in [
            ("*", "a", 1, true),
            ("example.com", "example.com", 443, true),
            ("example.com", "a.example.com", 443, true),
            ("example.com", "badexample.com", 443, false),
            (".example.com", "example.com", 443, false),
            (".example.com", "a.example.com", 443, true),
            ("example.com:8443", "example.com", 443, false),
            ("example.com:8443", "example.com", 8443, true),
            ("10.0.0.0/8", "10.2.3.4", 443, true),
            ("10.0.0.0/8", "11.2.3.4", 443, false),
            ("0.0.0.0/0", "11.2.3.4", 443, true),
            ("10.1.1.1", "10.1.1.1", 443, true),
            ("fd00::/8", "fd12::1", 443, true),
            ("10.0.0.0/99", "10.0.0.1", 443, false),
        ] {
            assert_eq!(excepts(item, host, port), out, "{item} {host}:{port}");
        }
    }
}
