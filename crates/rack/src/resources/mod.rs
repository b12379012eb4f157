//! Resources of apps: databases and the like, named in `convox.yml`, each with a server of its own that outlives releases.
//!
//! A server runs in a container where the app does and its image can be had, else it is the machine's own ([`server`]). Where it was first made
//! is noted beside its data, and it stays there: a database never comes up empty because an image could not be pulled today.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use convox_seal::Secret;
use convox_wire::form::Params;

use crate::files;
use crate::manifest::{Manifest, Resource, Service};
use crate::runtime::{Isolation, Limits, ProcessKind, ProcessSpec, RESOURCE, Runtime};

pub(crate) mod health;
mod server;

pub(crate) use server::Server;

/// How long a server may take to write down what it holds when it is stopped.
const STOP: Duration = Duration::from_mins(1);
/// User and database of an app's own.
const APP: &str = "app";

/// What a Rack has servers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A PostgreSQL cluster.
    Postgres,
    /// A Redis server.
    Redis,
}

impl Kind {
    pub(crate) fn of(kind: &str) -> Option<Self> {
        match kind {
            "postgres" => Some(Self::Postgres),
            "redis" => Some(Self::Redis),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }

    /// As people call it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
        }
    }

    /// The version of an image, where data of another one cannot be read: the number that its tag begins with.
    fn major(self, image: &str) -> Option<&str> {
        if self != Self::Postgres {
            return None;
        }
        let (_, tag) = image.rsplit('/').next()?.split('@').next()?.split_once(':')?;
        let end = tag.find(|c: char| !c.is_ascii_digit()).unwrap_or(tag.len());
        tag.get(..end).filter(|number| !number.is_empty())
    }

    /// The port in a container that has a network of its own.
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::Redis => 6379,
        }
    }

    /// Where a container keeps its data.
    fn volume(self) -> &'static str {
        match self {
            Self::Postgres => "/var/lib/postgresql/data",
            Self::Redis => "/data",
        }
    }

    /// The image, if the manifest names none. Newer than what the originals take by default: theirs get no fixes any more.
    fn image(self, version: Option<&str>) -> String {
        match self {
            Self::Postgres => format!("docker.io/library/postgres:{}", version.unwrap_or("17")),
            Self::Redis => format!("docker.io/library/redis:{}", version.unwrap_or("7")),
        }
    }
}

/// How a resource is reached.
pub(crate) struct Access {
    pub(crate) kind: Kind,
    pub(crate) host: IpAddr,
    pub(crate) port: u16,
    pub(crate) password: Arc<Secret>,
}

impl Access {
    /// Holds the password.
    pub(crate) fn url(&self) -> String {
        let (password, host, port) = (self.password.expose(), self.host, self.port);
        match self.kind {
            Kind::Postgres => format!("postgres://{APP}:{password}@{host}:{port}/{APP}?sslmode=disable"),
            Kind::Redis => format!("redis://:{password}@{host}:{port}/0"),
        }
    }
}

/// The variable that holds a resource's URL.
pub(crate) fn url_variable(name: &str) -> String {
    format!("{}_URL", prefix(name))
}

fn prefix(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

/// The URL of a resource that is somebody else's: a release's environment says where it is, and the Rack runs none.
pub(crate) fn external<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    env.get(&url_variable(name)).map(|url| url.trim()).filter(|url| !url.is_empty())
}

/// Those that the Rack is to run.
pub(crate) fn provided<'a>(manifest: &'a Manifest, env: &'a BTreeMap<String, String>) -> impl Iterator<Item = (&'a Resource, Kind)> {
    let of_ours = |resource: &'a Resource| Some((resource, Kind::of(&resource.kind)?));
    manifest.resources.iter().filter(|resource| external(env, &resource.name).is_none()).filter_map(of_ours)
}

/// Names of the resources that a service uses, without the variables that it wants them in.
pub(crate) fn used(service: &Service) -> impl Iterator<Item = &str> {
    service.resources.iter().map(|entry| entry.split_once(':').map_or(entry.as_str(), |(name, _)| name))
}

/// What a service's entry (`db`, or `db:DATABASE_URL`) puts into its environment, as the originals do.
pub(crate) fn variables(entry: &str, url: &str) -> Vec<(String, String)> {
    let parts = Parts::of(url);
    let value = |key: &str| match key {
        "USER" => parts.user.clone(),
        "PASS" => parts.password.clone(),
        "HOST" => parts.host.clone(),
        "PORT" => parts.port.clone(),
        "NAME" => parts.name.clone(),
        _ => url.to_owned(),
    };
    match entry.split_once(':') {
        Some((_, variable)) => {
            let variable = variable.trim();
            vec![(variable.to_owned(), value(variable.rsplit('_').next().unwrap_or_default()))]
        }
        None => ["URL", "USER", "PASS", "HOST", "PORT", "NAME"].map(|key| (format!("{}_{key}", prefix(entry)), value(key))).into(),
    }
}

/// The pieces of a URL.
#[derive(Default)]
struct Parts {
    user: String,
    password: String,
    host: String,
    port: String,
    name: String,
}

impl Parts {
    fn of(url: &str) -> Self {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        // A password may hold what ends an authority elsewhere.
        let (user, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let (authority, name) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (authority, ""),
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        Self { user: unescaped(user), password: unescaped(password), host, port: port.to_owned(), name: unescaped(name) }
    }
}

fn unescaped(text: &str) -> String {
    let form = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
    Params::parse(&form).ok().and_then(|params| params.get("x").map(str::to_owned)).unwrap_or_else(|| text.to_owned())
}

/// One resource of one app, and where it is kept.
pub(crate) struct Seat<'a> {
    /// Where the Rack keeps all of them.
    pub(crate) dir: &'a Path,
    pub(crate) app: &'a str,
    pub(crate) resource: &'a Resource,
    pub(crate) kind: Kind,
    pub(crate) password: &'a Secret,
}

/// Where a server runs. Written down once, beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Container,
    Machine,
}

impl Seat<'_> {
    /// Its own directory. Names of apps and resources are plain words.
    fn base(&self) -> PathBuf {
        self.dir.join(self.app).join(&self.resource.name).join(self.kind.name())
    }

    fn version(&self) -> Option<&str> {
        self.resource.options.get("version").map(String::as_str).filter(|version| !version.is_empty())
    }

    /// The image, of the version that made the data where the manifest asks for none.
    fn image(&self, made: Option<&str>) -> String {
        self.resource.image.clone().unwrap_or_else(|| self.kind.image(self.version().or(made)))
    }

    /// Whether its server is the machine's own.
    pub(crate) async fn is_on_machine(&self) -> bool {
        tokio::fs::read_to_string(self.base().join("place")).await.is_ok_and(|place| place.trim() == "machine")
    }

    /// The server on this machine, for who needs its programs.
    pub(crate) async fn server(&self) -> Result<Server, String> {
        Server::find(self.kind, self.version(), &self.base()).await
    }

    /// What is to run, ready to be started on `port`; and what people should know of it.
    pub(crate) async fn spec(&self, runtime: &dyn Runtime, id: String, port: u16) -> Result<(ProcessSpec, String), String> {
        let base = self.base();
        let is_made = !tokio::fs::try_exists(base.join(MAKING)).await.map_err(|error| format!("{}: {error}", base.display()))?;
        let made = tokio::fs::read_to_string(base.join(VERSION)).await.ok().map(|made| made.trim().to_owned()).filter(|_| is_made);
        let image = self.image(made.as_deref());
        let (place, note) = self.place(runtime, &base, &image, made.as_deref()).await?;
        let spec = ProcessSpec {
            id,
            app: self.app.to_owned(),
            service: format!("{RESOURCE}{}", self.resource.name),
            port: Some(port),
            kind: ProcessKind::Resource,
            stop_grace: STOP,
            ..ProcessSpec::default()
        };
        let spec = match place {
            Place::Container => {
                // Looked at again: it may have been noted just now.
                let is_made = is_made && !tokio::fs::try_exists(base.join(MAKING)).await.unwrap_or(true);
                self.in_container(runtime.isolation(), spec, port, image.clone(), is_made)
            }
            Place::Machine => {
                let server = self.server().await?;
                let spec = server.prepare(&base, spec, port, self.password).await?;
                let note = note.map(|note| format!("; {note}")).unwrap_or_default();
                return Ok((spec, format!("starting {} of this machine{note}", server.name())));
            }
        };
        Ok((spec, format!("starting {image} in a container")))
    }

    /// Notes that its server has answered: its data is whole, and never made anew.
    pub(crate) async fn made(&self) -> Result<(), String> {
        let base = self.base();
        let noted = files::blocking(move || match std::fs::remove_file(base.join(MAKING)) {
            Ok(()) => std::fs::File::open(&base)?.sync_all(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        });
        noted.await.map_err(|error| format!("noting that it is made: {error}"))
    }

    /// Where its server runs. `made` is the version that made its data, if that is known.
    async fn place(&self, runtime: &dyn Runtime, base: &Path, image: &str, made: Option<&str>) -> Result<(Place, Option<String>), String> {
        let known = match tokio::fs::read_to_string(base.join("place")).await.as_deref().map(str::trim) {
            Ok("container") => Some(Place::Container),
            Ok("machine") => Some(Place::Machine),
            _ => None,
        };
        if known == Some(Place::Machine) {
            return Ok((Place::Machine, None));
        }
        let version = self.kind.major(image);
        if let (Some(made), Some(wanted)) = (made, version)
            && made != wanted
        {
            return Err(format!(
                "its data was made by {} {made} and {image} is version {wanted}: export it, name another resource, and import it there",
                self.kind.title()
            ));
        }
        let mut note = None;
        let place = if runtime.isolation().has_images() {
            match runtime.ensure_image(image).await {
                Ok(()) => Place::Container,
                Err(reason) if known.is_some() => {
                    return Err(format!("{reason}; its data is in a volume of that image, so nothing else is started"));
                }
                Err(reason) => {
                    note = Some(reason);
                    Place::Machine
                }
            }
        } else if known.is_some() {
            return Err("its data is in a volume of containers, and this Rack runs plain processes now".to_owned());
        } else {
            Place::Machine
        };
        let version = version.filter(|_| place == Place::Container && made.is_none()).map(|version| format!("{version}\n"));
        if known.is_none() || version.is_some() {
            let base = base.to_owned();
            let written = files::blocking(move || {
                files::make_private_directory(&base)?;
                if let Some(version) = version {
                    files::write_private(&base.join(VERSION), version.as_bytes())?;
                }
                if known.is_some() {
                    return Ok(());
                }
                if place == Place::Container {
                    files::write_private(&base.join(MAKING), b"")?;
                }
                // The last: what was made before all of this was noted has neither, and counts as made.
                let word = if place == Place::Container { "container\n" } else { "machine\n" };
                files::write_private(&base.join("place"), word.as_bytes())
            });
            written.await.map_err(|error| format!("noting where it is kept: {error}"))?;
        }
        Ok((place, note))
    }

    fn in_container(&self, isolation: Isolation, spec: ProcessSpec, port: u16, image: String, is_made: bool) -> ProcessSpec {
        let own_port = isolation.has_own_network().then(|| self.kind.port());
        // In the machine's network it must be heard by this machine alone, and on the port that is free.
        let (address, listens) = if own_port.is_some() { ("*", self.kind.port()) } else { ("127.0.0.1", port) };
        let password = self.password.expose().to_owned();
        let (command, env) = match self.kind {
            Kind::Postgres => (
                [
                    // The image takes a directory with a version in it for whole, and one that was stopped while it was made has that too.
                    if is_made { &[][..] } else { &["sh", "-c", ANEW, "sh"][..] },
                    &["postgres", "-c", &format!("listen_addresses={address}"), "-c", &format!("port={listens}")],
                ]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect(),
                vec![
                    ("POSTGRES_DB", APP.to_owned()),
                    ("POSTGRES_USER", APP.to_owned()),
                    ("POSTGRES_PASSWORD", password),
                    // The image trusts whoever comes from its own address, which in the machine's network is everybody on it.
                    ("POSTGRES_INITDB_ARGS", "--auth=scram-sha-256".to_owned()),
                    ("PGDATA", "/var/lib/postgresql/data/data".to_owned()),
                    ("PGPORT", listens.to_string()),
                ],
            ),
            // The password stands in no argument: those are everybody's to see.
            Kind::Redis => (
                // The address may be a star, which a shell would take for the names of files.
                vec!["sh".to_owned(), "-c".to_owned(), format!("{REDIS_IN_CONTAINER} '{address}' {listens}")],
                vec![("REDISCLI_AUTH", password)],
            ),
        };
        let limit = |option: &str| self.resource.options.get(option).and_then(|value| value.parse().ok());
        ProcessSpec {
            command,
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            dir: PathBuf::from("/"),
            own_port,
            // The originals count thousandths of a core, we count 1024ths.
            limits: Limits { cpu: limit("cpu").map(|cpu: u32| cpu.saturating_mul(128) / 125), memory: limit("mem"), ..Limits::default() },
            volumes: vec![self.kind.volume().to_owned()],
            image: Some(image),
            ..spec
        }
    }
}

/// Beside the data: there as long as the server of a new resource has not answered yet.
const MAKING: &str = "making";
/// Beside the data of a container: the version that made it, where only that version can read it.
const VERSION: &str = "version";

/// Starts PostgreSQL on data that is made anew: what is there was never served to anybody.
const ANEW: &str = r#"rm -rf "$PGDATA" && exec $(command -v docker-entrypoint.sh || true) "$@""#;

/// Starts Redis with its settings on standard input. The image's entry point gives up root's rights on the way, where there is one.
const REDIS_IN_CONTAINER: &str = "start() {
entry=$(command -v docker-entrypoint.sh || true)
exec $entry redis-server - <<END
bind $1
port $2
protected-mode no
requirepass $REDISCLI_AUTH
dir /data
appendonly yes
END
}
start";

/// What is done with a running resource from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// A person at its own command line.
    Console,
    /// All of its data, out.
    Export,
    /// Data, in.
    Import,
}

/// The command of a session, and its environment, which holds the password. `server` is given where it is the machine's.
pub(crate) fn session(
    kind: Kind,
    what: Session,
    server: Option<&Server>,
    access: &Access,
) -> Result<(String, BTreeMap<String, String>), String> {
    let program = match (kind, what) {
        (Kind::Postgres, Session::Console) => "psql",
        // What is imported takes the place of what is there: an app makes its tables when it starts, before its data can come.
        (Kind::Postgres, Session::Export) => "pg_dump --clean --if-exists --no-acl --no-owner",
        // All of it or nothing: what is fed in begins a transaction, and ends it only when the data came whole.
        (Kind::Postgres, Session::Import) => "psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --output=/dev/null --file=-",
        (Kind::Redis, Session::Console) => "redis-cli",
        (Kind::Redis, Session::Export) => return Err(format!("export not available for resources of type: {}", kind.name())),
        (Kind::Redis, Session::Import) => return Err(format!("import not available for resources of type: {}", kind.name())),
    };
    let (host, port, password) = (access.host.to_string(), access.port.to_string(), access.password.expose());
    let variables = match kind {
        Kind::Postgres => {
            vec![("PGHOST", host.as_str()), ("PGPORT", &port), ("PGUSER", APP), ("PGDATABASE", APP), ("PGPASSWORD", password)]
        }
        Kind::Redis => vec![("REDISCLI_AUTH", password)],
    };
    let program = match kind {
        Kind::Postgres => program.to_owned(),
        Kind::Redis => format!("{program} -h {host} -p {port}"),
    };
    let command = server.map_or(program.clone(), |server| server.client(&program));
    let command = if what == Session::Export { told(&command) } else { command };
    Ok((command, variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
}

/// What stands before the words of an export that failed, as a comment of its statements.
pub(crate) const FAILED: &str = "\n-- the export failed:\n";

/// A command whose complaints follow its output if it fails, and are dropped if it does not: notices have no place in an export.
fn told(command: &str) -> String {
    format!(
        "{{ said=$({{ {command}; }} 2>&1 >&3 3>&-); }} 3>&1 || {{ code=$?; printf '\\n-- the export failed:\\n'; \
         printf '%s\\n' \"$said\" | while IFS= read -r line; do printf -- '-- %s\\n' \"$line\"; done; exit $code; }}"
    )
}

/// What a failed export said, if that is at the end of `output`.
pub(crate) fn complaint(output: &str) -> Option<String> {
    let (_, words) = output.rsplit_once(FAILED)?;
    let words: Vec<&str> = words.lines().map(|line| line.trim_start_matches("-- ").trim()).filter(|line| !line.is_empty()).collect();
    Some(words.join("; ")).filter(|words| !words.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_that_fails_says_why_and_one_that_does_not_says_nothing_else() {
        let run = |command: &str| {
            let ran = std::process::Command::new("sh").args(["-c", &told(command)]).output().unwrap();
            assert!(ran.stderr.is_empty());
            (String::from_utf8(ran.stdout).unwrap(), ran.status.code())
        };
        assert_eq!(run("echo data; echo notice >&2"), ("data\n".to_owned(), Some(0)));
        let (output, code) = run("echo data; echo no table >&2; echo here >&2; exit 7");
        assert_eq!((output.starts_with("data\n"), code), (true, Some(7)));
        assert_eq!(complaint(&output).as_deref(), Some("no table; here"));
        assert_eq!(complaint(&run("exit 3").0), None);
    }

    #[test]
    fn the_version_of_an_image_is_the_number_of_its_tag() {
        let major = |image| Kind::Postgres.major(image);
        assert_eq!(
            [major("docker.io/library/postgres:17"), major("postgres:15.3-alpine"), major("host:5000/postgis:16-3.4@sha256:ab")],
            [Some("17"), Some("15"), Some("16")]
        );
        assert_eq!([major("postgres"), major("host:5000/postgres"), major("postgres:latest"), Kind::Redis.major("redis:7")], [None; 4]);
    }

    #[test]
    fn variables_are_those_of_the_originals() {
        let url = "postgres://app:s%2Bx@10.0.0.1:10001/app?sslmode=disable";
        let all = |pairs: Vec<(String, String)>| pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        let expected =
            ["MAIN_DB_URL", "MAIN_DB_USER=app", "MAIN_DB_PASS=s+x", "MAIN_DB_HOST=10.0.0.1", "MAIN_DB_PORT=10001", "MAIN_DB_NAME=app"];
        let found = all(variables("main-db", url));
        assert_eq!(found[1..], expected[1..]);
        assert_eq!(found[0], format!("MAIN_DB_URL={url}"));
        assert_eq!(all(variables("main-db:DATABASE_URL", url)), [format!("DATABASE_URL={url}")]);
        assert_eq!(all(variables("main-db: SQL_HOST", url)), ["SQL_HOST=10.0.0.1"]);
    }

    #[test]
    fn a_url_in_the_environment_takes_the_place_of_a_server() {
        let manifest = Manifest::parse("resources:\n  db: {type: postgres}\n  other: {type: sqs}\n  cache: {type: redis}\n").unwrap();
        let env = BTreeMap::from([("CACHE_URL".to_owned(), "redis://elsewhere:6379".to_owned()), ("DB_URL".to_owned(), " ".to_owned())]);
        let names: Vec<&str> = provided(&manifest, &env).map(|(resource, _)| resource.name.as_str()).collect();
        assert_eq!(names, ["db"]);
    }
}
