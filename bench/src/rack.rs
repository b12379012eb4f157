//! A real Rack with an app on it, driven by the real command line, for what is measured at its router.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};

use crate::contender::{START, free_port, said};

const PASSWORD: &str = "benchRackPasswordOfThirtyCharacters";
/// The app's name at the router.
pub(crate) const HOST: &str = "web.shop.bench.example.org";
/// The app: nginx that answers everything alike.
const MANIFEST: &str = "environment: [COLOUR=blue]\nservices:\n  web:\n    command: exec sh start.sh\n    port: 3000\n    health: {path: /health, interval: 1, timeout: 2, grace: 1}\n    drain: 10\n    tls: {redirect: false}\n    termination: {grace: 5}\n";
const BODY: &str = r#"{"count":3,"domain":"bench.example.org","name":"rack","outputs":{},"parameters":{},"provider":"local","region":"","status":"running","type":"","version":"20260101000000","note":"padding to a quarter of a kilobyte, as a short list of apps would have..."}"#;

/// A running Rack. Its apps and its router end with it when it is dropped.
pub(crate) struct Rack {
    program: PathBuf,
    convox: PathBuf,
    dir: PathBuf,
    host: String,
    child: Option<Child>,
    /// The cores that it and its router may use, as taskset takes them.
    cores: String,
    /// The same for apps.
    app_cores: String,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
}

impl Rack {
    /// Starts one in `dir`, logs in, and deploys the app in so many processes.
    pub(crate) fn start(program: &Path, convox: &Path, dir: &Path, cores: &str, app_cores: &str, processes: u32) -> anyhow::Result<Self> {
        std::fs::write(dir.join("password"), PASSWORD)?;
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut rack = Self {
            program: program.canonicalize()?,
            convox: convox.canonicalize()?,
            dir: dir.to_owned(),
            host: address(free_port()?).to_string(),
            child: None,
            cores: cores.to_owned(),
            app_cores: app_cores.to_owned(),
            http: address(free_port()?),
            https: address(free_port()?),
        };
        let fingerprint = rack.launch()?;
        rack.log_in(&fingerprint)?;
        rack.deploy(processes)?;
        Ok(rack)
    }

    /// Starts the Rack, again if it was killed; ready when it says so.
    pub(crate) fn launch(&mut self) -> anyhow::Result<String> {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("rack.log"))?;
        let mut child = Command::new("taskset")
            .args(["-c", &self.cores])
            .arg(&self.program)
            .args(["serve", "--name", "bench", "--runtime", "process", "--domain", "bench.example.org"])
            .args(["--listen", &self.host, "--router-listen", &self.http.to_string(), "--router-tls-listen", &self.https.to_string()])
            .arg("--data")
            .arg(self.dir.join("data"))
            .arg("--password-file")
            .arg(self.dir.join("password"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start convox-rack")?;
        let lines = said(&mut child)?;
        self.child = Some(child);
        loop {
            let line =
                lines.recv_timeout(START).with_context(|| format!("the Rack is not ready; see {}", self.dir.join("rack.log").display()))?;
            if let Some((_, fingerprint)) = line.split_once(" fingerprint ") {
                return Ok(fingerprint.trim().to_owned());
            }
        }
    }

    /// `kill -9`; gone when this returns.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn log_in(&self, fingerprint: &str) -> anyhow::Result<()> {
        let mut child =
            self.command(&["login", &self.host, "--fingerprint", fingerprint, "--password-stdin"]).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("no input to write to")?.write_all(PASSWORD.as_bytes())?;
        if !child.wait()?.success() {
            bail!("convox login failed");
        }
        Ok(())
    }

    fn deploy(&self, processes: u32) -> anyhow::Result<()> {
        let source = self.dir.join("app");
        std::fs::create_dir_all(&source)?;
        std::fs::write(source.join("convox.yml"), format!("{MANIFEST}    scale: {processes}\n"))?;
        let configuration = format!(
            "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr error;\nevents {{ worker_connections 4096; }}\n\
             http {{ access_log off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 300s; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
             server {{ listen 127.0.0.1:@PORT@ backlog=4096; location / {{ default_type application/json; return 200 '{BODY}\\n'; }} }} }}\n"
        );
        std::fs::write(source.join("nginx.conf"), configuration)?;
        // The source is read-only, and each process has a port of its own.
        let script = format!(
            "set -e\ndir=$(mktemp -d)\nsed \"s/@PORT@/$PORT/\" nginx.conf > \"$dir/nginx.conf\"\nexec taskset -c {} nginx -p \"$dir\" -c \"$dir/nginx.conf\"\n",
            self.app_cores
        );
        std::fs::write(source.join("start.sh"), script)?;
        self.convox(&["apps", "create", "shop"])?;
        let mut command = self.command(&["deploy", "-a", "shop", "--wait"]);
        finish(command.current_dir(&source))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.convox);
        command
            .args(arguments)
            .env("CONVOX_CONFIG", self.dir.join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// `convox ARGS`, to its end.
    pub(crate) fn convox(&self, arguments: &[&str]) -> anyhow::Result<()> {
        finish(&mut self.command(arguments)).with_context(|| format!("convox {}", arguments.join(" ")))
    }

    /// `convox ARGS`, not waited for.
    pub(crate) fn convox_beside(&self, arguments: &[&str]) -> anyhow::Result<Child> {
        Ok(self.command(arguments).spawn()?)
    }

    /// Ids and ports of the app's running processes.
    pub(crate) fn processes(&self) -> anyhow::Result<Vec<(String, u16)>> {
        self.processes_that(|status| status == "running")
    }

    /// The same of those with such a status.
    pub(crate) fn processes_that(&self, is_wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<(String, u16)>> {
        let output = self.command(&["ps", "-a", "shop", "--json"]).stdout(Stdio::piped()).output()?;
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).context("convox ps printed no JSON")?;
        let one = |process: &serde_json::Value| {
            let port = process["ports"][0].as_str()?.split(':').next()?.parse().ok()?;
            is_wanted(process["status"].as_str()?).then_some((process["id"].as_str()?.to_owned(), port))
        };
        Ok(list.as_array().into_iter().flatten().filter_map(one).collect())
    }

    /// The router's process, found by its command line.
    pub(crate) fn router_pid(&self) -> anyhow::Result<u32> {
        let wanted = self.dir.join("data").canonicalize()?.display().to_string();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).into_owned();
            if words.contains("\0router\0") && words.contains(&wanted) {
                return Ok(pid);
            }
        }
        bail!("the router is not to be found")
    }
}

fn finish(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
    if !output.status.success() {
        bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

impl Drop for Rack {
    fn drop(&mut self) {
        let _ = self.kill();
        let _ = Command::new(&self.program).args(["stop-apps", "--data"]).arg(self.dir.join("data")).stdout(Stdio::null()).status();
    }
}
