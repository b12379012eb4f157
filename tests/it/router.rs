//! Apps by host name through the router of a Rack, as browsers reach them: each its own, by HTTP/1.1, HTTP/2 and WebSocket, and nothing sent twice that
//! may have been acted on.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use convox_testkit::{Cli, Stack, eventually};

use crate::{by_name, example, free};

const LONG: Duration = Duration::from_mins(1);

/// Takes every request, notes it, and answers none but those for `/health` and `/`.
const SILENT: &str = r#"
use IO::Socket::INET;
$| = 1; $SIG{PIPE} = 'IGNORE'; $SIG{CHLD} = 'IGNORE';
my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ENV{PORT}, Listen => 64, ReuseAddr => 1) or die "port: $!";
while (1) {
    my $c = $s->accept or next;
    if (fork) { close $c; next }
    while (my $line = <$c>) {
        my $length = 0;
        while (my $header = <$c>) { last if $header =~ /^\r?\n$/; $length = $1 if $header =~ /^content-length: (\d+)/i; }
        read($c, my $body, $length) if $length;
        if ($line =~ m{^GET /(health)? HTTP}) {
            print $c "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsilent";
            next;
        }
        print "seen $line";
        last;
    }
    exit;
}
"#;

fn deploy(cli: &Cli, app: &str, source: &Path) {
    cli.run(&["apps", "create", app]).ok();
    let said = cli.at(source).run(&["deploy", "-a", app, "--wait"]);
    assert_eq!(said.code, 0, "{app}: {}{}", said.stdout, said.stderr);
}

/// What curl makes of a page below a name, with what it says of the exchange.
fn curl(to: SocketAddr, url: &str, more: &[&str]) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (name, path) = rest.split_once('/').unwrap();
    let resolve = format!("{name}:{}:127.0.0.1", to.port());
    let url = format!("{scheme}://{name}:{}/{path}", to.port());
    let report = "\n%{http_code} HTTP/%{http_version}";
    let mut command = Command::new("curl");
    command.args(["--silent", "--insecure", "--noproxy", "*", "--max-time", "20", "--resolve", &resolve, "--write-out", report]);
    let output = command.args(more).arg(url).output().expect("bin/test installs curl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn apps_are_reached_by_their_names_in_every_way_that_browsers_know() {
    let (http, https) = (free(), free());
    let (by_http, by_https) = (http.to_string(), https.to_string());
    let options = by_name(&by_http, &by_https);
    let stack = Stack::start_rack_with(&options).unwrap();
    let cli = stack.cli();
    deploy(&cli, "hello", &example(&stack, "hello-web"));
    let chat = example(&stack, "chat");
    let manifest = std::fs::read_to_string(chat.join("convox.yml")).unwrap();
    std::fs::write(
        chat.join("convox.yml"),
        manifest.replace("    port: 3000\n", "    port: 3000\n    domain: chat.example.com\n    tls: {redirect: false}\n"),
    )
    .unwrap();
    deploy(&cli, "chat", &chat);

    // Each name its app, by HTTPS unless it says otherwise, in HTTP/1.1 and, where both ends speak it, HTTP/2.
    for (url, to, more, text, end) in [
        ("http://web.hello.apps.example.org/", http, &[][..], "use https", "308 HTTP/1.1"),
        ("http://WEB.Chat.apps.example.org/", http, &[][..], "<html", "200 HTTP/1.1"),
        ("https://web.hello.apps.example.org/", https, &["--http2"][..], "Hello from R", "200 HTTP/2"),
        ("https://web.hello.apps.example.org/", https, &["--http1.1"][..], "Hello from R", "200 HTTP/1.1"),
        ("https://chat.example.com/", https, &["--http2"][..], "<html", "200 HTTP/2"),
        ("https://web.chat.apps.example.org/", https, &["--http2"][..], "<html", "200 HTTP/2"),
        ("https://nobody.example.com/", https, &["--http2"][..], "no app is served under this name", "404 HTTP/2"),
    ] {
        let seen = eventually(LONG, || Some(curl(to, url, more)).filter(|reply| reply.contains(text) && reply.ends_with(end)));
        assert!(seen.is_some(), "{url} {more:?}: {}", curl(to, url, more));
    }

    // A name that another app has is not to be had, neither its own nor one below the Rack's.
    for (domain, owner) in [("chat.example.com", "chat"), ("web.hello.apps.example.org", "hello")] {
        let source = example(&stack, "static-site");
        let manifest = std::fs::read_to_string(source.join("convox.yml")).unwrap();
        assert!(manifest.contains("    port:"), "{manifest}");
        std::fs::write(source.join("convox.yml"), manifest.replacen("    port:", &format!("    domain: {domain}\n    port:"), 1)).unwrap();
        cli.run(&["apps", "create", "thief"]);
        let release = cli.at(&source).run(&["build", "-a", "thief", "--id"]).ok();
        let refused = cli.run(&["releases", "promote", release.trim(), "-a", "thief"]).err();
        assert!(refused.contains(&format!("the host name {domain} is served for app {owner}")), "{refused}");
    }
    assert!(curl(https, "https://chat.example.com/", &[]).contains("<html"));

    // A WebSocket.
    let mut socket = TcpStream::connect(http).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
        .write_all(b"GET /chat HTTP/1.1\r\nHost: chat.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .unwrap();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 101") && head.to_ascii_lowercase().contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    socket.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).unwrap();
    let mut frame = [0; 4];
    reader.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x81\x02hi");
}

#[test]
fn what_may_have_been_acted_on_is_not_sent_a_second_time() {
    let http = free();
    let options = ["--runtime", "process", "--domain", "apps.example.org", "--router-listen", &http.to_string()];
    let stack = Stack::start_rack_with(&options).unwrap();
    let cli = stack.cli();
    let source = stack.dir().join("silent");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("server.pl"), SILENT).unwrap();
    let manifest = "services:\n  web:\n    command: exec perl server.pl\n    port: 3000\n    health: {path: /health, interval: 60, grace: 5}\n    scale: 2\n";
    std::fs::write(source.join("convox.yml"), manifest).unwrap();
    deploy(&cli, "silent", &source);
    let url = |path: &str| format!("http://web.silent.apps.example.org/{path}");
    assert!(eventually(LONG, || curl(http, &url(""), &[]).starts_with("silent").then_some(())).is_some());
    // Connections to both processes are kept open now, and each is closed when something else comes over it.
    for _ in 0..4 {
        curl(http, &url(""), &[]);
    }
    for (method, path) in [("POST", "order"), ("PUT", "change"), ("DELETE", "thing"), ("PATCH", "part")] {
        let reply = curl(http, &url(path), &["--request", method, "--data", "one apple"]);
        assert!(reply.ends_with("502 HTTP/1.1"), "{method}: {reply}");
    }
    let seen = || cli.run(&["logs", "-a", "silent", "--no-follow", "--since", "10m"]).stdout;
    for line in ["POST /order", "PUT /change", "DELETE /thing", "PATCH /part"] {
        assert!(eventually(LONG, || seen().contains(line).then_some(())).is_some(), "{}", seen());
        assert_eq!(seen().matches(line).count(), 1, "{line} came more than once:\n{}", seen());
    }
}

/// Speaks TLS and nothing else, with a certificate that nobody signed and that is for another name: what `port: https:` is for.
const SECURED: &str = r"
const https = require('https'), fs = require('fs'), crypto = require('crypto');
const server = https.createServer({ cert: fs.readFileSync('cert.pem'), key: fs.readFileSync('key.pem') }, (request, response) => {
  let body = '';
  request.on('data', (piece) => (body += piece));
  request.on('end', () => {
    const { host, 'x-forwarded-proto': scheme } = request.headers;
    response.end(`${request.method} ${request.url} for ${host} by ${scheme}, in here by ${request.socket.getProtocol()}: ${body}`);
  });
});
server.on('upgrade', (request, socket) => {
  const accept = crypto.createHash('sha1').update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  socket.on('data', () => socket.write(Buffer.from([0x81, 2, 0x6f, 0x6b])));
  socket.on('error', () => {});
});
server.listen(process.env.PORT, '127.0.0.1');
";

#[test]
fn an_app_that_speaks_tls_itself_is_reached_by_its_name() {
    let (http, https) = (free(), free());
    let (by_http, by_https) = (http.to_string(), https.to_string());
    let options = by_name(&by_http, &by_https);
    let stack = Stack::start_rack_with(&options).unwrap();
    let cli = stack.cli();
    let source = stack.dir().join("secured");
    std::fs::create_dir(&source).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=somebody.example.com", "-keyout", "key.pem"])
        .args(["-out", "cert.pem"])
        .current_dir(&source)
        .output()
        .expect("bin/test installs openssl");
    assert!(made.status.success(), "{made:?}");
    std::fs::write(source.join("server.js"), SECURED).unwrap();
    let manifest = |port: &str, more: &str| {
        let service = format!("    command: exec node server.js\n    port: {port}\n    health: {{path: /, interval: 1, grace: 5}}\n{more}");
        std::fs::write(source.join("convox.yml"), format!("services:\n  web:\n{service}")).unwrap();
    };
    manifest("https:3000", "    tls: {redirect: false}\n");
    deploy(&cli, "secured", &source);

    let name = "web.secured.apps.example.org";
    for (scheme, to, more, version) in [
        ("https", https, "--http2", "200 HTTP/2"),
        ("https", https, "--http1.1", "200 HTTP/1.1"),
        ("http", http, "--http1.1", "200 HTTP/1.1"),
    ] {
        let url = format!("{scheme}://{name}/cart?of=1");
        let reply = eventually(LONG, || Some(curl(to, &url, &[more, "--data", "one apple"])).filter(|reply| reply.ends_with(version)));
        let reply = reply.unwrap_or_else(|| panic!("{url} {more}: {}", curl(to, &url, &[more])));
        let said = format!("POST /cart?of=1 for {name}:{} by {scheme}, in here by TLSv1.3: one apple", to.port());
        assert!(reply.starts_with(&said), "{reply}\n{said}");
    }

    // A WebSocket.
    let mut socket = TcpStream::connect(http).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let ask = format!(
        "GET / HTTP/1.1\r\nHost: {name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(ask.as_bytes()).unwrap();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    socket.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).unwrap();
    let mut frame = [0; 4];
    reader.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x81\x02ok");

    // What the router does not speak has no name to be reached by, and says so before anything is replaced.
    manifest("grpc:3000", "    domain: api.example.com\n");
    let refused = cli.at(&source).run(&["deploy", "-a", "secured", "--wait"]);
    let told = [refused.stdout.as_str(), refused.stderr.as_str()].concat();
    assert!(refused.code != 0 && told.contains("services.web.domain: not on this Rack") && told.contains("`internal: true`"), "{told}");
    manifest("grpc:3000", "");
    let noticed = cli.at(&source).run(&["build", "-a", "secured"]);
    let told = [noticed.stdout.as_str(), noticed.stderr.as_str()].concat();
    assert!(noticed.code == 0 && told.contains("NOTICE") && told.contains("port by host name"), "{told}");
    assert!(curl(https, &format!("https://{name}/"), &[]).contains("in here by TLSv1.3"));
}
