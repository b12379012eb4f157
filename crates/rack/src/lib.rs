//! The Rack: an API behind one password that builds, releases and runs apps.

pub mod builds;
pub mod logs;
pub mod manifest;
pub mod runtime;
pub mod scheduler;
pub mod shim;
