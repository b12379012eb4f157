//! Streams over WebSockets: logs one way, exec both ways with an exit code. The upgrade comes after authentication and authorisation; what goes
//! wrong later is said as text, since the clients show no body of a refused upgrade.

use std::sync::Arc;
use std::time::Duration;

use convox_proxy::Body;
use convox_wire::exit;
use convox_wire::form::Params;
use convox_wire::options::{LogOptions, Options, ProcessExecOptions, Source};
use convox_wire::routes::Match;
use convox_wire::socket::{Decoder, Frame, Op, Role, accept_key, encode};
use futures_util::StreamExt as _;
use http::header::{CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ApiError;
use crate::logs::LogQuery;
use crate::rack::{Rack, SYSTEM_LOG};
use crate::runtime::{ExecSpec, TerminalSize};

/// Clients send messages of at most 1024 bytes; nobody needs longer frames.
const LARGEST_FRAME: usize = 1 << 20;
/// How often this side asks whether the other one lives.
const PING: Duration = Duration::from_secs(20);
/// Frames that may wait for a slow reader; then the source waits.
const QUEUE: usize = 16;
/// Longest time for one write to get through to a reader.
const PATIENCE: Duration = Duration::from_mins(1);
/// A finished build's log gets so long to deliver its last lines.
const LAST_LINES: Duration = Duration::from_millis(300);

/// Upgrades, then runs the stream in a task of its own.
pub(super) fn open(rack: &Arc<Rack>, found: &Match<'_>, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
    let headers = request.headers().clone();
    let key = handshake(&headers)?;
    let target = Target {
        name: found.route.name,
        app: found.app.unwrap_or_default().to_owned(),
        item: ["pid", "id", "service"].into_iter().find_map(|name| found.var(name)).unwrap_or_default().to_owned(),
    };
    let rack = Arc::clone(rack);
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(upgraded) => {
                let (wire, end) = Wire::start(TokioIo::new(upgraded));
                run(&rack, &target, &headers, wire).await;
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

/// Checks the handshake; gives the accept key.
fn handshake(headers: &HeaderMap) -> Result<String, ApiError> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(origin) = text(ORIGIN) {
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        if !text(HOST).is_some_and(|own| own.eq_ignore_ascii_case(host)) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "the origin of the WebSocket is another host"));
        }
    }
    if text(SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(ApiError::bad("only WebSocket version 13 is spoken here"));
    }
    text(SEC_WEBSOCKET_KEY).map(accept_key).ok_or_else(|| ApiError::bad("the WebSocket key is missing"))
}

/// What is streamed.
struct Target {
    name: &'static str,
    app: String,
    /// Process, build or service.
    item: String,
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

async fn run(rack: &Arc<Rack>, target: &Target, headers: &HeaderMap, mut wire: Wire) {
    let options = Headers(headers, Params::new());
    let outcome = match target.name {
        "ProcessExec" => exec(rack, target, &options, &mut wire).await,
        "AppLogs" | "ServiceLogs" | "ProcessLogs" | "BuildLogs" | "SystemLogs" => logs(rack, target, &options, &mut wire).await,
        name => Err(format!("not available on this rack: {name}")),
    };
    if let Err(message) = outcome {
        wire.text(format!("ERROR: {}\n", convox_wire::error::safe_message(&message)).into_bytes()).await;
        if target.name == "ProcessExec" {
            // In a message of its own; else the originals' clients exit with 0.
            wire.text(exit::marker(255).into_bytes()).await;
        }
    }
    wire.end().await;
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
    let mut lines = rack.logs.query(log, query);
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
    let size = |asked: Option<i64>, otherwise: u16| {
        asked.and_then(|value| u16::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(otherwise)
    };
    let default = TerminalSize::default();
    let terminal = TerminalSize { rows: size(options.height, default.rows), columns: size(options.width, default.columns) };
    let spec = ExecSpec {
        command: options.command.clone().unwrap_or_default(),
        tty: options.tty().then_some(terminal),
        no_input: options.disable_stdin.unwrap_or(false),
        ..ExecSpec::default()
    };
    if spec.command.trim().is_empty() {
        return Err("no command given".to_owned());
    }
    let mut stream = rack.scheduler.exec(&target.app, &target.item, spec).await.map_err(|error| error.to_string())?;
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
                return Ok(());
            }
            read = stream.output.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(count) => wire.text(buffer.get(..count).unwrap_or_default().to_vec()).await,
            },
        }
    }
    let code = tokio::select! {
        code = stream.exit => code,
        () = gone.cancelled() => return Ok(()),
    };
    typist.abort();
    wire.text(exit::marker(code).into_bytes()).await;
    Ok(())
}

/// The WebSocket: a task reads frames, another one writes them.
struct Wire {
    frames: mpsc::Sender<Frame>,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    /// The other side is gone, or closed.
    gone: CancellationToken,
}

impl Wire {
    /// Starts both tasks; the second value ends when the last frame is written.
    fn start<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> (Self, tokio::task::JoinHandle<()>) {
        let (read, write) = tokio::io::split(stream);
        let (frames, queue) = mpsc::channel(QUEUE);
        let (typed, input) = mpsc::channel(QUEUE);
        let gone = CancellationToken::new();
        let end = tokio::spawn(writer(write, queue, gone.clone()));
        tokio::spawn(reader(read, typed, frames.downgrade(), gone.clone()));
        (Self { frames, input: Some(input), gone }, end)
    }

    /// Sends one message of the stream, whole.
    async fn text(&self, bytes: Vec<u8>) {
        let _ = self.frames.send(Frame::text(bytes)).await;
    }

    /// What the other side sends, until its end of input.
    fn take_input(&mut self) -> mpsc::Receiver<Vec<u8>> {
        self.input.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// The end: an empty binary message, then a close.
    async fn end(self) {
        let _ = self.frames.send(Frame::end()).await;
        let _ = self.frames.send(Frame::close(1000, "")).await;
    }
}

async fn writer<W: AsyncWrite + Unpin>(mut write: W, mut queue: mpsc::Receiver<Frame>, gone: CancellationToken) {
    let mut bytes = Vec::new();
    let mut ping = tokio::time::interval(PING);
    ping.tick().await;
    loop {
        let frame = tokio::select! {
            frame = queue.recv() => match frame {
                Some(frame) => frame,
                None => break,
            },
            _ = ping.tick() => Frame { fin: true, op: Op::Ping, payload: Vec::new() },
        };
        let last = frame.op == Op::Close;
        bytes.clear();
        encode(&frame, None, &mut bytes);
        let written = tokio::time::timeout(PATIENCE, async {
            write.write_all(&bytes).await?;
            write.flush().await
        });
        if !matches!(written.await, Ok(Ok(()))) {
            gone.cancel();
            return;
        }
        if last {
            break;
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), write.shutdown()).await;
    gone.cancel();
}

async fn reader<R: AsyncRead + Unpin>(mut read: R, typed: mpsc::Sender<Vec<u8>>, frames: mpsc::WeakSender<Frame>, gone: CancellationToken) {
    let mut typed = Some(typed);
    let mut decoder = Decoder::new(Role::Server, LARGEST_FRAME);
    let mut buffer = vec![0; 8 * 1024];
    loop {
        let read = tokio::select! {
            read = tokio::time::timeout(PING * 3, read.read(&mut buffer)) => read,
            () = gone.cancelled() => return,
        };
        // Clients ping every five seconds and answer our pings: silence for a minute is the end.
        let Ok(Ok(count @ 1..)) = read else { break };
        decoder.push(buffer.get(..count).unwrap_or_default());
        loop {
            match decoder.next() {
                Ok(None) => break,
                Err(_) => {
                    gone.cancel();
                    return;
                }
                Ok(Some(frame)) => match frame.op {
                    Op::Text | Op::Continuation => {
                        if let Some(typed) = &typed {
                            // A full queue makes the client wait; a consumer that is gone makes this wait no more.
                            tokio::select! {
                                _ = typed.send(frame.payload) => {}
                                () = gone.cancelled() => return,
                            }
                        }
                    }
                    // The end of the other side's input.
                    Op::Binary => typed = None,
                    Op::Ping => {
                        if let Some(frames) = frames.upgrade() {
                            let _ = frames.try_send(Frame { fin: true, op: Op::Pong, payload: frame.payload });
                        }
                    }
                    Op::Pong => {}
                    Op::Close => {
                        gone.cancel();
                        return;
                    }
                },
            }
        }
    }
    gone.cancel();
}
