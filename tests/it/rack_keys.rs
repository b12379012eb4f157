//! Keys of Racks: the password rolls without a failed request, whoever is killed; tokens end with whoever made them.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use convox_testkit::go::{Generation, GoClient, Message, form, read_reply};
use convox_testkit::stack::RACK_PASSWORD;
use convox_testkit::{Stack, eventually};

/// Requests through the Console until told to stop; gives how many were answered well and what else was seen.
fn ask_again_and_again(client: &GoClient, stop: &AtomicBool, good: &AtomicU64) -> Vec<String> {
    let mut bad = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match client.get("/apps", "") {
            Ok(reply) if reply.status == 200 => {
                good.fetch_add(1, Ordering::Relaxed);
            }
            Ok(reply) => bad.push(format!("{} {}", reply.status, reply.text())),
            Err(error) => bad.push(format!("{error:#}")),
        }
    }
    bad
}

fn step(stack: &Stack) -> Option<String> {
    let status = stack.admin(&["rack", "roll", "main", "--org", "acme", "--status"]).unwrap();
    status["roll"]["step"].as_str().map(str::to_owned)
}

fn password_of_the_rack_is_refused(stack: &Stack) -> bool {
    stack.go_direct(Generation::V3).get("/auth", "").unwrap().status == 401
}

#[test]
fn a_racks_password_is_rolled_while_people_work() {
    let stack = Stack::start().unwrap();
    let (stop, good) = (AtomicBool::new(false), AtomicU64::new(0));
    let client = stack.go(Generation::V3);
    let direct = stack.go_direct(Generation::V3);
    // What is open stays open: the roll is nobody's business.
    let mut logs = client.socket("/system/logs", &[("Follow", "true")]).unwrap().ok().expect("a log stream");
    let bad = std::thread::scope(|scope| {
        let load = scope.spawn(|| ask_again_and_again(&client, &stop, &good));
        let begun = stack.admin(&["rack", "roll", "main", "--org", "acme", "--window", "2s", "--no-wait"]).unwrap();
        assert_eq!(begun["state"], "begun");
        assert!(eventually(Duration::from_secs(20), || (step(&stack)? == "switched").then_some(())).is_some(), "{:?}", step(&stack));
        assert_eq!(direct.get("/auth", "").unwrap().status, 200, "the old one is accepted until the window ends");
        assert!(eventually(Duration::from_secs(20), || step(&stack).is_none().then_some(())).is_some(), "{:?}", step(&stack));
        assert!(password_of_the_rack_is_refused(&stack), "and refused after it");
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    assert!(bad.is_empty(), "{bad:?}");
    assert!(good.load(Ordering::Relaxed) > 20);
    client.form("POST", "/apps", &[("name", "after")]).unwrap();
    let mut heard = String::new();
    while !heard.contains("POST /apps") {
        match logs.receive().unwrap() {
            Message::Text(text) => heard.push_str(&String::from_utf8_lossy(&text)),
            other => panic!("the stream that was open before ended: {other:?}"),
        }
    }
    // The file that the Rack was started with says the old one; that does not bring it back.
    let mut stack = stack;
    stack.rack.restart().unwrap();
    assert!(password_of_the_rack_is_refused(&stack));
    assert_eq!(client.get("/apps", "").unwrap().status, 200);
    // Twice in a row, this time watched by the command itself.
    assert_eq!(stack.admin(&["rack", "roll", "main", "--org", "acme", "--window", "1s"]).unwrap()["state"], "rolled");
    assert_eq!(client.get("/apps", "").unwrap().status, 200);
    let audit = stack.admin(&["audit", "list", "--rack", "main"]).unwrap().to_string();
    for action in ["RackPasswordRoll", "RackPasswordAccepted", "RackPasswordSwitched", "RackPasswordRolled"] {
        assert!(audit.contains(action), "{action}");
    }
}

#[test]
fn a_roll_is_undone_before_and_after_the_switch() {
    let stack = Stack::start().unwrap();
    let client = stack.go(Generation::V3);
    stack.admin(&["rack", "roll", "main", "--org", "acme", "--window", "1h", "--no-wait"]).unwrap();
    assert!(eventually(Duration::from_secs(20), || (step(&stack)? == "switched").then_some(())).is_some());
    let again = eventually(Duration::from_secs(5), || {
        let undone = client.raw("DELETE", "/api/v1/organizations/acme/racks/main/password", &[], b"").unwrap();
        (undone.status == 200).then_some(())
    });
    assert!(again.is_some());
    // With a window of an hour it stays in the middle: both are accepted, the Console uses the old one.
    assert_eq!(step(&stack).as_deref(), Some("reverted"));
    assert_eq!(client.get("/apps", "").unwrap().status, 200);
    assert_eq!(stack.go_direct(Generation::V3).get("/auth", "").unwrap().status, 200);
}

#[test]
fn whoever_takes_the_new_password_back_at_the_rack_ends_the_old_one() {
    let stack = Stack::start().unwrap();
    let client = stack.go(Generation::V3);
    stack.admin(&["rack", "roll", "main", "--org", "acme", "--window", "1h", "--no-wait"]).unwrap();
    assert!(eventually(Duration::from_secs(20), || (step(&stack)? == "switched").then_some(())).is_some());
    // By the old password, in the window: the Console's own is refused from then on.
    assert_eq!(stack.go_direct(Generation::V3).raw("DELETE", "/system/password", &[], b"").unwrap().status, 200);
    assert!(eventually(Duration::from_secs(30), || step(&stack).is_none().then_some(())).is_some(), "{:?}", step(&stack));
    assert_eq!(client.get("/apps", "").unwrap().status, 200, "the Console is let in again");
    assert!(password_of_the_rack_is_refused(&stack), "and whoever had the old one is not");
    assert!(stack.admin(&["audit", "list", "--rack", "main"]).unwrap().to_string().contains("RackPasswordTakenBackElsewhere"));
}

#[test]
fn nobody_sets_a_racks_password_through_the_console() {
    let stack = Stack::start().unwrap();
    let refused = stack.go(Generation::V3).form("PUT", "/system/password", &[("password", "mineAloneMineAloneMineAlone")]).unwrap();
    assert!(refused.status == 403 && refused.text().contains("rack password roll"), "{} {}", refused.status, refused.text());
    let direct = stack.go_direct(Generation::V3);
    let short = direct.form("PUT", "/system/password", &[("password", "short")]).unwrap();
    assert!(short.status == 400 && short.text().contains("too short"), "{}", short.text());
    // The old password cannot end itself.
    let next = "anotherPasswordAnotherPassword";
    assert_eq!(direct.form("PUT", "/system/password", &[("password", next)]).unwrap().status, 200);
    assert_eq!(direct.form("POST", "/system/password/retire", &[]).unwrap().status, 409);
    let with_next = GoClient { password: next.to_owned(), ..direct.clone() };
    assert_eq!(with_next.form("POST", "/system/password/retire", &[]).unwrap().status, 200);
    assert_eq!(direct.get("/auth", "").unwrap().status, 401);
    assert_eq!(with_next.get("/auth", "").unwrap().status, 200);
}

#[test]
fn what_is_held_open_does_not_outlive_the_credential_that_it_came_with() {
    const FORM: &str = "application/x-www-form-urlencoded";
    let stack = Stack::start().unwrap();
    let direct = stack.go_direct(Generation::V3);
    let made = direct.form("POST", "/system/jwt/token", &[("role", "admin"), ("durationInHour", "1")]).unwrap();
    let token = GoClient { user: "jwt".to_owned(), password: made.json()["token"].as_str().unwrap().to_owned(), ..direct.clone() };
    // Both were let in by their heads; the last byte of the forms is kept back.
    let (password, life) = (form(&[("password", "plantedByTheOldPassword")]), form(&[("role", "admin"), ("durationInHour", "1")]));
    let mut by_password = direct.begin("PUT", "/system/password", FORM, password.len()).unwrap();
    let mut by_token = token.begin("POST", "/system/jwt/token", FORM, life.len()).unwrap();
    for (stream, body) in [(&mut by_password, &password), (&mut by_token, &life)] {
        stream.write_all(&body.as_bytes()[..body.len() - 1]).unwrap();
        stream.flush().unwrap();
    }
    assert_eq!(direct.raw("PUT", "/system/jwt/rotate", &[], b"").unwrap().status, 200);
    assert_eq!(stack.admin(&["rack", "roll", "main", "--org", "acme", "--window", "1s"]).unwrap()["state"], "rolled");
    for (stream, body) in [(&mut by_password, &password), (&mut by_token, &life)] {
        stream.write_all(&body.as_bytes()[body.len() - 1..]).unwrap();
        stream.flush().unwrap();
        let reply = read_reply(stream, false).unwrap();
        assert_eq!(reply.status, 401, "{}", reply.text());
    }
    let planted = GoClient { password: "plantedByTheOldPassword".to_owned(), ..direct };
    assert_eq!(planted.get("/auth", "").unwrap().status, 401);
}

#[test]
fn a_password_that_somebody_left_at_the_rack_keeps_no_roll_away_and_opens_nothing_after_it() {
    let stack = Stack::start().unwrap();
    let direct = stack.go_direct(Generation::V3);
    let left = "leftBehindBeforeTheyWent";
    assert_eq!(direct.form("PUT", "/system/password", &[("password", left)]).unwrap().status, 200);
    let left = GoClient { password: left.to_owned(), ..direct };
    assert_eq!(left.get("/auth", "").unwrap().status, 200);
    assert_eq!(stack.admin(&["rack", "roll", "main", "--org", "acme", "--window", "1s"]).unwrap()["state"], "rolled");
    assert_eq!(left.get("/auth", "").unwrap().status, 401);
    assert_eq!(stack.go(Generation::V3).get("/apps", "").unwrap().status, 200);
    assert!(stack.admin(&["audit", "list", "--rack", "main"]).unwrap().to_string().contains("RackPasswordOtherRemoved"));
}

#[test]
fn a_member_who_leaves_takes_neither_password_nor_token_along() {
    let stack = Stack::start().unwrap();
    let key = stack.member("bob@example.com", "administrator").unwrap();
    let bob = GoClient { password: key, ..stack.go(Generation::V3) };
    let token = |client: &GoClient| {
        let made = client.form("POST", "/system/jwt/token", &[("role", "admin"), ("durationInHour", "1")]).unwrap();
        assert_eq!(made.status, 200, "{}", made.text());
        GoClient { user: "jwt".to_owned(), password: made.json()["token"].as_str().unwrap().to_owned(), ..stack.go_direct(Generation::V3) }
    };
    let (bobs, ours) = (token(&bob), token(&stack.go(Generation::V3)));
    // A child of his, which outlives him no more than he does.
    let child = token(&bobs);
    for client in [&bobs, &ours, &child] {
        assert_eq!(client.get("/apps", "").unwrap().status, 200);
    }
    stack.admin(&["member", "remove", "bob@example.com", "--org", "acme"]).unwrap();
    for client in [&bobs, &child] {
        let dead = eventually(Duration::from_secs(3), || (client.get("/apps", "").unwrap().status == 401).then_some(()));
        assert!(dead.is_some(), "a token of somebody who left is dead soon");
    }
    assert_eq!(ours.get("/apps", "").unwrap().status, 200, "and nobody else's");
    // He was an administrator, and the password was typed in by a person: it is rolled.
    assert!(eventually(Duration::from_secs(10), || step(&stack).map(drop)).is_some(), "a roll begins by itself");
    let status = stack.admin(&["rack", "roll", "main", "--org", "acme", "--status"]).unwrap();
    assert_eq!((status["roll"]["reason"].as_str(), status["roll"]["cut_streams"].as_bool()), (Some("member left"), Some(true)));
}

#[test]
fn tokens_are_listed_revoked_and_roll_with_their_key() {
    let stack = Stack::start().unwrap();
    let direct = stack.go_direct(Generation::V3);
    let mint = |by: &GoClient, role: &str| {
        let made = by.form("POST", "/system/jwt/token", &[("role", role), ("durationInHour", "2")]).unwrap();
        GoClient { user: "jwt".to_owned(), password: made.json()["token"].as_str().unwrap_or_default().to_owned(), ..direct.clone() }
    };
    let alive = |client: &GoClient| client.get("/apps", "").unwrap().status == 200;
    let parent = mint(&direct, "admin");
    let (reader, child) = (mint(&direct, "read"), mint(&parent, "write"));
    let list = direct.get("/system/jwt/tokens", "").unwrap().json();
    let of = |role: &str| list.as_array().unwrap().iter().find(|token| token["role"] == role).unwrap().clone();
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert_eq!(of("write")["parent"], of("admin")["id"]);
    assert!(!list.to_string().contains(&reader.password), "a list shows no token");
    // A reader mints nothing and a writer neither.
    for client in [&reader, &child] {
        assert_eq!(client.form("POST", "/system/jwt/token", &[("role", "read"), ("durationInHour", "1")]).unwrap().status, 401);
    }
    assert_eq!(parent.form("PUT", "/system/password", &[("password", "anotherPasswordAnotherPassword")]).unwrap().status, 403);
    // One goes with what came from it, and nothing else does.
    let path = format!("/system/jwt/tokens/{}", of("admin")["id"].as_str().unwrap());
    assert_eq!(direct.raw("DELETE", &path, &[], b"").unwrap().status, 200);
    assert!(!alive(&parent) && !alive(&child) && alive(&reader));
    assert_eq!(direct.raw("DELETE", "/system/jwt/tokens/unknown", &[], b"").unwrap().status, 404);
    // A rotation with an overlap: the old key is believed until the window ends.
    assert_eq!(direct.form("PUT", "/system/jwt/rotate", &[("overlap", "3s")]).unwrap().status, 200);
    let newer = mint(&direct, "read");
    assert!(alive(&reader) && alive(&newer));
    assert!(eventually(Duration::from_secs(10), || (!alive(&reader)).then_some(())).is_some(), "the window has ended");
    assert!(alive(&newer));
    // As the originals rotate: at once.
    assert_eq!(direct.raw("PUT", "/system/jwt/rotate", &[], b"").unwrap().status, 200);
    assert!(!alive(&newer));
    let last = mint(&direct, "read");
    assert_eq!(direct.raw("DELETE", "/system/jwt/tokens", &[], b"").unwrap().status, 200);
    assert!(!alive(&last));
}

/// What a token says of itself.
fn claims(token: &str) -> serde_json::Value {
    use base64::Engine as _;
    let body = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap()
}

/// T27. How tokens are forged otherwise: `crates/seal/src/access/tests.rs`.
#[test]
fn a_child_token_is_never_more_than_its_parent_and_dies_with_it() {
    const ROLES: [&str; 3] = ["read", "write", "admin"];
    struct Made {
        client: GoClient,
        parent: Option<usize>,
        role: usize,
        ends: i64,
        id: String,
    }
    let stack = Stack::start().unwrap();
    let direct = stack.go_direct(Generation::V3);
    let mut tokens: Vec<Made> = Vec::new();
    // The same walk each time: multiplied and folded, as a poor man's dice.
    let mut dice = 7u64;
    let mut roll = |below: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % below
    };
    for _ in 0..120 {
        let parent = (!tokens.is_empty() && roll(6) > 0).then(|| roll(tokens.len() as u64) as usize);
        let (role, hours) = (roll(3) as usize, 1 + roll(8760));
        let by = parent.map_or(&direct, |parent| &tokens[parent].client);
        let reply = by.form("POST", "/system/jwt/token", &[("role", ROLES[role]), ("durationInHour", &hours.to_string())]).unwrap();
        // Only an administrator's token makes others, and none with more than it has.
        let may = parent.is_none_or(|parent| tokens[parent].role == 2);
        assert_eq!(reply.status == 200, may, "{}", reply.text());
        if may {
            let token = reply.json()["token"].as_str().unwrap().to_owned();
            let said = claims(&token);
            let (ends, id) = (said["exp"].as_i64().unwrap(), said["jti"].as_str().unwrap().to_owned());
            assert_eq!(said["role"], ["r", "rw", "rwa"][role]);
            if let Some(parent) = parent {
                assert!(ends <= tokens[parent].ends && role <= tokens[parent].role, "{said}");
            }
            let client = GoClient { user: "jwt".to_owned(), password: token, ..direct.clone() };
            tokens.push(Made { client, parent, role, ends, id });
        }
    }
    assert!(tokens.iter().filter(|made| made.parent.is_some()).count() > 10, "the walk goes down, too");
    // One in the middle of the tree is revoked: what came from it is dead, and nothing else.
    let children = |of: usize| tokens.iter().filter(|made| made.parent == Some(of)).count();
    let revoked = (0..tokens.len()).filter(|&at| tokens[at].parent.is_some()).max_by_key(|&at| children(at)).unwrap();
    assert!(children(revoked) > 0);
    assert_eq!(direct.raw("DELETE", &format!("/system/jwt/tokens/{}", tokens[revoked].id), &[], b"").unwrap().status, 200);
    let dead = |mut at: usize| loop {
        match tokens[at].parent {
            _ if at == revoked => break true,
            Some(parent) => at = parent,
            None => break false,
        }
    };
    for (at, made) in tokens.iter().enumerate() {
        assert_eq!(made.client.get("/apps", "").unwrap().status == 200, !dead(at), "token {at}");
        if dead(at) {
            let child = made.client.form("POST", "/system/jwt/token", &[("role", "read"), ("durationInHour", "1")]).unwrap();
            assert_eq!(child.status, 401, "{}", child.text());
        }
    }
}

#[test]
fn the_password_is_rolled_on_the_racks_own_machine() {
    let stack = Stack::start().unwrap();
    let out = stack.dir().join("new.password");
    let rack = |args: &[&str]| {
        let data = stack.rack_data();
        let run = std::process::Command::new(convox_testkit::binary("convox-rack")).args(args).arg("--data").arg(data).output().unwrap();
        (run.status.success(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    let roll = ["password", "roll", "--window", "2s", "--out", out.to_str().unwrap()];
    assert!(rack(&roll).0);
    assert!(rack(&roll).0, "the same again changes nothing");
    let new = GoClient { password: std::fs::read_to_string(&out).unwrap(), ..stack.go_direct(Generation::V3) };
    let works = |client: &GoClient| client.get("/auth", "").unwrap().status == 200;
    assert!(eventually(Duration::from_secs(5), || works(&new).then_some(())).is_some(), "a running Rack notices");
    assert!(
        eventually(Duration::from_secs(10), || password_of_the_rack_is_refused(&stack).then_some(())).is_some(),
        "and ends the old one"
    );
    assert!(works(&new));
    let (_, error) = rack(&["password", "retire"]);
    assert!(error.contains("no roll"), "{error}");
    assert_ne!(new.password, RACK_PASSWORD);
}

#[test]
fn our_command_line_rolls_lists_and_revokes_through_the_console() {
    let stack = Stack::start().unwrap();
    let cli = stack.cli();
    cli.run(&["rack", "access", "--role", "read", "--duration-in-hours", "1"]).ok();
    let tokens = cli.run(&["rack", "access", "list", "--json"]).json();
    assert_eq!((tokens[0]["role"].as_str(), tokens[0]["made-by"].as_str()), (Some("read"), Some("admin@example.com")));
    let id = tokens[0]["id"].as_str().unwrap();
    cli.run(&["rack", "access", "revoke", id]).ok();
    assert!(cli.run(&["rack", "access", "list"]).ok().contains("revoked"));
    assert!(cli.run(&["rack", "access", "revoke", "unknown"]).err().contains("token not found"));
    cli.run(&["rack", "access", "key", "rotate", "--overlap", "1h"]).ok();
    cli.run(&["rack", "password", "roll", "--window", "1s"]).ok();
    assert!(password_of_the_rack_is_refused(&stack));
    assert!(cli.run(&["rack", "password", "status"]).ok().contains("none under way"));
}

#[test]
fn a_certificate_is_rolled_and_everybody_follows_who_pinned_it() {
    let stack = Stack::start().unwrap();
    let (cli, direct) = (stack.cli(), stack.direct());
    let client = stack.go(Generation::V3);
    let roll = |program: &str, data: std::path::PathBuf| {
        let done = std::process::Command::new(convox_testkit::binary(program)).args(["tls", "roll", "--data"]).arg(data).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let (stop, good) = (AtomicBool::new(false), AtomicU64::new(0));
    let bad = std::thread::scope(|scope| {
        let load = scope.spawn(|| ask_again_and_again(&client, &stop, &good));
        roll("convox-rack", stack.rack_data());
        let shown = |host: &str| cli.run(&["trust", host, "--json"]).json()["shown"].as_str().unwrap().to_owned();
        let new = eventually(Duration::from_secs(10), || {
            let shown = shown(&stack.rack.host);
            (shown != stack.rack.fingerprint.to_string()).then_some(shown)
        });
        let new = new.expect("a running Rack shows the new certificate");
        // Through the Console, which pinned the old one, and straight, with a pin of our command line.
        cli.run(&["apps"]).ok();
        let ran = direct.run(&["apps"]);
        assert!(ran.stderr.contains("vouches for the new one") && ran.stderr.contains(&new), "{}", ran.stderr);
        assert!(direct.run(&["apps"]).stderr.is_empty(), "said once");
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    assert!(bad.is_empty(), "{bad:?}");
    // A certificate that nobody vouches for is refused.
    let tls = stack.rack_data().join("tls");
    std::fs::remove_dir_all(&tls).unwrap();
    let mut stack = stack;
    stack.rack.restart().unwrap();
    let refused = direct.run(&["apps"]).err();
    assert!(refused.contains("certificate has changed"), "{refused}");
    assert_eq!(client.get("/apps", "").unwrap().status, 502);
}
