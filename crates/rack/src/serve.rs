//! Starting and ending a Rack.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use convox_proxy::{Server, TlsServer, tls_server};
use convox_seal::Secret;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

use crate::api::{Api, is_plain_host};
use crate::auth::Door;
use crate::builds::{BuildLimits, Builder};
use crate::files;
use crate::logs::{LogLimits, LogStore};
use crate::rack::{Rack, SYSTEM_LOG, VERSION, desired};
use crate::runtime::Runtime;
use crate::runtime::process::ProcessRuntime;
use crate::scheduler::{Scheduler, SchedulerConfig};
use crate::state::{State, now_ms};

/// A shorter password can be guessed.
const SHORTEST_PASSWORD: usize = 16;

/// What open streams get to say that the Rack ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serve a Rack. Prints one line when it is ready. Apps go on when it ends.
///
/// The password comes from --password-file, else from the environment: CONVOX_PASSWORD, or PASSWORD.
///
/// Example: convox-rack serve --listen 0.0.0.0:5443 --data /var/lib/convox-rack --name prod --password-file /etc/convox/rack.password
#[derive(Args)]
pub struct Serve {
    /// Address and port to listen on; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The Rack's name.
    #[arg(long)]
    name: String,
    /// File that holds the Rack's password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Where clients reach the Rack, for `rack access` and its certificate; else the address that it listens on.
    #[arg(long, value_name = "HOST[:PORT]")]
    domain: Option<String>,
    /// Certificate (PEM, leaf first); made and kept in DIR/tls if none is given.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// How processes run: process (supervised child processes).
    #[arg(long, default_value = "process", value_parser = ["process"])]
    runtime: String,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When something that a safe start needs is missing; each says what and what to do.
pub async fn run(args: Serve) -> Result<()> {
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(EnvFilter::try_from_env("CONVOX_LOG").unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .init();
    std::panic::set_hook(Box::new(|panic| {
        // The message of a panic may hold data; its place never does.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%place, "a task ended in a fault of the program");
    }));
    if !convox_wire::ids::is_valid_rack_name(&args.name) {
        bail!(
            "--name {}: a Rack's name has lower-case letters, digits and dashes, begins with a letter, and is at most 26 long",
            args.name
        );
    }
    if let Some(domain) = args.domain.as_deref().filter(|domain| !is_plain_host(domain)) {
        bail!("--domain {domain}: give HOST or HOST:PORT, without https:// and path");
    }
    let password = password(args.password_file.as_deref())?;
    let data = &args.data;
    files::make_private_directory(data).with_context(|| format!("could not make {}", data.display()))?;
    let data = data.canonicalize().with_context(|| format!("could not find {}", data.display()))?;
    let _lock = lock(&data)?;
    let tls = tls(&args, &data)?;
    let fingerprint = tls.fingerprint();

    let state = State::open(&data).await?;
    state.note_version(VERSION).await?;
    let logs = LogStore::open(&data.join("logs"), LogLimits::default())?;
    let builder = Builder::new(&data.join("builds"), logs.clone(), BuildLimits::default());
    let program = std::env::current_exe().context("the path of this program")?;
    let runtime: Arc<dyn Runtime> = Arc::new(ProcessRuntime::new(&data.join("processes"), &program, logs.clone())?);
    let mut apps = Vec::new();
    for app in state.apps().await?.iter().filter(|app| !app.release.is_empty() && app.status != "deleting") {
        let Some(release) = state.release(&app.name, &app.release).await? else { continue };
        match desired(&state, &builder, &release).await {
            Ok(desired) => apps.push(desired),
            Err(error) => tracing::error!(app = %app.name, %error, "an app cannot be taken up"),
        }
    }
    // Bound before processes are touched: a second Rack on the same address ends here.
    let server = Server::bind(args.listen, 1, Some(tls)).with_context(|| format!("could not listen on {}", args.listen))?;
    let config = SchedulerConfig { rack: args.name.clone(), dir: data.join("scheduler") };
    files::make_private_directory(&config.dir)?;
    let scheduler = Scheduler::start(config, Arc::clone(&runtime), logs.clone(), apps).await?;
    let id = state.setting("id", || uuid::Uuid::now_v7().to_string()).await?;
    let signers = state.signers().await?;
    let rack = Arc::new(Rack {
        name: args.name,
        host: server.local_addr().to_string(),
        domain: args.domain,
        state,
        logs,
        builder,
        scheduler,
        door: Door::new(password, id, signers),
        objects: data.join("objects"),
        started_ms: now_ms(),
        runtime,
        streams: TaskTracker::new(),
        ending: CancellationToken::new(),
    });
    rack.resume().await?;
    rack.logs.append(SYSTEM_LOG, "system/rack", &format!("Rack {} version {VERSION} listens on {}", rack.name, rack.host));
    tokio::spawn(expire(rack.logs.clone()));

    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on https://{} fingerprint {fingerprint}", rack.host)?;
    stdout.flush()?;
    let ending = async {
        ended().await;
        // Streams end first, and say why: they would outlast the drain.
        rack.ending.cancel();
    };
    server.run_local(Api(Arc::clone(&rack)), ending).await?;
    rack.streams.close();
    let _ = tokio::time::timeout(LAST_WORDS, rack.streams.wait()).await;
    rack.scheduler.shutdown().await;
    rack.state.close().await;
    Ok(())
}

/// Ends every process of a Rack that does not run (any more).
///
/// # Errors
/// When the Rack still runs, or a process cannot be ended.
pub async fn stop_apps(data: &Path) -> Result<usize> {
    let data = data.canonicalize().with_context(|| format!("could not find {}", data.display()))?;
    let _lock = lock(&data)?;
    let logs = LogStore::open(&data.join("logs"), LogLimits::default())?;
    let runtime = ProcessRuntime::new(&data.join("processes"), &std::env::current_exe()?, logs)?;
    Ok(runtime.stop_all().await?)
}

/// One Rack per data directory. The kernel gives the lock back when the process dies.
fn lock(data: &Path) -> Result<std::fs::File> {
    let path = data.join("rack.lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => bail!("a Rack is already running on {}: stop it first", data.display()),
        Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("could not lock {}", path.display())),
    }
}

fn password(file: Option<&Path>) -> Result<Secret> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("could not read the password file {}", path.display()))?,
        // PASSWORD is what the originals read. One that is set and empty is a mistake, not a reason to look on.
        None => std::env::var("CONVOX_PASSWORD").or_else(|_| std::env::var("PASSWORD")).unwrap_or_default(),
    };
    let password = Secret::new(text.trim().to_owned());
    if password.is_empty() {
        bail!("a Rack does not start without a password: give --password-file FILE or set CONVOX_PASSWORD");
    }
    if password.expose().len() < SHORTEST_PASSWORD {
        bail!("the Rack's password is too short: {SHORTEST_PASSWORD} characters at least, since it opens everything");
    }
    Ok(password)
}

/// `HOST` of `HOST[:PORT]`, without the brackets of an IPv6 address.
fn host_alone(domain: &str) -> &str {
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']')) => host,
        _ => domain,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The certificate: given, kept from an earlier start, or made now.
fn tls(args: &Serve, data: &Path) -> Result<TlsServer> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("could not read {}", path.display()));
    let (cert, key) = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => (read(cert)?, read(key)?),
        _ => {
            let dir = data.join("tls");
            let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
            if !cert.exists() {
                files::make_private_directory(&dir)?;
                let listen = args.listen.ip().to_string();
                let mut names = vec!["localhost", "127.0.0.1", "::1", args.name.as_str()];
                names.extend(args.domain.as_deref().map(host_alone).filter(|host| !names.contains(host)));
                if !args.listen.ip().is_unspecified() && !names.contains(&listen.as_str()) {
                    names.push(&listen);
                }
                let (made_cert, made_key) = tls_server::generate(&names)?;
                // The certificate last: it says that the pair is whole.
                files::write_private(&key, made_key.as_bytes())?;
                files::write_private(&cert, made_cert.as_bytes())?;
            }
            (read(&cert)?, read(&key)?)
        }
    };
    Ok(TlsServer::from_pem(&cert, &key)?)
}

/// Old log files go, once an hour.
async fn expire(logs: LogStore) {
    loop {
        tokio::time::sleep(Duration::from_hours(1)).await;
        let logs = logs.clone();
        let _ = tokio::task::spawn_blocking(move || logs.expire()).await;
    }
}

async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
