//! A real Podman of the test's own: its service, its storage, its socket, and base images without a registry.
//!
//! Needs root, as the service does here. What it cannot pull it makes from this machine's own programs.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// No limit above what the machine allows, and no systemd: what a test machine has.
const CONTAINERS_CONF: &str = "\
[engine]
runtime = \"runc\"
cgroup_manager = \"cgroupfs\"
events_logger = \"file\"
[containers]
default_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]
";
/// Containers without a network of their own.
const HOST_NETWORK: &str = "netns = \"host\"\n";

/// What the stand-ins for base images hold.
const PROGRAMS: &[&str] = &[
    "busybox",
    "cat",
    "date",
    "env",
    "false",
    "grep",
    "head",
    "id",
    "ls",
    "mkdir",
    "perl",
    "psql",
    "redis-cli",
    "redis-server",
    "rm",
    "seq",
    "sh",
    "sleep",
    "stty",
    "tail",
    "tar",
    "touch",
    "true",
    "wc",
];

const POSTGRES_ENTRY: &str = r#"#!/bin/sh
set -e
[ "$1" = postgres ] || exec "$@"
as() { setpriv --reuid postgres --regid postgres --clear-groups -- "$@"; }
mkdir -p /tmp /run/postgresql /var/run/postgresql "$PGDATA"
chown -R postgres "$PGDATA" /run/postgresql /var/run/postgresql
chmod 700 "$PGDATA"
chmod 777 /tmp
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" > /tmp/password
    as initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile=/tmp/password $POSTGRES_INITDB_ARGS
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    sleep 3
    as pg_ctl -D "$PGDATA" -w -o "-c listen_addresses='' -c unix_socket_directories=/tmp" start
    PGPASSWORD=$POSTGRES_PASSWORD as psql -h /tmp -U "$POSTGRES_USER" -d postgres -c "CREATE DATABASE $POSTGRES_DB"
    as pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec setpriv --reuid postgres --regid postgres --clear-groups -- "$@"
"#;

/// A running `podman system service`.
pub struct Podman {
    dir: TempDir,
    service: Child,
}

impl Podman {
    /// Starts one with empty storage, whose containers share the machine's network.
    pub fn start() -> Result<Self> {
        Self::start_with(HOST_NETWORK, "")
    }

    /// The same, for containers with a network of their own. It changes the network that it runs in: give it one of its own.
    pub fn start_bridged() -> Result<Self> {
        Self::start_with("", "")
    }

    /// The same as at first, which also speaks to this registry, by plain HTTP.
    pub fn start_beside(registry: &crate::Registry) -> Result<Self> {
        Self::start_with(HOST_NETWORK, &format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host()))
    }

    fn start_with(containers: &str, registries: &str) -> Result<Self> {
        // A short path: the name of a socket may have 107 bytes.
        let dir = tempfile::Builder::new().prefix("pod").tempdir_in("/tmp")?;
        let path = dir.path().display();
        let network = format!("[network]\nnetwork_config_dir = \"{path}/networks\"\n");
        std::fs::write(dir.path().join("containers.conf"), format!("{CONTAINERS_CONF}{containers}{network}"))?;
        std::fs::write(dir.path().join("registries.conf"), format!("unqualified-search-registries = []\n{registries}"))?;
        let storage = format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{path}/store\"\nrunroot = \"{path}/run\"\n");
        std::fs::write(dir.path().join("storage.conf"), storage)?;
        let service = Self::service(dir.path())?;
        let podman = Self { dir, service };
        podman.await_socket()?;
        Ok(podman)
    }

    fn service(dir: &Path) -> Result<Child> {
        let log = File::options().create(true).append(true).open(dir.join("service.log"))?;
        let service = command(dir)
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{}", dir.join("podman.sock").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        service.context("podman could not be started; bin/test installs it")
    }

    fn await_socket(&self) -> Result<()> {
        // An answer, not only a connection: on a busy machine there is a while between the two.
        let answers = || {
            let mut socket = UnixStream::connect(self.socket()).ok()?;
            socket.set_read_timeout(Some(Duration::from_mins(1))).ok()?;
            socket.write_all(b"GET /_ping HTTP/1.0\r\nHost: podman\r\n\r\n").ok()?;
            let mut reply = String::new();
            socket.read_to_string(&mut reply).ok().filter(|_| reply.contains("200 OK"))
        };
        if crate::eventually(Duration::from_mins(1), answers).is_none() {
            let log = std::fs::read_to_string(self.dir.path().join("service.log")).unwrap_or_default();
            bail!("podman's service does not answer; its log:\n{log}");
        }
        Ok(())
    }

    /// Ends the service and starts it again; containers run on.
    pub fn restart(&mut self) -> Result<()> {
        let _ = self.service.kill();
        let _ = self.service.wait();
        let _ = std::fs::remove_file(self.socket());
        self.service = Self::service(self.dir.path())?;
        self.await_socket()
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("podman.sock")
    }

    /// `podman ARGS` with this storage.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        text(command(self.dir.path()).args(args).output()?, args)
    }

    /// The same image under further names.
    pub fn also_known_as(&self, name: &str, others: &[&str]) -> Result<()> {
        others.iter().try_for_each(|other| self.run(&["tag", name, other]).map(drop))
    }

    /// Makes an image of PostgreSQL under this name, from this machine's own server and programs. Its entry point does what the official one does, as
    /// far as a Rack relies on it, and waits a moment in the middle of making the data.
    pub fn postgres_image(&self, name: &str) -> Result<()> {
        let psql = psql().pop().context("PostgreSQL is not installed")?;
        let server = Path::new(&psql).ancestors().nth(2).context("PostgreSQL's directory")?.display().to_string();
        let version = server.rsplit('/').next().context("PostgreSQL's version")?;
        let root = self.dir.path().join("postgres");
        std::fs::create_dir_all(root.join("usr/local/bin"))?;
        let script = root.join("usr/local/bin/docker-entrypoint.sh");
        std::fs::write(&script, POSTGRES_ENTRY)?;
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let mut files = vec!["/etc/passwd".to_owned(), "/etc/group".to_owned(), "/bin/sh".to_owned(), script.display().to_string()];
        for program in ["cat", "chmod", "chown", "mkdir", "rm", "setpriv", "sleep"] {
            files.push(installed(program)?);
        }
        let programs = ["postgres", "initdb", "pg_ctl", "psql", "pg_dump"].map(|program| format!("{server}/bin/{program}"));
        let needed: Vec<String> = programs.iter().chain(&files).map(|path| libraries(path)).collect::<Result<Vec<_>>>()?.concat();
        files.extend(needed);
        files.extend([format!("{server}/bin"), format!("{server}/lib"), format!("/usr/share/postgresql/{version}")]);
        files.sort();
        files.dedup();
        let archive = self.dir.path().join("postgres.tar");
        let ours = format!("s,^{},,", root.display());
        text(
            Command::new("tar")
                .args(["--dereference", "--hard-dereference", "-cPf"])
                .arg(&archive)
                .args(["--transform", &ours, "--transform", "s,^/,,"])
                .args(&files)
                .output()?,
            &["tar"],
        )?;
        let path = format!("ENV PATH=/usr/local/bin:{server}/bin:/usr/bin:/bin");
        let entry = "ENTRYPOINT [\"docker-entrypoint.sh\"]";
        self.run(&["import", "--change", &path, "--change", entry, &archive.display().to_string(), name])?;
        Ok(())
    }

    /// Makes an image of this name with one static program in it, `/busybox`, and nothing else: no shell, no libraries, no directories.
    pub fn bare_image(&self, name: &str) -> Result<()> {
        self.static_image(name, &[])
    }

    /// Makes an image of this name with that program as its shell too, which knows the usual small commands by itself.
    pub fn small_image(&self, name: &str) -> Result<()> {
        self.static_image(name, &["bin"])
    }

    fn static_image(&self, name: &str, more: &[&str]) -> Result<()> {
        let root = tempfile::Builder::new().prefix("static").tempdir_in(self.dir.path())?;
        std::fs::copy(installed("busybox")?, root.path().join("busybox"))?;
        std::fs::create_dir(root.path().join("bin"))?;
        std::os::unix::fs::symlink("/busybox", root.path().join("bin/sh"))?;
        let archive = root.path().join("image.tar");
        text(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(root.path()).arg("busybox").args(more).output()?, &["tar"])?;
        self.run(&["import", &archive.display().to_string(), name])?;
        Ok(())
    }

    /// Makes an image of this name from programs of this machine: a shell, perl, clients and a server of databases, and what goes with them.
    pub fn base_image(&self, name: &str) -> Result<()> {
        let archive = self.dir.path().join("base.tar");
        if !archive.exists() {
            let mut files = vec!["/etc/passwd".to_owned(), "/etc/group".to_owned(), "/bin/sh".to_owned()];
            for program in PROGRAMS {
                // psql in the usual place is a script around it.
                let path = if *program == "psql" { psql().pop().context("PostgreSQL is not installed")? } else { installed(program)? };
                files.extend(libraries(&path)?);
                files.push(path);
            }
            let modules = text(
                Command::new("perl")
                    .args(["-MDigest::SHA", "-MMIME::Base64", "-e", "print join qq(\\n), $INC{'Digest/SHA.pm'}, $INC{'Digest/base.pm'}, $INC{'MIME/Base64.pm'}, (grep { -e } map { (qq($_/auto/Digest/SHA/SHA.so), qq($_/auto/MIME/Base64/Base64.so)) } @INC), grep { -d && m{^/usr/lib/.*/perl-base} } @INC"])
                    .output()?,
                &["perl"],
            )?;
            files.extend(modules.lines().map(str::to_owned));
            files.sort();
            files.dedup();
            // Links become what they lead to: the machine's layout is not the image's.
            text(
                Command::new("tar")
                    .args(["--dereference", "--hard-dereference", "-cPf"])
                    .arg(&archive)
                    .args(["--transform", "s,^/usr/lib/postgresql/[0-9]*/bin/,/usr/bin/,", "--transform", "s,^/,,"])
                    .args(&files)
                    .output()?,
                &["tar"],
            )?;
        }
        let archive = archive.display().to_string();
        self.run(&["import", "--change", "ENV PATH=/usr/local/bin:/usr/bin:/bin", &archive, name])?;
        Ok(())
    }
}

/// Where a program of this machine is.
fn installed(program: &str) -> Result<String> {
    let places = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(|dir| format!("{dir}/{program}"));
    places.into_iter().find(|path| Path::new(path).exists()).with_context(|| format!("{program} is not installed"))
}

/// The libraries of a program. A static one has none, and ldd says so as if that were a fault.
fn libraries(path: &str) -> Result<Vec<String>> {
    let said = String::from_utf8(Command::new("ldd").arg(path).output()?.stdout)?;
    Ok(said.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

fn psql() -> Vec<String> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin/psql").display().to_string()).collect()
}

impl Drop for Podman {
    fn drop(&mut self) {
        // More than once: what is just being made or ended is not removed at once.
        let all_gone = || {
            let _ = self.run(&["rm", "--force", "--all", "--time", "0"]);
            self.run(&["ps", "--all", "--quiet"]).is_ok_and(|left| left.trim().is_empty()).then_some(())
        };
        let _ = crate::eventually(Duration::from_secs(20), all_gone);
        let _ = self.service.kill();
        let _ = self.service.wait();
        end_supervisors(self.dir.path());
    }
}

/// Ends what supervises containers of this storage and was left: its arguments name the directory, which is this test's alone.
fn end_supervisors(dir: &Path) {
    let dir = dir.display().to_string();
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(rustix::process::Pid::from_raw) else {
            continue;
        };
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        let program = arguments.split('\0').next().unwrap_or_default();
        if program.ends_with("conmon") && arguments.contains(&dir) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new("podman");
    // Where the monitors of containers leave files.
    command
        .current_dir(dir)
        .env("CONTAINERS_CONF", dir.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", dir.join("storage.conf"))
        .env("CONTAINERS_REGISTRIES_CONF", dir.join("registries.conf"));
    command
}

fn text(output: Output, args: &[&str]) -> Result<String> {
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
