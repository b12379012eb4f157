//! Other proxies, set to do what the contenders do: let one key in, put the Rack's credential in its place, forward.

use anyhow::Context as _;

use crate::contender::{Contender, Ground, RACK, SECRET, answers, basic, free_port, pinned};

impl Ground {
    pub(crate) fn haproxy(&self, upstream: u16, tls: bool) -> anyhow::Result<Contender> {
        let port = free_port()?;
        let pem = self.path("haproxy.pem");
        let both = [std::fs::read_to_string(self.path("cert.pem"))?, std::fs::read_to_string(self.path("key.pem"))?].concat();
        std::fs::write(&pem, both)?;
        let (bind, verify) = if tls {
            (format!(" ssl crt {pem}"), format!(" ssl verify required ca-file {} sni str(localhost)", self.path("cert.pem")))
        } else {
            (String::new(), String::new())
        };
        let configuration = format!(
            "global\n  nbthread 1\n  maxconn 9900\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n  timeout tunnel 1h\n  http-reuse always\n\
             frontend callers\n  bind 127.0.0.1:{port}{bind}\n\
             \x20 http-request deny deny_status 401 unless {{ req.hdr(authorization) -m str \"{}\" }}\n\
             \x20 http-request deny deny_status 404 unless {{ req.hdr(rack) -m str {RACK} }}\n\
             \x20 http-request set-header Authorization \"Basic Y29udm94OnVwc3RyZWFt\"\n\
             \x20 http-request set-header Convox-Actor bench@example.org\n\
             \x20 http-request del-header Rack\n  http-request del-header Session\n  http-request del-header Cookie\n\
             \x20 default_backend rack\n\
             backend rack\n  server rack 127.0.0.1:{upstream}{verify}\n",
            basic(SECRET)
        );
        let file = self.path("haproxy.cfg");
        std::fs::write(&file, configuration)?;
        let child = pinned(self.core, "haproxy")
            .args(["-q", "-db", "-f", &file])
            .spawn()
            .context("cannot start haproxy: apt-get install haproxy")?;
        answers(port)?;
        Ok(Contender::new("haproxy", format!("{}://127.0.0.1:{port}", if tls { "https" } else { "http" }), child))
    }

    /// nginx that asks for each request whether it may pass. Whom it asks is a second server of the same process that knows one key: the
    /// least that such a question can cost.
    pub(crate) fn nginx_asking(&self, upstream: u16, tls: bool) -> anyhow::Result<Contender> {
        let scheme = if tls { "https" } else { "http" };
        let asked = free_port()?;
        let http = format!(
            "map $http_authorization $allowed {{ default 0; '{}' 1; }}\n\
             upstream rack {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}\n\
             upstream asked {{ server 127.0.0.1:{asked}; keepalive 256; keepalive_requests 1000000000; }}\n\
             server {{ listen 127.0.0.1:{asked}; location / {{ if ($allowed = 0) {{ return 401; }} return 204; }} }}\n",
            basic(SECRET)
        );
        let verify = if tls {
            format!("proxy_ssl_verify on; proxy_ssl_trusted_certificate {}; proxy_ssl_name localhost;", self.path("cert.pem"))
        } else {
            String::new()
        };
        let server = format!(
            "location / {{\n\
             auth_request /asked; proxy_pass {scheme}://rack; proxy_http_version 1.1; proxy_buffering off; {verify}\n\
             proxy_set_header Host 127.0.0.1:{upstream}; proxy_set_header Connection '';\n\
             proxy_set_header Authorization 'Basic Y29udm94OnVwc3RyZWFt'; proxy_set_header Convox-Actor bench@example.org;\n\
             proxy_set_header Rack ''; proxy_set_header Session ''; proxy_set_header Cookie '';\n\
             }}\n\
             location = /asked {{\n\
             internal; proxy_pass http://asked; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_pass_request_body off; proxy_set_header Content-Length '';\n\
             }}"
        );
        self.nginx("nginx auth_request", self.core, free_port()?, tls, &server, &http)
    }

    pub(crate) fn caddy(&self, upstream: u16) -> anyhow::Result<Contender> {
        let port = free_port()?;
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        let configuration = format!(
            "{{\n  admin off\n  auto_https off\n  log {{\n    level ERROR\n  }}\n}}\n\
             https://127.0.0.1:{port} {{\n  tls {cert} {key}\n  bind 127.0.0.1\n\
             \x20 @stranger not header Authorization \"{}\"\n  respond @stranger 401\n\
             \x20 @nowhere not header Rack {RACK}\n  respond @nowhere 404\n\
             \x20 reverse_proxy https://127.0.0.1:{upstream} {{\n\
             \x20   header_up Authorization \"Basic Y29udm94OnVwc3RyZWFt\"\n    header_up Convox-Actor bench@example.org\n    header_up -Rack\n    header_up -Session\n    header_up -Cookie\n\
             \x20   transport http {{\n      tls_trusted_ca_certs {cert}\n      tls_server_name localhost\n      keepalive_idle_conns_per_host 256\n    }}\n  }}\n}}\n",
            basic(SECRET)
        );
        let file = self.path("Caddyfile");
        std::fs::write(&file, configuration)?;
        let child = pinned(self.core, "caddy")
            .args(["run", "--adapter", "caddyfile", "--config", &file])
            .env("XDG_DATA_HOME", &self.directory)
            .env("XDG_CONFIG_HOME", &self.directory)
            .stderr(std::process::Stdio::null())
            .spawn()
            .context("cannot start caddy: apt-get install caddy")?;
        answers(port)?;
        Ok(Contender::new("caddy", format!("https://127.0.0.1:{port}"), child))
    }
}
