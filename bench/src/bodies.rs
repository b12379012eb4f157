//! Bodies of a gigabyte up and down, and many that come at ten kilobytes a second: speed, CPU and memory beside nginx.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use convox_tls::{Trust, client_config};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::contender::{Contender, Ground, RACK, basic};
use crate::origin::{self, Callee, head_of};
use crate::{Cores, Output, measure};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    console: Option<PathBuf>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Bytes of a large body.
    #[arg(long, default_value_t = 1 << 30)]
    size: u64,
    /// Bodies at a time that come slowly.
    #[arg(long, default_value_t = 500)]
    trickles: usize,
    /// Seconds that each of them takes, at 10 KB a second.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    #[command(flatten)]
    cores: Cores,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Down,
    Up,
}

#[derive(Default)]
struct Series {
    per_second: Vec<f64>,
    cpu: Vec<f64>,
    grown: Vec<f64>,
}

struct Stage {
    name: &'static str,
    contender: Contender,
    connector: Option<TlsConnector>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    origin::descriptors()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut table = format!(
        "{}; {}; bodies of {} MB one at a time, {} interleaved rounds, medians; {} uploads at once of 10 KB a second for {} s. Memory: the most that was resident during a transfer, beyond what was before it.\n\n\
         | between | what | contender | MB/s | times nginx | CPU ms/MB | times nginx | MB more resident |\n|---|---|---|--:|--:|--:|--:|--:|\n",
        measure::machine(),
        measure::version("nginx", "-v"),
        arguments.size >> 20,
        arguments.rounds,
        arguments.trickles,
        arguments.seconds
    );
    let mut figures = Vec::new();
    for tls in [false, true] {
        runtime.block_on(between(arguments, tls, &mut table, &mut figures))?;
    }
    let json = json!({ "machine": measure::machine(), "bytes": arguments.size, "rounds": arguments.rounds, "figures": figures });
    measure::write(&arguments.output.out.join("bodies.json"), &format!("{json:#}\n"))?;
    measure::write(&arguments.output.out.join("bodies.md"), &table)?;
    std::io::stdout().write_all(table.as_bytes())?;
    Ok(())
}

async fn between(arguments: &Arguments, tls: bool, table: &mut String, figures: &mut Vec<serde_json::Value>) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let ground = Ground::new(directory.path(), arguments.cores.core, arguments.cores.load_core)?;
    let port = origin::start(&ground, tls).await?;
    let connector = if tls { Some(TlsConnector::from(client_config(&Trust::Pinned(ground.fingerprint.parse()?))?)) } else { None };
    let mut stages = Vec::new();
    for name in ["nginx", "convox-proxy", "convox-console"] {
        if name == "convox-console" && (arguments.console.is_none() || !tls) {
            continue;
        }
        let contender = origin::contender(&ground, name, arguments.console.clone(), port, tls).await.with_context(|| name.to_owned())?;
        stages.push(Stage { name, contender, connector: connector.clone() });
    }
    for (what, way) in [("down", Way::Down), ("up", Way::Up)] {
        let mut all: Vec<Series> = stages.iter().map(|_| Series::default()).collect();
        for round in 0..=arguments.rounds {
            for turn in 0..stages.len() {
                let at = (round + turn) % stages.len();
                let (Some(stage), Some(series)) = (stages.get(at), all.get_mut(at)) else { continue };
                // The first one only warms up.
                let size = if round == 0 { 1 << 20 } else { arguments.size };
                let (cpu, resident) = (measure::cpu(stage.contender.pid())?, measure::resident(stage.contender.pid())?);
                measure::forget_peak(stage.contender.pid())?;
                let began = Instant::now();
                transfer(&stage.contender.caller(), stage.connector.as_ref(), way, size)
                    .await
                    .with_context(|| format!("{} {what}", stage.name))?;
                let took = began.elapsed().as_secs_f64();
                if round > 0 {
                    let megabytes = size as f64 / 1_048_576.0;
                    series.per_second.push(megabytes / took);
                    series.cpu.push((measure::cpu(stage.contender.pid())? - cpu) as f64 / 1e6 / megabytes);
                    series.grown.push(measure::peak(stage.contender.pid())?.saturating_sub(resident) as f64 / 1_048_576.0);
                }
            }
        }
        let base = all
            .first()
            .map(|series| (measure::median(&series.per_second), measure::median(&series.cpu)))
            .context("nothing was measured")?;
        for (stage, series) in stages.iter().zip(&all) {
            let (speed, cpu) = (measure::median(&series.per_second), measure::median(&series.cpu));
            table.push_str(&format!(
                "| {} | one {what} | {} | {speed:.0} | {:.2} | {cpu:.2} | {:.2} | {:.1} |\n",
                named(tls),
                stage.name,
                speed / base.0,
                cpu / base.1,
                series.grown.iter().copied().fold(0.0, f64::max)
            ));
            figures.push(json!({"tls": tls, "what": what, "contender": stage.name, "mb_per_second": series.per_second, "cpu_ms_per_mb": series.cpu, "mb_grown": series.grown}));
        }
    }
    for stage in &stages {
        let resident = measure::resident(stage.contender.pid())?;
        measure::forget_peak(stage.contender.pid())?;
        let cpu = measure::cpu(stage.contender.pid())?;
        trickle(arguments, stage).await.with_context(|| format!("{}, trickles", stage.name))?;
        let used = (measure::cpu(stage.contender.pid())? - cpu) as f64 / 1e6;
        let grown = measure::peak(stage.contender.pid())?.saturating_sub(resident) as f64 / 1_048_576.0;
        let megabytes = (arguments.trickles as u64 * arguments.seconds) as f64 * 10_240.0 / 1_048_576.0;
        table.push_str(&format!(
            "| {} | {} slow ones up | {} | | | {:.2} | | {grown:.1} |\n",
            named(tls),
            arguments.trickles,
            stage.name,
            used / megabytes
        ));
        figures
            .push(json!({"tls": tls, "what": "trickles", "contender": stage.name, "cpu_ms_per_mb": used / megabytes, "mb_grown": grown}));
    }
    Ok(())
}

fn named(tls: bool) -> &'static str {
    if tls { "TLS on both sides" } else { "clear text" }
}

fn head(callee: &Callee, line: &str, length: u64) -> String {
    format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nRack: {RACK}\r\nVersion: dev\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n",
        basic(&callee.secret)
    )
}

async fn transfer(callee: &Callee, connector: Option<&TlsConnector>, way: Way, size: u64) -> anyhow::Result<()> {
    let mut stream = callee.connect(connector).await?;
    let mut buffer = vec![b'x'; 64 * 1024];
    match way {
        Way::Down => {
            stream.write_all(head(callee, &format!("GET /apps/web/builds/{size}.tgz"), 0).as_bytes()).await?;
            stream.flush().await?;
        }
        Way::Up => {
            stream.write_all(head(callee, "POST /apps/web/objects/tmp/body", size).as_bytes()).await?;
            let mut left = size;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                stream.write_all(buffer.get(..most).unwrap_or_default()).await?;
                left -= most as u64;
            }
            stream.flush().await?;
        }
    }
    let answer = head_of(&mut stream).await?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("the answer was {}", answer.lines().next().unwrap_or_default());
    }
    if way == Way::Down {
        let mut left = size;
        while left > 0 {
            let count = stream.read(&mut buffer).await?;
            anyhow::ensure!(count > 0, "the body ended {left} bytes early");
            left -= count as u64;
        }
    }
    Ok(())
}

async fn trickle(arguments: &Arguments, stage: &Stage) -> anyhow::Result<()> {
    let mut all = JoinSet::new();
    for _ in 0..arguments.trickles {
        let (callee, connector, steps) = (stage.contender.caller(), stage.connector.clone(), arguments.seconds * 10);
        all.spawn(async move {
            let mut stream = callee.connect(connector.as_ref()).await?;
            stream.write_all(head(&callee, "POST /apps/web/objects/tmp/slow", steps * 1024).as_bytes()).await?;
            let mut interval = tokio::time::interval(Duration::from_millis(100));
            for _ in 0..steps {
                interval.tick().await;
                stream.write_all(&[b'x'; 1024]).await?;
                stream.flush().await?;
            }
            let answer = head_of(&mut stream).await?;
            anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "the answer was {answer}");
            Ok(())
        });
    }
    while let Some(ended) = all.join_next().await {
        ended??;
    }
    Ok(())
}
