//! The machine's own PostgreSQL or Redis as the server of a resource: found, its data made, its command.
//!
//! PostgreSQL refuses to run as root, and no database should. A Rack of root hands its servers to the user that the machine's package made for them,
//! and shows such a server its own directory and nothing else of the Rack's: in a mount namespace it stands where that user's home is.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use convox_seal::Secret;

use super::{APP, Kind, health};
use crate::files;
use crate::runtime::ProcessSpec;

/// Where Debian's packages put PostgreSQL's programs, by version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// What the name of a directory begins with in which data is being made.
const NEW: &str = "new";
/// How long the making of a database may take.
const MAKE_SECONDS: &str = "180";
/// Arguments: directory, where it is to be seen, user, group, command.
const CONFINED: &str = r#"mount --bind "$1" "$2" || exit 1; cd "$2" || exit 1; user=$3; group=$4; shift 4; exec setpriv --reuid "$user" --regid "$group" --init-groups --no-new-privs -- "$@""#;

/// A server program on this machine.
pub(crate) struct Server {
    kind: Kind,
    /// The directory of its programs.
    bin: PathBuf,
    version: String,
    /// Whom it runs as, if the Rack is root.
    user: Option<User>,
}

struct User {
    uid: u32,
    gid: u32,
    home: PathBuf,
}

impl Server {
    /// The one of the wanted version; the one that made the data wins, and the newest if nothing is said.
    pub(super) async fn find(kind: Kind, version: Option<&str>, base: &Path) -> Result<Self, String> {
        let base = base.to_owned();
        let wanted = version.map(|version| version.split('.').next().unwrap_or(version).to_owned());
        files::blocking(move || Ok(find(kind, wanted.as_deref(), &base))).await.map_err(|error| error.to_string())?
    }

    /// Makes the data if there is none, and completes what is to be started.
    pub(super) async fn prepare(&self, base: &Path, spec: ProcessSpec, port: u16, password: &Secret) -> Result<ProcessSpec, String> {
        let data = base.join("data");
        if !data.exists() {
            self.make(base, &data, password).await.map_err(|error| format!("making its data: {error}"))?;
        }
        let command = match self.kind {
            Kind::Postgres => {
                let settings = [
                    "listen_addresses=127.0.0.1".to_owned(),
                    format!("port={port}"),
                    // Nobody reaches it but by its password.
                    "unix_socket_directories=".to_owned(),
                    "logging_collector=off".to_owned(),
                ];
                let mut command = vec![self.program("postgres"), "-D".to_owned(), self.seen(&data)];
                command.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
                command
            }
            Kind::Redis => {
                let (file, text) = (data.join("redis.conf"), self.redis_conf(&self.seen(&data), port, password));
                self.write(&file, text).await.map_err(|error| format!("writing its settings: {error}"))?;
                vec![self.program("redis-server"), format!("{}/redis.conf", self.seen(&data))]
            }
        };
        Ok(ProcessSpec {
            command: self.confined(&data, command),
            env: environment().map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            dir: data,
            plain: true,
            // PostgreSQL waits for its clients on SIGTERM, and says goodbye to them on SIGINT.
            interrupt: self.kind == Kind::Postgres,
            ..spec
        })
    }

    /// One of its client programs, for a shell.
    pub(super) fn client(&self, command: &str) -> String {
        let program = format!("{}/{command}", self.bin.display());
        match &self.user {
            Some(user) => {
                // Not where the data is: that is its server's alone to see.
                format!("cd / && exec setpriv --reuid {} --regid {} --init-groups --no-new-privs -- {program}", user.uid, user.gid)
            }
            None => format!("cd / && exec {program}"),
        }
    }

    fn program(&self, name: &str) -> String {
        self.bin.join(name).to_string_lossy().into_owned()
    }

    /// Where the server finds its directory.
    fn seen(&self, dir: &Path) -> String {
        self.user.as_ref().map_or(dir, |user| &user.home).to_string_lossy().into_owned()
    }

    fn confined(&self, dir: &Path, command: Vec<String>) -> Vec<String> {
        let Some(user) = &self.user else { return command };
        let dir = dir.to_string_lossy().into_owned();
        let before = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            CONFINED,
            "sh",
            &dir,
            &self.seen(Path::new("")),
            &user.uid.to_string(),
            &user.gid.to_string(),
        ];
        before.into_iter().map(str::to_owned).chain(command).collect()
    }

    async fn make(&self, base: &Path, data: &Path, password: &Secret) -> Result<(), String> {
        // Made aside, then renamed: a half-made database is never taken for one.
        // A name of its own: the programs of a Rack that was killed while it made one may still write into theirs.
        let new = base.join(format!("{NEW}{}", convox_seal::random_bytes::<6>().map(|byte| format!("{byte:02x}")).concat()));
        let owner = self.user.as_ref().map(|user| (user.uid, user.gid));
        let fresh = new.clone();
        let made = files::blocking(move || {
            clear(fresh.parent().unwrap_or(&fresh));
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&fresh)?;
            if let Some((uid, gid)) = owner {
                std::os::unix::fs::chown(&fresh, Some(uid), Some(gid))?;
            }
            Ok(())
        });
        made.await.map_err(|error| format!("{}: {error}", new.display()))?;
        if self.kind == Kind::Postgres {
            let seen = self.seen(&new);
            let words = ["-D", &seen, "-U", "convox", "--encoding=UTF8", "--locale=C", "--auth=reject"].map(str::to_owned);
            self.run(&new, [vec![self.program("initdb")], words.into()].concat(), None).await?;
            // The administrator that initdb makes has no password and nobody can be it; the app is none.
            self.write(&new.join("pg_hba.conf"), "host all all 127.0.0.1/32 scram-sha-256\n".to_owned())
                .await
                .map_err(|error| error.to_string())?;
            let alone = ["--single", "-D", &seen, "-c", "log_min_error_statement=panic", "postgres"].map(str::to_owned);
            let password = password.expose();
            let statements = format!("CREATE ROLE {APP} LOGIN CREATEDB PASSWORD '{password}';\nCREATE DATABASE {APP} OWNER {APP};\n");
            let said = self.run(&new, [vec![self.program("postgres")], alone.into()].concat(), Some(statements)).await?;
            // Its exit code says nothing of the statements.
            if let Some(line) = said.lines().find(|line| line.contains("ERROR:") || line.contains("FATAL:")) {
                return Err(line.trim().to_owned());
            }
        }
        let (new, data) = (new, data.to_owned());
        let kept = files::blocking(move || {
            std::fs::rename(&new, &data)?;
            let base = data.parent().unwrap_or(&data);
            clear(base);
            std::fs::File::open(base)?.sync_all()
        });
        kept.await.map_err(|error| error.to_string())
    }

    /// Runs one of its programs to its end; what it said.
    async fn run(&self, dir: &Path, command: Vec<String>, input: Option<String>) -> Result<String, String> {
        let words = self.confined(dir, command);
        let dir = dir.to_owned();
        let ran = files::blocking(move || {
            // It ends by itself or is ended: a database that never gets made must not hold up what waits for it.
            let mut child = Command::new("timeout")
                .args(["--kill-after=5", MAKE_SECONDS])
                .args(words)
                .env_clear()
                .envs(environment())
                .current_dir(dir)
                .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
                // A few lines: they fit into the pipe. One that does not read them says why.
                let _ = stdin.write_all(input.as_bytes());
            }
            child.wait_with_output()
        });
        let output = ran.await.map_err(|error| error.to_string())?;
        if output.status.code() == Some(124) {
            return Err(format!("it took longer than {MAKE_SECONDS} s"));
        }
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(said) } else { Err(said.trim().to_owned()) }
    }

    /// Writes a file that only the server's user may read.
    async fn write(&self, path: &Path, text: String) -> std::io::Result<()> {
        let (path, owner) = (path.to_owned(), self.user.as_ref().map(|user| (user.uid, user.gid)));
        files::blocking(move || {
            let temporary = path.with_extension("new");
            let _ = std::fs::remove_file(&temporary);
            let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            // The file, not the name: the directory is the server's.
            if let Some((uid, gid)) = owner {
                std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
            }
            std::fs::rename(&temporary, &path)
        })
        .await
    }

    fn redis_conf(&self, dir: &str, port: u16, password: &Secret) -> String {
        let password = password.expose();
        // An app may do with its data what it likes, and nothing with the machine. Those before 7 know no other way to refuse it.
        let closed = if self.version.parse::<u32>().is_ok_and(|version| version >= 7) {
            "enable-module-command no\n"
        } else {
            "rename-command MODULE \"\"\nrename-command CONFIG \"\"\nrename-command DEBUG \"\"\nrename-command REPLICAOF \"\"\nrename-command SLAVEOF \"\"\n"
        };
        // Those before 6 know no users.
        let asker = if self.version.parse::<u32>().is_ok_and(|version| version >= 6) {
            format!("user {} on nopass resetkeys -@all +ping\n", health::ASKER)
        } else {
            String::new()
        };
        format!(
            "bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {dir}\ndaemonize no\nlogfile \"\"\nappendonly yes\n{closed}{asker}"
        )
    }

    /// As in `PostgreSQL 15`.
    pub(crate) fn name(&self) -> String {
        match self.kind {
            Kind::Postgres => format!("PostgreSQL {}", self.version),
            Kind::Redis => format!("Redis {}", self.version),
        }
    }
}

/// Deletes data whose making was cut off. What programs write there right now is in the way: that goes when the making has ended.
fn clear(base: &Path) {
    for left in std::fs::read_dir(base).into_iter().flatten().flatten() {
        if left.file_name().to_string_lossy().starts_with(NEW) {
            let _ = std::fs::remove_dir_all(left.path());
        }
    }
}

/// All that a server gets to know of the machine.
fn environment() -> [(&'static str, &'static str); 2] {
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C")]
}

fn find(kind: Kind, wanted: Option<&str>, base: &Path) -> Result<Server, String> {
    let (bin, version) = match kind {
        Kind::Postgres => postgres(wanted, base)?,
        Kind::Redis => {
            let bin = in_path("redis-server").ok_or_else(|| missing(kind, None))?;
            let version = version(&bin.join("redis-server"))?;
            (bin, version)
        }
    };
    Ok(Server { kind, bin, version, user: user(kind)? })
}

fn missing(kind: Kind, version: Option<&str>) -> String {
    let (what, package) = match kind {
        Kind::Postgres => ("PostgreSQL", "postgresql"),
        Kind::Redis => ("Redis", "redis-server"),
    };
    let version = version.map(|version| format!(" {version}")).unwrap_or_default();
    format!(
        "this machine has no {what}{version}: install it (Debian: apt-get install {package}), or give the app one of yours by setting its URL with `convox env set`"
    )
}

fn postgres(wanted: Option<&str>, base: &Path) -> Result<(PathBuf, String), String> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists() && bin.join("postgres").exists())
        .collect();
    found.sort();
    // Data can be read by the version that made it only.
    let made = std::fs::read_to_string(base.join("data/PG_VERSION")).ok().map(|version| version.trim().to_owned());
    match (&made, wanted) {
        (Some(made), Some(wanted)) if made != wanted => {
            return Err(format!(
                "its data was made by PostgreSQL {made} and `version` asks for {wanted}: export it, name another resource, and import it there"
            ));
        }
        _ => {}
    }
    let wanted = made.as_deref().or(wanted);
    if let Some((version, bin)) = found.into_iter().rev().find(|(version, _)| wanted.is_none_or(|wanted| wanted == version.to_string())) {
        return Ok((bin, version.to_string()));
    }
    let bin = in_path("initdb").filter(|bin| bin.join("postgres").exists()).ok_or_else(|| missing(Kind::Postgres, wanted))?;
    let version = version(&bin.join("postgres"))?;
    if wanted.is_none_or(|wanted| wanted == version) { Ok((bin, version)) } else { Err(missing(Kind::Postgres, wanted)) }
}

/// The first number in what a program says of itself, as in `Redis server v=7.0.15`.
fn version(program: &Path) -> Result<String, String> {
    let said = std::process::Command::new(program).arg("--version").output().map_err(|error| format!("{}: {error}", program.display()))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let number = said.split(|c: char| c.is_whitespace() || c == '=').find_map(|word| word.split('.').next()?.parse::<u32>().ok());
    Ok(number.unwrap_or_default().to_string())
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| environment()[0].1.into());
    let is_program = |path: &Path| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&path).find(|dir| is_program(&dir.join(program)))
}

/// Whom a server runs as: the Rack's own user, unless that is root.
fn user(kind: Kind) -> Result<Option<User>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let name = kind.name();
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(|error| format!("/etc/passwd: {error}"))?;
    let user = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(name);
        let (uid, gid, home) = (fields.nth(1)?, fields.next()?, fields.nth(1)?);
        let user = User { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: PathBuf::from(home) };
        (is_it && user.uid != 0 && user.home.is_dir() && user.home != Path::new("/")).then_some(user)
    });
    user.map(Some).ok_or_else(|| {
        format!("the Rack is root, a server must not be, and the machine has no user {name} with a home: install its package, or run the Rack as a user of its own")
    })
}
