//! What a revocation is measured on: one Console on SQLite or some on one PostgreSQL, a Rack that remembers what it was asked, and an
//! administrator.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::wire::{Connection, Rack, Reply};
use crate::contender::{START, said};

/// A running Console.
struct Console {
    child: Child,
    address: String,
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Consoles, a Rack behind them, and an administrator.
pub(super) struct Ground {
    consoles: Vec<Console>,
    pub(super) rack: Rack,
    fingerprint: String,
    admin: String,
    _directory: tempfile::TempDir,
}

impl Ground {
    /// With so many Consoles on `database`, or one on SQLite.
    pub(super) fn new(console: &Path, database: Option<&str>, count: usize) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        let (cert, key) = convox_proxy::tls_server::generate(&["localhost", "127.0.0.1"])?;
        let fingerprint = convox_proxy::TlsServer::from_pem(cert.as_bytes(), key.as_bytes())?.fingerprint().to_string();
        std::fs::write(path("cert.pem"), &cert)?;
        std::fs::write(path("key.pem"), &key)?;
        let rack = Rack::start(&cert, &key)?;
        std::fs::create_dir(path("data"))?;
        let place = |command: &mut Command| {
            command.args(["--data", &path("data"), "--root-key-file", &path("root.key")]);
            if let Some(database) = database {
                command.env("CONVOX_DATABASE", database);
            }
        };
        let call = |words: &[&str]| -> anyhow::Result<Value> {
            let mut command = Command::new(console);
            command.args(words).arg("--json");
            place(&mut command);
            let output = command.output().context("cannot run convox-console")?;
            ensure!(output.status.success(), "convox-console {} failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
            Ok(serde_json::from_slice(&output.stdout)?)
        };
        let made = Command::new(console).args(["root-key", "--out", &path("root.key")]).stdout(Stdio::null()).status()?;
        ensure!(made.success(), "convox-console root-key failed");
        let (mut consoles, mut code) = (Vec::new(), None);
        for number in 0..count {
            let mut command = Command::new(console);
            command.args(["serve", "--listen", "127.0.0.1:0", "--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem")]);
            place(&mut command);
            let log = std::fs::File::create(path(&format!("log{number}")))?;
            let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().context("cannot start convox-console")?;
            let lines = said(&mut child)?;
            let mut console = Console { child, address: String::new() };
            while console.address.is_empty() || code.is_none() {
                let line = lines.recv_timeout(START).context("convox-console did not say that it listens")?;
                if let Some(rest) = line.strip_prefix("listening on https://") {
                    rest.split(' ').next().unwrap_or_default().clone_into(&mut console.address);
                }
                if let Some(rest) = line.strip_prefix("setup code: ") {
                    code = Some(rest.trim().to_owned());
                }
            }
            std::thread::spawn(move || for _ in lines {});
            if consoles.is_empty() {
                let made =
                    call(&["setup", "--code", code.as_deref().unwrap_or_default(), "--org", "bench", "--email", "bench@example.org"])?;
                code = made["api_key"].as_str().map(str::to_owned);
            }
            consoles.push(console);
        }
        let admin = code.context("no key in the answer to setup")?;
        std::fs::write(path("password"), "upstream-password-of-the-bench\n")?;
        let host = format!("127.0.0.1:{}", rack.port);
        call(&["rack", "add", "rack", "--org", "bench", "--host", &host, "--password-file", &path("password"), "--pin", &fingerprint])?;
        Ok(Self { consoles, rack, fingerprint, admin, _directory: directory })
    }

    /// To the Console where keys are revoked.
    pub(super) fn first(&self) -> anyhow::Result<Connection> {
        let console = self.consoles.first().context("no Console")?;
        Connection::open(&console.address, &self.fingerprint)
    }

    /// To the one where they are used.
    pub(super) fn last(&self) -> anyhow::Result<Connection> {
        let console = self.consoles.last().context("no Console")?;
        Connection::open(&console.address, &self.fingerprint)
    }

    /// To a certain one.
    pub(super) fn at(&self, number: usize) -> anyhow::Result<Connection> {
        let console = self.consoles.get(number).context("no such Console")?;
        Connection::open(&console.address, &self.fingerprint)
    }

    /// A new key: its id and its text.
    pub(super) fn key(&self, at: &mut Connection, name: &str) -> anyhow::Result<(String, String)> {
        let reply = at.ask("POST", "/api/v1/keys", &self.admin, &json!({ "name": name }).to_string())?;
        ensure!(reply.status == 200, "a key could not be made: {} {}", reply.status, reply.body);
        let made: Value = serde_json::from_str(&reply.body)?;
        match (made["id"].as_str(), made["api_key"].as_str()) {
            (Some(id), Some(key)) => Ok((id.to_owned(), key.to_owned())),
            _ => bail!("no key in {}", reply.body),
        }
    }

    /// Revokes it: when that was sent, and when it was answered.
    pub(super) fn revoke(&self, at: &mut Connection, id: &str) -> anyhow::Result<(Instant, Instant)> {
        let sent = Instant::now();
        let reply = self.try_to_revoke(at, id)?;
        let answered = Instant::now();
        ensure!(reply.status == 200, "a key could not be revoked: {} {}", reply.status, reply.body);
        Ok((sent, answered))
    }

    /// Asks for its revocation, whatever is answered.
    pub(super) fn try_to_revoke(&self, at: &mut Connection, id: &str) -> anyhow::Result<Reply> {
        at.ask("DELETE", &format!("/api/v1/keys/{id}"), &self.admin, "")
    }
}
