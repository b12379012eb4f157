//! Certificates of the router: made by the Rack, brought along, and got from an authority (Pebble, a real ACME server made for tests); the right
//! one for the name that a caller asks for.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use convox_testkit::{Cli, Stack, eventually};
use convox_tls::Certificate;
use rustls::{ClientConnection, StreamOwned};

use crate::{by_name, example, free};

const LONG: Duration = Duration::from_mins(1);

/// The certificate that the router shows to who asks for `name`, and what it answers there.
fn asked(router: SocketAddr, name: &str) -> (Certificate, String) {
    let (config, seen) = convox_tls::inspect_config().unwrap();
    let connection = ClientConnection::new(config, name.to_owned().try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(router).unwrap());
    let mut reply = String::new();
    // Whoever only inspects goes no further than the handshake.
    let sent = write!(stream, "GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    let _ = sent.and_then(|()| stream.read_to_string(&mut reply).map(drop));
    (seen.certificate().expect("a certificate is shown"), reply)
}

fn deploy(stack: &Stack, cli: &Cli, domain: &str) {
    let source = example(stack, "hello-web");
    let manifest = std::fs::read_to_string(source.join("convox.yml")).unwrap();
    std::fs::write(source.join("convox.yml"), manifest.replace("    port: 3000\n", &format!("    port: 3000\n    domain: {domain}\n")))
        .unwrap();
    cli.run(&["apps", "create", "shop"]).ok();
    cli.at(&source).run(&["deploy", "-a", "shop", "--wait"]).ok();
}

#[test]
fn a_caller_sees_the_certificate_of_the_name_that_it_asks_for() {
    let https = free();
    let options = ["--runtime", "process", "--domain", "apps.example.org", "--router-tls-listen", &https.to_string()];
    let mut stack = Stack::start_rack_with(&options).unwrap();
    let cli = stack.cli();
    deploy(&stack, &cli, "shop.example.com");

    // Made here.
    let made = cli.run(&["certs", "generate", "shop.example.com", "www.example.com", "--id"]).ok();
    let made = made.trim();
    let shown =
        eventually(LONG, || Some(asked(https, "shop.example.com").0).filter(|shown| shown.names.contains(&"www.example.com".to_owned())));
    let shown = shown.expect("the new certificate is served");
    assert_eq!(asked(https, "www.example.com").0.fingerprint, shown.fingerprint);
    assert_ne!(asked(https, "web.shop.apps.example.org").0.fingerprint, shown.fingerprint, "another name has another certificate");
    let listing = cli.run(&["certs"]).ok();
    assert!(listing.contains(made) && listing.contains("shop.example.com") && listing.contains("from now"), "{listing}");

    // Brought along: the Rack's own pair will do. A key that is not its key is refused, and what was there stays.
    let own = stack.rack_data().join("tls");
    let (public, key) = (own.join("cert.pem"), own.join("key.pem"));
    let imported = cli.run(&["certs", "import", public.to_str().unwrap(), key.to_str().unwrap(), "--id"]).ok();
    assert!(eventually(LONG, || (asked(https, "localhost").0.fingerprint == stack.rack.fingerprint).then_some(())).is_some());
    std::fs::write(stack.dir().join("other.pem"), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    let other = stack.dir().join("other.pem");
    let refused = cli.run(&["certs", "import", public.to_str().unwrap(), other.to_str().unwrap()]).err();
    assert!(refused.contains("certificate and key cannot be used"), "{refused}");
    let refused = cli.run(&["certs", "generate", "not a name"]).err();
    assert!(refused.contains("must specify a domain"), "{refused}");
    let refused = cli.run(&["certs", "generate", "shop.example.com", "--issuer", "letsencrypt"]).err();
    assert!(refused.contains("--acme-directory"), "{refused}");

    // Keys are sealed, and everything is there again after a crash.
    let database = std::fs::read(stack.rack_data().join("rack.db")).unwrap();
    assert!(!String::from_utf8_lossy(&database).contains("PRIVATE KEY"));
    stack.rack.restart().unwrap();
    assert_eq!(asked(https, "shop.example.com").0.fingerprint, shown.fingerprint);

    // Many at the same moment: each of them is served.
    let names: Vec<String> = (0..8).map(|number| format!("n{number}.example.com")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            let cli = &cli;
            scope.spawn(move || cli.run(&["certs", "generate", name]).ok());
        }
    });
    for name in &names {
        let shown = eventually(Duration::from_secs(10), || asked(https, name).0.names.contains(name).then_some(()));
        assert!(shown.is_some(), "the certificate of {name} is kept and not served");
    }

    // Made anew under the same id; and gone.
    cli.run(&["certs", "renew", "-a", "shop"]).ok();
    assert!(eventually(LONG, || (asked(https, "shop.example.com").0.fingerprint != shown.fingerprint).then_some(())).is_some());
    assert!(cli.run(&["certs"]).ok().contains(made));
    for id in [made, imported.trim()] {
        cli.run(&["certs", "delete", id]).ok();
    }
    let missing = cli.run(&["certs", "delete", made]).err();
    assert!(missing.contains(&format!("certificate not found: {made}")), "{missing}");
    assert!(
        eventually(LONG, || (!asked(https, "shop.example.com").0.names.contains(&"shop.example.com".to_owned())).then_some(())).is_some()
    );
}

#[test]
fn a_service_is_served_with_the_certificate_that_was_chosen_for_it() {
    let https = free();
    let options = ["--runtime", "process", "--domain", "apps.example.org", "--router-tls-listen", &https.to_string()];
    let stack = Stack::start_rack_with(&options).unwrap();
    let cli = stack.cli();
    let made = |name: &str| cli.run(&["certs", "generate", name, "--id"]).ok().trim().to_owned();
    let (one, other, wrong) = (made("shop.example.com"), made("*.example.com"), made("elsewhere.example.org"));
    let newest = made("shop.example.com");
    let source = example(&stack, "hello-web");
    let plain = std::fs::read_to_string(source.join("convox.yml")).unwrap();
    cli.run(&["apps", "create", "shop"]).ok();
    let deploy = |certificate: &str| {
        let port = format!("    port: 3000\n    domain: shop.example.com\n{certificate}");
        std::fs::write(source.join("convox.yml"), plain.replace("    port: 3000\n", &port)).unwrap();
        cli.at(&source).run(&["deploy", "-a", "shop", "--wait"])
    };
    let fingerprint = || asked(https, "shop.example.com").0.fingerprint;
    assert_eq!(deploy("").code, 0);
    let by_name = fingerprint();

    // By convox.yml. One that is not there, or not for the service's name, is refused before anything is started.
    for (id, why) in
        [("cert-none", "certificate not found: cert-none"), (&*wrong, "is for elsewhere.example.org, and not for shop.example.com")]
    {
        let refused = deploy(&format!("    certificate: {id}\n"));
        assert!(
            refused.code != 0 && refused.stderr.contains("services.web.certificate: ") && refused.stderr.contains(why),
            "{}",
            refused.stderr
        );
    }
    let said = deploy(&format!("    certificate: {{id: {one}}}\n"));
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(eventually(LONG, || (fingerprint() != by_name).then_some(())).is_some(), "the older certificate was chosen");
    let listing = cli.run(&["ssl", "-a", "shop"]).ok();
    assert!(listing.contains(&one) && listing.contains("shop.example.com"), "{listing}");
    let refused = cli.run(&["certs", "delete", &one]).err();
    assert!(refused.contains("convox.yml of app shop names it for service web"), "{refused}");

    // By hand, which wins, until that certificate is deleted.
    let chosen = fingerprint();
    assert_eq!(cli.run(&["ssl", "update", "web:443", &other, "-a", "shop"]).ok(), "Updating certificate... OK\n");
    assert!(eventually(LONG, || asked(https, "shop.example.com").0.names.contains(&"*.example.com".to_owned()).then_some(())).is_some());
    assert!(cli.run(&["ssl", "-a", "shop"]).ok().contains(&other));
    for (endpoint, id, why) in [
        ("web:81", &*other, "service web has no port 81"),
        ("db:443", &*other, "service not found: db"),
        ("web:443", "cert-none", "certificate not found: cert-none"),
        ("web:443", &*wrong, "certificate"),
    ] {
        let refused = cli.run(&["ssl", "update", endpoint, id, "-a", "shop"]).err();
        assert!(refused.contains(why), "{refused}");
    }
    cli.run(&["certs", "delete", &other]).ok();
    assert!(eventually(LONG, || (fingerprint() == chosen).then_some(())).is_some());
    assert_eq!(deploy("").code, 0);
    assert!(eventually(LONG, || (fingerprint() == by_name).then_some(())).is_some(), "{newest} is the newest for the name again");
}

/// A program of the test's own, ended with it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_name_of_an_app_gets_a_certificate_of_an_authority_by_itself() {
    let (http, https, directory, management, dns, other) = (free(), free(), free(), free(), free(), free());
    // The authority's own certificate: the Rack's, which is there when the authority starts.
    let dir = tempfile::tempdir().unwrap();
    let trusted = dir.path().join("authority.pem");
    let url = format!("https://{directory}/dir");
    let (by_http, by_https) = (http.to_string(), https.to_string());
    let options = by_name(&by_http, &by_https);
    let acme = ["--acme-directory", &url, "--acme-ca", trusted.to_str().unwrap(), "--acme-email", "ops@example.org"];
    let stack = Stack::start_rack_with(&[&options[..], &acme[..]].concat()).unwrap();
    let own = stack.rack_data().join("tls");
    std::fs::copy(own.join("cert.pem"), &trusted).unwrap();
    let config = serde_json::json!({"pebble": {
        "listenAddress": directory.to_string(), "managementListenAddress": management.to_string(),
        "certificate": own.join("cert.pem"), "privateKey": own.join("key.pem"), "httpPort": http.port(), "tlsPort": https.port(),
        "ocspResponderURL": "", "externalAccountBindingRequired": false,
    }});
    std::fs::write(dir.path().join("pebble.json"), config.to_string()).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let log = std::fs::File::create(dir.path().join(format!("{program}.log"))).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        Ended(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("bin/test installs pebble"))
    };
    let names = ["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""];
    let _names = run("pebble-challtestsrv", &[&names[..], &["-dns01", &dns.to_string(), "-management", &other.to_string()]].concat());
    let config = dir.path().join("pebble.json");
    let authority = || run("pebble", &["-config", config.to_str().unwrap(), "-dnsserver", &dns.to_string()]);
    let first = authority();
    let told = || std::fs::read_to_string(dir.path().join("pebble.log")).unwrap_or_default();
    assert!(eventually(LONG, || TcpStream::connect(directory).ok()).is_some(), "{}", told());

    let cli = stack.cli();
    deploy(&stack, &cli, "shop.example.com");
    let log = || cli.run(&["logs", "-a", "shop", "--since", "20m", "--no-follow"]).stdout;
    for name in ["shop.example.com", "web.shop.apps.example.org"] {
        let shown = eventually(LONG, || Some(asked(https, name).0).filter(|shown| shown.names == [name]));
        assert!(shown.is_some(), "{}\n{}", log(), told());
    }
    assert!(log().contains("for shop.example.com is served"), "{}", log());
    let before = asked(https, "shop.example.com").0.fingerprint;
    cli.run(&["certs", "renew", "-a", "shop"]).ok();
    assert!(eventually(LONG, || (asked(https, "shop.example.com").0.fingerprint != before).then_some(())).is_some());
    assert_eq!(cli.run(&["certs", "--json"]).json().as_array().unwrap().len(), 2, "a renewed one takes the place of the old");

    // One that is asked for, and what the authority says against it.
    let got = cli.run(&["certs", "generate", "other.example.com", "--issuer", "letsencrypt", "--id"]).ok();
    assert!(got.starts_with("cert-"), "{got}");
    let refused = cli.run(&["certs", "generate", "*.example.com", "--issuer", "letsencrypt"]).err();
    assert!(refused.contains("who changes its DNS"), "{refused}");

    // An authority that has forgotten the Rack gets to know it again.
    drop(first);
    let _second = authority();
    assert!(eventually(LONG, || TcpStream::connect(directory).ok()).is_some(), "{}", told());
    let got = cli.run(&["certs", "generate", "again.example.com", "--issuer", "letsencrypt", "--id"]).ok();
    assert!(got.starts_with("cert-"), "{got}");
    let told = cli.run(&["rack", "logs", "--no-follow", "--since", "20m"]).ok();
    assert!(told.contains("does not know the account of this Rack any more: another one is made"), "{told}");
}
