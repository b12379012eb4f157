//! Certificates, registries, machines, ways into the Rack's network, and what v3 added: the calls that the originals make, and their texts.

use std::io::{Read, Write};

use convox_wire::exit::marker;
use convox_wire::socket::Frame;

use crate::person::Person;
use crate::server::{Answer, Request, Server, json, status};

fn rack(request: &Request) -> Answer {
    match (request.method.as_str(), request.path.split('?').next().unwrap_or_default()) {
        ("GET", "/certificates") => {
            json(r#"[{"id":"cert-1","domain":"a.example","domains":["a.example"],"expiration":"0001-01-01T00:00:00Z"}]"#)
        }
        ("POST", "/certificates" | "/certificates/generate") => json(r#"{"id":"cert-2","domain":"b.example"}"#),
        ("GET", "/registries") => json(r#"[{"server":"ghcr.io","username":"ci","password":"hunter2"}]"#),
        ("POST", "/registries") => json(r#"{"server":"ghcr.io","username":"ci","password":""}"#),
        ("GET", "/instances") => {
            json(r#"[{"id":"i-1","status":"active","processes":3,"cpu":0.125,"memory":0.5,"public-ip":"1.2.3.4","private-ip":"10.0.0.1"}]"#)
        }
        ("POST", "/instances/keyroll") => json(r#"{"name":"k","private-key":"-----BEGIN KEY-----\n"}"#),
        ("GET", "/instances/i-1/shell") => Answer::Frames(vec![Frame::text("shell\r\n"), Frame::text(marker(4)), Frame::end()]),
        ("GET", "/apps/shop/resources/database/console") => Answer::Frames(vec![Frame::text("console"), Frame::end()]),
        ("GET", "/apps/shop/services") => json(r#"[{"name":"web","ports":[{"balancer":443,"container":3000,"certificate":"cert-1"}]}]"#),
        ("GET", "/apps/shop/balancers") => json(r#"[{"name":"main","endpoint":"1.2.3.4","ports":[],"service":"web"}]"#),
        ("GET", "/apps/shop") => json(r#"{"name":"shop","status":"running","release":"R2","generation":"2"}"#),
        ("GET", "/apps/shop/releases/R1") => json(r#"{"id":"R1","build":"B1","env":"A=1"}"#),
        ("GET", "/apps/shop/releases/R2") => json(r#"{"id":"R2","build":"B2","env":"A=2\nSECRET=s"}"#),
        ("GET", "/apps/shop/releases") => json(r#"[{"id":"R2"}]"#),
        ("POST", "/apps/shop/releases") => json(r#"{"id":"R3"}"#),
        ("GET", "/apps/shop/configs/cli-env-mask") => json(r#"{"name":"cli-env-mask","value":"SECRET"}"#),
        ("GET", path) if path.starts_with("/apps/plain/configs/") => status(404, ""),
        ("GET", "/apps/shop/resources/database") => {
            json(r#"{"name":"database","type":"postgres","url":"postgres://app:p%40ss@10.0.0.5:5432/app"}"#)
        }
        ("GET", "/apps/shop/resources/database/data") => Answer::Reply(200, Vec::new(), b"-- dump\n".to_vec()),
        ("GET", "/apps/shop/processes/web-1") => json(r#"{"id":"web-1","status":"running"}"#),
        ("POST", "/apps/shop/builds") => json(r#"{"id":"B3","status":"created"}"#),
        ("PUT", "/apps/shop/builds/B3") => json(r#"{"id":"B3"}"#),
        ("POST", "/apps/shop/builds/B3/image") => status(202, ""),
        ("GET", "/apps/shop/builds/B3") => json(r#"{"id":"B3","status":"complete","release":"R9"}"#),
        ("GET", _) => json("[]"),
        _ => status(200, "ok\n"),
    }
}

#[test]
fn certificates_registries_and_instances_are_the_originals() {
    let server = Server::start(rack);
    let person = Person::at(&server);
    std::fs::write(person.cwd().join("pub.pem"), "PUB").unwrap();
    std::fs::write(person.cwd().join("key.pem"), "KEY").unwrap();
    for (args, text) in [
        (&["certs"][..], "ID      DOMAIN     EXPIRES\ncert-1  a.example  \n"),
        (&["certs", "generate", "b.example", "www.b.example"], "Generating certificate... OK, cert-2\n"),
        (&["certs", "import", "pub.pem", "key.pem"], "Importing certificate... OK, cert-2\n"),
        (&["certs", "delete", "cert-1"], "Deleting certificate cert-1... OK\n"),
        (&["certs", "renew", "-a", "shop"], "Renewing certificate shop... OK\n"),
        (&["ssl", "-a", "shop"], "ENDPOINT  CERTIFICATE  DOMAIN     EXPIRES\nweb:443   cert-1       a.example  \n"),
        (&["registries"], "SERVER   USERNAME\nghcr.io  ci\n"),
        (&["registries", "add", "ghcr.io", "ci", "hunter2"], "Adding registry... OK\n"),
        (&["registries", "remove", "ghcr.io/v1"], "Removing registry... OK\n"),
        (
            &["instances"],
            "ID   STATUS  STARTED  PS  CPU     MEM     PUBLIC   PRIVATE\ni-1  active           3   12.50%  50.00%  1.2.3.4  10.0.0.1\n",
        ),
        (&["instances", "terminate", "i-1"], "Terminating instance... OK\n"),
        (&["instances", "keyroll"], "Rolling instance key... OK\n-----BEGIN KEY-----\n"),
    ] {
        assert_eq!(person.run(args).ok(), text, "{args:?}");
    }
    let sent = server.seen();
    let body = |line: &str| sent.iter().find(|request| request.line() == line).map(Request::text).unwrap_or_else(|| panic!("{line}"));
    assert_eq!(body("POST /certificates/generate"), "domains=b.example%2Cwww.b.example");
    assert_eq!(body("POST /certificates"), "key=KEY&pub=PUB");
    assert_eq!(body("POST /registries"), "password=hunter2&server=ghcr.io&username=ci");
    assert_eq!(body("DELETE /registries/ghcr.io/v1"), "");
    assert_eq!(body("POST /certificates/shop/renew"), "");
    assert_eq!(person.run(&["ssl", "update", "web:443", "cert-1", "-a", "shop"]).ok(), "Updating certificate... OK\n");
    assert!(server.seen().iter().any(|request| request.line() == "PUT /apps/shop/ssl/web/443" && request.text() == "id=cert-1"));
    let refused = person.run(&["ssl", "update", "web", "cert-1", "-a", "shop"]).err();
    assert!(refused.starts_with("ERROR: process:port required as first argument\n"), "{refused}");
    // A password of somebody else is in no list, and need not be on a command line.
    assert!(!person.run(&["registries", "--json"]).ok().contains("hunter2"));
    assert_eq!(person.feed(&["registries", "add", "ghcr.io", "ci", "--password-stdin"], b"piped\n").ok(), "Adding registry... OK\n");
    assert!(server.seen().iter().any(|request| request.text().contains("password=piped")));
}

#[test]
fn a_machines_shell_gives_its_code_and_a_resources_console_has_none() {
    let server = Server::start(rack);
    let person = Person::at(&server);
    let ran = person.run(&["instances", "ssh", "i-1", "--", "df", "-h"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (4, "shell\r\n"), "{ran:?}");
    assert_eq!(server.seen()[0].header("Command"), Some("df -h"));
    assert_eq!(person.run(&["resources", "console", "database", "-a", "shop"]).ok(), "console");
}

/// Answers as a Rack of this machine does, or as a Console with the same Rack behind it.
fn startable(is_console: bool) -> impl Fn(&Request) -> Answer + Send + Sync {
    move |request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/racks") if is_console => {
            json(r#"[{"name":"prod","organization":{"name":"acme"},"provider":"local","status":"running"}]"#)
        }
        ("GET", "/racks") => status(404, ""),
        ("GET", "/system") => json(r#"{"name":"prod","provider":"local","status":"running"}"#),
        ("GET", "/apps/shop/services") => json(r#"[{"name":"web"},{"name":"worker"}]"#),
        ("GET", "/apps/shop/logs") => Answer::Frames(vec![
            Frame::text("T1 service/web/web-1 one\nT2 system/app no\nT3 service/wor"),
            Frame::text("ker/w-1 two\nT4 service/other/x no\n"),
            Frame::end(),
        ]),
        _ => rack(request),
    }
}

#[test]
fn start_refuses_every_rack_but_one_of_this_machine_before_anything_is_changed() {
    let hint = "hint: convox rack install local, then convox start -r local; elsewhere: convox deploy\n";
    let console = Server::start(startable(true));
    let person = Person::at(&console);
    // Every Rack of ours calls itself local, so its word is not what decides.
    for args in
        [&["start", "-a", "shop", "-r", "acme/prod"][..], &["start", "-a", "shop", "-r", "prod"], &["start", "-a", "shop", "--no-build"]]
    {
        let refused = person.run(args).err();
        assert!(
            refused.contains(" is behind a Console; start runs apps on a rack of this machine only") && refused.ends_with(hint),
            "{refused}"
        );
    }
    assert!(console.lines().iter().all(|line| line == "GET /racks"), "{:?}", console.lines());
    // Somewhere else: not even asked.
    let person = person.with("RACK_URL", "https://convox:k@rack.invalid");
    let refused = person.run(&["start", "-a", "shop"]).err();
    assert_eq!(refused, format!("ERROR: rack.invalid is not on this machine; start runs apps on a rack of this machine only\n{hint}"));
    // What this machine knows by name is not therefore on this machine.
    let person = Person::new();
    person.save("self-managed", r#"{"desk":"10.255.255.1:5443"}"#);
    person.save("auth", r#"{"10.255.255.1:5443":"k"}"#);
    assert!(person.run(&["start", "-a", "shop", "-r", "desk"]).err().contains("is not on this machine"));
}

#[test]
fn start_shows_the_logs_of_the_services_that_were_named() {
    let server = Server::start(startable(false));
    let person = Person::at(&server);
    let lines = |args: &[&str]| {
        // What precedes is the log of the promotion, of whatever service.
        let said = person.run(args).ok();
        said.rsplit_once("OK\n").unwrap().1.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let start = ["start", "-a", "shop", "--no-build", "--no-sync"];
    assert_eq!(lines(&[&start[..], &["worker", "web"]].concat()), ["T1 service/web/web-1 one", "T3 service/worker/w-1 two"]);
    let refused = person.run(&[&start[..], &["wbe"]].concat()).err();
    assert!(refused.contains("ERROR: shop has no service wbe") && refused.contains("its services: web, worker"), "{refused}");
    for old in [&["-g", "1"][..], &["-s", "1000"]] {
        assert!(person.run(&[&start[..], old].concat()).err().contains("generation 1"), "{old:?}");
    }
}

#[test]
fn the_flags_that_v3_added_travel_as_v3_sends_them() {
    let server = Server::start(|request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/system") => json(r#"{"name":"main","version":"3.24.6"}"#),
        ("GET", path) if path.ends_with("/logs") => Answer::Frames(vec![Frame::end()]),
        ("POST", "/apps/shop/services/web/processes") => json(r#"{"id":"web-9","status":"running"}"#),
        ("GET", "/apps/shop/configs") => json(r#"[{"name":"cli-env-mask"},{"name":"nginx"}]"#),
        ("GET", "/apps/shop/configs/nginx") => json(r#"{"name":"nginx","value":"worker_processes 1;"}"#),
        ("POST", "/apps") => json(r#"{"name":"shop","status":"running"}"#),
        _ => rack(request),
    });
    let person = Person::at(&server);
    std::fs::write(person.cwd().join("nginx.conf"), "a\n").unwrap();
    let one = |args: &[&str], line: &str| {
        server.forget();
        person.run(args).ok();
        server.seen().into_iter().find(|request| request.line() == line).unwrap_or_else(|| panic!("{args:?}: {:?}", server.lines()))
    };
    for (args, line, headers) in [
        (
            &["logs", "-a", "shop", "-s", "web", "--tail", "5", "--allow-previous", "--max-log-requests", "20"][..],
            "GET /apps/shop/services/web/logs",
            &[("Tail", "5"), ("Previous", "true"), ("Maxlogrequests", "20"), ("Prefix", "true")][..],
        ),
        (&["logs", "-a", "shop", "--tail", "5"], "GET /apps/shop/logs", &[("Tail", "5")]),
        (&["rack", "logs", "--tail", "7", "--allow-previous"], "GET /system/logs", &[("Tail", "7"), ("Previous", "true")]),
        (
            &[
                "run",
                "web",
                "job",
                "-d",
                "-a",
                "shop",
                "--cpu",
                "256",
                "--cpu-limit",
                "512",
                "--memory",
                "128",
                "--memory-limit",
                "256",
                "--gpu",
                "1",
                "--gpu-vendor",
                "nvidia",
                "--node-labels",
                "a=b",
                "--system-critical",
                "--use-service-volume",
            ],
            "POST /apps/shop/services/web/processes",
            &[
                ("Command", "job"),
                ("Cpu", "256"),
                ("Cpu-Limit", "512"),
                ("Memory", "128"),
                ("Memory-Limit", "256"),
                ("Gpu", "1"),
                ("Gpu-Vendor", "nvidia"),
                ("Node-Labels", "a=b"),
                ("System-Critical", "true"),
                ("Use-Service-Volume", "true"),
            ],
        ),
    ] {
        let request = one(args, line);
        for (name, value) in headers {
            assert_eq!(request.header(name), Some(*value), "{args:?} {name}");
        }
    }
    // What was not given is not sent.
    let plain = one(&["run", "web", "job", "-d", "-a", "shop"], "POST /apps/shop/services/web/processes");
    assert!(["Cpu", "Gpu", "System-Critical", "Use-Service-Volume"].iter().all(|name| plain.header(name).is_none()), "{plain:?}");
    for (args, line, body) in [
        (&["env", "set", "A=3", "-a", "shop", "--release", "R1"][..], "POST /apps/shop/releases", "env=A%3D3&parent-release=R1"),
        (&["env", "unset", "A", "-a", "shop", "--release", "R2"], "POST /apps/shop/releases", "env=SECRET%3Ds&parent-release=R2"),
        (&["releases", "rollback", "R1", "-a", "shop", "--force"], "POST /apps/shop/releases/R3/promote", "force=true"),
        (&["rack", "update", "9", "--force"], "PUT /system", "force=true&version=9"),
        (&["rack", "params", "set", "HighAvailability=true", "--force"], "PUT /system", "parameters=HighAvailability%3Dtrue"),
        (&["scale", "web", "-a", "shop", "--min", "1", "--max", "4"], "PUT /apps/shop/services/web", "max=4&min=1"),
        (&["scale", "web", "-a", "shop", "--gpu", "1", "--gpu-vendor", "amd"], "PUT /apps/shop/services/web", "gpu=1&gpu-vendor=amd"),
        (&["services", "update", "web", "-a", "shop", "--count", "2"], "PUT /apps/shop/services/web", "count=2"),
        (&["apps", "create", "shop", "--timeout", "90"], "POST /apps", "name=shop&timeout=90"),
        (&["certs", "--generated"], "GET /certificates", "generated=true"),
        (&["config", "set", "nginx", "-a", "shop", "-f", "nginx.conf"], "PUT /apps/shop/configs/nginx", "value=YQo%3D"),
        (&["config", "set", "nginx", "-a", "shop", "--value", "a"], "PUT /apps/shop/configs/nginx", "value=YQ%3D%3D"),
    ] {
        assert_eq!(one(args, line).text(), body, "{args:?}");
    }
    one(
        &["cp", "nginx.conf", "web-1:/etc/", "-a", "shop", "--tar-extra", "--no-same-owner"],
        "POST /apps/shop/processes/web-1/files?tar-extra=--no-same-owner",
    );
    assert_eq!(person.run(&["env", "get", "A", "-a", "shop", "--release", "R1"]).ok(), "1\n");
    assert_eq!(person.run(&["configs", "-a", "shop"]).ok(), "CONFIG-ID\ncli-env-mask\nnginx\n");
    assert_eq!(person.run(&["config", "get", "nginx", "-a", "shop"]).ok(), "worker_processes 1;\n");
    assert_eq!(person.run(&["scale", "web", "-a", "shop"]).ok().lines().count(), 2);
    // One who asks for what cannot be is told.
    for (args, words) in [
        (&["scale", "nosuch", "-a", "shop"][..], "service \"nosuch\" not found in app shop"),
        (&["scale", "web", "--count", "1", "--min", "1"], "exclude each other"),
        (&["scale", "web", "--min", "5", "--max", "4"], "--max must be >= --min"),
        (&["services", "update", "web"], "nothing to change"),
        (&["config", "set", "x"], "--file or --value flag is required"),
        (&["deploy", "--external"], "convox builds import-image"),
        (&["cp", "web-1:/x", ".", "--tar-extra", "-v"], "nothing is unpacked in one here"),
        (&["apps", "--watch", "1", "--json"], "--watch and --json exclude each other"),
        (&["budget", "show", "shop"], "a convox-rack has no prices"),
        (&["encrypt", "--key", "k", "--data", "d"], "on this machine"),
    ] {
        let refused = person.run(args).err();
        assert!(refused.contains(words), "{args:?}: {refused}");
    }
}

#[test]
fn a_watched_list_is_shown_again_until_control_c() {
    use std::io::BufRead as _;
    let server = Server::start(|_| json(r#"[{"name":"shop","status":"running","release":"R1"}]"#));
    let person = Person::at(&server);
    let mut child = person.command(&["apps", "--watch", "1"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok).take(7).collect();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(lines, ["Every 1s:", "", "APP   STATUS   RELEASE", "shop  running  R1", "Every 1s:", "", "APP   STATUS   RELEASE"]);
    let failing = Server::start(|_| status(500, "broken"));
    assert!(Person::at(&failing).run(&["apps", "--watch", "1"]).err().contains("broken"));
}

#[test]
fn what_v3_added_makes_v3s_calls() {
    let server = Server::start(rack);
    let person = Person::at(&server);
    std::fs::write(person.cwd().join("convox.yml"), "services: {}\n").unwrap();
    for (args, text) in [
        (
            &["releases", "create-from", "--build-from", "R1", "--use-active-release-env", "-a", "shop"][..],
            "Using build from release: R1\nUsing env from release: R2\nCreated release: R3\nOK\n",
        ),
        (&["balancers", "-a", "shop"], "BALANCER  SERVICE  ENDPOINT\nmain      web      1.2.3.4\n"),
        (&["env", "mask", "-a", "shop"], "SECRET\n"),
        (&["env", "mask", "-a", "plain"], ""),
        (&["env", "mask", "set", "TOKEN", "-a", "shop"], "Setting masked env keys TOKEN... OK\n"),
        (&["env", "mask", "unset", "SECRET", "-a", "shop"], "Unsetting masked env keys SECRET... OK\n"),
        // Not on a terminal, so it is data, and complete.
        (&["env", "-a", "shop"], "A=2\nSECRET=s\n"),
        (
            &["builds", "import-image", "ghcr.io/shop:1", "-a", "shop", "--src-creds-user", "ci", "--src-creds-pass", "pw"],
            "Creating build... OK, B3\nRelaying image ghcr.io/shop:1... OK\nWaiting for import to complete... OK, R9\n",
        ),
        (&["resources", "export", "database", "-a", "shop"], "-- dump\n"),
    ] {
        assert_eq!(person.run(args).ok(), text, "{args:?}");
    }
    assert_eq!(person.feed(&["resources", "import", "database", "-a", "shop"], b"-- dump\n").ok(), "Importing resource data... OK\n");
    let sent = server.seen();
    let bodies = |line: &str| sent.iter().filter(|request| request.line() == line).map(Request::text).collect::<Vec<_>>();
    assert_eq!(
        bodies("POST /apps/shop/releases"),
        ["build=B1&description=Created+from+build+release%3A+R1+and+environment+release%3A+R2&env=A%3D2%0ASECRET%3Ds"]
    );
    // Base64 of `SECRET,TOKEN`, and of nothing.
    assert_eq!(bodies("PUT /apps/shop/configs/cli-env-mask"), ["value=U0VDUkVULFRPS0VO", "value="]);
    assert_eq!(bodies("POST /apps/shop/builds"), ["external=true&url="]);
    assert_eq!(bodies("PUT /apps/shop/builds/B3"), ["manifest=services%3A+%7B%7D%0A"]);
    assert_eq!(bodies("POST /apps/shop/builds/B3/image"), ["image=ghcr.io%2Fshop%3A1&src-creds-pass=pw&src-creds-user=ci"]);
    assert_eq!(bodies("PUT /apps/shop/resources/database/data"), ["-- dump\n"]);
    let unsure = person.run(&["releases", "create-from", "--build-from", "R1", "-a", "shop"]).err();
    assert!(unsure.starts_with("ERROR: must specify either --env-from or --use-active-release-env\n"), "{unsure}");
}

#[test]
fn a_connection_goes_on_inside_the_rack() {
    let server = Server::start(|request| match request.path.as_str() {
        "/proxy/10.0.0.5/5432" => Answer::Frames(vec![Frame::text("from inside"), Frame::end()]),
        _ => rack(request),
    });
    let person = Person::at(&server);
    let mut child = person.command(&["resources", "proxy", "database", "-a", "shop", "--port", "0"]).spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let port = line
        .strip_prefix("proxying localhost:")
        .and_then(|rest| rest.split_once(" to 10.0.0.5:5432\n"))
        .unwrap_or_else(|| panic!("{line}"))
        .0;
    let mut socket = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    socket.write_all(b"to inside").unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(said, "from inside");
    for (args, text) in [
        (&["proxy", "nowhere"][..], "invalid argument: nowhere"),
        (&["proxy", "a:1", "--tls"], "--tls is not carried by the protocol"),
        (&["cp", "a", "b", "-a", "shop"], "neither of the two names a process"),
        (&["cp", "web-1:relative", ".", "-a", "shop"], "must specify absolute paths for processes"),
        (&["update"], "not a command of this convox: update"),
        (&["letsencrypt", "dns", "route53", "list"], "not a command of this convox: letsencrypt dns route53 list"),
        (&["rack", "sync"], ""),
    ] {
        let said = person.run(args).err();
        assert!(said.starts_with(&format!("ERROR: {text}")), "{args:?}: {said}");
    }
}
