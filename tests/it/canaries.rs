//! T31: every kind of key that there is, used as people use it, and then looked for where it must not be: in files (databases, their write-ahead
//! logs, audit log, logs, a backup), in lists of processes, in the answers of commands and in their errors, in an export, in metrics and traces. A
//! kind that is added to [`Credential`] and not here fails this test.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use convox_seal::{Credential, KeyKind, Secret, TotpSecret};
use convox_testkit::go::{Generation, connect, form, read_reply};
use convox_testkit::stack::RACK_PASSWORD;
use convox_testkit::{Reply, Stack, binary, eventually};

use crate::secrets::every_file;
use crate::sign_in::hidden;

const URL: &str = "https://console.example.com";
const PASSWORD: &str = "tall-vexed-otter-19";
const MAIL: &str = "canaryMailPassword4Yq2Vt";
const DATABASE: &str = "canaryDatabasePassword9mKx4L";
const KMS: &str = "s.canaryKmsToken8nBc3Rt";
const REGISTRY: &str = "canaryRegistryPassword5hTq2V";
const ENVIRONMENT: &str = "canaryEnvironment7wZ8nBc3";

/// Why no text of a kind can be looked for.
fn nowhere(kind: Credential) -> Option<&'static str> {
    match kind {
        Credential::Passkey => Some("the Console has the public key only"),
        Credential::DataKey | Credential::PeopleDataKey | Credential::LookupKey | Credential::CookieKey | Credential::RackSigningKey => {
            Some(
                "made inside, and nothing gives its bytes away: its type has no way out but wrapped or sealed (`crates/seal/tests/shapes.rs`)",
            )
        }
        Credential::AcmeAccount => Some("made by the Rack for an authority, and never given out: `crates/rack` keeps it sealed"),
        Credential::ResourcePassword => Some("made by the Rack, and handed to the app that it is for: `tests/it/resources.rs`"),
        _ => None,
    }
}

/// A text to be looked for, and the files that are there to hold it.
struct Canary {
    kind: Credential,
    text: String,
    may: Vec<PathBuf>,
}

/// A browser's requests, with its cookies.
struct Browser<'a> {
    stack: &'a Stack,
    cookies: Vec<(String, String)>,
}

impl Browser<'_> {
    fn send(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
        let host = &self.stack.console.host;
        let mut stream = connect(host, &self.stack.console.fingerprint).unwrap();
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let (cookies, body) = (cookies.join("; "), form(fields));
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Cookie: {cookies}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let reply = read_reply(&mut stream, false).unwrap();
        for (_, cookie) in reply.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")) {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        reply
    }

    fn page(&mut self, path: &str) -> String {
        self.send("GET", path, &[]).text()
    }

    fn cookie(&self, name: &str) -> String {
        self.cookies.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no cookie {name}")).1.clone()
    }
}

#[track_caller]
fn between(page: &str, start: &str, end: &str) -> String {
    page.split_once(start).and_then(|(_, rest)| rest.split_once(end)).unwrap_or_else(|| panic!("no {start} in {page}")).0.to_owned()
}

fn text_of(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

/// A line of a PEM file that stands for all of it.
fn line_of(file: &Path) -> String {
    text_of(file).lines().nth(2).unwrap().to_owned()
}

/// What lists of processes show, from now until they are asked for.
struct Processes {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeSet<String>>>,
    watch: std::thread::JoinHandle<()>,
}

impl Processes {
    fn watch() -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeSet::new())));
        let (its_stop, its_seen) = (Arc::clone(&stop), Arc::clone(&seen));
        let watch = std::thread::spawn(move || {
            while !its_stop.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                    let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    its_seen.lock().unwrap().insert(String::from_utf8_lossy(&arguments).into_owned());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, seen, watch }
    }

    fn end(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        self.watch.join().unwrap();
        self.seen.lock().unwrap().iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// A text as it is, in hex, and in base64 at each of its three offsets.
fn forms(text: &str) -> Vec<String> {
    let mut forms = vec![text.to_owned(), text.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))];
    for (pad, cut) in [("", 0), ("x", 2), ("xx", 3)] {
        let coded = STANDARD_NO_PAD.encode(format!("{pad}{text}"));
        forms.push(coded[cut..coded.len() - 2].to_owned());
    }
    forms
}

fn holds(haystack: &str, forms: &[String]) -> bool {
    forms.iter().any(|form| haystack.contains(form.as_str()))
}

/// Everything that is not the answer for whom a secret was made.
#[derive(Default)]
struct Said(String);

impl Said {
    fn note(&mut self, text: impl AsRef<str>) {
        self.0.push_str(text.as_ref());
        self.0.push('\n');
    }

    /// Of a command that fails: what it is told, and why it does not work.
    fn fails(&mut self, command: &mut Command) {
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        self.note(String::from_utf8_lossy(&output.stdout));
        self.note(String::from_utf8_lossy(&output.stderr));
    }
}

/// Takes whatever is sent to it, as a collector of traces does, and keeps it.
fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, kept) = (format!("http://{}", listener.local_addr().unwrap()), Arc::<Mutex<Vec<u8>>>::default());
    let keeps = Arc::clone(&kept);
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            // The sender closes when it has waited for an answer in vain; all of it is here by then.
            let _ = socket.set_read_timeout(Some(Duration::from_millis(300)));
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = socket.read(&mut chunk) {
                keeps.lock().unwrap().extend_from_slice(&chunk[..read]);
            }
            let _ =
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
        }
    });
    (url, kept)
}

/// What is there for monitoring.
fn metrics(stack: &Stack) -> String {
    let mut socket = std::net::TcpStream::connect(stack.console.metrics.as_deref().unwrap()).unwrap();
    write!(socket, "GET /metrics HTTP/1.1\r\nHost: monitoring\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text
}

/// The keys of somebody's command line and browser.
fn of_people(stack: &Stack, planted: &mut Vec<(Credential, String)>, said: &mut Said) {
    let of = Credential::OfConsole;
    let mut add = |kind, text: &str| planted.push((kind, text.to_owned()));
    add(of(KeyKind::User), &stack.key);
    add(of(KeyKind::Setup), stack.console.setup_code.as_ref().unwrap());
    let code_of = |made: &serde_json::Value| made["link"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let invited = stack.admin(&["invitation", "create", "eve@example.com", "--org", "acme", "--role", "developer", "--url", URL]).unwrap();
    add(of(KeyKind::Invitation), &code_of(&invited));
    let reset = code_of(&stack.admin(&["user", "reset-link", "admin@example.com", "--url", URL]).unwrap());
    add(of(KeyKind::Reset), &reset);

    let mut browser = Browser { stack, cookies: Vec::new() };
    let fields = [("code", reset.as_str()), ("email", "admin@example.com"), ("password", PASSWORD)];
    assert_eq!(browser.send("POST", "/console/reset/finish", &fields).status, 303);
    add(of(KeyKind::Session), &browser.cookie("__Host-convox"));
    said.note(browser.send("POST", "/console/reset/finish", &fields).text());
    said.note(browser.send("POST", "/console/sign-in", &[("email", "admin@example.com"), ("password", &format!("{PASSWORD}x"))]).text());
    assert_eq!(browser.send("POST", "/console/sign-in", &[("email", "admin@example.com"), ("password", PASSWORD)]).status, 303);
    add(Credential::PersonPassword, PASSWORD);
    add(of(KeyKind::Session), &browser.cookie("__Host-convox"));
    add(Credential::DeviceCookie, &browser.cookie("__Host-convox-device"));

    // A browser approves a command line, and a short code another one.
    let query = form(&[
        ("response_type", "code"),
        ("client_id", "convox-cli"),
        ("redirect_uri", "http://127.0.0.1:4711/x"),
        ("state", "s"),
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
        ("device_name", "laptop"),
    ]);
    let mut fields = hidden(&browser.page(&format!("/console/authorize?{query}")));
    fields.extend([("days".to_owned(), "90".to_owned()), ("decision".to_owned(), "approve".to_owned())]);
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let led = browser.send("POST", "/console/authorize", &fields).text();
    let code = format!("cxa_{}", &between(&led, "cxa_", "\"")[..49]);
    add(of(KeyKind::Authorization), &code);
    let device = browser.send("POST", "/api/v1/oauth/device_authorization", &[("client_id", "convox-cli"), ("device_name", "tv")]).json();
    add(of(KeyKind::Device), device["device_code"].as_str().unwrap());
    add(of(KeyKind::Device), device["user_code"].as_str().unwrap());
    let pairs = [
        ("grant_type", "authorization_code"),
        ("client_id", "convox-cli"),
        ("code", code.as_str()),
        ("redirect_uri", "http://x"),
        ("code_verifier", "y"),
    ];
    said.note(browser.send("POST", "/api/v1/oauth/token", &pairs).text());

    // A second factor, and a command line that is asked for it.
    let now_ms = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let page = browser.page("/console/account/factors/totp");
    let text = between(&page, "<code id=\"secret\">", "<").replace(' ', "");
    add(Credential::AuthenticatorSecret, &text);
    let secret = TotpSecret::parse(&Secret::new(text)).unwrap();
    let id = between(&page, "name=\"id\" value=\"", "\"");
    let page = browser.send("POST", "/console/account/factors/totp", &[("id", &id), ("code", &secret.code_at(now_ms()))]).text();
    for code in between(&page, "<code id=\"codes\">", "</code>").lines().take(3) {
        add(Credential::RecoveryCode, code);
    }
    stack.admin(&["org", "require-factor", "acme"]).unwrap();
    let client = stack.go(Generation::V3);
    said.note(client.get("/system", "").unwrap().text());
    let asked = client.get("/session", "").unwrap();
    let challenge = asked.header("challenge").unwrap().to_owned();
    add(Credential::FactorChallenge, &challenge);
    let answer = format!("{{\"code\":\"{}\"}}", secret.code_at(now_ms() + 30_000));
    let made = client.send("POST", "/session", "", "application/octet-stream", &[("Challenge", &challenge)], answer.as_bytes()).unwrap();
    add(of(KeyKind::CliSession), made.json()["id"].as_str().unwrap_or_else(|| panic!("{}", made.text())));
    for path in ["/console/account", "/console/account/factors", "/console/racks", "/console/organizations/acme", "/console/nope"] {
        said.note(browser.page(path));
    }
}

/// The keys that a Rack is asked for and keeps.
fn of_the_rack(stack: &Stack, planted: &mut Vec<(Credential, String)>, said: &mut Said) {
    let client = stack.go(Generation::V3);
    let deploy = stack.admin(&["key", "create", "--email", "admin@example.com", "--name", "ci", "--kind", "deploy"]).unwrap();
    planted.push((Credential::OfConsole(KeyKind::Deploy), deploy["api_key"].as_str().unwrap().to_owned()));
    let token = client.form("POST", "/system/jwt/token", &[("role", "admin"), ("durationInHour", "1")]).unwrap().json();
    let token = token["token"].as_str().unwrap().to_owned();
    said.note(client.get("/system/jwt/tokens", "").unwrap().text());
    planted.push((Credential::RackToken, token));
    assert_eq!(client.form("POST", "/apps", &[("name", "shop")]).unwrap().status, 200);
    let made = client.form("POST", "/apps/shop/releases", &[("env", &format!("SECRET={ENVIRONMENT}"))]).unwrap();
    assert_eq!(made.status, 200, "{}", made.text());
    planted.push((Credential::AppEnvironment, ENVIRONMENT.to_owned()));
    let login = [("server", "registry.example.com"), ("username", "robot"), ("password", REGISTRY)];
    said.note(client.form("POST", "/registries", &login).unwrap().text());
    said.note(client.get("/registries", "").unwrap().text());
    planted.push((Credential::RegistryPassword, REGISTRY.to_owned()));
    // One that is at hand: it is looked for as the Console's own, too.
    let tls = stack.console_data().join("tls");
    let [chain, key] = ["cert.pem", "key.pem"].map(|file| std::fs::read_to_string(tls.join(file)).unwrap());
    let imported = client.form("POST", "/certificates", &[("pub", &chain), ("key", &key)]).unwrap();
    assert_eq!(imported.status, 200, "{}", imported.text());
    said.note(client.get("/certificates", "").unwrap().text());
    // It cannot be reached: what was begun is kept, sealed.
    let rolled = client.raw("POST", "/instances/keyroll", &[], b"").unwrap();
    assert_eq!(rolled.status, 502, "{}", rolled.text());
    said.note(rolled.text());
    for path in ["/apps", "/apps/shop", "/apps/missing", "/system", "/system/processes", "/instances", "/nope"] {
        said.note(client.get(path, "").unwrap().text());
    }
}

#[test]
fn every_kind_of_key_is_in_no_file_log_argument_answer_or_error() {
    let outside = tempfile::tempdir().unwrap();
    let at = |name: &str| outside.path().join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at("first")).status().unwrap();
    assert!(made.success());
    let instance =
        serde_json::json!([{ "id": "web1", "address": "deploy@127.0.0.1", "port": 1, "host_key": "ssh-ed25519 AAAA", "key": at("first") }]);
    std::fs::write(at("instances.json"), instance.to_string()).unwrap();
    let mail = format!("smtp://mailer:{MAIL}@127.0.0.1:1");
    let env = [("CONVOX_SMTP_URL", mail.as_str()), ("CONVOX_MAIL_FROM", "Console <console@example.com>")];
    let (traces, traced) = collector();
    let seen = ["--url", URL, "--metrics-listen", "127.0.0.1:0", "--otlp-endpoint", &traces];
    let stack = Stack::start_as(&["--instances", at("instances.json").to_str().unwrap()], &seen, &env).unwrap();
    // The stage was set with a setup code as an argument.
    let processes = Processes::watch();
    let (mut planted, mut said) = (Vec::new(), Said::default());
    of_the_rack(&stack, &mut planted, &mut said);
    of_people(&stack, &mut planted, &mut said);

    // A mail that cannot be sent, a database and a KMS that are not there.
    let mut nobody = Browser { stack: &stack, cookies: Vec::new() };
    said.note(nobody.send("POST", "/console/forgotten", &[("email", "admin@example.com")]).text());
    planted.push((Credential::MailPassword, MAIL.to_owned()));
    let data = stack.console_data();
    let console = || {
        let mut command = Command::new(binary("convox-console"));
        command.args(["key", "list", "--data"]).arg(&data);
        command
    };
    said.fails(console().env("CONVOX_DATABASE", format!("postgres://convox:{DATABASE}@127.0.0.1:1/console")));
    planted.push((Credential::DatabasePassword, DATABASE.to_owned()));
    std::fs::write(at("kms.token"), KMS).unwrap();
    let sealed = at("sealed.key");
    std::fs::write(&sealed, "kms:vault:v1:abcd").unwrap();
    let kms = ["--root-key-kms", "https://127.0.0.1:1/transit/convox", "--kms-token-file"];
    said.fails(console().args(kms).arg(at("kms.token")).arg("--root-key-file").arg(&sealed));
    planted.push((Credential::KmsToken, KMS.to_owned()));

    let (root, state) = (data.join("root.key"), stack.rack_data().join("state.key"));
    let [of_console, of_rack] = [&data, &stack.rack_data()].map(|data| data.join("tls/key.pem"));
    let mut canaries: Vec<Canary> = planted.into_iter().map(|(kind, text)| Canary { kind, text, may: Vec::new() }).collect();
    for (kind, text, may) in [
        (Credential::RackPassword, RACK_PASSWORD.to_owned(), stack.password_file()),
        (Credential::RootKey, text_of(&root), root),
        (Credential::RackStateKey, text_of(&state), state),
        (Credential::AppCertificateKey, line_of(&of_console), of_console.clone()),
        (Credential::TlsKey, line_of(&of_console), of_console),
        (Credential::TlsKey, line_of(&of_rack), of_rack),
        (Credential::HostKey, line_of(&at("first")), at("first")),
    ] {
        canaries.push(Canary { kind, text, may: vec![may] });
    }
    for canary in canaries.iter_mut().filter(|canary| canary.kind == Credential::KmsToken) {
        canary.may.push(at("kms.token"));
    }

    // Every kind has one, or a reason why it cannot.
    for kind in Credential::all() {
        let count = canaries.iter().filter(|canary| canary.kind == kind).count();
        assert_eq!(count == 0, nowhere(kind).is_some(), "{}: {count} canaries", kind.name());
    }

    for command in [&["rack", "list"][..], &["audit", "list", "--limit", "1000"], &["key", "list"], &["user", "list"], &["keys", "list"]] {
        said.note(stack.admin(command).unwrap().to_string());
    }
    let export = Command::new(binary("convox-console")).args(["audit", "export", "--org", "acme", "--data"]).arg(&data).output().unwrap();
    assert!(export.status.success() && export.stdout.len() > 1000, "{}", String::from_utf8_lossy(&export.stderr));
    said.note(String::from_utf8_lossy(&export.stdout));
    said.note(processes.end());
    let watched = metrics(&stack);
    assert!(watched.contains("convox_console_"), "{watched}");
    said.note(watched);
    let told = eventually(Duration::from_secs(15), || {
        let text = String::from_utf8_lossy(&traced.lock().unwrap()).into_owned();
        text.contains("/system/jwt/token").then_some(text)
    });
    said.note(told.expect("spans of what was asked"));
    let kept = Command::new(binary("convox-console"))
        .args(["backup", "--data"])
        .arg(&data)
        .arg("--out")
        .arg(at("console.backup"))
        .output()
        .unwrap();
    assert!(kept.status.success(), "{}", String::from_utf8_lossy(&kept.stderr));

    let mut files = Vec::new();
    every_file(stack.dir(), &mut files);
    every_file(outside.path(), &mut files);
    for suffix in ["console.db", "console.db-wal", "rack.db", "rack.db-wal", "console.log", "main.log", "console.backup"] {
        assert!(files.iter().any(|file| file.ends_with(suffix)), "{suffix} is among them: {files:?}");
    }
    let canaries: Vec<(Canary, Vec<String>)> = canaries
        .into_iter()
        .map(|canary| {
            let forms = forms(&canary.text);
            (canary, forms)
        })
        .collect();
    let mut found = Vec::new();
    for file in &files {
        let bytes = std::fs::read(file).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        for (canary, forms) in &canaries {
            let expected = canary.may.contains(file);
            if holds(&text, forms) != expected {
                found.push(format!("{} {} {}", file.display(), if expected { "should hold" } else { "holds" }, canary.kind.name()));
            }
        }
    }
    for (canary, _) in canaries.iter().filter(|(_, forms)| holds(&said.0, forms)) {
        found.push(format!("something said or an argument holds {}", canary.kind.name()));
    }
    assert!(found.is_empty(), "{found:#?}");
}
