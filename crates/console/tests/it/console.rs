//! A real Console on a free port, its administration, and people with keys.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use convox_testkit::go::{Generation, GoClient, Reply, connect, read_reply};
use convox_testkit::{Server, binary, eventually};
use serde_json::Value;
use tempfile::TempDir;

use crate::Recorder;

/// A Console with organization `acme` and its administrator.
pub(crate) struct Door {
    pub console: Server,
    /// Of the administrator.
    pub key: String,
    pub dir: TempDir,
    /// Its PostgreSQL database, if it has one.
    database: Option<String>,
}

impl Door {
    pub(crate) fn open() -> Self {
        Self::open_prepared(&[], |_| {})
    }

    /// With further options of the server.
    pub(crate) fn open_with(options: &[&str]) -> Self {
        Self::open_prepared(options, |_| {})
    }

    /// With something done to the data directory before anything is in it.
    pub(crate) fn open_on(prepare: impl FnOnce(&std::path::Path)) -> Self {
        Self::open_prepared(&[], prepare)
    }

    /// Both.
    pub(crate) fn open_prepared(options: &[&str], prepare: impl FnOnce(&std::path::Path)) -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        prepare(&dir.path().join("data"));
        let root_key = dir.path().join("data/root.key");
        assert!(Command::new(binary("convox-console")).args(["root-key", "--out"]).arg(&root_key).status().unwrap().success());
        Self::open_in(dir, options)
    }

    /// Two servers on one PostgreSQL database of their own: the door, and another one. `None` where there is no PostgreSQL for tests.
    pub(crate) fn open_pair() -> Option<(Self, Server)> {
        Self::open_pair_by(|url| [url.clone(), url])
    }

    /// The same, each on its own way to the database: what `ways` makes of its URL.
    pub(crate) fn open_pair_by(ways: impl FnOnce(String) -> [String; 2]) -> Option<(Self, Server)> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let server = std::env::var("CONVOX_TEST_POSTGRES").ok()?;
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("pair_{}_{number}", std::process::id());
        let made = Command::new("psql").args([&server, "-qc", &format!("CREATE DATABASE {name}")]).status().unwrap();
        assert!(made.success());
        let [first, other] = ways(format!("{}/{name}", server.rsplit_once('/').unwrap().0));
        // Callers are told apart by what the proxy in front of both says.
        let of = |database| ["--database", database, "--trusted-proxy", "127.0.0.1"];
        let door = Self::open_with(&of(&first));
        let (data, root_key) = (door.dir.path().join("second"), door.data().join("root.key"));
        std::fs::create_dir(&data).unwrap();
        let own = ["serve", "--data", data.to_str().unwrap(), "--root-key-file", root_key.to_str().unwrap()];
        let args = [&own[..], &of(&other)].concat();
        let second = Server::start("convox-console", &args, &door.dir.path().join("log2")).unwrap();
        Some((door, second))
    }

    /// In a directory that has its root key already.
    pub(crate) fn open_in(dir: TempDir, options: &[&str]) -> Self {
        let data = dir.path().join("data");
        let args = [&["serve", "--data", data.to_str().unwrap()], options].concat();
        let console = Server::start("convox-console", &args, &dir.path().join("log")).unwrap();
        let database = options.windows(2).find_map(|pair| (pair[0] == "--database").then(|| pair[1].to_owned()));
        let mut door = Self { console, key: String::new(), dir, database };
        let code = door.console.setup_code.clone().expect("a new Console prints a setup code");
        // Those that say where the root key is.
        let kms = if options.iter().any(|option| option.contains("kms")) { options } else { &[] };
        let made = door.admin_with(&["setup", "--code", &code, "--org", "acme", "--email", "admin@example.com"], kms);
        made["api_key"].as_str().unwrap().clone_into(&mut door.key);
        door
    }

    /// With a Rack behind it, `acme/main`.
    pub(crate) fn with_rack(rack: &Recorder) -> Self {
        let door = Self::open();
        door.add_rack("acme", "main", rack);
        door
    }

    /// URL of its PostgreSQL database, if it has one.
    pub(crate) fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `convox-console ARGS --data .. --json`
    pub(crate) fn try_admin(&self, args: &[&str]) -> Result<Value, String> {
        let mut command = Command::new(binary("convox-console"));
        command.args(args).arg("--data").arg(self.data()).arg("--json");
        if let Some(database) = &self.database {
            command.args(["--database", database]);
        }
        let output = command.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_str(&stdout).map_err(|error| format!("{error}: {stdout}"))
    }

    #[track_caller]
    pub(crate) fn admin(&self, args: &[&str]) -> Value {
        match self.try_admin(args) {
            Ok(value) => value,
            Err(error) => panic!("convox-console {args:?}: {error}"),
        }
    }

    /// The same with further options.
    #[track_caller]
    pub(crate) fn admin_with(&self, args: &[&str], options: &[&str]) -> Value {
        self.admin(&[args, options].concat())
    }

    pub(crate) fn add_rack(&self, org: &str, name: &str, rack: &Recorder) {
        self.add_rack_with(org, name, rack, &[]);
    }

    /// The same with further options of the command.
    pub(crate) fn add_rack_with(&self, org: &str, name: &str, rack: &Recorder, options: &[&str]) {
        let file = self.dir.path().join(format!("{name}.password"));
        std::fs::write(&file, &rack.password).unwrap();
        let (file, pin) = (file.to_str().unwrap(), rack.fingerprint.to_string());
        self.admin_with(&["rack", "add", name, "--org", org, "--host", &rack.host, "--password-file", file, "--pin", &pin], options);
    }

    /// A further user, member of `org` if one is given: their API key.
    pub(crate) fn person(&self, email: &str, membership: Option<(&str, &str)>) -> String {
        self.admin(&["user", "add", email]);
        if let Some((org, role)) = membership {
            self.admin(&["member", "add", email, "--org", org, "--role", role]);
        }
        let made = self.admin(&["key", "create", "--email", email, "--name", "test"]);
        made["api_key"].as_str().unwrap().to_owned()
    }

    /// The Console's own API, as whoever has this key: status and answer.
    pub(crate) fn api(&self, key: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let reply = self.client(key, "acme/main").send(method, &format!("/api/v1{path}"), "", "application/json", &[], &body).unwrap();
        (reply.status, serde_json::from_slice(reply.text().as_bytes()).unwrap_or(Value::String(reply.text())))
    }

    /// The id of somebody's key.
    pub(crate) fn key_id(&self, email: &str) -> String {
        self.admin(&["key", "list", "--email", email])[0]["id"].as_str().unwrap().to_owned()
    }

    /// The id of the one of that name.
    pub(crate) fn key_id_of(&self, email: &str, name: &str) -> String {
        let all = self.admin(&["key", "list", "--email", email]);
        all.as_array().unwrap().iter().find(|key| key["name"] == name).unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// An original client with this key, switched to `rack`.
    pub(crate) fn client(&self, key: &str, rack: &str) -> GoClient {
        GoClient {
            generation: Generation::V3,
            host: self.console.host.clone(),
            fingerprint: self.console.fingerprint,
            user: "convox".to_owned(),
            password: key.to_owned(),
            rack: Some(rack.to_owned()),
        }
    }

    /// Sends exactly these bytes on a connection of their own, and reads one answer.
    pub(crate) fn raw(&self, bytes: impl AsRef<[u8]>) -> Reply {
        let mut stream = connect(&self.console.host, &self.console.fingerprint).unwrap();
        stream.write_all(bytes.as_ref()).unwrap();
        stream.flush().unwrap();
        read_reply(&mut stream, false).unwrap()
    }

    /// A head with this key and further header lines, ready for [`Door::raw`].
    pub(crate) fn head(&self, line: &str, key: &str, rack: &str, further: &str) -> String {
        format!("{line} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\nRack: {rack}\r\n{further}\r\n", self.console.host)
    }

    /// Audit events for which `wanted` holds, newest first; waits for the first, since refusals and outcomes are written soon after.
    #[track_caller]
    pub(crate) fn events(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        eventually(Duration::from_secs(5), || {
            let found = self.events_now(&wanted);
            (!found.is_empty()).then_some(found)
        })
        .unwrap_or_default()
    }

    pub(crate) fn events_now(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let all = self.admin(&["audit", "list", "--limit", "1000"]);
        all.as_array().unwrap().iter().filter(|event| wanted(event)).cloned().collect()
    }
}

/// The console's database, from outside: what somebody with access to the file can do, root key or not.
pub(crate) struct Database {
    runtime: tokio::runtime::Runtime,
    pool: sqlx::SqlitePool,
}

impl Database {
    pub(crate) fn open(door: &Door) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(door.data().join("console.db")).busy_timeout(Duration::from_secs(10));
        let pool = runtime.block_on(sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with(options)).unwrap();
        Self { runtime, pool }
    }

    pub(crate) fn run(&self, text: &'static str) {
        self.runtime.block_on(async { sqlx::raw_sql(text).execute(&self.pool).await }).unwrap();
    }
}
