//! The comparison with nginx, HAProxy and Caddy: same upstream, same load, same core, in turns.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::contender::{Contender, Ground, RACK, basic};
use crate::pace::{self, Paced};
use crate::{Cores, Output, Turns, measure, report};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    turns: Turns,
    #[command(flatten)]
    cores: Cores,
    /// `convox-console` to measure; only the data path alone is measured without it.
    #[arg(long)]
    console: Option<PathBuf>,
    /// Only this variant: `clear`, `tls` or `write`.
    #[arg(long)]
    only: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// What is asked, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    tls: bool,
    method: &'static str,
    path: &'static str,
}

const VARIANTS: [Variant; 3] = [
    Variant { name: "clear", title: "reads, clear text", tls: false, method: "GET", path: "/apps?" },
    Variant { name: "tls", title: "reads, TLS on both sides", tls: true, method: "GET", path: "/apps?" },
    // Written to the audit log on disk before it is forwarded; nginx and the data path alone write nothing.
    Variant { name: "write", title: "audited writes, TLS on both sides", tls: true, method: "PUT", path: "/apps/web?" },
];

/// What one contender did in one variant.
pub(crate) struct Series {
    pub(crate) variant: Variant,
    pub(crate) contender: &'static str,
    pub(crate) rounds: Vec<Round>,
    /// At half of what nginx took.
    pub(crate) paced: Vec<Paced>,
}

pub(crate) struct Round {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    /// Microseconds of CPU, of user and kernel, per request.
    pub(crate) cpu: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for variant in VARIANTS {
        if arguments.only.as_deref().is_none_or(|only| only == variant.name) {
            all.extend(measure(arguments, variant)?);
        }
    }
    let conditions = report::Conditions {
        machine: measure::machine(),
        peers: [
            measure::version("nginx", "-v"),
            measure::version("haproxy", "-v"),
            format!("Caddy {}", measure::version("caddy", "version")),
        ]
        .join("; "),
        wrk: measure::version("wrk", "-v"),
        rounds: arguments.turns.rounds,
        seconds: arguments.turns.seconds,
        connections: arguments.turns.connections,
    };
    let (json, table) = report::relay(&conditions, &all);
    measure::write(&arguments.output.out.join("relay.json"), &json)?;
    measure::write(&arguments.output.out.join("relay.md"), &table)?;
    std::io::stdout().write_all(table.as_bytes())?;
    Ok(())
}

fn measure(arguments: &Arguments, variant: Variant) -> anyhow::Result<Vec<Series>> {
    let tls = variant.tls;
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("method.lua");
    std::fs::write(&script, format!("wrk.method = \"{}\"\n{}", variant.method, measure::LAST_PERCENTILE))?;
    let ground = Ground::new(directory.path(), arguments.cores.core, arguments.cores.load_core)?;
    let (_upstream, port) = ground.upstream(tls)?;
    let mut contenders = vec![ground.nginx_proxy(port, tls)?];
    // Nobody but the Console audits, so the others are asked for reads only.
    if variant.method == "GET" {
        contenders.push(ground.nginx_asking(port, tls)?);
        contenders.push(ground.haproxy(port, tls)?);
        if tls {
            contenders.push(ground.caddy(port)?);
        }
    }
    contenders.push(ground.gate(port, tls)?);
    if let Some(program) = &arguments.console
        && tls
    {
        contenders.push(ground.console(program, port).context("convox-console could not be set up")?);
    }
    let mut series: Vec<Series> =
        contenders.iter().map(|contender| Series { variant, contender: contender.name, rounds: Vec::new(), paced: Vec::new() }).collect();
    for round in 0..=arguments.turns.rounds {
        // Each round begins with another one, so that none always follows the same neighbour.
        for turn in 0..contenders.len() {
            let at = (round + turn) % contenders.len();
            let (Some(contender), Some(series)) = (contenders.get(at), series.get_mut(at)) else { continue };
            let measured = once(arguments, contender, variant, &script, if round == 0 { 1 } else { arguments.turns.seconds })
                .with_context(|| format!("{} ({})", contender.name, variant.name))?;
            // The first one only warms up.
            if round > 0 {
                writeln!(
                    std::io::stderr(),
                    "{:5} round {round} {:14} {:7.0} requests/s {:6.2} us CPU/request",
                    variant.name,
                    contender.name,
                    measured.per_second,
                    measured.cpu
                )?;
                series.rounds.push(measured);
            }
        }
    }
    if tls && variant.method == "GET" {
        at_half(arguments, &ground, &contenders, variant, &mut series)?;
    }
    Ok(series)
}

/// Latency at half of nginx's most. Whoever cannot take that at all is left out.
fn at_half(
    arguments: &Arguments,
    ground: &Ground,
    contenders: &[Contender],
    variant: Variant,
    series: &mut [Series],
) -> anyhow::Result<()> {
    let most = |series: &Series| measure::median(&series.rounds.iter().map(|round| round.per_second).collect::<Vec<_>>());
    let rate = (series.first().map_or(0.0, most) / 2.0) as u32;
    for round in 0..arguments.turns.rounds {
        for turn in 0..contenders.len() {
            let at = (round + turn) % contenders.len();
            let (Some(contender), Some(series)) = (contenders.get(at), series.get_mut(at)) else { continue };
            if most(series) < f64::from(rate) {
                continue;
            }
            let (turns, headers) = (arguments.turns, headers(contender));
            let load =
                pace::Arguments::new(&contender.base, &ground.fingerprint, variant.path, headers, rate, turns.connections, turns.seconds);
            let paced = pace::load(arguments.cores.load_core, &load).with_context(|| format!("{} at half", contender.name))?;
            writeln!(std::io::stderr(), "half  round {} {:14} {paced:?}", round + 1, contender.name)?;
            series.paced.push(paced);
        }
    }
    Ok(())
}

/// What the v2 command line sends.
pub(crate) fn headers(contender: &Contender) -> Vec<String> {
    vec![
        format!("Authorization: {}", basic(&contender.secret)),
        "User-Agent: convox.go/dev".to_owned(),
        "Version: dev".to_owned(),
        "Accept: */*".to_owned(),
        "Content-Type: application/octet-stream".to_owned(),
        format!("Rack: {RACK}"),
        "Session: ".to_owned(),
    ]
}

fn once(arguments: &Arguments, contender: &Contender, variant: Variant, script: &Path, seconds: u64) -> anyhow::Result<Round> {
    let before = measure::cpu(contender.pid())?;
    let load = measure::load(
        arguments.cores.load_core,
        &format!("{}{}", contender.base, variant.path),
        arguments.turns.connections,
        Duration::from_secs(seconds),
        &headers(contender),
        Some(script),
    )?;
    let used = measure::cpu(contender.pid())? - before;
    Ok(Round {
        requests: load.requests,
        per_second: load.requests as f64 / load.seconds,
        cpu: used as f64 / 1000.0 / load.requests as f64,
        p50: load.p50,
        p99: load.p99,
        p999: load.p999,
    })
}
