//! Real handshakes over real sockets: who is believed, who is refused, and that a refused server learns nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use convox_tls::{Certificate, Fingerprint, TlsFault, Trust, classify, client_config, inspect_config};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

static SERIAL: AtomicU32 = AtomicU32::new(0);

struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn identity(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    // Each its own subject: an authority is known by name before its key is tried.
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("test {}", SERIAL.fetch_add(1, Ordering::Relaxed)));
    change(&mut params);
    let pair = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&pair).unwrap().der().clone();
    Identity { certificate, key: PrivateKeyDer::try_from(pair.serialize_der()).unwrap() }
}

/// Serves one connection; gives the application bytes that arrived.
fn serve(identity: &Identity) -> (u16, JoinHandle<Vec<u8>>) {
    let builder = ServerConfig::builder_with_provider(convox_tls::provider()).with_safe_default_protocol_versions().unwrap();
    serve_with(Arc::new(showing(builder.with_no_client_auth(), vec![identity.certificate.clone()], &identity.key)))
}

/// Shows this chain, signed for with this key. Not with rustls's own constructor, which refuses a key that does not fit its certificate:
/// a thief has no such scruples.
fn showing(
    builder: rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>,
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> ServerConfig {
    let signer = convox_tls::provider().key_provider.load_private_key(key.clone_key()).unwrap();
    builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, signer))))
}

fn serve_with(config: Arc<ServerConfig>) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
        let mut received = Vec::new();
        let mut chunk = [0; 1024];
        while let Ok(count) = stream.read(&mut chunk) {
            if count == 0 {
                break;
            }
            received.extend_from_slice(&chunk[..count]);
            // The echo tells the client that it was heard, and brings its tickets for the next connection.
            if stream.write_all(&chunk[..count]).is_err() {
                break;
            }
        }
        received
    });
    (port, server)
}

/// Says `secret` to the server and hears it back, if the handshake lets it.
fn say(config: Arc<ClientConfig>, name: &'static str, port: u16) -> Result<(), TlsFault> {
    let connection = ClientConnection::new(config, name.try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", port)).unwrap());
    let heard = stream.write_all(b"secret").and_then(|()| stream.flush()).and_then(|()| stream.read_exact(&mut [0; 6]));
    heard.map_err(|error| classify(&error).unwrap_or_else(|| TlsFault::Protocol(error.to_string())))
}

#[test]
fn the_pinned_certificate_is_believed_whatever_its_name_and_dates() {
    let server = identity(&["elsewhere.example.com"], |params| {
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    });
    let (port, received) = serve(&server);
    say(client_config(&Trust::Pinned(Fingerprint::of(&server.certificate))).unwrap(), "rack.example.com", port).unwrap();
    assert_eq!(received.join().unwrap(), b"secret");
}

#[test]
fn another_certificate_than_the_pinned_one_receives_nothing_and_both_are_named() {
    let (pinned, shown) = (identity(&["rack"], |_| {}), identity(&["rack"], |_| {}));
    let (port, received) = serve(&shown);
    let expected = Fingerprint::of(&pinned.certificate);
    let fault = say(client_config(&Trust::Pinned(expected)).unwrap(), "rack", port).unwrap_err();
    assert_eq!(fault, TlsFault::PinChanged { expected, found: Fingerprint::of(&shown.certificate) });
    assert!(received.join().unwrap().is_empty());
}

#[test]
fn a_copied_certificate_without_its_key_is_refused_in_both_versions_of_tls() {
    let (real, thief) = (identity(&["rack"], |_| {}), identity(&["rack"], |_| {}));
    for version in [&TLS12, &TLS13] {
        for trust in [Trust::Pinned(Fingerprint::of(&real.certificate)), Trust::Roots(vec![real.certificate.clone()])] {
            let speaking = || {
                let builder = ServerConfig::builder_with_provider(convox_tls::provider());
                builder.with_protocol_versions(&[version]).unwrap().with_no_client_auth()
            };
            let (port, received) = serve_with(Arc::new(showing(speaking(), vec![real.certificate.clone()], &thief.key)));
            let fault = say(client_config(&trust).unwrap(), "rack", port).unwrap_err();
            assert!(matches!(&fault, TlsFault::Protocol(text) if text.contains("BadSignature")), "{version:?} {trust:?}: {fault}");
            assert!(received.join().unwrap().is_empty());
            // The same server with the right key is believed: it was the key that made the difference.
            let (port, received) = serve_with(Arc::new(showing(speaking(), vec![real.certificate.clone()], &real.key)));
            say(client_config(&trust).unwrap(), "rack", port).unwrap();
            assert_eq!(received.join().unwrap(), b"secret");
        }
    }
}

#[test]
fn a_pinned_certificate_further_up_the_chain_does_not_count() {
    let (pinned, leaf) = (identity(&["rack"], |_| {}), identity(&["rack"], |_| {}));
    let builder = ServerConfig::builder_with_provider(convox_tls::provider()).with_safe_default_protocol_versions().unwrap();
    let chain = vec![leaf.certificate.clone(), pinned.certificate.clone()];
    let (port, received) = serve_with(Arc::new(showing(builder.with_no_client_auth(), chain, &leaf.key)));
    let expected = Fingerprint::of(&pinned.certificate);
    let fault = say(client_config(&Trust::Pinned(expected)).unwrap(), "rack", port).unwrap_err();
    assert_eq!(fault, TlsFault::PinChanged { expected, found: Fingerprint::of(&leaf.certificate) });
    assert!(received.join().unwrap().is_empty());
}

#[test]
fn a_swapped_certificate_is_noticed_by_a_client_that_was_there_before() {
    let (pinned, swapped) = (identity(&["rack"], |_| {}), identity(&["rack"], |_| {}));
    let expected = Fingerprint::of(&pinned.certificate);
    // One configuration for both: it holds the first server's tickets when it meets the second.
    let config = client_config(&Trust::Pinned(expected)).unwrap();
    let (port, received) = serve(&pinned);
    say(Arc::clone(&config), "rack", port).unwrap();
    assert_eq!(received.join().unwrap(), b"secret");
    let (port, received) = serve(&swapped);
    let fault = say(config, "rack", port).unwrap_err();
    assert_eq!(fault, TlsFault::PinChanged { expected, found: Fingerprint::of(&swapped.certificate) });
    assert!(received.join().unwrap().is_empty());
}

#[test]
fn a_self_signed_authority_that_nobody_knows_is_an_unknown_issuer() {
    let other = identity(&["other"], |_| {});
    let server = identity(&["rack"], |params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    let (port, received) = serve(&server);
    assert_eq!(say(client_config(&Trust::Roots(vec![other.certificate])).unwrap(), "rack", port).unwrap_err(), TlsFault::UnknownIssuer);
    assert!(received.join().unwrap().is_empty());
}

#[test]
fn a_plain_http_port_is_named_as_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut received = vec![0; 4096];
        let count = socket.read(&mut received).unwrap();
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        received.truncate(count);
        received
    });
    let trust = Trust::Pinned(Fingerprint::of(b"any"));
    let fault = say(client_config(&trust).unwrap(), "rack", port).unwrap_err();
    assert!(matches!(&fault, TlsFault::Protocol(text) if text.contains("plain HTTP")), "{fault}");
    assert!(!server.join().unwrap().windows(6).any(|window| window == b"secret"));
}

/// Runs this very test again in a process of its own: what a process believes is read from its environment.
const CHILD: &str = "CONVOX_TLS_TEST_PORT";

#[test]
fn the_authorities_of_ssl_cert_file_are_believed_and_no_others() {
    if let Ok(port) = std::env::var(CHILD) {
        let config = client_config(&Trust::SystemRoots);
        let verdict = config.map_err(|error| error.to_string());
        let verdict = verdict.and_then(|config| say(config, "rack", port.parse().unwrap()).map_err(|fault| fault.to_string()));
        println!("<{}>", verdict.err().unwrap_or_else(|| "believed".to_owned()));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (server, other) = (identity(&["rack"], |_| {}), identity(&["rack"], |_| {}));
    let (known, unknown) = (dir.path().join("known.pem"), dir.path().join("unknown.pem"));
    std::fs::write(&known, pem(&server.certificate)).unwrap();
    std::fs::write(&unknown, pem(&other.certificate)).unwrap();
    for (file, expected, sent) in [
        (known, "<believed>", &b"secret"[..]),
        (unknown, "<nobody that this machine trusts vouches", b""),
        (dir.path().join("missing.pem"), "<no certificate authorities found on this machine", b""),
    ] {
        let (port, received) = serve(&server);
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_authorities_of_ssl_cert_file_are_believed_and_no_others", "--nocapture"])
            .env("SSL_CERT_FILE", &file)
            .env_remove("SSL_CERT_DIR")
            .env(CHILD, port.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(said.contains(expected), "{}: {said}{}", file.display(), String::from_utf8_lossy(&child.stderr));
        // Without authorities nobody connected; the server is let go.
        drop(TcpStream::connect(("127.0.0.1", port)));
        assert_eq!(received.join().unwrap(), sent);
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let lines = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> = lines.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[test]
fn an_authority_of_the_same_name_that_did_not_sign_is_no_issuer() {
    let of_that_name = |params: &mut CertificateParams| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "localhost");
    };
    let (authority, server) = (identity(&["localhost"], of_that_name), identity(&["localhost"], of_that_name));
    let (port, received) = serve(&server);
    let fault = say(client_config(&Trust::Roots(vec![authority.certificate])).unwrap(), "localhost", port).unwrap_err();
    assert_eq!(fault, TlsFault::UnknownIssuer);
    assert!(received.join().unwrap().is_empty());
}

#[test]
fn each_fault_of_a_verified_certificate_has_its_own_name() {
    let good = identity(&["rack.example.com"], |_| {});
    let expired = identity(&["rack.example.com"], |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
    let early = identity(&["rack.example.com"], |params| params.not_before = rcgen::date_time_ymd(2999, 1, 1));
    let trusting = |identity: &Identity| client_config(&Trust::Roots(vec![identity.certificate.clone()])).unwrap();
    for (server, config, name, expected) in [
        (&good, trusting(&expired), "rack.example.com", TlsFault::UnknownIssuer),
        (&good, trusting(&good), "other.example.com", TlsFault::WrongName),
        (&expired, trusting(&expired), "rack.example.com", TlsFault::Expired),
        (&early, trusting(&early), "rack.example.com", TlsFault::NotYetValid),
    ] {
        let (port, received) = serve(server);
        assert_eq!(say(config, name, port).unwrap_err(), expected);
        assert!(received.join().unwrap().is_empty(), "{expected}: something was sent");
    }
    let (port, received) = serve(&good);
    say(trusting(&good), "rack.example.com", port).unwrap();
    assert_eq!(received.join().unwrap(), b"secret");
}

#[test]
fn a_certificate_is_inspected_without_telling_its_server_anything() {
    let server = identity(&["rack.example.com"], |_| {});
    let (port, received) = serve(&server);
    let (config, captured) = inspect_config().unwrap();
    say(config, "rack.example.com", port).unwrap_err();
    assert_eq!(captured.certificate(), Some(Certificate::read(&server.certificate)));
    assert!(received.join().unwrap().is_empty());
}

/// What `by` signs to hand over to `to`.
fn hand_over(by: &Identity, to: &Identity, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let pair = |identity: &Identity| KeyPair::try_from(&identity.key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(&by.certificate, pair(by)).unwrap();
    let mut params = CertificateParams::new(vec![convox_tls::hand_over::NAME.to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut params);
    params.signed_by(&pair(to), &issuer).unwrap().der().clone()
}

fn serve_chain(chain: Vec<CertificateDer<'static>>, identity: &Identity) -> (u16, JoinHandle<Vec<u8>>) {
    let builder = ServerConfig::builder_with_provider(convox_tls::provider()).with_safe_default_protocol_versions().unwrap();
    serve_with(Arc::new(showing(builder.with_no_client_auth(), chain, &identity.key)))
}

fn pinned(pin: Fingerprint, chain: Vec<CertificateDer<'static>>, shown: &Identity) -> (Result<(), TlsFault>, Vec<u8>) {
    let (port, server) = serve_chain(chain, shown);
    let said = say(client_config(&Trust::Pinned(pin)).unwrap(), "localhost", port);
    (said, server.join().unwrap())
}

#[test]
fn a_pin_follows_when_the_old_key_signed_the_new_certificate_and_only_then() {
    let [a, b, c, eve] = [(); 4].map(|()| identity(&["localhost"], |_| ()));
    let der = |identity: &Identity| identity.certificate.clone();
    let pin = Fingerprint::of(&a.certificate);
    let over = |by: &Identity, to: &Identity| hand_over(by, to, |_| ());
    let good = [
        ("itself", vec![der(&a)], &a),
        ("once", vec![der(&b), over(&a, &b), der(&a)], &b),
        ("twice, in any order", vec![der(&c), der(&a), over(&b, &c), over(&a, &b), der(&b)], &c),
    ];
    for (what, chain, shown) in good {
        assert!(pinned(pin, chain, shown).0.is_ok(), "{what}");
    }
    let long_ago = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    };
    let renamed =
        |params: &mut CertificateParams| params.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
    let mut bent = over(&a, &eve).to_vec();
    *bent.last_mut().unwrap() ^= 1;
    let bad = [
        ("another without a word", vec![der(&eve)], &eve),
        ("the old one beside it, but no hand-over", vec![der(&eve), der(&a)], &eve),
        ("a hand-over without the one that signed it", vec![der(&b), over(&a, &b)], &b),
        ("signed by a stranger", vec![der(&eve), over(&eve, &eve), der(&a)], &eve),
        ("signed by a stranger who calls itself the same", vec![der(&eve), over(&b, &eve), der(&a), der(&b)], &eve),
        ("made over to somebody else", vec![der(&eve), over(&a, &b), der(&a)], &eve),
        ("backwards", vec![der(&b), over(&b, &a), der(&a)], &b),
        ("a step is missing", vec![der(&c), over(&b, &c), der(&b), der(&a)], &c),
        ("over", vec![der(&b), hand_over(&a, &b, long_ago), der(&a)], &b),
        ("a certificate that the old key signed for something else", vec![der(&b), hand_over(&a, &b, renamed), der(&a)], &b),
        ("a bent signature", vec![der(&eve), CertificateDer::from(bent), der(&a)], &eve),
    ];
    for (what, chain, shown) in bad {
        let (said, arrived) = pinned(pin, chain, shown);
        assert!(matches!(said, Err(TlsFault::PinChanged { .. })), "{what}: {said:?}");
        assert!(arrived.is_empty(), "{what}: the refused server learnt something");
    }
}
