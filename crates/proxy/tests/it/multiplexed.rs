//! HTTP/2 towards callers: many requests at a time on one connection, each decided, bounded and revoked on its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convox_proxy::{Limits, Nothing, TlsServer, tls_server};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::gate::{Proxy, upstream};
use crate::rack::{Answer, Rack};
use crate::raw::soon;

type AnyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

async fn proxy(rack: &Rack, limits: Limits) -> (Proxy, Arc<rustls::ClientConfig>) {
    let (cert, key) = tls_server::generate(&["127.0.0.1"]).unwrap();
    let tls = TlsServer::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    let mut config = (*convox_tls::client_config(&convox_tls::Trust::Pinned(tls.fingerprint())).unwrap()).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (Proxy::with(upstream(rack.address), limits, Some(tls), Nothing, 1).await, Arc::new(config))
}

async fn stream(proxy: &Proxy, config: &Arc<rustls::ClientConfig>) -> tokio_rustls::client::TlsStream<TcpStream> {
    let tcp = TcpStream::connect(proxy.address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, tcp).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "HTTP/2 is offered");
    stream
}

/// One connection; the task that drives it ends with it.
async fn connect(proxy: &Proxy, config: &Arc<rustls::ClientConfig>) -> (SendRequest<AnyBody>, tokio::task::JoinHandle<()>) {
    let stream = TokioIo::new(stream(proxy, config).await);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

fn request(method: &str, path: &str, name: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("https://console{path}")).header("authorization", format!("Bearer {name}"))
}

fn whole(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Answers with the path and the length of the body that it was sent.
async fn echo() -> Rack {
    Rack::start(|seen| {
        let body = format!("{} {}", seen.message.line.split(' ').nth(1).unwrap(), seen.message.body.len());
        Answer::Keep(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_a_time_get_their_own_answers() {
    let rack = echo().await;
    let (proxy, config) = proxy(&rack, Limits::default()).await;
    let (sender, _task) = connect(&proxy, &config).await;
    let asked = (0..100).map(|number| {
        let mut sender = sender.clone();
        async move {
            let path = format!("/apps/{number}");
            let body = "x".repeat(number * 1000);
            let length = body.len();
            let answer = sender.send_request(request("POST", &path, "alice").body(whole(body)).unwrap()).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(text(answer).await, format!("{path} {length}"));
        }
    });
    soon("a hundred answers", futures_util::future::join_all(asked)).await;
    let seen = rack.seen();
    assert_eq!(seen.len(), 100);
    for one in &seen {
        assert!(one.message.line.starts_with("POST /apps/") && one.message.line.ends_with(" HTTP/1.1"), "{}", one.message.line);
        assert_eq!(one.message.all("host"), [rack.address.to_string()]);
        assert_eq!(one.message.all("convox-actor"), ["alice"]);
        assert_eq!(one.message.all("authorization"), [crate::gate::CREDENTIAL]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_unknown_length_goes_up_as_it_comes() {
    let rack = echo().await;
    let (proxy, config) = proxy(&rack, Limits::default()).await;
    let (mut sender, _task) = connect(&proxy, &config).await;
    let pieces = futures_util::stream::iter((0..40).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![7; 50_000])))));
    let body = StreamBody::new(pieces).boxed_unsync();
    let answer = soon("the answer", sender.send_request(request("PUT", "/up", "alice").body(body).unwrap())).await.unwrap();
    assert_eq!(text(answer).await, "/up 2000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_given_up_never_looks_whole_to_the_upstream() {
    for reason in [h2::Reason::NO_ERROR, h2::Reason::CANCEL] {
        let (say, mut said) = tokio::sync::mpsc::channel(2);
        let rack = Rack::raw(move |_, mut raw, _| {
            let say = say.clone();
            async move {
                raw.head().await;
                let _ = say.send(raw.exactly(9).await.unwrap_or_default()).await;
                let _ = say.send(raw.rest().await).await;
            }
        })
        .await;
        let (proxy, config) = proxy(&rack, Limits::default()).await;
        let (mut sender, connection) = h2::client::handshake(stream(&proxy, &config).await).await.unwrap();
        let task = tokio::spawn(connection);
        let (_answer, mut body) = sender.send_request(request("PUT", "/up", "alice").body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(b"half"), false).unwrap();
        assert_eq!(soon("half of the body", said.recv()).await.unwrap(), b"4\r\nhalf\r\n");
        body.send_reset(reason);
        assert_eq!(soon("the end", said.recv()).await.unwrap(), b"", "{reason:?}: the connection ends, and not the body");
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_and_what_is_ambiguous_never_gets_through() {
    let rack = echo().await;
    let (proxy, config) = proxy(&rack, Limits::default()).await;
    let (mut sender, _task) = connect(&proxy, &config).await;
    let answer = sender.send_request(request("GET", "/apps", "mallory").body(whole("")).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 401);
    for (name, value) in [("host", "elsewhere"), ("x_convox_actor", "root")] {
        let answer = sender.send_request(request("GET", "/apps", "alice").header(name, value).body(whole("")).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 400, "{name}");
    }
    let tunnel = Request::builder().method("CONNECT").uri("rack:443").header("authorization", "Bearer alice").body(whole("")).unwrap();
    let answer = sender.send_request(tunnel).await;
    assert!(answer.map_or(true, |answer| answer.status() == 400));
    assert!(rack.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_permit_ends_its_stream_and_no_other() {
    let rack = Rack::start(|_| Answer::Keep(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec())).await;
    let (proxy, config) = proxy(&rack, Limits::default()).await;
    let (mut sender, _task) = connect(&proxy, &config).await;
    let mut open = Vec::new();
    for name in ["alice", "bob"] {
        let mut answer = sender.send_request(request("GET", "/logs", name).body(whole("")).unwrap()).await.unwrap();
        let first = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&first[..], b"hello");
        open.push(answer);
    }
    proxy.state.revoke("alice");
    let mut bobs = open.pop().unwrap();
    let mut alices = open.pop().unwrap();
    let end = soon("the end of the stream", alices.body_mut().frame()).await;
    assert!(end.is_some_and(|frame| frame.is_err()), "cut, not ended as if it were whole");
    let quiet = tokio::time::timeout(Duration::from_millis(600), bobs.body_mut().frame()).await;
    assert!(quiet.is_err(), "another's stream goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_lets_open_streams_finish() {
    let rack = Rack::raw(|_, mut raw, _| async move {
        raw.request().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
        raw.rest().await;
    })
    .await;
    let (proxy, config) = proxy(&rack, Limits::default()).await;
    let (mut sender, task) = connect(&proxy, &config).await;
    let answer = tokio::spawn(sender.send_request(request("GET", "/slow", "alice").body(whole("")).unwrap()));
    soon("the request at the gate", async {
        while proxy.state.allowed.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    proxy.stop();
    assert_eq!(text(answer.await.unwrap().unwrap()).await, "done");
    soon("the end of the connection", task).await.unwrap();
    proxy.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_told_to_go_and_a_caller_who_owes_a_body_is_cut() {
    let rack = echo().await;
    let limits = Limits { idle: Duration::from_millis(500), body: Duration::from_millis(500), ..Limits::default() };
    let (proxy, config) = proxy(&rack, limits).await;
    let (_sender, task) = connect(&proxy, &config).await;
    soon("the end of the idle connection", task).await.unwrap();

    let (mut sender, _task) = connect(&proxy, &config).await;
    let body = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, std::io::Error>>()).boxed_unsync();
    let answer = soon("the end of the stream", sender.send_request(request("PUT", "/up", "alice").body(body).unwrap())).await;
    assert!(answer.is_err(), "its stream is reset");
}
