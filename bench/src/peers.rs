//! HAProxy, set to do what the other contenders do: let one key in, put the Rack's credential in its place, forward.

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
}
