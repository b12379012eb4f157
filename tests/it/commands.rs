//! Every command, through the Console and straight to the Rack, with the texts and tables of the originals.

use std::time::Duration;

use convox_testkit::{Cli, Stack, eventually};

use crate::{both_ways, by_name, example, free, page};

/// The first word of each row but the header.
fn first_column(table: &str) -> Vec<String> {
    table.lines().skip(1).filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// Value of `key` in an info listing.
fn info<'a>(listing: &'a str, key: &str) -> Option<&'a str> {
    listing.lines().find_map(|line| {
        let (name, value) = line.split_once("  ")?;
        (name.trim() == key).then_some(value.trim())
    })
}

fn deployed(stack: &Stack, cli: &Cli, app: &str) -> String {
    let source = example(stack, "hello-web");
    cli.run(&["apps", "create", app]).ok();
    let said = cli.at(&source).run(&["deploy", "-a", app, "--wait"]).ok();
    assert!(said.contains("Packaging source... OK\n"), "{said}");
    assert!(said.contains("Uploading source... OK\n"), "{said}");
    assert!(said.contains("Starting build... OK\n"), "{said}");
    assert!(said.contains("Promoting R"), "{said}");
    address(cli, app)
}

fn address(cli: &Cli, app: &str) -> String {
    let services = cli.run(&["services", "-a", app, "--json"]).json();
    services[0]["domain"].as_str().expect("a service has an address").to_owned()
}

#[test]
fn apps_are_created_listed_locked_and_deleted() {
    let stack = Stack::start().unwrap();
    for (way, cli) in both_ways(&stack) {
        assert_eq!(cli.run(&["apps"]).ok(), "APP  STATUS  RELEASE\n", "{way}");
        assert_eq!(cli.run(&["apps", "create", "shop"]).ok(), "Creating shop... OK\n", "{way}");
        assert_eq!(cli.run(&["apps", "wait", "shop"]).ok(), "Waiting for app... \nOK\n", "{way}");
        // The last cell is empty, and its separator stays, as in the originals.
        assert_eq!(cli.run(&["apps"]).ok(), "APP   STATUS   RELEASE\nshop  running  \n", "{way}");
        let listing = cli.run(&["apps", "info", "shop"]).ok();
        assert_eq!(info(&listing, "Name"), Some("shop"), "{way}: {listing}");
        assert_eq!(info(&listing, "Status"), Some("running"), "{way}: {listing}");
        assert_eq!(info(&listing, "Locked"), Some("false"), "{way}: {listing}");
        assert_eq!(info(&listing, "Generation"), Some("2"), "{way}: {listing}");
        assert_eq!(cli.run(&["apps", "lock", "shop"]).ok(), "Locking shop... OK\n", "{way}");
        assert_eq!(cli.run(&["apps", "info", "shop", "--json"]).json()["locked"], true, "{way}");
        let refused = cli.run(&["apps", "delete", "shop"]).err();
        assert!(refused.contains("locked"), "a locked app is not deleted, {way}: {refused}");
        assert_eq!(cli.run(&["apps", "unlock", "-a", "shop"]).ok(), "Unlocking shop... OK\n", "{way}");
        assert_eq!(cli.run(&["apps", "params", "set", "LogRetention=14", "-a", "shop"]).ok(), "Updating parameters... OK\n", "{way}");
        assert_eq!(cli.run(&["apps", "params", "shop"]).ok(), "LogRetention  14\n", "{way}");
        assert_eq!(cli.run(&["apps", "delete", "shop"]).ok(), "Deleting shop... OK\n", "{way}");
        let gone = eventually(Duration::from_secs(20), || (cli.run(&["apps"]).ok().lines().count() == 1).then_some(()));
        assert!(gone.is_some(), "{way}");
        let missing = cli.run(&["apps", "info", "shop"]).err();
        assert!(missing.starts_with("ERROR: app not found: shop\n"), "{way}: {missing}");
    }
}

#[test]
fn a_real_program_is_deployed_and_its_page_answers() {
    let stack = Stack::start().unwrap();
    for (app, (way, cli)) in ["one", "two"].into_iter().zip(both_ways(&stack)) {
        let address = deployed(&stack, &cli, app);
        let first = eventually(Duration::from_secs(20), || page(&address, "/"));
        assert!(first.is_some(), "{way}: http://{address}/ does not answer\n{}", stack.rack.log());

        let releases = cli.run(&["releases", "-a", app]).ok();
        assert!(releases.starts_with("ID           STATUS  BUILD        CREATED"), "{way}: {releases}");
        let release = first_column(&releases).remove(0);
        assert!(releases.contains(&format!("{release}  active  B")), "{way}: {releases}");
        let manifest = cli.run(&["releases", "manifest", &release, "-a", app]).ok();
        assert!(manifest.contains("services:"), "{way}: {manifest}");
        let builds = cli.run(&["builds", "-a", app]).ok();
        assert!(builds.starts_with("ID           STATUS    RELEASE      STARTED"), "{way}: {builds}");
        assert!(builds.contains("complete"), "{way}: {builds}");

        // Environment: a release each, promoted or not.
        let said = cli.run(&["env", "set", "GREETING=salut", "OTHER=1", "-a", app]).ok();
        let made =
            said.strip_prefix("Setting GREETING, OTHER... OK\nRelease: ").unwrap_or_else(|| panic!("{way}: {said}")).trim().to_owned();
        assert_eq!(cli.run(&["env", "-a", app]).ok(), "GREETING=salut\nOTHER=1\n", "{way}");
        assert_eq!(cli.run(&["env", "get", "GREETING", "-a", app]).ok(), "salut\n", "{way}");
        assert!(!page(&address, "/").unwrap_or_default().contains("salut"), "{way}: not promoted yet");
        let said = cli.run(&["releases", "promote", &made, "-a", app, "--wait"]).ok();
        // With --wait the originals end the line, show the app's system log, then say OK.
        assert!(said.starts_with(&format!("Promoting {made}... \n")) && said.ends_with("OK\n"), "{way}: {said}");
        let changed = eventually(Duration::from_secs(30), || page(&address, "/").filter(|page| page.contains("salut")));
        assert!(changed.is_some(), "{way}: the new environment does not reach the program");

        let said = cli.run(&["env", "unset", "OTHER", "-a", app, "--promote", "--wait"]).ok();
        assert!(said.starts_with("Unsetting OTHER... OK\nRelease: R"), "{way}: {said}");
        assert_eq!(cli.run(&["env", "-a", app]).ok(), "GREETING=salut\n", "{way}");
        let absent = cli.run(&["env", "get", "OTHER", "-a", app]).err();
        assert!(absent.starts_with("ERROR: env not found: OTHER\n"), "{way}: {absent}");

        let said = cli.run(&["releases", "rollback", &release, "-a", app, "--wait"]).ok();
        assert!(said.starts_with(&format!("Rolling back to {release}... OK, R")), "{way}: {said}");
        let back = eventually(Duration::from_secs(30), || page(&address, "/").filter(|page| !page.contains("salut")));
        assert!(back.is_some(), "{way}: the old environment is not back");
        let described = cli.run(&["releases", "info", &made, "-a", app]).ok();
        assert!(described.contains("env add:GREETING add:OTHER"), "{way}: {described}");

        cli.run(&["apps", "delete", app]).ok();
        assert!(eventually(Duration::from_secs(20), || page(&address, "/").is_none().then_some(())).is_some(), "{way}: still there");
    }
}

#[test]
fn builds_are_made_told_exported_and_imported() {
    let stack = Stack::start().unwrap();
    let source = example(&stack, "hello-web");
    for (app, (way, cli)) in ["one", "two"].into_iter().zip(both_ways(&stack)) {
        cli.run(&["apps", "create", app]).ok();
        let release = cli.at(&source).run(&["build", "-a", app, "--id", "-d", "by hand"]).ok();
        assert!(release.len() == 11 && release.starts_with('R'), "the bare id and nothing else, {way}: {release:?}");
        let table = cli.run(&["builds", "-a", app]).ok();
        assert!(table.contains("by hand"), "{way}: {table}");
        let build = first_column(&table).remove(0);
        let listing = cli.run(&["builds", "info", &build, "-a", app]).ok();
        assert_eq!((info(&listing, "Status"), info(&listing, "Release")), (Some("complete"), Some(release.as_str())), "{way}: {listing}");
        let log = cli.run(&["builds", "logs", &build, "-a", app]).ok();
        assert!(log.contains("Build complete\n"), "{way}: {log}");

        let file = stack.dir().join(format!("{app}.tgz"));
        let file = file.to_str().unwrap();
        assert_eq!(cli.run(&["builds", "export", &build, "-a", app, "-f", file]).ok(), "Exporting build... OK\n", "{way}");
        let said = cli.run(&["builds", "import", "-a", app, "-f", file]).ok();
        let imported = said.strip_prefix("Importing build... OK, ").unwrap_or_else(|| panic!("{way}: {said}")).trim();
        let said = cli.run(&["releases", "promote", imported, "-a", app, "--wait"]).ok();
        assert!(said.ends_with("OK\n"), "{way}: {said}");
        assert_eq!(cli.run(&["apps", "info", app, "--json"]).json()["release"], imported, "{way}");
        let broken = cli.feed(&["builds", "import", "-a", app], b"no archive").err();
        assert!(broken.contains("import"), "{way}: {broken}");
        cli.run(&["apps", "delete", app]).ok();
    }
}

#[test]
fn an_exported_build_is_imported_as_it_was_asked_for() {
    let stack = Stack::start().unwrap();
    let cli = stack.cli();
    let source = example(&stack, "hello-web");
    std::fs::rename(source.join("convox.yml"), source.join("other.yml")).unwrap();
    for app in ["one", "two"] {
        cli.run(&["apps", "create", app]).ok();
    }
    cli.at(&source).run(&["build", "-a", "one", "-m", "other.yml", "--build-args", "COLOUR=blue", "-d", "by hand", "--id"]).ok();
    let build = cli.run(&["builds", "-a", "one", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
    let file = stack.dir().join("one.tgz");
    let file = file.to_str().unwrap();
    cli.run(&["builds", "export", &build, "-a", "one", "-f", file]).ok();
    let release = cli.run(&["builds", "import", "-a", "two", "-f", file, "--id"]).ok();
    cli.run(&["releases", "promote", &release, "-a", "two", "--wait"]).ok();
    let made = cli.run(&["builds", "-a", "two", "--json"]).json()[0].clone();
    assert_eq!((&made["description"], &made["release"]), (&"by hand".into(), &release.as_str().into()), "{made}");
    let log = cli.run(&["builds", "logs", made["id"].as_str().unwrap(), "-a", "two"]).ok();
    assert!(log.contains("Reading other.yml") && log.contains("NOTICE: build arguments are without effect"), "{log}");
    // And once more from there.
    let again = stack.dir().join("two.tgz");
    cli.run(&["builds", "export", made["id"].as_str().unwrap(), "-a", "two", "-f", again.to_str().unwrap()]).ok();
    cli.run(&["builds", "import", "-a", "one", "-f", again.to_str().unwrap()]).ok();

    // Images of an original are nothing to a Rack of plain processes, which says so and keeps nothing.
    let dir = stack.dir().join("images");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("build.json"), r#"{"id":"BOLD","manifest":"services: {web: }"}"#).unwrap();
    std::fs::write(dir.join("manifest.json"), r#"[{"Config":"c","RepoTags":["r/old:web.BOLD"],"Layers":[]}]"#).unwrap();
    let pack = |args: &[&str]| assert!(std::process::Command::new("tar").current_dir(&dir).args(args).status().unwrap().success());
    pack(&["-cf", "old.BOLD.tar", "manifest.json"]);
    pack(&["-czf", "export.tgz", "build.json", "old.BOLD.tar"]);
    let refused = cli.at(&dir).run(&["builds", "import", "-a", "two", "-f", "export.tgz"]).err();
    assert!(refused.contains("it holds images, and this rack runs plain processes"), "{refused}");
    pack(&["-czf", "export.tgz", "build.json", "manifest.json"]);
    let refused = cli.at(&dir).run(&["builds", "import", "-a", "two", "-f", "export.tgz"]).err();
    assert!(refused.contains("manifest.json in it is neither a source nor an image"), "{refused}");
    assert_eq!(cli.run(&["builds", "-a", "two", "--json"]).json().as_array().unwrap().len(), 1);
}

#[test]
fn the_environment_is_edited_in_an_editor() {
    use std::os::unix::fs::PermissionsExt as _;
    let stack = Stack::start().unwrap();
    let editor = stack.dir().join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/^OLD=.*/NEW=2/' \"$1\"\n").unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o700)).unwrap();
    for (app, (way, cli)) in ["one", "two"].into_iter().zip(both_ways(&stack)) {
        cli.run(&["apps", "create", app]).ok();
        cli.run(&["env", "set", "OLD=1", "KEPT=x y", "-a", app]).ok();
        let said = cli.with("EDITOR", editor.to_str().unwrap()).run(&["env", "edit", "-a", app]).ok();
        assert!(said.contains("Release: R"), "{way}: {said}");
        assert_eq!(cli.run(&["env", "-a", app]).ok(), "KEPT=x y\nNEW=2\n", "{way}");
        cli.run(&["apps", "delete", app]).ok();
    }
}

#[test]
fn processes_are_listed_scaled_stopped_and_replaced() {
    let stack = Stack::start().unwrap();
    for (app, (way, cli)) in ["one", "two"].into_iter().zip(both_ways(&stack)) {
        let address = deployed(&stack, &cli, app);
        let listing = cli.run(&["ps", "-a", app]).ok();
        assert!(listing.starts_with("ID"), "{way}: {listing}");
        let process = first_column(&listing).remove(0);
        let listing = cli.run(&["ps", "info", &process, "-a", app]).ok();
        assert_eq!(info(&listing, "Service"), Some("web"), "{way}: {listing}");
        assert_eq!(info(&listing, "Status"), Some("running"), "{way}: {listing}");

        assert_eq!(cli.run(&["scale", "web", "--count", "3", "-a", app]).ok(), "Scaling web... OK\n", "{way}");
        let three = eventually(Duration::from_secs(30), || {
            let table = cli.run(&["ps", "-a", app]).ok();
            (table.matches("running").count() == 3).then_some(())
        });
        assert!(three.is_some(), "{way}: {}", cli.run(&["ps", "-a", app]).stdout);
        let table = cli.run(&["scale", "-a", app]).ok();
        assert!(table.starts_with("SERVICE  DESIRED  RUNNING  CPU  MEMORY\nweb      3        3"), "{way}: {table}");

        assert_eq!(cli.run(&["ps", "stop", &process, "-a", app]).ok(), format!("Stopping {process}... OK\n"), "{way}");
        let replaced = eventually(Duration::from_secs(30), || {
            let table = cli.run(&["ps", "-a", app]).ok();
            (table.matches("running").count() == 3 && !table.contains(&process)).then_some(())
        });
        assert!(replaced.is_some(), "{way}: {}", cli.run(&["ps", "-a", app]).stdout);
        cli.run(&["scale", "web", "--count", "1", "-a", app]).ok();

        let table = cli.run(&["services", "-a", app]).ok();
        assert!(table.starts_with("SERVICE  DOMAIN"), "{way}: {table}");
        assert_eq!(cli.run(&["restart", "-a", app]).ok(), "Restarting web... OK\n", "{way}");
        assert_eq!(cli.run(&["services", "restart", "web", "-a", app]).ok(), "Restarting web... OK\n", "{way}");

        assert!(eventually(Duration::from_secs(20), || page(&address, "/?marker-7261")).is_some(), "{way}");
        let seen = eventually(Duration::from_secs(20), || {
            let logs = cli.run(&["logs", "-a", app, "--no-follow", "--since", "10m"]).ok();
            logs.contains("marker-7261").then_some(logs)
        });
        let logs = seen.unwrap_or_else(|| panic!("{way}: the request is not in the log"));
        let line = logs.lines().find(|line| line.contains("marker-7261")).unwrap();
        assert!(line.split(' ').nth(1).unwrap().starts_with("service/web/"), "{way}: {line}");
        let filtered = cli.run(&["logs", "-a", app, "--no-follow", "--since", "10m", "--filter", "marker-7261"]).ok();
        assert!(!filtered.is_empty() && filtered.lines().all(|line| line.contains("marker-7261")), "{way}: {filtered}");
        cli.run(&["apps", "delete", app]).ok();
    }
}

#[test]
fn run_and_exec_give_bytes_exit_codes_and_a_real_terminal() {
    let stack = Stack::start().unwrap();
    for (app, (way, cli)) in ["one", "two"].into_iter().zip(both_ways(&stack)) {
        deployed(&stack, &cli, app);
        let process = first_column(&cli.run(&["ps", "-a", app]).ok()).remove(0);

        let ran = cli.run(&["run", "web", "-a", app, "echo hello; exit 7"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (7, "hello\n"), "{way}: {}", ran.stderr);
        let ran = cli.feed(&["exec", &process, "cat", "-a", app], b"from standard input\n");
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "from standard input\n"), "{way}: {}", ran.stderr);
        let ran = cli.run(&["exec", &process, "-a", app, "head -c 10485760 /dev/zero | tr '\\0' x"]);
        assert_eq!((ran.code, ran.stdout.len()), (0, 10 * 1024 * 1024), "{way}: {}", ran.stderr);
        assert!(ran.stdout.bytes().all(|byte| byte == b'x'), "{way}");
        let ran = cli.run(&["exec", &process, "-a", app, "kill -TERM $$"]);
        assert_eq!(ran.code, 143, "128 + the signal, {way}");

        let ran = cli.terminal(&["exec", &process, "-a", app, "stty size; test -t 0 && test -t 1 && exit 5"], 37, 91, b"").unwrap();
        assert!(ran.stdout.contains("37 91"), "{way}: {}", ran.stdout);
        assert_eq!(ran.code, 5, "{way}: {}", ran.stdout);
        // Ctrl-C reaches the remote program, not our client.
        let ran = cli.terminal(&["exec", &process, "-a", app, "trap 'exit 9' INT; echo ready; sleep 30 & wait"], 24, 80, b"\x03").unwrap();
        assert_eq!(ran.code, 9, "{way}: {}", ran.stdout);

        // The same for a process of its own, which does not stay behind; and a flood through both terminals, byte by byte.
        let ran = cli.terminal(&["run", "web", "-a", app, "stty size; test -t 0 && test -t 1 && exit 4"], 33, 77, b"").unwrap();
        assert!(ran.code == 4 && ran.stdout.contains("33 77"), "{way}: {} {}", ran.code, ran.stdout);
        let ran = cli.terminal(&["run", "web", "-a", app, "trap 'exit 9' INT; echo ready; sleep 30 & wait"], 24, 80, b"\x03").unwrap();
        assert_eq!(ran.code, 9, "{way}: {}", ran.stdout);
        let ran = cli.terminal(&["run", "web", "-a", app, "seq 1 1300000; exit 3"], 24, 80, b"").unwrap();
        let numbers: Vec<String> = (1..=1_300_000).map(|number: u32| number.to_string()).collect();
        let sent = format!("{}\r\n", numbers.join("\r\n"));
        assert!(sent.len() > 10 * 1024 * 1024);
        // The carriage return at the end is our client's, when it gives the terminal back.
        let shown = ran.stdout.strip_suffix('\r').unwrap_or(&ran.stdout);
        let differs = shown.bytes().zip(sent.bytes()).position(|(one, other)| one != other);
        assert!(
            shown == sent && ran.code == 3,
            "{way}: {} bytes of {}, code {}, differs at {differs:?}",
            shown.len(),
            sent.len(),
            ran.code
        );
        let left = || first_column(&cli.run(&["ps", "-a", app]).ok());
        let gone = convox_testkit::eventually(Duration::from_secs(20), || (left() == [process.clone()]).then_some(()));
        assert!(gone.is_some(), "{way}: a process of `run` is left behind: {:?}", left());

        let detached = cli.run(&["run", "web", "-a", app, "--detach", "sleep 5"]).ok();
        assert!(detached.starts_with("Running detached process... OK, "), "{way}: {detached}");
        let missing = cli.run(&["exec", "nosuchprocess", "true", "-a", app]);
        assert_ne!(missing.code, 0, "{way}");
        cli.run(&["apps", "delete", app]).ok();
    }
}

#[test]
fn parameters_hold_across_a_restart_or_are_refused_with_the_reason() {
    let (http, https) = (free(), free());
    let (by_http, by_https) = (http.to_string(), https.to_string());
    let mut stack = Stack::start_rack_with(&by_name(&by_http, &by_https)).unwrap();
    let cli = stack.cli();
    deployed(&stack, &cli, "shop");
    let status = || {
        let ask = "GET / HTTP/1.1\r\nHost: web.shop.apps.example.org\r\nConnection: close\r\n\r\n";
        let reply = crate::request(&by_http, ask).unwrap_or_default();
        reply.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    let becomes = |wanted: &str| {
        let seen = eventually(Duration::from_secs(20), || (status() == wanted).then_some(()));
        assert!(seen.is_some(), "{wanted}: {}", status());
    };
    becomes("308");
    // Of an app: at once, without another release, and after the Rack was away.
    let set = |what: &str| cli.run(&["apps", "params", "set", what, "-a", "shop", "--wait"]);
    assert!(set("RedirectHttps=No").ok().ends_with("OK\n"));
    becomes("200");
    set("LogRetention=3").ok();
    assert_eq!(cli.run(&["apps", "params", "-a", "shop"]).ok(), "LogRetention   3\nRedirectHttps  No\n");
    assert_eq!(cli.run(&["rack", "params", "set", "LogRetention=9", "WhiteList=10.0.0.0/8"]).ok(), "Updating parameters... OK\n");
    stack.rack.restart().unwrap();
    assert_eq!(cli.run(&["rack", "params"]).ok(), "LogRetention  9\nWhiteList     10.0.0.0/8\n");
    let said = cli.run(&["rack", "logs", "--no-follow"]).ok();
    for holds in ["Parameter WhiteList=10.0.0.0/8 holds", "Parameter RedirectHttps=No of app shop holds"] {
        assert!(said.contains(holds), "{said}");
    }
    assert_eq!(cli.run(&["apps", "params", "-a", "shop", "--json"]).json()["RedirectHttps"], "No");
    cli.run(&["restart", "-a", "shop"]).ok();
    becomes("200");
    assert!(set("RedirectHttps=").ok().ends_with("OK\n"));
    becomes("308");

    // What would do nothing is refused, and with it what stands beside it.
    for (args, told) in [
        (
            &["rack", "params", "set", "LogRetention=4", "Colour=blue"][..],
            "this rack has no parameter Colour; what can be set: BuildMemory",
        ),
        (&["rack", "params", "set", "InstanceType=t3.large"], "no parameter InstanceType: this rack makes no machines"),
        (&["rack", "params", "set", "LogRetention=soon"], "LogRetention=soon: give a number of days"),
        (&["rack", "params", "set", "WhiteList=here"], "WhiteList=here: not a network"),
        (&["rack", "params", "set", "BuildMemory=512"], "builds no images"),
        (
            &["apps", "params", "set", "LogRetention=4", "Colour=blue", "-a", "shop"],
            "apps have no parameter Colour; what can be set: BuildMem",
        ),
        (&["apps", "params", "set", "WebFormation=2,256,512", "-a", "shop"], "`convox scale`"),
        (&["apps", "params", "set", "RackUrl=Yes", "-a", "shop"], "`convox rack access`"),
        (&["apps", "params", "set", "RedirectHttps=maybe", "-a", "shop"], "give Yes or No"),
    ] {
        let refused = cli.run(args).err();
        assert!(refused.contains(told), "{args:?}: {refused}");
    }
    assert_eq!(cli.run(&["rack", "params", "--group", "logging"]).ok(), "LogRetention  9\n");
    assert_eq!(cli.run(&["apps", "params", "-a", "shop"]).ok(), "LogRetention  3\n");
}

#[test]
fn the_rack_itself_is_seen_and_kept() {
    let stack = Stack::start().unwrap();
    for (way, cli) in both_ways(&stack) {
        let listing = cli.run(&["rack"]).ok();
        assert_eq!(info(&listing, "Name"), Some("main"), "{way}: {listing}");
        assert_eq!(info(&listing, "Status"), Some("running"), "{way}: {listing}");
        assert!(cli.run(&["rack", "ps"]).ok().starts_with("ID"), "{way}");
        assert!(cli.run(&["rack", "releases"]).ok().starts_with("VERSION"), "{way}");
        cli.run(&["rack", "params"]).ok();
        cli.run(&["rack", "logs", "--no-follow"]).ok();
        let version = cli.run(&["version"]).ok();
        assert!(version.starts_with("client: ") && version.contains("\nserver: "), "{way}: {version}");
        let raw = cli.run(&["api", "get", "/system"]).ok();
        assert!(raw.contains("  \"name\": \"main\""), "{way}: {raw}");

        let printed = cli.run(&["rack", "access", "--role", "read", "--duration-in-hours", "1"]).ok();
        let url = printed.trim().strip_prefix("RACK_URL=").unwrap_or_else(|| panic!("{way}: {printed}"));
        let token = url.strip_prefix("https://jwt:").and_then(|rest| rest.split_once('@')).unwrap_or_else(|| panic!("{way}: {url}")).0;
        let by_token = stack.person().with("RACK_URL", &format!("https://jwt:{token}@{}", stack.rack.host));
        by_token.run(&["apps"]).ok();
        let refused = by_token.run(&["apps", "create", "x"]).err();
        assert!(refused.contains("unauthorized"), "{way}: {refused}");
        assert_eq!(cli.run(&["rack", "access", "key", "rotate"]).ok(), "OK\n", "{way}");
        by_token.run(&["apps"]).err();
    }
}

#[test]
fn switch_names_a_rack_exactly_and_says_which_source_won() {
    let stack = Stack::start().unwrap();
    let cli = stack.cli();
    stack.admin(&["rack", "rename", "main", "--org", "acme", "--to", "prod"]).unwrap();
    for name in ["nonprod", "prod-eu"] {
        stack.add_rack("acme", name).unwrap();
    }
    assert_eq!(cli.run(&["switch", "prod"]).ok(), "Switched to acme/prod\n");
    assert_eq!(cli.run(&["switch"]).ok(), "acme/prod\n");
    let table = cli.run(&["racks"]).ok();
    assert!(table.starts_with("NAME"), "{table}");
    assert_eq!(first_column(&table), ["acme/nonprod", "acme/prod", "acme/prod-eu"], "{table}");
    let unknown = cli.run(&["switch", "pro"]).err();
    assert!(unknown.contains("could not find rack: pro"), "never by substring: {unknown}");

    // A second organization makes `prod` ambiguous.
    stack.admin(&["org", "create", "beta"]).unwrap();
    stack.admin(&["member", "add", "admin@example.com", "--org", "beta", "--role", "administrator"]).unwrap();
    stack.add_rack("beta", "prod").unwrap();
    let ambiguous = cli.run(&["switch", "prod"]).err();
    assert!(ambiguous.contains("ambiguous rack name: prod"), "{ambiguous}");
    assert!(ambiguous.contains("acme/prod") && ambiguous.contains("beta/prod"), "it names the candidates: {ambiguous}");
    cli.run(&["apps", "-r", "beta/prod"]).ok();

    let whoami = cli.with("CONVOX_RACK", "acme/nonprod").run(&["whoami"]).ok();
    assert!(whoami.contains("admin@example.com") || whoami.contains("acme/nonprod"), "{whoami}");
    assert!(whoami.contains("CONVOX_RACK"), "whoami says which source won: {whoami}");
    assert_eq!(cli.run(&["logout"]).code, 0);
    let out = cli.run(&["apps"]).err();
    assert!(out.contains("login"), "{out}");
}

#[test]
fn the_words_around_the_commands() {
    let stack = Stack::start().unwrap();
    let cli = stack.person();
    let help = cli.run(&["help"]).ok();
    for command in ["apps create", "deploy", "env set", "login", "rack access key rotate", "releases rollback", "switch"] {
        assert!(help.contains(command), "help does not name `{command}`");
    }
    assert!(cli.run(&["deploy", "--help"]).ok().contains("convox deploy"));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(cli.run(&["completion", shell]).ok().contains("convox"), "{shell}");
    }
    assert!(cli.run(&["man"]).ok().contains(".SH \"EXIT STATUS\""));
    let pages = stack.dir().join("man");
    cli.run(&["man", pages.to_str().unwrap()]).ok();
    assert!(pages.join("convox.1").exists() && pages.join("convox-rack-access-key-rotate.1").exists());
    assert!(cli.run(&["apps", "--nonsense"]).err().contains("--nonsense"));
    assert!(!cli.run(&["apps"]).err().is_empty(), "nobody is logged in");
}

#[test]
fn a_rack_is_installed_and_uninstalled_without_moving_anybody() {
    let stack = Stack::start().unwrap();
    let cli = stack.cli();
    let before = std::fs::read_to_string(cli.config.join("host")).unwrap();
    cli.run(&["rack", "install", "local", "--name", "desk"]).ok();
    assert_eq!(std::fs::read_to_string(cli.config.join("host")).unwrap(), before, "install never changes the active host");
    assert_eq!(cli.run(&["switch"]).ok(), "acme/main\n");
    let auth: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(cli.config.join("auth")).unwrap()).unwrap();
    let added: Vec<&String> = auth.as_object().unwrap().keys().filter(|host| **host != before).collect();
    assert_eq!(added.len(), 1, "install logs in to the new Rack: {added:?}");
    let table = cli.run(&["racks"]).ok();
    assert!(table.contains("desk"), "{table}");
    let host = added[0].clone();
    cli.with("CONVOX_HOST", &host).run(&["rack"]).ok();
    cli.run(&["rack", "uninstall", "local", "desk", "--force"]).ok();
    assert!(!cli.run(&["racks"]).ok().contains("desk"));
    cli.with("CONVOX_HOST", &host).run(&["rack"]).err();
}
