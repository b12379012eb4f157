//! SSH keys of the Rack's hosts, rolled on a real sshd: at every moment there is a key that works, and in the end only the new one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use convox_testkit::go::{Generation, GoClient};
use convox_testkit::stack::RACK_PASSWORD;
use convox_testkit::{Server, eventually};

/// Debian's sshd on a port and with a configuration of its own, for the user who runs the test.
struct Host {
    dir: tempfile::TempDir,
    port: u16,
    sshd: Child,
}

fn keygen(path: &Path) -> String {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status().unwrap();
    assert!(made.success());
    std::fs::read_to_string(path.with_extension("pub")).unwrap().trim().to_owned()
}

impl Host {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        keygen(&at("host_key"));
        let first = keygen(&at("first"));
        // Somebody else's line, with options and a comment: it stays.
        std::fs::write(at("authorized_keys"), format!("no-pty ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE0 somebody else\n{first}\n")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\n",
            at("host_key").display(),
            at("authorized_keys").display()
        );
        std::fs::write(at("sshd_config"), config).unwrap();
        // Where it separates its privileges.
        let _ = std::fs::create_dir_all("/run/sshd");
        let log = std::fs::File::create(at("sshd.log")).unwrap();
        let sshd = Command::new("/usr/sbin/sshd").args(["-D", "-e", "-f"]).arg(at("sshd_config")).stderr(log).stdin(Stdio::null()).spawn();
        let sshd = sshd.expect("openssh-server is installed by bin/test");
        assert!(eventually(Duration::from_secs(10), || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).is_some());
        Self { dir, port, sshd }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        let me = Command::new("id").arg("-un").output().unwrap();
        let me = String::from_utf8_lossy(&me.stdout).trim().to_owned();
        let host_key = std::fs::read_to_string(self.at("host_key.pub")).unwrap();
        let host_key = host_key.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let config = serde_json::json!([{
            "id": "web1", "address": format!("{me}@127.0.0.1"), "port": self.port, "host_key": host_key,
            "key": self.at("first"), "authorized_keys": self.at("authorized_keys"),
        }]);
        std::fs::write(self.at("instances.json"), config.to_string()).unwrap();
        self.at("instances.json")
    }

    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(self.at("authorized_keys")).unwrap().lines().map(str::to_owned).collect()
    }

    /// Whether the key of the configuration still opens it.
    fn opens_with_first(&self) -> bool {
        let known = format!("UserKnownHostsFile={}", self.at("known").display());
        Command::new("ssh")
            .args(["-F", "/dev/null", "-p", &self.port.to_string(), "-o", "StrictHostKeyChecking=no", "-o", &known, "-o", "BatchMode=yes"])
            .args(["-o", "IdentitiesOnly=yes", "-i"])
            .arg(self.at("first"))
            .args(["127.0.0.1", "true"])
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

fn rack(host: &Host) -> (Server, GoClient) {
    let (data, password) = (host.at("rack"), host.at("rack.password"));
    std::fs::write(&password, RACK_PASSWORD).unwrap();
    let (data, password, config) = (data.display().to_string(), password.display().to_string(), host.config().display().to_string());
    let args = ["serve", "--data", &data, "--name", "main", "--password-file", &password, "--instances", &config];
    let rack = Server::start("convox-rack", &args, &host.at("rack.log")).unwrap();
    let client = GoClient {
        generation: Generation::V2,
        host: rack.host.clone(),
        fingerprint: rack.fingerprint,
        user: "convox".to_owned(),
        password: RACK_PASSWORD.to_owned(),
        rack: None,
    };
    (rack, client)
}

#[test]
fn the_key_of_an_instance_is_rolled_and_the_old_one_is_refused() {
    let host = Host::start();
    let (_rack, client) = rack(&host);
    assert!(host.opens_with_first());
    let listed = client.get("/instances", "").unwrap().json();
    assert!(listed.as_array().unwrap().iter().any(|instance| instance["id"] == "web1"), "{listed}");
    let before = host.lines();
    for _ in 0..2 {
        let rolled = client.raw("POST", "/instances/keyroll", &[], b"").unwrap();
        assert_eq!((rolled.status, rolled.text().trim()), (200, "ok"), "as both clients expect it; {}", rolled.text());
        let after = host.lines();
        assert_eq!((after.len(), &after[0]), (2, &before[0]), "{after:?}");
        assert!(!host.opens_with_first());
    }
    let left: Vec<_> = std::fs::read_dir(host.at("rack/ssh")).unwrap().collect();
    assert!(left.is_empty(), "no private key stays on the disk: {left:?}");
}

/// Whether the host shows a step, given the keys from before.
type Reached<'a> = &'a dyn Fn(&[String]) -> bool;

#[test]
fn a_roll_that_is_killed_at_each_step_leaves_a_key_that_works_and_is_finished() {
    let host = Host::start();
    let (mut rack, client) = rack(&host);
    let first = host.lines();
    // What the host shows of a step: a login under way, the new key beside the old one, the new key alone.
    let steps: [(&str, Reached<'_>); 3] = [
        ("a key was made", &|_| std::fs::read_dir(host.at("rack/ssh")).is_ok_and(|mut files| files.next().is_some())),
        ("the new key was added", &|_| host.lines().len() == 3),
        ("the old key was taken away", &|before| host.lines().len() == 2 && host.lines() != before),
    ];
    for (step, reached) in steps {
        let before = host.lines();
        let asking = client.clone();
        let asked = std::thread::spawn(move || drop(asking.raw("POST", "/instances/keyroll", &[], b"")));
        let seen = eventually(Duration::from_secs(20), || reached(&before).then_some(()));
        rack.kill();
        asked.join().unwrap();
        assert!(seen.is_some(), "{step}: {}", rack.log());
        assert!(host.lines().len() >= 2, "there is a key at every moment: {:?}", host.lines());
        // Nobody asks for it again: the next start carries it on. A roll that had not begun yet leaves what was there.
        rack.restart().unwrap();
        let over = eventually(Duration::from_secs(20), || {
            let left = std::fs::read_dir(host.at("rack/ssh")).is_ok_and(|mut files| files.next().is_none());
            (left && host.lines().len() == 2 && (step == "a key was made" || host.lines() != before)).then_some(())
        });
        assert!(over.is_some(), "{step}: {:?} {}", host.lines(), rack.log());
    }
    assert!(host.lines()[0] == first[0] && !host.opens_with_first());
    let rolled = client.raw("POST", "/instances/keyroll", &[], b"").unwrap();
    assert_eq!((rolled.status, host.lines().len()), (200, 2), "{}", rolled.text());
}

#[test]
fn an_instance_that_shows_another_host_key_learns_nothing() {
    let host = Host::start();
    let config = std::fs::read_to_string(host.config()).unwrap();
    keygen(&host.at("other"));
    let other = std::fs::read_to_string(host.at("other.pub")).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let real = std::fs::read_to_string(host.at("host_key.pub")).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let before = host.lines();
    let (mut rack, client) = rack(&host);
    std::fs::write(host.at("instances.json"), config.replace(&real, &other)).unwrap();
    rack.restart().unwrap();
    let refused = client.raw("POST", "/instances/keyroll", &[], b"").unwrap();
    assert!(refused.status == 502 && refused.text().contains("web1"), "{} {}", refused.status, refused.text());
    assert_eq!(host.lines(), before);
}

#[test]
fn a_shell_on_a_host_or_on_the_racks_machine_is_a_real_one() {
    let host = Host::start();
    let (rack, _) = rack(&host);
    let cli = convox_testkit::Cli::new(&host.at("person"));
    cli.feed(&["login", &rack.host, "--password-stdin"], RACK_PASSWORD.as_bytes()).ok();
    cli.run(&["instances", "keyroll"]).ok();
    for id in ["web1", "local"] {
        let ran = cli.run(&["instances", "ssh", id, "--", "echo", "hello; exit 7"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (7, "hello\n"), "{id}: {}", ran.stderr);
        let ran = cli.terminal(&["instances", "ssh", id], 37, 91, b"stty size\nexit 5\n").unwrap();
        assert!(ran.stdout.contains("37 91") && ran.code == 5, "{id}: {} {}", ran.code, ran.stdout);
    }
    // Nothing of a login stays on the disk, and nothing of the Rack's own environment goes into a shell.
    let left: Vec<_> = std::fs::read_dir(host.at("rack/ssh")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    let ran = cli.run(&["instances", "ssh", "local", "--", "env"]).ok();
    assert!(!ran.contains(RACK_PASSWORD), "{ran}");
    let missing = cli.run(&["instances", "ssh", "nowhere", "--", "true"]);
    assert!(
        missing.code != 0 && format!("{}{}", missing.stdout, missing.stderr).contains("instance not found: nowhere"),
        "{}",
        missing.stderr
    );
}
