//! The promises of the door, against the real binary and a Rack that keeps every byte it is sent.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

mod audit;
mod cable;
mod chain;
mod console;
mod documented;
mod exchange;
mod identity;
mod invitations;
mod keys;
mod let_in;
mod limits;
mod observed;
mod power;
mod recorder;
mod replicas;
mod revocation;
mod rights;
mod rolls;
mod second_log;
mod secrets;
mod standing;
mod timing;
mod transit;

use console::Door;
use recorder::Recorder;
