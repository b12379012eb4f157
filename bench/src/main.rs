//! Measurements beside a known yardstick, in one run on one machine: what a relayed request costs beside nginx, what
//! `convox switch` costs beside a program that does nothing, and how long a revoked key lives.
//!
//! And trials: every key rolled while people work, and everything at once for long. Start with `bench/run`, `bench/switch`, `bench/revoke`,
//! `bench/keyroll` and `bench/soak`, which build what they need.

mod bodies;
mod contender;
mod crash;
mod gate;
mod keyroll;
mod measure;
mod origin;
mod pace;
mod peers;
mod postgres;
mod profile;
mod promote;
mod rack;
mod relay;
mod report;
mod revoke;
mod router;
mod scale;
mod server;
mod site;
mod soak;
mod streams;
mod switch;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Measures the data path beside nginx, and the start of the command line")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Requests per second and CPU per request of each contender, in interleaved rounds.
    Relay(relay::Arguments),
    /// Where the CPU time of a request goes, beside nginx.
    Profile(profile::Arguments),
    /// Start-up time and memory of `convox switch` beside an empty program.
    Switch(switch::Arguments),
    /// Every key rolled under load, with `kill -9` at each step.
    Keyroll(keyroll::Arguments),
    /// How long a revoked key lives, and whether any request slips through.
    Revoke(revoke::Arguments),
    /// Kills and cuts of the power by the thousand.
    Crash(crash::Arguments),
    /// Bodies of a gigabyte, and many slow ones, beside nginx.
    Bodies(bodies::Arguments),
    /// Cost and memory from ten keys and one Rack to a million and 100,000.
    Scale(scale::Arguments),
    /// Memory for each idle WebSocket, beside nginx and HAProxy.
    Streams(streams::Arguments),
    /// A long trial under load, with outages and clock jumps.
    Soak(soak::Arguments),
    /// The Rack's router beside nginx and Caddy.
    Router(router::Arguments),
    /// Load on an app through everything that replaces its processes.
    LoadOnPromote(promote::Arguments),
    /// Load at a fixed rate: what callers see of one of the contenders.
    Pace(pace::Arguments),
    /// The data path alone, with keys and rights in memory: one of the contenders.
    Gate(gate::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Relay(arguments) => relay::run(&arguments),
        What::Profile(arguments) => profile::run(&arguments),
        What::Switch(arguments) => switch::run(&arguments),
        What::Keyroll(arguments) => keyroll::run(&arguments),
        What::Revoke(arguments) => revoke::run(&arguments),
        What::Crash(arguments) => crash::run(&arguments),
        What::Bodies(arguments) => bodies::run(&arguments),
        What::Scale(arguments) => scale::run(&arguments),
        What::Streams(arguments) => streams::run(&arguments),
        What::Soak(arguments) => soak::run(&arguments),
        What::Router(arguments) => router::run(&arguments),
        What::LoadOnPromote(arguments) => promote::run(&arguments),
        What::Pace(arguments) => pace::run(&arguments),
        What::Gate(arguments) => gate::run(&arguments),
    }
}

/// Where figures go.
#[derive(clap::Args, Clone)]
struct Output {
    /// Directory for the figures, as JSON and as a Markdown table.
    #[arg(long, default_value = "bench/results")]
    out: PathBuf,
}

/// What runs where: whoever is measured has a core to itself.
#[derive(clap::Args, Clone, Copy)]
struct Cores {
    /// The core that every contender runs on, one at a time.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// The core of load, and of what stands behind the contenders.
    #[arg(long, default_value_t = 1)]
    load_core: usize,
}

/// How contenders take turns.
#[derive(clap::Args, Clone, Copy)]
struct Turns {
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of load per contender and round.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Kept connections of the load.
    #[arg(long, default_value_t = 64)]
    connections: usize,
}
