//! A host of the Rack: Debian's sshd, for whoever runs this. And the SSH key by which the Rack logs in to it, rolled by `instances keyroll`.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use convox_client::Call;
use serde_json::json;
use tokio::task::JoinHandle;

use super::ground::Ground;
use super::{Roll, Victim};
use crate::contender::free_port;
use crate::postgres::done;

pub(crate) struct Host {
    directory: PathBuf,
    port: u16,
    sshd: Child,
}

fn keygen(path: &Path) -> anyhow::Result<String> {
    done(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path))?;
    Ok(std::fs::read_to_string(path.with_extension("pub"))?.trim().to_owned())
}

impl Host {
    pub(crate) fn start(directory: &Path) -> anyhow::Result<Self> {
        let at = |name: &str| directory.join(name);
        keygen(&at("host_key"))?;
        std::fs::write(at("authorized_keys"), format!("{}\n", keygen(&at("first"))?))?;
        let port = free_port()?;
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 100\n",
            at("host_key").display(),
            at("authorized_keys").display()
        );
        std::fs::write(at("sshd_config"), config)?;
        // Where it separates its privileges.
        let _ = std::fs::create_dir_all("/run/sshd");
        let log = File::create(at("sshd.log"))?;
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"]).arg(at("sshd_config")).stdin(Stdio::null()).stderr(log);
        let host = Self { directory: directory.to_owned(), port, sshd: sshd.spawn().context("no sshd: apt-get install openssh-server")? };
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > end {
                bail!("sshd does not start: {}", std::fs::read_to_string(at("sshd.log"))?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(host)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The file for `convox-rack serve --instances`.
    pub(crate) fn instances(&self) -> anyhow::Result<PathBuf> {
        let user = Command::new("id").arg("-un").output()?;
        let user = String::from_utf8_lossy(&user.stdout).trim().to_owned();
        let host_key = std::fs::read_to_string(self.at("host_key.pub"))?;
        let host_key = host_key.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let config = json!([{
            "id": "web1", "address": format!("{user}@127.0.0.1"), "port": self.port, "host_key": host_key,
            "key": self.at("first"), "authorized_keys": self.at("authorized_keys"),
        }]);
        std::fs::write(self.at("instances.json"), config.to_string())?;
        Ok(self.at("instances.json"))
    }

    fn keys(&self) -> anyhow::Result<Vec<String>> {
        Ok(std::fs::read_to_string(self.at("authorized_keys"))?.lines().map(str::to_owned).collect())
    }

    /// Whether the key that it was set up with still opens it.
    fn opens_with_first(&self) -> anyhow::Result<bool> {
        let known = format!("UserKnownHostsFile={}", self.at("known").display());
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-p", &self.port.to_string(), "-o", "StrictHostKeyChecking=no", "-o", &known, "-o", "BatchMode=yes"]);
        ssh.args(["-o", "IdentitiesOnly=yes", "-i"]).arg(self.at("first")).args(["127.0.0.1", "true"]).stderr(Stdio::null());
        Ok(ssh.status()?.success())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

/// A roll that somebody asked for through the second Console.
#[derive(Default)]
pub(crate) struct HostKey {
    before: Vec<String>,
    asked: Option<JoinHandle<Result<(), convox_client::Error>>>,
}

impl HostKey {
    fn ask(&mut self, ground: &Ground) -> anyhow::Result<()> {
        let client = ground.person(1)?;
        self.asked = Some(tokio::spawn(async move { client.done(Call::post(&["instances", "keyroll"])?).await }));
        Ok(())
    }
}

impl Roll for HostKey {
    fn key(&self) -> &'static str {
        "SSH key of an instance"
    }

    fn steps(&self) -> &'static [&'static str] {
        &["asked", "added"]
    }

    fn victims(&self, _: &str) -> &'static [Victim] {
        &[Victim::Rack, Victim::Console(1)]
    }

    async fn begin(&mut self, ground: &Ground, _: Option<&'static str>) -> anyhow::Result<()> {
        self.before = ground.host.keys()?;
        self.ask(ground)
    }

    async fn step(&mut self, ground: &Ground) -> anyhow::Result<Option<String>> {
        let keys = ground.host.keys()?;
        if keys.is_empty() {
            bail!("there is a moment without any key");
        }
        let asks = self.asked.as_ref().is_some_and(|asked| !asked.is_finished());
        let works = std::fs::read_dir(ground.site.path("rack/ssh")).is_ok_and(|mut files| files.next().is_some());
        Ok(match (keys == self.before, keys.len()) {
            (true, _) if asks || works => Some("asked".to_owned()),
            (true, _) => {
                // Whoever was cut off before it began asks again.
                self.ask(ground)?;
                Some("asked".to_owned())
            }
            (false, 1) if !asks && !works => None,
            (false, 1) => Some("removed".to_owned()),
            _ => Some("added".to_owned()),
        })
    }

    async fn check(&mut self, ground: &Ground) -> anyhow::Result<()> {
        if ground.host.opens_with_first()? {
            bail!("the first key still opens the host");
        }
        Ok(())
    }
}
