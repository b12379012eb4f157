//! Starts what is measured, each as a process of its own on a core of its own, and ends it again.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// What callers present, and to which Rack.
pub(crate) const SECRET: &str = "cxubenchbenchbenchbenchbenchbenchbenchbenchbench";
pub(crate) const RACK: &str = "bench/rack";

/// A running server, ended when dropped.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// Scheme, host and port.
    pub(crate) base: String,
    /// What callers present.
    pub(crate) secret: String,
    child: Child,
}

impl Contender {
    pub(crate) fn new(name: &'static str, base: String, child: Child) -> Self {
        Self { name, base, secret: SECRET.to_owned(), child }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Certificates and files of one run.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) directory: PathBuf,
    pub(crate) fingerprint: String,
    pub(crate) core: usize,
    pub(crate) other_core: usize,
}

impl Ground {
    pub(crate) fn new(directory: &Path, core: usize, other_core: usize) -> anyhow::Result<Self> {
        let (cert, key) = convox_proxy::tls_server::generate(&["localhost", "127.0.0.1"])?;
        std::fs::write(directory.join("cert.pem"), cert)?;
        std::fs::write(directory.join("key.pem"), key)?;
        Self::found(directory, core, other_core)
    }

    /// With the certificate that is there.
    pub(crate) fn found(directory: &Path, core: usize, other_core: usize) -> anyhow::Result<Self> {
        let (cert, key) = (std::fs::read(directory.join("cert.pem"))?, std::fs::read(directory.join("key.pem"))?);
        let fingerprint = convox_proxy::TlsServer::from_pem(&cert, &key)?.fingerprint().to_string();
        Ok(Self { directory: directory.to_owned(), fingerprint, core, other_core })
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// The Rack: nginx that answers everything alike, on the core of the load.
    pub(crate) fn upstream(&self, tls: bool) -> anyhow::Result<(Contender, u16)> {
        let port = free_port()?;
        let body = r#"{"count":3,"domain":"bench.example.org","name":"rack","outputs":{},"parameters":{},"provider":"local","region":"","status":"running","type":"","version":"20260101000000","note":"padding to a quarter of a kilobyte, as a short list of apps would have..."}"#;
        let server = format!("location / {{ default_type application/json; return 200 '{body}\\n'; }}");
        let contender = self.nginx("upstream", self.other_core, port, tls, &server, "")?;
        Ok((contender, port))
    }

    /// The yardstick: nginx that knows one key from its configuration.
    pub(crate) fn nginx_proxy(&self, upstream: u16, tls: bool) -> anyhow::Result<Contender> {
        let scheme = if tls { "https" } else { "http" };
        let basic = basic(SECRET);
        let http = format!(
            "map $http_upgrade $upgraded {{ default ''; websocket upgrade; }}\n\
             map $http_authorization $allowed {{ default 0; '{basic}' 1; }}\n\
             map $http_rack $known {{ default 0; '{RACK}' 1; }}\n\
             upstream rack {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}\n"
        );
        // A pinned certificate is a check of every handshake; beside kept connections it costs nothing on either side.
        let verify = if tls {
            format!("proxy_ssl_verify on; proxy_ssl_trusted_certificate {}; proxy_ssl_name localhost;", self.path("cert.pem"))
        } else {
            String::new()
        };
        let server = format!(
            "location / {{\n\
             if ($allowed = 0) {{ return 401; }}\n\
             if ($known = 0) {{ return 404; }}\n\
             proxy_pass {scheme}://rack; proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off; client_max_body_size 0; {verify}\n\
             proxy_set_header Host 127.0.0.1:{upstream}; proxy_set_header Connection $upgraded; proxy_set_header Upgrade $http_upgrade; proxy_read_timeout 1h; proxy_send_timeout 1h;\n\
             proxy_set_header Authorization 'Basic Y29udm94OnVwc3RyZWFt'; proxy_set_header Convox-Actor bench@example.org;\n\
             proxy_set_header Rack ''; proxy_set_header Session ''; proxy_set_header Cookie '';\n\
             }}"
        );
        self.nginx("nginx", self.core, free_port()?, tls, &server, &http)
    }

    pub(crate) fn nginx(
        &self,
        name: &'static str,
        core: usize,
        port: u16,
        tls: bool,
        server: &str,
        http: &str,
    ) -> anyhow::Result<Contender> {
        let prefix = self.directory.join(format!("{name}-{port}"));
        std::fs::create_dir_all(&prefix)?;
        let (listen, certificate) = if tls {
            (
                " ssl",
                format!(
                    "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3;",
                    self.path("cert.pem"),
                    self.path("key.pem")
                ),
            )
        } else {
            ("", String::new())
        };
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {kind};")).join(" ");
        let configuration = format!(
            "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr error;\n\
             events {{ worker_connections 20000; }}\n\
             http {{ access_log off; tcp_nodelay on; map_hash_bucket_size 256; keepalive_requests 1000000000; keepalive_timeout 300s; {temporary}\n\
             {http}\
             server {{ listen 127.0.0.1:{port}{listen}; {certificate}\n{server}\n}} }}\n"
        );
        let file = prefix.join("nginx.conf");
        std::fs::write(&file, configuration)?;
        let child = pinned(core, "nginx")
            .arg("-p")
            .arg(&prefix)
            .arg("-c")
            .arg(&file)
            .spawn()
            .context("cannot start nginx: apt-get install nginx")?;
        let scheme = if tls { "https" } else { "http" };
        let contender = Contender::new(name, format!("{scheme}://127.0.0.1:{port}"), child);
        answers(port)?;
        Ok(contender)
    }

    /// The data path alone.
    pub(crate) fn gate(&self, upstream: u16, tls: bool) -> anyhow::Result<Contender> {
        let mut command = pinned(self.core, &std::env::current_exe()?.display().to_string());
        command.args(["gate", "--upstream", &upstream.to_string(), "--secret", SECRET, "--rack", RACK]);
        if tls {
            command.args(["--cert", &self.path("cert.pem"), "--key", &self.path("key.pem"), "--pin", &self.fingerprint]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let said = said(&mut child)?;
        let mut contender = Contender { name: "convox-proxy", base: String::new(), secret: SECRET.to_owned(), child };
        let address = expect(&said, "listening on ")?;
        contender.base = format!("{}://{address}", if tls { "https" } else { "http" });
        Ok(contender)
    }

    /// The real thing, set up through its own command line as an administrator would.
    pub(crate) fn console(&self, program: &Path, upstream: u16) -> anyhow::Result<Contender> {
        let data = self.path("console");
        std::fs::create_dir_all(&data)?;
        let data = data.as_str();
        let call = |arguments: &[&str]| -> anyhow::Result<serde_json::Value> {
            let output =
                Command::new(program).args(arguments).args(["--data", data, "--json"]).output().context("cannot run convox-console")?;
            if !output.status.success() {
                bail!("convox-console {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
            }
            let text = String::from_utf8_lossy(&output.stdout);
            serde_json::from_str(text.trim()).with_context(|| format!("convox-console {} printed {text}", arguments.join(" ")))
        };
        let root_key = self.path("console/root.key");
        let made = Command::new(program).args(["root-key", "--out", &root_key]).status().context("cannot run convox-console")?;
        if !made.success() {
            bail!("convox-console root-key failed");
        }
        let (mut contender, code) = self.serve(program, data)?;
        let code = code.recv_timeout(START).context("convox-console printed no setup code")?;
        let setup = call(&["setup", "--code", &code, "--org", "bench", "--email", "bench@example.org"])?;
        contender.secret = find(&setup, "api_key").or_else(|| find(&setup, "key")).context("no key in the answer to setup")?;
        let password = self.path("rack-password");
        std::fs::write(&password, "upstream\n")?;
        let host = format!("127.0.0.1:{upstream}");
        call(&["rack", "add", "rack", "--org", "bench", "--host", &host, "--password-file", &password, "--pin", &self.fingerprint])?;
        Ok(contender)
    }

    /// `convox-console` on the data directory `data`, which has a root key; and the setup code, if it prints one. Ready when it listens.
    pub(crate) fn serve(&self, program: &Path, data: &str) -> anyhow::Result<(Contender, mpsc::Receiver<String>)> {
        let mut command = pinned(self.core, &program.display().to_string());
        command.args(["serve", "--listen", "127.0.0.1:0", "--shards", "1", "--data", data, "--root-key-file", &format!("{data}/root.key")]);
        command.args(["--tls-cert", &self.path("cert.pem"), "--tls-key", &self.path("key.pem")]);
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start convox-console")?;
        let said = said(&mut child)?;
        let mut contender = Contender::new("convox-console", String::new(), child);
        // The two lines come in either order, and the second one only where nobody has used it.
        let (send, code) = mpsc::channel();
        while contender.base.is_empty() {
            let line = said.recv_timeout(START).context("convox-console did not say that it listens")?;
            if let Some(rest) = line.strip_prefix("listening on https://") {
                contender.base = format!("https://{}", rest.split(' ').next().unwrap_or_default());
            }
            if let Some(rest) = line.strip_prefix("setup code: ") {
                let _ = send.send(rest.trim().to_owned());
            }
        }
        std::thread::spawn(move || {
            for line in said {
                if let Some(rest) = line.strip_prefix("setup code: ") {
                    let _ = send.send(rest.trim().to_owned());
                }
            }
        });
        Ok((contender, code))
    }
}

pub(crate) const START: Duration = Duration::from_mins(2);

pub(crate) fn pinned(core: usize, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]).stdin(Stdio::null());
    command
}

/// The lines that a child prints, as they come.
pub(crate) fn said(child: &mut Child) -> anyhow::Result<mpsc::Receiver<String>> {
    let stdout = child.stdout.take().context("no output to read")?;
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Read on even if nobody listens, so that the child never blocks.
            let _ = send.send(line);
        }
    });
    Ok(receive)
}

fn expect(said: &mpsc::Receiver<String>, prefix: &str) -> anyhow::Result<String> {
    loop {
        let line = said.recv_timeout(START).with_context(|| format!("no line that begins with `{prefix}`"))?;
        if let Some(rest) = line.strip_prefix(prefix) {
            return Ok(rest.trim().to_owned());
        }
    }
}

/// The first text under this name, at any depth.
fn find(value: &serde_json::Value, name: &str) -> Option<String> {
    match value {
        serde_json::Value::Object(map) => {
            map.get(name).and_then(|value| value.as_str()).map(str::to_owned).or_else(|| map.values().find_map(|value| find(value, name)))
        }
        serde_json::Value::Array(list) => list.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}

pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

pub(crate) fn answers(port: u16) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline {
            bail!("nothing listens on port {port}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// `Basic` with the user name that the command lines send.
pub(crate) fn basic(secret: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("convox:{secret}")))
}
