//! `convox proxy`: one TCP connection from this machine into its network, carried by a WebSocket.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::socket::Wire;
use crate::rack::Rack;

/// How long a place may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to `host:port` and copies both ways until either ends.
pub(super) async fn proxy(rack: &Arc<Rack>, host: &str, port: &str, wire: &mut Wire) -> Result<(), String> {
    let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| format!("{port} is no port: 1 to 65535"))?;
    let own = own_ports(rack).await?;
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, port))).await;
    let found: Vec<SocketAddr> = found
        .map_err(|_| format!("looking up {host} took too long"))?
        .map_err(|error| format!("could not look up {host}: {error}"))?
        .collect();
    // What was looked up is what is connected to: a name cannot mean something else in between.
    let Some(address) = found.into_iter().find(|address| is_open(*address, &own)) else {
        return Err(format!(
            "{host}:{port} is not for proxies: addresses of this machine itself (but its apps' ports), link-local and metadata addresses are refused"
        ));
    };
    let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
    let stream = stream
        .map_err(|_| format!("{host}:{port} did not answer within {} seconds", PATIENCE.as_secs()))?
        .map_err(|error| format!("could not connect to {host}:{port}: {error}"))?;
    copy(stream, wire).await;
    Ok(())
}

async fn copy(stream: TcpStream, wire: &mut Wire) {
    let (mut from, mut to) = stream.into_split();
    let mut incoming = wire.take_input();
    let up = tokio::spawn(async move {
        while let Some(bytes) = incoming.recv().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    });
    let gone = wire.gone.clone();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            () = gone.cancelled() => break,
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(count) => wire.text(buffer.get(..count).unwrap_or_default().to_vec()).await,
            },
        }
    }
    up.abort();
}

/// Ports of this machine that belong to services of apps.
async fn own_ports(rack: &Rack) -> Result<HashSet<u16>, String> {
    let apps = rack.state.apps().await.map_err(|error| error.to_string())?;
    Ok(apps
        .iter()
        .flat_map(|app| rack.scheduler.services(&app.name))
        .filter_map(|service| service.balancer)
        .chain(rack.scheduler.resource_ports())
        .collect())
}

/// Whether a caller may reach it from here. The Rack's own neighbours on this machine, and what hands out the machine's identity in
/// clouds, are nobody's to reach.
fn is_open(address: SocketAddr, own: &HashSet<u16>) -> bool {
    match address.ip().to_canonical() {
        ip if ip.is_loopback() => own.contains(&address.port()),
        ip if ip.is_unspecified() || ip.is_multicast() => false,
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_itself_and_metadata_are_out_of_reach_and_apps_are_not() {
        let own = HashSet::from([18_000]);
        let open = |address: &str| is_open(address.parse().unwrap(), &own);
        for address in ["10.1.2.3:5432", "192.168.0.9:80", "127.0.0.1:18000", "[2001:db8::1]:443"] {
            assert!(open(address), "{address}");
        }
        for address in [
            "127.0.0.1:22",
            "127.8.8.8:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:22",
            "0.0.0.0:80",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[fe80::1]:80",
            "[fd00:ec2::254]:80",
            "255.255.255.255:80",
            "224.0.0.1:80",
        ] {
            assert!(!open(address), "{address}");
        }
    }
}
