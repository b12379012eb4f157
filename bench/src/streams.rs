//! Thousands of WebSockets on which nothing happens: what each contender keeps in memory for one of them.
//!
//! Streams are opened in steps of a few hundred, each by the request of `convox logs`. Then every one of them carries a
//! frame both ways, all of them are left alone, and the contender's memory is read: what it has more than before the first
//! one, by the number of streams. At the end each one must still carry a frame.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use convox_tls::{Trust, client_config};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::contender::{Contender, Ground, RACK, basic};
use crate::origin::{self, Callee, Stream, head_of};
use crate::{Cores, Output, measure};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Streams at a time. Each takes two descriptors of what is measured, and two of this program.
    #[arg(long, default_value_t = 9000)]
    streams: usize,
    /// Seconds that they are left alone.
    #[arg(long, default_value_t = 10)]
    idle: u64,
    #[command(flatten)]
    cores: Cores,
    /// `convox-console` to measure; only the data path alone is measured without it.
    #[arg(long)]
    console: Option<PathBuf>,
    /// Only contenders with this in their name.
    #[arg(long, default_value = "")]
    only: String,
    #[command(flatten)]
    output: Output,
}

/// Streams that are opened at the same time.
const AT_ONCE: usize = 64;
const FRAME: &[u8] = b"\x81\x85\0\0\0\0hello";
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    origin::descriptors()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut figures = Vec::new();
    let mut table = format!(
        "{}; {}; {}; {} WebSockets, opened by the request of `convox logs`, each having carried a frame both ways, then idle for {} s; resident memory beyond that of no stream, by stream.\n\n\
         | between | contender | KB for each stream | times nginx | MB before | MB with all |\n|---|---|--:|--:|--:|--:|\n",
        measure::machine(),
        measure::version("nginx", "-v"),
        measure::version("haproxy", "-v"),
        arguments.streams,
        arguments.idle
    );
    for tls in [false, true] {
        let mut yardstick = f64::NAN;
        for name in ["nginx", "haproxy", "convox-proxy", "convox-console"] {
            if name == "convox-console" && (arguments.console.is_none() || !tls) || !name.contains(&arguments.only) {
                continue;
            }
            let (before, with) = runtime.block_on(one(arguments, name, tls)).with_context(|| format!("{name}, TLS: {tls}"))?;
            let each = with.saturating_sub(before) as f64 / 1024.0 / arguments.streams as f64;
            if name == "nginx" {
                yardstick = each;
            }
            let between = if tls { "TLS on both sides" } else { "clear text" };
            writeln!(std::io::stderr(), "{between}: {name}: {each:.2} KB for each stream")?;
            table.push_str(&format!(
                "| {between} | {name} | {each:.1} | {:.2} | {:.1} | {:.1} |\n",
                each / yardstick,
                before as f64 / 1_048_576.0,
                with as f64 / 1_048_576.0
            ));
            figures.push(json!({"tls": tls, "contender": name, "bytes_before": before, "bytes_with": with, "kb_per_stream": each, "times_nginx": each / yardstick}));
        }
    }
    let json = json!({"machine": measure::machine(), "streams": arguments.streams, "idle_seconds": arguments.idle, "figures": figures});
    measure::write(&arguments.output.out.join("streams.json"), &format!("{json:#}\n"))?;
    measure::write(&arguments.output.out.join("streams.md"), &table)?;
    std::io::stdout().write_all(table.as_bytes())?;
    Ok(())
}

async fn one(arguments: &Arguments, name: &str, tls: bool) -> anyhow::Result<(u64, u64)> {
    let directory = tempfile::tempdir()?;
    let ground = Ground::new(directory.path(), arguments.cores.core, arguments.cores.load_core)?;
    let port = origin::start(&ground, tls).await?;
    let contender = origin::contender(&ground, name, arguments.console.clone(), port, tls).await?;
    let connector = if tls { Some(TlsConnector::from(client_config(&Trust::Pinned(ground.fingerprint.parse()?))?)) } else { None };
    // What the first connection costs once is not a stream's.
    let mut warm = open(&contender, connector.as_ref()).await?;
    exchange(&mut warm).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = measure::resident(contender.pid())?;

    let mut open_streams: Vec<Box<dyn Stream>> = Vec::with_capacity(arguments.streams);
    while open_streams.len() < arguments.streams {
        let mut opening = JoinSet::new();
        for _ in 0..AT_ONCE.min(arguments.streams - open_streams.len()) {
            let (contender, connector) = (contender.caller(), connector.clone());
            opening.spawn(async move {
                let mut stream = open_at(&contender, connector.as_ref()).await?;
                exchange(&mut stream).await?;
                Ok::<_, anyhow::Error>(stream)
            });
        }
        while let Some(opened) = opening.join_next().await {
            let already = open_streams.len();
            open_streams.push(opened?.with_context(|| format!("after {already} streams"))?);
        }
    }
    tokio::time::sleep(Duration::from_secs(arguments.idle)).await;
    let with = measure::resident(contender.pid())?;
    for (number, stream) in open_streams.iter_mut().enumerate() {
        exchange(stream).await.with_context(|| format!("stream {number} after the pause"))?;
    }
    Ok((before, with))
}

async fn open(contender: &Contender, connector: Option<&TlsConnector>) -> anyhow::Result<Box<dyn Stream>> {
    open_at(&contender.caller(), connector).await
}

async fn open_at(callee: &Callee, connector: Option<&TlsConnector>) -> anyhow::Result<Box<dyn Stream>> {
    let mut stream = callee.connect(connector).await?;
    let head = format!(
        "GET /apps/web/logs HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nRack: {RACK}\r\nVersion: dev\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Origin: https://localhost\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        basic(&callee.secret)
    );
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    let answer = tokio::time::timeout(PATIENCE, head_of(&mut stream)).await.context("no answer to the upgrade")??;
    if !answer.starts_with("HTTP/1.1 101") {
        bail!("the upgrade was refused: {}", answer.lines().next().unwrap_or_default());
    }
    Ok(stream)
}

async fn exchange(stream: &mut Box<dyn Stream>) -> anyhow::Result<()> {
    stream.write_all(FRAME).await?;
    stream.flush().await?;
    let mut back = [0; FRAME.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut back)).await.context("the frame did not come back")??;
    if back != FRAME {
        bail!("another frame came back");
    }
    Ok(())
}
