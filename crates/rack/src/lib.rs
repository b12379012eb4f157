//! The Rack: an API behind one password that builds, releases and runs apps.
//!
//! The map: `api` (a file per noun, found by the row of the route table) -> `state` (SQLite), objects (files), [`builds`], [`scheduler`] ->
//! [`runtime`] (a trait; `process` is the one there is). [`logs`] and [`manifest`] serve them all, [`shim`] runs beside them. `serve` starts and ends it.

mod api;
mod auth;
pub mod builds;
pub mod credentials;
mod files;
mod instances;
pub mod logs;
pub mod manifest;
mod rack;
pub mod runtime;
pub mod scheduler;
pub mod serve;
pub mod shim;
mod state;
