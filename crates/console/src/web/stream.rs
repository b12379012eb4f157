//! Pages that go on by themselves: lines of text as server-sent events, until there are no more or whoever looks may not look any more.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};

use convox_client::Socket;
use convox_proxy::{Permit as _, Reason};
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use tokio::sync::mpsc;

use crate::authz::Permit;
use crate::reach::streamed;

/// Without a line for so long, something is said that no page shows, so that nothing on the way takes the stream for dead.
const BREATH: Duration = Duration::from_secs(15);
/// A line is cut after so many bytes; a page is no place for more.
const LONGEST: usize = 16 * 1024;
/// For so long a browser may take to hear why it was the end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Where events are put; full when the browser does not read, and then the source waits.
pub(super) struct Events(mpsc::Sender<Bytes>);

impl Events {
    /// One line; false when nobody looks any more.
    pub(super) async fn line(&self, text: &str) -> bool {
        // A return would begin another field of the event.
        let text: String = text.chars().map(|c| if c == '\r' { ' ' } else { c }).collect();
        self.0.send(format!("data: {text}\n\n").into()).await.is_ok()
    }

    /// The end, with the reason.
    pub(super) async fn end(&self, reason: &str) {
        let reason = reason.replace(['\r', '\n'], " ");
        let _ = self.0.send(format!("event: end\ndata: {reason}\n\n").into()).await;
    }

    async fn breathe(&self) -> bool {
        self.0.send(Bytes::from_static(b": still here\n\n")).await.is_ok()
    }
}

/// An answer that `source` fills.
pub(super) fn events<F: Future<Output = ()> + Send + 'static>(source: impl FnOnce(Events) -> F) -> Response {
    let (sender, receiver) = mpsc::channel(32);
    tokio::spawn(source(Events(sender)));
    let body = stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|piece| (Ok::<_, std::io::Error>(piece), receiver)));
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(body)).into_response()
}

/// Where the pieces of a file are put.
pub(super) struct Pieces(mpsc::Sender<Result<Bytes, std::io::Error>>);

impl Pieces {
    /// A piece; false when nobody takes it any more.
    pub(super) async fn send(&self, text: String) -> bool {
        self.0.send(Ok(text.into())).await.is_ok()
    }

    /// Ends it so that whoever takes it sees that something is missing.
    pub(super) async fn fail(&self) {
        let _ = self.0.send(Err(std::io::Error::other("cut short"))).await;
    }
}

/// A file of that name that `source` fills.
pub(super) fn download<F: Future<Output = ()> + Send + 'static>(
    kind: &'static str,
    name: &str,
    source: impl FnOnce(Pieces) -> F,
) -> Response {
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(source(Pieces(sender)));
    let body = stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|piece| (piece, receiver)));
    // Names of organizations are letters, digits and dashes.
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(CONTENT_TYPE, kind.to_owned()), (CONTENT_DISPOSITION, disposition)], Body::from_stream(body)).into_response()
}

/// Does something that waits for the browser, unless the permit is revoked first: one that does not read keeps nothing open.
async fn unless<T>(revoked: &mut (impl Future<Output = Reason> + Unpin), done: impl Future<Output = T>) -> Result<T, Reason> {
    tokio::select! {
        biased;
        reason = revoked => Err(reason),
        done = done => Ok(done),
    }
}

/// Says why it ends, to whoever reads it.
async fn last_words(events: &Events, text: &str) {
    let _ = tokio::time::timeout(LAST_WORDS, events.end(text)).await;
}

/// The lines that a Rack sends on a socket. Ends with the socket, with the permit, or when nobody looks any more.
pub(super) async fn lines(permit: Permit, socket: Socket, events: Events) {
    let began = Instant::now();
    let (mut reader, writer) = socket.split();
    let mut revoked = permit.revoked();
    let mut rest: Vec<u8> = Vec::new();
    let mut is_cut = false;
    'open: loop {
        tokio::select! {
            biased;
            reason = &mut revoked => {
                last_words(&events, &reason.text).await;
                break;
            }
            () = tokio::time::sleep(BREATH) => {
                match unless(&mut revoked, events.breathe()).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(reason) => {
                        last_words(&events, &reason.text).await;
                        break;
                    }
                }
            }
            piece = reader.next() => match piece {
                Ok(Some(piece)) => {
                    let mut is_looked_at = true;
                    for part in piece.data.split_inclusive(|byte| *byte == b'\n') {
                        match part.split_last() {
                            Some((b'\n', start)) => {
                                if !is_cut {
                                    rest.extend_from_slice(start);
                                }
                                is_looked_at = match unless(&mut revoked, events.line(&String::from_utf8_lossy(&rest))).await {
                                    Ok(is_looked_at) => is_looked_at,
                                    Err(reason) => {
                                        last_words(&events, &reason.text).await;
                                        break 'open;
                                    }
                                };
                                rest.clear();
                                is_cut = false;
                            }
                            _ if is_cut => {}
                            _ => {
                                rest.extend_from_slice(part);
                                is_cut = rest.len() > LONGEST;
                                rest.truncate(LONGEST);
                            }
                        }
                    }
                    if !is_looked_at {
                        break;
                    }
                }
                Ok(None) => {
                    last_words(&events, "The log has ended").await;
                    break;
                }
                Err(error) => {
                    last_words(&events, &error.to_string()).await;
                    break;
                }
            },
        }
    }
    writer.close().await;
    permit.finished(streamed(began));
}
