//! An upstream that keeps every request it was sent and answers from a script.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};

use crate::raw::{Message, Raw, soon};

/// A request, and the number of the connection that it came by.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) connection: usize,
    pub(crate) message: Message,
}

pub(crate) enum Answer {
    /// These bytes; the connection stays open.
    Keep(Vec<u8>),
    /// These bytes, then the end.
    Close(Vec<u8>),
}

pub(crate) struct Rack {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Rack {
    /// Answers each whole request.
    pub(crate) async fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::raw(move |connection, mut raw, seen| {
            let answer = Arc::clone(&answer);
            async move {
                while let Some(message) = raw.request().await {
                    let request = Seen { connection, message };
                    let reply = answer(&request);
                    seen.lock().unwrap().push(request);
                    match reply {
                        Answer::Keep(bytes) => raw.send(bytes).await,
                        Answer::Close(bytes) => return raw.send(bytes).await,
                    }
                }
            }
        })
        .await
    }

    /// Leaves each connection to `serve`, with its number and the list to note requests in.
    pub(crate) async fn raw<F>(serve: impl Fn(usize, Raw<TcpStream>, Arc<Mutex<Vec<Seen>>>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let (list, count) = (Arc::clone(&seen), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let number = count.fetch_add(1, SeqCst);
                tokio::spawn(serve(number, Raw::new(stream), Arc::clone(&list)));
            }
        });
        Self { address, seen, connections }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    pub(crate) async fn has_seen(&self, count: usize) {
        soon("a request at the upstream", async {
            while self.seen.lock().unwrap().len() < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// Answers every request with its own method, path and `Id`, and the connection's number.
pub(crate) fn echo(seen: &Seen) -> Answer {
    let body = format!("{} {}", seen.message.line, seen.message.header("id").unwrap_or("-"));
    let body = if seen.message.line.starts_with("HEAD") { String::new() } else { body };
    Answer::Keep(
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nId: {}\r\nConnection-Number: {}\r\n\r\n{body}",
            body.len(),
            seen.message.header("id").unwrap_or("-"),
            seen.connection
        )
        .into_bytes(),
    )
}
