//! Apps in containers of a real Podman: built, run, entered, found again, and cleaned up after.

use std::time::Duration;

use convox_testkit::{Cli, Podman, Stack, eventually};

use crate::{example, page};

const LONG: Duration = Duration::from_mins(1);

fn process(cli: &Cli, app: &str) -> String {
    let found = eventually(LONG, || {
        let listing = cli.run(&["ps", "-a", app, "--json"]).json();
        let running = listing.as_array()?.iter().find(|process| process["status"] == "running")?;
        Some(running["id"].as_str()?.to_owned())
    });
    found.expect("a process runs")
}

fn address(cli: &Cli, app: &str) -> String {
    cli.run(&["services", "-a", app, "--json"]).json()[0]["domain"].as_str().expect("a service has an address").to_owned()
}

fn containers(podman: &Podman) -> Vec<String> {
    let mut names: Vec<String> = podman.run(&["ps", "--all", "--format", "{{.Names}}"]).unwrap().lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Ends the shims of a Rack's processes, as the end of its whole control group does.
fn kill_shims(stack: &Stack) {
    for process in std::fs::read_dir(stack.rack_data().join("processes")).unwrap().map(Result::unwrap) {
        let text = std::fs::read(process.path().join("started.json")).unwrap();
        let started: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let pid = i32::try_from(started["shim"]["pid"].as_i64().unwrap()).unwrap();
        let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL);
    }
}

#[test]
fn an_app_lives_in_containers_from_its_build_to_its_deletion() {
    let podman = Podman::start().unwrap();
    podman.base_image("docker.io/library/debian:stable-slim").unwrap();
    podman.run(&["run", "--detach", "--name", "foreign", "docker.io/library/debian:stable-slim", "sleep", "600"]).unwrap();
    let mut stack = Stack::start_in(&podman).unwrap();
    let cli = stack.cli();

    // Built from its Dockerfile, with the build's output in the log.
    let source = example(&stack, "hello-web");
    let dockerfile = std::fs::read_to_string(source.join("Dockerfile")).unwrap();
    let dockerfile = dockerfile
        .replace("COPY . .", "COPY . .\nARG COLOUR=none\nRUN echo colour is $COLOUR > colour; ls -A > files")
        .replace("USER nobody\n", "");
    std::fs::write(source.join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(source.join(".dockerignore"), "secret\n").unwrap();
    std::fs::write(source.join("secret"), "x").unwrap();
    let manifest = std::fs::read_to_string(source.join("convox.yml")).unwrap();
    let manifest = manifest.replace("    scale: 1\n", "    scale: {count: 1, cpu: 128, memory: 64}\n    volumes: [/data]\n");
    std::fs::write(source.join("convox.yml"), manifest).unwrap();
    cli.run(&["apps", "create", "shop"]).ok();
    let said = cli.at(&source).run(&["deploy", "-a", "shop", "--build-args", "COLOUR=blue", "--wait"]);
    let said = format!("{}{}", said.stdout, said.stderr);
    assert!(said.contains("STEP ") && said.contains("Build complete"), "{said}\n{}", stack.rack.log());
    let first = process(&cli, "shop");
    let address = address(&cli, "shop");
    let answer = eventually(LONG, || page(&address, "/")).expect("the page answers");
    assert!(answer.contains("Hello from R"), "{answer}");

    // Limits are the engine's, the files are the image's.
    let name = containers(&podman).into_iter().find(|name| name.ends_with(&first)).expect("a container is named after its process");
    let limits = podman.run(&["inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.CpuShares}}", &name]).unwrap();
    assert_eq!(limits.trim(), "67108864 128");
    let files = cli.run(&["exec", &first, "-a", "shop", "cat /app/colour /app/files"]).ok();
    assert!(files.contains("colour is blue") && files.contains("server.pl") && !files.contains("secret"), "{files}");

    // Commands: bytes, exit code, a terminal of the right size, and no end that leaves something behind.
    let ran = cli.run(&["exec", &first, "-a", "shop", "echo $APP; exit 7"]);
    assert_eq!((ran.stdout.as_str(), ran.code), ("shop\n", 7), "{}", ran.stderr);
    let ran = cli.feed(&["exec", &first, "-a", "shop", "cat; wc -c /dev/null"], b"through and through");
    assert!(ran.stdout.starts_with("through and through"), "{}{}", ran.stdout, ran.stderr);
    let ran = cli.run(&["exec", &first, "-a", "shop", "perl -e 'print chr(1), chr(0), chr(2), q(x) x 9999997'"]);
    assert_eq!((ran.stdout.len(), &ran.stdout[..4]), (10_000_000, "\u{1}\0\u{2}x"), "{}", ran.stderr);
    let ran = cli.terminal(&["exec", &first, "-a", "shop", "stty size; exit 5"], 37, 91, b"").unwrap();
    assert!(ran.stdout.contains("37 91") && ran.code == 5, "{} {}", ran.stdout, ran.code);
    let ran = cli.run(&["run", "web", "-a", "shop", "echo run in $SERVICE; exit 3"]);
    assert!(ran.stdout.contains("run in web") && ran.code == 3, "{} {} {}", ran.stdout, ran.stderr, ran.code);
    cli.run(&["exec", &first, "-a", "shop", "echo kept > /data/note"]).ok();

    // The Rack is killed, then also what stands beside its processes: the container never notices.
    stack.rack.restart().unwrap();
    assert_eq!(process(&cli, "shop"), first);
    assert!(eventually(LONG, || page(&address, "/")).is_some());
    stack.rack.kill();
    kill_shims(&stack);
    stack.rack.restart().unwrap();
    assert_eq!(process(&cli, "shop"), first, "{}", stack.rack.log());
    assert!(eventually(LONG, || page(&address, "/after-the-crash").or(page(&address, "/"))).is_some());
    let told = eventually(LONG, || {
        Some(cli.run(&["logs", "-a", "shop", "--no-follow"]).ok()).filter(|log| log.contains("GET /after-the-crash 404"))
    });
    assert!(told.is_some(), "what a container says after the crash is kept too");

    // Files, both ways.
    std::fs::write(source.join("greeting"), "good day\n").unwrap();
    cli.at(&source).run(&["cp", "greeting", &format!("{first}:/tmp/copied"), "-a", "shop"]).ok();
    assert_eq!(cli.run(&["exec", &first, "-a", "shop", "cat /tmp/copied"]).ok(), "good day\n");
    cli.run(&["exec", &first, "-a", "shop", "echo and back > /tmp/copied"]).ok();
    cli.at(&source).run(&["cp", &format!("{first}:/tmp/copied"), "back", "-a", "shop"]).ok();
    assert_eq!(std::fs::read_to_string(source.join("back")).unwrap(), "and back\n");

    // A failing release leaves the old one in place, and says why.
    std::fs::write(source.join("server.pl"), "print qq(cannot find my database\\n); exit 4;\n").unwrap();
    let failed = cli.at(&source).run(&["deploy", "-a", "shop", "--wait"]);
    let log = eventually(LONG, || Some(cli.run(&["logs", "-a", "shop", "--no-follow"]).ok()).filter(|log| log.contains("not promoted")));
    let log = log.unwrap_or_else(|| panic!("{} {}", failed.stdout, failed.stderr));
    assert!(log.contains("exited with code 4") && log.contains("cannot find my database"), "{log}");
    assert_eq!(process(&cli, "shop"), first);

    // A restart replaces the container, and the volume stays.
    cli.run(&["restart", "-a", "shop"]).ok();
    let second = eventually(LONG, || Some(process(&cli, "shop")).filter(|id| *id != first)).expect("another process follows");
    assert_eq!(cli.run(&["exec", &second, "-a", "shop", "cat /data/note"]).ok(), "kept\n");

    // Nothing of a deleted app stays, and nothing of others goes.
    cli.run(&["apps", "delete", "shop"]).ok();
    assert!(eventually(LONG, || (containers(&podman) == ["foreign"]).then_some(())).is_some(), "{:?}", containers(&podman));
    // An image may go while they are listed.
    let images = || eventually(LONG, || podman.run(&["images", "--format", "{{.Repository}}"]).ok()).unwrap_or_default();
    stack.rack.restart().unwrap();
    assert!(eventually(LONG, || (!images().contains("/shop/")).then_some(())).is_some(), "{}", images());
    assert!(images().contains("debian"), "{}", images());
    let volumes = podman.run(&["volume", "ls", "--format", "{{.Name}}"]).unwrap();
    assert!(!volumes.contains("shop"), "{volumes}");
}

#[test]
fn a_database_in_a_container_is_made_whole_or_anew_and_no_other_version_touches_it() {
    let podman = Podman::start().unwrap();
    podman.base_image("docker.io/library/debian:stable-slim").unwrap();
    podman.postgres_image("docker.io/library/postgres:15").unwrap();
    podman.also_known_as("docker.io/library/postgres:15", &["docker.io/library/postgres:16"]).unwrap();
    let stack = Stack::start_in(&podman).unwrap();
    let cli = stack.direct();
    let source = stack.dir().join("source");
    std::fs::create_dir(&source).unwrap();
    let manifest = "resources:\n  db: {type: postgres, options: {version: 15}}\nservices:\n  jobs:\n    image: docker.io/library/debian:stable-slim\n    command: sleep 600\n    termination: {grace: 1}\n    resources: [db]\n";
    std::fs::write(source.join("convox.yml"), manifest).unwrap();
    cli.run(&["apps", "create", "shop"]).ok();
    let release = cli.at(&source).run(&["build", "-a", "shop", "--id"]).ok();
    cli.run(&["releases", "promote", release.trim(), "-a", "shop"]).ok();
    let log = || cli.run(&["logs", "-a", "shop", "--no-follow", "--since", "20m"]).stdout;

    // Stopped in the middle of its making: there is a directory with a version in it, and no database.
    let half = eventually(LONG, || {
        let listing = podman.run(&["ps", "--format", "{{.Names}} {{.Image}}"]).ok()?;
        let name = listing.lines().find(|line| line.ends_with("postgres:15"))?.split(' ').next()?.to_owned();
        podman.run(&["exec", &name, "cat", "/var/lib/postgresql/data/data/PG_VERSION"]).ok().map(|_| name)
    });
    let half = half.unwrap_or_else(|| panic!("{}", log()));
    podman.run(&["kill", "--signal", "KILL", &half]).unwrap();
    // Made once more, and then the service is started: longer than anything else here on a loaded machine.
    let url = eventually(3 * LONG, || {
        let listing = cli.run(&["resources", "-a", "shop", "--json"]).json();
        let db = listing.as_array()?.first()?.clone();
        (db["status"] == "running").then(|| db["url"].as_str().unwrap_or_default().to_owned())
    });
    let url = url.unwrap_or_else(|| panic!("{}", log()));
    let psql = |statement: &str| {
        let ran = std::process::Command::new("psql").args([&url, "-Atqc", statement]).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
    };
    assert_eq!(psql("CREATE TABLE kept (note text); INSERT INTO kept VALUES ('here'); SELECT note FROM kept"), "here\n", "{}", log());

    // From then on it is never made anew.
    let name = podman.run(&["ps", "--format", "{{.Names}} {{.Image}}"]).unwrap();
    let name = name.lines().find(|line| line.ends_with("postgres:15")).unwrap().split(' ').next().unwrap().to_owned();
    podman.run(&["kill", "--signal", "KILL", &name]).unwrap();
    assert!(eventually(LONG, || (psql("SELECT note FROM kept") == "here\n").then_some(())).is_some(), "{}", log());

    // Data out of it, by the image's own programs; and another version is told what to do instead of ruining it.
    let dump = stack.dir().join("dump.sql");
    cli.run(&["resources", "export", "db", "-a", "shop", "-f", dump.to_str().unwrap()]).ok();
    assert!(std::fs::read_to_string(&dump).unwrap().contains("here"));
    std::fs::write(source.join("convox.yml"), manifest.replace("version: 15", "version: 16")).unwrap();
    let _ = cli.at(&source).run(&["deploy", "-a", "shop", "--wait"]);
    let told = eventually(LONG, || Some(log()).filter(|log| log.contains("not promoted")));
    let told = told.unwrap_or_else(|| panic!("{}", log()));
    assert!(
        told.contains("its data was made by PostgreSQL 15") && told.contains("is version 16: export it, name another resource"),
        "{told}"
    );
    assert!(eventually(LONG, || (psql("SELECT note FROM kept") == "here\n").then_some(())).is_some(), "{}", log());
}

#[test]
fn an_image_from_elsewhere_becomes_a_build() {
    let podman = Podman::start().unwrap();
    podman.base_image("localhost/elsewhere:1").unwrap();
    let stack = Stack::start_in(&podman).unwrap();
    let source = stack.dir().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("convox.yml"), "services:\n  jobs:\n    command: sleep 600\n    termination: {grace: 1}\n").unwrap();
    let cli = stack.cli().at(&source);
    cli.run(&["apps", "create", "shop"]).ok();
    let said = cli.run(&["builds", "import-image", "localhost/elsewhere:1", "-a", "shop"]);
    assert_eq!(said.code, 0, "{}{}\n{}", said.stdout, said.stderr, stack.rack.log());
    let release = said.stdout.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(release.starts_with('R'), "{}", said.stdout);
    cli.run(&["releases", "promote", &release, "-a", "shop", "--wait"]).ok();
    let id = process(&cli, "shop");
    assert_eq!(cli.run(&["exec", &id, "-a", "shop", "echo from the image"]).ok(), "from the image\n");
    let refused = cli.run(&["builds", "import-image", "localhost/nothing:1", "-a", "shop"]).err();
    assert!(refused.contains("could not pull localhost/nothing:1"), "{refused}");
    let refused = cli.run(&["builds", "import-image", "-x", "-a", "shop"]);
    assert_ne!(refused.code, 0);

    // Exports of the originals: v2's with all images in one archive, v3's with one each. Under what name they were saved is nobody's business here.
    let manifest = std::fs::read_to_string(source.join("convox.yml")).unwrap();
    let packed = |name: &str, manifest: &str, dir: &std::path::Path, archive: &str| {
        let described =
            serde_json::json!({"id": "BOLD", "app": "old", "description": name, "manifest": manifest, "logs": "", "status": "complete"});
        std::fs::write(dir.join("build.json"), described.to_string()).unwrap();
        let file = stack.dir().join(format!("{name}.tgz"));
        let mut tar = std::process::Command::new("tar");
        let tar = tar.args(["-I", "gzip -1", "-cf"]).arg(&file).arg("-C").arg(dir).args(["build.json", archive]).status();
        assert!(tar.unwrap().success());
        file.to_str().unwrap().to_owned()
    };
    let export = |name: &str, image: &str, archive: &str, format: &str| {
        let dir = stack.dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        podman.run(&["tag", "localhost/elsewhere:1", image]).unwrap();
        podman.run(&["save", "--quiet", "--format", format, "--output", dir.join(archive).to_str().unwrap(), image]).unwrap();
        podman.run(&["untag", "localhost/elsewhere:1", image]).unwrap();
        packed(name, &manifest, &dir, archive)
    };
    let v2 = export("v2", "registry.example.org/old:jobs.BOLD", "old.BOLD.tar", "docker-archive");
    let v3 = export("v3", "docker.io/library/victim:1", "jobs.BOLD.tar", "oci-archive");
    for (name, file) in [("v2", &v2), ("v3", &v3)] {
        let said = cli.run(&["builds", "import", "-a", "shop", "-f", file]);
        assert_eq!(said.code, 0, "{name}: {}{}\n{}", said.stdout, said.stderr, stack.rack.log());
        let release = said.stdout.trim().rsplit(' ').next().unwrap().to_owned();
        cli.run(&["releases", "promote", &release, "-a", "shop", "--wait"]).ok();
        let answered = eventually(LONG, || {
            let listing = cli.run(&["ps", "-a", "shop", "--json"]).json();
            let of_release = |process: &&serde_json::Value| process["release"] == release.as_str() && process["status"] == "running";
            let id = listing.as_array()?.iter().find(of_release)?["id"].as_str()?.to_owned();
            Some(cli.run(&["exec", &id, "-a", "shop", "echo imported"]).stdout).filter(|answer| answer == "imported\n")
        });
        assert!(answered.is_some(), "{name}: {}", stack.rack.log());
        let builds = cli.run(&["builds", "-a", "shop", "--json"]).json();
        assert_eq!(builds[0]["description"], name, "{builds}");
    }
    let images = || podman.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).unwrap();
    assert!(!images().contains("victim") && !images().contains("registry.example.org"), "{}", images());
    // What came as an export goes as one.
    let build = cli.run(&["builds", "-a", "shop", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
    let again = stack.dir().join("again.tgz");
    cli.run(&["builds", "export", &build, "-a", "shop", "-f", again.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&v3).unwrap());
    // All of it or nothing.
    let before = images().lines().count();
    let lacking = packed("lacking", "services: {jobs: , web: }\n", &stack.dir().join("v2"), "old.BOLD.tar");
    let refused = cli.run(&["builds", "import", "-a", "shop", "-f", &lacking]).err();
    assert!(refused.contains("the export has no image of service web"), "{refused}");
    assert_eq!(images().lines().count(), before, "{}", images());
}

#[test]
fn builds_are_bounded_in_time_and_memory_and_can_be_cancelled() {
    let podman = Podman::start().unwrap();
    podman.base_image("docker.io/library/debian:stable-slim").unwrap();
    let socket = podman.socket();
    let options = ["--runtime", "container", "--container-network", "host", "--container-socket", socket.to_str().unwrap()];
    let stack = Stack::start_rack_with(&[&options[..], &["--build-timeout", "12s", "--build-memory", "64"]].concat()).unwrap();
    let cli = stack.cli();
    let source = stack.dir().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("convox.yml"), "services:\n  web:\n    build: .\n").unwrap();
    cli.run(&["apps", "create", "shop"]).ok();
    let build = |step: &str| {
        std::fs::write(source.join("Dockerfile"), format!("FROM docker.io/library/debian:stable-slim\nRUN {step}\n")).unwrap();
        let ran = cli.at(&source).run(&["build", "-a", "shop"]);
        assert_ne!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        format!("{}{}", ran.stdout, ran.stderr)
    };
    let said = build("perl -e '$x = q(x) x 300_000_000; print length $x'");
    assert!(said.contains("--build-memory"), "{said}");
    // Each for a step that ends by itself: what an engine does with one that runs is its own affair.
    let said = build("sleep 25");
    assert!(said.contains("took longer than 12 s") && said.contains("--build-timeout"), "{said}");
    let said = std::thread::scope(|scope| {
        let building = scope.spawn(|| build("sleep 26"));
        let client = stack.go_direct(convox_testkit::go::Generation::V2);
        let cancelled = eventually(LONG, || (client.form("POST", "/apps/shop/cancel", &[]).unwrap().status == 200).then_some(()));
        assert!(cancelled.is_some(), "there is a build to cancel");
        building.join().unwrap()
    });
    assert!(said.contains("it was cancelled"), "{said}");
    let builds = cli.run(&["builds", "-a", "shop", "--json"]).json();
    assert!(builds.as_array().unwrap().iter().all(|build| build["status"] == "failed"), "{builds}");
}
