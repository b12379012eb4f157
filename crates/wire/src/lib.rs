//! What travels between a command line, a Console and a Rack: the one place that knows the wire. No I/O here.
//!
//! - [`api`]: the JSON of both generations; [`time`] and [`duration`]: Go's notations inside it.
//! - [`form`], [`options`]: how options of a call travel in forms, queries and headers.
//! - [`routes`]: **the route table**: every Rack route with its effect, read by whoever decides.
//! - [`basic`], [`session`], [`error`]: the heads and bodies around them.
//! - [`socket`], [`exit`]: frames of a stream, and the exit code at its end.
//! - [`racks`], [`env`], [`ids`]: names of Racks, environments, ids.

pub mod api;
pub mod basic;
pub mod duration;
pub mod env;
pub mod error;
pub mod exit;
pub mod form;
pub mod ids;
pub mod options;
pub mod racks;
pub mod routes;
pub mod session;
pub mod socket;
pub mod time;
