//! What everything runs on: a PostgreSQL of its own, two Consoles that share it, one Rack behind them, an administrator.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use convox_client::{Call, Client, Context, Endpoint, Key};
use convox_tls::{Fingerprint, Trust};
use serde_json::Value;
use tempfile::TempDir;

use super::Victim;

/// How long a server may take to start.
const START: Duration = Duration::from_mins(1);
pub(crate) const ORG: &str = "acme";
pub(crate) const RACK: &str = "main";

/// One server process, found again on its port after a kill.
pub(crate) struct Server {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
    pub(crate) host: String,
    /// Of the certificate at its first start: what clients pinned.
    pub(crate) pin: Fingerprint,
    setup_code: Option<String>,
}

impl Server {
    fn start(program: PathBuf, args: Vec<String>, env: Vec<(String, String)>, log: PathBuf, wants_code: bool) -> anyhow::Result<Self> {
        let pin = Fingerprint::of(b"");
        let mut server = Self { program, args, env, log, child: None, host: "127.0.0.1:0".to_owned(), pin, setup_code: None };
        server.pin = server.launch(wants_code)?;
        Ok(server)
    }

    fn launch(&mut self, wants_code: bool) -> anyhow::Result<Fingerprint> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).args(["--listen", &self.host]).envs(self.env.iter().cloned());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let stdout = child.stdout.take().context("no output to read")?;
        self.child = Some(child);
        let (send, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let mut pin = None;
        loop {
            let line = said.recv_timeout(START).with_context(|| {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                format!("{} is not ready; its log ends with: {}", self.program.display(), log.lines().last().unwrap_or_default())
            })?;
            if let Some((host, shown)) = line.strip_prefix("listening on https://").and_then(|rest| rest.split_once(" fingerprint ")) {
                host.clone_into(&mut self.host);
                pin = Some(shown.trim().parse()?);
            }
            if let Some(code) = line.strip_prefix("setup code: ") {
                self.setup_code = Some(code.trim().to_owned());
            }
            if let Some(pin) = pin.filter(|_| !wants_code || self.setup_code.is_some()) {
                return Ok(pin);
            }
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) struct Ground {
    pub(crate) bin: PathBuf,
    pub(crate) consoles: Vec<Server>,
    pub(crate) rack: Server,
    /// The administrator's API key.
    pub(crate) key: String,
    database: String,
    _postgres: Postgres,
    // Last: the directory goes when nothing uses it any more.
    directory: TempDir,
}

impl Ground {
    pub(crate) async fn start(bin: &Path) -> anyhow::Result<Self> {
        let bin = bin.canonicalize().with_context(|| format!("no {}", bin.display()))?;
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let postgres = Postgres::start(&at("postgres"))?;
        let database = postgres.url.clone();
        let password = at("rack.password");
        std::fs::write(&password, "benchRackPasswordBenchRackPassword12345678")?;
        let text = |path: PathBuf| path.display().to_string();
        let args = ["serve", "--name", RACK, "--data", &text(at("rack")), "--password-file", &text(password.clone())].map(str::to_owned);
        let rack = Server::start(bin.join("convox-rack"), args.to_vec(), Vec::new(), at("rack.log"), false)?;
        let root_key = text(at("root.key"));
        run(&bin, &["root-key", "--out", &root_key], &[])?;
        let mut ground = Self { bin, consoles: Vec::new(), rack, key: String::new(), database, _postgres: postgres, directory };
        ground.add_console()?;
        let code = ground.consoles.first().and_then(|console| console.setup_code.clone()).context("no setup code")?;
        let made = ground.admin(&["setup", "--code", &code, "--org", ORG, "--email", "ada@example.com"])?;
        made["api_key"].as_str().context("no API key")?.clone_into(&mut ground.key);
        ground.add_console()?;
        let (host, pin) = (ground.rack.host.clone(), ground.rack.pin.to_string());
        ground.admin(&["rack", "add", RACK, "--org", ORG, "--host", &host, "--pin", &pin, "--password-file", &text(password)])?;
        Ok(ground)
    }

    /// One more on the same database. The first one says how it is set up.
    fn add_console(&mut self) -> anyhow::Result<()> {
        let number = self.consoles.len();
        let (data, root_key) = (self.path(&format!("console{number}")), self.path("root.key"));
        let (data, root_key) = (data.display().to_string(), root_key.display().to_string());
        let args = ["serve", "--data", &data, "--root-key-file", &root_key, "--shards", "1"].map(str::to_owned).to_vec();
        let env = vec![("CONVOX_DATABASE".to_owned(), self.database.clone())];
        let log = self.path(&format!("console{number}.log"));
        self.consoles.push(Server::start(self.bin.join("convox-console"), args, env, log, number == 0)?);
        Ok(())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `convox-console ARGS --json`, on the database of both.
    pub(crate) fn admin(&self, args: &[&str]) -> anyhow::Result<Value> {
        let (data, root_key) = (self.path("console0").display().to_string(), self.path("root.key").display().to_string());
        let place = ["--data", &data, "--root-key-file", &root_key, "--json"];
        run(&self.bin, &[args, &place].concat(), &[("CONVOX_DATABASE", &self.database)])
    }

    /// Somebody with the administrator's key, at one of the Consoles, for the Rack.
    pub(crate) fn person(&self, console: usize) -> anyhow::Result<Client> {
        self.client(console, &self.key, Some(format!("{ORG}/{RACK}")))
    }

    /// With any key; for the Console itself without a Rack.
    pub(crate) fn client(&self, console: usize, key: &str, rack: Option<String>) -> anyhow::Result<Client> {
        let server = self.consoles.get(console).context("no such Console")?;
        let context = Context { rack, ..Context::default() };
        Ok(Client::new(Endpoint::console(&server.host, Key::new(key))?, Trust::Pinned(server.pin), context))
    }

    /// Straight to the Rack: user `convox` with a password, or `jwt` with a token.
    pub(crate) fn straight(&self, user: &str, secret: &str) -> anyhow::Result<Client> {
        let endpoint = Endpoint::parse(&format!("https://{user}:{secret}@{}", self.rack.host))?;
        Ok(Client::new(endpoint, Trust::Pinned(self.rack.pin), Context::default()))
    }

    /// Asks the Console's API, whichever Console answers.
    pub(crate) async fn ask(&self, make: impl Fn() -> Result<Call, convox_client::Error>) -> anyhow::Result<Value> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            for console in 0..self.consoles.len() {
                match self.client(console, &self.key, None)?.value(make()?).await {
                    Ok(value) => return Ok(value),
                    Err(error) if Instant::now() > end => return Err(error.into()),
                    Err(convox_client::Error::Server { status: 400..=499, message, .. }) => bail!("{message}"),
                    Err(_) => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Nobody => {}
            Victim::Console(number) => self.consoles.get_mut(number).into_iter().for_each(Server::kill),
            Victim::Rack => self.rack.kill(),
        }
    }

    pub(crate) async fn restart(&mut self, victim: Victim) -> anyhow::Result<()> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        match victim {
            Victim::Nobody => {}
            Victim::Console(number) => drop(self.consoles.get_mut(number).context("no such Console")?.launch(false)?),
            Victim::Rack => drop(self.rack.launch(false)?),
        }
        Ok(())
    }
}

fn run(bin: &Path, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Value> {
    let output =
        Command::new(bin.join("convox-console")).args(args).envs(env.iter().copied()).output().context("cannot run convox-console")?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("convox-console {}: {stderr}", args.first().copied().unwrap_or_default());
    }
    Ok(serde_json::from_str(stdout.trim()).unwrap_or(Value::Null))
}

pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A database server of its own, on loopback.
pub(crate) struct Postgres {
    pub(crate) url: String,
    data: PathBuf,
    bin: PathBuf,
}

impl Postgres {
    pub(crate) fn start(data: &Path) -> anyhow::Result<Self> {
        let newest = std::fs::read_dir("/usr/lib/postgresql").context("no PostgreSQL: apt-get install postgresql")?;
        let bin = newest.flatten().map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
        let bin = bin.context("no initdb: apt-get install postgresql")?;
        std::fs::create_dir(data)?;
        if rustix::process::getuid().is_root() {
            // PostgreSQL refuses to run as root, and must be able to get there.
            let above = data.parent().unwrap_or(data);
            std::fs::set_permissions(above, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
            done(Command::new("chown").arg("postgres").arg(data))?;
        }
        let port = free_port()?;
        let postgres = Self { url: format!("postgres://convox@127.0.0.1:{port}/postgres"), data: data.to_owned(), bin };
        done(postgres.command("initdb").arg("-D").arg(data).args(["-U", "convox", "--auth=trust", "--no-sync"]))?;
        let options = format!("-h 127.0.0.1 -p {port} -k {} -c max_connections=200", data.display());
        done(postgres.command("pg_ctl").arg("-D").arg(data).arg("-l").arg(data.join("log")).args(["-w", "-o", &options, "start"]))?;
        Ok(postgres)
    }

    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = Command::new(if rustix::process::getuid().is_root() { Path::new("runuser") } else { &program });
        if rustix::process::getuid().is_root() {
            command.args(["-u", "postgres", "--"]).arg(&program);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.command("pg_ctl").arg("-D").arg(&self.data).args(["-m", "immediate", "stop"]).status();
    }
}

fn done(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if status.success() { Ok(()) } else { bail!("{} failed: {status}", command.get_program().display()) }
}
