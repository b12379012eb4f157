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
    let config = ServerConfig::builder_with_provider(convox_tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .unwrap();
    serve_with(Arc::new(config))
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
        }
        received
    });
    (port, server)
}

/// Says `secret` to the server, if the handshake lets it.
fn say(config: Arc<ClientConfig>, name: &'static str, port: u16) -> Result<(), TlsFault> {
    let connection = ClientConnection::new(config, name.try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", port)).unwrap());
    let said = stream.write_all(b"secret").and_then(|()| stream.flush());
    said.map_err(|error| classify(&error).unwrap_or_else(|| TlsFault::Protocol(error.to_string())))
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
fn a_copied_certificate_without_its_key_is_refused() {
    let (real, thief) = (identity(&["rack"], |_| {}), identity(&["rack"], |_| {}));
    // rustls itself refuses to serve a certificate with a foreign key, so the thief's resolver hides the mismatch.
    let signer = convox_tls::provider().key_provider.load_private_key(thief.key.clone_key()).unwrap();
    let stolen = rustls::sign::CertifiedKey::new(vec![real.certificate.clone()], signer);
    let config = ServerConfig::builder_with_provider(convox_tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(stolen)));
    let (port, received) = serve_with(Arc::new(config));
    let fault = say(client_config(&Trust::Pinned(Fingerprint::of(&real.certificate))).unwrap(), "rack", port).unwrap_err();
    assert!(matches!(fault, TlsFault::Protocol(_)), "{fault}");
    assert!(received.join().unwrap().is_empty());
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
