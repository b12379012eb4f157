//! Command lines that sign in by a browser: the real ones, against a real Console, with a browser that the test plays by hand so that it can
//! also send what no browser would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use convox_testkit::go::{Reply, connect, form, read_reply};
use convox_testkit::{Cli, Server, Stack, binary};
use serde_json::Value;

const PASSWORD: &str = "tall-vexed-otter-19";

/// A browser of somebody who is signed in to the Console's pages.
struct Web<'a> {
    console: &'a Server,
    cookie: String,
}

impl<'a> Web<'a> {
    /// Chooses a password by a link of the administrator, which signs in.
    fn sign_in(stack: &'a Stack, email: &str) -> Self {
        let mut web = Self { console: &stack.console, cookie: String::new() };
        let link = stack.admin(&["user", "reset-link", email, "--url", "https://x"]).unwrap();
        let code = link["link"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
        let reply = web.post("/console/reset/finish", &[("code", &code), ("email", email), ("password", PASSWORD)]);
        assert_eq!(reply.status, 303, "{}", reply.text());
        reply.header("set-cookie").unwrap().split(';').next().unwrap().clone_into(&mut web.cookie);
        web
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Reply {
        let host = &self.console.host;
        let kind = if body.is_empty() { "" } else { "Content-Type: application/x-www-form-urlencoded\r\n" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {}\r\nOrigin: https://{host}\r\n{kind}Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.cookie,
            body.len()
        );
        let mut stream = connect(host, &self.console.fingerprint).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        stream.flush().unwrap();
        read_reply(&mut stream, false).unwrap()
    }

    fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "")
    }

    fn post(&self, path: &str, pairs: &[(&str, &str)]) -> Reply {
        self.send("POST", path, &form(pairs))
    }

    /// Opens the page that a command line asked for and gives the answer that its form gets: where the browser is led.
    fn decide(&self, url: &str, decision: &str) -> String {
        let path = url.strip_prefix(&format!("https://{}", self.console.host)).unwrap();
        let page = self.get(path);
        assert_eq!(page.status, 200, "{}", page.text());
        let mut fields = hidden(&page.text());
        fields.push(("days".to_owned(), "90".to_owned()));
        fields.push(("decision".to_owned(), decision.to_owned()));
        let pairs: Vec<(&str, &str)> = fields.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let reply = self.post("/console/authorize", &pairs);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let text = reply.text();
        plain(text.split_once("content=\"0;url=").unwrap().1.split_once('"').unwrap().0)
    }

    /// Types a device's code and decides.
    fn type_code(&self, code: &str, decision: &str) -> Reply {
        let page = self.post("/console/device", &[("code", code)]);
        assert_eq!(page.status, 200, "{}", page.text());
        let mut fields = hidden(&page.text());
        fields.push(("days".to_owned(), "7".to_owned()));
        fields.push(("decision".to_owned(), decision.to_owned()));
        let pairs: Vec<(&str, &str)> = fields.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        self.post("/console/device/decide", &pairs)
    }
}

fn plain(html: &str) -> String {
    html.replace("&#38;", "&").replace("&amp;", "&").replace("&#61;", "=")
}

/// Name and value of each hidden field.
pub(crate) fn hidden(html: &str) -> Vec<(String, String)> {
    html.split("<input type=\"hidden\" name=\"")
        .skip(1)
        .map(|rest| {
            let (name, rest) = rest.split_once("\" value=\"").unwrap();
            (name.to_owned(), plain(rest.split_once('"').unwrap().0))
        })
        .collect()
}

/// A `convox login` that waits for somebody.
struct Login {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: String,
}

impl Login {
    fn start(stack: &Stack, cli: &Cli, args: &[&str]) -> Self {
        Self::at(&stack.console, cli, args)
    }

    fn at(console: &Server, cli: &Cli, args: &[&str]) -> Self {
        let fingerprint = console.fingerprint.to_string();
        let mut words = vec!["login", console.host.as_str(), "--fingerprint", &fingerprint];
        words.extend_from_slice(args);
        let mut command = cli.command(&words);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Self { child, lines, said: String::new() }
    }

    /// The next line that it says after two spaces: an address or a code.
    #[track_caller]
    fn shows(&mut self) -> String {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push_str(&line);
                    self.said.push('\n');
                    if let Some(shown) = line.strip_prefix("  ") {
                        return shown.to_owned();
                    }
                }
                Err(error) => panic!("nothing was shown ({error}): {}", self.said),
            }
        }
    }

    /// Exit code, and all that it said.
    fn end(mut self) -> (i32, String) {
        let status = convox_testkit::eventually(Duration::from_secs(40), || self.child.try_wait().unwrap());
        if status.is_none() {
            let _ = self.child.kill();
        }
        let code = self.child.wait().unwrap().code().unwrap_or(255);
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.said.extend(self.lines.iter().map(|line| line + "\n"));
        (code, stdout + &self.said)
    }

    #[track_caller]
    fn succeeds(self) -> String {
        let (code, said) = self.end();
        assert_eq!(code, 0, "{said}");
        said
    }

    #[track_caller]
    fn fails(self) -> String {
        let (code, said) = self.end();
        assert_eq!(code, 1, "{said}");
        said
    }
}

/// One plain request to an address of this machine: its whole answer.
fn local(port: &str, target: &str, host: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Port and target of `http://127.0.0.1:PORT/...`.
fn parts(to: &str) -> (String, String) {
    let (port, target) = to.strip_prefix("http://127.0.0.1:").unwrap().split_once('/').unwrap();
    (port.to_owned(), format!("/{target}"))
}

/// The browser goes where it is led.
fn follow(to: &str) -> String {
    let (port, target) = parts(to);
    local(&port, &target, &format!("127.0.0.1:{port}")).unwrap()
}

/// A form to the Console's token endpoint, by nobody in particular.
fn ask(console: &Server, path: &str, pairs: &[(&str, &str)]) -> Reply {
    let web = Web { console, cookie: String::new() };
    web.post(path, pairs)
}

fn error(reply: &Reply) -> String {
    assert!(reply.header("cache-control").is_some_and(|value| value.contains("no-store")));
    reply.json()["error"].as_str().unwrap_or_default().to_owned()
}

fn keys(stack: &Stack, email: &str) -> Vec<Value> {
    stack.admin(&["key", "list", "--email", email]).unwrap().as_array().unwrap().clone()
}

#[test]
fn a_browser_signs_a_command_line_in_and_its_key_ends_with_the_logout() {
    let stack = Stack::start().unwrap();
    let (web, cli) = (Web::sign_in(&stack, "admin@example.com"), stack.person());
    let mut login = Login::start(&stack, &cli, &["--no-browser"]);
    let url = login.shows();
    let answer = follow(&web.decide(&url, "approve"));
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    assert!(answer.contains(&format!("Location: https://{}/console/authorize/done\r\n", stack.console.host)), "{answer}");
    let said = login.succeeds();
    assert!(said.contains("Logged in as admin@example.com"), "{said}");
    assert!(!said.contains("cxu_"), "nobody sees the key: {said}");

    let who = cli.run(&["whoami", "--json"]).json();
    let name = who["key_name"].as_str().unwrap().to_owned();
    let made = keys(&stack, "admin@example.com").into_iter().find(|key| key["name"] == name.as_str()).unwrap();
    assert_eq!(made["kind"], "user");
    assert_eq!(made["expires"], who["expires"], "the same end, in both places");
    let days = |time: &Value| time.as_str().unwrap().get(..10).unwrap().to_owned();
    assert_ne!(days(&made["expires"]), days(&made["created"]));
    cli.run(&["switch", "acme/main"]).ok();
    cli.run(&["apps"]).ok();

    // Again: the key of before is replaced, not piled up.
    let mut again = Login::start(&stack, &cli, &["--no-browser"]);
    let url = again.shows();
    follow(&web.decide(&url, "approve"));
    again.succeeds();
    let names: Vec<String> = keys(&stack, "admin@example.com").iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect();
    assert!(!names.contains(&name), "{names:?}");
    let auth: Value = serde_json::from_slice(&std::fs::read(cli.config.join("auth")).unwrap()).unwrap();
    let key = auth[&stack.console.host].as_str().unwrap().to_owned();

    cli.run(&["logout"]).ok();
    assert_eq!(keys(&stack, "admin@example.com").len(), names.len() - 1, "ended at the Console too");
    let said = cli.run(&["login", &stack.console.host, "--password", &key]).err();
    assert!(said.contains("401"), "{said}");

    // Both ends are in the log, and neither has the code or the key.
    let events = stack.admin(&["audit", "list", "--limit", "100"]).unwrap();
    let of = |action: &str| events.as_array().unwrap().iter().find(|event| event["action"] == action).cloned().unwrap_or_default();
    assert_eq!(of("AuthorizationApprove")["actor"], "admin@example.com");
    assert_eq!(of("KeyCreate")["rule"], "authorization-code");
    assert!(!events.to_string().contains("cxa_") && !events.to_string().contains(&key));
}

/// At a terminal with a browser: what `convox login` printed, after Enter was pressed and `browse` did what its person does.
fn at_a_terminal(stack: &Stack, browse: impl FnOnce(&str)) -> (i32, String) {
    use std::os::unix::fs::PermissionsExt as _;
    let browser = stack.dir().join("browser");
    let opened = stack.dir().join("opened");
    let _ = std::fs::remove_file(&opened);
    // What a list of processes would show of it.
    std::fs::write(&browser, format!("#!/bin/sh\necho \"$@\" > {0}.part && mv {0}.part {0}\n", opened.display())).unwrap();
    std::fs::set_permissions(&browser, std::fs::Permissions::from_mode(0o755)).unwrap();
    let cli = stack.person().with("BROWSER", browser.to_str().unwrap());
    let (host, fingerprint) = (stack.console.host.clone(), stack.console.fingerprint.to_string());
    let running = std::thread::spawn(move || cli.terminal(&["login", &host, "--fingerprint", &fingerprint], 24, 100, b"\r").unwrap());
    let start =
        convox_testkit::eventually(Duration::from_secs(30), || std::fs::read_to_string(&opened).ok()).expect("the browser is opened");
    browse(start.trim());
    let ran = running.join().unwrap();
    (ran.code, ran.stdout)
}

#[test]
fn enter_opens_the_browser_with_an_address_that_tells_nothing_and_is_good_once() {
    let stack = Stack::start().unwrap();
    let web = Web::sign_in(&stack, "admin@example.com");
    let (code, said) = at_a_terminal(&stack, |start| {
        assert!(!start.contains("state") && !start.contains("challenge"), "{start}");
        let led = follow(start);
        let url = led.split("Location: ").nth(1).unwrap().lines().next().unwrap().to_owned();
        follow(&web.decide(&url, "approve"));
    });
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("Press Enter to sign in with your browser, or paste an API key: ") && said.contains("OK"), "{said}");
    let (code, said) = at_a_terminal(&stack, |start| {
        follow(start);
        assert!(follow(start).contains("opened before"));
    });
    assert_eq!(code, 1);
    assert!(said.contains("somebody else on this machine may be listening in"), "{said}");
}

#[test]
fn nothing_but_the_one_answer_gets_through_the_callback() {
    let stack = Stack::start().unwrap();
    let (web, cli) = (Web::sign_in(&stack, "admin@example.com"), stack.person());
    let mut login = Login::start(&stack, &cli, &["--no-browser"]);
    let url = login.shows();
    let to = web.decide(&url, "approve");
    let (port, target) = parts(&to);
    let here = format!("127.0.0.1:{port}");
    let (path, query) = target.split_once('?').unwrap();
    let state = query.split('&').find_map(|pair| pair.strip_prefix("state=")).unwrap();
    let wrong_state = target.replace(state, &"A".repeat(state.len()));
    let denied = format!("{path}?error=access_denied&state={}", "A".repeat(state.len()));
    for (target, host) in [
        (wrong_state.as_str(), here.as_str()),
        (&denied, &here),
        (path, &here),
        ("/", &here),
        ("/callback?code=x&state=x", &here),
        // A page whose name was made to resolve to this machine.
        (&target, "evil.example"),
        (&target, &format!("evil.example:{port}")),
        (&target, &format!("localhost:{port}")),
    ] {
        let answer = local(&port, target, host).unwrap();
        assert!(answer.starts_with("HTTP/1.1 4"), "{target} for {host}: {answer}");
    }
    // Peers on the network do not reach it at all: it listens on one address of loopback.
    assert!(TcpStream::connect(format!("127.0.0.2:{port}")).is_err());
    assert!(login.child.try_wait().unwrap().is_none(), "it still waits for the right one");
    assert!(local(&port, &target, &here).unwrap().starts_with("HTTP/1.1 303"));
    login.succeeds();
    assert!(local(&port, &target, &here).is_err(), "nobody is listened to after that");
}

#[test]
fn a_code_is_worth_nothing_to_who_did_not_ask_for_it() {
    let stack = Stack::start().unwrap();
    let web = Web::sign_in(&stack, "admin@example.com");
    let before = keys(&stack, "admin@example.com").len();
    // RFC 7636, appendix B.
    let (verifier, challenge) = ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    let url = |uri: &str, method: &str| {
        let query = form(&[
            ("response_type", "code"),
            ("client_id", "convox-cli"),
            ("redirect_uri", uri),
            ("state", "s"),
            ("code_challenge", challenge),
            ("code_challenge_method", method),
            ("device_name", "laptop"),
        ]);
        format!("https://{}/console/authorize?{query}", stack.console.host)
    };
    let uri = "http://127.0.0.1:4711/x";
    let code = || {
        let to = web.decide(&url(uri, "S256"), "approve");
        to.split(['?', '&']).find_map(|pair| pair.strip_prefix("code=")).unwrap().to_owned()
    };
    let exchange = |code: &str, uri: &str, verifier: &str, client: &str| {
        let pairs = [
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", code),
            ("redirect_uri", uri),
            ("code_verifier", verifier),
        ];
        ask(&stack.console, "/api/v1/oauth/token", &pairs)
    };
    for (its_uri, its_verifier) in [(uri, "x".repeat(43)), ("http://127.0.0.1:4712/x", verifier.to_owned()), (uri, challenge.to_owned())] {
        let code = code();
        assert_eq!(error(&exchange(&code, its_uri, &its_verifier, "convox-cli")), "invalid_grant");
        assert_eq!(error(&exchange(&code, uri, verifier, "convox-cli")), "invalid_grant", "and it is used up");
    }
    let good = code();
    assert_eq!(error(&exchange(&good, uri, verifier, "somebody")), "invalid_client");
    assert_eq!(error(&exchange(&good, uri, "", "convox-cli")), "invalid_request");
    // Many at once: one key.
    let wins: usize = std::thread::scope(|scope| {
        let racers: Vec<_> =
            (0..6).map(|_| scope.spawn(|| usize::from(exchange(&good, uri, verifier, "convox-cli").status == 200))).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert_eq!(wins, 1);
    assert_eq!(keys(&stack, "admin@example.com").len(), before + 1);
    // Signed out between yes and the exchange.
    let late = code();
    web.post("/console/sign-out", &[("x", "x")]);
    assert_eq!(error(&exchange(&late, uri, verifier, "convox-cli")), "invalid_grant");
    // A page for somebody else's address is never shown, nor is anything sent there.
    let web = Web::sign_in(&stack, "admin@example.com");
    for bad in [
        url("https://evil.example/x", "S256"),
        url("http://127.0.0.1:1/x?y", "S256"),
        url("http://localhost:1/x", "S256"),
        url(uri, "plain"),
    ] {
        let reply = web.get(bad.split_once(&stack.console.host).unwrap().1);
        assert_eq!((reply.status, reply.header("location")), (400, None), "{bad}");
    }
    // An API key approves nothing, and a page of another site does not either.
    let stranger = Web { console: &stack.console, cookie: format!("__Host-convox={}", stack.key) };
    assert_eq!(stranger.get(&url(uri, "S256")[8 + stack.console.host.len()..]).status, 303);
}

#[test]
fn a_short_code_signs_a_command_line_in_from_another_device() {
    let stack = Stack::start().unwrap();
    let (web, cli) = (Web::sign_in(&stack, "admin@example.com"), stack.person());
    let mut login = Login::start(&stack, &cli, &["--device", "--account", "work"]);
    let code = login.shows();
    assert!(code.len() == 11 && login.said.contains(&format!("https://{}/console/device", stack.console.host)), "{code}\n{}", login.said);
    let page = web.post("/console/device", &[("code", &code.to_lowercase())]).text();
    let device = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert!(page.contains(&device) && page.contains("127.0.0.1"), "who asks, and from where: {page}");
    // Nothing of it is in the database as it is.
    let data = std::fs::read(stack.console_data().join("console.db-wal")).unwrap_or_default();
    assert!(!data.windows(code.len()).any(|window| window == code.as_bytes()));
    let done = web.type_code(&code, "approve");
    assert_eq!(done.status, 200, "{}", done.text());
    let said = login.succeeds();
    assert!(said.contains("Logged in as admin@example.com, account work"), "{said}");
    let who = cli.run(&["whoami", "--json"]).json();
    assert_eq!((who["account"].as_str(), who["email"].as_str()), (Some("work"), Some("admin@example.com")));
    let used = web.post("/console/device", &[("code", &code)]);
    assert_eq!(used.status, 404, "a code is good once");

    let mut login = Login::start(&stack, &cli, &["--device"]);
    let code = login.shows();
    web.type_code(&code, "deny");
    assert!(login.fails().contains("denied"));

    let events = stack.admin(&["audit", "list", "--limit", "100"]).unwrap();
    let of = |action: &str| events.as_array().unwrap().iter().find(|event| event["action"] == action).cloned().unwrap_or_default();
    let (asked, approved) = (of("DeviceAuthorize"), of("DeviceApprove"));
    assert_eq!((asked["actor"].as_str(), asked["peer"].as_str()), (Some("unknown"), Some("127.0.0.1")));
    assert!(asked["path"].as_str().unwrap().ends_with(&device), "{asked}");
    assert_eq!((approved["actor"].as_str(), approved["peer"].as_str()), (Some("admin@example.com"), Some("127.0.0.1")));
    assert!(events.as_array().unwrap().iter().any(|event| event["rule"] == "device-authorization" && event["action"] == "KeyCreate"));
    assert!(!events.to_string().contains(&code));
}

#[test]
fn devices_are_answered_in_the_words_of_the_standard() {
    let stack = Stack::start().unwrap();
    let web = Web::sign_in(&stack, "admin@example.com");
    let begin = || {
        let reply =
            ask(&stack.console, "/api/v1/oauth/device_authorization", &[("client_id", "convox-cli"), ("device_name", "a<b>\u{202e}c")]);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let poll = |code: &str| {
        let pairs = [("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("client_id", "convox-cli"), ("device_code", code)];
        ask(&stack.console, "/api/v1/oauth/token", &pairs)
    };
    let begun = begin();
    assert_eq!((begun["interval"].as_i64(), begun["expires_in"].as_i64()), (Some(5), Some(600)));
    let (device, typed) = (begun["device_code"].as_str().unwrap(), begun["user_code"].as_str().unwrap());
    let first = poll(device);
    assert_eq!((first.status, error(&first).as_str()), (400, "slow_down"));
    for (pairs, word) in [
        (&[("client_id", "convox-cli")][..], "invalid_request"),
        (&[("client_id", "convox-cli"), ("grant_type", "password")], "unsupported_grant_type"),
        (&[("client_id", "x"), ("grant_type", "authorization_code")], "invalid_client"),
        (&[("client_id", "convox-cli"), ("grant_type", "authorization_code"), ("code", "cxa_x"), ("code_verifier", "v")], "invalid_grant"),
        (&[("client_id", "convox-cli"), ("grant_type", "urn:ietf:params:oauth:grant-type:device_code")], "invalid_request"),
    ] {
        let reply = ask(&stack.console, "/api/v1/oauth/token", pairs);
        assert_eq!((reply.status, error(&reply).as_str()), (400, word), "{pairs:?}");
    }
    assert_eq!(error(&poll("cxv_x")), "invalid_grant");
    assert_eq!(error(&poll(typed)), "invalid_grant", "the typed code is not the kept one");
    let reply = ask(&stack.console, "/api/v1/oauth/device_authorization", &[("client_id", "x")]);
    assert_eq!(error(&reply), "invalid_client");
    let metadata = Web { console: &stack.console, cookie: String::new() }.get("/.well-known/oauth-authorization-server").json();
    assert_eq!(metadata["code_challenge_methods_supported"], serde_json::json!(["S256"]));
    assert_eq!(metadata["issuer"], format!("https://{}", stack.console.host));

    // Guesses: five, then not even the right one.
    let mut statuses = Vec::new();
    for guess in ["BBBBB-BBBBB", "CCCCC-CCCCC", "nonsense", "", "DDDDD-DDDDD", typed] {
        statuses.push(web.post("/console/device", &[("code", guess)]).status);
    }
    assert_eq!(statuses, [404, 404, 404, 404, 404, 429]);
    let bob = stack.member("bob@example.com", "developer").map(|_| Web::sign_in(&stack, "bob@example.com")).unwrap();
    let page = bob.post("/console/device", &[("code", typed)]);
    assert_eq!(page.status, 200, "others are not held up");
    assert!(page.text().contains("a-b--c"), "{}", page.text());

    // Whoever approved it leaves before it is collected.
    bob.type_code(typed, "approve");
    stack.admin(&["user", "remove", "bob@example.com"]).unwrap();
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(error(&poll(device)), "expired_token");
}

/// Its own database on the PostgreSQL server of the tests.
fn postgres() -> Option<String> {
    let server = std::env::var("CONVOX_TEST_POSTGRES").ok()?;
    let name = format!("signin_{}", std::process::id());
    let done = std::process::Command::new("psql").args([&server, "-qc", &format!("CREATE DATABASE {name}")]).status().unwrap();
    assert!(done.success());
    Some(format!("{}/{name}", server.rsplit_once('/').unwrap().0))
}

#[test]
fn one_server_asks_another_approves_and_a_third_gives_the_key() {
    let Some(database) = postgres() else { return };
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = std::process::Command::new(binary("convox-console")).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let root = dir.path().join("root.key");
    let root = root.to_str().unwrap();
    run(&["root-key", "--out", root]);
    let place = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let start = |name: &str| {
        let data = place(name);
        std::fs::create_dir_all(&data).unwrap();
        let args = ["serve", "--data", data.as_str(), "--root-key-file", root, "--database", &database];
        Server::start("convox-console", &args, &dir.path().join(format!("{name}.log"))).unwrap()
    };
    let first = start("a");
    let data = place("a");
    let at = ["--data", data.as_str(), "--root-key-file", root, "--database", &database, "--json"];
    let code = first.setup_code.clone().unwrap();
    run(&[&["setup", "--code", &code, "--org", "acme", "--email", "ada@example.com"][..], &at].concat());
    let link = run(&[&["user", "reset-link", "ada@example.com", "--url", "https://x"][..], &at].concat());
    let link: Value = serde_json::from_slice(&link).unwrap();
    let (second, third) = (start("b"), start("c"));
    let code = link["link"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let mut web = Web { console: &second, cookie: String::new() };
    let reply = web.post("/console/reset/finish", &[("code", &code), ("email", "ada@example.com"), ("password", PASSWORD)]);
    reply.header("set-cookie").unwrap().split(';').next().unwrap().clone_into(&mut web.cookie);

    let begun = ask(&first, "/api/v1/oauth/device_authorization", &[("client_id", "convox-cli"), ("device_name", "laptop")]).json();
    assert_eq!(web.type_code(begun["user_code"].as_str().unwrap(), "approve").status, 200);
    std::thread::sleep(Duration::from_secs(5));
    let pairs = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", "convox-cli"),
        ("device_code", begun["device_code"].as_str().unwrap()),
    ];
    let token = ask(&third, "/api/v1/oauth/token", &pairs);
    assert_eq!(token.status, 200, "{}", token.text());
    assert_eq!(error(&ask(&first, "/api/v1/oauth/token", &pairs)), "expired_token", "told once, whoever is asked");
    // Good everywhere at once.
    let cli = Cli::new(&dir.path().join("cli"));
    for console in [&first, &second, &third] {
        let fingerprint = console.fingerprint.to_string();
        let key = token.json()["access_token"].as_str().unwrap().to_owned();
        cli.feed(&["login", &console.host, "--fingerprint", &fingerprint, "--password-stdin"], key.as_bytes()).ok();
    }
}
