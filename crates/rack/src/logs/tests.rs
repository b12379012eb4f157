//! What readers of a log are promised.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn store(dir: &Path) -> LogStore {
    LogStore::open(dir, LogLimits { segment_bytes: 2048, segments: 1000, age: Duration::from_hours(1) }).unwrap()
}

async fn messages(store: &LogStore, query: LogQuery) -> Vec<String> {
    store.query("app", query).map(|line| line.message).collect().await
}

#[tokio::test]
async fn stored_lines_come_back_in_order_across_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let expected: Vec<String> = (0..300).map(|index| format!("line {index}")).collect();
    for line in &expected {
        store.append("app", "service/web/a1", line);
    }
    assert_eq!(messages(&store, LogQuery::default()).await, expected);
}

#[tokio::test]
async fn filter_streams_and_tail_choose_lines() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.append("app", "service/web/a1", "GET /\nGET /health");
    store.append("app", "service/webber/b2", "GET /other");
    store.append("app", "system/service/web", "started");
    let filtered = LogQuery { filter: Some("health".into()), ..LogQuery::default() };
    assert_eq!(messages(&store, filtered).await, ["GET /health"]);
    let of_web = LogQuery { streams: vec!["service/web".into()], ..LogQuery::default() };
    assert_eq!(messages(&store, of_web).await, ["GET /", "GET /health"]);
    let of_process = LogQuery { streams: vec!["service/*/b2".into(), "nope".into()], ..LogQuery::default() };
    assert_eq!(messages(&store, of_process).await, ["GET /other"]);
    let tail = LogQuery { tail: Some(2), ..LogQuery::default() };
    assert_eq!(messages(&store, tail).await, ["GET /other", "started"]);
    let none = LogQuery { tail: Some(0), ..LogQuery::default() };
    assert_eq!(messages(&store, none).await, Vec::<String>::new());
}

#[tokio::test]
async fn since_leaves_out_what_is_older() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    std::fs::create_dir_all(dir.path().join("app")).unwrap();
    std::fs::write(dir.path().join("app/0000000001.log"), "2020-01-01T00:00:00Z s old\n").unwrap();
    store.append("app", "s", "new");
    let recent = LogQuery { since: Some(Duration::from_mins(2)), ..LogQuery::default() };
    assert_eq!(messages(&store, recent).await, ["new"]);
    assert_eq!(messages(&store, LogQuery::default()).await, ["old", "new"]);
}

#[tokio::test]
async fn followers_see_every_line_once_while_writers_rotate() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    for index in 0..100 {
        store.append("app", "s", &format!("{index}"));
    }
    let followers: Vec<_> = (0..3)
        .map(|_| {
            let lines = store.query("app", LogQuery { follow: true, ..LogQuery::default() });
            tokio::spawn(async move { lines.take(1100).map(|line| line.message).collect::<Vec<_>>().await })
        })
        .collect();
    // Another process's writer: it shares nothing with the store but the directory.
    let mut other = LogWriter::new(&dir.path().join("app"), store.limits());
    let writing = tokio::task::spawn_blocking(move || {
        for index in 100..1100 {
            other.write(&segment::block("s", &format!("{index}"))).unwrap();
        }
    });
    writing.await.unwrap();
    let expected: Vec<String> = (0..1100).map(|index| index.to_string()).collect();
    for follower in followers {
        assert_eq!(timeout(SOON, follower).await.unwrap().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_follower_of_an_app_that_never_logged_gets_its_first_line() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let mut lines = store.query("app", LogQuery { follow: true, tail: Some(10), ..LogQuery::default() });
    store.append("app", "system/x", "first");
    assert_eq!(timeout(SOON, lines.next()).await.unwrap().unwrap().message, "first");
}

#[tokio::test]
async fn a_follower_ends_when_the_log_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.append("app", "s", "one");
    let mut lines = store.query("app", LogQuery { follow: true, ..LogQuery::default() });
    assert_eq!(timeout(SOON, lines.next()).await.unwrap().unwrap().message, "one");
    store.remove("app").unwrap();
    assert_eq!(timeout(SOON, lines.next()).await.unwrap(), None);
}

#[tokio::test]
async fn no_name_leads_out_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir.path().join("logs"));
    store.append("../escaped", "s", "x");
    store.append("", "s", "x");
    assert!(store.remove("..").is_err());
    assert!(!dir.path().join("escaped").exists());
}

#[test]
fn a_line_is_rendered_as_clients_expect() {
    let line = LogLine { time: "2026-01-02T03:04:05.678Z".parse().unwrap(), stream: "service/web/a1".into(), message: "hi".into() };
    assert_eq!(line.render(true), "2026-01-02T03:04:05Z service/web/a1 hi");
    assert_eq!(line.render(false), "hi");
}

#[test]
fn a_shorter_age_holds_from_the_next_look_on() {
    let dir = tempfile::tempdir().unwrap();
    let logs = LogStore::open(dir.path(), LogLimits::default()).unwrap();
    logs.append("app", "s", "old");
    let log = dir.path().join("app");
    let (first, second) = (segment::path(&log, 1), segment::path(&log, 2));
    std::fs::rename(&first, log.join("new")).unwrap();
    std::fs::write(&first, "2020-01-01T00:00:00Z s old\n").unwrap();
    std::fs::rename(log.join("new"), &second).unwrap();
    let two_days_ago = std::time::SystemTime::now() - Duration::from_hours(48);
    std::fs::File::open(&first).unwrap().set_modified(two_days_ago).unwrap();
    logs.expire();
    assert!(first.exists());
    logs.set_age(Duration::from_hours(24));
    logs.expire();
    assert!(!first.exists() && second.exists());
}
