//! Guessing is held up, and nobody is kept out by it (T17, T18).

use std::io::Write as _;
use std::time::SystemTime;

use convox_seal::{Secret, TotpSecret};
use convox_testkit::Server;
use convox_testkit::go::{Reply, connect, read_reply};

use crate::{Door, Recorder};

pub(crate) const PASSWORD: &str = "tall-vexed-otter-19";

/// Sends forms on one connection, as a browser of this Console does.
pub(crate) struct Browser {
    host: String,
    stream: Box<dyn ReadWrite>,
    pub(crate) cookie: String,
    /// What a proxy that is trusted would say of the caller's address.
    pub(crate) forwarded: String,
}

pub(crate) trait ReadWrite: std::io::Read + std::io::Write + Send {}
impl<T: std::io::Read + std::io::Write + Send> ReadWrite for T {}

impl Browser {
    fn new(door: &Door) -> Self {
        Self::at(&door.console)
    }

    /// At one of several servers.
    pub(crate) fn at(server: &Server) -> Self {
        let stream = connect(&server.host, &server.fingerprint).unwrap();
        Self { host: server.host.clone(), stream: Box::new(stream), cookie: String::new(), forwarded: "127.0.0.1".to_owned() }
    }

    pub(crate) fn get(&mut self, path: &str) -> Reply {
        self.send("GET", path, "")
    }

    pub(crate) fn post(&mut self, path: &str, body: &str) -> Reply {
        self.send("POST", path, body)
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> Reply {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nX-Forwarded-For: {}\r\nSec-Fetch-Site: same-origin\r\nCookie: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            self.forwarded,
            self.cookie,
            body.len()
        );
        self.stream.write_all(head.as_bytes()).unwrap();
        self.stream.flush().unwrap();
        read_reply(&mut self.stream, false).unwrap()
    }

    pub(crate) fn sign_in(&mut self, email: &str, password: &str) -> Reply {
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
        self.post("/console/sign-in", &format!("email={}&password={}", encode(email), encode(password)))
    }
}

/// Value of a cookie that an answer sets.
pub(crate) fn cookie(reply: &Reply, name: &str) -> Option<String> {
    let set = reply.headers.iter().filter(|(key, _)| key == "set-cookie").map(|(_, value)| value);
    set.filter_map(|value| value.split(';').next()?.split_once('=')).find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
}

/// Gives somebody a password, by the link that the server's command line makes.
pub(crate) fn with_password(door: &Door, email: &str) {
    let made = door.admin(&["user", "reset-link", email, "--url", "https://console.example.com"]);
    let code = made["link"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let body = format!("code={code}&email={email}&password={PASSWORD}");
    assert_eq!(Browser::new(door).post("/console/reset/finish", &body).status, 303);
}

/// A browser that gave the password at this server, and still owes the second factor.
pub(crate) fn half_way(server: &Server) -> Browser {
    let mut browser = Browser::at(server);
    let reply = browser.sign_in("admin@example.com", PASSWORD);
    assert_eq!(reply.status, 303, "{}", reply.text());
    browser.cookie = format!("__Host-convox={}", cookie(&reply, "__Host-convox").unwrap());
    browser
}

/// Begins to add an authenticator app to whoever is signed in: the id by which it goes on, and the secret.
pub(crate) fn begin_totp(browser: &mut Browser) -> (String, TotpSecret) {
    let page = browser.get("/console/account/factors/totp").text();
    let field = |start: &str, end: &str| page.split_once(start).unwrap().1.split_once(end).unwrap().0.to_owned();
    let (id, secret) = (field("name=\"id\" value=\"", "\""), field("<code id=\"secret\">", "<").replace(' ', ""));
    (id, TotpSecret::parse(&Secret::new(secret)).unwrap())
}

pub(crate) fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Adds one: its secret, and the moment whose code was used for it. They go on in the session that they get for it.
pub(crate) fn add_totp(browser: &mut Browser) -> (TotpSecret, i64) {
    let (id, secret) = begin_totp(browser);
    let now_ms = now_ms();
    let added = browser.post("/console/account/factors/totp", &format!("id={id}&code={}", secret.code_at(now_ms)));
    assert!(added.status == 200 || added.status == 303, "{}", added.text());
    if let Some(session) = cookie(&added, "__Host-convox") {
        browser.cookie = format!("__Host-convox={session}");
    }
    (secret, now_ms)
}

#[test]
fn ten_thousand_wrong_passwords_do_not_keep_an_administrator_out() {
    let door = Door::open();
    with_password(&door, "admin@example.com");
    let mut known = Browser::new(&door);
    let signed_in = known.sign_in("admin@example.com", PASSWORD);
    assert_eq!(signed_in.status, 303);
    let device = cookie(&signed_in, "__Host-convox-device").expect("the browser is known from then on");

    let mut stranger = Browser::new(&door);
    let mut statuses = std::collections::BTreeMap::new();
    for number in 0..10_000 {
        *statuses.entry(stranger.sign_in("admin@example.com", &format!("wrong {number}")).status).or_insert(0) += 1;
    }
    assert_eq!(statuses, [(403, 10), (429, 9_990)].into(), "ten tries, whatever comes after");
    // Not even with the right one: whether it was right is not told.
    let refused = stranger.sign_in("admin@example.com", PASSWORD);
    assert_eq!(refused.status, 429);
    let wait: i64 = refused.header("retry-after").expect("it says when to try again").parse().unwrap();
    assert!((1..=900).contains(&wait) && refused.text().contains("Too many wrong passwords"), "{wait} {}", refused.text());

    // The administrator, in the browser that they signed in with before.
    known.cookie = format!("__Host-convox-device={device}");
    assert_eq!(known.sign_in("admin@example.com", PASSWORD).status, 303);
    // A cookie of somebody else's making, or of another person, is none.
    for other in ["x.y".to_owned(), device.replace('.', ".0"), format!("0{device}")] {
        stranger.cookie = format!("__Host-convox-device={other}");
        assert_eq!(stranger.sign_in("admin@example.com", PASSWORD).status, 429, "{other}");
    }
    // Its own tries have an end too.
    for _ in 0..10 {
        assert_eq!(known.sign_in("admin@example.com", "wrong").status, 403);
    }
    assert_eq!(known.sign_in("admin@example.com", PASSWORD).status, 429);
    // The way of the server's command line is open.
    with_password(&door, "admin@example.com");
}

#[test]
fn a_device_cookie_is_void_when_its_key_is_rolled() {
    let door = Door::open();
    with_password(&door, "admin@example.com");
    let mut known = Browser::new(&door);
    let device = |reply: &Reply| format!("__Host-convox-device={}", cookie(reply, "__Host-convox-device").expect("a device cookie"));
    let first = device(&known.sign_in("admin@example.com", PASSWORD));
    // As it was before these cookies had a key: it is good until the first roll.
    let before = first.rsplit_once('.').unwrap().0.to_owned();
    for _ in 0..12 {
        Browser::new(&door).sign_in("admin@example.com", "wrong");
    }
    let mut with = |cookie: &str| {
        known.cookie = cookie.to_owned();
        known.sign_in("admin@example.com", PASSWORD).status
    };
    assert_eq!((with(""), with(&first), with(&before)), (429, 303, 303));
    for other in [format!("{first}0"), format!("{before}."), format!("{before}.{}", "0".repeat(64)), format!("{first}.x")] {
        assert_eq!(with(&other), 429, "{other}");
    }
    // A roll that is cut off after its first step is gone on with.
    door.admin(&["keys", "roll-cookies"]);
    assert_eq!((with(&first), with(&before)), (429, 429), "at once");
    let listed = door.admin(&["keys", "list"]);
    let of_cookies: Vec<_> = listed.as_array().unwrap().iter().filter(|row| row["owner"] == "cookies").collect();
    assert!(of_cookies.len() == 1 && of_cookies[0]["version"] == 2 && of_cookies[0]["state"] == "active", "{listed}");
    for action in ["DataKeyRoll", "DataKeyDestroy"] {
        assert_eq!(door.events(|event| event["action"] == action && event["path"] == "/cookies/data-key/2").len(), 1, "{action}");
    }
    // Whoever gets in another way is known again from their next sign-in on.
    with_password(&door, "admin@example.com");
    let hour = crate::console::Database::open(&door);
    hour.run("DELETE FROM guesses");
    let mut door = door;
    door.console.restart().unwrap();
    let mut again = Browser::new(&door);
    let second = device(&again.sign_in("admin@example.com", PASSWORD));
    for _ in 0..12 {
        Browser::new(&door).sign_in("admin@example.com", "wrong");
    }
    again.cookie = second;
    assert_eq!(again.sign_in("admin@example.com", PASSWORD).status, 303);
}

#[test]
fn one_or_everybody_is_signed_out_on_every_server_at_once() {
    let Some((door, second)) = Door::open_pair() else { return };
    door.person("bob@example.com", Some(("acme", "developer")));
    let signed_in = |server: &Server, email: &str| {
        with_password(&door, email);
        let mut browser = Browser::at(server);
        let reply = browser.sign_in(email, PASSWORD);
        browser.cookie = format!("__Host-convox={}", cookie(&reply, "__Host-convox").unwrap());
        browser
    };
    let is_in = |browser: &mut Browser| browser.get("/console/account").status == 200;
    let (mut admin, mut bob) = (signed_in(&door.console, "admin@example.com"), signed_in(&second, "bob@example.com"));
    assert!(is_in(&mut admin) && is_in(&mut bob));
    door.admin(&["user", "sign-out", "bob@example.com"]);
    assert!(is_in(&mut admin) && !is_in(&mut bob));
    // By an administrator of their organization, and by nobody else.
    let mut bob = signed_in(&second, "bob@example.com");
    let refused = bob.post("/console/organizations/acme/members/sign-out", "email=admin%40example.com");
    assert!(refused.status == 403 && is_in(&mut admin), "{}", refused.status);
    let page = admin.get("/console/organizations/acme").text();
    assert!(page.contains("Sign bob@example.com out everywhere") && !page.contains("Sign admin@example.com out"), "{page}");
    let done = admin.post("/console/organizations/acme/members/sign-out", "email=bob%40example.com");
    assert_eq!(done.status, 303, "{}", done.text());
    assert!(is_in(&mut admin) && !is_in(&mut bob));
    assert_eq!(door.events(|event| event["action"] == "MemberSignOut" && event["actor"] == "admin@example.com").len(), 1);
    // Everybody.
    let mut bob = signed_in(&door.console, "bob@example.com");
    assert!(is_in(&mut admin) && is_in(&mut bob));
    door.admin(&["user", "sign-out", "--all"]);
    assert!(!is_in(&mut admin) && !is_in(&mut bob));
    assert_eq!(door.events(|event| event["action"] == "SignOutEverybody").len(), 1);
    // Keys are no sessions.
    assert_eq!(door.client(&door.key, "acme/main").get("/auth", "").unwrap().status, 200);
    let error = door.try_admin(&["user", "sign-out"]).unwrap_err();
    assert!(error.contains("<EMAIL>"), "somebody, or everybody: {error}");
}

#[test]
fn no_spelling_and_no_burst_gives_more_tries() {
    let door = Door::open();
    with_password(&door, "admin@example.com");
    let spellings = ["admin@example.com", "ADMIN@example.com", " admin@EXAMPLE.com ", "\tAdmin@Example.Com", "admin@example.com\u{a0}"];
    let wrong = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (door, wrong) = (&door, &wrong);
            scope.spawn(move || {
                let mut browser = Browser::new(door);
                for number in 0..8 {
                    let email = spellings[(thread + number) % spellings.len()];
                    if browser.sign_in(email, "wrong").status == 403 {
                        wrong.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(wrong.into_inner(), 10);
    // Counted in the store: a restart gives no more, and neither would another server.
    let mut door = door;
    door.console.restart().unwrap();
    assert_eq!(Browser::new(&door).sign_in("admin@example.com", "wrong").status, 429);
    // Others are not held up, until the network is.
    assert_eq!(Browser::new(&door).sign_in("bob@example.com", "wrong").status, 403);
    assert!(!door.events(|event| event["rule"] == "too-many-guesses").is_empty());
}

#[test]
fn strangers_who_sign_in_all_at_once_hold_up_nobody_who_is_known() {
    let door = Door::open_with(&["--trusted-proxy", "127.0.0.1"]);
    with_password(&door, "admin@example.com");
    let mut known = Browser::new(&door);
    let signed_in = known.sign_in("admin@example.com", PASSWORD);
    let device = cookie(&signed_in, "__Host-convox-device").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let statuses = std::sync::Mutex::new(std::collections::BTreeMap::new());
    std::thread::scope(|scope| {
        for number in 0..80 {
            let (door, done, statuses) = (&door, &done, &statuses);
            scope.spawn(move || {
                // Of one provider each five: a /48 of their own.
                let mut browser = Browser::new(door);
                let mut turn = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) && turn < 200 {
                    browser.forwarded = format!("2001:db8:{:x}:{turn:x}::1", number / 5);
                    let status = browser.sign_in(&format!("nobody-{number}-{turn}@example.com"), "wrong").status;
                    *statuses.lock().unwrap().entry(status).or_insert(0) += 1;
                    turn += 1;
                }
            });
        }
        let is_full = || statuses.lock().unwrap().get(&429).is_some_and(|count| *count > 20);
        let full = convox_testkit::eventually(std::time::Duration::from_mins(1), || is_full().then_some(()));
        known.cookie = format!("__Host-convox-device={device}");
        let began = std::time::Instant::now();
        let known: Vec<u16> = (0..3).map(|_| known.sign_in("admin@example.com", PASSWORD).status).collect();
        let took = began.elapsed();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(full.is_some(), "the queue has an end: {statuses:?}");
        assert_eq!(known, [303, 303, 303]);
        assert!(took < std::time::Duration::from_secs(15), "{took:?}");
    });
    let statuses = statuses.into_inner().unwrap();
    assert!(statuses.keys().all(|status| [403, 429].contains(status)), "{statuses:?}");
}

#[test]
fn a_right_password_is_no_guess() {
    let door = Door::open();
    with_password(&door, "admin@example.com");
    for _ in 0..15 {
        assert_eq!(Browser::new(&door).sign_in("admin@example.com", PASSWORD).status, 303);
    }
}

#[test]
fn strangers_who_ask_for_passkeys_keep_nobody_from_signing_in_by_one() {
    let door = Door::open_with(&["--url", "https://console.example.com"]);
    let mut owner = Browser::new(&door);
    let start = |browser: &mut Browser| browser.post("/console/sign-in/passkey/start", "").json()["id"].as_str().unwrap().to_owned();
    let mine = start(&mut owner);
    let mut stranger = Browser::new(&door);
    let ids: std::collections::BTreeSet<String> = (0..1_100).map(|_| start(&mut stranger)).collect();
    assert_eq!(ids.len(), 1_100);
    // The browser is asked once: an answer to it is still looked at, however late, and found to be none.
    let mut answer = |id: &str| {
        let reply = owner.post("/console/sign-in/passkey", &format!("id={id}&answer=%7B%7D"));
        (reply.status, reply.text().contains("cannot be read"), reply.text().contains("begin again"))
    };
    assert_eq!(answer(&mine), (400, true, false));
    // What was not asked here is not.
    let (end, rest) = mine.split_once('.').unwrap();
    let (state, hash) = rest.split_once('.').unwrap();
    let later = end.parse::<i64>().unwrap() + 1;
    for made_up in
        [format!("{later}.{state}.{hash}"), format!("{end}.{state}A.{hash}"), format!("{end}.{state}."), state.to_owned(), String::new()]
    {
        let (status, _, begin_again) = answer(&made_up);
        assert_eq!((status, begin_again), (409, true), "{made_up}");
    }
}

#[test]
fn nobody_floods_a_mailbox_or_takes_a_link_away() {
    let mail = ["--url", "https://console.example.com", "--mail-from", "console@example.com", "--smtp-url", "smtp://127.0.0.1:1"];
    let door = Door::open_with(&[&mail[..], &["--trusted-proxy", "127.0.0.1"]].concat());
    let mut browser = Browser::new(&door);
    let mut ask = |from: &str, email: &str| {
        browser.forwarded = from.to_owned();
        let reply = browser.post("/console/forgotten", &format!("email={email}"));
        (reply.status, reply.text(), reply.header("retry-after").map(str::to_owned))
    };
    let nobody = ask("192.0.2.1", "nobody@example.com");
    assert!(nobody.0 == 200 && nobody.1.contains("is on its way"), "{nobody:?}");
    for number in 0..8 {
        assert_eq!(ask(&format!("192.0.2.{}", number % 4), "admin@example.com"), nobody, "the same, whatever was done");
    }
    // From one network, whoever's address it is.
    let turned_away =
        (0..40).map(|number| ask("198.51.100.1", &format!("nobody-{number}@example.com"))).find(|reply| reply.0 != 200).unwrap();
    assert!(turned_away.0 == 429 && turned_away.1.contains("Too many links") && turned_away.2.is_some(), "{turned_away:?}");
    assert_eq!(ask("198.51.100.2", "nobody@example.com").0, 200, "and no other");
    let wide = (0..140)
        .map(|number| ask(&format!("2001:db8:1:{number:x}::1"), &format!("n-{number}@example.com")).0)
        .filter(|status| *status == 200);
    assert_eq!(wide.count(), 100);
    let asked = || door.events_now(|event| event["action"] == "PasswordForgotten").len();
    convox_testkit::eventually(std::time::Duration::from_secs(5), || (asked() == 3).then_some(())).expect("three were made");
    // A link that was made before is good still.
    let made = door.admin(&["user", "reset-link", "admin@example.com", "--url", "https://console.example.com"]);
    assert_eq!(ask("203.0.113.9", "admin@example.com").0, 200);
    let code = made["link"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let body = format!("code={code}&email=admin@example.com&password={PASSWORD}");
    assert_eq!(Browser::new(&door).post("/console/reset/finish", &body).status, 303);
    assert_eq!(asked(), 4, "three, and that of the server's command line");
}

#[test]
fn keys_that_are_none_are_told_to_wait_and_good_ones_never() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let stranger = door.person("gone@example.com", Some(("acme", "developer")));
    door.admin(&["key", "revoke", &door.key_id("gone@example.com")]);
    let ask = |key: &str, stream: &mut dyn ReadWrite| {
        stream.write_all(door.head("GET /apps", key, "acme/main", "").as_bytes()).unwrap();
        stream.flush().unwrap();
        let mut stream = stream;
        read_reply(&mut stream, false).unwrap()
    };
    let mut stream = connect(&door.console.host, &door.console.fingerprint).unwrap();
    let mut statuses = std::collections::BTreeMap::new();
    for _ in 0..150 {
        *statuses.entry(ask(&stranger, &mut stream).status).or_insert(0) += 1;
    }
    assert_eq!(statuses, [(401, 120), (429, 30)].into());
    let told = ask(&stranger, &mut stream);
    assert!(told.header("retry-after").is_some() && told.text().contains("wait"), "{}", told.text());
    // From the same network, on the same connection.
    assert_eq!(ask(&door.key, &mut stream).status, 200);
    assert_eq!(door.client(&stranger, "acme/main").get("/auth", "").unwrap().status, 429, "the Console's own paths too");
}
