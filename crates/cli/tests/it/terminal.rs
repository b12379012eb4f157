//! At a real terminal: questions without echo, raw mode, and the terminal as it was on every way to end.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use convox_wire::exit::marker;
use convox_wire::socket::Frame;
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::person::Person;
use crate::server::{Answer, Request, Server, json, status};

/// A terminal of 37 x 91 with a command at it.
pub(crate) struct Session {
    child: Child,
    typist: std::fs::File,
    slave: std::fs::File,
    shown: mpsc::Receiver<Vec<u8>>,
    pub(crate) so_far: String,
}

impl Session {
    pub(crate) fn start(person: &Person, args: &[&str]) -> Self {
        Self::start_into(person, args, None)
    }

    /// With standard output somewhere else, as in `convox ... > FILE`.
    fn start_into(person: &Person, args: &[&str], output: Option<std::fs::File>) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: 37, ws_col: 91, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let plain = person.command(args);
        // A session of its own, so that the terminal is its controlling one.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(plain.get_program()).args(plain.get_args()).current_dir(person.cwd()).env_clear();
        for (key, value) in plain.get_envs() {
            command.env(key, value.unwrap_or_default());
        }
        let end = || slave.try_clone().unwrap();
        let child = command.env("TERM", "xterm").stdin(end()).stdout(output.unwrap_or_else(end)).stderr(end()).spawn().unwrap();
        let typist = std::fs::File::from(master);
        let mut reading = typist.try_clone().unwrap();
        let (send, shown) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            while let Ok(count) = reading.read(&mut buffer) {
                if count == 0 || send.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, typist, slave, shown, so_far: String::new() }
    }

    /// Waits until the terminal shows `text`.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.so_far.contains(text) {
            match self.shown.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.so_far.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("`{text}` was not shown ({error}): {}", self.so_far),
            }
        }
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.typist.write_all(text.as_bytes()).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    #[track_caller]
    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !condition(self) {
            assert!(Instant::now() < end, "{what}: {}", self.so_far);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Exit code and everything that was shown.
    pub(crate) fn finish(mut self) -> (i32, String) {
        let end = Instant::now() + Duration::from_secs(20);
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code().unwrap_or(-1);
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break -2;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        while let Ok(bytes) = self.shown.recv_timeout(Duration::from_millis(100)) {
            self.so_far.push_str(&String::from_utf8_lossy(&bytes));
        }
        (code, self.so_far)
    }

    /// The process that `setsid` started.
    fn convox(&self) -> rustix::process::Pid {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            // With --wait it forks only if it has to; else it became the program itself.
            let text = std::fs::read_to_string(&children).unwrap_or_default();
            if let Some(pid) = text.split_whitespace().next().and_then(|pid| pid.parse().ok()) {
                return rustix::process::Pid::from_raw(pid).unwrap();
            }
            let own = std::fs::read_to_string(format!("/proc/{}/comm", self.child.id())).unwrap_or_default();
            if own.trim() == "convox" {
                return rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
            }
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn console(request: &Request) -> Answer {
    match request.header("Authorization") {
        Some("Basic Y29udm94Omdvb2Q=") => json(r#"{"id":"U1"}"#),
        _ => status(401, "invalid credentials\n"),
    }
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    let server = Server::start(console);
    let person = Person::new();
    let mut session = Session::start(&person, &["login", &server.host(), "--fingerprint", &server.fingerprint.to_string()]);
    session.expect("Password: ");
    session.type_in("good\n");
    let (code, shown) = session.finish();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("Authenticating with") && !shown.contains("good"), "{shown}");
    assert_eq!(person.map("auth")[&server.host()], "good");
}

#[test]
fn control_c_at_the_question_gives_the_terminal_back() {
    let server = Server::start(console);
    let person = Person::new();
    person.save("pins", &format!("{{\"{}\": \"{}\"}}", server.host(), server.fingerprint));
    let mut session = Session::start(&person, &["login", &server.host()]);
    session.expect("Password: ");
    session.type_in("half\u{3}");
    let slave = session.slave.try_clone().unwrap();
    assert_eq!(session.finish().0, 130);
    assert!(tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
    // Asked what it is, and told nothing.
    let seen: Vec<_> = server.seen().iter().map(|request| (request.line(), request.header("Authorization").is_some())).collect();
    assert_eq!(seen, [("GET /.well-known/oauth-authorization-server".to_owned(), false)]);
}

#[test]
fn a_refused_saved_key_is_followed_by_the_question_for_another() {
    let server = Server::start(console);
    let person = Person::at(&server);
    let mut session = Session::start(&person, &["login"]);
    session.expect("The saved key was refused");
    session.expect("Password: ");
    session.type_in("good\n");
    assert_eq!(session.finish().0, 0);
    assert_eq!(person.map("auth")[&server.host()], "good");
}

#[test]
fn an_unknown_certificate_is_asked_about() {
    let server = Server::start(|_| json("[]"));
    let person = Person::at(&server);
    person.save("pins", "{}");
    let mut session = Session::start(&person, &["apps"]);
    session.expect(&server.fingerprint.to_string());
    session.expect("(yes/no) ");
    session.type_in("no\n");
    let (code, shown) = session.finish();
    assert_eq!((code, server.application_bytes()), (1, 0), "{shown}");
    assert!(person.map("pins").is_empty());
    let mut session = Session::start(&person, &["apps"]);
    session.expect("(yes/no) ");
    session.type_in("yes\n");
    assert_eq!(session.finish().0, 0);
    assert_eq!(person.map("pins").len(), 1);
}

#[test]
fn a_shell_gets_the_terminal_raw_with_its_size_and_gives_it_back() {
    let server = Server::start(|_| Answer::Frames(vec![Frame::text("ready\r\n"), Frame::text(marker(5)), Frame::end()]));
    let person = Person::at(&server);
    let session = Session::start(&person, &["exec", "P1", "sh"]);
    session.until("restored", |session| !session.is_raw());
    let slave = session.slave.try_clone().unwrap();
    let (code, shown) = session.finish();
    assert_eq!(code, 5, "{shown}");
    assert!(tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
    let request = &server.seen()[0];
    assert_eq!((request.header("Height"), request.header("Width"), request.header("Tty")), (Some("37"), Some("91"), None));
}

/// A process that runs, and a shell in it as the test says.
fn shell(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Server {
    Server::start(move |request| match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/apps/myapp/services/web/processes") | ("GET", "/apps/myapp/processes/P1") => json(r#"{"id":"P1","status":"running"}"#),
        ("GET", "/apps/myapp/processes/P1/exec") => answer(),
        _ => status(200, ""),
    })
}

#[test]
fn every_signal_that_can_be_caught_restores_the_terminal_and_run_leaves_no_process() {
    use rustix::process::Signal;
    let server = shell(|| Answer::Frames(vec![Frame::text("ready\r\n")]));
    let person = Person::at(&server);
    for (signal, number) in [
        (Signal::HUP, 1),
        (Signal::INT, 2),
        (Signal::QUIT, 3),
        (Signal::ABORT, 6),
        (Signal::USR1, 10),
        (Signal::USR2, 12),
        (Signal::ALARM, 14),
        (Signal::TERM, 15),
        (Signal::XCPU, 24),
        (Signal::VTALARM, 26),
        (Signal::PROF, 27),
    ] {
        for args in [&["exec", "P1", "sh"][..], &["run", "web", "sh"]] {
            server.forget();
            let mut session = Session::start(&person, args);
            session.expect("ready");
            session.until("raw", Session::is_raw);
            rustix::process::kill_process(session.convox(), signal).unwrap();
            session.until("restored", |session| !session.is_raw());
            let slave = session.slave.try_clone().unwrap();
            assert_eq!(session.finish().0, 128 + number, "{args:?} {signal:?}");
            assert!(tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
            let is_stopped = server.lines().contains(&"DELETE /apps/myapp/processes/P1".to_owned());
            assert_eq!(is_stopped, args[0] == "run", "{args:?} {signal:?}");
        }
    }
}

#[test]
fn a_server_that_is_cut_off_and_one_that_closes_restore_the_terminal() {
    for is_cut in [true, false] {
        let server = shell(move || {
            let ready = Frame::text("ready\r\n");
            if is_cut {
                Answer::CutLater(vec![ready])
            } else {
                Answer::Frames(vec![ready, Frame::close(1011, "the rack is being stopped")])
            }
        });
        let person = Person::at(&server);
        for args in [&["exec", "P1", "sh"][..], &["run", "web", "sh"]] {
            let mut session = Session::start(&person, args);
            session.expect("ready");
            if is_cut {
                session.until("raw", Session::is_raw);
                session.type_in("x");
            }
            session.until("restored", |session| !session.is_raw());
            let (code, shown) = session.finish();
            assert_eq!(code, 255, "{args:?} {shown}");
            assert!(shown.contains(if is_cut { "it was cut" } else { "the rack is being stopped" }), "{shown}");
        }
    }
}

#[test]
fn run_gives_the_terminal_and_its_size_to_the_new_process() {
    let server = shell(|| Answer::Frames(vec![Frame::text("ready\r\n"), Frame::text(marker(6)), Frame::end()]));
    let person = Person::at(&server);
    let session = Session::start(&person, &["run", "web", "sh"]);
    let (code, shown) = session.finish();
    assert_eq!(code, 6, "{shown}");
    let seen = server.seen();
    for path in ["/apps/myapp/services/web/processes", "/apps/myapp/processes/P1/exec"] {
        let request = seen.iter().find(|request| request.path == path).unwrap();
        assert_eq!((request.header("Height"), request.header("Width")), (Some("37"), Some("91")), "{path}");
    }
}

#[test]
fn control_c_reaches_the_remote_program_and_a_signal_restores_the_terminal() {
    let server = Server::start(|_| Answer::Frames(vec![Frame::text("ready\r\n")]));
    let person = Person::at(&server);
    let mut session = Session::start(&person, &["exec", "P1", "sh"]);
    session.expect("ready");
    session.until("raw", Session::is_raw);
    session.type_in("ls\u{3}");
    // Nothing but the remote side sees it.
    std::thread::sleep(Duration::from_millis(200));
    assert!(session.child.try_wait().unwrap().is_none());
    rustix::process::kill_process(session.convox(), rustix::process::Signal::TERM).unwrap();
    session.until("restored", |session| !session.is_raw());
    let (code, _) = session.finish();
    assert_eq!(code, 143);
    let end = Instant::now() + Duration::from_secs(10);
    while server.seen()[0].body.is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.seen()[0].body, b"ls\x03");
}

#[test]
fn secrets_are_masked_on_a_terminal_and_colours_are_the_originals() {
    let server = Server::start(|request| match request.path.as_str() {
        "/apps" => json(r#"[{"name":"shop","status":"running","release":"R1"}]"#),
        _ => json(r#"{"name":"main","parameters":{"Password":"secret"}}"#),
    });
    let person = Person::at(&server);
    let (_, shown) = Session::start(&person, &["rack", "params"]).finish();
    assert!(shown.contains("**********") && !shown.contains("secret"), "{shown}");
    let (_, shown) = Session::start(&person, &["rack", "params", "--reveal"]).finish();
    assert!(shown.contains("secret"), "{shown}");
    let (_, shown) = Session::start(&person, &["apps"]).finish();
    assert!(
        shown.contains("\u{1b}[38;5;244mAPP   STATUS   RELEASE\u{1b}[0m\r\n\u{1b}[38;5;251mshop  running  R1\u{1b}[0m\r\n"),
        "{shown:?}"
    );
    let person = person.with("NO_COLOR", "1");
    let (_, shown) = Session::start(&person, &["apps"]).finish();
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

/// What a terminal shows of `args`, which have to succeed.
#[track_caller]
fn shown(person: &Person, args: &[&str]) -> String {
    let (code, shown) = Session::start(person, args).finish();
    assert_eq!(code, 0, "{args:?}: {shown}");
    shown
}

#[test]
fn what_takes_its_time_says_how_far_it_is_and_leaves_the_line_as_it_was() {
    let large = vec![b'x'; 3 << 20];
    let pieces = |count: usize| Answer::Slow(vec![vec![b'y'; 1 << 20]; count], Duration::from_millis(300));
    let server = Server::start(move |request| match (request.method.as_str(), request.path.split('?').next().unwrap_or_default()) {
        ("GET", "/apps/myapp") => json(r#"{"name":"myapp","status":"running"}"#),
        ("GET", "/apps/myapp/builds/B1.tgz" | "/apps/myapp/resources/database/data") => pieces(3),
        ("POST", path) if path.starts_with("/apps/myapp/objects/") => json(r#"{"url":"object://x"}"#),
        ("POST", "/apps/myapp/builds/import" | "/apps/myapp/builds") => {
            json(r#"{"id":"B1","app":"myapp","status":"complete","release":"R1"}"#)
        }
        ("GET", "/apps/myapp/builds/B1") => json(r#"{"id":"B1","app":"myapp","status":"complete","release":"R1"}"#),
        ("GET", "/apps/myapp/builds/B1/logs") => Answer::Frames(vec![Frame::end()]),
        ("GET", path) if path.starts_with("/apps/myapp/") => json(r#"{"name":"database","id":"web-1","status":"running"}"#),
        _ => status(200, ""),
    });
    let person = Person::at(&server);
    std::fs::write(person.cwd().join("large"), &large).unwrap();
    for (args, label, total) in [
        (&["builds", "export", "B1", "-f", "b.tgz"][..], "Exporting build", " of 3.0 MB"),
        (&["builds", "import", "-f", "large"], "Importing build", " of 3.0 MB"),
        (&["resources", "export", "database", "-f", "d.sql"], "Exporting resource data", " of 3.0 MB"),
        (&["resources", "import", "database", "-f", "large"], "Importing resource data", " of 3.0 MB"),
        (&["build"], "Packaging source", " MB"),
    ] {
        let text = shown(&person, args);
        let drawn = text.split('\r').filter(|part| part.starts_with(&format!("\u{1b}[K{label}... ")) && part.ends_with(total)).count();
        assert!(drawn > 0, "{args:?}: {text:?}");
        // The line stands as if nothing had been drawn, and OK follows it.
        assert!(text.contains(&format!("\r\u{1b}[K\u{1b}[38;5;247m{label}\u{1b}[0m... \u{1b}[38;5;46mOK")), "{args:?}: {text:?}");
    }
    let text = shown(&person, &["cp", "large", "web-1:/tmp/large"]);
    assert!(text.contains("Sending files... ") && text.ends_with("\r\u{1b}[K"), "{text:?}");
    // Where standard output is a file, the line is drawn over where it stands: with `--id` and `--json` on the terminal, else in the file.
    for (form, line, told) in [
        (Some("--id"), "\r\u{1b}[KImporting build... OK, R1\r\n", "R1"),
        (Some("--json"), "\r\u{1b}[KImporting build... OK, R1\r\n", "{"),
        (None, "\r\u{1b}[K", "Importing build... OK, R1\n"),
    ] {
        let file = person.cwd().join("told");
        let args = [&["builds", "import", "-f", "large"][..], form.as_slice()].concat();
        let (code, shown) = Session::start_into(&person, &args, Some(std::fs::File::create(&file).unwrap())).finish();
        assert!(code == 0 && shown.contains("% of 3.0 MB") && shown.ends_with(line), "{form:?}: {shown:?}");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(told) && (form == Some("--json") || text == told), "{form:?}: {text:?}");
    }
    // What is not shown on a terminal has none of it.
    let piped = person.run(&["builds", "import", "-f", "large"]);
    assert_eq!((piped.stdout.as_str(), piped.stderr.as_str()), ("Importing build... OK, R1\n", ""));
}
