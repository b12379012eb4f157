//! The address of this machine to which a browser brings a code, or the answer to a challenge. On loopback only, on a port and a path that
//! nobody can guess, for this one answer; and whatever else comes is refused and changes nothing: wrong host names (a page that had its own name resolve to this machine),
//! requests that a page made in the background, wrong states, answers after the first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use convox_client::Key;
use convox_wire::form::Params;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use crate::error::Failure;

/// More than a browser sends.
const LONGEST_HEAD: usize = 16 * 1024;
/// How long one request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at the same time.
const AT_ONCE: usize = 32;

/// What the browser must say, and where it is led.
struct Expected {
    port: u16,
    path: String,
    start: String,
    awaited: Awaited,
    /// Of the Console's page.
    url: OnceLock<String>,
    is_started: AtomicBool,
}

/// What is waited for.
#[derive(Clone, Debug)]
pub(crate) enum Awaited {
    /// `code` of a sign-in, with this `state`.
    Code(String),
    /// `data`: the answer to a session's challenge (protocol 3.6), which has no place for a state; the path stands for it.
    Data,
}

pub(crate) struct Callback {
    listener: TcpListener,
    expected: Arc<Expected>,
}

/// What a browser brought, and the browser itself, which waits for an answer.
pub(crate) enum Brought {
    Code(Key, Browser),
    Data(String, Browser),
    Denied(Browser),
}

/// A browser that waits.
pub(crate) struct Browser(TcpStream);

/// What a request amounts to.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// To the Console's page.
    Start,
    /// The start was used before: somebody else sees what is started here.
    StartedTwice,
    Code(Key),
    Data(String),
    Denied,
    Refused(u16, &'static str),
}

impl Callback {
    /// Listens on a port of loopback that the system chooses.
    pub(crate) async fn listen(path: &str, start: &str, awaited: Awaited) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| Failure::new(format!("could not listen on 127.0.0.1 for the browser's answer: {error}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(cannot)?;
        let port = listener.local_addr().map_err(cannot)?.port();
        let (path, start) = (path.to_owned(), start.to_owned());
        let expected = Expected { port, path, start, awaited, url: OnceLock::new(), is_started: AtomicBool::new(false) };
        Ok(Self { listener, expected: Arc::new(expected) })
    }

    /// Where the browser brings its answer.
    pub(crate) fn redirect_uri(&self) -> String {
        format!("http://127.0.0.1:{}/{}", self.expected.port, self.expected.path)
    }

    /// What the browser is started with: it leads on, once.
    pub(crate) fn start_uri(&self) -> String {
        format!("http://127.0.0.1:{}/{}", self.expected.port, self.expected.start)
    }

    /// Where to.
    pub(crate) fn leads_to(&self, url: &str) {
        let _ = self.expected.url.set(url.to_owned());
    }

    /// Waits for the one answer; nobody is listened to after it.
    pub(crate) async fn wait(&self) -> Result<Brought, Failure> {
        let (send, mut brought) = mpsc::channel(1);
        let places = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            tokio::select! {
                biased;
                Some(brought) = brought.recv() => return brought,
                accepted = self.listener.accept() => {
                    let Ok((stream, _)) = accepted else {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let (expected, send) = (Arc::clone(&self.expected), send.clone());
                    tokio::spawn(async move {
                        serve(stream, &expected, &send).await;
                        drop(place);
                    });
                }
            }
        }
    }
}

impl Expected {
    /// What a request's head amounts to. Nothing of it is believed that was not asked for.
    fn judge(&self, method: &str, target: &str, headers: &[httparse::Header<'_>]) -> Judged {
        let all = |name: &str| {
            headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value).collect::<Vec<_>>()
        };
        if all("host") != [format!("127.0.0.1:{}", self.port).as_bytes()] {
            return Judged::Refused(421, "This address is not served here.");
        }
        if method != "GET" {
            return Judged::Refused(405, "Only a page may be opened here.");
        }
        // What a page of another site does in the background; browsers that do not say so do not send these headers.
        let said = |name: &str| all(name).first().map(|value| String::from_utf8_lossy(value).into_owned());
        if said("sec-fetch-mode").is_some_and(|mode| mode != "navigate") || said("sec-fetch-dest").is_some_and(|dest| dest != "document") {
            return Judged::Refused(403, "Only a page may be opened here.");
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.strip_prefix('/').unwrap_or_default();
        if same(path, &self.start) {
            if said("sec-fetch-site").is_some_and(|site| site != "none") {
                return Judged::Refused(403, "This address is for the command line that made it.");
            }
            return if self.is_started.swap(true, Ordering::SeqCst) { Judged::StartedTwice } else { Judged::Start };
        }
        if !same(path, &self.path) {
            return Judged::Refused(404, "There is nothing here.");
        }
        let Ok(query) = Params::parse(query) else { return Judged::Refused(400, "This is not the answer that is waited for.") };
        let one = |name: &str| {
            let mut values = query.iter().filter(|(key, _)| *key == name).map(|(_, value)| value);
            values.next().filter(|_| values.next().is_none())
        };
        let Awaited::Code(state) = &self.awaited else {
            let data = one("data").filter(|data| !data.is_empty());
            return data.map_or(Judged::Refused(400, "This is not the answer that is waited for."), |data| Judged::Data(data.to_owned()));
        };
        if !one("state").is_some_and(|given| same(given, state)) {
            return Judged::Refused(400, "This is not the answer that is waited for.");
        }
        match (one("code"), one("error")) {
            (Some(code), None) if !code.is_empty() => Judged::Code(Key::new(code)),
            (None, Some(_)) => Judged::Denied,
            _ => Judged::Refused(400, "This is not the answer that is waited for."),
        }
    }
}

/// Whether two texts are equal, in a time that does not tell where they differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && !b.is_empty() && a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

async fn serve(mut stream: TcpStream, expected: &Expected, send: &mpsc::Sender<Result<Brought, Failure>>) {
    let Ok(Some(judged)) = tokio::time::timeout(PATIENCE, read(&mut stream, expected)).await else { return };
    let browser = Browser(stream);
    match judged {
        Judged::Start => browser.lead(expected.url.get().map(String::as_str).unwrap_or_default()).await,
        Judged::StartedTwice => {
            browser.say("This address was opened before. Nothing is signed in; run convox login again.").await;
            let failure = Failure::new("the address for the browser was opened twice: somebody else on this machine may be listening in")
                .hint("nothing was signed in; try again with --no-browser or --device");
            let _ = send.try_send(Err(failure));
        }
        // Of several at once, one is taken.
        Judged::Code(code) => drop(send.try_send(Ok(Brought::Code(code, browser)))),
        Judged::Data(data) => drop(send.try_send(Ok(Brought::Data(data, browser)))),
        Judged::Denied => drop(send.try_send(Ok(Brought::Denied(browser)))),
        Judged::Refused(status, words) => browser.answer(status, "", words).await,
    }
}

/// Reads one request's head; `None` when the other side goes away.
async fn read(stream: &mut TcpStream, expected: &Expected) -> Option<Judged> {
    let mut head = Vec::new();
    loop {
        let mut chunk = [0; 2048];
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        head.extend_from_slice(chunk.get(..count)?);
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
                return Some(expected.judge(method, target, request.headers));
            }
            Ok(httparse::Status::Partial) if head.len() < LONGEST_HEAD => {}
            Ok(httparse::Status::Partial) => return Some(Judged::Refused(431, "That is too long.")),
            Err(_) => return Some(Judged::Refused(400, "That is not HTTP.")),
        }
    }
}

impl Browser {
    /// Leads it to another page, so that what it brought is not what its history shows.
    pub(crate) async fn lead(self, url: &str) {
        self.answer(303, &format!("Location: {url}\r\n"), "").await;
    }

    /// Shows a line.
    pub(crate) async fn say(self, words: &str) {
        self.answer(200, "", words).await;
    }

    async fn answer(mut self, status: u16, more: &str, words: &str) {
        let body = if words.is_empty() {
            String::new()
        } else {
            format!(
                "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>convox</title></head><body><main><h1>convox</h1><p>{words}</p></main></body></html>\n"
            )
        };
        let head = format!(
            "HTTP/1.1 {status} convox\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n{more}Connection: close\r\n\
             Cache-Control: no-store\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\nX-Content-Type-Options: nosniff\r\n\
             Referrer-Policy: no-referrer\r\n\r\n",
            body.len()
        );
        let answer = async {
            let _ = self.0.write_all(head.as_bytes()).await;
            let _ = self.0.write_all(body.as_bytes()).await;
            let _ = self.0.shutdown().await;
        };
        let _ = tokio::time::timeout(PATIENCE, answer).await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expected() -> Expected {
        let text = str::to_owned;
        Expected {
            port: 4711,
            path: text("path"),
            start: text("start"),
            awaited: Awaited::Code(text("state")),
            url: OnceLock::new(),
            is_started: AtomicBool::new(false),
        }
    }

    fn judge(expected: &Expected, method: &str, target: &str, headers: &[(&str, &str)]) -> Judged {
        let headers: Vec<_> = headers.iter().map(|(name, value)| httparse::Header { name, value: value.as_bytes() }).collect();
        expected.judge(method, target, &headers)
    }

    const HOST: (&str, &str) = ("Host", "127.0.0.1:4711");

    #[test]
    fn the_answer_that_is_waited_for_is_taken() {
        let expected = expected();
        let navigation = [HOST, ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document"), ("Sec-Fetch-Site", "cross-site")];
        assert_eq!(judge(&expected, "GET", "/path?code=c&state=state", &navigation), Judged::Code(Key::new("c")));
        assert_eq!(judge(&expected, "GET", "/path?state=state&code=c", &[HOST]), Judged::Code(Key::new("c")));
        assert_eq!(judge(&expected, "GET", "/path?error=access_denied&state=state", &navigation), Judged::Denied);
        assert_eq!(judge(&expected, "GET", "/start", &[HOST, ("sec-fetch-site", "none")]), Judged::Start);
        assert_eq!(judge(&expected, "GET", "/start", &[HOST]), Judged::StartedTwice);
    }

    #[test]
    fn nothing_else_is() {
        let expected = expected();
        for (method, target, headers) in [
            ("GET", "/path?code=c&state=state", &[][..]),
            ("GET", "/path?code=c&state=state", &[("Host", "evil.example:4711")]),
            ("GET", "/path?code=c&state=state", &[("Host", "localhost:4711")]),
            ("GET", "/path?code=c&state=state", &[("Host", "127.0.0.1")]),
            ("GET", "/path?code=c&state=state", &[HOST, ("host", "evil.example")]),
            ("GET", "/path?code=c&state=state", &[HOST, ("Sec-Fetch-Mode", "cors")]),
            ("GET", "/path?code=c&state=state", &[HOST, ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "iframe")]),
            ("POST", "/path?code=c&state=state", &[HOST]),
            ("GET", "/path?code=c&state=stat", &[HOST]),
            ("GET", "/path?code=c&state=statx", &[HOST]),
            ("GET", "/path?code=c", &[HOST]),
            ("GET", "/path?code=c&state=state&state=state", &[HOST]),
            ("GET", "/path?code=c&code=d&state=state", &[HOST]),
            ("GET", "/path?code=&state=state", &[HOST]),
            ("GET", "/path?code=c&error=e&state=state", &[HOST]),
            ("GET", "/path", &[HOST]),
            ("GET", "/", &[HOST]),
            ("GET", "/pathx?code=c&state=state", &[HOST]),
            ("GET", "http://127.0.0.1:4711/path?code=c&state=state", &[HOST]),
            ("GET", "/start", &[HOST, ("Sec-Fetch-Site", "cross-site")]),
        ] {
            assert!(matches!(judge(&expected, method, target, headers), Judged::Refused(..)), "{method} {target} {headers:?}");
        }
        assert!(!expected.is_started.load(Ordering::SeqCst));
    }

    proptest! {
        #[test]
        fn no_request_panics_and_none_without_the_state_is_an_answer(target in ".*", value in ".*") {
            let judged = judge(&expected(), "GET", &target, &[HOST, ("x", &value)]);
            prop_assert!(matches!(judged, Judged::Refused(..)));
        }
    }
}
