//! The data path alone: `convox-proxy` with a gate that does per request what a Console has to do, and no more.
//!
//! Credential decoded, key looked up by keyed hash, Rack by name, rights checked, the Rack's credential and the actor put in.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use base64::Engine as _;
use convox_proxy::{Body, Forward, Gate, Nothing, Outcome, Permit, Reason, RequestId, Server, TlsServer, Upstream, Verdict};
use convox_tls::{Trust, client_config};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Port of the upstream on this machine.
    #[arg(long)]
    upstream: u16,
    /// Pinned certificate of the upstream; clear text if absent.
    #[arg(long)]
    pin: Option<String>,
    /// Certificate and key to serve with, as PEM files; clear text if absent.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    #[arg(long)]
    key: Option<PathBuf>,
    /// The one key that is let in.
    #[arg(long)]
    secret: String,
    /// Name of the one Rack.
    #[arg(long)]
    rack: String,
}

/// What the data path knows, swapped whole when anything changes.
struct Snapshot {
    keys: HashMap<[u8; 32], Arc<Key>>,
    racks: HashMap<String, Rack>,
}

struct Key {
    actor: HeaderValue,
    organization: String,
    revoked: CancellationToken,
}

struct Rack {
    organization: String,
    upstream: Arc<Upstream>,
    authorization: HeaderValue,
}

struct Memory {
    lookup: Hmac<Sha256>,
    snapshot: ArcSwap<Snapshot>,
    served: Arc<AtomicU64>,
}

struct Ticket {
    key: Arc<Key>,
    served: Arc<AtomicU64>,
}

impl Permit for Ticket {
    fn revoked(&self) -> Pin<Box<dyn Future<Output = Reason> + Send>> {
        let revoked = self.key.revoked.clone();
        Box::pin(async move {
            revoked.cancelled().await;
            Reason::policy("the key was revoked")
        })
    }

    fn finished(self, outcome: Outcome) {
        self.served.fetch_add(outcome.bytes_down, Relaxed);
    }
}

impl Memory {
    fn forward(&self, head: &Parts) -> Option<Forward<Ticket>> {
        let header = head.headers.get(http::header::AUTHORIZATION)?.as_bytes().strip_prefix(b"Basic ")?;
        let mut decoded = [0; 256];
        let length = base64::engine::general_purpose::STANDARD.decode_slice(header, &mut decoded).ok()?;
        let text = decoded.get(..length)?;
        let colon = text.iter().position(|&byte| byte == b':')?;
        let mut hash = self.lookup.clone();
        hash.update(text.get(colon + 1..)?);
        let snapshot = self.snapshot.load();
        let key = snapshot.keys.get(&<[u8; 32]>::from(hash.finalize().into_bytes()))?;
        let rack = snapshot.racks.get(head.headers.get("rack")?.to_str().ok()?)?;
        if rack.organization != key.organization || key.revoked.is_cancelled() || !head.uri.path().starts_with("/apps") {
            return None;
        }
        Some(Forward {
            permit: Ticket { key: Arc::clone(key), served: Arc::clone(&self.served) },
            upstream: Arc::clone(&rack.upstream),
            authorization: rack.authorization.clone(),
            path_and_query: None,
            add: vec![(HeaderName::from_static("convox-actor"), key.actor.clone())],
            request_id: RequestId::next(),
        })
    }
}

impl Gate for Memory {
    type Permit = Ticket;

    async fn decide(&self, head: &Parts, _peer: SocketAddr) -> Verdict<Ticket> {
        self.forward(head).map_or_else(
            || {
                let mut response = Response::new(Body::from("invalid credentials\n"));
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                Verdict::Reply(response)
            },
            Verdict::Forward,
        )
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let upstream_tls = match &arguments.pin {
        Some(pin) => Some(client_config(&Trust::Pinned(pin.parse()?))?),
        None => None,
    };
    let upstream = Upstream::new("rack", 1, "127.0.0.1", arguments.upstream, upstream_tls)?;
    let lookup = Hmac::<Sha256>::new_from_slice(&[7; 32]).context("a key of 32 bytes")?;
    let mut hash = lookup.clone();
    hash.update(arguments.secret.as_bytes());
    let key =
        Key { actor: HeaderValue::from_static("bench@example.org"), organization: "bench".to_owned(), revoked: CancellationToken::new() };
    let rack = Rack {
        organization: "bench".to_owned(),
        upstream: Arc::new(upstream),
        authorization: HeaderValue::from_static("Basic Y29udm94OnVwc3RyZWFt"),
    };
    let snapshot = Snapshot {
        keys: HashMap::from([(hash.finalize().into_bytes().into(), Arc::new(key))]),
        racks: HashMap::from([(arguments.rack.clone(), rack)]),
    };
    let gate = Memory { lookup, snapshot: ArcSwap::from_pointee(snapshot), served: Arc::default() };
    let tls = match (&arguments.cert, &arguments.key) {
        (Some(cert), Some(key)) => Some(TlsServer::from_pem(&std::fs::read(cert)?, &std::fs::read(key)?)?),
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let server = Server::bind(arguments.listen, arguments.shards, tls)?;
        writeln!(std::io::stdout(), "listening on {}", server.local_addr())?;
        server.run(gate, Nothing, std::future::pending()).await?;
        Ok(())
    })
}
