//! The apps in `examples/`, in containers: deployed by the real command line through the real Console, all at once, and each asked whether it does
//! what it is there to show.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use convox_testkit::{Cli, Podman, Stack, eventually};

use crate::{example, page, post};

/// Longer than a minute: a timer may have just missed one.
const LONG: Duration = Duration::from_secs(100);
const BASE: &str = "docker.io/library/debian:stable-slim";
/// What the examples are made from. Nothing can be pulled here, so all are of this machine's programs. Redis runs in its container; there is no
/// server image of PostgreSQL, so its server is the machine's.
const OTHERS: &[&str] = &[
    "docker.io/library/busybox:stable",
    "docker.io/library/perl:5-slim",
    "docker.io/library/postgres:17-bookworm",
    "docker.io/library/redis:7",
];

fn address(cli: &Cli, app: &str, service: &str) -> String {
    let listing = cli.run(&["services", "-a", app, "--json"]).json();
    let found = listing.as_array().unwrap().iter().find(|found| found["name"] == service).unwrap();
    found["domain"].as_str().unwrap().to_owned()
}

fn log(cli: &Cli, app: &str) -> String {
    cli.run(&["logs", "-a", app, "--since", "30m", "--no-follow"]).stdout
}

/// A WebSocket of the chat, and what it hears.
fn chat(address: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(
        socket,
        "GET /chat HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(
        head.starts_with("HTTP/1.1 101") && head.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    socket
}

#[test]
fn every_example_is_deployed_through_the_console_and_does_what_it_shows() {
    let podman = Podman::start().unwrap();
    podman.base_image(BASE).unwrap();
    podman.also_known_as(BASE, OTHERS).unwrap();
    let stack = Stack::start_in(&podman).unwrap();
    let cli = stack.cli();
    let apps = ["static-site", "guestbook", "chat", "timer", "shop", "dockerfile-only"];
    std::thread::scope(|scope| {
        for app in apps {
            let (stack, cli) = (&stack, &cli);
            scope.spawn(move || {
                let source = example(stack, app);
                cli.run(&["apps", "create", app]).ok();
                let deployed = cli.at(&source).run(&["deploy", "-a", app, "--wait"]);
                assert_eq!(deployed.code, 0, "{app}: {}{}\n{}", deployed.stdout, deployed.stderr, log(cli, app));
            });
        }
    });

    let shows = |app: &str, service: &str, text: &str| {
        let address = address(&cli, app, service);
        let seen = eventually(LONG, || page(&address, "/").filter(|page| page.contains(text)));
        assert!(seen.is_some(), "{app}: {:?}\n{}", page(&address, "/"), log(&cli, app));
    };
    shows("static-site", "web", "<h1>A static site</h1>");
    shows("shop", "web", "12 apples left");
    shows("dockerfile-only", "web", "Hello from a Dockerfile");

    let book = address(&cli, "guestbook", "web");
    assert!(post(&book, "/", "somebody was here").unwrap().contains("thank you"));
    shows("guestbook", "web", "1: somebody was here");
    let kinds: Vec<String> = podman.run(&["ps", "--format", "{{.Image}}"]).unwrap().lines().map(str::to_owned).collect();
    assert!(kinds.iter().any(|image| image.ends_with("redis:7")), "{kinds:?}");
    let told = log(&cli, "guestbook");
    assert!(
        told.contains("starting docker.io/library/redis:7 in a container") && told.contains("of this machine; could not pull"),
        "{told}"
    );
    // In its container a console is the app's right; beside the containers it is not.
    let console = cli.terminal(&["resources", "console", "queue", "-a", "guestbook"], 30, 100, b"quit\r").unwrap();
    assert!(console.stdout.contains("127.0.0.1:") && console.code == 0, "{}", console.stdout);
    let refused = cli.terminal(&["resources", "console", "database", "-a", "guestbook"], 30, 100, b"").unwrap();
    assert!(refused.stdout.contains("resources proxy"), "{}", refused.stdout);

    let address = address(&cli, "chat", "web");
    let (mut one, mut other) = (chat(&address), chat(&address));
    one.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).unwrap();
    for socket in [&mut one, &mut other] {
        let mut frame = [0; 4];
        socket.read_exact(&mut frame).unwrap();
        assert_eq!(&frame, b"\x81\x02hi");
    }

    // A minute of it, and the log says when it ran; the other one is for the night.
    let ran =
        eventually(LONG, || Some(log(&cli, "timer")).filter(|log| log.contains("Nothing to report") && log.contains("exited with code 0")));
    let ran = ran.unwrap_or_else(|| panic!("the timer did not run: {}", log(&cli, "timer")));
    assert!(ran.contains("timer/report/") && ran.contains("timer report started process") && !ran.contains("cleanup at"), "{ran}");
    for app in apps {
        cli.run(&["apps", "delete", app]).ok();
    }
    let left = || podman.run(&["ps", "--all", "--format", "{{.Names}}"]).unwrap_or_default();
    assert!(eventually(LONG, || left().trim().is_empty().then_some(())).is_some(), "{}", left());
}
