//! What is carried from one place to another: apps, files, builds with their environments, Racks.

use std::time::Duration;

use convox_testkit::{Stack, eventually};

use crate::{both_ways, example, page};

#[test]
fn an_app_is_exported_and_imported_with_its_build_environment_and_parameters() {
    let stack = Stack::start().unwrap();
    let source = example(&stack, "hello-web");
    for (app, (way, cli)) in ["one", "two"].into_iter().zip(both_ways(&stack)) {
        cli.run(&["apps", "create", app]).ok();
        cli.at(&source).run(&["deploy", "-a", app, "--wait"]).ok();
        cli.run(&["env", "set", "GREETING=salut", "-a", app, "--promote", "--wait"]).ok();
        cli.run(&["apps", "params", "set", "LogRetention=21", "-a", app]).ok();
        let file = stack.dir().join(format!("{app}.tgz"));
        let said = cli.run(&["apps", "export", app, "-f", file.to_str().unwrap()]).ok();
        assert!(said.starts_with(&format!("Exporting app {app}... OK\nExporting env... OK\nExporting build B")), "{way}: {said}");
        let copy = format!("{app}-copy");
        let said = cli.run(&["apps", "import", &copy, "-f", file.to_str().unwrap()]).ok();
        assert!(said.starts_with(&format!("Creating app {copy}... OK\nImporting build... OK, R")), "{way}: {said}");
        assert!(said.ends_with("Updating parameters... OK\n"), "{way}: {said}");
        assert_eq!(cli.run(&["apps", "params", &copy]).ok(), "LogRetention  21\n", "{way}");
        let address = cli.run(&["services", "-a", &copy, "--json"]).json()[0]["domain"].as_str().unwrap().to_owned();
        let greeted = eventually(Duration::from_secs(20), || page(&address, "/").filter(|page| page.contains("salut")));
        assert!(greeted.is_some(), "{way}: the copy does not answer with its environment");
        let broken = cli.feed(&["apps", "import", "never"], b"no archive").err();
        assert!(broken.contains("could not read the export"), "{way}: {broken}");
        for app in [app, &copy] {
            cli.run(&["apps", "delete", app]).ok();
        }
    }
}

#[test]
fn an_apps_export_carries_the_data_of_its_database() {
    let stack = Stack::start().unwrap();
    let cli = stack.cli();
    let source = example(&stack, "guestbook");
    cli.run(&["apps", "create", "book"]).ok();
    cli.at(&source).run(&["deploy", "-a", "book", "--wait"]).ok();
    let rows = stack.dir().join("rows.sql");
    std::fs::write(&rows, "CREATE TABLE carried (what text);\nINSERT INTO carried VALUES ('it''s here');\n").unwrap();
    cli.run(&["resources", "import", "database", "-a", "book", "-f", rows.to_str().unwrap()]).ok();
    let file = stack.dir().join("book.tgz");
    let ran = cli.run(&["apps", "export", "book", "-f", file.to_str().unwrap()]);
    assert!(ran.code == 0 && ran.stdout.contains("Exporting resource database... OK\n"), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("NOTICE: the data of queue is not in the export"), "{}", ran.stderr);
    let said = cli.run(&["apps", "import", "copy", "-f", file.to_str().unwrap()]).ok();
    assert!(said.contains("Importing resource database... OK\n"), "{said}");
    let data = cli.run(&["resources", "export", "database", "-a", "copy"]).ok();
    assert!(data.contains("it's here"), "{data}");
    for app in ["book", "copy"] {
        cli.run(&["apps", "delete", app]).ok();
    }
}

#[test]
fn files_are_copied_into_a_process_and_out_of_it() {
    let stack = Stack::start().unwrap();
    let source = example(&stack, "hello-web");
    for (app, (way, cli)) in ["one", "two"].into_iter().zip(both_ways(&stack)) {
        cli.run(&["apps", "create", app]).ok();
        cli.at(&source).run(&["deploy", "-a", app, "--wait"]).ok();
        let process = cli.run(&["ps", "-a", app, "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
        let tree = stack.dir().join(format!("tree-{app}"));
        std::fs::create_dir_all(tree.join("sub")).unwrap();
        let content = vec![b'x'; 3 * 1024 * 1024];
        std::fs::write(tree.join("sub/large"), &content).unwrap();
        let there = stack.dir().join(format!("there-{app}"));
        let place = format!("{process}:{}", there.display());
        cli.run(&["cp", tree.to_str().unwrap(), &place, "-a", app]).ok();
        assert_eq!(std::fs::read(there.join("sub/large")).unwrap(), content, "{way}");
        let back = stack.dir().join(format!("back-{app}"));
        cli.run(&["cp", &place, back.to_str().unwrap(), "-a", app]).ok();
        assert_eq!(std::fs::read(back.join("sub/large")).unwrap(), content, "{way}");
        let missing = cli.run(&["cp", &format!("{process}:/no/such/file"), ".", "-a", app]).err();
        assert!(missing.contains("/no/such/file"), "{way}: {missing}");
        let refused = cli.run(&["cp", tree.to_str().unwrap(), "nosuch:/tmp/x", "-a", app]).err();
        assert!(refused.contains("process not found: nosuch"), "{way}: {refused}");
        cli.run(&["apps", "delete", app]).ok();
    }
}

#[test]
fn a_release_is_made_of_two_others_and_masked_values_stay_off_the_screen() {
    let stack = Stack::start().unwrap();
    let source = example(&stack, "hello-web");
    for (app, (way, cli)) in ["one", "two"].into_iter().zip(both_ways(&stack)) {
        cli.run(&["apps", "create", app]).ok();
        let built = cli.at(&source).run(&["build", "-a", app, "--id"]).ok();
        let with_env = cli.run(&["env", "set", "SECRET=canary", "OPEN=1", "-a", app, "--id"]).ok();
        let said = cli.run(&["releases", "create-from", "--build-from", &built, "--env-from", &with_env, "-a", app]).ok();
        assert!(said.contains("Created release: R"), "{way}: {said}");
        assert_eq!(cli.run(&["env", "-a", app]).ok(), "OPEN=1\nSECRET=canary\n", "{way}");

        assert_eq!(cli.run(&["env", "mask", "-a", app]).ok(), "", "{way}");
        assert_eq!(cli.run(&["env", "mask", "set", "SECRET", "-a", app]).ok(), "Setting masked env keys SECRET... OK\n", "{way}");
        assert_eq!(cli.run(&["env", "mask", "-a", app]).ok(), "SECRET\n", "{way}");
        let shown = cli.terminal(&["env", "-a", app], 24, 80, b"").unwrap().stdout;
        assert!(shown.contains("SECRET=****") && shown.contains("OPEN=1") && !shown.contains("canary"), "{way}: {shown}");
        let shown = cli.terminal(&["env", "-a", app, "--reveal"], 24, 80, b"").unwrap().stdout;
        assert!(shown.contains("canary"), "{way}: {shown}");
        cli.run(&["apps", "delete", app]).ok();
    }
}

#[test]
fn tests_run_in_processes_of_their_own_and_their_failure_is_ours() {
    let stack = Stack::start().unwrap();
    let source = example(&stack, "hello-web");
    let manifest = std::fs::read_to_string(source.join("convox.yml")).unwrap();
    let with_test = |test: &str| {
        let text = manifest.replace("    port: 3000\n", &format!("    port: 3000\n    test: {test}\n"));
        std::fs::write(source.join("convox.yml"), text).unwrap();
    };
    let cli = stack.cli();
    cli.run(&["apps", "create", "tested"]).ok();
    with_test("echo all is well");
    let ran = cli.at(&source).run(&["test", "-a", "tested"]);
    assert!(ran.code == 0 && ran.stdout.contains("Running echo all is well on web\n"), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.ends_with("all is well\n"), "{}", ran.stdout);
    with_test("exit 3");
    let ran = cli.at(&source).run(&["test", "-a", "tested"]);
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    let gone = eventually(Duration::from_secs(20), || (cli.run(&["ps", "-a", "tested"]).ok().lines().count() == 1).then_some(()));
    assert!(gone.is_some(), "its process is left behind");
    cli.run(&["apps", "delete", "tested"]).ok();
}

#[test]
fn a_rack_of_this_machine_moves_behind_the_console_and_back() {
    let stack = Stack::start().unwrap();
    let cli = stack.cli();
    cli.run(&["rack", "install", "local", "--name", "desk"]).ok();
    let refused = cli.run(&["rack", "mv", "desk", "acme/other"]).err();
    assert!(refused.contains("rack name must remain same"), "{refused}");
    assert_eq!(cli.run(&["rack", "mv", "desk", "acme/desk"]).ok(), "moving rack desk to acme/desk... OK\n");
    let racks = cli.run(&["racks", "--json"]).json();
    assert!(racks.as_array().unwrap().iter().any(|rack| rack["name"] == "acme/desk"), "{racks}");
    cli.run(&["apps", "create", "moved", "-r", "acme/desk"]).ok();
    assert_eq!(cli.run(&["rack", "mv", "acme/desk", "desk"]).ok(), "moving rack acme/desk to desk... OK\n");
    assert!(cli.run(&["apps", "-r", "desk"]).ok().contains("moved"), "the Rack itself is what it was");
    cli.run(&["apps", "-r", "acme/desk"]).err();
    cli.run(&["rack", "uninstall", "local", "desk", "--force"]).ok();
}

#[test]
fn start_takes_a_source_to_a_running_app_and_follows_its_log() {
    use std::io::BufRead as _;
    let stack = Stack::start().unwrap();
    let source = example(&stack, "hello-web");
    // A Console of this machine leads to Racks anywhere, so nothing is started through one.
    let refused = stack.cli().at(&source).run(&["start", "-a", "fresh"]).err();
    assert!(refused.contains("is behind a Console") && !stack.cli().run(&["apps"]).ok().contains("fresh"), "{refused}");
    let cli = stack.direct();
    let mut started = cli.at(&source).command(&["start", "web", "-a", "fresh"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let out = std::io::BufReader::new(started.stdout.take().unwrap());
    let (mut promoted, mut heard) = (false, false);
    for line in out.lines().map_while(Result::ok) {
        promoted |= line.starts_with("Promoting R");
        heard |= promoted && line.contains("service/web/");
        if heard {
            break;
        }
        if promoted && let Some(address) = cli.run(&["services", "-a", "fresh", "--json"]).json()[0]["domain"].as_str() {
            // Something to log.
            page(address, "/?heard");
        }
    }
    started.kill().unwrap();
    started.wait().unwrap();
    assert!(heard, "the log of the service follows");
    assert!(cli.run(&["apps"]).ok().contains("fresh  running"), "the app goes on");
    cli.run(&["apps", "delete", "fresh"]).ok();
}

/// Starts a proxy to `address`; gives its local port.
fn proxied(cli: &convox_testkit::Cli, address: &str) -> (std::process::Child, u16) {
    use std::io::BufRead as _;
    let mut proxy = cli.command(&["proxy", &format!("0:{address}")]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(proxy.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.strip_prefix("proxying localhost:").and_then(|rest| rest.split_once(' ')).unwrap_or_else(|| panic!("{line}")).0;
    (proxy, port.parse().unwrap())
}

#[test]
fn a_connection_goes_through_the_rack_to_its_apps_and_not_to_its_neighbours() {
    let stack = Stack::start().unwrap();
    let source = example(&stack, "hello-web");
    for (app, (way, cli)) in ["one", "two"].into_iter().zip(both_ways(&stack)) {
        cli.run(&["apps", "create", app]).ok();
        cli.at(&source).run(&["deploy", "-a", app, "--wait"]).ok();
        let address = cli.run(&["services", "-a", app, "--json"]).json()[0]["domain"].as_str().unwrap().to_owned();
        let (mut proxy, port) = proxied(&cli, &address);
        let answered = page(&format!("127.0.0.1:{port}"), "/");
        proxy.kill().unwrap();
        proxy.wait().unwrap();
        assert!(answered.is_some(), "{way}: the app does not answer through the proxy");
        // The Console listens on this machine too, and is none of the Rack's apps.
        let (mut proxy, port) = proxied(&cli, &stack.console.host);
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut socket, &mut said).unwrap();
        proxy.kill().unwrap();
        proxy.wait().unwrap();
        assert!(said.is_empty(), "{way}");
        cli.run(&["apps", "delete", app]).ok();
    }
}
