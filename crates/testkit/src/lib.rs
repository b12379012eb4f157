//! What the end-to-end tests stand on: the three real binaries on free ports, and clients that send on the wire exactly
//! what the original v2 and v3 command lines send.
//!
//! - [`server`]: one `convox-rack` or `convox-console` process: start, `kill -9`, start again on the same port.
//! - [`stack`]: a Console with an organization, an administrator and one Rack behind it.
//! - [`podman`]: a real Podman with storage of its own, and base images without a registry.
//! - [`registry`]: a real registry of images that asks for a password.
//! - [`cli`]: runs `convox` with a configuration directory of its own, with pipes or under a real terminal.
//! - [`go`]: the original clients' requests, byte by byte, and their WebSocket handshake.
//! - [`power`]: a power cut, without cutting the power.
//! - [`small_disk`]: a disk that can be full.
//! - [`security_key`]: a security key in software, as a browser and as the original v2 client ask it.
//!
//! Everything here blocks: a test reads from top to bottom. Every wait has a deadline.

pub mod cli;
pub mod go;
pub mod podman;
pub mod power;
pub mod registry;
pub mod security_key;
pub mod server;
pub mod small_disk;
pub mod stack;

pub use cli::{Cli, Ran};
pub use go::{GoClient, Reply};
pub use podman::Podman;
pub use registry::Registry;
pub use security_key::SecurityKey;
pub use server::Server;
pub use small_disk::SmallDisk;
pub use stack::Stack;

use std::time::{Duration, Instant};

/// Asks `condition` again and again until it gives a value; `None` after `limit`.
pub fn eventually<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Adds a line to the file that `CONVOX_TEST_FIGURES` names, if it does: for long runs, which sum them up.
///
/// # Panics
/// When that cannot be written.
pub fn figures(figures: &serde_json::Value) {
    use std::io::Write as _;
    let Some(path) = std::env::var_os("CONVOX_TEST_FIGURES") else { return };
    let written = std::fs::File::options().create(true).append(true).open(&path).and_then(|mut file| writeln!(file, "{figures}"));
    assert!(written.is_ok(), "{}: {written:?}", path.display());
}

/// The folder of this repository.
pub fn repository() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap_or_default()
}

/// The path of one of our binaries, built by the same profile as the running test.
///
/// # Panics
/// When it is not there: build first (`cargo build`, or `cargo build --release`).
pub fn binary(name: &str) -> std::path::PathBuf {
    let beside = std::env::var_os("CONVOX_BIN_DIR").map(std::path::PathBuf::from).or_else(|| {
        // target/PROFILE/deps/TEST -> target/PROFILE
        std::env::current_exe().ok().and_then(|test| test.parent()?.parent().map(std::path::Path::to_path_buf))
    });
    let path = beside.unwrap_or_default().join(name);
    assert!(path.is_file(), "{} is not there: run `cargo build` with the profile of this test first", path.display());
    path
}
