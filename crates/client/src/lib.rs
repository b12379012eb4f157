//! Speaks to a Console or a Rack: HTTP, WebSocket, verified or pinned TLS, and one name for each thing that can go wrong.
//!
//! - [`Endpoint`]: where to, and as whom.
//! - [`Client`]: one target, one connection, typed calls in [`rack`], [`platform`] and [`console`].
//! - [`Socket`]: streams of logs and terminals.
//! - [`probe()`]: is there a Rack, is the password right, which certificate does it hold?
//!
//! Knows nothing of files, terminals or the environment: whoever uses it decides what to trust.

mod call;
mod connect;
pub mod console;
mod endpoint;
mod error;
mod exchange;
mod key;
pub mod keys;
mod look;
pub mod platform;
mod probe;
mod proxy;
pub mod rack;
pub mod racks;
mod reply;
pub mod session;
mod socket;

pub use call::{Body, Call};
pub use endpoint::{Endpoint, Scheme};
pub use error::Error;
pub use exchange::{Client, Context};
pub use key::Key;
pub use look::Look;
pub use probe::{Probed, inspect, probe};
pub use proxy::{Proxies, is_loopback};
pub use reply::Reply;
pub use socket::{Piece, Socket, SocketReader, SocketWriter};
