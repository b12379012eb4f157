//! Starting and ending a Rack.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use clap::Args;
use convox_proxy::{Server, TlsFiles, TlsServer};
use convox_seal::Secret;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

use crate::acme::{self, Acme};
use crate::api::{Api, is_plain_host};
use crate::auth::Door;
use crate::builds::{BuildLimits, Builder, ImageBounds, Images};
use crate::credentials;
use crate::files;
use crate::instances::Instances;
use crate::logs::{LogLimits, LogStore};
use crate::meters::{self, Meters};
use crate::parameters::{self, Scope};
use crate::rack::{Rack, SYSTEM_LOG, VERSION, desired};
use crate::readiness::{self, Looked};
use crate::router::{self, RouterConfig};
use crate::runtime::container::{Engine, Names, Network, Rights, bound, collect};
use crate::runtime::{ContainerRuntime, ProcessRuntime, Runtime};
use crate::scheduler::{Scheduler, SchedulerConfig};
use crate::state::{State, now_ms};

/// Pause between looks for images that nobody needs.
const COLLECT_EVERY: Duration = Duration::from_hours(1);

/// What open streams get to say that the Rack ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serve a Rack. Prints one line when it is ready. Apps go on when it ends.
///
/// The password comes from --password-file, else from the environment: CONVOX_PASSWORD, or PASSWORD. It counts at the first start and when it is
/// changed; once it was rolled, the Rack keeps the new one itself, and needs neither.
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
    /// Where clients reach the Rack, for `rack access` and its certificate; else the address that it listens on. Services have
    /// names below it, SERVICE.APP.HOST.
    #[arg(long, value_name = "HOST[:PORT]")]
    domain: Option<String>,
    /// Address and port on which apps answer HTTP by host name; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    router_listen: Option<SocketAddr>,
    /// Address and port on which apps answer HTTPS by host name; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    router_tls_listen: Option<SocketAddr>,
    /// Address and port for monitoring: `/metrics`, `/health` and `/ready` in clear text. Never one that strangers reach; none if not given.
    #[arg(long, value_name = "ADDR")]
    metrics_listen: Option<SocketAddr>,
    /// Certificate (PEM, leaf first); made and kept in DIR/tls if none is given.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Directory of a certificate authority (ACME), such as `https://acme-v02.api.letsencrypt.org/directory`: the names of apps get certificates from
    /// there by themselves. The authority must reach --router-listen on port 80 of those names. You agree to its terms of service.
    #[arg(long, value_name = "URL", requires = "router_listen")]
    acme_directory: Option<String>,
    /// Certificate (PEM) to trust for the authority's own address, if no system root does.
    #[arg(long, value_name = "FILE", requires = "acme_directory")]
    acme_ca: Option<PathBuf>,
    /// Whom the authority writes to before a certificate ends.
    #[arg(long, value_name = "ADDRESS", requires = "acme_directory")]
    acme_email: Option<String>,
    /// Hosts that the Rack can log in to by SSH, for `instances` and `instances keyroll`: a JSON list, see docs/rack.md.
    #[arg(long, value_name = "FILE")]
    instances: Option<PathBuf>,
    /// How processes run: container (Docker or Podman), process (supervised child processes), or auto (containers where an
    /// engine answers, else processes).
    #[arg(long, default_value = "auto", value_parser = ["auto", "container", "process"])]
    runtime: String,
    /// Socket of the container engine; else DOCKER_HOST or CONTAINER_HOST, else the usual places.
    #[arg(long, value_name = "FILE")]
    container_socket: Option<PathBuf>,
    /// Network of containers: own (one of this Rack's, made by the engine) or host (the machine's).
    #[arg(long, default_value = "own", value_parser = ["own", "host"])]
    container_network: String,
    /// Let services ask for `privileged`: whoever may deploy is then root on this machine.
    #[arg(long)]
    allow_privileged: bool,
    /// Let services mount directories of this machine: whoever may deploy can then read and change them.
    #[arg(long)]
    allow_machine_volumes: bool,
    /// Let `instances ssh local` open a shell on this machine also where apps run in containers: whoever may open shells then has the rights of the
    /// Rack's user.
    #[arg(long)]
    allow_machine_shell: bool,
    /// How long the images of one build may take: 90s, 30m, 2h.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    build_timeout: Duration,
    /// Memory that each step of a build gets, in MB; 0 is no limit.
    #[arg(long, value_name = "MB", default_value_t = 2047, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    build_memory: u32,
    /// Processes and threads that the steps of a build may have at the same time; 0 is no limit. Enforced where the engine's control groups are named
    /// by paths (cgroupfs) and the Rack may make some; else the Rack's log says why not.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    build_processes: u32,
    /// Builds of each app that are kept, so that their releases can be promoted. What runs, and what it could be rolled back to, is kept beside them.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    keep_builds: u16,
    /// How long each app's log is kept at most.
    #[arg(long, value_name = "DURATION", default_value = "720h", value_parser = duration)]
    log_age: Duration,
    /// Most that is kept of each app's log, in MB.
    #[arg(long, value_name = "MB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(4..=1_048_576))]
    log_size: u32,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = convox_wire::duration::go_parse(text).ok().filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| "write 90s, 30m or 2h".to_owned())
}

/// Files of a log that its size is divided into.
const SEGMENTS: u32 = 16;

/// How much of each log is kept.
fn log_limits(args: &Serve) -> LogLimits {
    LogLimits { segment_bytes: (u64::from(args.log_size) << 20) / u64::from(SEGMENTS), segments: SEGMENTS as usize, age: args.log_age }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When something that a safe start needs is missing; each says what and what to do.
pub async fn run(args: Serve) -> Result<()> {
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
    // Passwords, signing keys and environments lie open in it. Only its own: apps may be debugged.
    if let Err(error) = convox_proxy::close_memory() {
        tracing::warn!(%error, "other processes of this user can read this one's memory");
    }
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
    let files = tls_files(&args, &data)?;
    let tls = files.load()?;
    let fingerprint = tls.fingerprint();

    let instances = Instances::open(args.instances.as_deref(), data.join("ssh"))?;
    let state = State::open(&data).await?;
    state.note_version(VERSION).await?;
    let replaced = match &password {
        Some(password) => state.start_password(password).await?,
        None => false,
    };
    let Some(known) = credentials::known(&state).await? else {
        bail!("a Rack does not start without a password: give --password-file FILE or set CONVOX_PASSWORD");
    };
    let logs = LogStore::open(&data.join("logs"), log_limits(&args))?;
    let parameters = state.parameters().await?;
    // Before anybody is let in who was to be kept out.
    let allowed = parameters::allowed(&parameters).map_err(|why| {
        anyhow::anyhow!(
            "{why}: the list was kept by an earlier version and cannot be held to; take it away, then set another: \
             sqlite3 {} \"UPDATE system SET value = json_remove(value, '$.WhiteList') WHERE name = 'parameters'\"",
            data.join("rack.db").display()
        )
    })?;
    if let Some(age) = parameters::log_age(&parameters) {
        logs.set_age(age);
    }
    let mut builder = Builder::new(&data.join("builds"), logs.clone(), BuildLimits::default());
    let program = std::env::current_exe().context("the path of this program")?;
    let id = state.setting("id", || uuid::Uuid::now_v7().to_string()).await?;
    let engine = engine(&args).await?;
    let names = Names::new(&args.name, &id);
    let processes = data.join("processes");
    let mut bounds = ImageBounds { time: args.build_timeout, memory: args.build_memory, processes: args.build_processes };
    let runtime: Arc<dyn Runtime> = match &engine {
        Some(engine) => {
            let network = match args.container_network.as_str() {
                "host" => Network::Host,
                _ => ContainerRuntime::own_network(engine, &names).await?,
            };
            if bounds.processes > 0
                && let Err(reason) = bound::check(engine, &names.prefix).await
            {
                tracing::warn!(%reason, "how many processes a build may have is up to the engine: --build-processes is without effect");
                bounds.processes = 0;
            }
            builder = builder.with_images(Images::new(engine.clone(), names.clone(), bounds));
            let rights = Rights { privileged: args.allow_privileged, machine_volumes: args.allow_machine_volumes };
            Arc::new(ContainerRuntime::new(&processes, &program, logs.clone(), engine.clone(), names.clone(), network, rights)?)
        }
        None => Arc::new(ProcessRuntime::new(&processes, &program, logs.clone())?),
    };
    let (mut apps, mut held) = (Vec::new(), BTreeMap::new());
    for app in state.apps().await?.iter().filter(|app| !app.release.is_empty() && app.status != "deleting") {
        let read = match state.release(&app.name, &app.release).await {
            Ok(Some(release)) => desired(&state, &builder, &release).await.map_err(|error| error.to_string()),
            Ok(None) => Err(format!("there is no release {}", app.release)),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(desired) => apps.push(desired),
            Err(error) => {
                tracing::error!(app = %app.name, %error, "an app runs on as it was: its active release cannot be read");
                let words =
                    format!("App {} runs on as it was and is not looked after: its active release cannot be read: {error}", app.name);
                logs.append(SYSTEM_LOG, "system/rack", &words);
                held.insert(app.name.clone(), error);
            }
        }
    }
    // Bound before processes are touched: a second Rack on the same address ends here.
    let server = Server::bind(args.listen, 1, Some(tls.clone())).with_context(|| format!("could not listen on {}", args.listen))?;
    let watched = args
        .metrics_listen
        .map(|address| Server::bind(address, 1, None).with_context(|| format!("could not listen on {address} for metrics")));
    let watched = watched.transpose()?;
    let router = RouterConfig {
        http: args.router_listen,
        https: args.router_tls_listen,
        domain: args.domain.as_deref().map(|domain| host_alone(domain).to_ascii_lowercase()),
    };
    let config = SchedulerConfig {
        rack: args.name.clone(),
        dir: data.join("scheduler"),
        resources: data.join("resources"),
        program: program.clone(),
        router,
    };
    files::make_private_directory(&config.dir)?;
    let scheduler = Scheduler::start(config, Arc::clone(&runtime), logs.clone(), apps, held).await?;
    let rack = Arc::new(Rack {
        name: args.name,
        host: server.local_addr().to_string(),
        domain: args.domain,
        door: Door::new(state.password_key(), id, known),
        acme: args.acme_directory.map(|directory| Acme::new(directory, args.acme_ca, args.acme_email)),
        instances,
        allows_machine_shell: args.allow_machine_shell,
        program: program.clone(),
        state,
        logs,
        builder,
        scheduler,
        objects: data.join("objects"),
        resources: data.join("resources"),
        started_ms: now_ms(),
        runtime,
        serving: tokio::sync::Mutex::default(),
        setting: tokio::sync::Mutex::default(),
        streams: TaskTracker::new(),
        ending: CancellationToken::new(),
        looked: Looked::default(),
        meters: Meters::default(),
        allowed: ArcSwap::default(),
        log_age: args.log_age,
        keep_builds: i64::from(args.keep_builds),
    });
    rack.allow(allowed);
    let has_images = rack.builder.has_images();
    for parameter in parameters::honoured(Scope::Rack, &parameters, has_images) {
        rack.logs.append(SYSTEM_LOG, "system/rack", &format!("Parameter {parameter} holds"));
    }
    for app in rack.state.apps().await? {
        rack.keep_logs(&app.name, parameters::log_age(&app.parameters));
        for parameter in parameters::honoured(Scope::App, &app.parameters, has_images) {
            rack.logs.append(SYSTEM_LOG, "system/rack", &format!("Parameter {parameter} of app {} holds", app.name));
        }
    }
    rack.serve_certificates().await?;
    rack.resume().await?;
    rack.logs.append(SYSTEM_LOG, "system/rack", &format!("Rack {} version {VERSION} listens on {}", rack.name, rack.host));
    if replaced {
        rack.logs.append(SYSTEM_LOG, "system/rack", "The password was changed where the Rack is started: the one before is refused");
    }
    tokio::spawn(credentials::follow(Arc::clone(&rack)));
    tokio::spawn(readiness::follow(Arc::clone(&rack)));
    let cut_off = Arc::clone(&rack);
    tokio::spawn(async move {
        match cut_off.instances.roll(&cut_off.state, true).await {
            Ok(0) => {}
            Ok(hosts) => tracing::info!(hosts, "rolls of SSH keys that were cut off are finished"),
            Err(error) => {
                tracing::error!(%error, "a roll of an SSH key that was cut off could not be finished; `instances keyroll` goes on");
            }
        }
    });
    tokio::spawn(acme::follow(Arc::clone(&rack)));
    tokio::spawn(files.clone().follow(tls.clone()));
    tokio::spawn(reload(files, tls));
    let how = engine.as_ref().map_or("plain processes, without isolation".to_owned(), |engine| format!("containers of {}", engine.name()));
    rack.logs.append(SYSTEM_LOG, "system/rack", &format!("Apps run as {how}"));
    tracing::info!(runtime = %how, "how apps run");
    tokio::spawn(expire(Arc::clone(&rack)));
    if let Some(engine) = engine {
        tokio::spawn(collect_images(Arc::clone(&rack), engine, names));
    }

    let mut stdout = std::io::stdout();
    let fronts = rack.scheduler.fronts();
    for (scheme, asked, bound) in [("http", args.router_listen, fronts.0), ("https", args.router_tls_listen, fronts.1)] {
        match (asked, bound) {
            (Some(_), Some(bound)) => writeln!(stdout, "router on {scheme}://{bound}")?,
            (Some(asked), None) => {
                let why = rack.scheduler.router_failures().into_iter().find(|(address, _)| *address == asked).map(|(_, reason)| reason);
                bail!("the router could not listen on {asked}: {}", why.unwrap_or_else(|| "no reason given".to_owned()));
            }
            (None, _) => {}
        }
    }
    if let Some(server) = watched {
        writeln!(stdout, "metrics on http://{}/metrics", meters::serve(Arc::clone(&rack), server))?;
    }
    writeln!(stdout, "listening on https://{} fingerprint {fingerprint}", rack.host)?;
    stdout.flush()?;
    tell_manager("READY=1");
    let ending = async {
        ended().await;
        tell_manager("STOPPING=1");
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

/// A word to the service manager, where there is one.
fn tell_manager(state: &str) {
    if let Err(error) = convox_proxy::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told how this Rack is");
    }
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
    let stopped = runtime.stop_all().await;
    router::end(&data.join("scheduler")).await.context("the router could not be stopped")?;
    Ok(stopped?)
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

/// What the Rack was started with, if it was given one.
fn password(file: Option<&Path>) -> Result<Option<Secret>> {
    let text = match file {
        Some(path) => Some(std::fs::read_to_string(path).with_context(|| format!("could not read the password file {}", path.display()))?),
        // PASSWORD is what the originals read. One that is set and empty is a mistake, not a reason to look on.
        None => std::env::var("CONVOX_PASSWORD").or_else(|_| std::env::var("PASSWORD")).ok(),
    };
    let Some(password) = text.map(|text| Secret::new(text.trim().to_owned())) else { return Ok(None) };
    if password.is_empty() {
        bail!("a Rack does not start without a password: the one that was given is empty");
    }
    match credentials::fault(&password) {
        Some(fault) => bail!("the Rack's password is {fault}"),
        None => Ok(Some(password)),
    }
}

/// `HOST` of `HOST[:PORT]`, without the brackets of an IPv6 address.
fn host_alone(domain: &str) -> &str {
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']')) => host,
        _ => domain,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Where the certificate is: given, kept from an earlier start, or made now.
fn tls_files(args: &Serve, data: &Path) -> Result<TlsFiles> {
    if let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) {
        return Ok(TlsFiles::new(cert, key));
    }
    let files = TlsFiles::in_directory(&data.join("tls"));
    let listen = args.listen.ip().to_string();
    let mut names = vec!["localhost", "127.0.0.1", "::1", args.name.as_str()];
    names.extend(args.domain.as_deref().map(host_alone).filter(|host| !names.contains(host)));
    if !args.listen.ip().is_unspecified() && !names.contains(&listen.as_str()) {
        names.push(&listen);
    }
    files.make(&names)?;
    Ok(files)
}

/// The engine that is wanted, if one is.
async fn engine(args: &Serve) -> Result<Option<Engine>> {
    let found = match (&args.container_socket, args.runtime.as_str()) {
        (_, "process") => return Ok(None),
        (Some(socket), _) => Some(Engine::connect(socket).await?),
        (None, _) => Engine::find().await,
    };
    if found.is_none() && args.runtime == "container" {
        bail!(
            "--runtime container: no container engine answers; start Docker or Podman (`podman system service`), or name its socket with --container-socket"
        );
    }
    Ok(found)
}

/// Images of builds that nobody can promote any more go, when the Rack starts and then once an hour.
async fn collect_images(rack: Arc<Rack>, engine: Engine, names: Names) {
    loop {
        match rack.state.built().await {
            Ok(needed) => match collect::images(&engine, &names, &needed).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "images of deleted builds were removed"),
                Err(error) => tracing::warn!(%error, "images could not be looked through"),
            },
            Err(error) => tracing::warn!(%error, "images are kept, since the builds could not be read"),
        }
        tokio::time::sleep(COLLECT_EVERY).await;
    }
}

/// Old log files, builds and uploads go, when the Rack starts and then once an hour.
async fn expire(rack: Arc<Rack>) {
    loop {
        if let Err(error) = rack.give_up_old().await {
            tracing::warn!(%error, "old builds could not be given up");
        }
        let logs = rack.logs.clone();
        let _ = tokio::task::spawn_blocking(move || logs.expire()).await;
        tokio::time::sleep(Duration::from_hours(1)).await;
    }
}

/// Reads the certificate anew on SIGHUP, without waiting for the next look at its files.
async fn reload(files: TlsFiles, tls: TlsServer) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        match files.reload(&tls) {
            Ok(()) => tracing::info!(fingerprint = %tls.fingerprint(), "serving the certificate as it is now"),
            Err(error) => tracing::error!(%error, "serving the old certificate: the new one cannot be used"),
        }
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
