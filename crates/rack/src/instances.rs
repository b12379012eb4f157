//! Hosts of the Rack that it can log in to, and the SSH key by which it does: rolled so that there is a key that works at every moment.
//!
//! The new key is kept before any host hears of it; the old one is taken away only by somebody who is logged in with the new one. Each step
//! is written down when it is done and can be done again, so a roll that was cut off is carried on by the next one, or by the next start.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use convox_seal::Secret;
use serde::Deserialize;

use crate::files;
use crate::state::{HostKeys, KeyPair, Rolling, State};

/// How long one login may take, with what is done there, seconds.
const PATIENCE: &str = "30";

/// A host, as the configuration names it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    /// By which `instances` lists it.
    pub(crate) id: String,
    /// `user@host`
    pub(crate) address: String,
    #[serde(default = "ssh_port")]
    pub(crate) port: u16,
    /// Its own public key, as in `/etc/ssh/ssh_host_ed25519_key.pub`: no other host is talked to.
    pub(crate) host_key: String,
    /// The private key that opens it before the first roll.
    pub(crate) key: PathBuf,
    /// Where the keys of the user are; below their home if it does not begin with `/`.
    #[serde(default = "authorized_keys")]
    pub(crate) authorized_keys: String,
}

fn ssh_port() -> u16 {
    22
}

fn authorized_keys() -> String {
    ".ssh/authorized_keys".to_owned()
}

/// Why a roll did not come to its end. What was reached is kept, and going on is safe.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstanceError {
    /// The configuration.
    #[error("the instances file: {0}")]
    Config(String),
    /// None of this name.
    #[error("`convox instances` lists them")]
    Unknown,
    /// No hosts.
    #[error("no instances are configured: give `convox-rack serve --instances FILE`, a list of hosts to log in to")]
    None,
    /// A host.
    #[error("instance {id}: {what}: {why}; what was reached is kept, and the next keyroll goes on from there")]
    Host {
        /// Which.
        id: String,
        /// What was tried.
        what: &'static str,
        /// What it said.
        why: String,
    },
    /// Several hosts. The others were rolled.
    #[error("{} of {all} instances were not rolled: {}", .faults.len(), .faults.join(" | "))]
    Several {
        /// What is wrong with each.
        faults: Vec<String>,
        /// How many there are.
        all: usize,
    },
    /// The rows.
    #[error(transparent)]
    Database(#[from] convox_db::DbError),
    /// A file of ours.
    #[error("a file for ssh could not be written: {0}")]
    File(#[from] std::io::Error),
}

/// The hosts of this Rack.
pub(crate) struct Instances {
    hosts: Vec<Host>,
    /// Where private keys lie while ssh uses them.
    directory: PathBuf,
    /// One roll at a time.
    rolling: tokio::sync::Mutex<()>,
}

impl Instances {
    /// Reads the configuration, a JSON list; none is none.
    pub(crate) fn open(config: Option<&Path>, directory: PathBuf) -> Result<Self, InstanceError> {
        let bad = |why: String| InstanceError::Config(why);
        let hosts: Vec<Host> = match config {
            None => Vec::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| bad(format!("{}: {error}", path.display())))?;
                serde_json::from_str(&text).map_err(|error| bad(format!("{}: {error}", path.display())))?
            }
        };
        for host in &hosts {
            host.check().map_err(|why| bad(format!("{}: {why}", host.id)))?;
        }
        // What a killed Rack left there.
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        if !hosts.is_empty() {
            files::make_private_directory(&directory)?;
        }
        Ok(Self { hosts, directory, rolling: tokio::sync::Mutex::new(()) })
    }

    /// The hosts.
    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The command of a shell on a host (or of `command` there), and what it needs on the disk until it has ended.
    pub(crate) async fn shell(
        &self,
        state: &State,
        id: &str,
        command: Option<&str>,
        private: Option<Secret>,
        has_terminal: bool,
    ) -> Result<(Vec<String>, LoginFiles), InstanceError> {
        let host = self.hosts.iter().find(|host| host.id == id).ok_or(InstanceError::Unknown)?;
        let private = match (private, state.host_keys(id).await?.current) {
            (Some(given), _) => given,
            (None, Some(current)) => current.private,
            (None, None) => Secret::new(std::fs::read_to_string(&host.key)?),
        };
        let files = LoginFiles::write(&self.directory, host, &private)?;
        let mut words = vec!["ssh".to_owned()];
        words.extend(host.login(&files, if has_terminal { "-tt" } else { "-T" }));
        words.extend(command.map(str::to_owned));
        Ok((words, files))
    }

    /// Gives every host a new key and takes the old one away. With `only_cut_off`, just carries on what was begun. A host that cannot be rolled
    /// keeps none of the others from it.
    pub(crate) async fn roll(&self, state: &State, only_cut_off: bool) -> Result<usize, InstanceError> {
        let _one_at_a_time = self.rolling.lock().await;
        if self.hosts.is_empty() && !only_cut_off {
            return Err(InstanceError::None);
        }
        let (mut rolled, mut faults) = (0, Vec::new());
        for host in &self.hosts {
            let keys = state.host_keys(&host.id).await?;
            if only_cut_off && matches!(keys.rolling, Rolling::No) {
                continue;
            }
            match (Roll { instances: self, host, state }).run(keys).await {
                Ok(()) => rolled += 1,
                Err(error) => faults.push(error),
            }
        }
        match (faults.len(), faults.pop()) {
            (_, None) => Ok(rolled),
            (1, Some(only)) => Err(only),
            (_, Some(last)) => {
                let faults = faults.iter().chain([&last]).map(ToString::to_string).collect();
                Err(InstanceError::Several { faults, all: self.hosts.len() })
            }
        }
    }
}

/// The roll of one host.
struct Roll<'a> {
    instances: &'a Instances,
    host: &'a Host,
    state: &'a State,
}

impl Roll<'_> {
    async fn run(&self, mut keys: HostKeys) -> Result<(), InstanceError> {
        let id = &self.host.id;
        loop {
            keys = match keys.rolling {
                Rolling::No => {
                    let current = match keys.current {
                        Some(current) => current,
                        None => self.first_key().await?,
                    };
                    let next = self.make_key().await?;
                    HostKeys { current: Some(current), rolling: Rolling::Made(next) }
                }
                Rolling::Made(next) => {
                    let current = keys.current.ok_or_else(|| self.fault("its present key", "is missing in the state"))?;
                    self.add(&current, &next).await?;
                    // Seen to work before anything is taken away.
                    self.log_in(&next, "logging in with the new key", "true", "").await?;
                    HostKeys { current: Some(next), rolling: Rolling::Switched(current) }
                }
                Rolling::Switched(old) => {
                    let current = keys.current.ok_or_else(|| self.fault("its present key", "is missing in the state"))?;
                    self.log_in(&current, "taking the old key away", &remove_script(&self.file()), &old.blob()).await?;
                    self.log_in(&current, "logging in with the new key", "true", "").await?;
                    if self.log_in(&old, "", "true", "").await.is_ok() {
                        return Err(self.fault("the old key", "still opens it: is it in another file of authorized keys too?"));
                    }
                    self.state.keep_host_keys(id, &HostKeys { current: Some(current), rolling: Rolling::No }).await?;
                    return Ok(());
                }
            };
            self.state.keep_host_keys(id, &keys).await?;
        }
    }

    fn fault(&self, what: &'static str, why: impl Into<String>) -> InstanceError {
        InstanceError::Host { id: self.host.id.clone(), what, why: why.into() }
    }

    /// The key of the configuration, which opens the host before the first roll.
    async fn first_key(&self) -> Result<KeyPair, InstanceError> {
        let path = &self.host.key;
        let private = std::fs::read_to_string(path).map_err(|error| self.fault("its first key", format!("{}: {error}", path.display())))?;
        let public = self.keygen(&["-y", "-f", &path.display().to_string()]).await?;
        Ok(KeyPair { private: Secret::new(private), public: public.trim().to_owned() })
    }

    async fn make_key(&self) -> Result<KeyPair, InstanceError> {
        let path = self.instances.directory.join(uuid::Uuid::new_v4().to_string());
        let comment = format!("convox-rack-{}", self.host.id);
        let made = self.keygen(&["-q", "-t", "ed25519", "-N", "", "-C", &comment, "-f", &path.display().to_string()]).await;
        let read = |path: &Path| std::fs::read_to_string(path);
        let pair = made.and_then(|_| {
            let public = path.with_extension("pub");
            Ok(KeyPair { private: Secret::new(read(&path)?), public: read(&public)?.trim().to_owned() })
        });
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_file(path.with_extension("pub"));
        pair
    }

    async fn keygen(&self, args: &[&str]) -> Result<String, InstanceError> {
        let mut command = Command::new("ssh-keygen");
        command.args(args);
        let output =
            run(command, String::new()).await.map_err(|error| self.fault("ssh-keygen (install openssh-client)", error.to_string()))?;
        if !output.status.success() {
            return Err(self.fault("ssh-keygen", last_line(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Adds the new key beside the old one. Where the old one does not open the host any more, the new one may: somebody was cut off later.
    async fn add(&self, current: &KeyPair, next: &KeyPair) -> Result<(), InstanceError> {
        let lines = format!("{}\n{}", current.blob(), next.public);
        match self.log_in(current, "adding the new key", &add_script(&self.file()), &lines).await {
            Ok(()) => Ok(()),
            Err(error) => self.log_in(next, "logging in with the new key", "true", "").await.map_err(|_| error),
        }
    }

    /// Runs `script` there, with `line` on its standard input.
    async fn log_in(&self, key: &KeyPair, what: &'static str, script: &str, line: &str) -> Result<(), InstanceError> {
        let ran = async {
            let files = LoginFiles::write(&self.instances.directory, self.host, &key.private)?;
            let mut command = Command::new("timeout");
            command.args([PATIENCE, "ssh"]).args(self.host.login(&files, "-T")).arg(script);
            run(command, format!("{line}\n")).await
        };
        match ran.await {
            Err(error) => Err(self.fault(what, format!("ssh (install openssh-client): {error}"))),
            Ok(output) if output.status.success() => Ok(()),
            // As `timeout` says it.
            Ok(output) if output.status.code() == Some(124) => Err(self.fault(what, format!("no end within {PATIENCE} s"))),
            Ok(output) => Err(self.fault(what, last_line(&output.stderr))),
        }
    }

    /// The file, as the shell there finds it.
    fn file(&self) -> String {
        let named = &self.host.authorized_keys;
        if named.starts_with('/') { named.clone() } else { format!("$HOME/{named}") }
    }
}

/// Adds the key of the second line of its input, unless it is there, with the same limits (`from=`, `restrict` and the like) as the key of the first
/// line has: a roll gives nobody more than they had. The file is whole at every moment.
fn add_script(file: &str) -> String {
    format!(
        "set -e; umask 077; f=\"{file}\"; read -r old; read -r line; mkdir -p \"$(dirname \"$f\")\"; touch \"$f\"; \
         limits=$(awk -v key=\"$old\" '!/^[ \\t]*#/ {{ for (i = 1; i <= NF; i++) if ($i == key) {{ p = substr($0, 1, index($0, key) - 1); \
         sub(/[^ \\t]+[ \\t]+$/, \"\", p); print p; exit }} }}' \"$f\"); line=\"$limits$line\"; \
         if ! grep -qxF -e \"$line\" \"$f\"; then t=$(mktemp \"$f.XXXXXX\"); cat \"$f\" >\"$t\"; \
         if [ -s \"$t\" ] && [ -n \"$(tail -c 1 \"$t\")\" ]; then echo >>\"$t\"; fi; \
         printf '%s\\n' \"$line\" >>\"$t\"; sync \"$t\" 2>/dev/null || true; mv \"$t\" \"$f\"; fi"
    )
}

/// Takes every line with the key of its input away; never all lines.
fn remove_script(file: &str) -> String {
    format!(
        "set -e; umask 077; f=\"{file}\"; read -r key; t=$(mktemp \"$f.XXXXXX\"); \
         awk -v key=\"$key\" '{{ keep = 1; for (i = 1; i <= NF; i++) if ($i == key) keep = 0; if (keep) print }}' \"$f\" >\"$t\"; \
         [ -s \"$t\" ]; sync \"$t\" 2>/dev/null || true; mv \"$t\" \"$f\""
    )
}

/// What ssh reads for one login: the private key, and the host's own. Deleted when dropped.
pub(crate) struct LoginFiles {
    private: PathBuf,
    known: PathBuf,
}

impl LoginFiles {
    fn write(directory: &Path, host: &Host, private: &Secret) -> std::io::Result<Self> {
        let name = uuid::Uuid::new_v4().to_string();
        let files = Self { private: directory.join(&name), known: directory.join(format!("{name}.hosts")) };
        let at = host.address.rsplit_once('@').map_or(host.address.as_str(), |(_, at)| at);
        write_new(&files.private, private.expose().as_bytes())?;
        write_new(&files.known, format!("[{at}]:{} {}\n{at} {}\n", host.port, host.host_key, host.host_key).as_bytes())?;
        Ok(files)
    }
}

impl Drop for LoginFiles {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.private);
        let _ = std::fs::remove_file(&self.known);
    }
}

impl Host {
    /// Arguments of ssh for a login here, with a terminal or without; a command may follow.
    fn login(&self, files: &LoginFiles, terminal: &str) -> Vec<String> {
        let options = [
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "PasswordAuthentication=no",
            "StrictHostKeyChecking=yes",
            "GlobalKnownHostsFile=/dev/null",
            "UpdateHostKeys=no",
            "ConnectTimeout=10",
            "LogLevel=ERROR",
        ];
        let known = format!("UserKnownHostsFile={}", files.known.display());
        let before =
            ["-F", "/dev/null", terminal, "-p", &self.port.to_string(), "-i", &files.private.display().to_string()].map(str::to_owned);
        let options = options.into_iter().map(str::to_owned).chain([known]).flat_map(|option| ["-o".to_owned(), option]);
        before.into_iter().chain(options).chain([self.address.clone(), "--".to_owned()]).collect()
    }

    /// What stands in a command line or a script must not be more than it says.
    fn check(&self) -> Result<(), &'static str> {
        let is_plain = |text: &str, also: &[u8]| {
            !text.is_empty() && !text.starts_with('-') && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
        };
        let (user, host) = self.address.split_once('@').ok_or("address is user@host")?;
        if !is_plain(&self.id, b"-_.") {
            return Err("id has letters, digits, `-`, `_` and `.`");
        }
        if !is_plain(user, b"-_.") || !is_plain(host, b"-.:") {
            return Err("address is user@host, without a port");
        }
        if !is_plain(&self.authorized_keys, b"-_./") {
            return Err("authorized_keys is a plain path");
        }
        let mut words = self.host_key.split_whitespace();
        let is_key = |word: Option<&str>, also: &[u8]| word.is_some_and(|word| is_plain(word, also));
        if !is_key(words.next(), b"-@.") || !is_key(words.next(), b"+/=") || self.host_key.contains('\n') {
            return Err("host_key is a line like `ssh-ed25519 AAAA...`: the host's own public key");
        }
        Ok(())
    }
}

/// Runs a program to its end, on a thread that may wait.
async fn run(mut command: Command, input: String) -> std::io::Result<Output> {
    files::blocking(move || {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A host that refuses the login reads nothing.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    })
    .await
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    line.chars().filter(|c| !c.is_control() && *c != '%').take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a script as a login would.
    fn scripted(script: &str, input: &str) {
        let mut child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{script}");
    }

    #[test]
    fn a_new_key_gets_the_limits_of_the_old_one_and_nothing_else_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authorized_keys");
        let file = path.display().to_string();
        for limits in ["", "restrict ", r#"from="10.0.0.0/8,192.0.2.1",command="echo 'a b' \"c\"",no-pty "#] {
            let others = "# ssh-ed25519 OLD= in a comment\nssh-rsa OTHER= somebody\n";
            std::fs::write(&path, format!("{others}{limits}ssh-ed25519 OLD= convox-rack-web1")).unwrap();
            for _ in 0..2 {
                scripted(&add_script(&file), "OLD=\nssh-ed25519 NEW= convox-rack-web1\n");
            }
            scripted(&remove_script(&file), "OLD=\n");
            let left = std::fs::read_to_string(&path).unwrap();
            let comment_gone = others.lines().nth(1).unwrap();
            assert_eq!(left, format!("{comment_gone}\n{limits}ssh-ed25519 NEW= convox-rack-web1\n"));
        }
    }

    #[tokio::test]
    async fn a_host_that_cannot_be_rolled_keeps_no_other_from_it_and_all_faults_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).await.unwrap();
        let host = |id: &str| Host {
            id: id.to_owned(),
            address: "deploy@127.0.0.1".to_owned(),
            port: 1,
            host_key: "ssh-ed25519 AAAA".to_owned(),
            key: dir.path().join("nowhere"),
            authorized_keys: authorized_keys(),
        };
        let hosts = vec![host("one"), host("two")];
        let instances = Instances { hosts, directory: dir.path().join("ssh"), rolling: tokio::sync::Mutex::new(()) };
        let error = instances.roll(&state, false).await.unwrap_err().to_string();
        assert!(error.starts_with("2 of 2 instances") && error.contains("instance one") && error.contains("instance two"), "{error}");
    }

    #[test]
    fn nothing_that_a_shell_or_ssh_could_take_for_more_gets_into_a_command() {
        let good = Host {
            id: "web1".to_owned(),
            address: "deploy@10.0.0.5".to_owned(),
            port: 22,
            host_key: "ssh-ed25519 AAAAC3Nza+/= comment".to_owned(),
            key: PathBuf::from("/etc/convox/key"),
            authorized_keys: authorized_keys(),
        };
        assert_eq!(good.check(), Ok(()));
        for bad in ["deploy", "-oProxyCommand=x@h", "a@-h", "a b@h", "a@h;id", "a@$(id)", "a@h:22 x", ""] {
            assert!(Host { address: bad.to_owned(), ..good.clone() }.check().is_err(), "{bad}");
        }
        for bad in ["", "$HOME/x", "a\"b", "a;b", "`id`", "-x"] {
            assert!(Host { authorized_keys: bad.to_owned(), ..good.clone() }.check().is_err(), "{bad}");
        }
        for bad in ["", "ssh-ed25519", "ssh-ed25519 AAAA\n* ssh-ed25519 BBBB", "ssh-ed25519 $(id)"] {
            assert!(Host { host_key: bad.to_owned(), ..good.clone() }.check().is_err(), "{bad}");
        }
    }
}
