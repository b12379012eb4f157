//! Moves bytes: listener, TLS, shards, pools of upstream connections, relay and tunnel.
//!
//! This room knows nothing of users, racks or routes. Two seams connect it to those who do:
//!
//! * [`Gate`] looks at each request head on the shard and answers with a [`Verdict`]: forward it to an [`Upstream`] with
//!   this credential, hand it to the [`Local`] application, or send this reply. It is async, so that it can wait for a
//!   durable audit write; it must not block.
//! * [`Local`] is an ordinary application (API, pages) that runs on the ordinary multi-thread runtime, off the shards.
//!
//! A server with only a [`Local`], as the Rack is one, upgrades (WebSocket) included:
//!
//! ```no_run
//! use convox_proxy::{Body, Local, Server, TlsServer, tls_server};
//! use http::{Request, Response};
//! use hyper::body::Incoming;
//!
//! #[derive(Clone)]
//! struct Api;
//!
//! impl Local for Api {
//!     async fn call(&self, request: Request<Incoming>, peer: std::net::SocketAddr) -> Response<Body> {
//!         Response::new(Body::from(format!("{} asks for {}\n", peer, request.uri().path())))
//!     }
//! }
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let (cert, key) = tls_server::generate(&["localhost", "127.0.0.1"])?;
//! let tls = TlsServer::from_pem(cert.as_bytes(), key.as_bytes())?;
//! let server = Server::bind("127.0.0.1:0".parse()?, 1, Some(tls))?;
//! let address = server.local_addr();
//! server.run_local(Api, async { let _ = tokio::signal::ctrl_c().await; }).await?;
//! # let _ = address; Ok(()) }
//! ```
//!
//! An axum `Router` (or any tower service) is a [`Local`] through [`Tower`]: `server.run_local(Tower(router), shutdown)`.
//! Its handlers find the caller's address as the extension [`Peer`], and `axum::extract::ws` works.

mod body;
mod caller;
mod connect;
mod content;
mod conversation;
mod exchange;
mod fault;
mod frames;
mod framing;
mod gate;
mod headers;
mod limits;
mod listen;
mod local;
mod multiplexed;
mod notify;
mod pool;
mod relay;
mod reply;
mod reply_head;
mod request_head;
mod request_id;
mod scratch;
mod sending;
mod serve;
mod server;
mod shard;
mod stats;
mod stream;
mod tls_files;
pub mod tls_server;
mod tunnel;
mod upload;
mod upstream;
mod watch;
mod websocket;

pub use body::{Body, BoxError};
pub use gate::{Forward, Gate, LocalHint, Outcome, Permit, Reason, Verdict};
pub use limits::{Limits, close_memory, raise_descriptor_limit};
pub use local::{Local, Nothing, Peer, Tower};
pub use notify::notify;
pub use request_id::{RequestId, TraceId, random_name};
pub use server::Server;
pub use stats::{Stats, stats};
pub use tls_files::{Rolled, TlsFiles, TlsFilesError};
pub use tls_server::{TlsServer, TlsServerError};
pub use upstream::{Upstream, UpstreamError};
pub use websocket::is_websocket;
