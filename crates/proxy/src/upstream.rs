//! Where requests are forwarded to: one host, and how its identity is checked.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

/// One upstream server, checked once so that nothing about it can fail per request.
///
/// Connections are pooled per `id`; those of an older `generation` are not used again. So give a new generation to every
/// change of host, port, trust or credential.
pub struct Upstream {
    pub(crate) id: Arc<str>,
    pub(crate) generation: u64,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Value of `Host`.
    pub(crate) authority: HeaderValue,
    /// Value of `Origin`, where the caller sent one.
    pub(crate) origin: HeaderValue,
    label: Option<String>,
    /// Gets the caller's head as it was sent.
    pub(crate) transparent: bool,
}

/// A host that cannot be forwarded to.
#[derive(Debug, thiserror::Error)]
#[error("`{host}` is no host name or IP address: give it without scheme, user or path")]
pub struct UpstreamError {
    host: String,
}

impl Upstream {
    /// An upstream at `host` (a name, an IPv4 address, or an IPv6 address with or without brackets) and `port`.
    /// Without `tls` the connection is in clear text.
    pub fn new(
        id: impl Into<Arc<str>>,
        generation: u64,
        host: &str,
        port: u16,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self, UpstreamError> {
        let failed = || UpstreamError { host: host.to_owned() };
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| failed())?;
        let shown = if bare.contains(':') { format!("[{bare}]") } else { bare.to_ascii_lowercase() };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let authority = if port == if tls.is_some() { 443 } else { 80 } { shown } else { format!("{shown}:{port}") };
        Ok(Self {
            id: id.into(),
            generation,
            host: bare.to_owned(),
            port,
            tls: tls.map(|config| (config, name)),
            origin: HeaderValue::from_str(&format!("{scheme}://{authority}")).map_err(|_| failed())?,
            authority: HeaderValue::from_str(&authority).map_err(|_| failed())?,
            label: None,
            transparent: false,
        })
    }

    /// What error texts call it, such as `Rack org/name`; its authority if nothing is given.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// For an app's own process behind its public name: `Host`, `Origin`, `Authorization` and cookies are the caller's own
    /// business with it and pass as they were sent, and [`Forward::authorization`](crate::Forward) is not used. What is of the
    /// connection, and claims about where a request came from, still do not pass.
    #[must_use]
    pub fn transparent(mut self) -> Self {
        self.transparent = true;
        self
    }

    pub(crate) fn label(&self) -> &str {
        self.label.as_deref().unwrap_or_else(|| self.authority())
    }

    /// The identity under which connections are pooled.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `host` or `host:port`, as sent in `Host`.
    pub fn authority(&self) -> &str {
        self.authority.to_str().unwrap_or_default()
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Upstream")
            .field("id", &self.id)
            .field("generation", &self.generation)
            .field("authority", &self.authority)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_ports_are_left_out_of_the_host_header() {
        let plain = |host: &str, port| Upstream::new("r", 1, host, port, None).unwrap();
        assert_eq!(plain("Rack.example", 80).authority(), "rack.example");
        assert_eq!(plain("rack.example", 443).authority(), "rack.example:443");
        assert_eq!(plain("rack.example", 5443).origin, "http://rack.example:5443");
        assert_eq!(plain("::1", 80).authority(), "[::1]");
        assert_eq!(plain("[::1]", 8080).authority(), "[::1]:8080");
        assert_eq!(plain("[::1]", 8080).host, "::1");
    }

    #[test]
    fn hosts_with_more_than_a_name_are_refused() {
        for host in ["", "user@rack", "rack/path", "https://rack", "rack:80", "ra ck", "rack\r\nx: y"] {
            assert!(Upstream::new("r", 1, host, 443, None).is_err(), "{host}");
        }
    }
}
