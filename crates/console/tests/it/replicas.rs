//! Two servers on one PostgreSQL are one Console: what one forgets the other forgets (T26), and what one counts the other counts (T17).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use convox_testkit::go::{GoClient, connect, read_reply};
use convox_testkit::{Server, eventually};
use sqlx::Connection as _;

use crate::cable::Cable;
use crate::limits::{Browser, PASSWORD, ReadWrite, add_totp, cookie, half_way, with_password};
use crate::revocation::{AT_ONCE, end};
use crate::{Door, Recorder};

/// Revocations with requests under way.
const RACES: usize = 200;

/// `CONVOX_TEST_RACES` for more.
fn races() -> usize {
    std::env::var("CONVOX_TEST_RACES").ok().and_then(|text| text.parse().ok()).unwrap_or(RACES)
}

/// A kept connection to one of the servers.
struct Kept<'s> {
    server: &'s Server,
    stream: Box<dyn ReadWrite>,
}

impl<'s> Kept<'s> {
    fn open(server: &'s Server) -> Self {
        Self { server, stream: Box::new(connect(&server.host, &server.fingerprint).unwrap()) }
    }

    /// Status and body; `None` when the connection was cut instead, which is then made anew.
    fn ask(&mut self, door: &Door, line: &str, key: &str, body: &str) -> Option<(u16, String)> {
        let further = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        let sent =
            self.stream.write_all((door.head(line, key, "acme/main", &further) + body).as_bytes()).and_then(|()| self.stream.flush());
        let answer = sent.ok().and_then(|()| read_reply(&mut self.stream, false).ok());
        if answer.is_none() {
            *self = Self::open(self.server);
        }
        answer.map(|reply| (reply.status, reply.text()))
    }
}

#[test]
fn no_request_that_begins_after_a_revocation_is_served_by_another_server() {
    let rack = Recorder::start("rackPassword1");
    let Some((door, second)) = Door::open_pair() else { return };
    door.add_rack("acme", "main", &rack);
    let (mut admin, mut callers) = (Kept::open(&door.console), [Kept::open(&second), Kept::open(&second)]);
    // What the Rack may have seen: all that was served, and what was under way when its key was revoked.
    let (mut known, mut served) = (BTreeSet::new(), 0);
    let races = races();
    for race in 0..races {
        let (status, made) = admin.ask(&door, "POST /api/v1/keys", &door.key, &format!(r#"{{"name":"race{race}"}}"#)).unwrap();
        assert_eq!(status, 200, "{made}");
        let made: serde_json::Value = serde_json::from_str(&made).unwrap();
        let (id, key) = (made["id"].as_str().unwrap(), made["api_key"].as_str().unwrap());
        let stop = AtomicBool::new(false);
        let (answered, asked) = std::thread::scope(|scope| {
            let asking: Vec<_> = callers
                .iter_mut()
                .enumerate()
                .map(|(thread, caller)| {
                    let (door, stop) = (&door, &stop);
                    scope.spawn(move || {
                        let (mut all, mut refused) = (Vec::new(), 0);
                        // Some more after the first refusal: a later one must not get through again.
                        while refused < 3 || !stop.load(Ordering::SeqCst) {
                            let path = format!("/apps/{race}-{thread}-{}", all.len());
                            let (method, begun) = (if all.len() % 2 == 0 { "GET" } else { "DELETE" }, Instant::now());
                            let status = caller.ask(door, &format!("{method} {path}"), key, "").map(|(status, _)| status);
                            refused += usize::from(status != Some(200));
                            all.push((path, begun, status));
                        }
                        all
                    })
                })
                .collect();
            // At another moment of their work in each race.
            std::thread::sleep(Duration::from_micros((race as u64 * 7919) % 5000));
            let (status, words) = admin.ask(&door, &format!("DELETE /api/v1/keys/{id}"), &door.key, "").unwrap();
            let answered = Instant::now();
            stop.store(true, Ordering::SeqCst);
            assert_eq!(status, 200, "{words}");
            (answered, asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>())
        });
        for (path, begun, status) in asked {
            match status {
                Some(200) => {
                    assert!(begun <= answered, "race {race}: {path} was begun after the revocation was answered, and served");
                    served += 1;
                    known.insert(path);
                }
                // So many refusals that the network is told to wait; good keys are not.
                Some(401 | 429) => {}
                // It was under way: it is told so, or cut.
                Some(403) | None if begun <= answered => drop(known.insert(path)),
                other => panic!("race {race}: {path}: {other:?}"),
            }
        }
    }
    assert!(served > races, "{served} requests served: they ran while keys were revoked");
    let seen = rack.hits();
    let unknown: Vec<&str> = seen
        .iter()
        .map(|hit| hit.line().split(' ').nth(1).unwrap_or_default().trim_end_matches('?'))
        .filter(|path| path.starts_with("/apps/") && !known.contains(*path))
        .collect();
    assert_eq!(unknown, Vec::<&str>::new(), "refused, and the Rack saw it");
    let all = door.admin(&["audit", "list", "--limit", "100000"]);
    let revoked = all.as_array().unwrap().iter().filter(|event| event["action"] == "KeyRevoke");
    assert_eq!(revoked.count(), races, "each is in the audit log");
    assert_eq!(door.admin(&["audit", "verify"])["whole"], true);
}

/// Keeps the lines of both servers from being written: what was decided waits, and is not forwarded.
struct Barrier {
    runtime: tokio::runtime::Runtime,
    holds: sqlx::PgConnection,
    looks: sqlx::PgConnection,
}

impl Barrier {
    fn at(door: &Door) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connect = || runtime.block_on(sqlx::PgConnection::connect(door.database().unwrap())).unwrap();
        let (holds, looks) = (connect(), connect());
        Self { runtime, holds, looks }
    }

    /// Chain 0 is that of changes, which a revocation is.
    fn close(&mut self) {
        let text = "BEGIN; SELECT id FROM audit_chains WHERE slot > 0 FOR UPDATE";
        self.runtime.block_on(sqlx::raw_sql(text).execute(&mut self.holds)).unwrap();
    }

    /// Until somebody waits at it.
    fn reached(&mut self) {
        let reached = eventually(Duration::from_secs(5), || {
            let text = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            let (waiting,): (i64,) = self.runtime.block_on(sqlx::query_as(text).fetch_one(&mut self.looks)).unwrap();
            (waiting > 0).then_some(())
        });
        assert!(reached.is_some(), "nobody came to the barrier");
    }

    fn open(&mut self) {
        self.runtime.block_on(sqlx::raw_sql("ROLLBACK").execute(&mut self.holds)).unwrap();
    }
}

/// Keys that are revoked while a request of each waits at the barrier.
const WAITING: usize = 16;

#[test]
fn what_was_decided_before_a_revocation_and_not_yet_forwarded_is_not_forwarded() {
    let rounds: usize = std::env::var("CONVOX_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let rack = Recorder::start("rackPassword1");
    let Some((door, second)) = Door::open_pair() else { return };
    door.add_rack("acme", "main", &rack);
    let mut admin = Kept::open(&door.console);
    // So that its chain is there to be held.
    assert_eq!(Kept::open(&second).ask(&door, "DELETE /apps/first", &door.key, "").unwrap().0, 200);
    let (mut barrier, mut waited) = (Barrier::at(&door), 0);
    for round in 0..rounds {
        let keys: Vec<(String, String)> = (0..WAITING)
            .map(|number| {
                let (status, made) =
                    admin.ask(&door, "POST /api/v1/keys", &door.key, &format!(r#"{{"name":"barrier{round}-{number}"}}"#)).unwrap();
                assert_eq!(status, 200, "{made}");
                let made: serde_json::Value = serde_json::from_str(&made).unwrap();
                (made["id"].as_str().unwrap().to_owned(), made["api_key"].as_str().unwrap().to_owned())
            })
            .collect();
        barrier.close();
        waited += std::thread::scope(|scope| {
            let asking: Vec<_> = keys
                .iter()
                .enumerate()
                .map(|(number, (_, key))| {
                    let (door, second) = (&door, &second);
                    scope.spawn(move || Kept::open(second).ask(door, &format!("DELETE /apps/barrier-{round}-{number}"), key, ""))
                })
                .collect();
            barrier.reached();
            for (id, _) in &keys {
                let (status, words) = admin.ask(&door, &format!("DELETE /api/v1/keys/{id}"), &door.key, "").unwrap();
                assert_eq!(status, 200, "{words}");
            }
            barrier.open();
            let answers: Vec<_> = asking.into_iter().map(|thread| thread.join().unwrap()).collect();
            let late = answers.iter().filter(|answer| !matches!(answer, Some((401 | 403 | 429, _)) | None)).count();
            assert_eq!(late, 0, "round {round}: {answers:?}");
            // Decided, held, and told that the key was revoked meanwhile.
            answers.iter().filter(|answer| matches!(answer, Some((_, words)) if words.contains("was revoked"))).count()
        });
    }
    assert!(waited * 2 >= rounds * WAITING, "only {waited} requests waited at the barrier");
    println!("{waited} requests were decided, held while their key was revoked, and not forwarded");
    let hits = rack.hits();
    let reached: Vec<_> = hits.iter().map(|hit| hit.line()).filter(|line| line.contains("/apps/barrier-")).collect();
    assert!(reached.is_empty(), "{reached:?}");
    assert_eq!(door.admin(&["audit", "verify"])["whole"], true);
}

#[test]
fn what_is_open_at_another_server_ends_within_a_second_and_says_why() {
    let rack = Recorder::start("rackPassword1");
    let Some((door, second)) = Door::open_pair() else { return };
    door.add_rack("acme", "main", &rack);
    let key = door.person("ada@example.com", Some(("acme", "developer")));
    let there = GoClient { host: second.host.clone(), fingerprint: second.fingerprint, ..door.client(&key, "acme/main") };
    let mut shell = there.socket("/apps/web/processes/p1/exec", &[]).unwrap().ok().expect("101");
    shell.text(b"hello").unwrap();
    shell.receive().unwrap();
    let mut log = there.socket("/apps/web/logs", &[]).unwrap().ok().expect("101");
    log.receive().unwrap();
    let (id, begun) = (door.key_id("ada@example.com"), Instant::now());
    let path = format!("/organizations/acme/members/ada@example.com/keys/{id}");
    let (status, answer) = door.api(&door.key, "DELETE", &path, &serde_json::Value::Null);
    assert_eq!(status, 200, "{answer}");
    for (socket, code) in [(shell, Some(255)), (log, None)] {
        let (text, found, reason) = end(socket);
        let (close, why) = reason.expect("a close frame");
        assert!(close == 1008 && why.contains("revoked") && text.contains(&why), "{close} {why} {text}");
        assert_eq!(found, code, "a cut shell is no success to those who read its exit code");
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    }
    assert_eq!(there.get("/apps", "").unwrap().status, 401);
}

#[test]
fn what_is_revoked_while_a_server_cannot_see_the_database_is_dead_there_when_it_is_answered() {
    let rack = Recorder::start("rackPassword1");
    let mut cables = Vec::new();
    let opened = Door::open_pair_by(|url| {
        [(); 2].map(|()| {
            let (cable, url) = Cable::to_database(&url);
            cables.push(cable);
            url
        })
    });
    let Some((door, second)) = opened else { return };
    door.add_rack("acme", "main", &rack);
    let (mut here, mut there) = (Kept::open(&door.console), Kept::open(&second));
    let mut make = |name: &str| {
        let (_, made) = here.ask(&door, "POST /api/v1/keys", &door.key, &format!(r#"{{"name":"{name}"}}"#)).unwrap();
        let made: serde_json::Value = serde_json::from_str(&made).unwrap();
        (made["id"].as_str().unwrap().to_owned(), made["api_key"].as_str().unwrap().to_owned())
    };
    let ((doomed_id, doomed), (living_id, living)) = (make("doomed"), make("living"));
    for key in [&doomed, &living] {
        assert_eq!(there.ask(&door, "GET /apps", key, "").unwrap().0, 200);
    }
    // One server is cut off, and goes on from memory for a while. Whoever revokes elsewhere is answered when that while is over.
    cables[1].cut();
    let cut = Instant::now();
    assert_eq!(there.ask(&door, "GET /apps", &doomed, "").unwrap().0, 200, "not yet");
    let (status, words) = here.ask(&door, &format!("DELETE /api/v1/keys/{doomed_id}"), &door.key, "").unwrap();
    assert_eq!(status, 200, "{words}");
    for key in [&doomed, &living] {
        let (status, words) = there.ask(&door, "GET /apps", key, "").unwrap();
        assert!(status == 503 && words.contains("cannot reach its database"), "{status} {words}");
    }
    assert!(cut.elapsed() < Duration::from_secs(8), "{:?}", cut.elapsed());
    // Now nobody sees it: nothing is revoked, and that is said.
    cables[0].cut();
    let refused = |at: &mut Kept<'_>| at.ask(&door, "GET /apps", &living, "").is_some_and(|(status, _)| status == 503).then_some(());
    eventually(Duration::from_secs(8), || refused(&mut here)).expect("five seconds after it was cut off");
    let (status, words) = here.ask(&door, &format!("DELETE /api/v1/keys/{living_id}"), &door.key, "").unwrap();
    assert!(status == 503 && words.contains("cannot reach its database"), "{status} {words}");
    // Both recover by themselves, and know what was revoked.
    cables.iter().for_each(Cable::mend);
    for at in [&mut here, &mut there] {
        let serves = eventually(Duration::from_secs(5), || at.ask(&door, "GET /apps", &living, "").filter(|(status, _)| *status == 200));
        assert!(serves.is_some(), "{}", at.server.log());
        assert_eq!(at.ask(&door, "GET /apps", &doomed, "").unwrap().0, 401);
    }
}

#[test]
fn two_servers_give_no_more_tries_than_one() {
    let Some((door, second)) = Door::open_pair() else { return };
    with_password(&door, "admin@example.com");
    let spellings =
        ["admin@example.com", "ADMIN@example.com", " admin@EXAMPLE.com ", "\tAdmin@Example.Com", "\u{a0}admin@example.com\u{3000}"];
    let wrong = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (server, wrong) = (if thread % 2 == 0 { &door.console } else { &second }, &wrong);
            scope.spawn(move || {
                let mut browser = Browser::at(server);
                for number in 0..5 {
                    // From another address each time.
                    browser.forwarded = format!("203.0.113.{}", 10 * thread + number);
                    match browser.sign_in(spellings[(thread + number) % spellings.len()], "wrong").status {
                        403 => drop(wrong.fetch_add(1, Ordering::Relaxed)),
                        other => assert_eq!(other, 429),
                    }
                }
            });
        }
    });
    assert_eq!(wrong.into_inner(), 10, "on both together");
    for server in [&door.console, &second] {
        assert_eq!(Browser::at(server).sign_in("admin@example.com", PASSWORD).status, 429, "not even with the right one");
    }
    // What looks like the address, or is equivalent to it in Unicode, is nobody's: no way around, and no way in.
    for other in ["ａdmin@example.com", "admin@example.com\u{200b}", "admın@example.com", "admin@ｅxample.com", "ad\u{ad}min@example.com"]
    {
        let reply = Browser::at(&second).sign_in(other, PASSWORD);
        assert!(matches!(reply.status, 400 | 403 | 422 | 429), "{other}: {}", reply.status);
        assert!(cookie(&reply, "__Host-convox").is_none());
    }
}

#[test]
fn a_code_counts_once_and_tries_are_counted_on_both_servers_together() {
    let Some((door, second)) = Door::open_pair() else { return };
    with_password(&door, "admin@example.com");
    let mut browser = half_way(&door.console);
    let (secret, added_ms) = add_totp(&mut browser);

    // The code of the next step is taken ahead of time; that of adding is used up, at both.
    let used = format!("code={}", secret.code_at(added_ms));
    for server in [&door.console, &second] {
        assert_eq!(half_way(server).post("/console/prove", &used).status, 403, "it was used to add the app");
    }
    let next = format!("code={}", secret.code_at(added_ms + 30_000));
    let mut browsers: Vec<Browser> = (0..6).map(|number| half_way(if number % 2 == 0 { &door.console } else { &second })).collect();
    let let_in = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for browser in &mut browsers {
            let (next, let_in) = (&next, &let_in);
            scope.spawn(move || {
                let reply = browser.post("/console/prove", next);
                assert!(matches!(reply.status, 303 | 403), "{}", reply.status);
                let_in.fetch_add(u32::from(reply.status == 303), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(let_in.into_inner(), 1, "of six who have the same code");
    // Guesses: at whichever server, until there are no more; then they are told to wait.
    let (mut told, mut guessers) = ([false; 2], [half_way(&door.console), half_way(&second)]);
    for number in 0..12 {
        let at = number % 2;
        let reply = guessers[at].post("/console/prove", &format!("code={:06}", (number * 7919 + 13) % 1_000_000));
        told[at] |= reply.text().contains("too many codes") || reply.text().contains("Too many codes");
    }
    assert_eq!(told, [true, true]);
}
