//! The Rack: an API behind one password that builds, releases and runs apps.
//!
//! The map: `api` (a file per noun, found by the row of the route table) -> `state` (SQLite), objects (files), [`builds`], [`scheduler`] ->
//! [`runtime`] (a trait; `process` and `container`). [`logs`] and [`manifest`] serve them all. [`shim`] and [`router`] run beside
//! it as processes of their own and outlive it. `serve` starts and ends it.

mod acme;
mod api;
mod auth;
pub mod builds;
pub mod command;
pub mod credentials;
mod files;
mod instances;
pub mod logs;
pub mod manifest;
mod meters;
mod parameters;
mod rack;
mod readiness;
mod resources;
pub mod router;
pub mod runtime;
pub mod scheduler;
pub mod serve;
pub mod shim;
mod state;
