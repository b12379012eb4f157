//! Where requests go: scheme, host, port, path prefix and the credential for it.
//!
//! Two ways to get one: a host with a key (saved by `login`), or a whole `RACK_URL`. Knows nothing of sockets.

use std::fmt;

use crate::{Error, Key};

/// `https`, or `http` where the caller allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// TLS, always verified or pinned.
    Https,
    /// Clear text: `RACK_URL` through a tunnel, and tests.
    Http,
}

impl Scheme {
    /// `https` or `http`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

/// A Console or a Rack, and how to identify oneself there. Its `Debug` and `Display` forms hold no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    authority: String,
    host: String,
    port: u16,
    prefix: String,
    user: String,
    password: Option<Key>,
}

impl Endpoint {
    /// `https://convox:{key}@{host}`. `host` is `NAME`, `NAME:PORT`, `ADDRESS:PORT` or `[V6]:PORT`, nothing else.
    ///
    /// # Errors
    /// [`Error::Input`] when `host` holds a scheme, a path, user information or a port that is none.
    pub fn console(host: &str, key: Key) -> Result<Self, Error> {
        let (name, port) = split_authority(host, 443)?;
        Ok(Self {
            scheme: Scheme::Https,
            authority: host.to_owned(),
            host: name,
            port,
            prefix: String::new(),
            user: "convox".to_owned(),
            password: Some(key),
        })
    }

    /// `https://{host}`, and nobody in particular: no `Authorization` is sent.
    ///
    /// # Errors
    /// As [`Endpoint::console`].
    pub fn anonymous(host: &str) -> Result<Self, Error> {
        Ok(Self { password: None, ..Self::console(host, Key::new(""))? })
    }

    /// Reads a `RACK_URL`: `https://convox:PW@host[:port][/prefix]`; `http://` is allowed.
    ///
    /// # Errors
    /// [`Error::Input`] with the reason; the text never repeats the URL, since it holds the password.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let url = url.trim();
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            _ => return Err(Error::input("the URL of a Rack starts with https:// (or http://)")),
        };
        let (authority, prefix) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if prefix.contains(['?', '#']) {
            return Err(Error::input("the URL of a Rack has no query and no fragment"));
        }
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, authority),
        };
        let (user, password) = match userinfo {
            None => (String::new(), None),
            Some(userinfo) => match userinfo.split_once(':') {
                Some((user, password)) => (percent_decode(user)?, Some(Key::new(percent_decode(password)?))),
                None => (percent_decode(userinfo)?, None),
            },
        };
        let (name, port) = split_authority(host, if scheme == Scheme::Https { 443 } else { 80 })?;
        Ok(Self { scheme, authority: host.to_owned(), host: name, port, prefix: prefix.trim_end_matches('/').to_owned(), user, password })
    }

    /// The same, in clear text. For tests and tunnels only; the caller decides whether that is allowed.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        if self.scheme == Scheme::Https && self.port == 443 && !self.authority.ends_with(":443") {
            self.port = 80;
        }
        self.scheme = Scheme::Http;
        self
    }

    /// The same place with another key.
    #[must_use]
    pub fn with_key(mut self, key: Key) -> Self {
        self.password = Some(key);
        self
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host and port as they were written: the key of the `auth`, `session` and `pins` files, and the `Host` header.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Name or address alone, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, given or implied.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What precedes every API path; empty or starting with `/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `convox`, `jwt`, or whatever the URL names.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The credential, if there is one.
    pub fn password(&self) -> Option<&Key> {
        self.password.as_ref()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.prefix)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// Name and port of `NAME[:PORT]` or `[V6][:PORT]`.
fn split_authority(text: &str, default_port: u16) -> Result<(String, u16), Error> {
    let bad = |reason: &str| Error::input(format!("`{}` is no host: {reason}", printable(text)));
    if text.is_empty() {
        return Err(Error::input("the host is empty"));
    }
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let (name, rest) = rest.split_once(']').ok_or_else(|| bad("`[` without `]`"))?;
        if name.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(bad("between brackets stands an IPv6 address"));
        }
        (name, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("")))
    } else {
        match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, Some("")),
        }
    };
    let port = match port {
        None => return Err(bad("after `]` comes `:PORT` or nothing")),
        Some("") if text.ends_with(':') => return Err(bad("`:` without a port")),
        Some("") => default_port,
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => port,
            _ => return Err(bad("a port is a number from 1 to 65535")),
        },
    };
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.is_empty() || (!text.starts_with('[') && !name.bytes().all(is_name_byte)) {
        return Err(bad("give a name or an address, with `:PORT` if it needs one, and nothing around it"));
    }
    Ok((name.to_owned(), port))
}

/// A short form for messages, in case somebody typed a URL with a password where a host belongs.
fn printable(text: &str) -> String {
    let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
    text.chars().filter(|char| !char.is_control()).take(100).collect()
}

fn percent_decode(text: &str) -> Result<String, Error> {
    let bad = || Error::input("user or password in the URL is not percent-encoded correctly");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(bad);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rack_url_gives_its_parts() {
        let endpoint = Endpoint::parse("https://jwt:a.b.c@h.example:8443/prefix/").unwrap();
        assert_eq!((endpoint.host(), endpoint.port(), endpoint.prefix()), ("h.example", 8443, "/prefix"));
        assert_eq!((endpoint.user(), endpoint.password().unwrap().expose()), ("jwt", "a.b.c"));
        assert_eq!(endpoint.authority(), "h.example:8443");
        assert_eq!(Endpoint::parse("https://convox:p%2Fq@h").unwrap().password().unwrap().expose(), "p/q");
        assert_eq!(Endpoint::parse("http://h").unwrap().port(), 80);
        assert_eq!(Endpoint::parse("https://[::1]:5443").unwrap().host(), "::1");
        assert!(Endpoint::parse("https://h").unwrap().password().is_none());
    }

    #[test]
    fn what_is_no_host_is_refused_without_repeating_a_password() {
        for bad in ["", "https://h", "h/path", "user:pw@h", "h:", "h:0", "h:99999", "h:+5", "a b", "[::1", "[x]:1", "h\n"] {
            let error = Endpoint::console(bad, Key::new("k")).unwrap_err().to_string();
            assert!(!error.contains("pw@"), "{error}");
        }
        for bad in ["h", "ftp://h", "https://", "https://h?x=1", "https://u:%zz@h", "https://u:topsecret@h:x"] {
            let error = Endpoint::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("topsecret"), "{error}");
        }
    }

    #[test]
    fn neither_display_nor_debug_shows_the_password() {
        let endpoint = Endpoint::parse("https://convox:topsecret@h/p").unwrap();
        assert_eq!(endpoint.to_string(), "https://h/p");
        assert!(!format!("{endpoint:?}").contains("topsecret"));
    }
}
