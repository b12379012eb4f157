//! Starting and ending a Console: from options to a running server, refusing what is not safe.

mod hand_over;
mod hardening;
mod tls;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use convox_proxy::{Limits, Server, TlsServer, Tower};
use convox_seal::Secret;
use convox_seal::chain::ChainKey;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use self::hand_over::{Sockets, Taken};
use crate::args::Serve;
use crate::audit::Audit;
use crate::audit::spill::Spill;
use crate::cmd::place;
use crate::credentials::Credentials;
use crate::feed::Snapshots;
use crate::jobs;
use crate::mail::Mail;
use crate::meters::{self, Meters};
use crate::ops::installs::Homes;
use crate::passkeys::Passkeys;
use crate::peer::Proxies;
use crate::relay::Relay;
use crate::root::Source;
use crate::state::App;
use crate::strangers::Strangers;
use crate::traces::Traces;

/// What is still open is told why it ends so long before the drain is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT, then lets open requests end; a second signal cuts them. The certificate is read anew when its files change, and on SIGHUP.
pub(crate) async fn run(args: Serve) -> Result<()> {
    if args.detach {
        return hand_over::detached();
    }
    log();
    hardening::apply();
    if args.place.database.is_none() || args.tls_cert.is_none() {
        tls::make_private_directory(&args.place.data)?;
    }
    let taken = if args.take_over { Some(hand_over::Taken::from(&args.place.data).await?) } else { None };
    // Looked at before they are read: what is written in between is noticed.
    let roots = Source::of(&args.place)?;
    let roots_seen = roots.seen();
    let ops = place::open(&args.place).await?;
    let tls = tls::load(&args)?;
    let smtp_url = args.smtp_url.clone().map(Secret::new);
    let mail = Mail::new(smtp_url.as_ref(), args.mail_from.as_deref())?;
    let meters = Arc::<Meters>::default();
    let spill = args.audit_spill.as_deref().map(|dir| second_log(&args, dir, ops.lookup.chain_key())).transpose()?;
    let (audit, writer) = Audit::new(&meters, spill);
    let snapshots = Snapshots::load(&ops.store).await?;
    let (traces, exporter) = Traces::new(&args.traces, snapshots.node())?.unzip();
    let app = Arc::new(App {
        snapshots,
        traces,
        store: ops.store.clone(),
        keyring: Arc::clone(&ops.keyring),
        lookup: ops.lookup.clone(),
        credentials: Credentials::new(Arc::clone(&ops.keyring)),
        audit,
        meters,
        strangers: Strangers::default(),
        clock: Arc::clone(&ops.clock),
        rules: args.rules(),
        proxies: Proxies::new(args.trusted_proxy.clone()),
        url: args.url.clone(),
        passkeys: Passkeys::at(args.url.as_deref()),
        mail,
        homes: Homes::below(&args.place.data),
        draining: AtomicBool::new(false),
        ending: watch::Sender::new(false),
        ordinary: tokio::runtime::Handle::current(),
    });
    if let Some(fault) = app.credentials.without_roots() {
        tracing::warn!(fault, "racks without a pinned certificate cannot be reached");
    }
    let (predecessor, server, metrics) = listen(&args, taken, &tls)?;
    let signals = Signals::new()?;
    let setup_code = ops.new_setup_code().await?;

    let slot = app.snapshots.join(&app.store, args.take_over).await?;
    app.snapshots.catch_up(&app.store).await?;
    tokio::spawn(writer.run(app.store.audit_writer(slot)));
    let follower = Arc::clone(&app);
    tokio::spawn(async move { follower.snapshots.follow(&follower.store).await });
    let listener = Arc::clone(&app);
    tokio::spawn(async move { listener.snapshots.listen(&listener.store).await });
    let acknowledger = Arc::clone(&app);
    let acknowledging = tokio::spawn(async move { acknowledger.snapshots.acknowledge(&acknowledger.store, &acknowledger.keyring).await });
    if let Some(exporter) = exporter {
        tokio::spawn(exporter.run());
    }
    tokio::spawn(jobs::look_at_racks(Arc::clone(&app)));
    tokio::spawn(jobs::tidy(Arc::clone(&app)));
    tokio::spawn(jobs::revive_racks(Arc::clone(&app)));
    tokio::spawn(jobs::keep_register(Arc::clone(&app)));
    tokio::spawn(jobs::tell_put_back(Arc::clone(&app)));
    tokio::spawn(jobs::record_uses(Arc::clone(&app)));
    tokio::spawn(jobs::prune_audit(Arc::clone(&app)));
    tokio::spawn(Strangers::share(Arc::clone(&app)));
    tokio::spawn(jobs::roll_keys(Arc::clone(&app)));
    tokio::spawn(jobs::follow_root_keys(Arc::clone(&app), roots, roots_seen));

    let sockets = Sockets {
        public: server.listeners()?,
        metrics: metrics.as_ref().map(Server::listeners).transpose()?.unwrap_or_default(),
        are_taken: predecessor.is_some(),
    };
    let taken = watch::Sender::new(false);
    let metrics = metrics.map(|server| meters::serve::start(&app, server, taken.subscribe()));
    let mut stdout = std::io::stdout();
    if let Some(metrics) = metrics {
        writeln!(stdout, "metrics on http://{metrics}/metrics")?;
    }
    writeln!(stdout, "listening on https://{} fingerprint {}", server.local_addr(), tls.fingerprint())?;
    if let Some(code) = setup_code {
        writeln!(stdout, "setup code: {}", code.reveal())?;
    }
    stdout.flush()?;

    tokio::spawn(tls::files(&args).follow(tls.clone()));
    let router = crate::api::router(Arc::clone(&app));
    if let Some(predecessor) = predecessor {
        if let Err(error) = predecessor.ready(&args.place.data).await {
            // Nobody waits for one that never served.
            acknowledging.abort();
            app.snapshots.leave(&app.store).await;
            return Err(error);
        }
        writeln!(stdout, "{}", hand_over::DONE)?;
        stdout.flush()?;
    }
    tell_manager(&format!("MAINPID={}\nREADY=1", std::process::id()));
    server.run(Relay(Arc::clone(&app)), Tower(router), signals.end(args, tls, Arc::clone(&app), sockets, taken)).await?;
    app.audit.flush().await;
    acknowledging.abort();
    app.snapshots.leave(&app.store).await;
    app.store.close().await;
    Ok(())
}

/// A word to the service manager, where there is one.
fn tell_manager(state: &str) {
    if let Err(error) = convox_proxy::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told how this server is");
    }
}

/// The second audit log. On the disk that the database is on it would be full when that is.
fn second_log(args: &Serve, dir: &Path, key: ChainKey) -> Result<Spill> {
    let spill = Spill::new(dir, args.audit_spill_limit << 20, key)
        .with_context(|| format!("the second audit log cannot be written: make {} a directory of this server's user", dir.display()))?;
    let disk = |path: &Path| std::fs::metadata(path).map(|about| std::os::unix::fs::MetadataExt::dev(&about)).ok();
    if args.place.database.is_none() && disk(dir) == disk(&args.place.data) {
        tracing::warn!(dir = %dir.display(), "the second audit log is on the disk that the database is on: when that is full, so is this");
    }
    Ok(spill)
}

/// The public server and that for monitoring, on sockets of their own or on those that were taken over.
fn listen(args: &Serve, taken: Option<Taken>, tls: &TlsServer) -> Result<(Option<Taken>, Server, Option<Server>)> {
    let (predecessor, public, metrics) = match taken {
        None => (None, Vec::new(), Vec::new()),
        Some(mut taken) => {
            let sockets = std::mem::replace(&mut taken.sockets, Sockets { public: Vec::new(), metrics: Vec::new(), are_taken: true });
            (Some(taken), sockets.public, sockets.metrics)
        }
    };
    let is_asked = |server: &Server, asked: SocketAddr| {
        let (is, port) = (server.local_addr(), asked.port());
        if port == 0 || is == asked {
            Ok(())
        } else {
            Err(anyhow!("the running server listens on {is} and not on {asked}; end it and start anew"))
        }
    };
    if let Some(asked) = args.shards.filter(|asked| !public.is_empty() && *asked != public.len()) {
        tracing::warn!(
            asked,
            shards = public.len(),
            "as many shards as the server had that is taken over; end it and start anew for others"
        );
    }
    let server = if public.is_empty() {
        let shards = args.shards.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        Server::bind(args.listen, shards, Some(tls.clone())).with_context(|| format!("could not listen on {}", args.listen))?
    } else {
        Server::on(public, Some(tls.clone()))?
    };
    is_asked(&server, args.listen)?;
    let metrics = match args.metrics_listen {
        None => None,
        Some(_) if !metrics.is_empty() => Some(Server::on(metrics, None)?),
        Some(address) => Some(Server::bind(address, 1, None).with_context(|| format!("could not listen on {address} for metrics"))?),
    };
    if let (Some(server), Some(asked)) = (&metrics, args.metrics_listen) {
        is_asked(server, asked)?;
    }
    Ok((predecessor, server, metrics))
}

/// JSON lines on standard error. Nothing that a caller sent but methods and paths is ever logged: no headers, queries or bodies, and no
/// addresses of people.
fn log() {
    tracing_subscriber::fmt()
        .json()
        .with_span_list(false)
        .with_env_filter(EnvFilter::try_from_env("CONVOX_LOG").unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .init();
    std::panic::set_hook(Box::new(|panic| {
        // The message of a panic may hold data; its place never does.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%place, "a task ended in a fault of the program");
    }));
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From here on they no longer end the process by themselves.
    fn new() -> Result<Self> {
        let of = |kind| signal(kind).context("could not listen to signals");
        Ok(Self { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())?, hangup: of(SignalKind::hangup())? })
    }

    /// Resolves when the server is to end; what is open then hears of it shortly before it is cut, or at once on a second signal.
    async fn end(mut self, args: Serve, tls: TlsServer, app: Arc<App>, sockets: Sockets, taken: watch::Sender<bool>) {
        let data = args.place.data.clone();
        // Dropped when the server ends by itself: then nobody must find its sockets open.
        let mut successor = Box::pin(async move { hand_over::offer(&data, sockets).await });
        let mut is_taken = false;
        loop {
            tokio::select! {
                () = &mut successor => {
                    is_taken = true;
                    break;
                }
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hangup.recv() => match tls::reload(&args, &tls) {
                    Ok(()) => tracing::info!(fingerprint = %tls.fingerprint(), "serving the certificate as it is now"),
                    Err(error) => tracing::error!(error = format!("{error:#}"), "serving the old certificate: the new one cannot be used"),
                },
            }
        }
        app.draining.store(true, Ordering::Relaxed);
        if !is_taken {
            tell_manager("STOPPING=1");
        }
        // Whoever connects meanwhile is served.
        if !is_taken && !args.leave_after.is_zero() {
            tracing::info!(seconds = args.leave_after.as_secs_f64(), "ending soon: not ready any more, still taking requests");
            tokio::select! {
                // Somebody was about to take over.
                () = &mut successor => is_taken = true,
                () = tokio::time::sleep(args.leave_after) => {}
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
        }
        drop(successor);
        if is_taken {
            // Whoever watches is to hear of the new one.
            taken.send_replace(true);
        }
        tracing::info!(is_taken, "ending: no new requests, open ones may finish");
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(Limits::default().drain.saturating_sub(LAST_WORDS)) => {}
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            app.ending.send_replace(true);
        });
    }
}
