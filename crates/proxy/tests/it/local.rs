//! Applications on the ordinary runtime, upgrades included.

use std::net::SocketAddr;

use convox_proxy::{Body, Limits, Local, Nothing, Server};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::gate::{Proxy, request, upstream};
use crate::raw::{Raw, once};

#[derive(Clone)]
struct App;

impl Local for App {
    async fn call(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        assert_eq!(tokio::runtime::Handle::current().runtime_flavor(), tokio::runtime::RuntimeFlavor::MultiThread);
        match request.uri().path() {
            "/local/panic" => panic!("as asked"),
            "/local/upgrade" => {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut io = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
                    let mut bytes = [0; 5];
                    io.read_exact(&mut bytes).await.unwrap();
                    bytes.reverse();
                    io.write_all(&bytes).await.unwrap();
                    io.shutdown().await.unwrap();
                });
                Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket").body(Body::empty()).unwrap()
            }
            path => {
                let path = path.to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Response::new(Body::from(format!("{path} {} {}", peer.ip(), body.len())))
            }
        }
    }
}

async fn behind_a_gate() -> Proxy {
    let nobody = "127.0.0.1:1".parse().unwrap();
    Proxy::with(upstream(nobody), Limits::default(), None, App, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gate_leaves_to_the_application_is_answered_by_it() {
    let proxy = behind_a_gate().await;
    let mut raw = Raw::connect(proxy.address).await;
    for size in [0, 5, 1_000_000] {
        raw.send(request("POST", "/local/x", "nobody", &format!("Content-Length: {size}\r\n")) + &"x".repeat(size)).await;
        assert_eq!(raw.reply().await.unwrap().text(), format!("/local/x 127.0.0.1 {size}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_have_an_application_only() {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), 2, None).unwrap();
    let address = server.local_addr();
    let running = tokio::spawn(server.run_local(App, std::future::pending()));
    for _ in 0..10 {
        assert_eq!(once(address, request("GET", "/anything", "nobody", "")).await.text(), "/anything 127.0.0.1 0");
    }
    running.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_may_upgrade() {
    let proxy = behind_a_gate().await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/local/upgrade", "nobody", "Connection: upgrade\r\nUpgrade: websocket\r\n") + "hello").await;
    assert_eq!(raw.reply().await.unwrap().status(), 101);
    assert_eq!(raw.rest().await, b"olleh");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_application_harms_one_request() {
    let proxy = behind_a_gate().await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/local/panic", "nobody", "")).await;
    assert_eq!(raw.reply().await.unwrap().status(), 500);
    raw.send(request("GET", "/local/x", "nobody", "")).await;
    assert_eq!(raw.reply().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_application_nothing_is_found() {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), 1, None).unwrap();
    let address = server.local_addr();
    let running = tokio::spawn(server.run_local(Nothing, std::future::pending()));
    assert_eq!(once(address, request("GET", "/", "nobody", "")).await.status(), 404);
    running.abort();
}

#[tokio::test]
async fn an_address_in_use_is_reported_even_with_shards() {
    let first = Server::bind("127.0.0.1:0".parse().unwrap(), 2, None).unwrap();
    let second = Server::bind(first.local_addr(), 2, None);
    assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}
