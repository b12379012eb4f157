//! What can go wrong between this machine and a Console or Rack, each by its own name, with what to do next.

use convox_tls::TlsFault;
use convox_wire::session::SessionDemand;

/// Why a call failed. `Display` is one line for a person; [`Error::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What the caller gave makes no request: a host, a path piece, a URL. Nothing was sent.
    #[error("{0}")]
    Input(String),
    /// The name has no address.
    #[error("could not look up {host}: {reason}")]
    Lookup {
        /// The name that was looked up.
        host: String,
        /// The resolver's words.
        reason: String,
    },
    /// A machine answered that nothing listens there.
    #[error("connection to {host} refused")]
    Refused {
        /// `host:port`
        host: String,
    },
    /// No route, reset, or another fault of the network.
    #[error("could not reach {host}: {reason}")]
    Unreachable {
        /// `host:port`
        host: String,
        /// The operating system's words.
        reason: String,
    },
    /// Nothing came back in time.
    #[error("{host} did not answer in time ({doing})")]
    Timeout {
        /// `host:port`
        host: String,
        /// What was waited for.
        doing: &'static str,
    },
    /// The proxy named by the environment did not let us through.
    #[error("proxy {proxy}: {reason}")]
    Proxy {
        /// `host:port` of the proxy.
        proxy: String,
        /// What went wrong there.
        reason: String,
    },
    /// TLS failed before any byte of the key was sent.
    #[error("TLS with {host} failed: {fault}")]
    Tls {
        /// `host:port` as configured.
        host: String,
        /// What exactly.
        fault: TlsFault,
    },
    /// 401: the credential is not accepted.
    #[error("{host} refused the key (401): {message}")]
    Unauthorized {
        /// Who refused.
        host: String,
        /// The server's words.
        message: String,
    },
    /// 401 that says the key was right once.
    #[error("{message}")]
    Expired {
        /// Who refused.
        host: String,
        /// The server's words; contain `cli token is expired`.
        message: String,
    },
    /// 401 with a demand for a session (a second factor).
    #[error("{host} asks for your second factor, and there is no terminal to ask you at")]
    Session {
        /// Who asks.
        host: String,
        /// Where the session would be made.
        demand: SessionDemand,
    },
    /// The second factor that a server demanded was not given.
    #[error("{message}")]
    SecondFactor {
        /// What went wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// 403: known, and not allowed to.
    #[error("{message}")]
    Forbidden {
        /// The server's words.
        message: String,
    },
    /// 404.
    #[error("{message}")]
    NotFound {
        /// The server's words, or `response status 404` for an empty body.
        message: String,
    },
    /// Any other status from 400 up.
    #[error("{message}{}", request_id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default())]
    Server {
        /// The HTTP status.
        status: u16,
        /// The server's words.
        message: String,
        /// Under which the server's log knows the request; only kept for 5xx.
        request_id: Option<String>,
    },
    /// 3xx: we never follow one, since the key would go along.
    #[error("{host} redirects to {location}; a redirect is never followed, since the key would go along")]
    Redirect {
        /// Who answered.
        host: String,
        /// Where it pointed.
        location: String,
    },
    /// The answer is not what the protocol says.
    #[error("{host} sent an answer that is not understood: {reason}")]
    Protocol {
        /// Who answered.
        host: String,
        /// What was wrong with it.
        reason: String,
    },
    /// The connection ended in the middle.
    #[error("the connection to {host} ended early: {reason}")]
    Closed {
        /// The other side.
        host: String,
        /// What is known of it.
        reason: String,
    },
    /// What we were to send could not be read.
    #[error("could not read what was to be sent: {0}")]
    Source(#[source] std::io::Error),
}

impl Error {
    /// [`Error::Input`] from any text.
    pub fn input(message: impl Into<String>) -> Self {
        Self::Input(message.into())
    }

    /// What the person can do about it; `None` where the message says all.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Lookup { host, .. } => format!("check the spelling of {host}, and the network"),
            Self::Refused { host } => format!("is the server running at {host}? check the port"),
            Self::Unreachable { .. } | Self::Closed { .. } => "check the network, a firewall or VPN, then try again".to_owned(),
            Self::Timeout { .. } => "check the network, or try again later".to_owned(),
            Self::Proxy { .. } => "check HTTPS_PROXY and NO_PROXY".to_owned(),
            Self::Tls { host, fault } => match fault {
                TlsFault::UnknownIssuer | TlsFault::WrongName => {
                    format!("if you know its fingerprint: convox trust {host} --fingerprint sha256:...")
                }
                TlsFault::PinChanged { found, .. } => format!(
                    "somebody may be listening in. If the server's owner confirms the new fingerprint: convox trust {host} --fingerprint {found}"
                ),
                TlsFault::Expired | TlsFault::NotYetValid => {
                    "check this machine's clock; else the server needs a new certificate".to_owned()
                }
                TlsFault::Protocol(_) => format!("does a Convox server speak TLS at {host}? check the port"),
            },
            Self::Unauthorized { host, .. } => format!("log in with a current key: convox login {host}"),
            Self::Expired { host, .. } => format!("make a new key in the Console's account settings, then: convox login {host}"),
            Self::Session { .. } => {
                "run a command at a terminal first: the session that you open there serves scripts too; machines use deploy keys".to_owned()
            }
            Self::SecondFactor { hint, .. } => hint.clone(),
            Self::Server { status, .. } if *status >= 500 => {
                "the server has a problem of its own; try again, or ask who runs it".to_owned()
            }
            Self::Redirect { location, .. } => format!("if that is where the server moved: convox login with the host of {location}"),
            Self::Protocol { host, .. } => format!("is {host} a Convox Console or Rack?"),
            Self::Input(_) | Self::Forbidden { .. } | Self::NotFound { .. } | Self::Server { .. } | Self::Source(_) => return None,
        })
    }

    /// Whether a server answered that the thing does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the server's verdict is on the key: wrong, expired, or not enough alone.
    pub fn is_about_the_key(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::Expired { .. } | Self::Session { .. })
    }

    /// Whether trusting the certificate that the server showed would have let the connection through: nobody vouches
    /// for it, but nothing is wrong with it either.
    pub fn is_unknown_certificate(&self) -> bool {
        matches!(self, Self::Tls { fault: TlsFault::UnknownIssuer | TlsFault::WrongName, .. })
    }
}
