//! Where the CPU time of a request goes: samples of the Console and of nginx under the same load, by what they were doing.
//!
//! Shares of samples, times the CPU time of a request in the same seconds. Time in the kernel is told by the system call that led there; what it does for a peer
//! on loopback, such as taking in what was just sent, is part of the sender's.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::contender::{Contender, Ground};
use crate::relay::headers;
use crate::{Cores, Output, measure};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `convox-console` to look into.
    #[arg(long)]
    console: PathBuf,
    #[command(flatten)]
    cores: Cores,
    /// Seconds of samples of each.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Kept connections of the load.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[command(flatten)]
    output: Output,
}

/// What a part of the time went into, the first that fits: where the code is, how its name begins or what is in it, and what it is for.
const PARTS: [(&str, &str, &str); 17] = [
    ("kernel", "sendto", "kernel: sending"),
    ("kernel", "sendmsg", "kernel: sending"),
    ("kernel", "writev", "kernel: sending"),
    ("kernel", "write", "kernel: sending"),
    ("kernel", "recvfrom", "kernel: receiving"),
    ("kernel", "recvmsg", "kernel: receiving"),
    ("kernel", "read", "kernel: receiving"),
    ("kernel", "epoll_wait", "kernel: waiting"),
    ("kernel", "", "kernel: everything else"),
    ("user", "rustls", "TLS"),
    ("user", "aws_lc", "TLS: cipher"),
    ("user", "hyper", "HTTP of callers (hyper, httparse, http)"),
    ("user", "http", "HTTP of callers (hyper, httparse, http)"),
    ("user", "tokio", "tasks and sockets (tokio, mio)"),
    ("user", "mio::", "tasks and sockets (tokio, mio)"),
    ("user", "convox_proxy", "data path (convox_proxy)"),
    ("user", "convox", "decision (convox_console and below)"),
];

/// Samples of one part of a program, in parts of one.
type Shares = BTreeMap<String, f64>;

struct Looked {
    name: &'static str,
    cpu: f64,
    shares: Shares,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let ground = Ground::new(directory.path(), arguments.cores.core, arguments.cores.load_core)?;
    let (_upstream, port) = ground.upstream(true)?;
    let contenders = [ground.nginx_proxy(port, true)?, ground.console(&arguments.console, port)?];
    let looked = contenders.iter().map(|contender| look(arguments, directory.path(), contender)).collect::<anyhow::Result<Vec<_>>>()?;
    let table = table(arguments, &looked);
    measure::write(&arguments.output.out.join("profile.md"), &table)?;
    std::io::stdout().write_all(table.as_bytes())?;
    Ok(())
}

fn look(arguments: &Arguments, directory: &Path, contender: &Contender) -> anyhow::Result<Looked> {
    let url = format!("{}/apps?", contender.base);
    let load = |seconds: u64| {
        let (core, time) = (arguments.cores.load_core, Duration::from_secs(seconds));
        measure::load(core, &url, arguments.connections, time, &headers(contender), None)
    };
    load(1)?;
    let data = directory.join(format!("{}.perf", contender.name));
    let mut recorder = Command::new("perf")
        .args(["record", "--quiet", "--freq", "4000", "-g", "--pid", &contender.pid().to_string(), "--output"])
        .arg(&data)
        .args(["--", "sleep", &arguments.seconds.to_string()])
        .stdin(Stdio::null())
        .spawn()
        .context("cannot run perf: apt-get install linux-perf")?;
    let before = measure::cpu(contender.pid())?;
    let done = load(arguments.seconds)?;
    let cpu = (measure::cpu(contender.pid())? - before) as f64 / 1000.0 / done.requests as f64;
    if !recorder.wait()?.success() {
        bail!("perf record failed; as another user than root, sysctl kernel.perf_event_paranoid=1");
    }
    Ok(Looked { name: contender.name, cpu, shares: shares(&data)? })
}

fn report(data: &Path, how: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("perf")
        .args(["report", "--stdio", "--call-graph", "none", "--field-separator", "|", "--percent-limit", "0", "--input"])
        .arg(data)
        .args(how)
        .output()?;
    if !output.status.success() {
        bail!("perf report failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shares(data: &Path) -> anyhow::Result<Shares> {
    let own = report(data, &["--no-children", "--sort", "dso,symbol"])?;
    let with_callees = report(data, &["--children", "--sort", "symbol"])?;
    let mut shares = Shares::new();
    let mut add = |part: &str, share: f64| *shares.entry(part.to_owned()).or_default() += share;
    let mut kernel = 0.0;
    for (share, fields) in lines(&own) {
        let [object, symbol, ..] = fields.as_slice() else { continue };
        let name = symbol.split_once("] ").map_or(*symbol, |(_, name)| name).trim();
        if symbol.starts_with("[k]") {
            kernel += share;
        } else {
            add(&part_of(object, name), share);
        }
    }
    let mut calls: BTreeMap<&str, f64> = BTreeMap::new();
    for (share, fields) in lines(&with_callees) {
        let [_, symbol, ..] = fields.as_slice() else { continue };
        let name = symbol.split_once("] ").map_or(*symbol, |(_, name)| name).trim();
        // Each system call has such a function, below which all its time is; some have two, one in the other.
        if let Some(call) = ["__x64_sys_", "__arm64_sys_", "ksys_"].iter().find_map(|prefix| name.strip_prefix(prefix)) {
            let most = calls.entry(call).or_default();
            *most = most.max(share);
        }
    }
    for (call, share) in calls {
        if let Some((_, _, part)) =
            PARTS.iter().find(|(place, begin, _)| *place == "kernel" && !begin.is_empty() && call.starts_with(begin))
        {
            add(part, share);
            kernel -= share;
        }
    }
    add("kernel: everything else", kernel.max(0.0));
    if shares.values().sum::<f64>() < 0.5 {
        bail!("perf reported nothing that is understood here: {own}");
    }
    Ok(shares)
}

/// Percentages and the fields after them.
fn lines(text: &str) -> impl Iterator<Item = (f64, Vec<&str>)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (share, rest) = line.split_once('|')?;
        let share: f64 = share.trim().trim_end_matches('%').parse().ok()?;
        Some((share / 100.0, rest.split('|').map(str::trim).collect()))
    })
}

fn part_of(object: &str, name: &str) -> String {
    let bare = name.trim_start_matches('<').trim_start_matches('&');
    let known = PARTS.iter().find(|(place, begin, _)| *place == "user" && bare.starts_with(begin));
    let other = || match object {
        _ if bare.starts_with("mi_") || bare.starts_with("_mi_") || bare.contains("mimalloc") => "memory (mimalloc)",
        _ if bare.starts_with("aes") || bare.contains("gcm") || bare.contains("gctr") => "TLS: cipher",
        object if object.contains("libc.so") || object.contains("libc-") => "libc: copies, and calls into the kernel",
        object if object.contains("ssl") => "TLS",
        object if object.contains("crypto") => "TLS: cipher",
        object if object.contains("nginx") => "nginx itself",
        _ => "everything else",
    };
    known.map_or_else(other, |(_, _, part)| part).to_owned()
}

fn table(arguments: &Arguments, looked: &[Looked]) -> String {
    let mut parts: Vec<&String> = looked.iter().flat_map(|one| one.shares.keys()).collect();
    parts.sort();
    parts.dedup();
    let row = |first: &str, cells: Vec<String>| format!("| {first} | {} |\n", cells.join(" | "));
    let cell = |one: &Looked, part: &String| one.shares.get(part).map_or_else(String::new, |share| format!("{:.2}", share * one.cpu));
    let mut text = format!(
        "{}; {}; reads, TLS on both sides, {} kept connections, {} s of samples each. Microseconds of CPU for a request, sampling included.\n\n",
        measure::machine(),
        measure::version("nginx", "-v"),
        arguments.connections,
        arguments.seconds
    );
    text.push_str(&row("spent in", looked.iter().map(|one| one.name.to_owned()).collect()));
    text.push_str(&format!("|---|{}\n", "--:|".repeat(looked.len())));
    for part in parts {
        text.push_str(&row(part, looked.iter().map(|one| cell(one, part)).collect()));
    }
    text.push_str(&row("all", looked.iter().map(|one| format!("{:.2}", one.cpu)).collect()));
    text
}
