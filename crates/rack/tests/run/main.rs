//! What runs apps, with the real binary's shims and real processes.
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod killed;
mod process;
mod scheduler;
mod support;
