//! A real registry of images, of the test's own, that lets nobody in without a password.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::Podman;

/// A running `docker-registry`, spoken to by plain HTTP on the loopback address.
pub struct Registry {
    dir: TempDir,
    host: String,
    process: Child,
}

impl Registry {
    /// Starts one with nothing in it, which knows one user.
    pub fn start(user: &str, password: &str) -> Result<Self> {
        let dir = TempDir::new()?;
        let host = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        // It takes bcrypt only, which the machine's own crypt() makes.
        let hash =
            Command::new("perl").args(["-e", "print crypt($ENV{WORD}, '$2b$05$abcdefghijklmnopqrstuu')"]).env("WORD", password).output()?;
        let hash = String::from_utf8(hash.stdout)?;
        ensure!(hash.starts_with("$2b$"), "crypt() makes no bcrypt");
        std::fs::write(dir.path().join("users"), format!("{user}:{hash}\n"))?;
        let path = dir.path().display();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {path}/images}}}}\nhttp: {{addr: {host}}}\nauth: {{htpasswd: {{realm: test, path: {path}/users}}}}\n"
        );
        std::fs::write(dir.path().join("config.yml"), config)?;
        let log = File::create(dir.path().join("log"))?;
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("docker-registry could not be started; bin/test installs it")?;
        let registry = Self { dir, host, process };
        if crate::eventually(Duration::from_secs(30), || TcpStream::connect(&registry.host).ok()).is_none() {
            bail!(
                "the registry does not answer; its log:\n{}",
                std::fs::read_to_string(registry.dir.path().join("log")).unwrap_or_default()
            );
        }
        Ok(registry)
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Gives it an image of this engine under a name such as `team/base:1`, and takes it from the engine.
    pub fn take(&self, podman: &Podman, image: &str, name: &str, user: &str, password: &str) -> Result<()> {
        podman.run(&["push", "--quiet", "--creds", &format!("{user}:{password}"), image, &format!("{}/{name}", self.host)])?;
        podman.run(&["rmi", "--force", image])?;
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
