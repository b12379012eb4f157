//! What the data path promises, shown over real sockets against an upstream that keeps what it was sent.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at the first surprise")]

mod conversation;
mod drain;
mod gate;
mod headers;
mod limits;
mod local;
mod multiplexed;
mod pins;
mod rack;
mod raw;
mod revocation;
mod smuggling;
mod transparency;
mod upgrade;
