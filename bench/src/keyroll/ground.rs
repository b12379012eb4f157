//! What everything runs on: a PostgreSQL of its own, two Consoles that share it, one Rack behind them with one host that it logs in to, and who works.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use convox_client::keys::WantedKey;
use convox_client::{Call, Client, Context, Endpoint, Key};
use convox_tls::{Fingerprint, Trust};
use serde_json::Value;
use tempfile::TempDir;

use super::Victim;
use super::host::Host;
use super::load::People;

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
    pub(crate) setup_code: Option<String>,
}

impl Server {
    pub(crate) fn start(
        program: PathBuf,
        args: Vec<String>,
        env: Vec<(String, String)>,
        log: PathBuf,
        wants_code: bool,
    ) -> anyhow::Result<Self> {
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

    /// Its process, 0 when it does not run.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, and says how long it took until it was ready.
    pub(crate) fn again(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.launch(false)?;
        Ok(began.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One of them: its port stays the same over restarts; the pin is that of whoever connected lately.
struct Door {
    host: String,
    pin: Mutex<Fingerprint>,
}

impl Door {
    fn of(server: &Server) -> Self {
        Self { host: server.host.clone(), pin: Mutex::new(server.pin) }
    }

    fn pin(&self) -> Fingerprint {
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where everybody knocks.
pub(crate) struct Doors {
    consoles: Vec<Door>,
    rack: Door,
}

impl Doors {
    /// Everybody has followed this server to its next certificate, as clients of ours do, and keeps its pin from now on; `None` for the Rack.
    pub(crate) fn follow(&self, console: Option<usize>, pin: Fingerprint) -> anyhow::Result<()> {
        let door = console.map_or(Some(&self.rack), |console| self.consoles.get(console)).context("no such Console")?;
        *door.pin.lock().unwrap_or_else(PoisonError::into_inner) = pin;
        Ok(())
    }

    /// At a Console, with any key; for the Console itself without a Rack.
    pub(crate) fn console(&self, console: usize, key: &str, rack: Option<String>) -> anyhow::Result<Client> {
        let door = self.consoles.get(console).context("no such Console")?;
        let context = Context { rack, ..Context::default() };
        Ok(Client::new(Endpoint::console(&door.host, Key::new(key))?, Trust::Pinned(door.pin()), context))
    }

    /// At a Console, for the Rack.
    pub(crate) fn person(&self, console: usize, key: &str) -> anyhow::Result<Client> {
        self.console(console, key, Some(format!("{ORG}/{RACK}")))
    }

    /// Straight to the Rack: user `convox` with a password, or `jwt` with a token.
    pub(crate) fn straight(&self, user: &str, secret: &str) -> anyhow::Result<Client> {
        let Door { host, .. } = &self.rack;
        let endpoint = Endpoint::parse(&format!("https://{user}:{secret}@{host}"))?;
        Ok(Client::new(endpoint, Trust::Pinned(self.rack.pin()), Context::default()))
    }
}

/// Something that opened a door once, and must not do so ever again.
pub(crate) enum Dead {
    ApiKey(String),
    RackPassword(String),
    Token(String),
}

pub(crate) struct Ground {
    pub(crate) bin: PathBuf,
    pub(crate) consoles: Vec<Server>,
    pub(crate) rack: Server,
    pub(crate) host: Host,
    pub(crate) doors: Arc<Doors>,
    /// The administrator's API key. It is not rolled.
    pub(crate) key: String,
    pub(crate) people: People,
    dead: Mutex<Vec<Dead>>,
    database: String,
    postgres: Postgres,
    // Last: the directory goes when nothing uses it any more.
    directory: TempDir,
}

impl Ground {
    pub(crate) async fn start(bin: &Path) -> anyhow::Result<Self> {
        let bin = bin.canonicalize().with_context(|| format!("no {}", bin.display()))?;
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let text = |path: PathBuf| path.display().to_string();
        let postgres = Postgres::start(&at("postgres"))?;
        let database = postgres.url.clone();
        std::fs::create_dir(at("host"))?;
        let host = Host::start(&at("host"))?;
        let password = at("rack.password");
        std::fs::write(&password, "benchRackPasswordBenchRackPassword12345678")?;
        let (data, instances) = (text(at("rack")), text(host.instances()?));
        let args = ["serve", "--name", RACK, "--data", &data, "--password-file", &text(password.clone()), "--instances", &instances];
        let args = args.map(str::to_owned).to_vec();
        let rack = Server::start(bin.join("convox-rack"), args, Vec::new(), at("rack.log"), false)?;
        run(&bin, &["root-key", "--out", &text(at("root.key"))], &[])?;
        let (people, dead) = (People::default(), Mutex::default());
        let doors = Arc::new(Doors { consoles: Vec::new(), rack: Door::of(&rack) });
        let (consoles, key) = (Vec::new(), String::new());
        let mut ground = Self { bin, consoles, rack, host, doors, key, people, dead, database, postgres, directory };
        ground.add_console()?;
        let code = ground.consoles.first().and_then(|console| console.setup_code.clone()).context("no setup code")?;
        let made = ground.admin(&["setup", "--code", &code, "--org", ORG, "--email", "ada@example.com"])?;
        made["api_key"].as_str().context("no API key")?.clone_into(&mut ground.key);
        ground.add_console()?;
        ground.doors = Arc::new(Doors { consoles: ground.consoles.iter().map(Door::of).collect(), rack: Door::of(&ground.rack) });
        let (host, pin) = (ground.rack.host.clone(), ground.rack.pin.to_string());
        ground.admin(&["rack", "add", RACK, "--org", ORG, "--host", &host, "--pin", &pin, "--password-file", &text(password)])?;
        ground.employ().await?;
        Ok(ground)
    }

    /// Gives everybody who works something to work with.
    async fn employ(&self) -> anyhow::Result<()> {
        let client = self.doors.console(0, &self.key, None)?;
        let user = WantedKey { name: "laptop".to_owned(), kind: "user".to_owned(), ..WantedKey::default() };
        let deploy = WantedKey {
            name: "ci".to_owned(),
            kind: "deploy".to_owned(),
            organization: Some(ORG.to_owned()),
            racks: vec![RACK.to_owned()],
            may: vec!["read".to_owned(), "read-secret".to_owned()],
            ..WantedKey::default()
        };
        for (hands, wanted) in [(&self.people.user, user), (&self.people.deploy, deploy)] {
            let key = client.create_key(&wanted).await?.api_key.expose().to_owned();
            for hand in hands {
                hand.give(&key);
            }
        }
        self.people.token.give(&self.person(0)?.access_token("read", 1).await?);
        Ok(())
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

    /// `convox-console ARGS`, on the database of both, ready to run.
    pub(crate) fn console_command(&self, args: &[&str]) -> Command {
        self.console_command_with(args, &self.path("root.key"))
    }

    /// The same with another root key.
    pub(crate) fn console_command_with(&self, args: &[&str], root_key: &Path) -> Command {
        let mut command = Command::new(self.bin.join("convox-console"));
        command.args(args).arg("--data").arg(self.path("console0")).arg("--root-key-file").arg(root_key);
        command.env("CONVOX_DATABASE", &self.database);
        command
    }

    /// `convox-console ARGS --json`, on the database of both.
    pub(crate) fn admin(&self, args: &[&str]) -> anyhow::Result<Value> {
        done_with_json(self.console_command(args).arg("--json"))
    }

    /// Somebody with the administrator's key, at one of the Consoles, for the Rack.
    pub(crate) fn person(&self, console: usize) -> anyhow::Result<Client> {
        self.doors.person(console, &self.key)
    }

    /// Asks the Console's API, whichever Console answers.
    pub(crate) async fn ask(&self, make: impl Fn() -> Result<Call, convox_client::Error>) -> anyhow::Result<Value> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            for console in 0..self.consoles.len() {
                match self.doors.console(console, &self.key, None)?.value(make()?).await {
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
            Victim::Nobody | Victim::Roller => {}
            Victim::Console(number) => self.consoles.get_mut(number).into_iter().for_each(Server::kill),
            Victim::Rack => self.rack.kill(),
        }
    }

    /// Starts it again a moment later; says how long the start took.
    pub(crate) async fn restart(&mut self, victim: Victim) -> anyhow::Result<Duration> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        match victim {
            Victim::Nobody | Victim::Roller => Ok(Duration::ZERO),
            Victim::Console(number) => self.consoles.get_mut(number).context("no such Console")?.again(),
            Victim::Rack => self.rack.again(),
        }
    }

    /// Remembers what must not open anything any more.
    pub(crate) fn bury(&self, dead: Dead) {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).push(dead);
    }

    /// `kill -9` for everything at once, the database too (what it had not synced is lost); then everything is started again. Gives the longest start
    /// of a server of ours.
    pub(crate) fn crash(&mut self) -> anyhow::Result<Duration> {
        self.consoles.iter_mut().for_each(Server::kill);
        self.rack.kill();
        self.postgres.crash()?;
        let mut longest = self.rack.again()?;
        for console in &mut self.consoles {
            longest = longest.max(console.again()?);
        }
        Ok(longest)
    }

    /// Whatever was buried opens nothing, at neither Console; what lives, lives. Gives how many were tried.
    pub(crate) async fn dead_stay_dead(&self) -> anyhow::Result<usize> {
        let dead = std::mem::take(&mut *self.dead.lock().unwrap_or_else(PoisonError::into_inner));
        for one in &dead {
            match one {
                Dead::ApiKey(key) => {
                    for console in 0..self.consoles.len() {
                        refused(self.doors.console(console, key, None)?.auth().await, "an API key")?;
                    }
                }
                Dead::RackPassword(password) => refused(self.doors.straight("convox", password)?.auth().await, "a Rack password")?,
                Dead::Token(token) => refused(self.doors.straight("jwt", token)?.system().await, "a token")?,
            }
        }
        for console in 0..self.consoles.len() {
            self.person(console)?.system().await.context("what lives does not work any more")?;
        }
        let count = dead.len();
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).extend(dead);
        Ok(count)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.rack.kill();
        // Its router outlives it by design, but not the trial.
        let _ =
            Command::new(self.bin.join("convox-rack")).args(["stop-apps", "--data"]).arg(self.path("rack")).stdout(Stdio::null()).status();
    }
}

fn refused<T>(answer: Result<T, convox_client::Error>, what: &str) -> anyhow::Result<()> {
    match answer {
        Err(error) if error.is_about_the_key() => Ok(()),
        other => bail!("{what} that was revoked or rolled is not refused: {:?}", other.map(drop)),
    }
}

fn run(bin: &Path, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Value> {
    done_with_json(Command::new(bin.join("convox-console")).args(args).envs(env.iter().copied()))
}

fn done_with_json(command: &mut Command) -> anyhow::Result<Value> {
    let output = command.output().context("cannot run convox-console")?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        let args: Vec<_> = command.get_args().take(2).map(|arg| arg.to_string_lossy()).collect();
        bail!("convox-console {}: {stderr}", args.join(" "));
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
        postgres.run()?;
        Ok(postgres)
    }

    /// Starts it, on the data that is there; ready when this returns.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let port = self.url.rsplit_once(':').and_then(|(_, rest)| rest.split_once('/')).map(|(port, _)| port).unwrap_or_default();
        let options = format!("-h 127.0.0.1 -p {port} -k {} -c max_connections=200", self.data.display());
        done(self.command("pg_ctl").arg("-D").arg(&self.data).arg("-l").arg(self.data.join("log")).args(["-w", "-o", &options, "start"]))
    }

    /// Ends it without a shutdown, and starts it again: it recovers from its log.
    pub(crate) fn crash(&self) -> anyhow::Result<()> {
        self.stop("immediate")?;
        self.run()
    }

    /// Ends it: `fast` cuts those who are connected, `immediate` is a crash.
    pub(crate) fn stop(&self, mode: &str) -> anyhow::Result<()> {
        done(self.command("pg_ctl").arg("-D").arg(&self.data).args(["-m", mode, "-w", "stop"]))
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

pub(super) fn done(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if status.success() { Ok(()) } else { bail!("{} failed: {status}", command.get_program().display()) }
}
