//! Apps in containers of a real Podman: built, run, entered, found again, and cleaned up after.

use std::time::Duration;

use convox_testkit::{Cli, Podman, Stack, eventually};

use crate::{example, page};

const LONG: Duration = Duration::from_mins(1);

pub(crate) fn process(cli: &Cli, app: &str) -> String {
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

const OF_ITS_CONTAINER: &str = "\
labels: {team: ops}
environment: [GREETING=hello]
services:
  web:
    build: {path: ., target: middle}
    command: exec sleep 600
    scale: {count: 1, cpu: 256, memory: 64, limit: {cpu: 512, memory: 96}}
    environment: [NAME=web]
    labels: {role: front}
    volumes: [\"shared:/shared\", /own]
    termination: {grace: 1}
  other:
    image: localhost/small:1
    command: exec sleep 600
    volumes: [\"shared:/there\", /own]
    termination: {grace: 1}
";

/// What the kernel holds a process to: the value in a file of its control group, by the names of both versions.
fn held_to(pid: &str, controller: &str, one: &str, two: &str) -> String {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    // As `4:cpu,cpuacct:/path`, and `0::/path` of the unified ones.
    let lines = || groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let of = |name: &str| lines().find(|(names, _)| names.split(',').any(|other| other == name));
    let file = match of(controller) {
        Some((_, path)) => format!("/sys/fs/cgroup/{controller}{path}/{one}"),
        None => format!("/sys/fs/cgroup{}/{two}", of("").unwrap().1),
    };
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")).trim().to_owned()
}

#[test]
fn a_container_is_what_its_manifest_says_and_volumes_are_its_apps_alone() {
    let podman = Podman::start().unwrap();
    podman.small_image("localhost/small:1").unwrap();
    let stack = Stack::start_in(&podman).unwrap();
    let cli = stack.cli();
    let source = stack.dir().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("convox.yml"), OF_ITS_CONTAINER).unwrap();
    let stage = |name: &str| format!("FROM localhost/small:1 AS {name}\nRUN echo {name} > /stage\n");
    std::fs::write(source.join("Dockerfile"), ["first", "middle", "last"].map(stage).concat()).unwrap();
    for app in ["shop", "blog"] {
        cli.run(&["apps", "create", app]).ok();
        cli.at(&source).run(&["deploy", "-a", app, "--wait"]).ok();
    }
    let named = |app: &str, service: &str| {
        let found = eventually(LONG, || {
            let listing = cli.run(&["ps", "-a", app, "--json"]).json();
            let process = listing.as_array()?.iter().find(|process| process["name"] == service && process["status"] == "running")?;
            Some(process["id"].as_str()?.to_owned())
        });
        found.unwrap_or_else(|| panic!("{}", cli.run(&["logs", "-a", app, "--no-follow"]).stdout))
    };
    // One that is just being replaced is listed a moment longer than it runs.
    let exec = |app: &str, service: &str, command: &str| {
        let said = || cli.run(&["exec", &named(app, service), "-a", app, command]);
        eventually(LONG, || Some(said()).filter(|said| said.code == 0)).unwrap_or_else(said).ok()
    };
    let container = |process: &str| containers(&podman).into_iter().find(|name| name.ends_with(process)).expect("a container of a process");

    // The stage that was asked for, and not the last.
    assert_eq!(exec("shop", "web", "cat /stage"), "middle\n");
    // Limits as the kernel has them: a share and a most of the processor, memory without swap beyond it, processes.
    let web = named("shop", "web");
    let pid = podman.run(&["inspect", "--format", "{{.State.Pid}}", &container(&web)]).unwrap();
    let pid = pid.trim();
    assert_eq!(held_to(pid, "memory", "memory.limit_in_bytes", "memory.max"), "100663296");
    assert_eq!(held_to(pid, "pids", "pids.max", "pids.max"), "4096");
    let quota = held_to(pid, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(["50000", "50000 100000"].contains(&quota.as_str()), "{quota}");
    let share = held_to(pid, "cpu", "cpu.shares", "cpu.weight");
    assert!(["256", "10"].contains(&share.as_str()), "{share}");
    // A run of its own size, in the same volumes; over its memory it ends, and is told why.
    let ran = cli.run(&["run", "web", "-a", "shop", "--memory", "32", "echo $GREETING from $NAME > /shared/note; cat /shared/note"]);
    assert!(ran.stdout.contains("hello from web") && ran.code == 0, "{}{}", ran.stdout, ran.stderr);
    cli.run(&["run", "web", "-a", "shop", "--detach", "--memory", "32", "dd if=/dev/zero of=/dev/null bs=200M count=1"]).ok();
    let log = || cli.run(&["logs", "-a", "shop", "--no-follow"]).ok();
    assert!(eventually(LONG, || log().contains("more memory than its limit of 32 MB").then_some(())).is_some(), "{}", log());
    // What it is told, and what is told about it.
    let environment = exec("shop", "web", "env");
    assert!(
        environment.contains("GREETING=hello\n") && environment.contains("NAME=web\n") && environment.contains("APP=shop\n"),
        "{environment}"
    );
    assert!(!exec("shop", "other", "env").contains("NAME=web"));
    let labels = |process: &str| podman.run(&["inspect", "--format", "{{json .Config.Labels}}", &container(process)]).unwrap();
    let of_web: serde_json::Value = serde_json::from_str(&labels(&web)).unwrap();
    assert_eq!((&of_web["team"], &of_web["role"], &of_web["convox.app"]), (&"ops".into(), &"front".into(), &"shop".into()));
    let of_other: serde_json::Value = serde_json::from_str(&labels(&named("shop", "other"))).unwrap();
    assert_eq!((&of_other["team"], &of_other["role"]), (&"ops".into(), &serde_json::Value::Null));

    // A named volume is shared by an app's services, the other kind is the service's own, and both are the app's alone.
    assert_eq!(exec("shop", "other", "cat /there/note"), "hello from web\n");
    exec("shop", "other", "echo of other > /own/note");
    assert_eq!(exec("shop", "web", "ls -A /own"), "");
    assert_eq!(
        exec("blog", "web", "ls -A /shared /own; echo of blog > /shared/note").replace("/shared:", "").replace("/own:", "").trim(),
        ""
    );
    // They outlive a restart and another release.
    cli.run(&["restart", "-a", "shop"]).ok();
    assert!(eventually(LONG, || (named("shop", "web") != web).then_some(())).is_some());
    assert_eq!(exec("shop", "web", "cat /shared/note"), "hello from web\n");
    std::fs::write(source.join("convox.yml"), OF_ITS_CONTAINER.replace("hello", "hi")).unwrap();
    cli.at(&source).run(&["deploy", "-a", "shop", "--wait"]).ok();
    let of_the_new = || exec("shop", "web", "echo $GREETING; cat /shared/note");
    assert!(eventually(LONG, || (of_the_new() == "hi\nhello from web\n").then_some(())).is_some(), "{}", of_the_new());
    assert_eq!(exec("shop", "other", "cat /own/note"), "of other\n");
    // And end with their app, not with another.
    cli.run(&["apps", "delete", "blog"]).ok();
    let volumes = || podman.run(&["volume", "ls", "--format", "{{.Name}}"]).unwrap();
    assert!(eventually(LONG, || (!volumes().contains(".blog.")).then_some(())).is_some(), "{}", volumes());
    assert_eq!(exec("shop", "other", "cat /there/note"), "hello from web\n");
}

const COMMANDS: &str = "\
services:
  bare:
    image: localhost/bare:1
    command: /busybox sleep 600
    termination: {grace: 1}
  words:
    build: .
    command: serve --name 'a b'
    termination: {grace: 1}
  text:
    build: .
    command: serve $APP && true
    termination: {grace: 1}
  list:
    build: .
    command: [sh, -c, serve]
    termination: {grace: 1}
  own:
    image: localhost/small:1
    command: sh -c \"x=inner; echo its own $x; exec sleep 600\"
    termination: {grace: 1}
  shell:
    image: localhost/small:1
    command: echo a shell for $APP; exec sleep 600
    termination: {grace: 1}
";

#[test]
fn a_command_is_read_by_a_shell_where_there_is_one_and_given_as_words_where_not() {
    let podman = Podman::start().unwrap();
    podman.small_image("localhost/small:1").unwrap();
    podman.bare_image("localhost/bare:1").unwrap();
    let stack = Stack::start_in(&podman).unwrap();
    let source = stack.dir().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("convox.yml"), COMMANDS).unwrap();
    std::fs::write(source.join("entry"), "#!/bin/sh\nIFS='|'; echo \"$*\"; exec sleep 600\n").unwrap();
    std::fs::write(source.join("Dockerfile"), "FROM localhost/small:1\nCOPY entry /entry\nENTRYPOINT [\"/bin/sh\", \"/entry\"]\n").unwrap();
    let cli = stack.cli().at(&source);
    cli.run(&["apps", "create", "shop"]).ok();
    let deployed = cli.run(&["deploy", "-a", "shop", "--wait"]);
    let log = || cli.run(&["logs", "-a", "shop", "--no-follow"]).ok();
    assert_eq!(deployed.code, 0, "{}{}\n{}", deployed.stdout, deployed.stderr, log());
    // An ENTRYPOINT gets the words of what needs no shell, a shell for what does, and a list as it is.
    for line in ["serve|--name|a b", "sh|-c|serve $APP && true", "sh|-c|serve", "its own inner", "a shell for shop"] {
        let is_told = || log().lines().any(|told| told.ends_with(line)).then_some(());
        assert!(eventually(LONG, is_told).is_some(), "{line}\n{}", log());
    }
    // In an image without a shell: commands of runs and of sessions, and what nobody there can read is told.
    cli.run(&["run", "bare", "-a", "shop", "--detach", "/busybox echo 'no shell' $APP"]).ok();
    assert!(eventually(LONG, || log().contains("no shell $APP").then_some(())).is_some(), "{}", log());
    assert!(log().contains("NOTICE: the image has no sh:"), "{}", log());
    let listing = cli.run(&["ps", "-a", "shop", "--json"]).json();
    let bare = listing.as_array().unwrap().iter().find(|process| process["command"] == "/busybox sleep 600").expect("it runs");
    assert_eq!(bare["name"], "bare");
    let bare = bare["id"].as_str().unwrap().to_owned();
    assert_eq!(cli.run(&["exec", &bare, "-a", "shop", "/busybox echo 'in  it'"]).ok(), "in  it\n");
    let ran = cli.terminal(&["exec", &bare, "-a", "shop", "/busybox tty"], 37, 91, b"").unwrap();
    assert!(ran.stdout.contains("/dev/pts/") && ran.code == 0, "{} {}", ran.stdout, ran.code);
    assert_ne!(cli.run(&["exec", &bare, "-a", "shop", "/nothing"]).code, 0);
}
