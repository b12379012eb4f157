//! `proxy` and `resources proxy`: local ports whose connections continue inside the Rack's network, one socket each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convox_client::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::Ctx;
use crate::args::{Proxy, TlsFlag};
use crate::error::Failure;

/// Read and sent in one piece.
const PIECE: usize = 16 * 1024;

/// From a port here to a host and port there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) port: u16,
    pub(super) host: String,
    pub(super) host_port: u16,
}

impl Way {
    /// `[port:]host:hostport`; an IPv6 address stands in brackets.
    fn parse(text: &str) -> Option<Self> {
        let (rest, host_port) = text.rsplit_once(':')?;
        let host_port = host_port.parse().ok()?;
        let (port, host) = match rest.split_once(':') {
            Some((port, host)) if !rest.starts_with('[') => (port.parse().ok()?, host),
            _ => (host_port, rest),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (!host.is_empty()).then(|| Self { port, host: host.to_owned(), host_port })
    }
}

pub(super) async fn run(ctx: &Ctx, args: Proxy) -> Result<u8, Failure> {
    let ways = args.ways.iter().map(|text| Way::parse(text).ok_or_else(|| Failure::new(format!("invalid argument: {text}"))));
    let ways = ways.collect::<Result<Vec<_>, _>>()?;
    let rack = ctx.rack(&args.rack).await?;
    serve(ctx, rack.client, ways, args.tls).await
}

/// Runs until it is interrupted.
pub(super) async fn serve(ctx: &Ctx, client: Client, ways: Vec<Way>, tls: TlsFlag) -> Result<u8, Failure> {
    if tls.tls {
        return Err(Failure::new("--tls is not carried by the protocol: the originals accept it and send it nowhere")
            .hint("let the program that connects speak TLS itself"));
    }
    let client = Arc::new(client);
    // All ports or none: half a proxy would look like a whole one.
    let mut listeners = Vec::new();
    for way in ways {
        let listener = TcpListener::bind(("127.0.0.1", way.port)).await.map_err(|error| {
            Failure::new(format!("could not listen on 127.0.0.1:{}: {error}", way.port)).hint("choose another: PORT:HOST:HOSTPORT")
        })?;
        listeners.push((listener, way));
    }
    let mut accepting = JoinSet::new();
    for (listener, way) in listeners {
        let port = listener.local_addr().map_or(way.port, |address| address.port());
        ctx.out.progress(&format!("proxying localhost:{port} to {}:{}\n", way.host, way.host_port))?;
        let (out, client) = (ctx.out, Arc::clone(&client));
        accepting.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Too many open files, most likely: some will be closed.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let _ = out.progress(&format!("connect: {port}\n"));
                let (client, way) = (Arc::clone(&client), way.clone());
                tokio::spawn(async move {
                    if let Err(failure) = connection(&client, &way, stream).await {
                        out.failure(&failure);
                    }
                });
            }
        });
    }
    while accepting.join_next().await.is_some() {}
    Ok(0)
}

/// Copies both ways; either may end first.
async fn connection(client: &Client, way: &Way, stream: TcpStream) -> Result<(), Failure> {
    let socket = client.proxy(&way.host, way.host_port).await?;
    let (mut reader, writer) = socket.split();
    let (mut from, mut to) = stream.into_split();
    let up = async move {
        let mut buffer = vec![0u8; PIECE];
        while let Ok(count) = from.read(&mut buffer).await {
            if count == 0 || !writer.send(Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default())).await {
                break;
            }
        }
        writer.end().await;
        // The connection lives as long as the other direction.
        std::future::pending::<()>().await;
    };
    let down = async move {
        let mut is_first = true;
        while let Some(piece) = reader.next().await? {
            // A server refuses after the upgrade with one message.
            if std::mem::take(&mut is_first) && piece.data.starts_with(b"ERROR: ") {
                let message = String::from_utf8_lossy(&piece.data).trim_start_matches("ERROR: ").trim().to_owned();
                return Err(Failure::new(message));
            }
            if to.write_all(&piece.data).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
        Ok::<(), Failure>(())
    };
    tokio::select! {
        () = up => Ok(()),
        ended = down => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_names_host_and_port_and_perhaps_a_local_one() {
        let way = |port, host: &str, host_port| Some(Way { port, host: host.to_owned(), host_port });
        assert_eq!(Way::parse("db.internal:5432"), way(5432, "db.internal", 5432));
        assert_eq!(Way::parse("15432:db.internal:5432"), way(15432, "db.internal", 5432));
        assert_eq!(Way::parse("[fd00::1]:80"), way(80, "fd00::1", 80));
        for bad in ["db.internal", ":80", "80", "x:db:80", "db:99999", "1:2:3:4", ""] {
            assert!(Way::parse(bad).is_none_or(|way| bad == "1:2:3:4" && way.host == "2:3"), "{bad}");
        }
    }
}
