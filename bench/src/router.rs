//! The router of a real Rack beside nginx and Caddy as reverse proxies: the same app behind all of them, the same load, the same core, in turns.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use crate::contender::{Contender, Ground, answers, free_port, pinned};
use crate::measure::{self, median};
use crate::rack::{HOST, Rack};
use crate::{Cores, Output, Turns};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `convox-rack` to measure.
    #[arg(long)]
    rack: PathBuf,
    /// The command line that deploys the app.
    #[arg(long)]
    convox: PathBuf,
    #[command(flatten)]
    turns: Turns,
    #[command(flatten)]
    cores: Cores,
    #[command(flatten)]
    output: Output,
}

struct Subject {
    name: &'static str,
    base: String,
    pid: u32,
    per_second: Vec<f64>,
    cpu: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Subject {
    fn new(name: &'static str, base: String, pid: u32) -> Self {
        Self { name, base, pid, per_second: Vec::new(), cpu: Vec::new(), p50: Vec::new(), p99: Vec::new() }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let ground = Ground::new(directory.path(), arguments.cores.core, arguments.cores.load_core)?;
    let core = arguments.cores.core.to_string();
    let rack = Rack::start(&arguments.rack, &arguments.convox, directory.path(), &core, &arguments.cores.load_core.to_string(), 1)?;
    let (_, app) = rack.processes()?.into_iter().next().context("the app does not run")?;
    let router = rack.router_pid()?;
    let mut figures = Vec::new();
    for tls in [false, true] {
        let scheme = if tls { "https" } else { "http" };
        let peers = [ground.nginx_before(app, tls)?, ground.caddy_before(app, tls)?];
        let address = if tls { rack.https } else { rack.http };
        let mut subjects = vec![Subject::new("convox-rack router", format!("{scheme}://{address}"), router)];
        subjects.extend(peers.iter().map(|peer| Subject::new(peer.name, peer.base.clone(), peer.pid())));
        measure(arguments, &mut subjects, scheme)?;
        figures.extend(subjects.into_iter().map(|subject| (scheme, subject)));
    }
    let yardstick = |scheme: &str| {
        figures.iter().find(|(of, subject)| *of == scheme && subject.name == "nginx").map_or(f64::NAN, |(_, subject)| median(&subject.cpu))
    };
    let conditions = format!(
        "{}; {}; Caddy {}; {}; {} interleaved rounds of {} s, {} kept connections, replies of a quarter of a kilobyte, the app in clear text behind all; medians.",
        measure::machine(),
        measure::version("nginx", "-v"),
        measure::version("caddy", "version"),
        measure::version("wrk", "-v"),
        arguments.turns.rounds,
        arguments.turns.seconds,
        arguments.turns.connections
    );
    let mut table = format!(
        "{conditions}\n\n| callers | contender | requests/s | CPU us/request | times nginx | p50 ms | p99 ms |\n|---|---|--:|--:|--:|--:|--:|\n"
    );
    for (scheme, subject) in &figures {
        let cpu = median(&subject.cpu);
        table.push_str(&format!(
            "| {scheme} | {} | {:.0} | {cpu:.1} | {:.2} | {:.2} | {:.2} |\n",
            subject.name,
            median(&subject.per_second),
            cpu / yardstick(scheme),
            median(&subject.p50),
            median(&subject.p99)
        ));
    }
    let json = json!({
        "conditions": conditions,
        "figures": figures.iter().map(|(scheme, subject)| json!({
            "callers": scheme,
            "contender": subject.name,
            "requests_per_second": median(&subject.per_second),
            "cpu_us_per_request": median(&subject.cpu),
            "cpu_us_per_request_rounds": subject.cpu,
            "cpu_times_nginx": median(&subject.cpu) / yardstick(scheme),
            "p50_ms": median(&subject.p50),
            "p99_ms": median(&subject.p99),
        })).collect::<Vec<_>>(),
    });
    measure::write(&arguments.output.out.join("router.json"), &format!("{json:#}\n"))?;
    measure::write(&arguments.output.out.join("router.md"), &table)?;
    std::io::stdout().write_all(table.as_bytes())?;
    Ok(())
}

fn measure(arguments: &Arguments, subjects: &mut [Subject], scheme: &str) -> anyhow::Result<()> {
    let headers = [format!("Host: {HOST}")];
    let count = subjects.len();
    for round in 0..=arguments.turns.rounds {
        // Each round begins with another one, so that none always follows the same neighbour.
        for turn in 0..count {
            let Some(subject) = subjects.get_mut((round + turn) % count) else { continue };
            let seconds = if round == 0 { 1 } else { arguments.turns.seconds };
            let before = measure::cpu(subject.pid)?;
            let url = format!("{}/", subject.base);
            let load =
                measure::load(arguments.cores.load_core, &url, arguments.turns.connections, Duration::from_secs(seconds), &headers, None)
                    .with_context(|| subject.name.to_owned())?;
            let used = measure::cpu(subject.pid)? - before;
            // The first one only warms up.
            if round > 0 {
                let (per_second, cpu) = (load.requests as f64 / load.seconds, used as f64 / 1000.0 / load.requests as f64);
                writeln!(
                    std::io::stderr(),
                    "{scheme:5} round {round} {:18} {per_second:7.0} requests/s {cpu:6.2} us CPU/request",
                    subject.name
                )?;
                subject.per_second.push(per_second);
                subject.cpu.push(cpu);
                subject.p50.push(load.p50);
                subject.p99.push(load.p99);
            }
        }
    }
    Ok(())
}

impl Ground {
    /// nginx that forwards by host name, as the router does.
    fn nginx_before(&self, app: u16, tls: bool) -> anyhow::Result<Contender> {
        let http = format!("upstream app {{ server 127.0.0.1:{app}; keepalive 256; keepalive_requests 1000000000; }}\n");
        let server = format!(
            "server_name {HOST};\nlocation / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_buffering off; proxy_set_header Connection ''; proxy_set_header Host $host;\n\
             proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Port $server_port; }}"
        );
        self.nginx("nginx", self.core, free_port()?, tls, &server, &http)
    }

    /// Caddy, on as many threads as it has cores.
    fn caddy_before(&self, app: u16, tls: bool) -> anyhow::Result<Contender> {
        let port = free_port()?;
        let (scheme, certificate) =
            if tls { ("https", format!("tls {} {}\n", self.path("cert.pem"), self.path("key.pem"))) } else { ("http", String::new()) };
        let file = self.path(&format!("Caddyfile-{port}"));
        // Whoever asks for no name gets the certificate too, as at the others.
        let global = "{\n admin off\n auto_https off\n default_sni localhost\n}\n";
        std::fs::write(
            &file,
            format!("{global}{scheme}://:{port} {{\n bind 127.0.0.1\n {certificate} reverse_proxy 127.0.0.1:{app}\n}}\n"),
        )?;
        let child = pinned(self.core, "caddy")
            .args(["run", "--adapter", "caddyfile", "--config", &file])
            .env("GOMAXPROCS", "1")
            .env("HOME", &self.directory)
            .env("XDG_CONFIG_HOME", &self.directory)
            .stderr(std::process::Stdio::null())
            .spawn()
            .context("cannot start caddy: apt-get install caddy")?;
        answers(port)?;
        Ok(Contender::new("Caddy", format!("{scheme}://127.0.0.1:{port}"), child))
    }
}
