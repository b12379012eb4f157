//! From an upstream to a connection that takes requests: look up, connect, TLS.
//!
//! Knows nothing of the credential: whatever fails here fails before a byte of it is sent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::Limits;
use crate::fault::{Fault, plain};
use crate::pool::Connection;
use crate::stream::{Socket, Stream};
use crate::upstream::Upstream;

/// Addresses of a name that are tried.
const ADDRESSES: usize = 8;

/// Opens a new connection.
pub(crate) async fn open(upstream: &Upstream, limits: &Limits) -> Result<Connection, Fault> {
    let tcp = dial(&upstream.host, upstream.port, limits.connect).await?;
    let _ = tcp.set_nodelay(true);
    keep_alive(&tcp);
    let stream = match &upstream.tls {
        None => Stream::Plain(Socket(tcp)),
        Some((config, name)) => {
            let connector = TlsConnector::from(Arc::clone(config));
            let stream = timeout(limits.handshake, connector.connect(name.clone(), Socket(tcp)))
                .await
                .map_err(|_| Fault::HandshakeTimedOut)?
                .map_err(|error| match convox_tls::classify(&error) {
                    Some(fault) => Fault::Tls(fault),
                    None => Fault::Tls(convox_tls::TlsFault::Protocol(format!("the handshake broke off: {}", plain(&error)))),
                })?;
            Stream::Tls(Box::new(stream.into()))
        }
    };
    Ok(Connection { stream })
}

async fn dial(host: &str, port: u16, limit: Duration) -> Result<TcpStream, Fault> {
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => {
            let found = timeout(limit, tokio::net::lookup_host((host, port)))
                .await
                .map_err(|_| Fault::Lookup("the resolver did not answer in time".to_owned()))?
                .map_err(|error| Fault::Lookup(plain(&error)))?;
            found.take(ADDRESSES).collect()
        }
    };
    let mut last = Fault::Lookup("the name has no address".to_owned());
    // All attempts together take no longer than one may, unless there is only one.
    let each = limit / u32::try_from(addresses.len()).unwrap_or(1).max(1);
    for address in addresses {
        last = match timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Fault::Refused,
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Fault::ConnectTimedOut,
            Ok(Err(error)) => Fault::Unreachable(error),
            Err(_) => Fault::ConnectTimedOut,
        };
    }
    Err(last)
}

/// Lets the kernel notice a peer that vanished while nothing is sent, as on a silent log stream.
pub(crate) fn keep_alive(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let probes = socket2::TcpKeepalive::new().with_time(Duration::from_mins(1)).with_interval(Duration::from_secs(15)).with_retries(4);
    let _ = socket.set_tcp_keepalive(&probes);
}
