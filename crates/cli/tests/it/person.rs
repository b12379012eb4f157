//! Somebody at a command line: the real binary, a configuration directory and a bare environment.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::server::Server;

/// One person; everything of theirs is gone when the value is.
pub(crate) struct Person {
    dir: tempfile::TempDir,
    pub(crate) env: Vec<(String, String)>,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    #[track_caller]
    pub(crate) fn err(self) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        self.stderr
    }
}

impl Person {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    /// Logged in to `server` with the key `k`, its certificate pinned.
    pub(crate) fn at(server: &Server) -> Self {
        let person = Self::new();
        person.save("host", &server.host());
        person.save("auth", &format!("{{\"{}\": \"k\"}}", server.host()));
        person.save("pins", &format!("{{\"{}\": \"{}\"}}", server.host(), server.fingerprint));
        person
    }

    /// The same with one more variable from here on.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// Where commands run; its name is the app when nothing says otherwise.
    pub(crate) fn cwd(&self) -> PathBuf {
        let cwd = self.dir.path().join("myapp");
        std::fs::create_dir_all(&cwd).unwrap();
        cwd
    }

    pub(crate) fn save(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.config()).unwrap();
        std::fs::write(self.config().join(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.config().join(name)).unwrap_or_default()
    }

    pub(crate) fn map(&self, name: &str) -> std::collections::BTreeMap<String, String> {
        let text = self.read(name);
        if text.is_empty() {
            Default::default()
        } else {
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"))
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convox"));
        command
            .args(args)
            .current_dir(self.cwd())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("CONVOX_CONFIG", self.config())
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args))
    }

    pub(crate) fn feed(&self, args: &[&str], input: &[u8]) -> Ran {
        use std::io::Write;
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        ran(output)
    }
}

fn finish(mut command: Command) -> Ran {
    ran(command.output().unwrap())
}

fn ran(output: std::process::Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
