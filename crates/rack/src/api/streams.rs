//! Streams over WebSockets: logs one way, exec both ways with an exit code. The upgrade comes after authentication and authorisation; what goes
//! wrong later is said as text, since the clients show no body of a refused upgrade.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use convox_proxy::Body;
use convox_seal::Secret;
use convox_wire::exit;
use convox_wire::form::Params;
use convox_wire::options::{InstanceShellOptions, LogOptions, Options, ProcessExecOptions, Source};
use convox_wire::routes::Match;
use futures_util::StreamExt as _;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::ApiError;
use super::rows::{self, handlers};
use super::socket::{PATIENCE, Wire, handshake};
use super::{inside, resources};
use crate::auth::Caller;
use crate::builds;
use crate::instances::InstanceError;
use crate::logs::LogQuery;
use crate::rack::{Rack, SYSTEM_LOG};
use crate::runtime::process::on_machine;
use crate::runtime::{ExecSpec, ExecStream, TerminalSize};

/// A finished build's log gets so long to deliver its last lines.
const LAST_LINES: Duration = Duration::from_millis(300);

/// Upgrades, then runs the stream in a task of its own.
pub(super) fn open(rack: &Arc<Rack>, found: &Match<'_>, request: Request<Incoming>, caller: Caller) -> Result<Response<Body>, ApiError> {
    let headers = request.headers().clone();
    let key = handshake(&headers)?;
    let target = Target {
        name: found.route.name,
        app: found.app.unwrap_or_default().to_owned(),
        item: ["pid", "id", "service", "host", "name"].into_iter().find_map(|name| found.var(name)).unwrap_or_default().to_owned(),
        port: found.var("port").unwrap_or_default().to_owned(),
    };
    let rack = Arc::clone(rack);
    let upgraded = hyper::upgrade::on(request);
    rack.streams.clone().spawn(async move {
        match upgraded.await {
            Ok(upgraded) => {
                let (wire, end) = Wire::start(TokioIo::new(upgraded));
                run(&rack, &target, &headers, &caller, wire).await;
                let _ = tokio::time::timeout(PATIENCE, end).await;
            }
            Err(error) => tracing::debug!(%error, "an upgrade came to nothing"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&key).map_err(|_| ApiError::bad("bad WebSocket key"))?);
    Ok(response)
}

/// What is streamed.
struct Target {
    name: &'static str,
    app: String,
    /// Process, build, service or host.
    item: String,
    /// Of a host.
    port: String,
}

/// Options of a stream travel as headers only.
struct Headers<'a>(&'a HeaderMap, Params);

impl Source for Headers<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|value| value.to_str().ok())
    }

    fn form(&self, name: &str) -> Option<&str> {
        self.1.get(name)
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.1.get(name)
    }
}

/// Sockets whose end carries an exit code.
const WITH_EXIT_CODE: &[&str] = &["ProcessExec", "InstanceShell", "ClassicRun", "ClassicInstanceSsh"];

/// Streams until it is over, the caller's token is, or the Rack is.
async fn run(rack: &Arc<Rack>, target: &Target, headers: &HeaderMap, caller: &Caller, mut wire: Wire) {
    let now = jiff::Timestamp::now().as_second();
    let outcome = tokio::select! {
        outcome = stream(rack, target, headers, &mut wire) => outcome,
        reason = rack.door.ended(caller, now) => Err(reason.to_owned()),
        () = rack.ending.cancelled() => Err("the rack is being stopped; try again".to_owned()),
    };
    if let Err(message) = outcome {
        wire.text(format!("ERROR: {}\n", convox_wire::error::safe_message(&message)).into_bytes()).await;
        if WITH_EXIT_CODE.contains(&target.name) {
            // In a message of its own; else the originals' clients exit with 0.
            wire.text(exit::marker(255).into_bytes()).await;
        }
    }
    wire.end().await;
}

async fn stream(rack: &Arc<Rack>, target: &Target, headers: &HeaderMap, wire: &mut Wire) -> Result<(), String> {
    let options = Headers(headers, Params::new());
    handlers!(target.name, {
        "ProcessExec" => exec(rack, target, &options, wire).await,
        "ResourceConsole" => resources::console(rack, &target.app, &target.item, &options, wire).await,
        "InstanceShell" | "ClassicInstanceSsh" => shell(rack, &target.item, &options, wire).await,
        "Proxy" => inside::proxy(rack, &target.item, &target.port, wire).await,
        "AppLogs" | "ServiceLogs" | "ProcessLogs" | "BuildLogs" | "SystemLogs" => logs(rack, target, &options, wire).await,
        _ => Err(ApiError::not_available(rows::lacking(target.name)).message),
    })
}

/// Sends log lines until they end, or until nobody reads them.
async fn logs(rack: &Arc<Rack>, target: &Target, source: &Headers<'_>, wire: &mut Wire) -> Result<(), String> {
    let options = LogOptions::decode(source).map_err(|error| error.to_string())?;
    let mut query = LogQuery {
        since: Some(options.since()),
        filter: options.filter.clone().filter(|text| !text.is_empty()),
        tail: options.tail.and_then(|tail| usize::try_from(tail).ok()),
        streams: Vec::new(),
        follow: options.follow(),
    };
    let mut log = target.app.as_str();
    let mut build = None;
    if target.name == "SystemLogs" {
        log = SYSTEM_LOG;
    } else if rack.state.app(log).await.map_err(|error| error.to_string())?.is_none() {
        return Err(format!("app not found: {log}"));
    }
    match target.name {
        "ServiceLogs" => query.streams = vec![format!("service/{}", target.item)],
        "ProcessLogs" => {
            let process = rack.scheduler.process(log, &target.item).ok_or_else(|| format!("process not found: {}", target.item))?;
            query.streams = vec![process.stream()];
        }
        "BuildLogs" => {
            rack.state
                .build(log, &target.item)
                .await
                .map_err(|error| error.to_string())?
                .ok_or_else(|| format!("build not found: {}", target.item))?;
            query.streams = vec![format!("build/{}", target.item)];
            query.since = None;
            build = Some(target.item.as_str());
        }
        _ => {}
    }
    let of_builds = builds::log_of(log);
    let mut lines = rack.logs.query(if build.is_some() { &of_builds } else { log }, query);
    let gone = wire.gone.clone();
    loop {
        // The log of a build ends with the build.
        let wait = if build.is_some() { LAST_LINES } else { Duration::MAX };
        tokio::select! {
            () = gone.cancelled() => return Ok(()),
            line = tokio::time::timeout(wait, lines.next()) => match line {
                Ok(Some(line)) => wire.text(format!("{}\n", line.render(options.prefix())).into_bytes()).await,
                Ok(None) => return Ok(()),
                Err(_) => {
                    let id = build.unwrap_or_default();
                    let ended = rack.state.build(log, id).await.ok().flatten().is_none_or(|build| build.ended_ms.is_some());
                    if ended {
                        // What was written before the end was noted is there now.
                        while let Ok(Some(line)) = tokio::time::timeout(LAST_LINES, lines.next()).await {
                            wire.text(format!("{}\n", line.render(options.prefix())).into_bytes()).await;
                        }
                        return Ok(());
                    }
                }
            },
        }
    }
}

/// Runs a command in a process: bytes both ways, then the exit code in a message of its own.
async fn exec(rack: &Arc<Rack>, target: &Target, source: &Headers<'_>, wire: &mut Wire) -> Result<(), String> {
    let options = ProcessExecOptions::decode(source).map_err(|error| error.to_string())?;
    if rack.state.app(&target.app).await.map_err(|error| error.to_string())?.is_none() {
        return Err(format!("app not found: {}", target.app));
    }
    let spec = ExecSpec {
        command: options.command.clone().unwrap_or_default(),
        tty: options.tty().then(|| terminal(options.height, options.width)),
        no_input: options.disable_stdin.unwrap_or(false),
        entrypoint: options.entrypoint.unwrap_or(false),
        ..ExecSpec::default()
    };
    if spec.command.trim().is_empty() {
        return Err("no command given".to_owned());
    }
    let stream = rack.scheduler.exec(&target.app, &target.item, spec).await.map_err(|error| error.to_string())?;
    if let Some(code) = attach(stream, wire).await {
        wire.text(exit::marker(code).into_bytes()).await;
    }
    Ok(())
}

/// A shell on this machine or on a host that the Rack can log in to; or a command there.
async fn shell(rack: &Arc<Rack>, id: &str, source: &Headers<'_>, wire: &mut Wire) -> Result<(), String> {
    let options = InstanceShellOptions::decode(source).map_err(|error| error.to_string())?;
    let command = options.command.as_deref().filter(|command| !command.trim().is_empty());
    let tty = (options.height.is_some() || options.width.is_some()).then(|| terminal(options.height, options.width));
    let (words, files) = if id == "local" {
        if rack.runtime.isolation().has_images() && !rack.allows_machine_shell {
            let why = "whoever has it is outside of the containers that apps are kept in; start the Rack with --allow-machine-shell";
            return Err(format!("no shell on the Rack's own machine: {why}"));
        }
        let words = match command {
            Some(command) => ["sh", "-c", command].map(str::to_owned).into(),
            None => vec![std::env::var("SHELL").unwrap_or_else(|_| "sh".to_owned()), "-l".to_owned()],
        };
        (words, None)
    } else {
        let private = options.private_key.filter(|key| !key.is_empty()).map(|key| decoded(&key)).transpose()?;
        let shell = rack.instances.shell(&rack.state, id, command, private, tty.is_some()).await;
        let (words, files) = shell.map_err(|error| match error {
            InstanceError::Unknown => format!("instance not found: {id}; {error}"),
            other => other.to_string(),
        })?;
        (words, Some(files))
    };
    let stream = on_machine(&rack.program, words, tty).map_err(|error| error.to_string())?;
    let code = attach(stream, wire).await;
    drop(files);
    if let Some(code) = code {
        wire.text(exit::marker(code).into_bytes()).await;
    }
    Ok(())
}

/// A private key as v3 sends it.
fn decoded(key: &str) -> Result<Secret, String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(key).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.map(Secret::new).ok_or_else(|| "the private key is not base64 of a PEM".to_owned())
}

/// The size that a client says its terminal has.
pub(super) fn terminal(height: Option<i64>, width: Option<i64>) -> TerminalSize {
    let size = |asked: Option<i64>, otherwise: u16| {
        asked.and_then(|value| u16::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(otherwise)
    };
    let default = TerminalSize::default();
    TerminalSize { rows: size(height, default.rows), columns: size(width, default.columns) }
}

/// Bytes both ways until the command has ended: its exit code, or `None` if the client went away before.
pub(super) async fn attach(mut stream: ExecStream, wire: &mut Wire) -> Option<i32> {
    let mut incoming = wire.take_input();
    let mut input = stream.input;
    // Input has a task of its own: a command that does not read must not keep its output from being read.
    let typist = tokio::spawn(async move {
        while let Some(bytes) = incoming.recv().await {
            if input.write_all(&bytes).await.is_err() || input.flush().await.is_err() {
                // The command reads no more; what else comes is thrown away.
                while incoming.recv().await.is_some() {}
                return;
            }
        }
        let _ = input.shutdown().await;
    });
    let mut buffer = vec![0; 8 * 1024];
    let gone = wire.gone.clone();
    loop {
        tokio::select! {
            () = gone.cancelled() => {
                typist.abort();
                // Dropping the exit ends the command and everything that it started.
                return None;
            }
            read = stream.output.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(count) => wire.text(buffer.get(..count).unwrap_or_default().to_vec()).await,
            },
        }
    }
    let code = tokio::select! {
        code = stream.exit => code,
        () = gone.cancelled() => return None,
    };
    typist.abort();
    Some(code)
}
