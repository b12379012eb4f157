//! `logs` and `rack logs`: a stream of lines, passed through unchanged.

use std::borrow::Cow;

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
        tail: flags.tail,
        previous: flags.allow_previous.then_some(true),
        max_log_requests: flags.max_log_requests,
    }
}

pub(super) async fn app(ctx: &Ctx, args: Logs) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    let options = options(&args.flags);
    let socket = match args.service.as_deref().filter(|service| !service.is_empty()) {
        Some(service) => rack.client.service_logs(&app, service, &options).await?,
        None => rack.client.app_logs(&app, &options).await?,
    };
    show(&ctx.out, socket).await?;
    Ok(0)
}

/// How a message begins with which a server says that it refuses, or why it ends the stream. No line of a log looks like it: those begin with
/// a time.
const REFUSAL: &[u8] = b"ERROR: ";

/// Prints a log until its end. With `--json`, one object a line.
pub(super) async fn show(out: &Printer, socket: Socket) -> Result<(), Failure> {
    show_of(out, socket, Services::new(&[])).await
}

/// The same, of some services only.
pub(super) async fn show_of(out: &Printer, socket: Socket, mut services: Services) -> Result<(), Failure> {
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
                _ => print(out, &services.of(&piece.data), &mut rest)?,
            }
        }
        let Some(piece) = next? else { break };
        if piece.first && piece.last && piece.data.starts_with(REFUSAL) && rest.is_empty() {
            held = Some((piece, is_first));
        } else {
            print(out, &services.of(&piece.data), &mut rest)?;
        }
        is_first = false;
    }
    if out.is_json() && !rest.is_empty() {
        json_line(out, &rest)?;
    }
    Ok(())
}

/// Passes on the lines of some services, `TIME service/NAME/PROCESS MESSAGE`, and no others. A line is held back only until it has said whose it
/// is, so one without an end takes no memory.
pub(super) struct Services {
    /// `service/NAME/`; all lines pass where there is none.
    streams: Vec<String>,
    head: Vec<u8>,
    /// Of the line that is being read, once it is known.
    passes: Option<bool>,
}

impl Services {
    /// Longest beginning of a line in which its stream is looked for.
    const HEAD: usize = 1024;

    pub(super) fn new(names: &[String]) -> Self {
        Self { streams: names.iter().map(|name| format!("service/{name}/")).collect(), head: Vec::new(), passes: None }
    }

    fn of<'a>(&mut self, data: &'a [u8]) -> Cow<'a, [u8]> {
        if self.streams.is_empty() {
            return Cow::Borrowed(data);
        }
        let mut passed = Vec::new();
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            let is_end = part.ends_with(b"\n");
            match self.passes {
                Some(true) => passed.extend_from_slice(part),
                Some(false) => {}
                None => {
                    self.head.extend_from_slice(part);
                    let knows_stream = self.head.splitn(3, |byte| *byte == b' ').count() == 3;
                    if knows_stream || is_end || self.head.len() > Self::HEAD {
                        let head = std::mem::take(&mut self.head);
                        let stream = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
                        let is_wanted = self.streams.iter().any(|wanted| stream.starts_with(wanted.as_bytes()));
                        if is_wanted {
                            passed.extend_from_slice(&head);
                        }
                        self.passes = Some(is_wanted);
                    }
                }
            }
            if is_end {
                self.passes = None;
            }
        }
        Cow::Owned(passed)
    }
}

/// As it is, or whole lines of it as JSON.
fn print(out: &Printer, data: &[u8], rest: &mut Vec<u8>) -> Result<(), Failure> {
    if !out.is_json() {
        return if data.is_empty() { Ok(()) } else { out.raw(data) };
    }
    rest.extend_from_slice(data);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_named_services_pass_however_they_are_cut() {
        let log = "T1 service/web/web-1 a b\nT2 service/worker/w-1 c\nT3 system/app d\nT4 service/website/x e\nT5\nT6 service/web/web-2 \nT7 service/web/";
        let names = ["web".to_owned(), "worker".to_owned()];
        for size in 1..log.len() {
            let mut services = Services::new(&names);
            let passed: Vec<u8> = log.as_bytes().chunks(size).flat_map(|part| services.of(part).into_owned()).collect();
            let text = String::from_utf8(passed).unwrap();
            assert_eq!(text, "T1 service/web/web-1 a b\nT2 service/worker/w-1 c\nT6 service/web/web-2 \n", "{size}");
        }
        assert_eq!(Services::new(&[]).of(log.as_bytes()), log.as_bytes());
    }

    #[test]
    fn a_line_without_an_end_is_not_gathered() {
        let mut services = Services::new(&["web".to_owned()]);
        for _ in 0..1000 {
            assert!(services.of(&[b'x'; 4096]).is_empty());
        }
        assert!(services.head.capacity() < 64 * 1024);
        assert_eq!(services.of(b"\nT service/web/1 m\n").as_ref(), b"T service/web/1 m\n");
    }
}
