//! What travels: headers, forms, paths, sockets.

use convox_wire::exit::marker;
use convox_wire::socket::Frame;

use crate::person::Person;
use crate::server::{Answer, Request, Server, json, status};

fn rack(request: &Request) -> Answer {
    match (request.method.as_str(), request.path.split('?').next().unwrap_or_default()) {
        ("GET", "/system") => json(r#"{"name":"r","status":"running","version":"20260101000000","rack-domain":"rack.example"}"#),
        ("GET", "/apps/myapp") => json(r#"{"name":"myapp","status":"running","release":"R1"}"#),
        ("GET", "/apps/myapp/releases") => json(r#"[{"id":"R1"}]"#),
        ("GET", "/apps/myapp/releases/R1") => json(r#"{"id":"R1","build":"B1","env":"A=1\nB=2"}"#),
        ("POST", "/apps/myapp/releases") => json(r#"{"id":"R2"}"#),
        ("POST", "/apps/myapp/builds") => json(r#"{"id":"B1","app":"myapp","status":"running"}"#),
        ("GET", "/apps/myapp/builds/B1") => json(r#"{"id":"B1","app":"myapp","status":"complete","release":"R1"}"#),
        ("GET", "/apps/myapp/builds/B1/logs") => Answer::Frames(vec![Frame::text("step 1\n"), Frame::text("step 2\n"), Frame::end()]),
        ("POST", path) if path.starts_with("/apps/myapp/objects/tmp/") => json(r#"{"Url":"object://myapp/tmp/x.tgz"}"#),
        ("POST", "/apps/myapp/services/web/processes") => json(r#"{"id":"P1","status":"running"}"#),
        ("GET", "/apps/myapp/processes/P1") => json(r#"{"id":"P1","status":"running"}"#),
        ("GET", "/apps/myapp/processes/P1/exec") => Answer::Frames(vec![Frame::text("out\n"), Frame::text(marker(7)), Frame::end()]),
        ("POST", "/system/jwt/token") => json(r#"{"token":"a.b.c"}"#),
        ("GET", _) => json("[]"),
        _ => status(200, "ok\n"),
    }
}

#[test]
fn a_plain_request_carries_the_originals_headers() {
    let server = Server::start(rack);
    let person = Person::at(&server).with("CONVOX_ACTOR", "ci");
    person.save("auth", &format!(r#"{{"{}": "p /@:+%w"}}"#, server.host()));
    person.save("session", &format!(r#"{{"{}": "S1"}}"#, server.host()));
    person.run(&["apps", "-r", "acme/main"]).ok();
    let request = &server.seen()[0];
    // Basic of `convox:p+%2F%40%3A+%25w`, as protocol 1.3 has it.
    assert_eq!(request.header("Authorization"), Some("Basic Y29udm94OnArJTJGJTQwJTNBKyUyNXc="));
    for (name, value) in [
        ("Host", server.host().as_str()),
        ("User-Agent", concat!("convox/", env!("CARGO_PKG_VERSION"))),
        ("Version", "dev"),
        ("Accept", "*/*"),
        ("Content-Type", "application/octet-stream"),
        ("Rack", "acme/main"),
        ("Session", "S1"),
        ("X-Convox-Actor", "ci"),
    ] {
        let found = request.headers.iter().find(|(key, _)| key == name);
        assert_eq!(found.map(|(_, value)| value.as_str()), Some(value), "{name} in {:?}", request.headers);
    }
}

#[test]
fn names_are_escaped_and_never_leave_their_segment() {
    let server = Server::start(rack);
    let person = Person::at(&server);
    person.run(&["apps", "info", "a/../b?x#y"]).ok();
    assert_eq!(server.lines(), ["GET /apps/a%2F..%2Fb%3Fx%23y"]);
    let said = person.run(&["ps", "info", "..", "-a", "myapp"]).err();
    assert!(said.contains("`..` is no name"), "{said}");
    assert_eq!(server.lines().len(), 1);
}

#[test]
fn one_connection_serves_a_command() {
    let server = Server::start(rack);
    let person = Person::at(&server);
    person.run(&["env", "set", "C=3"]).ok();
    assert_eq!(server.connections(), 1);
    assert_eq!(server.lines(), ["GET /apps/myapp/releases?limit=1", "GET /apps/myapp/releases/R1", "POST /apps/myapp/releases"]);
    assert_eq!(server.seen()[2].text(), "env=A%3D1%0AB%3D2%0AC%3D3");
    assert_eq!(server.seen()[2].header("Content-Type"), Some("application/x-www-form-urlencoded"));
}

#[test]
fn a_build_packages_uploads_builds_and_shows_the_log() {
    let server = Server::start(rack);
    let person = Person::at(&server);
    std::fs::write(person.cwd().join("convox.yml"), "services: {}\n").unwrap();
    let ran = person.run(&["build", "-d", "my text"]);
    assert_eq!(
        ran.ok(),
        "Packaging source... OK\nUploading source... OK\nStarting build... OK\nstep 1\nstep 2\nBuild:   B1\nRelease: R1\n"
    );
    let seen = server.seen();
    let upload = seen.iter().find(|request| request.path.contains("/objects/tmp/")).unwrap();
    let key = upload.path.strip_prefix("/apps/myapp/objects/tmp/").unwrap();
    assert!(key.len() == 34 && key.strip_suffix(".tgz").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit())), "{key}");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(upload.body.as_slice()));
    let names: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names, ["convox.yml"]);
    let create = seen.iter().find(|request| request.line() == "POST /apps/myapp/builds").unwrap();
    assert_eq!(create.text(), "description=my+text&url=object%3A%2F%2Fmyapp%2Ftmp%2Fx.tgz");
    // Only the release on standard output.
    let ran = person.run(&["build", "--id"]);
    assert!(ran.stderr.contains("Packaging source... OK\n") && ran.stderr.contains("step 2\n"));
    assert_eq!(ran.ok(), "R1");
    let made: serde_json::Value = serde_json::from_str(&person.run(&["build", "--json"]).ok()).unwrap();
    assert_eq!((made["build"].as_str(), made["release"].as_str()), (Some("B1"), Some("R1")));
}

#[test]
fn exec_passes_bytes_both_ways_and_gives_the_exit_code() {
    let server = Server::start(|request| if request.path.ends_with("/exec") { Answer::Echo } else { rack(request) });
    let person = Person::at(&server);
    let input: Vec<u8> = (0..5000u32).map(|number| (number % 251) as u8).filter(|byte| *byte < 128).collect();
    let ran = person.feed(&["exec", "P1", "cat", "-"], &input);
    assert_eq!(ran.stdout.as_bytes(), input);
    ran.ok();
    let request = &server.seen()[0];
    assert_eq!(request.line(), "GET /apps/myapp/processes/P1/exec");
    assert_eq!(request.header("Command"), Some("cat -"));
    assert_eq!(request.header("Tty"), Some("false"));
    assert_eq!(request.header("Origin"), Some(format!("https://{}", server.host()).as_str()));
    assert_eq!((request.header("Upgrade"), request.header("Connection")), (Some("websocket"), Some("Upgrade")));
    assert_eq!((request.header("Accept"), request.header("Content-Type"), request.header("Height")), (None, None, None));
    assert_eq!(server.lines().len(), 1, "what the handshake answers is read, so nothing is asked before it");
}

#[test]
fn run_runs_inside_a_sleeper_and_stops_it_afterwards() {
    let server = Server::start(rack);
    let ran = Person::at(&server).run(&["run", "web", "rake", "db:migrate", "--release", "R1", "-t", "60"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (7, "out\n"), "{ran:?}");
    let seen = server.seen();
    assert_eq!(
        (seen[0].line().as_str(), seen[0].header("Command"), seen[0].header("Release")),
        ("POST /apps/myapp/services/web/processes", Some("sleep 60"), Some("R1"))
    );
    let exec = seen.iter().find(|request| request.path.ends_with("/exec")).unwrap();
    assert_eq!((exec.header("Command"), exec.header("Entrypoint")), (Some("rake db:migrate"), Some("true")));
    assert_eq!(seen.last().unwrap().line(), "DELETE /apps/myapp/processes/P1");
}

#[test]
fn a_stream_that_ends_without_a_code_is_a_failure() {
    for answer in [|| Answer::Frames(vec![Frame::text("half"), Frame::end()]), || Answer::Cut(vec![Frame::text("half")])] {
        let server = Server::start(move |_| answer());
        let ran = Person::at(&server).run(&["exec", "P1", "sh"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (255, "half"), "{ran:?}");
        assert!(ran.stderr.starts_with("ERROR: "), "{ran:?}");
    }
    // Output that looks like the marker is output.
    let server =
        Server::start(|_| Answer::Frames(vec![Frame::text(marker(0)), Frame::text("more\n"), Frame::text(marker(3)), Frame::end()]));
    let ran = Person::at(&server).run(&["exec", "P1", "sh"]);
    assert_eq!((ran.code, ran.stdout), (3, format!("{}more\n", marker(0))));
}

#[test]
fn a_refused_socket_says_why() {
    let server = Server::start(|_| status(403, "process exec requires write access\n"));
    assert!(Person::at(&server).run(&["exec", "P1", "sh"]).err().starts_with("ERROR: process exec requires write access\n"));
    // Originals refuse after the upgrade.
    let server = Server::start(|_| Answer::Frames(vec![Frame::text("ERROR: app not found: myapp\n"), Frame::end()]));
    assert!(Person::at(&server).run(&["logs"]).err().starts_with("ERROR: app not found: myapp\n"));
    let server = Server::start(|_| Answer::Frames(vec![Frame::text(b"\0{\"sessionId\":\"x\"}".to_vec()), Frame::end()]));
    assert!(Person::at(&server).run(&["exec", "P1", "sh"]).err().contains("Session Manager"));
}

#[test]
fn logs_pass_through_unchanged_and_carry_their_options_as_headers() {
    let line = b"2026-01-01T00:00:00Z service/web/1 \x1b[31m<app>\xff</app>\n".to_vec();
    let frames = line.clone();
    let server = Server::start(move |_| Answer::Frames(vec![Frame::text(frames.clone()), Frame::end()]));
    let person = Person::at(&server);
    let output = person.command(&["logs", "--filter", "x y", "--since", "10m", "--no-follow"]).output().unwrap();
    assert_eq!(output.stdout, line);
    let request = &server.seen()[0];
    assert_eq!(request.line(), "GET /apps/myapp/logs");
    assert_eq!(
        (request.header("Filter"), request.header("Since"), request.header("Follow"), request.header("Prefix")),
        (Some("x y"), Some("10m0s"), Some("false"), Some("true"))
    );
    let output = person.command(&["logs", "--json"]).output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((value["time"].as_str(), value["stream"].as_str()), (Some("2026-01-01T00:00:00Z"), Some("service/web/1")));
}

#[test]
fn a_token_is_asked_for_and_printed_as_the_originals_do() {
    let server = Server::start(rack);
    let person = Person::at(&server);
    assert_eq!(
        person.run(&["rack", "access", "--role", "read", "--duration-in-hours", "2"]).ok(),
        "RACK_URL=https://jwt:a.b.c@rack.example\n"
    );
    assert_eq!(server.lines(), ["GET /system", "POST /system/jwt/token"]);
    assert_eq!(server.seen()[1].text(), "durationInHour=2&role=read");
    assert!(person.run(&["rack", "access", "--role", "read"]).err().starts_with("ERROR: duration is required\n"));
    assert!(person.run(&["rack", "access"]).err().starts_with("ERROR: role is required\n"));
}

#[test]
fn a_redirect_is_never_followed() {
    let elsewhere = Server::start(rack);
    let location = format!("https://{}/apps", elsewhere.host());
    let server = Server::start(move |_| Answer::Reply(302, vec![("Location", location.clone())], Vec::new()));
    let said = Person::at(&server).run(&["apps"]).err();
    assert!(said.contains("redirects to https://"), "{said}");
    assert_eq!((elsewhere.connections(), server.lines().len()), (0, 1));
}

#[test]
fn a_kept_connection_that_the_server_closed_is_replaced() {
    let server = Server::start(|request| match request.path.as_str() {
        // Promised to be kept, then closed after the answer: the next request finds it gone.
        "/apps/myapp" => Answer::Last(br#"{"name":"myapp","release":"R1"}"#.to_vec()),
        "/apps/myapp/releases" => json("[]"),
        _ => status(404, ""),
    });
    Person::at(&server).run(&["releases"]).ok();
    assert_eq!(server.connections(), 2);
    let server = Server::start(|_| Answer::Nothing);
    let said = Person::at(&server).run(&["apps"]).err();
    assert!(said.contains("ended early"), "{said}");
    assert_eq!(server.lines().len(), 1, "a first request is not repeated");
}

#[test]
fn an_import_streams_the_archive_and_waits_for_its_release() {
    let server = Server::start(|request| match request.line().as_str() {
        "POST /apps/myapp/builds/import" => json(r#"{"id":"B9","app":"myapp","status":"running"}"#),
        _ => match rack(request) {
            Answer::Reply(200, _, _) if request.path == "/apps/myapp/builds/B9" => {
                json(r#"{"id":"B9","app":"myapp","status":"complete","release":"R9"}"#)
            }
            answer => answer,
        },
    });
    let person = Person::at(&server);
    let ran = person.feed(&["builds", "import"], &vec![9; 200_000]);
    assert_eq!(ran.ok(), "Importing build... OK, R9\n");
    let import = server.seen().into_iter().find(|request| request.path.ends_with("/import")).unwrap();
    assert_eq!(import.header("Content-Type"), Some("application/octet-stream"));
    assert_eq!(import.body, vec![9; 200_000]);
}

#[test]
fn an_export_is_whole_or_not_there() {
    let server = Server::start(|request| match request.path.as_str() {
        "/apps/myapp/builds/B1.tgz" => Answer::Reply(200, Vec::new(), vec![7; 300_000]),
        _ => status(404, "build not found: B2\n"),
    });
    let person = Person::at(&server);
    assert_eq!(person.run(&["builds", "export", "B1", "-f", "b.tgz"]).ok(), "Exporting build... OK\n");
    assert_eq!(std::fs::read(person.cwd().join("b.tgz")).unwrap(), vec![7; 300_000]);
    let output = person.command(&["builds", "export", "B1"]).output().unwrap();
    assert_eq!(output.stdout.len(), 300_000);
    assert!(person.run(&["builds", "export", "B2", "-f", "c.tgz"]).err().starts_with("ERROR: build not found: B2\n"));
    assert!(!person.cwd().join("c.tgz").exists());
}

/// An app with two resources, one of which cannot be exported.
fn with_resources(request: &Request) -> Answer {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/apps/shop" | "/apps/copy") => {
            json(r#"{"name":"shop","status":"running","release":"R1","generation":"2","parameters":{}}"#)
        }
        ("GET", "/apps/shop/releases/R1") => json(r#"{"id":"R1","build":"B1","env":"A=1"}"#),
        ("GET", "/apps/shop/builds/B1.tgz") => Answer::Reply(200, Vec::new(), b"archive".to_vec()),
        ("GET", "/apps/shop/resources") => json(r#"[{"name":"cache","type":"redis"},{"name":"database","type":"postgres"}]"#),
        ("GET", "/apps/shop/resources/cache/data") => status(400, "export not available for resources of type: redis"),
        ("GET", "/apps/shop/resources/database/data") => Answer::Reply(200, Vec::new(), b"-- dump".to_vec()),
        ("POST", "/apps") => json(r#"{"name":"copy","status":"running"}"#),
        ("POST", "/apps/copy/builds/import") => json(r#"{"id":"B2","status":"complete","release":"R2"}"#),
        ("POST", "/apps/copy/releases") => json(r#"{"id":"R3"}"#),
        ("PUT", "/apps/copy/resources/other/data") => status(404, "resource not found: other"),
        _ => status(200, ""),
    }
}

#[test]
fn an_apps_export_has_the_data_of_its_resources_and_says_what_it_has_not() {
    let server = Server::start(with_resources);
    let person = Person::at(&server);
    let ran = person.run(&["apps", "export", "shop", "-f", "shop.tgz"]);
    assert!(
        ran.stdout.contains("Exporting resource cache... left out\nExporting resource database... OK\nPackaging export... OK\n"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("NOTICE: the data of cache is not in the export: export not available"), "{ran:?}");
    let listed = std::process::Command::new("tar").args(["-tzf", "shop.tgz"]).current_dir(person.cwd()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "app.json\nenv\nbuild.tgz\nresources/database.tgz\n");
    let said = person.run(&["apps", "import", "copy", "-f", "shop.tgz"]).ok();
    assert!(said.ends_with("Promoting R3... OK\nImporting resource database... OK\n"), "{said}");
    let sent = server.seen().into_iter().find(|request| request.line() == "PUT /apps/copy/resources/database/data").unwrap();
    assert_eq!(sent.text(), "-- dump");

    // As v3 packs it: names with a dot before them; and nothing that tries to be elsewhere is touched.
    std::fs::create_dir_all(person.cwd().join("v3/resources/deep")).unwrap();
    for (name, text) in
        [("app.json", r#"{"name":"shop"}"#), ("resources/other.tgz", "data"), ("resources/deep/x.tgz", ""), ("resources/.hidden.tgz", "")]
    {
        std::fs::write(person.cwd().join("v3").join(name), text).unwrap();
    }
    let packed = std::process::Command::new("tar").args(["-czf", "v3.tgz", "-C", "v3", "."]).current_dir(person.cwd()).status().unwrap();
    assert!(packed.success());
    let refused = person.run(&["apps", "import", "copy", "-f", "v3.tgz"]).err();
    assert!(refused.contains("the app is there, and the data of its resource other is not: resource not found: other"), "{refused}");
    assert!(refused.contains("hint: take resources/other.tgz out of v3.tgz with tar"), "{refused}");
}
