//! The real `convox` against a small recording server over real TLS.
//!
//! - `accounts`: login, logout, saved keys, parallel and interrupted writes
//! - `stores`: accounts, and where their keys are kept
//! - `trust`: certificates, pins, proxies, and what is sent before they are settled
//! - `targets`: which Rack a command means, and that it keeps meaning it
//! - `wire`: what travels, byte by byte where it matters
//! - `platform`: certificates, registries, machines, and what v3 added
//! - `texts`: tables, texts, errors and exit codes
//! - `terminal`: what happens at a real terminal
//! - `second_factor`: a Console that asks for one, at the terminal and by the browser
//! - `doctor`: each of the usual faults by its name
//! - `projects`: editors, projects, racks of one's own

mod accounts;
#[cfg(test)]
mod doctor;
mod keys;
#[cfg(test)]
mod person;
mod platform;
#[cfg(test)]
mod projects;
#[cfg(test)]
mod second_factor;
#[cfg(test)]
mod server;
#[cfg(test)]
mod stores;
mod targets;
#[cfg(test)]
mod terminal;
mod texts;
mod trust;
mod wire;
