//! Starting and ending a Console: from options to a running server, refusing what is not safe.

mod hardening;
mod tls;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use convox_proxy::{Limits, Server, TlsServer, Tower};
use convox_seal::Secret;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::args::Serve;
use crate::audit::Audit;
use crate::cmd::place;
use crate::counters::Counters;
use crate::credentials::Credentials;
use crate::feed::Snapshots;
use crate::jobs;
use crate::mail::Mail;
use crate::ops::installs::Homes;
use crate::passkeys::Passkeys;
use crate::peer::Proxies;
use crate::relay::Relay;
use crate::root::Source;
use crate::state::App;
use crate::strangers::Strangers;

/// What is still open is told why it ends so long before the drain is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT, then lets open requests end; a second signal cuts them. The certificate is read anew when its files change, and on SIGHUP.
pub(crate) async fn run(args: Serve) -> Result<()> {
    log();
    hardening::apply();
    if args.place.database.is_none() || args.tls_cert.is_none() {
        tls::make_private_directory(&args.place.data)?;
    }
    let ops = place::open(&args.place).await?;
    let tls = tls::load(&args)?;
    let smtp_url = args.smtp_url.clone().map(Secret::new);
    let mail = Mail::new(smtp_url.as_ref(), args.mail_from.as_deref())?;
    let (audit, writer) = Audit::new();
    let app = Arc::new(App {
        snapshots: Snapshots::load(&ops.store).await?,
        store: ops.store.clone(),
        keyring: Arc::clone(&ops.keyring),
        lookup: ops.lookup.clone(),
        credentials: Credentials::new(Arc::clone(&ops.keyring)),
        audit,
        counters: Counters::default(),
        strangers: Strangers::default(),
        clock: Arc::clone(&ops.clock),
        rules: args.rules(),
        proxies: Proxies::new(args.trusted_proxy.clone()),
        url: args.url.clone(),
        passkeys: Passkeys::at(args.url.as_deref()),
        mail,
        homes: Homes::below(&args.place.data),
        ending: watch::Sender::new(false),
        ordinary: tokio::runtime::Handle::current(),
    });
    if let Some(fault) = app.credentials.without_roots() {
        tracing::warn!(fault, "racks without a pinned certificate cannot be reached");
    }
    let shards = args.shards.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let server = Server::bind(args.listen, shards, Some(tls.clone())).with_context(|| format!("could not listen on {}", args.listen))?;
    let signals = Signals::new()?;
    let setup_code = ops.new_setup_code().await?;

    let slot = app.snapshots.join(&app.store).await?;
    tokio::spawn(writer.run(app.store.audit_writer(slot)));
    let follower = Arc::clone(&app);
    tokio::spawn(async move { follower.snapshots.follow(&follower.store).await });
    let listener = Arc::clone(&app);
    tokio::spawn(async move { listener.snapshots.listen(&listener.store).await });
    let acknowledger = Arc::clone(&app);
    let acknowledging = tokio::spawn(async move { acknowledger.snapshots.acknowledge(&acknowledger.store, &acknowledger.keyring).await });
    tokio::spawn(jobs::look_at_racks(Arc::clone(&app)));
    tokio::spawn(jobs::tidy(Arc::clone(&app)));
    tokio::spawn(jobs::revive_racks(Arc::clone(&app)));
    tokio::spawn(jobs::record_uses(Arc::clone(&app)));
    tokio::spawn(jobs::prune_audit(Arc::clone(&app)));
    tokio::spawn(Strangers::share(Arc::clone(&app)));
    tokio::spawn(jobs::roll_keys(Arc::clone(&app)));
    tokio::spawn(jobs::follow_root_keys(Arc::clone(&app), Source::of(&args.place)?));

    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on https://{} fingerprint {}", server.local_addr(), tls.fingerprint())?;
    if let Some(code) = setup_code {
        writeln!(stdout, "setup code: {}", code.reveal())?;
    }
    stdout.flush()?;

    tokio::spawn(tls::files(&args).follow(tls.clone()));
    let router = crate::api::router(Arc::clone(&app));
    server.run(Relay(Arc::clone(&app)), Tower(router), signals.end(args, tls, Arc::clone(&app))).await?;
    app.audit.flush().await;
    acknowledging.abort();
    app.snapshots.leave(&app.store).await;
    app.store.close().await;
    Ok(())
}

/// JSON lines on standard error. Nothing that a caller sent but methods and paths is ever logged: no headers, queries or bodies, and no
/// addresses of people.
fn log() {
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
    async fn end(mut self, args: Serve, tls: TlsServer, app: Arc<App>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hangup.recv() => match tls::reload(&args, &tls) {
                    Ok(()) => tracing::info!(fingerprint = %tls.fingerprint(), "serving the certificate as it is now"),
                    Err(error) => tracing::error!(error = format!("{error:#}"), "serving the old certificate: the new one cannot be used"),
                },
            }
        }
        tracing::info!("ending: no new requests, open ones may finish");
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
