//! Starting and ending a Console: options to a running server, refusing what is not safe.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use convox_proxy::{Server, TlsServer, Tower, tls_server};
use tracing_subscriber::EnvFilter;

use crate::args::Serve;
use crate::audit::{self, Audit};
use crate::cmd::place;
use crate::relay::Relay;
use crate::snapshot::Snapshots;
use crate::state::App;

/// How often Racks are looked at, and idle credentials forgotten.
const ROUND: Duration = Duration::from_mins(1);
/// Racks that are looked at at the same time.
const AT_ONCE: usize = 8;

/// Serves until SIGTERM or SIGINT, then lets open requests end.
pub(crate) async fn run(args: Serve) -> Result<()> {
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
    if let Err(error) = convox_proxy::raise_descriptor_limit() {
        tracing::warn!(%error, "the limit of open files cannot be raised, so few connections fit");
    }
    if args.place.database.is_none() || args.tls_cert.is_none() {
        make_private_directory(&args.place.data)?;
    }
    let ops = place::open(&args.place).await?;
    let tls = tls(&args)?;
    let fingerprint = tls.fingerprint();
    let (log, writer) = Audit::new();
    let app = Arc::new(App {
        snapshots: Snapshots::load(&ops.store).await?,
        store: ops.store.clone(),
        keyring: Arc::clone(&ops.keyring),
        lookup: ops.lookup.clone(),
        audit: log,
        clock: Arc::clone(&ops.clock),
    });
    let setup_code = ops.new_setup_code().await?;
    let shards = args.shards.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let server = Server::bind(args.listen, shards, Some(tls)).with_context(|| format!("could not listen on {}", args.listen))?;

    tokio::spawn(audit::write(writer, app.store.clone()));
    let follower = Arc::clone(&app);
    tokio::spawn(async move { follower.snapshots.follow(&follower.store, &*follower.clock).await });
    tokio::spawn(rounds(Arc::clone(&app)));

    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on https://{} fingerprint {fingerprint}", server.local_addr())?;
    if let Some(code) = setup_code {
        writeln!(stdout, "setup code: {}", code.reveal())?;
    }
    stdout.flush()?;

    let router = crate::api::router(Arc::clone(&app));
    server.run(Relay(Arc::clone(&app)), Tower(router), ended()).await?;
    app.snapshots.leave(&app.store).await;
    app.store.close().await;
    Ok(())
}

/// The certificate: given, kept from an earlier start, or made now.
fn tls(args: &Serve) -> Result<TlsServer> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("could not read {}", path.display()));
    let (cert, key) = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => (read(cert)?, read(key)?),
        _ => {
            let dir = args.place.data.join("tls");
            let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
            if !cert.exists() {
                make_private_directory(&dir)?;
                let mut names = vec!["localhost", "127.0.0.1", "::1"];
                names.extend(args.name.iter().map(String::as_str));
                let listen = args.listen.ip().to_string();
                if !args.listen.ip().is_unspecified() && !names.contains(&listen.as_str()) {
                    names.push(&listen);
                }
                let (made_cert, made_key) = tls_server::generate(&names)?;
                // The certificate last: it says that the pair is whole.
                write_private(&key, made_key.as_bytes())?;
                write_private(&cert, made_cert.as_bytes())?;
            }
            (read(&cert)?, read(&key)?)
        }
    };
    Ok(TlsServer::from_pem(&cert, &key)?)
}

fn make_private_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("could not make {}", path.display()))
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("could not write {}", path.display()))
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

/// Looks at each Rack now and then, so that lists can show whether it answers without waiting for it. New Racks are looked at soon.
async fn rounds(app: Arc<App>) {
    use futures_util::StreamExt as _;
    let mut changes = app.snapshots.watch();
    let mut next_round = tokio::time::Instant::now();
    loop {
        let is_round = next_round <= tokio::time::Instant::now();
        if is_round {
            next_round = tokio::time::Instant::now() + ROUND;
        }
        let racks: Vec<_> = app.snapshots.now().all_racks().filter(|rack| is_round || rack.is_unseen()).cloned().collect();
        let now = app.clock.now_ms();
        futures_util::stream::iter(racks)
            .for_each_concurrent(AT_ONCE, |rack| {
                rack.forget_idle(now);
                let ops = app.ops();
                async move {
                    let actor = crate::ops::Actor::host();
                    let look = ops.probe_rack(&actor, &rack.row.org_name, &rack.row.name);
                    let answered = tokio::time::timeout(Duration::from_secs(15), look).await;
                    rack.seen(matches!(answered, Ok(Ok(_))));
                }
            })
            .await;
        tokio::select! {
            () = tokio::time::sleep_until(next_round) => {}
            _ = changes.changed() => {}
        }
    }
}
