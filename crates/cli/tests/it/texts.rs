//! Tables, texts, errors and exit codes of the originals; JSON beside them.

use convox_wire::exit::marker;
use convox_wire::socket::Frame;

use crate::person::Person;
use crate::server::{Answer, Request, Server, json, status};

fn now_minus(seconds: i64) -> String {
    (jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds)).to_string()
}

fn rack(request: &Request) -> Answer {
    match (request.method.as_str(), request.path.split('?').next().unwrap_or_default()) {
        ("GET", "/apps") => json(r#"[{"name":"shop","status":"running","release":"R1"},{"name":"new","status":"creating","release":""}]"#),
        ("GET", "/apps/shop") => json(
            r#"{"name":"shop","status":"running","release":"R2","generation":"2","locked":true,"router":"r.example","parameters":{"B":"2","A":"1"}}"#,
        ),
        ("GET", "/apps/shop/builds") => json(&format!(
            r#"[{{"id":"B1","status":"complete","release":"R1","started":"{}","ended":"{}","description":"build abc"}},{{"id":"B2","status":"running","started":"{}","ended":"0001-01-01T00:00:00Z"}}]"#,
            now_minus(7300),
            now_minus(7210),
            now_minus(30)
        )),
        ("GET", "/apps/shop/releases") => json(&format!(
            r#"[{{"id":"R2","build":"B2","created":"{}","description":"env add:A"}},{{"id":"R1","build":"B1","created":"{}"}}]"#,
            now_minus(90),
            now_minus(86_400 * 3)
        )),
        ("GET", "/apps/shop/releases/R1") => {
            json(r#"{"id":"R1","build":"B1","created":"2026-01-02T03:04:05.6Z","env":"A=1\nB=2","description":"d"}"#)
        }
        ("GET", "/apps/shop/releases/R2") => json(r#"{"id":"R2","build":"B2","env":"A=1"}"#),
        ("GET", "/apps/shop/releases/R0") => json(r#"{"id":"R0"}"#),
        ("GET", "/apps/shop/builds/B1") => json(r#"{"id":"B1","manifest":"services: {}\n\n"}"#),
        ("GET", "/apps/shop/processes") => {
            json(r#"[{"id":"web-1","name":"web","status":"running","release":"R2","command":"./web --port"},{"id":"web-2","name":"web"}]"#)
        }
        ("GET", "/apps/shop/services") => json(
            r#"[{"name":"web","count":2,"cpu":256,"memory":512,"domain":"web.example","ports":[{"balancer":443,"container":3000},{"balancer":80}]},{"name":"api","count":1}]"#,
        ),
        ("GET", "/system") => json(
            r#"{"name":"main","provider":"local","region":"here","domain":"d.example","outputs":{"DomainInternal":"i.example"},"status":"running","version":"20260101000000","count":3,"type":"t","parameters":{"Password":"secret","NLB":"No"}}"#,
        ),
        ("GET", "/system/releases") => json("null"),
        ("POST", "/apps") => json(r#"{"name":"new","status":"running"}"#),
        ("GET", path) if path.starts_with("/apps/none") => status(404, "app not found: none\n"),
        ("GET", "/apps/odd") => status(500, "100%s wrong\n"),
        ("GET", "/apps/empty") => status(404, ""),
        ("GET", _) => json("[]"),
        _ => status(200, "ok\n"),
    }
}

#[test]
fn tables_are_the_originals() {
    let server = Server::start(rack);
    let person = Person::at(&server);
    for (args, table) in [
        (&["apps"][..], "APP   STATUS    RELEASE\nshop  running   R1\nnew   creating  \n"),
        (
            &["builds", "-a", "shop"],
            "ID  STATUS    RELEASE  STARTED         ELAPSED  DESCRIPTION\nB1  complete  R1       2 hours ago     1m30s    build abc\nB2  running            30 seconds ago           \n",
        ),
        (
            &["releases", "-a", "shop"],
            "ID  STATUS  BUILD  CREATED       DESCRIPTION\nR2  active  B2     1 minute ago  env add:A\nR1          B1     3 days ago    \n",
        ),
        (
            &["ps", "-a", "shop"],
            "ID     SERVICE  STATUS   RELEASE  STARTED  COMMAND\nweb-1  web      running  R2                ./web --port\nweb-2  web                                 \n",
        ),
        (
            &["scale", "-a", "shop"],
            "SERVICE  DESIRED  RUNNING  CPU  MEMORY\napi      1        0        0    0\nweb      2        2        256  512\n",
        ),
        (&["services", "-a", "shop"], "SERVICE  DOMAIN       PORTS\nweb      web.example  443:3000 80\napi                   \n"),
        (&["rack", "releases"], "VERSION  UPDATED\n"),
        (&["rack", "ps"], "ID  APP  SERVICE  STATUS  RELEASE  STARTED  COMMAND\n"),
        (&["resources", "-a", "shop"], "NAME  TYPE  URL\n"),
    ] {
        assert_eq!(person.run(args).ok(), table, "{args:?}");
    }
}

#[test]
fn info_listings_are_the_originals() {
    let server = Server::start(rack);
    let person = Person::at(&server);
    for (args, text) in [
        (
            &["apps", "info", "shop"][..],
            "Name        shop\nStatus      running\nGeneration  2\nLocked      true\nRelease     R2\nRouter      r.example\n",
        ),
        (&["apps", "params", "shop"], "A  1\nB  2\n"),
        (
            &["releases", "info", "R1", "-a", "shop"],
            "Id           R1\nBuild        B1\nCreated      2026-01-02T03:04:05Z\nDescription  d\nEnv          A=1\n             B=2\n",
        ),
        (&["releases", "manifest", "R1", "-a", "shop"], "services: {}\n"),
        (
            &["rack"],
            "Name      main\nProvider  local\nRegion    here\nRouter    d.example (external)\n          i.example (internal)\nStatus    running\nVersion   20260101000000\n",
        ),
        (&["rack", "params"], "NLB       No\nPassword  secret\n"),
        (&["rack", "params", "-g", "nl"], "NLB  No\n"),
        (&["rack", "scale"], "Autoscale  \nCount      3\nStatus     running\nType       t\n"),
    ] {
        assert_eq!(person.run(args).ok(), text, "{args:?}");
    }
    let version = person.run(&["version"]).ok();
    assert_eq!(version, format!("client: {}\nserver: 20260101000000 ({})\n", env!("CARGO_PKG_VERSION"), server.host()));
    assert_eq!(Person::new().run(&["version"]).ok(), format!("client: {}\nserver: none\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn changes_say_what_the_originals_say() {
    let server = Server::start(rack);
    let person = Person::at(&server);
    for (args, text) in [
        (&["apps", "create", "new"][..], "Creating new... OK\n"),
        (&["apps", "create", "new", "--wait"], "Creating new... OK\n"),
        (&["apps", "delete", "shop"], "Deleting shop... OK\n"),
        (&["apps", "lock", "shop"], "Locking shop... OK\n"),
        (&["apps", "unlock", "-a", "shop"], "Unlocking shop... OK\n"),
        (&["apps", "params", "set", "A=2", "-a", "shop"], "Updating parameters... OK\n"),
        (&["ps", "stop", "web-1", "-a", "shop"], "Stopping web-1... OK\n"),
        (&["restart", "-a", "shop"], "Restarting api... OK\nRestarting web... OK\n"),
        (&["services", "restart", "web", "-a", "shop"], "Restarting web... OK\n"),
        (&["scale", "web", "--count", "3", "-a", "shop"], "Scaling web... OK\n"),
        (&["releases", "promote", "R2", "-a", "shop"], "Promoting R2... OK\n"),
        (&["rack", "params", "set", "A=1"], "Updating parameters... OK\n"),
        (&["rack", "scale", "--count", "4"], "Scaling rack... OK\n"),
        (&["rack", "update", "20260202000000"], "Updating to 20260202000000... OK\n"),
        (&["rack", "access", "key", "rotate"], "OK\n"),
    ] {
        assert_eq!(person.run(args).ok(), text, "{args:?}");
    }
    let sent = server.seen();
    let body = |line: &str| sent.iter().find(|request| request.line() == line).map(Request::text);
    assert_eq!(body("POST /apps").unwrap(), "name=new");
    assert_eq!(body("PUT /apps/shop").unwrap(), "lock=true");
    assert_eq!(body("PUT /apps/shop/services/web").unwrap(), "count=3");
    assert_eq!(body("PUT /system").unwrap(), "parameters=A%3D1");
}

#[test]
fn errors_go_to_standard_error_with_exit_1_and_a_started_line_stays_unfinished() {
    let server = Server::start(rack);
    let person = Person::at(&server);
    let ran = person.run(&["apps", "info", "none"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", "ERROR: app not found: none\n"));
    let ran = person.run(&["releases", "promote", "R1", "-a", "none"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    // A server's text is text, never a format.
    let said = person.run(&["apps", "info", "odd"]).err();
    assert!(said.starts_with("ERROR: 100%s wrong\nhint: "), "{said}");
    assert!(person.run(&["apps", "info", "empty"]).err().starts_with("ERROR: response status 404\n"));
    for (args, text) in [
        (&["env", "get", "NOPE", "-a", "shop"][..], "env not found: NOPE"),
        (&["releases", "manifest", "R0", "-a", "shop"], "no build for release: R0"),
        (&["apps", "params", "set", "A"], "Key=Value expected: A"),
        (&["scale", "--count", "1"], "service name required"),
        (&["rack", "params", "-g", "zzz"], "group 'zzz' not found"),
        (&["rack", "uninstall", "local", "x"], "no local rack has the name x"),
        (&["frobnicate"], "unknown command: frobnicate"),
        (&["apps", "--nonsense"], "unknown flag: --nonsense"),
        (&["exec", "P"], "at least 2 args required"),
    ] {
        let said = person.run(args).err();
        assert!(said.starts_with(&format!("ERROR: {text}\n")), "{args:?}: {said}");
    }
}

#[test]
fn json_is_one_document_for_everything_with_an_answer() {
    let server = Server::start(rack);
    let person = Person::at(&server);
    for (args, pointer, value) in [
        (&["apps"][..], "/0/name", "shop"),
        (&["apps", "info", "shop"], "/release", "R2"),
        (&["apps", "params", "shop"], "/A", "1"),
        (&["apps", "create", "new"], "/name", "new"),
        (&["builds", "-a", "shop"], "/0/id", "B1"),
        (&["releases", "-a", "shop"], "/0/id", "R2"),
        (&["releases", "info", "R1", "-a", "shop"], "/build", "B1"),
        (&["ps", "-a", "shop"], "/0/id", "web-1"),
        (&["scale", "-a", "shop"], "/0/service", "api"),
        (&["services", "-a", "shop"], "/0/domain", "web.example"),
        (&["rack"], "/name", "main"),
        (&["rack", "params"], "/NLB", "No"),
        (&["env", "-a", "shop"], "/A", "1"),
        (&["version"], "/server", "20260101000000"),
        (&["releases", "promote", "R2", "-a", "shop"], "/release", "R2"),
        (&["switch"], "/host", &server.host()),
        (&["whoami"], "/key_source", "saved by login"),
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let text = person.run(&args).ok();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"));
        assert_eq!(document.pointer(pointer).and_then(serde_json::Value::as_str), Some(value), "{args:?}: {text}");
    }
}

#[test]
fn the_program_itself_answers_without_any_configuration() {
    let person = Person::new();
    let list = person.run(&[]).ok();
    assert_eq!(list, person.run(&["help"]).ok());
    assert!(list.lines().any(|line| line.starts_with("apps create ") && line.ends_with("  create an app")), "{list}");
    assert_eq!(person.run(&["--version"]).ok(), format!("{}\n", env!("CARGO_PKG_VERSION")));
    let help = person.run(&["deploy", "--help"]).ok();
    assert!(help.starts_with("USAGE\n  convox deploy [dir]\n\nDESCRIPTION\n  create and promote a build\n\nOPTIONS\n"), "{help}");
    assert!(help.contains("EXAMPLES"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(person.run(&["completion", shell]).ok().contains("convox"));
    }
    assert!(!person.config().exists(), "asking makes no files");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let server =
        Server::start(|_| json(&format!("[{}]", vec![r#"{"name":"a-long-name-for-an-app","status":"running"}"#; 20_000].join(","))));
    let person = Person::at(&server);
    let mut child = person.command(&["apps"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn why_a_stream_was_ended_is_told_once_and_is_no_line_of_the_log() {
    const LINE: &str = "2026-01-02T03:04:05Z service/web/P1 ERROR: of the app\n";
    let ended = |how: &'static str| {
        Server::start(move |request| {
            let words = "this API key was revoked";
            let shell = request.path.ends_with("/exec");
            let mut frames = vec![Frame::text(LINE), Frame::text(format!("ERROR: {words}\n"))];
            frames.extend(shell.then(|| Frame::text(marker(255))));
            frames.push(match how {
                "closed" => Frame::close(1008, words),
                "closed without a word" => Frame::close(1011, ""),
                _ => Frame::end(),
            });
            Answer::Frames(frames)
        })
    };
    let closed = ended("closed");
    let person = Person::at(&closed);
    let told = format!("ERROR: the connection to {} ended early: this API key was revoked\n", closed.host());
    let ran = person.run(&["logs", "-a", "shop"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.lines().next()), (1, LINE, told.lines().next()));
    let ran = person.run(&["logs", "-a", "shop", "--json"]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (1, 1), "{}", ran.stdout);
    let ran = person.run(&["exec", "P1", "sh", "-a", "shop"]);
    assert_eq!((ran.code, ran.stderr.lines().next()), (255, told.lines().next()));
    // Nothing that was said is lost.
    let unsaid = ended("closed without a word");
    let ran = Person::at(&unsaid).run(&["logs", "-a", "shop"]);
    assert!(ran.code == 1 && ran.stdout.ends_with("ERROR: this API key was revoked\n"), "{ran:?}");
    let plain = ended("at its end");
    let ran = Person::at(&plain).run(&["logs", "-a", "shop"]);
    assert!(ran.code == 0 && ran.stdout.ends_with("ERROR: this API key was revoked\n"), "{ran:?}");
}
