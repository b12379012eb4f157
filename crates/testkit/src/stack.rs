//! One door, end to end: a Rack, a Console that knows it, an administrator, and people with command lines.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::go::{Generation, GoClient};
use crate::{Cli, Server};

/// The password that every test Rack gets, so that tests can search for it where it must not be.
pub const RACK_PASSWORD: &str = "canaryRackPassword7Yq2VtR9mKx4LwZ8nBc3";

/// Options of a Rack that runs plain processes, whatever engines the machine has.
const PLAIN: &[&str] = &["--runtime", "process"];

/// A Console and a Rack behind it, both real processes.
pub struct Stack {
    /// Knows organization `acme` with administrator `admin@example.com` and the Rack `acme/main`.
    pub console: Server,
    /// Its own name is `main`.
    pub rack: Server,
    /// The administrator's API key.
    pub key: String,
    people: std::sync::atomic::AtomicU32,
    dir: TempDir,
}

impl Stack {
    /// Starts both and introduces them. The Rack runs plain processes, whatever engines the machine has.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// The same, with further arguments for the Console.
    pub fn start_with(more: &[&str]) -> Result<Self> {
        Self::start_both(PLAIN, more, &[])
    }

    /// The same with further options of the Rack, and with options and variables of the Console.
    pub fn start_as(rack: &[&str], console: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        Self::start_both(&[PLAIN, rack].concat(), console, env)
    }

    /// The same with a Rack that runs containers of this engine.
    pub fn start_in(podman: &crate::Podman) -> Result<Self> {
        let socket = podman.socket();
        Self::start_rack_with(&["--runtime", "container", "--container-network", "host", "--container-socket", path_text(&socket)?])
    }

    /// The same with these options of the Rack.
    pub fn start_rack_with(options: &[&str]) -> Result<Self> {
        Self::start_both(options, &[], &[])
    }

    fn start_both(options: &[&str], more: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        let dir = TempDir::new()?;
        let rack = start_rack_with(dir.path(), "main", options)?;
        let data = dir.path().join("console");
        std::fs::create_dir(&data)?;
        let root_key = data.join("root.key");
        console_command(&data, &["root-key", "--out", path_text(&root_key)?], false)?;
        let args = [&["serve", "--data", path_text(&data)?, "--root-key-file", path_text(&root_key)?], more].concat();
        let console = Server::start_with("convox-console", &args, env, &dir.path().join("console.log"))?;
        let mut stack = Self { console, rack, key: String::new(), people: 0.into(), dir };
        let code = stack.console.setup_code.clone().context("a new Console prints a setup code")?;
        let made = stack.admin(&["setup", "--code", &code, "--org", "acme", "--email", "admin@example.com"])?;
        made["api_key"].as_str().context("setup gives an API key")?.clone_into(&mut stack.key);
        stack.add_rack("acme", "main")?;
        Ok(stack)
    }

    /// Where everything of this stack lives.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The Console's data directory.
    pub fn console_data(&self) -> PathBuf {
        self.dir.path().join("console")
    }

    /// The Rack's data directory.
    pub fn rack_data(&self) -> PathBuf {
        self.dir.path().join("main")
    }

    /// Holds [`RACK_PASSWORD`].
    pub fn password_file(&self) -> PathBuf {
        self.dir.path().join("main.password")
    }

    /// `convox-console ARGS --data .. --json`
    pub fn admin(&self, args: &[&str]) -> Result<serde_json::Value> {
        console_command(&self.console_data(), args, true)
    }

    /// The Rack, by that name in that organization; it may be known by others already.
    pub fn add_rack(&self, org: &str, name: &str) -> Result<()> {
        let (pin, password) = (self.rack.fingerprint.to_string(), self.password_file());
        let place = ["--host", &self.rack.host, "--pin", &pin, "--password-file", path_text(&password)?];
        self.admin(&[&["rack", "add", name, "--org", org][..], &place].concat())?;
        Ok(())
    }

    /// A further user of `acme` with `role`, and their API key.
    pub fn member(&self, email: &str, role: &str) -> Result<String> {
        self.admin(&["user", "add", email])?;
        self.admin(&["member", "add", email, "--org", "acme", "--role", role])?;
        let made = self.admin(&["key", "create", "--email", email, "--name", "test"])?;
        Ok(made["api_key"].as_str().context("an API key")?.to_owned())
    }

    /// A new person with an empty configuration.
    pub fn person(&self) -> Cli {
        let number = self.people.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Cli::new(&self.dir.path().join(format!("person{number}")))
    }

    /// The administrator, logged in to the Console and switched to `acme/main`.
    pub fn cli(&self) -> Cli {
        let cli = self.person();
        cli.feed(&["login", &self.console.host, "--password-stdin"], self.key.as_bytes()).ok();
        cli.run(&["switch", "acme/main"]).ok();
        cli
    }

    /// Somebody who knows the Rack's password and logs in to it directly.
    pub fn direct(&self) -> Cli {
        let cli = self.person();
        cli.feed(&["login", &self.rack.host, "--password-stdin"], RACK_PASSWORD.as_bytes()).ok();
        cli
    }

    /// An original client, logged in to the Console as the administrator.
    pub fn go(&self, generation: Generation) -> GoClient {
        GoClient {
            generation,
            host: self.console.host.clone(),
            fingerprint: self.console.fingerprint,
            user: "convox".to_owned(),
            password: self.key.clone(),
            rack: Some(if generation == Generation::V2 { "main" } else { "acme/main" }.to_owned()),
        }
    }

    /// An original client, straight at the Rack.
    pub fn go_direct(&self, generation: Generation) -> GoClient {
        GoClient {
            generation,
            host: self.rack.host.clone(),
            fingerprint: self.rack.fingerprint,
            user: "convox".to_owned(),
            password: RACK_PASSWORD.to_owned(),
            rack: None,
        }
    }
}

/// A Rack of that name with data, password file and log in `dir`, which runs plain processes.
pub fn start_rack(dir: &Path, name: &str) -> Result<Server> {
    start_rack_with(dir, name, PLAIN)
}

/// The same with these options.
pub fn start_rack_with(dir: &Path, name: &str, options: &[&str]) -> Result<Server> {
    let (data, password) = (dir.join(name), dir.join(format!("{name}.password")));
    std::fs::create_dir_all(&data)?;
    std::fs::write(&password, RACK_PASSWORD)?;
    let mut args = vec!["serve", "--data", path_text(&data)?, "--name", name, "--password-file", path_text(&password)?];
    args.extend(options);
    Server::start("convox-rack", &args, &dir.join(format!("{name}.log")))
}

fn console_command(data: &Path, args: &[&str], json: bool) -> Result<serde_json::Value> {
    let mut command = Command::new(crate::binary("convox-console"));
    command.args(args);
    if json {
        command.args(["--data", path_text(data)?, "--json"]);
    }
    let output = command.output()?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "convox-console {args:?}: {}\n{stdout}{stderr}", output.status);
    if json { serde_json::from_str(&stdout).with_context(|| format!("not JSON: {stdout}")) } else { Ok(serde_json::Value::Null) }
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
