//! Runs the real `convox`, with a configuration directory and an environment of its own.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

/// A person at a command line: one configuration directory, one working directory.
#[derive(Clone)]
pub struct Cli {
    /// `CONVOX_CONFIG`.
    pub config: PathBuf,
    /// Where commands run.
    pub cwd: PathBuf,
    /// Added to an otherwise bare environment.
    pub env: Vec<(String, String)>,
}

/// What a command did.
pub struct Ran {
    /// Exit code; 255 when it was ended by a signal.
    pub code: i32,
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text.
    pub stderr: String,
}

impl Ran {
    /// Standard output of a command that had to succeed.
    ///
    /// # Panics
    /// When it failed; shows everything that it said.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "exit {}\nstdout: {}\nstderr: {}", self.code, self.stdout, self.stderr);
        self.stdout
    }

    /// Standard error of a command that had to fail.
    ///
    /// # Panics
    /// When it succeeded.
    #[track_caller]
    pub fn err(self) -> String {
        assert_ne!(self.code, 0, "was to fail\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stderr
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it failed or is not JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(error) => panic!("not JSON ({error}): {text}"),
        }
    }
}

impl Cli {
    /// Nobody yet: empty configuration in `config`.
    pub fn new(config: &Path) -> Self {
        let _ = std::fs::create_dir_all(config);
        Self { config: config.to_path_buf(), cwd: config.to_path_buf(), env: Vec::new() }
    }

    /// The same person, elsewhere.
    #[must_use]
    pub fn at(&self, cwd: &Path) -> Self {
        Self { cwd: cwd.to_path_buf(), ..self.clone() }
    }

    /// The same person with one more variable.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        let mut other = self.clone();
        other.env.push((key.to_owned(), value.to_owned()));
        other
    }

    /// The command, not yet started. Nothing of the surrounding environment but `PATH` and `HOME` reaches it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(crate::binary("convox"));
        self.dress(&mut command);
        command.args(args);
        command
    }

    fn dress(&self, command: &mut Command) {
        command
            .current_dir(&self.cwd)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.config)
            .env("CONVOX_CONFIG", &self.config)
            .envs(self.env.iter().map(|(key, value)| (key, value)));
    }

    /// Runs to the end, with nothing on standard input.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.feed(args, b"")
    }

    /// Runs to the end, with `input` on standard input.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn feed(&self, args: &[&str], input: &[u8]) -> Ran {
        let spawned = self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => panic!("could not start convox: {error}"),
        };
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_vec();
            std::thread::spawn(move || stdin.write_all(&input));
        }
        let output = match child.wait_with_output() {
            Ok(output) => output,
            Err(error) => panic!("convox: {error}"),
        };
        Ran {
            code: output.status.code().unwrap_or(255),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs under a real terminal of `rows` x `columns`, types `input` once something is shown, gives all that the terminal showed.
    pub fn terminal(&self, args: &[&str], rows: u16, columns: u16, input: &[u8]) -> Result<Ran> {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = std::fs::File::options().read(true).write(true).open(name.to_str()?)?;
        rustix::termios::tcsetwinsize(&slave, rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
        let mut command = Command::new("setsid");
        self.dress(&mut command);
        let mut child = command
            .args(["--ctty", "--wait"])
            .arg(crate::binary("convox"))
            .args(args)
            .env("TERM", "xterm")
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave)
            .spawn()
            .context("setsid")?;
        drop(command);
        let mut terminal = std::fs::File::from(master);
        let mut typist = terminal.try_clone()?;
        let input = input.to_vec();
        // Typed only when the command has said something: earlier, Ctrl-C would end our client instead of reaching the remote side.
        let (spoke, has_spoken) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = has_spoken.recv_timeout(Duration::from_secs(30));
            typist.write_all(&input)
        });
        let reader = std::thread::spawn(move || {
            let (mut shown, mut chunk) = (Vec::new(), [0u8; 8192]);
            // The last program to leave a terminal makes reading from it an error, not an end.
            while let Ok(count) = terminal.read(&mut chunk) {
                if count == 0 {
                    break;
                }
                shown.extend_from_slice(chunk.get(..count).unwrap_or_default());
                let _ = spoke.send(());
            }
            shown
        });
        let status = crate::eventually(Duration::from_mins(1), || child.try_wait().ok().flatten());
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let shown = reader.join().unwrap_or_default();
        Ok(Ran {
            code: status.and_then(|status| status.code()).unwrap_or(255),
            stdout: String::from_utf8_lossy(&shown).into_owned(),
            stderr: String::new(),
        })
    }
}
