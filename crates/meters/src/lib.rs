//! What a server needs to tell how it does: times in buckets, what the system knows of the process, and the text that Prometheus reads.
//!
//! Counts are whoever's they are; here is only what is the same for all.

mod histogram;
pub mod process;
mod text;

pub use histogram::{BOUNDS, Histogram, Times};
pub use text::{CONTENT_TYPE, Text};
