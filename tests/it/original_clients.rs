//! What the unmodified v2 and v3 clients send, byte by byte, and the answers that they expect.
//! The sequences are those of captures of the originals.

use convox_testkit::go::{Generation, GoClient, Message};
use convox_testkit::{Reply, Stack};

const BOTH: [Generation; 2] = [Generation::V2, Generation::V3];

/// Every way in which an original client can reach the Rack.
fn clients(stack: &Stack) -> Vec<GoClient> {
    BOTH.into_iter().flat_map(|generation| [stack.go(generation), stack.go_direct(generation)]).collect()
}

#[track_caller]
fn ok(reply: &Reply) {
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok\n"));
}

/// A gzip-compressed tar with these files, as the clients package sources.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    std::process::Command::new("tar").args(["-czf", "-", "-C"]).arg(dir.path()).arg(".").output().unwrap().stdout
}

#[test]
fn login_asks_auth_without_a_rack() {
    let stack = Stack::start().unwrap();
    for generation in BOTH {
        let mut client = stack.go(generation);
        client.rack = None;
        let reply = client.get("/auth", "").unwrap();
        assert_eq!(reply.status, 200);
        assert!(reply.json()["id"].as_str().is_some_and(|id| !id.is_empty()), "{}", reply.text());
        client.password = "wrong".to_owned();
        let reply = client.get("/auth", "").unwrap();
        assert_eq!(reply.status, 401);
        assert!(reply.header("www-authenticate").is_none_or(|value| !value.starts_with("Session")), "no session is demanded");
        ok(&stack.go_direct(generation).get("/auth", "").unwrap());
    }
}

#[test]
fn racks_lists_what_the_caller_may_see_even_with_a_rack_selected() {
    let stack = Stack::start().unwrap();
    for generation in BOTH {
        let reply = stack.go(generation).get("/racks", "").unwrap();
        let list = reply.json();
        assert_eq!(list[0]["name"], "main", "{}", reply.text());
        assert_eq!(list[0]["organization"]["name"], "acme");
        assert!(list[0]["status"].is_string() && list[0]["provider"].is_string());
        assert_eq!(reply.header("content-type"), Some("application/json"));
        // A bare Rack does not know the route; the clients ignore that.
        let reply = stack.go_direct(generation).get("/racks", "").unwrap();
        assert_eq!((reply.status, reply.body.len()), (404, 0), "unknown routes have an empty body");
    }
    let one = stack.go(Generation::V3).get("/racks/acme/main", "").unwrap();
    assert_eq!(one.json()["name"], "main", "{}", one.text());
    assert!(one.json()["state"].is_null(), "a Rack that is updated through its own API");
    let runtimes = stack.go(Generation::V2).get("/racks/acme/main/runtimes", "").unwrap();
    assert_eq!(runtimes.status, 200);
}

#[test]
fn a_rack_is_found_by_header_by_short_name_and_by_user_name() {
    use base64::Engine as _;
    let stack = Stack::start().unwrap();
    let mut client = stack.go(Generation::V2);
    for name in ["main", "acme/main"] {
        client.rack = Some(name.to_owned());
        assert_eq!(client.get("/system", "").unwrap().json()["name"], "main");
    }
    client.rack = Some("mai".to_owned());
    assert_eq!(client.get("/system", "").unwrap().status, 404);
    client.rack = None;
    assert_eq!(client.get("/system", "").unwrap().status, 400, "no Rack is named");
    client.user = base64::engine::general_purpose::STANDARD.encode("acme/main");
    assert_eq!(client.get("/system", "").unwrap().json()["name"], "main");
}

#[test]
fn an_app_is_built_promoted_run_and_deleted_as_the_originals_do_it() {
    let stack = Stack::start().unwrap();
    let web = std::fs::read_to_string(convox_testkit::repository().join("examples/hello-web/convox.yml")).unwrap();
    let mut files = vec![("convox.yml", web.as_str())];
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(convox_testkit::repository().join("examples/hello-web")).unwrap().map(Result::unwrap) {
        sources.push((entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap()));
    }
    files.extend(sources.iter().filter(|(name, _)| name != "convox.yml").map(|(name, text)| (name.as_str(), text.as_str())));
    let source = archive(&files);

    for (number, client) in clients(&stack).into_iter().enumerate() {
        let app = format!("app{number}");
        let at = |rest: &str| format!("/apps/{app}{rest}");
        let made = client.form("POST", "/apps", &[("name", &app), ("generation", "2")]).unwrap();
        assert_eq!(made.json()["name"], app.as_str(), "{}", made.text());
        assert!(made.text().starts_with("{\n  \"") && made.text().ends_with("}\n"), "Go's form: {}", made.text());

        // build: GET /system; object; build; logs over a WebSocket; build until it is no longer running
        let version = client.get("/system", "").unwrap().json()["version"].as_str().unwrap().to_owned();
        assert!(version.as_str() > "20190111211123", "older versions make clients use the classic calls: {version}");
        let stored = client.raw("POST", &at("/objects/tmp/0123456789abcdef0123456789abcd.tgz"), &[], &source).unwrap();
        let url = stored.json()["Url"].as_str().unwrap().to_owned();
        assert_eq!(url, format!("object://{app}/tmp/0123456789abcdef0123456789abcd.tgz"));
        let build = client.form("POST", &at("/builds"), &[("url", &url), ("description", "first")]).unwrap().json();
        let id = build["id"].as_str().unwrap_or_else(|| panic!("{build}")).to_owned();
        assert!(id.len() == 11 && id.starts_with('B'), "{id}");
        let mut logs = client.socket(&at(&format!("/builds/{id}/logs")), &[("Follow", "true")]).unwrap().ok().expect("101");
        let (text, code) = logs.drain().unwrap();
        assert!(!text.is_empty() && code.is_none(), "the log of a build ends by itself");
        let done = convox_testkit::eventually(std::time::Duration::from_mins(1), || {
            let build = client.get(&at(&format!("/builds/{id}")), "").unwrap().json();
            (build["status"] != "running" && build["status"] != "created").then_some(build)
        })
        .unwrap();
        assert_eq!(done["status"], "complete", "{done}");
        assert!(done["release"].is_string(), "{done}");

        // builds import: the clients read the release from the answer, and wait for nothing
        let exported = client.raw("GET", &at(&format!("/builds/{id}.tgz")), &[], b"").unwrap();
        let imported = client.raw("POST", &at("/builds/import"), &[], &exported.body).unwrap().json();
        let newest = client.get(&at("/releases"), "limit=1").unwrap().json();
        assert_eq!((&imported["status"], &imported["release"]), (&"complete".into(), &newest[0]["id"]), "{imported}");
        // v3 asks for the budget with every list of processes, and shows an error on standard error
        assert_eq!(client.get(&at("/budget"), "").unwrap().text(), "{\n  \"config\": null,\n  \"state\": null\n}\n");
        let release = newest[0]["id"].as_str().unwrap().to_owned();

        // env set: newest release, that release, POST with the whole environment
        let listed = client.get(&at("/releases"), "limit=1").unwrap().json();
        assert_eq!(listed[0]["id"], release.as_str());
        let with_env = client.form("POST", &at("/releases"), &[("env", "GREETING=1\nOTHER=2")]).unwrap().json();
        let promoted = with_env["id"].as_str().unwrap().to_owned();
        assert_eq!(with_env["env"], "GREETING=1\nOTHER=2", "{with_env}");
        assert_eq!(with_env["build"], imported["id"], "a new release starts from the newest one");
        ok(&client.form("POST", &at(&format!("/releases/{promoted}/promote")), &[]).unwrap());
        convox_testkit::eventually(std::time::Duration::from_mins(1), || {
            let state = client.get(&at(""), "").unwrap().json();
            (state["status"] == "running" && state["release"] == promoted.as_str()).then_some(())
        })
        .expect("promoted");

        // run: a sleeping process with option headers, then exec in it, then stop
        let process = client.raw("POST", &at("/services/web/processes"), &[("Command", "sleep 3600")], b"").unwrap().json();
        let pid = process["id"].as_str().unwrap_or_else(|| panic!("{process}")).to_owned();
        convox_testkit::eventually(std::time::Duration::from_secs(20), || {
            (client.get(&at(&format!("/processes/{pid}")), "").unwrap().json()["status"] == "running").then_some(())
        })
        .expect("running");
        let options = [("Command", "cat; echo \"$GREETING\"; exit 3"), ("Entrypoint", "true"), ("Tty", "false")];
        let mut shell = client.socket(&at(&format!("/processes/{pid}/exec")), &options).unwrap().ok().expect("101");
        shell.ping().unwrap();
        shell.text(b"hello\n").unwrap();
        shell.end().unwrap();
        let (out, code) = shell.drain().unwrap();
        assert_eq!((String::from_utf8_lossy(&out).as_ref(), code), ("hello\n1\n", Some(3)));
        ok(&client.raw("DELETE", &at(&format!("/processes/{pid}")), &[], b"").unwrap());

        // an unknown process: the error is text, then the marker in a message of its own, so that the client fails
        let mut lost = client.socket(&at("/processes/nosuch/exec"), &[("Command", "true")]).unwrap().ok().expect("101");
        let (out, code) = lost.drain().unwrap();
        assert!(String::from_utf8_lossy(&out).starts_with("ERROR: "), "{}", String::from_utf8_lossy(&out));
        assert!(code.is_some_and(|code| code != 0), "{code:?}");

        // logs: lines with time and stream; binary safe, ends when not followed
        let options = [("Follow", "false"), ("Prefix", "true"), ("Since", "10m0s")];
        let (text, _) = client.socket(&at("/logs"), &options).unwrap().ok().expect("101").drain().unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.lines().all(|line| line.split(' ').nth(1).is_some_and(|stream| stream.contains('/'))), "{text}");

        // parameters: a map inside a form
        ok(&client.form("PUT", &at(""), &[("parameters", "LogRetention=5&RedirectHttps=No")]).unwrap());
        assert_eq!(client.get(&at(""), "").unwrap().json()["parameters"]["LogRetention"], "5");
        // Each client encodes a space in its own way, and is told that it arrived.
        let refused = client.form("PUT", &at(""), &[("parameters", "Colour=light+blue&LogRetention=6")]).unwrap();
        assert!(refused.status == 400 && refused.text().contains("no parameter Colour"), "{}", refused.text());
        assert_eq!(client.get(&at(""), "").unwrap().json()["parameters"]["LogRetention"], "5");
        ok(&client.form("PUT", &at("/services/web"), &[("count", "2")]).unwrap());
        let services = client.get(&at("/services"), "").unwrap().json();
        assert_eq!(services[0]["count"], 2, "{services}");
        assert_eq!(client.raw("HEAD", &at("/objects/tmp/0123456789abcdef0123456789abcd.tgz"), &[], b"").unwrap().status, 200);
        ok(&client.raw("DELETE", &at(""), &[], b"").unwrap());
        let gone = convox_testkit::eventually(std::time::Duration::from_secs(30), || {
            let reply = client.get(&at(""), "").unwrap();
            (reply.status == 404).then(|| reply.text())
        });
        assert_eq!(gone.as_deref(), Some(format!("app not found: {app}\n").as_str()));
    }
}

#[test]
fn access_tokens_are_minted_and_die_with_their_key() {
    let stack = Stack::start().unwrap();
    for client in clients(&stack) {
        let made = client.form("POST", "/system/jwt/token", &[("durationInHour", "2"), ("role", "read")]).unwrap();
        let token = made.json()["token"].as_str().unwrap_or_else(|| panic!("{}", made.text())).to_owned();
        let mut reader = stack.go_direct(client.generation);
        reader.user = "jwt".to_owned();
        reader.password = token;
        ok(&reader.get("/auth", "").unwrap());
        assert_eq!(reader.get("/apps", "").unwrap().status, 200);
        let refused = reader.form("POST", "/apps", &[("name", "x")]).unwrap();
        assert_eq!((refused.status, refused.text().trim()), (401, "you are unauthorized to access this"));
        // A read token opens no shell, though a WebSocket is a GET.
        let shell = reader.socket("/apps/x/processes/y/exec", &[("Command", "id")]).unwrap();
        assert!(shell.err().is_some_and(|reply| reply.status == 401), "refused before the upgrade");
        ok(&client.raw("PUT", "/system/jwt/rotate", &[], b"").unwrap());
        assert_eq!(reader.get("/auth", "").unwrap().status, 401);
        for (role, hours) in [("root", "1"), ("read", "0"), ("read", "-1"), ("read", "x")] {
            let refused = client.form("POST", "/system/jwt/token", &[("durationInHour", hours), ("role", role)]).unwrap();
            assert!((400..500).contains(&refused.status), "{role} {hours}: {}", refused.status);
        }
    }
}

#[test]
fn errors_have_the_form_that_clients_read() {
    let stack = Stack::start().unwrap();
    for client in clients(&stack) {
        let reply = client.get("/apps/missing", "").unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (404, "app not found: missing\n"));
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        assert!(reply.header("request-id").is_some_and(|id| id.len() == 12), "{:?}", reply.headers);
        let reply = client.get("/no/such/route", "").unwrap();
        assert_eq!((reply.status, reply.body.len()), (404, 0));
        let mut nobody = client.clone();
        nobody.password = "wrong".to_owned();
        let reply = nobody.get("/apps", "").unwrap();
        assert_eq!(reply.status, 401);
        assert!(!reply.text().contains('%'), "the clients use the text as a format: {}", reply.text());
        // No 101 without a credential.
        let refused = nobody.socket("/apps/x/logs", &[]).unwrap();
        assert!(refused.err().is_some_and(|reply| reply.status == 401));
    }
}

#[test]
fn a_followed_log_stays_open_and_ends_when_its_key_is_revoked() {
    let stack = Stack::start().unwrap();
    let key = stack.member("leaver@example.com", "developer").unwrap();
    let mut client = stack.go(Generation::V3);
    client.password = key;
    assert_eq!(client.form("POST", "/apps", &[("name", "watched")]).unwrap().status, 200);
    let mut logs = client.socket("/apps/watched/logs", &[("Follow", "true"), ("Prefix", "true")]).unwrap().ok().expect("101");
    stack.admin(&["member", "remove", "leaver@example.com", "--org", "acme"]).unwrap();
    let began = std::time::Instant::now();
    loop {
        match logs.receive().unwrap() {
            Message::Close(reason) => {
                let (_, reason) = reason.expect("a close frame with the reason");
                assert!(!reason.is_empty());
                break;
            }
            Message::End | Message::Text(_) => {}
        }
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(client.get("/apps", "").unwrap().status, 401, "a member of nothing has no key any more");
    stack.cli().run(&["apps", "delete", "watched"]).ok();
}

#[test]
fn the_calls_of_all_other_commands_are_answered() {
    use base64::Engine as _;
    let stack = Stack::start().unwrap();
    let source = crate::example(&stack, "hello-web");
    stack.cli().run(&["apps", "create", "tried"]).ok();
    stack.cli().at(&source).run(&["deploy", "-a", "tried", "--wait"]).ok();
    let address = stack.cli().run(&["services", "-a", "tried", "--json"]).json()[0]["domain"].as_str().unwrap().to_owned();
    // What it answers is for people, and never the name of a row of ours.
    let lacking = |reply: &Reply| {
        let text = reply.text();
        assert!(reply.status >= 400 && text.contains(' ') && text.len() > 20, "{} {text}", reply.status);
        text
    };
    for (number, client) in clients(&stack).into_iter().enumerate() {
        // certs, ssl
        let made = client.form("POST", "/certificates/generate", &[("domains", "a.example,b.example")]).unwrap().json();
        let id = made["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        assert_eq!(made["domain"], "a.example", "{made}");
        let listed = client.get("/certificates", "").unwrap().json();
        assert!(listed.as_array().unwrap().iter().any(|one| one["id"] == id.as_str() && one["expiration"].is_string()), "{listed}");
        ok(&client.raw("DELETE", &format!("/certificates/{id}"), &[], b"").unwrap());
        let bad = client.form("POST", "/certificates", &[("pub", "x"), ("key", "y")]).unwrap();
        assert_eq!(bad.status, 400, "{}", bad.text());
        let ssl = client.form("PUT", "/apps/tried/ssl/web/443", &[("id", "cert-none")]).unwrap();
        assert!(!lacking(&ssl).contains("CertificateApply"));

        // registries; the name of one has slashes, which v2 and v3 do not escape
        let added = client.form("POST", "/registries", &[("server", "ghcr.io/acme"), ("username", "ci"), ("password", "pw")]).unwrap();
        assert_eq!(added.json()["server"], "ghcr.io/acme", "{}", added.text());
        let listed = client.get("/registries", "").unwrap().json();
        assert_eq!((&listed[0]["server"], &listed[0]["username"]), (&"ghcr.io/acme".into(), &"ci".into()), "{listed}");
        ok(&client.raw("DELETE", "/registries/ghcr.io/acme", &[], b"").unwrap());

        let pid = client.get("/apps/tried/processes", "").unwrap().json()[0]["id"].as_str().unwrap().to_owned();
        // cp: a tar that is unpacked at `/`, and one of what is asked for
        let dir = tempfile::tempdir().unwrap();
        let name = format!("{}/there", dir.path().display());
        let packed = std::process::Command::new("sh")
            .args(["-c", &format!("echo content > {name} && tar -C / -cf - {}", &name[1..])])
            .output()
            .unwrap();
        std::fs::remove_file(&name).unwrap();
        ok(&client.raw("POST", &format!("/apps/tried/processes/{pid}/files"), &[], &packed.stdout).unwrap());
        assert_eq!(std::fs::read_to_string(&name).unwrap(), "content\n");
        let file = name.replace('/', "%2F");
        let back = client.get(&format!("/apps/tried/processes/{pid}/files"), &format!("file={file}")).unwrap();
        assert!(back.status == 200 && back.body.windows(8).any(|bytes| bytes == b"content\n"), "{}", back.status);
        let path = format!("/apps/tried/processes/{pid}/files");
        let refused = client.send("POST", &path, "tar-extra=-v", "application/octet-stream", &[], &packed.stdout).unwrap();
        assert!(refused.status == 501 && refused.text().contains("--tar-extra"), "{}", refused.text());

        // proxy
        let (host, port) = address.split_once(':').unwrap();
        let mut way = client.socket(&format!("/proxy/{host}/{port}"), &[]).unwrap().ok().expect("101");
        way.text(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let (answer, _) = way.drain().unwrap();
        assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1."), "{}", String::from_utf8_lossy(&answer));

        // instances
        let instances = client.get("/instances", "").unwrap().json();
        assert!(instances[0]["id"] == "local" && instances[0]["cpu"].is_number(), "{instances}");
        assert!(lacking(&client.raw("DELETE", "/instances/local", &[], b"").unwrap()).contains("ending machines"));
        assert_eq!(client.raw("POST", "/instances/keyroll", &[], b"").unwrap().status, 501, "it has no hosts");

        // env mask and config (v3)
        let value = base64::engine::general_purpose::STANDARD.encode("A,B");
        ok(&client.form("PUT", "/apps/tried/configs/cli-env-mask", &[("value", &value)]).unwrap());
        assert_eq!(client.get("/apps/tried/configs/cli-env-mask", "").unwrap().json()["value"], "A,B");
        assert_eq!(client.get("/apps/tried/configs", "").unwrap().json()[0]["name"], "cli-env-mask");
        let missing = client.get("/apps/tried/configs/none", "").unwrap();
        assert_eq!((missing.status, missing.text().as_str()), (404, "app config not found: none\n"), "v3 knows it by these words");

        // env set --release, create-from, rollback: releases made of others
        let active = client.get("/apps/tried", "").unwrap().json()["release"].as_str().unwrap().to_owned();
        let build = client.get(&format!("/apps/tried/releases/{active}"), "").unwrap().json()["build"].as_str().unwrap().to_owned();
        let set = client.form("POST", "/apps/tried/releases", &[("env", "TRY=1"), ("parent-release", &active)]).unwrap().json();
        assert!(set["env"] == "TRY=1" && set["build"] == build.as_str(), "{set}");
        let fields = [("build", build.as_str()), ("description", "made of two"), ("env", "TRY=2")];
        let from = client.form("POST", "/apps/tried/releases", &fields).unwrap().json();
        assert!(from["env"] == "TRY=2" && from["description"] == "made of two", "{from}");
        let back = client.form("POST", "/apps/tried/releases", &[("build", build.as_str()), ("env", "")]).unwrap().json();
        let id = back["id"].as_str().unwrap();
        ok(&client.form("POST", &format!("/apps/tried/releases/{id}/promote"), &[("force", "false")]).unwrap());
        let settled = convox_testkit::eventually(std::time::Duration::from_mins(1), || {
            let state = client.get("/apps/tried", "").unwrap().json();
            (state["status"] == "running" && state["release"] == id).then_some(())
        });
        assert!(settled.is_some(), "rolled back");
        let cancelled = client.raw("POST", "/apps/tried/cancel", &[], b"").unwrap();
        assert!(cancelled.status == 403 && cancelled.text().starts_with("app is not updating"), "{}", cancelled.text());

        // rack params set, rack scale, rack update
        ok(&client.form("PUT", "/system", &[("parameters", &format!("LogRetention={}", number + 3))]).unwrap());
        assert_eq!(client.get("/system", "").unwrap().json()["parameters"]["LogRetention"], (number + 3).to_string().as_str());
        lacking(&client.form("PUT", "/system", &[("parameters", "Nothing=1")]).unwrap());
        ok(&client.form("PUT", "/system", &[("count", "1")]).unwrap());
        assert!(lacking(&client.form("PUT", "/system", &[("count", "3")]).unwrap()).contains("one machine"));
        assert!(
            lacking(&client.form("PUT", "/system", &[("force", "true"), ("version", "3.9.9")]).unwrap())
                .contains("install the new version")
        );

        // logs of v3: of one service, and the last lines
        let options =
            [("Follow", "false"), ("Prefix", "true"), ("Since", "10m0s"), ("Tail", "1"), ("Previous", "true"), ("Maxlogrequests", "9")];
        let (text, _) = client.socket("/apps/tried/services/web/logs", &options).unwrap().ok().expect("101").drain().unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.lines().count() <= 1 && text.lines().all(|line| line.contains(" service/web/")), "{text}");

        // run and scale of v3: what this Rack cannot give is refused by name
        for (option, words) in [
            ("Cpu-Limit", "limits"),
            ("Memory-Limit", "limits"),
            ("Gpu", "gpus"),
            ("Node-Labels", "labels"),
            ("System-Critical", "evicted last"),
        ] {
            let value = if option == "Node-Labels" {
                "a=b"
            } else if option == "System-Critical" {
                "true"
            } else {
                "1"
            };
            let refused = client.raw("POST", "/apps/tried/services/web/processes", &[("Command", "true"), (option, value)], b"").unwrap();
            assert!(refused.status == 501 && refused.text().contains(words), "{option}: {} {}", refused.status, refused.text());
        }
        for (option, value) in [("gpu", "1"), ("gpu-vendor", "amd"), ("min", "0"), ("max", "3")] {
            lacking(&client.form("PUT", "/apps/tried/services/web", &[(option, value)]).unwrap());
        }
    }
    stack.cli().run(&["apps", "delete", "tried"]).ok();
}
