//! What travels between a command line, a Console and a Rack: the one place that knows the wire. No I/O here: no socket, clock, file or
//! random number; bytes and text in, values out, and back.
//!
//! - [`api`]: the JSON of both generations, one file for each noun; [`time`] and [`duration`]: Go's notations inside it.
//! - [`form`], [`options`]: how options of a call travel in forms, queries and headers; [`mod@env`]: the text of an environment.
//! - [`routes`]: **the route table**: every Rack route with its effect, read by whoever decides. Start here.
//! - [`basic`], [`session`], [`error`]: the heads and bodies around them; [`trace`]: of which trace a request is part.
//! - [`socket`], [`exit`]: frames of a stream, where they end, and the exit code at the end of all.
//! - [`racks`], [`ids`]: which Rack a name means; names and ids.
//! - [`readiness`]: whether a server should get requests.
//!
//! Two invariants: whatever is written reads back as it was, and no input panics. Both are tested by properties here and by `fuzz/`.

pub mod api;
pub mod basic;
pub mod dockerignore;
pub mod duration;
pub mod env;
pub mod error;
pub mod exit;
pub mod form;
pub mod ids;
pub mod options;
pub mod racks;
pub mod readiness;
pub mod routes;
pub mod session;
pub mod socket;
pub mod time;
pub mod trace;
