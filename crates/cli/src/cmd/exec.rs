//! `exec`, `run` and `test`: a command in a process, with its bytes, its terminal and its exit code.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use convox_client::{Error, Piece, Socket, SocketReader, SocketWriter};
use convox_wire::exit::{ExitScanner, MARKER};
use convox_wire::options::{ProcessExecOptions, ProcessRunOptions};
use tokio::sync::mpsc;

use super::wait;
use crate::Ctx;
use crate::args::{Exec, Run};
use crate::error::Failure;
use crate::output::Style;
use crate::reach::Reached;
use crate::signals::Signals;
use crate::term::{self, Raw};

/// When the stream ends without saying how the command did.
const UNKNOWN_END: u8 = 255;
/// How v3's hand-over to ECS Exec begins.
const SESSION_MANAGER: &[u8] = b"\0{\"sessionId\"";
/// How long `run` keeps its process, unless told otherwise.
const RUN_LIMIT: u64 = 3600;

pub(super) async fn exec(ctx: &Ctx, args: Exec) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    let command = args.command.join(" ");
    let socket = rack.client.process_exec(&app, &args.process, &command, &exec_options(ctx, None)).await?;
    attach(ctx, socket).await
}

/// Gives an open shell the terminal, to its end.
pub(super) async fn attach(ctx: &Ctx, socket: Socket) -> Result<u8, Failure> {
    finished(ctx, at_the_terminal(ctx, socket).await)
}

/// The same, for a stream that never says how it ended.
pub(super) async fn attach_without_code(ctx: &Ctx, socket: Socket) -> Result<u8, Failure> {
    match at_the_terminal(ctx, socket).await {
        Ok(Ended::Silent) => Ok(0),
        other => finished(ctx, other),
    }
}

async fn at_the_terminal(ctx: &Ctx, socket: Socket) -> Result<Ended, Failure> {
    // Only now: until here, Ctrl-C ends this program.
    let mut signals = Signals::listen();
    let raw = Raw::enter(&ctx.env);
    let ended = tokio::select! {
        ended = session(socket) => ended,
        signal = signals.first() => Ok(Ended::Signal(signal)),
    };
    drop(raw);
    ended
}

fn exec_options(ctx: &Ctx, entrypoint: Option<bool>) -> ProcessExecOptions {
    let size = term::size(&ctx.env);
    ProcessExecOptions {
        entrypoint,
        height: size.map(|(rows, _)| i64::from(rows)),
        width: size.map(|(_, columns)| i64::from(columns)),
        tty: (!ctx.env.stdin_is_terminal).then_some(false),
        ..ProcessExecOptions::default()
    }
}

pub(super) async fn run(ctx: &Ctx, args: Run) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    let command = args.command.join(" ");
    let size = term::size(&ctx.env);
    let needs = &args.needs;
    let options = |command: String| ProcessRunOptions {
        command: Some(command),
        height: size.map(|(rows, _)| i64::from(rows)),
        width: size.map(|(_, columns)| i64::from(columns)),
        release: args.release.clone(),
        cpu: needs.cpu,
        cpu_limit: needs.cpu_limit,
        memory: needs.memory,
        memory_limit: needs.memory_limit,
        gpu: needs.gpu,
        gpu_vendor: needs.gpu_vendor.clone(),
        node_labels: needs.node_labels.clone(),
        system_critical: needs.system_critical.then_some(true),
        use_service_volume: needs.use_service_volume.then_some(true),
        ..ProcessRunOptions::default()
    };
    if args.detach {
        ctx.out.start("Running detached process")?;
        let process = rack.client.process_run(&app, &args.service, &options(command)).await?;
        ctx.out.ok_with(&ctx.out.paint(Style::Process, &process.id))?;
        ctx.out.result(&process.id, &process)?;
        return Ok(0);
    }
    in_new_process(ctx, &rack, &app, &args.service, &options(sleep(args.timeout)), &command, args.entrypoint == "true").await
}

/// What a new process does while a command runs inside it. If we vanish, this ends it.
pub(super) fn sleep(timeout: Option<u64>) -> String {
    format!("sleep {}", timeout.filter(|seconds| *seconds > 0).unwrap_or(RUN_LIMIT))
}

/// As the originals: a process that sleeps, the command inside it, and the process stopped at the end.
pub(super) async fn in_new_process(
    ctx: &Ctx,
    rack: &Reached,
    app: &str,
    service: &str,
    options: &ProcessRunOptions,
    command: &str,
    entrypoint: bool,
) -> Result<u8, Failure> {
    let mut signals = Signals::listen();
    let process = rack.client.process_run(app, service, options).await?;
    let ended = tokio::select! {
        ended = inside(ctx, rack, app, &process.id, command, entrypoint) => ended,
        signal = signals.first() => Ok(Ended::Signal(signal)),
    };
    // Whatever happened, the process is not left behind.
    let _ = tokio::time::timeout(Duration::from_secs(10), rack.client.process_stop(app, &process.id)).await;
    finished(ctx, ended)
}

async fn inside(ctx: &Ctx, rack: &Reached, app: &str, process: &str, command: &str, entrypoint: bool) -> Result<Ended, Failure> {
    wait::process_running(&rack.client, app, process).await?;
    let socket = rack.client.process_exec(app, process, command, &exec_options(ctx, Some(entrypoint))).await?;
    let raw = Raw::enter(&ctx.env);
    let ended = session(socket).await;
    drop(raw);
    ended
}

/// How a session ended.
enum Ended {
    /// The remote command's own code.
    Code(i32),
    /// The stream was at its end, and no code came.
    Silent,
    /// The connection broke.
    Broken(Error),
    /// We were told to end.
    Signal(u8),
}

fn finished(ctx: &Ctx, ended: Result<Ended, Failure>) -> Result<u8, Failure> {
    match ended? {
        // A shell sees the low eight bits; -1 and its kin are 255.
        Ended::Code(code) => Ok(u8::try_from(code & 0xff).unwrap_or(UNKNOWN_END)),
        Ended::Silent => {
            let failure = Failure::new("the stream ended without an exit code, so it is not known how the command ended");
            ctx.out.failure(&failure);
            Ok(UNKNOWN_END)
        }
        Ended::Broken(error) => Err(Failure::from(error).code(UNKNOWN_END)),
        Ended::Signal(number) => Ok(128 + number),
    }
}

async fn session(socket: Socket) -> Result<Ended, Failure> {
    let (reader, writer) = socket.split();
    tokio::spawn(feed(writer, stdin()));
    show(reader).await
}

/// Standard input, read by a thread of its own: it may block for ever.
fn stdin() -> mpsc::Receiver<Bytes> {
    let (send, receive) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0u8; 16 * 1024];
        loop {
            match std::io::stdin().lock().read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    if send.blocking_send(Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default())).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    });
    receive
}

async fn feed(writer: SocketWriter, mut input: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = input.recv().await {
        if !writer.send(bytes).await {
            return;
        }
    }
    writer.end().await;
    // Dropped only with the connection: the other direction goes on.
    std::future::pending::<()>().await;
}

/// Prints what comes, as it comes; the exit marker is believed only as the last message of the stream.
async fn show(mut reader: SocketReader) -> Result<Ended, Failure> {
    let mut out = std::io::stdout();
    let mut scanner = ExitScanner::new();
    let mut message: Vec<u8> = Vec::new();
    let (mut is_plain, mut is_first) = (false, true);
    loop {
        let piece = match reader.next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) => return Ok(Ended::Broken(error)),
        };
        // v3 on ECS hands over to a program of AWS with parameters that the server chose; we start no program for a server.
        if std::mem::take(&mut is_first) && piece.data.starts_with(SESSION_MANAGER) {
            return Err(Failure::new("this Rack opens shells through AWS Session Manager, which convox does not support")
                .hint("use the original v3 convox for exec and run on this Rack"));
        }
        for bytes in sorted(piece, &mut scanner, &mut message, &mut is_plain) {
            out.write_all(&bytes)?;
        }
        out.flush()?;
    }
    Ok(scanner.finish().map_or(Ended::Silent, Ended::Code))
}

/// What of a piece is certainly output. Only a message that begins like the marker is gathered; all else passes at once.
fn sorted(piece: Piece, scanner: &mut ExitScanner, message: &mut Vec<u8>, is_plain: &mut bool) -> Vec<Vec<u8>> {
    const LONGEST: usize = MARKER.len() + 16;
    if piece.first {
        message.clear();
        *is_plain = false;
    }
    if !*is_plain {
        message.extend_from_slice(&piece.data);
        let begins_like_it = message.iter().zip(MARKER.as_bytes()).all(|(a, b)| a == b);
        if begins_like_it && message.len() <= LONGEST && !piece.last {
            return Vec::new();
        }
        *is_plain = true;
        let (before, now) = scanner.push(std::mem::take(message));
        return before.into_iter().chain(now).collect();
    }
    vec![piece.data.to_vec()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(data: &str, first: bool, last: bool) -> Piece {
        Piece { data: Bytes::copy_from_slice(data.as_bytes()), first, last }
    }

    fn shown(pieces: Vec<Piece>) -> (String, Option<i32>) {
        let (mut scanner, mut message, mut is_plain) = (ExitScanner::new(), Vec::new(), false);
        let mut text = Vec::new();
        for piece in pieces {
            text.extend(sorted(piece, &mut scanner, &mut message, &mut is_plain).concat());
        }
        (String::from_utf8(text).unwrap(), scanner.finish())
    }

    #[test]
    fn the_code_is_believed_only_as_the_last_message() {
        let marker = format!("{MARKER}7\n");
        assert_eq!(shown(vec![piece("out", true, true), piece(&marker, true, true)]), ("out".to_owned(), Some(7)));
        let (text, code) = shown(vec![piece(&marker, true, true), piece("more", true, true)]);
        assert_eq!((text, code), (format!("{marker}more"), None));
        // In pieces, as a relay may cut it.
        let (head, tail) = marker.split_at(10);
        assert_eq!(shown(vec![piece(head, true, false), piece(tail, false, true)]), (String::new(), Some(7)));
        assert_eq!(shown(vec![piece("F1E4", true, false), piece("xx", false, false), piece("yy", false, true)]).0, "F1E4xxyy");
        assert_eq!(shown(vec![piece("half of a ", true, false), piece(&marker, false, true)]).1, None);
    }
}
