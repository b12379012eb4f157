//! The promises of the product, kept by the real binaries over real sockets. Start at the file that names yours:
//!
//! - `canaries`: every kind of key, looked for where it must not be
//! - `certificates`: which one the router shows, and where they come from
//! - `commands`: every command of the CLI, through the Console and straight to the Rack
//! - `containers`: apps in containers of a real Podman
//! - `doctor`: what keeps commands from working
//! - `examples`: the apps in `examples/`, each deployed through the Console and asked whether it does what it shows
//! - `faults`: what a person is told when something is wrong
//! - `images`: built, pulled and imported, within bounds and with the logins of registries
//! - `moving`: the Console's database in a backup, out of it, and on another database
//! - `networks`: containers of a network of their own, on a real bridge
//! - `observed`: what a Rack says of itself, and to which trace it belongs
//! - `original_clients`: what the unmodified v2 and v3 clients send, and the answers that they expect
//! - `crash`: nothing that was confirmed is lost to `kill -9`
//! - `instances`: SSH keys of the Rack's hosts, on a real sshd
//! - `rack_keys`: passwords and tokens of Racks, rolled and revoked
//! - `resources`: databases and queues of apps
//! - `router`: apps by host name, by HTTP/1.1, HTTP/2 and WebSocket
//! - `second_factor`: an API key is not enough where an organization says so
//! - `transfers`: what is carried from one place to another: apps, files, Racks, connections
//! - `secrets`: where a Rack's password never appears
//! - `sign_in`: command lines that sign in by a browser

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set its stage has failed")]
#![expect(clippy::print_stdout, reason = "figures and seeds belong into the test's output")]

mod canaries;
mod certificates;
mod commands;
mod containers;
mod crash;
mod doctor;
mod examples;
mod faults;
mod images;
mod instances;
mod moving;
mod networks;
mod observed;
mod original_clients;
mod rack_keys;
mod resources;
mod router;
mod second_factor;
mod secrets;
mod sign_in;
mod transfers;

/// Both ways to a Rack, for promises that hold on either.
pub(crate) fn both_ways(stack: &convox_testkit::Stack) -> [(&'static str, convox_testkit::Cli); 2] {
    [("through the Console", stack.cli()), ("straight to the Rack", stack.direct())]
}

/// An address of this machine on which nobody listens yet.
pub(crate) fn free() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Options of a Rack that serves apps by name, at these addresses for HTTP and HTTPS.
pub(crate) fn by_name<'a>(http: &'a str, https: &'a str) -> [&'a str; 8] {
    ["--runtime", "process", "--domain", "apps.example.org", "--router-listen", http, "--router-tls-listen", https]
}

/// A folder with a copy of the example app `name`, so that a test may change it.
pub(crate) fn example(stack: &convox_testkit::Stack, name: &str) -> std::path::PathBuf {
    let copy = stack.dir().join(format!("source-{name}"));
    let from = convox_testkit::repository().join("examples").join(name);
    let copied = std::process::Command::new("cp").arg("-RT").args([&from, &copy]).status().unwrap();
    assert!(copied.success());
    copy
}

/// `GET /` of an app, as a browser on this machine would; `None` while nothing answers.
pub(crate) fn page(address: &str, path: &str) -> Option<String> {
    request(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")).filter(|reply| reply.contains("200 OK"))
}

/// The same with a body to be taken.
pub(crate) fn post(address: &str, path: &str, body: &str) -> Option<String> {
    request(address, &format!("POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

pub(crate) fn request(address: &str, text: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).ok()?;
    socket.write_all(text.as_bytes()).ok()?;
    let mut reply = String::new();
    socket.read_to_string(&mut reply).ok()?;
    Some(reply)
}
