//! A small server with Vault's transit interface: it keeps a key that never leaves it, and encrypts and decrypts with it for whoever has
//! the token. The cipher is a real one; what another instance encrypted does not open here.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convox_seal::{Binding, DataKeys, Keyring, RootKey, Sealed, Secret};
use convox_tls::Fingerprint;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

pub(crate) struct Transit {
    host: String,
    pub(crate) fingerprint: Fingerprint,
    asked: Arc<AtomicUsize>,
}

impl Transit {
    pub(crate) fn start(token: &'static str) -> Self {
        let (cert, key) = convox_proxy::tls_server::generate(&["127.0.0.1"]).unwrap();
        let certificate = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
        let fingerprint = Fingerprint::of(&certificate);
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(convox_tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let keyring = Keyring::new(RootKey::parse(RootKey::generate().expose()).unwrap());
        let keys = Arc::new(keyring.unwrap_data_keys([&keyring.new_data_key("transit")], "transit").unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                let (config, keys, count) = (Arc::clone(&config), Arc::clone(&keys), Arc::clone(&count));
                std::thread::spawn(move || {
                    let _ = tcp.set_read_timeout(Some(Duration::from_secs(30)));
                    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
                    while let Some((head, body)) = request(&mut stream) {
                        count.fetch_add(1, Ordering::Relaxed);
                        let (status, answer) = answer(&keys, &head, &body, token);
                        let text = answer.to_string();
                        let reply = format!(
                            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
                            text.len()
                        );
                        if stream.write_all(reply.as_bytes()).and_then(|()| stream.flush()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { host, fingerprint, asked }
    }

    pub(crate) fn url(&self, key: &str) -> String {
        format!("https://{}/transit/{key}", self.host)
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn answer(keys: &DataKeys, head: &str, body: &Value, token: &str) -> (u16, Value) {
    let lower = head.to_ascii_lowercase();
    if !lower.contains(&format!("x-vault-token: {token}\r\n")) || lower.contains("\r\nauthorization:") {
        return (403, json!({ "errors": ["permission denied"] }));
    }
    let place = Binding { org: "transit", rack: "convox", field: "transit" };
    match head.lines().next().unwrap_or_default() {
        "POST /v1/transit/encrypt/convox HTTP/1.1" => {
            let plain = body["plaintext"].as_str().unwrap_or_default();
            let sealed = keys.seal(&place, &Secret::new(plain.to_owned()));
            (200, json!({ "data": { "ciphertext": format!("vault:v1:{}", STANDARD.encode(sealed.as_bytes())) } }))
        }
        "POST /v1/transit/decrypt/convox HTTP/1.1" => {
            let bytes =
                body["ciphertext"].as_str().and_then(|text| text.strip_prefix("vault:v1:")).and_then(|text| STANDARD.decode(text).ok());
            match bytes.and_then(|bytes| keys.open(&place, &Sealed::from_bytes(bytes)).ok()) {
                Some(plain) => (200, json!({ "data": { "plaintext": plain.expose() } })),
                None => (400, json!({ "errors": ["cipher: message authentication failed"] })),
            }
        }
        _ => (404, json!({ "errors": [] })),
    }
}

fn request(stream: &mut StreamOwned<ServerConnection, std::net::TcpStream>) -> Option<(String, Value)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let length =
        head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned))?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).ok()?))
}
