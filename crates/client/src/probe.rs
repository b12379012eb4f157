//! Is there a Rack at this address, is its password right, and which certificate does it hold? For whoever adds a Rack by hand.

use convox_tls::{Certificate, Fingerprint, Trust};
use convox_wire::api::System;

use crate::{Client, Context, Endpoint, Error, Key, Proxies, Scheme, connect};

/// What a Rack answered.
#[derive(Clone, Debug)]
pub struct Probed {
    /// Its own description.
    pub system: System,
    /// The certificate that it proved to hold; `None` in clear text.
    pub fingerprint: Option<Fingerprint>,
}

/// Asks the Rack at `host` for its description, with its password.
///
/// The password is sent only after the certificate satisfied `trust`. No proxy is used.
///
/// # Errors
/// Each fault by its own name; [`Error::Unauthorized`] means that the password is wrong.
pub async fn probe(host: &str, password: Key, trust: Trust) -> Result<Probed, Error> {
    let client = Client::new(Endpoint::console(host, password)?, trust, Context::default());
    let system = client.system().await?;
    Ok(Probed { system, fingerprint: client.fingerprint() })
}

/// Learns which certificate a server shows, and tells it nothing: the handshake is broken off.
///
/// # Errors
/// [`Error::Input`] for clear text; else what kept the server from showing one.
pub async fn inspect(endpoint: &Endpoint, proxies: &Proxies) -> Result<Certificate, Error> {
    if endpoint.scheme() == Scheme::Http {
        return Err(Error::input("in clear text there is no certificate"));
    }
    let (config, captured) = convox_tls::inspect_config().map_err(|error| Error::input(error.to_string()))?;
    let outcome = connect::open(endpoint, proxies, Some(config)).await;
    match (captured.certificate(), outcome) {
        (Some(certificate), _) => Ok(certificate),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Err(Error::Protocol { host: connect::peer(endpoint), reason: "it showed no certificate".to_owned() }),
    }
}
