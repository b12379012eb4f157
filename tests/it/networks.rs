//! A Rack's own network: a real bridge of a real Podman, in a network of this test's own so that the machine's is left alone.

use std::process::Command;
use std::time::Duration;

use convox_testkit::{Podman, Stack, eventually};

use crate::containers::process;
use crate::page;

const LONG: Duration = Duration::from_mins(1);
/// Set where the test is inside of its network.
const INSIDE: &str = "CONVOX_TEST_INSIDE";
/// What is needed before the program that follows it: the loopback address, and directories of networks that nobody else has.
const STAGE: &str = "ip link set lo up && mkdir -p /var/lib/cni /run/netns && mount -t tmpfs tmpfs /var/lib/cni && mount -t tmpfs tmpfs /run/netns && exec \"$@\"";

const MANIFEST: &str = "\
resources:
  cache: {type: redis}
services:
  web:
    image: docker.io/library/debian:stable-slim
    command: mkdir /www; echo \"web $RELEASE\" > /www/index.html; exec busybox httpd -f -p $PORT -h /www
    port: 3000
    health: {path: /, interval: 1, grace: 1}
    links: [api]
    resources: [cache]
    termination: {grace: 1}
  api:
    build: .
    command: /busybox httpd -f -p 3000 -h /www
    port: 3000
    scale: 2
    internal: true
    termination: {grace: 1}
";

/// Says what HOST:PORT, its argument, answers to a request; ends with 9 where nobody listens.
const FETCH: &str = r"perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(PeerAddr => $ARGV[0], Timeout => 3) or exit 9; print $s qq(GET / HTTP/1.0\r\n\r\n); local $/; $_ = <$s>; s/.*\r\n\r\n//s; print'";

/// Runs the test of this name once more, as a program of its own in a network of its own.
fn inside_a_network(name: &str) {
    let program = std::env::current_exe().unwrap();
    let ran = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", STAGE, "sh"])
        .arg(program)
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(INSIDE, "yes")
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn containers_have_a_network_of_their_racks_own_and_reach_each_other_through_it() {
    if std::env::var_os(INSIDE).is_none() {
        return inside_a_network("networks::containers_have_a_network_of_their_racks_own_and_reach_each_other_through_it");
    }
    let podman = Podman::start_bridged().unwrap();
    podman.base_image("docker.io/library/debian:stable-slim").unwrap();
    podman.bare_image("localhost/bare:1").unwrap();
    podman.also_known_as("docker.io/library/debian:stable-slim", &["docker.io/library/redis:7"]).unwrap();
    let socket = podman.socket();
    // The default: nothing is said of networks.
    let mut stack = Stack::start_rack_with(&["--runtime", "container", "--container-socket", socket.to_str().unwrap()]).unwrap();
    let source = stack.dir().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("convox.yml"), MANIFEST).unwrap();
    std::fs::write(source.join("index.html"), "the answer\n").unwrap();
    std::fs::write(source.join("Dockerfile"), "FROM localhost/bare:1\nCOPY index.html /www/index.html\n").unwrap();
    let cli = stack.cli().at(&source);
    cli.run(&["apps", "create", "shop"]).ok();
    let deployed = cli.run(&["deploy", "-a", "shop", "--wait"]);
    let log = || cli.run(&["logs", "-a", "shop", "--no-follow"]).stdout;
    assert_eq!(deployed.code, 0, "{}{}\n{}\n{}", deployed.stdout, deployed.stderr, log(), stack.rack.log());

    // One bridge, with the Rack's label, and every process with an address of its own on it.
    let networks = podman.run(&["network", "ls", "--filter", "label=convox.rack", "--format", "{{.Name}} {{.Driver}}"]).unwrap();
    assert!(networks.starts_with("convox-main-") && networks.trim().ends_with(" bridge"), "{networks}");
    let name = networks.split(' ').next().unwrap().to_owned();
    let addresses = podman.run(&["ps", "--quiet"]).unwrap();
    let addresses: std::collections::BTreeSet<String> = addresses
        .lines()
        .map(|id| podman.run(&["inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", id]).unwrap())
        .collect();
    assert!(addresses.len() >= 4 && addresses.iter().all(|address| address.trim().split('.').count() == 4), "{addresses:?}");

    // All of them listen on the same port, the manifest's, and the machine reaches each service by its own.
    let services = cli.run(&["services", "-a", "shop", "--json"]).json();
    let of = |service: &str| {
        let found = services.as_array().unwrap().iter().find(|found| found["name"] == service);
        found.and_then(|found| found["domain"].as_str()).unwrap().to_owned()
    };
    let release = |page: String| page.lines().last().unwrap_or_default().to_owned();
    let first = release(eventually(LONG, || page(&of("web"), "/")).unwrap_or_else(|| panic!("{}", log())));
    let web = cli.run(&["ps", "-a", "shop", "--json"]).json();
    let web = web.as_array().unwrap().iter().find(|process| process["name"] == "web").unwrap()["id"].as_str().unwrap().to_owned();
    let exec = |command: &str| cli.run(&["exec", &web, "-a", "shop", command]);
    assert_eq!(exec("echo $PORT").ok(), "3000\n");
    // A link and a resource, at the machine's address in the network.
    assert_eq!(exec(&format!("{FETCH} ${{API_URL#http://}}")).ok(), "the answer\n", "{}", exec("echo $API_URL; ip route").stdout);
    assert_eq!(
        exec("REDISCLI_AUTH=$CACHE_PASS redis-cli -h $CACHE_HOST -p $CACHE_PORT ping").ok(),
        "PONG\n",
        "{}",
        exec("echo $CACHE_URL").stdout
    );
    // The machine's own loopback address is not theirs.
    assert!(page(&of("api"), "/").is_some());
    assert_eq!(exec(&format!("{FETCH} {}", of("api"))).code, 9);

    // The network is found again by the next Rack, and a release takes over as anywhere.
    stack.rack.restart().unwrap();
    assert_eq!(release(eventually(LONG, || page(&of("web"), "/")).unwrap()), first);
    cli.run(&["deploy", "-a", "shop", "--wait"]).ok();
    let second = eventually(LONG, || page(&of("web"), "/").map(release).filter(|second| *second != first));
    assert!(second.is_some_and(|second| second.starts_with("web R")), "{}", log());
    process(&cli, "shop");
    assert_eq!(podman.run(&["network", "ls", "--filter", "label=convox.rack", "--format", "{{.Name}}"]).unwrap().trim(), name);
}
