//! `logs` and `rack logs`: a stream of lines, passed through unchanged.

use convox_client::{Piece, Socket};
use convox_wire::options::LogOptions;

use crate::Ctx;
use crate::args::{LogFlags, Logs};
use crate::error::Failure;
use crate::output::Printer;

/// What the flags ask for; lines come with time and stream, as the originals print them.
pub(super) fn options(flags: &LogFlags) -> LogOptions {
    LogOptions {
        filter: flags.filter.clone(),
        follow: flags.no_follow.then_some(false),
        prefix: Some(true),
        since: flags.since,
        ..LogOptions::default()
    }
}

pub(super) async fn app(ctx: &Ctx, args: Logs) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    let socket = rack.client.app_logs(&app, &options(&args.flags)).await?;
    show(&ctx.out, socket).await?;
    Ok(0)
}

/// How a message begins with which a server says that it refuses, or why it ends the stream. No line of a log looks like it: those begin with
/// a time.
const REFUSAL: &[u8] = b"ERROR: ";

/// Prints a log until its end. With `--json`, one object a line.
pub(super) async fn show(out: &Printer, socket: Socket) -> Result<(), Failure> {
    let (mut reader, _writer) = socket.split();
    let mut rest: Vec<u8> = Vec::new();
    let mut is_first = true;
    // A message that may be a server's last words, and whether it was the first one too.
    let mut held: Option<(Piece, bool)> = None;
    loop {
        let next = reader.next().await;
        if let Some((piece, was_first)) = held.take() {
            let words = String::from_utf8_lossy(piece.data.strip_prefix(REFUSAL).unwrap_or_default()).trim().to_owned();
            match &next {
                // Refused after the upgrade.
                Ok(None) if was_first => return Err(Failure::new(words)),
                // Closed with a reason that says the same.
                Err(error) if error.to_string().contains(&words) => {}
                _ => print(out, &piece, &mut rest)?,
            }
        }
        let Some(piece) = next? else { break };
        if piece.first && piece.last && piece.data.starts_with(REFUSAL) && rest.is_empty() {
            held = Some((piece, is_first));
        } else {
            print(out, &piece, &mut rest)?;
        }
        is_first = false;
    }
    if out.is_json() && !rest.is_empty() {
        json_line(out, &rest)?;
    }
    Ok(())
}

/// As it is, or whole lines of it as JSON.
fn print(out: &Printer, piece: &Piece, rest: &mut Vec<u8>) -> Result<(), Failure> {
    if !out.is_json() {
        return out.raw(&piece.data);
    }
    rest.extend_from_slice(&piece.data);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = rest.drain(..=end).collect();
        json_line(out, &line)?;
    }
    Ok(())
}

/// `{"time", "stream", "message"}`
fn json_line(out: &Printer, line: &[u8]) -> Result<(), Failure> {
    let line = String::from_utf8_lossy(line);
    let mut parts = line.trim_end_matches(['\n', '\r']).splitn(3, ' ');
    let (time, stream, message) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let value = serde_json::json!({"time": time, "stream": stream, "message": message});
    out.raw(format!("{value}\n").as_bytes())
}

/// Copies a log as it is; gives the number of bytes.
pub(super) async fn copy(out: &Printer, socket: Socket) -> Result<u64, Failure> {
    let (mut reader, _writer) = socket.split();
    let mut count = 0;
    while let Some(piece) = reader.next().await? {
        out.progress_raw(&piece.data)?;
        count += piece.data.len() as u64;
    }
    Ok(count)
}
