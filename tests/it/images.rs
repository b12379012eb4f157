//! Images of apps: built within bounds, from registries that ask for a password, or made elsewhere.

use std::time::Duration;

use convox_testkit::{Podman, Registry, Stack, eventually};

use crate::containers::process;

const LONG: Duration = Duration::from_mins(1);
/// Looked for where it must not be.
const PASSWORD: &str = "canaryRegistryPassword3Hq8WnT5";

#[test]
fn builds_of_images_from_elsewhere_go_when_they_are_old() {
    let podman = Podman::start().unwrap();
    podman.base_image("localhost/elsewhere:1").unwrap();
    let socket = podman.socket();
    let options = ["--runtime", "container", "--container-network", "host", "--container-socket", socket.to_str().unwrap()];
    let stack = Stack::start_rack_with(&[&options[..], &["--keep-builds", "1"]].concat()).unwrap();
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
    // Old ones go as those do that were built: what runs stays, and the last.
    let newest = |count: usize| {
        let builds = cli.run(&["builds", "-a", "shop", "--json"]).json();
        let complete = builds.as_array().unwrap().iter().filter(|build| build["status"] == "complete");
        complete.take(count).map(|build| build["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    cli.run(&["builds", "import-image", "localhost/elsewhere:1", "-a", "shop"]).ok();
    cli.run(&["builds", "import-image", "localhost/elsewhere:1", "-a", "shop"]).ok();
    let images = || eventually(LONG, || podman.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok()).unwrap_or_default();
    let builds = newest(3);
    assert!(eventually(LONG, || (!images().contains(&builds[1])).then_some(())).is_some(), "{builds:?}\n{}", images());
    assert!(images().contains(&builds[0]) && images().contains(&builds[2]), "{builds:?}\n{}", images());
    assert_eq!(process(&cli, "shop"), id);
}

#[test]
fn builds_are_bounded_in_time_memory_and_processes_and_can_be_cancelled() {
    let podman = Podman::start().unwrap();
    podman.base_image("docker.io/library/debian:stable-slim").unwrap();
    let socket = podman.socket();
    let options = ["--runtime", "container", "--container-network", "host", "--container-socket", socket.to_str().unwrap()];
    let stack =
        Stack::start_rack_with(&[&options[..], &["--build-timeout", "12s", "--build-memory", "64", "--build-processes", "50"]].concat())
            .unwrap();
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
    assert!(said.contains("a step of a build gets 64 MB of memory here") && said.contains("BuildMemory=MB"), "{said}");
    // A step that makes as many processes as it can gets no more than its share: forty are fine, a thousand are not.
    let forks = |count: u32| {
        format!(
            "perl -e 'for (1 .. {count}) {{ my $pid = fork; defined $pid or die qq(no more: $!\\n); $pid or exec qw(sleep 5) }} print qq(made ), {count}, qq(\\n); exit 9'"
        )
    };
    let said = build(&forks(40));
    assert!(said.contains("made 40") && !said.contains("--build-processes"), "{said}");
    let said = build(&forks(1000));
    assert!(said.contains("no more: Resource temporarily unavailable") && !said.contains("made 1000"), "{said}");
    assert!(said.contains("may have 50 processes at the same time") && said.contains("--build-processes"), "{said}");
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

/// Whether a running program has these words in its arguments, as everybody on the machine can see.
fn is_shown_by_ps(words: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let arguments = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    arguments.into_iter().any(|arguments| String::from_utf8_lossy(&arguments).contains(words))
}

#[test]
fn images_come_from_a_private_registry_with_its_password_and_without_it_people_are_told_what_to_do() {
    let registry = Registry::start("ci", PASSWORD).unwrap();
    let podman = Podman::start_beside(&registry).unwrap();
    let host = registry.host();
    for tag in ["team/base:1", "team/ready:1", "team/other:1"] {
        podman.bare_image("localhost/bare:1").unwrap();
        registry.take(&podman, "localhost/bare:1", tag, "ci", PASSWORD).unwrap();
    }
    let stack = Stack::start_in(&podman).unwrap();
    let source = stack.dir().join("source");
    std::fs::create_dir(&source).unwrap();
    let web = "services:\n  web:\n    command: /busybox sleep 600\n    termination: {grace: 1}\n";
    std::fs::write(source.join("convox.yml"), web).unwrap();
    std::fs::write(source.join("note"), "it is here\n").unwrap();
    std::fs::write(source.join("Dockerfile"), format!("FROM {host}/team/base:1\nCOPY note /note\n")).unwrap();
    let cli = stack.cli().at(&source);
    cli.run(&["apps", "create", "shop"]).ok();
    let build = || {
        let ran = std::thread::scope(|scope| {
            let building = scope.spawn(|| cli.run(&["build", "-a", "shop"]));
            while !building.is_finished() {
                assert!(!is_shown_by_ps(PASSWORD), "others on the machine see the password");
                std::thread::sleep(Duration::from_millis(20));
            }
            building.join().unwrap()
        });
        (ran.code, format!("{}{}", ran.stdout, ran.stderr))
    };
    let add = |password: &str| cli.feed(&["registries", "add", host, "ci", "--password-stdin"], password.as_bytes()).ok();

    let (code, without) = build();
    assert!(code != 0 && without.contains(&format!("this Rack has no login for {host}: `convox registries add {host} USER")), "{without}");
    add("not the password");
    let (code, wrong) = build();
    assert!(code != 0 && wrong.contains(&format!("{host} refuses the login of ci")), "{wrong}");
    add(PASSWORD);
    // An image that is built from one of the registry, and one that is taken as it is.
    let both = format!("{web}  ready:\n    image: {host}/team/ready:1\n    command: /busybox sleep 600\n    termination: {{grace: 1}}\n");
    std::fs::write(source.join("convox.yml"), both).unwrap();
    let (code, right) = build();
    assert_eq!(code, 0, "{right}");
    let promoted = cli.run(&["releases", "promote", "-a", "shop", "--wait"]);
    let log = cli.run(&["logs", "-a", "shop", "--no-follow"]).stdout;
    assert_eq!(promoted.code, 0, "{}{}\n{log}", promoted.stdout, promoted.stderr);
    let listing = cli.run(&["ps", "-a", "shop", "--json"]).json();
    let web = listing.as_array().unwrap().iter().find(|process| process["name"] == "web").unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(cli.run(&["exec", &web, "-a", "shop", "/busybox cat /note"]).ok(), "it is here\n");

    // The login is gone when it is taken away.
    assert!(cli.run(&["registries"]).ok().contains(host));
    cli.run(&["registries", "remove", host]).ok();
    assert!(!cli.run(&["registries"]).ok().contains(host));
    std::fs::write(source.join("Dockerfile"), format!("FROM {host}/team/other:1\n")).unwrap();
    let (code, after) = build();
    assert!(code != 0 && after.contains("has no login"), "{after}");

    // Where the password must not be: what people read, what servers write, what lies on the disk.
    let builds = cli.run(&["builds", "-a", "shop", "--json"]).ok();
    let told =
        [without, wrong, right, after, log, builds, stack.rack.log(), stack.console.log(), cli.run(&["rack", "logs", "--no-follow"]).ok()];
    assert!(told.iter().all(|text| !text.contains(PASSWORD)), "{told:?}");
    let found =
        std::process::Command::new("grep").args(["-rl", PASSWORD]).args([stack.rack_data(), stack.console_data()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}
