//! Databases and queues of apps: real servers, made with the first promotion and kept for as long as the app.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use convox_testkit::go::Generation;
use convox_testkit::{Cli, Stack, eventually};

use crate::{example, page, post};

const LONG: Duration = Duration::from_mins(1);

fn web(cli: &Cli) -> String {
    let listing = cli.run(&["services", "-a", "book", "--json"]).json();
    let web = listing.as_array().unwrap().iter().find(|service| service["name"] == "web").unwrap();
    web["domain"].as_str().unwrap().to_owned()
}

#[test]
fn an_app_has_a_database_and_a_queue_that_outlive_its_releases_and_its_rack() {
    let mut stack = Stack::start().unwrap();
    let cli = stack.cli();
    let source = example(&stack, "guestbook");
    cli.run(&["apps", "create", "book"]).ok();
    let said = cli.at(&source).run(&["deploy", "-a", "book", "--wait"]);
    assert_eq!(said.code, 0, "{}{}\n{}", said.stdout, said.stderr, cli.run(&["logs", "-a", "book", "--no-follow"]).stdout);
    let address = web(&cli);
    assert!(post(&address, "/", "it's me").unwrap().contains("thank you"));
    let shown = || page(&address, "/").filter(|page| page.contains("1: it's me"));
    assert!(eventually(LONG, shown).is_some(), "{}", cli.run(&["logs", "-a", "book", "--no-follow"]).stdout);

    // What people and their tools are told, the original clients included.
    let listing = cli.run(&["resources", "-a", "book"]).ok();
    let rows: Vec<&str> = listing.lines().collect();
    assert!(rows[0].starts_with("NAME      TYPE      URL") && rows[1].starts_with("database  postgres  postgres://app:"), "{listing}");
    assert!(rows[2].starts_with("queue     redis     redis://:"), "{listing}");
    let url = cli.run(&["resources", "url", "database", "-a", "book"]).ok();
    let seen = std::process::Command::new("psql").args([url.trim(), "-Atc", "SELECT message FROM messages"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "it's me\n", "{}", String::from_utf8_lossy(&seen.stderr));
    for (generation, status) in [(Generation::V2, "running"), (Generation::V3, "running")] {
        let reply = stack.go(generation).get("/apps/book/resources/database", "").unwrap();
        let resource: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!((&resource["url"], &resource["status"], &resource["type"]), (&url.trim().into(), &status.into(), &"postgres".into()));
        let missing = stack.go(generation).get("/apps/book/resources/nothing", "").unwrap();
        assert_eq!((missing.status, missing.text().contains("resource not found: nothing")), (404, true), "{}", missing.text());
    }
    // No account but the app's own gets in, and the app is no administrator of its server.
    let refused = std::process::Command::new("psql").args([url.replace("app:", "convox:").trim(), "-c", "SELECT 1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("authentication failed"));
    let refused = std::process::Command::new("psql").args([url.trim(), "-c", "COPY messages FROM PROGRAM 'true'"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("pg_execute_server_program"));

    // Consoles, and data on the way out and in: all of it or nothing.
    let console = cli.terminal(&["resources", "console", "database", "-a", "book"], 30, 100, b"SELECT 40 + 2;\n\\q\n").unwrap();
    assert!(console.stdout.contains("42") && console.code == 0, "{}", console.stdout);
    // Its line editor throws away what is typed ahead.
    let console = cli.terminal(&["resources", "console", "queue", "-a", "book"], 30, 100, b"quit\r").unwrap();
    assert!(console.stdout.contains("127.0.0.1:") && console.code == 0, "{}", console.stdout);
    let dump = stack.dir().join("dump.sql");
    cli.run(&["resources", "export", "database", "-a", "book", "-f", dump.to_str().unwrap()]).ok();
    let text = std::fs::read_to_string(&dump).unwrap();
    assert!(text.contains("COPY public.messages") && text.contains("it's me") && text.contains("dump complete"), "{text}");
    // An upload that breaks off in the middle counts for nothing, whatever came of it.
    let path = "/apps/book/resources/database/data";
    let mut cut = stack.go(Generation::V3).begin("PUT", path, "application/octet-stream", 1000).unwrap();
    cut.write_all(b"DELETE FROM messages;\nDELETE FROM messages").unwrap();
    cut.flush().unwrap();
    let is_at_work = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'";
    let others = || std::process::Command::new("psql").args([url.trim(), "-Atc", is_at_work]).output().unwrap().stdout;
    assert!(eventually(LONG, || (others() == b"1\n").then_some(())).is_some(), "the first statement is carried out");
    drop(cut);
    assert!(eventually(LONG, || (others() == b"0\n").then_some(())).is_some(), "the session outlives its upload");
    assert!(shown().is_some(), "an import that was cut off took the data");
    let half = format!("DROP TABLE messages;\n{}\nSELECT * FROM nothing;\n", text.replace("it's me", "somebody else"));
    std::fs::write(&dump, &half).unwrap();
    let refused = cli.run(&["resources", "import", "database", "-a", "book", "-f", dump.to_str().unwrap()]).err();
    assert!(refused.contains("nothing was imported") && refused.contains("nothing\" does not exist"), "{refused}");
    assert!(shown().is_some(), "a half import took the data");
    std::fs::write(&dump, half.replace("SELECT * FROM nothing;\n", "")).unwrap();
    cli.run(&["resources", "import", "database", "-a", "book", "-f", dump.to_str().unwrap()]).ok();
    assert!(page(&address, "/").unwrap().contains("1: somebody else"));
    // One that fails says why, and leaves no file that looks like one.
    let psql = |statement: &str| assert!(Command::new("psql").args([url.trim(), "-qc", statement]).status().unwrap().success());
    psql("ALTER TABLE messages ENABLE ROW LEVEL SECURITY; ALTER TABLE messages FORCE ROW LEVEL SECURITY");
    let half = stack.dir().join("half.sql");
    let refused = cli.run(&["resources", "export", "database", "-a", "book", "-f", half.to_str().unwrap()]).err();
    assert!(refused.contains("nothing was exported: pg_dump: error:") && refused.contains("row-level security"), "{refused}");
    assert!(!half.exists());
    psql("ALTER TABLE messages DISABLE ROW LEVEL SECURITY; ALTER TABLE messages NO FORCE ROW LEVEL SECURITY");
    let refused = cli.run(&["resources", "export", "queue", "-a", "book", "-f", "x"]).err();
    assert!(refused.contains("export not available for resources of type: redis"), "{refused}");

    // A proxy leads to it.
    let mut proxy = cli.command(&["resources", "proxy", "database", "-a", "book", "--port", "29431"]).spawn().unwrap();
    let through = eventually(LONG, || {
        let port = url.rsplit_once(':').unwrap().1.split('/').next().unwrap();
        let seen = std::process::Command::new("psql").args([url.replace(port, "29431").trim(), "-Atc", "SELECT 1"]).output().unwrap();
        (seen.stdout == b"1\n").then_some(())
    });
    let _ = proxy.kill();
    let _ = proxy.wait();
    assert!(through.is_some(), "no connection through the proxy");

    // The Rack is killed: the servers run on, and who is connected never notices. Then a server is: another one follows on the same data.
    let pid =
        || std::process::Command::new("psql").args([url.trim(), "-Atc", "SELECT pg_postmaster_start_time()"]).output().unwrap().stdout;
    let before = pid();
    let mut session = Command::new("psql").args([url.trim(), "-At"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut ask, mut answers) = (session.stdin.take().unwrap(), BufReader::new(session.stdout.take().unwrap()).lines());
    let mut asked = |words: &str| {
        writeln!(ask, "SELECT '{words}';").unwrap();
        answers.next().and_then(Result::ok).unwrap_or_default()
    };
    assert_eq!(asked("before"), "before");
    stack.rack.restart().unwrap();
    let status = || cli.run(&["resources", "-a", "book", "--json"]).json()[0]["status"].as_str().unwrap_or_default().to_owned();
    assert!(eventually(LONG, || (status() == "running").then_some(())).is_some());
    assert_eq!(pid(), before, "the server was started anew");
    assert_eq!(asked("after"), "after", "a connection ended with the Rack");
    drop(ask);
    session.wait().unwrap();
    let postmaster = std::fs::read_to_string(stack.rack_data().join("resources/book/database/postgres/data/postmaster.pid")).unwrap();
    let postmaster = rustix::process::Pid::from_raw(postmaster.lines().next().unwrap().parse().unwrap()).unwrap();
    // One that does not answer is told of, and left alone: it may be busy with itself.
    rustix::process::kill_process(postmaster, rustix::process::Signal::STOP).unwrap();
    let seen = eventually(LONG, || (status() == "unhealthy").then_some(()));
    rustix::process::kill_process(postmaster, rustix::process::Signal::CONT).unwrap();
    assert!(seen.is_some(), "a server that does not answer is listed as {}", status());
    assert!(eventually(LONG, || (status() == "running").then_some(())).is_some());
    assert_eq!(pid(), before);
    rustix::process::kill_process(postmaster, rustix::process::Signal::KILL).unwrap();
    // Its port stays the app's meanwhile: whoever connects waits.
    let port = url.rsplit_once(':').unwrap().1.split('/').next().unwrap().to_owned();
    let back = eventually(LONG, || {
        std::net::TcpStream::connect(format!("127.0.0.1:{port}")).expect("the port is open while the server is not ready");
        Some(pid()).filter(|pid| *pid != before && !pid.is_empty())
    });
    assert!(back.is_some(), "{}", stack.rack.log());
    assert!(eventually(LONG, || page(&address, "/").filter(|page| page.contains("1: somebody else"))).is_some());

    // A manifest without it stops it, says that the data stays, and one with it again has that data.
    let manifest = std::fs::read_to_string(source.join("convox.yml")).unwrap();
    let without =
        manifest.replace("  database:\n    type: postgres\n", "").replace("      - database\n", "").replace("perl web.pl", "sleep 600");
    let without = without.replace("    port: 3000\n    health: /health\n", "").replace("perl worker.pl", "sleep 600");
    std::fs::write(source.join("convox.yml"), without).unwrap();
    cli.at(&source).run(&["deploy", "-a", "book", "--wait"]).ok();
    let told =
        eventually(LONG, || Some(cli.run(&["logs", "-a", "book", "--no-follow"]).ok()).filter(|log| log.contains("its data is kept")));
    assert!(told.is_some() && pid().is_empty());
    std::fs::write(source.join("convox.yml"), manifest).unwrap();
    cli.at(&source).run(&["deploy", "-a", "book", "--wait"]).ok();
    let address = web(&cli);
    assert!(eventually(LONG, || page(&address, "/").filter(|page| page.contains("1: somebody else"))).is_some());

    // A URL of one's own takes its place, and a version that is not there is refused by name.
    cli.run(&["env", "set", "QUEUE_URL=redis://elsewhere.example:6379", "-a", "book"]).ok();
    let wrong = std::fs::read_to_string(source.join("convox.yml"))
        .unwrap()
        .replace("type: postgres\n", "type: postgres\n    options: {version: 9.6}\n");
    std::fs::write(source.join("convox.yml"), wrong).unwrap();
    let _ = cli.at(&source).run(&["deploy", "-a", "book", "--wait"]);
    let log = eventually(LONG, || Some(cli.run(&["logs", "-a", "book", "--no-follow"]).ok()).filter(|log| log.contains("not promoted")));
    let log = log.expect("the promotion fails");
    assert!(log.contains("resource database did not become ready: its data was made by PostgreSQL") && log.contains("asks for 9"), "{log}");
    assert!(
        eventually(LONG, || page(&address, "/").filter(|page| page.contains("1: somebody else"))).is_some(),
        "the old release has lost its database"
    );

    // Nothing of it in the open: not among the arguments of programs, not in the Rack's own log; and nothing left of a deleted app.
    let password = url.split_once("app:").unwrap().1.split_once('@').unwrap().0;
    let arguments = std::process::Command::new("ps").args(["-eo", "args"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&arguments.stdout).contains(password));
    assert!(!stack.rack.log().contains(password) && !log.contains(password));
    cli.run(&["apps", "delete", "book"]).ok();
    assert!(eventually(LONG, || (!stack.rack_data().join("resources/book").exists()).then_some(())).is_some(), "{}", stack.rack.log());
    assert!(pid().is_empty());
}

#[test]
fn a_database_whose_rack_is_killed_while_it_is_made_is_made_anew() {
    let mut stack = Stack::start().unwrap();
    let cli = stack.direct();
    let source = example(&stack, "guestbook");
    cli.run(&["apps", "create", "book"]).ok();
    let release = cli.at(&source).run(&["build", "-a", "book", "--id"]).ok();
    let base = stack.rack_data().join("resources/book/database/postgres");
    cli.run(&["releases", "promote", release.trim(), "-a", "book"]).ok();
    let mut kills = 0;
    for part in ["base", "global/pg_control", "postgresql.auto.conf"] {
        // In the middle of initdb, at three different places.
        let is_made = || base.join("data").exists();
        let half = eventually(LONG, || {
            let parts = std::fs::read_dir(&base).ok()?.flatten().filter(|entry| entry.path().join(part).exists()).count();
            (parts > 0 || is_made()).then_some(())
        });
        assert!(half.is_some(), "{}", cli.run(&["logs", "-a", "book", "--no-follow"]).stdout);
        kills += u32::from(!is_made());
        stack.rack.restart().unwrap();
    }
    assert!(kills > 0, "it was made before it could be interrupted");
    let shown = eventually(LONG, || {
        let listing = cli.run(&["services", "-a", "book", "--json"]).json();
        let web = listing.as_array()?.iter().find(|service| service["name"] == "web")?.clone();
        page(web["domain"].as_str()?, "/")
    });
    assert!(shown.is_some(), "{}\n{}", cli.run(&["logs", "-a", "book", "--no-follow"]).stdout, stack.rack.log());
    let left: Vec<_> = std::fs::read_dir(&base).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("new")), "{left:?}");
}
