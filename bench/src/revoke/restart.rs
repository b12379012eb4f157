//! Revocations on three Consoles whose PostgreSQL is restarted meanwhile: what is confirmed is in force on all of them, what cannot be
//! confirmed is said to have failed, and whoever cannot see the database refuses after five seconds, until it can.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::ground::Ground;
use super::{PROMISE_MS, quantile};
use crate::postgres::Postgres;

pub(super) const ON: &str = "three Consoles on PostgreSQL that restarts";
const NODES: usize = 3;
/// A Console that cannot see the database trusts its memory for so long (ADR 0006).
const TRUST: Duration = Duration::from_secs(5);
/// For what is begun at the very end of that, as a busy machine sees it.
const SLACK: Duration = Duration::from_millis(300);
/// How long the database is away: for less than memory is trusted, and for more.
const AWAY: [(Duration, &str); 2] = [(Duration::from_secs(2), "fast"), (Duration::from_secs(9), "immediate")];
/// Keys that are revoked between two restarts.
const BETWEEN: usize = 30;
/// Refusals after which a key is not used any more.
const ENOUGH: usize = 3;
/// Stands for an answer that did not come.
const CUT: u16 = 0;

/// What was found.
pub(super) struct Found {
    /// Milliseconds, of revocations while the database is there: until they are answered, and until the last request that each Console serves.
    answer: Vec<f64>,
    last: [Vec<f64>; NODES],
    outages: Vec<Outage>,
    /// Requests that were served, and those of them that were begun after a revocation of their key was confirmed.
    served: usize,
    late: usize,
}

/// One time without the database.
struct Outage {
    mode: &'static str,
    away_s: f64,
    /// Tries to revoke that were refused, and the longest of them.
    refused: usize,
    longest_s: f64,
    /// Of each Console: from the stop to the last request that it served from memory, seconds; and from when the database took connections
    /// again to the next one that it served, milliseconds.
    closed_s: [f64; NODES],
    again_ms: [f64; NODES],
    /// When an open log stream was cut, seconds after the stop; where memory stopped being trusted.
    log_s: Option<f64>,
}

/// One request: with which key, when it was begun, and how it was answered.
struct Asked {
    key: usize,
    begun: Instant,
    status: u16,
}

/// What those who ask have seen so far, by Console and key.
#[derive(Default)]
struct Seen {
    served: [[AtomicUsize; 2]; NODES],
    refused: [[AtomicUsize; 2]; NODES],
    /// Since the database is there again.
    again: [AtomicUsize; NODES],
    is_again: AtomicBool,
    stop: AtomicBool,
    has_failed: AtomicBool,
}

impl Seen {
    fn until(&self, what: &str, holds: impl Fn(usize) -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_mins(1);
        while !(0..NODES).all(&holds) {
            ensure!(Instant::now() < end && !self.has_failed.load(SeqCst), "never at every Console: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn count(counts: &[[AtomicUsize; 2]; NODES], node: usize, key: usize) -> usize {
        counts.get(node).and_then(|of| of.get(key)).map_or(0, |count| count.load(SeqCst))
    }

    fn add(counts: &[[AtomicUsize; 2]; NODES], node: usize, key: usize) {
        if let Some(count) = counts.get(node).and_then(|of| of.get(key)) {
            count.fetch_add(1, SeqCst);
        }
    }
}

pub(super) fn measure(console: &Path, rounds: usize) -> anyhow::Result<Found> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(&directory.path().join("postgres"))?;
    let ground = Ground::new(console, Some(&postgres.url), NODES)?;
    let mut found = Found { answer: Vec::new(), last: Default::default(), outages: Vec::new(), served: 0, late: 0 };
    for round in 0..rounds {
        for (away, mode) in AWAY {
            for run in 0..BETWEEN {
                connected(&ground, run, &mut found).with_context(|| format!("round {round}, key {run}"))?;
            }
            let outage = outage(&ground, &postgres, away, mode, &mut found).with_context(|| format!("round {round}, away for {away:?}"))?;
            writeln!(std::io::stderr(), "{ON}: {mode} stop, away for {:.1} s: {} tries to revoke refused", outage.away_s, outage.refused)?;
            found.outages.push(outage);
        }
    }
    Ok(found)
}

/// A key that is used at all three is revoked at one of them.
fn connected(ground: &Ground, run: usize, found: &mut Found) -> anyhow::Result<()> {
    let mut admin = ground.at(run % NODES)?;
    let (id, key) = ground.key(&mut admin, &format!("restart-{run}"))?;
    let ((sent, answered), asked) = meanwhile(ground, &[&key], |seen| {
        seen.until("a new key is served", |node| Seen::count(&seen.served, node, 0) > 0)?;
        let times = ground.revoke(&mut admin, &id)?;
        seen.until("a revoked key is refused", |node| Seen::count(&seen.refused, node, 0) >= ENOUGH)?;
        Ok(times)
    })?;
    let ms = |at: Instant| at.saturating_duration_since(sent).as_secs_f64() * 1000.0;
    found.answer.push(ms(answered));
    for (last, asked) in found.last.iter_mut().zip(&asked) {
        last.extend(asked.iter().filter(|one| one.status == 200).map(|one| ms(one.begun)).reduce(f64::max));
    }
    found.note(&asked, 0, Some(answered));
    Ok(())
}

/// The database goes away while one key is being revoked and another one is used, and comes back.
fn outage(ground: &Ground, postgres: &Postgres, away: Duration, mode: &'static str, found: &mut Found) -> anyhow::Result<Outage> {
    const LIVING: usize = 0;
    const DOOMED: usize = 1;
    let mut admin = ground.at(0)?;
    let number = found.outages.len();
    let (_, living) = ground.key(&mut admin, &format!("living-{number}"))?;
    let (id, doomed) = ground.key(&mut admin, &format!("doomed-{number}"))?;
    let mut log = ground.at(NODES - 1)?;
    log.upgrade("/apps/web/logs", &living)?;
    let ((stopped, starting, back, refused, longest_s, confirmed, log_end), asked) = meanwhile(ground, &[&living, &doomed], |seen| {
        seen.until("both keys are served", |node| (LIVING..=DOOMED).all(|key| Seen::count(&seen.served, node, key) > 0))?;
        std::thread::scope(|scope| {
            postgres.stop(mode)?;
            let stopped = Instant::now();
            let log = (away > TRUST).then(|| {
                scope.spawn(move || {
                    let end = log.listen();
                    (Instant::now(), end)
                })
            });
            // At once, and again until it is confirmed.
            let (admin, id) = (&mut admin, &id);
            let revoking = scope.spawn(move || -> anyhow::Result<_> {
                let (mut refused, mut longest_s) = (0, 0f64);
                loop {
                    ensure!(stopped.elapsed() < away + Duration::from_mins(1), "a revocation is never confirmed");
                    let sent = Instant::now();
                    let reply = ground.try_to_revoke(admin, id)?;
                    match reply.status {
                        200 => return Ok((refused, longest_s, Some(Instant::now()))),
                        // A try that seemed to fail had reached the disk.
                        404 if refused > 0 => return Ok((refused, longest_s, None)),
                        503 if reply.body.contains("database") => {}
                        other => bail!("a revocation without the database was answered with {other}: {}", reply.body),
                    }
                    refused += 1;
                    longest_s = longest_s.max(sent.elapsed().as_secs_f64());
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            std::thread::sleep(away.saturating_sub(stopped.elapsed()));
            // It takes connections before whoever starts it hears of that.
            let starting = Instant::now();
            postgres.run()?;
            let back = Instant::now();
            seen.is_again.store(true, SeqCst);
            let join = |what: &str| anyhow::anyhow!("{what} ended in a fault");
            let (refused, longest_s, confirmed) = revoking.join().map_err(|_| join("revoking"))??;
            seen.until("the other key is served again", |node| seen.again.get(node).is_some_and(|again| again.load(SeqCst) > 0))?;
            seen.until("the revoked key is refused", |node| Seen::count(&seen.refused, node, DOOMED) >= ENOUGH)?;
            let log_end = log.map(std::thread::ScopedJoinHandle::join).transpose().map_err(|_| join("the log"))?;
            Ok((stopped, starting, back, refused, longest_s, confirmed, log_end))
        })
    })?;
    found.note(&asked, DOOMED, confirmed);
    let served = |asked: &[Asked], is_in: &dyn Fn(Instant) -> bool, key: Option<usize>| -> Vec<Instant> {
        let all = asked.iter().filter(|one| one.status == 200 && key.is_none_or(|key| one.key == key) && is_in(one.begun));
        all.map(|one| one.begun).collect()
    };
    let mut outage = Outage {
        mode,
        away_s: starting.duration_since(stopped).as_secs_f64(),
        refused,
        longest_s,
        closed_s: [0.0; NODES],
        again_ms: [0.0; NODES],
        log_s: log_end.as_ref().map(|(at, _)| at.saturating_duration_since(stopped).as_secs_f64()),
    };
    for ((asked, closed), again) in asked.iter().zip(&mut outage.closed_s).zip(&mut outage.again_ms) {
        let last = served(asked, &|begun| begun < starting, None).into_iter().max().context("nothing was served before")?;
        *closed = last.saturating_duration_since(stopped).as_secs_f64();
        let next = served(asked, &|begun| begun >= starting, Some(LIVING)).into_iter().min().context("nothing is served again")?;
        *again = next.saturating_duration_since(back).as_secs_f64() * 1000.0;
        if away > TRUST {
            ensure!(*closed <= (TRUST + SLACK).as_secs_f64(), "served {closed:.2} s after the database was stopped");
            ensure!(asked.iter().any(|one| one.status == 503), "nothing was refused without the database");
        }
    }
    if let Some((_, end)) = log_end {
        ensure!(end.text.contains("cannot reach its database"), "an open log ended without saying why: {:?} {:?}", end.reason, end.text);
    }
    Ok(outage)
}

/// Somebody asks at each Console with each key in turn, while `work` is done. Gives what each of them was answered.
fn meanwhile<T>(ground: &Ground, keys: &[&str], work: impl FnOnce(&Seen) -> anyhow::Result<T>) -> anyhow::Result<(T, Vec<Vec<Asked>>)> {
    let seen = Seen::default();
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..NODES)
            .map(|node| {
                let seen = &seen;
                scope.spawn(move || {
                    let asked = ask(ground, node, keys, seen);
                    seen.has_failed.fetch_or(asked.is_err(), SeqCst);
                    asked
                })
            })
            .collect();
        let done = work(&seen);
        seen.stop.store(true, SeqCst);
        let asked = asking.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread ended in a fault"))?);
        // Whoever asks knows better what was wrong.
        let asked = asked.collect::<anyhow::Result<Vec<_>>>()?;
        ground.rack.take_paths();
        Ok((done?, asked))
    })
}

fn ask(ground: &Ground, node: usize, keys: &[&str], seen: &Seen) -> anyhow::Result<Vec<Asked>> {
    let (mut connection, mut all) = (ground.at(node)?, Vec::new());
    while !seen.stop.load(SeqCst) {
        for (key, text) in keys.iter().enumerate().filter(|(key, _)| Seen::count(&seen.refused, node, *key) < ENOUGH) {
            let (begun, is_again) = (Instant::now(), seen.is_again.load(SeqCst));
            let (status, body) = match connection.ask("GET", "/apps", text, "") {
                Ok(reply) => (reply.status, reply.body),
                Err(_) => {
                    connection = ground.at(node)?;
                    (CUT, String::new())
                }
            };
            match status {
                200 => {
                    Seen::add(&seen.served, node, key);
                    if let Some(again) = seen.again.get(node).filter(|_| is_again && key == 0) {
                        again.fetch_add(1, SeqCst);
                    }
                }
                401 | 403 | 429 => Seen::add(&seen.refused, node, key),
                503 => ensure!(body.contains("cannot reach its database"), "refused without saying why: {body}"),
                CUT => {}
                other => bail!("a request was answered with {other}: {body}"),
            }
            all.push(Asked { key, begun, status });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(all)
}

impl Found {
    fn note(&mut self, asked: &[Vec<Asked>], revoked: usize, confirmed: Option<Instant>) {
        for one in asked.iter().flatten().filter(|one| one.status == 200) {
            self.served += 1;
            self.late += usize::from(one.key == revoked && confirmed.is_some_and(|confirmed| one.begun > confirmed));
        }
    }

    fn rows(&self) -> Vec<(String, &[f64])> {
        let mut rows = vec![("answer to the revocation".to_owned(), self.answer.as_slice())];
        rows.extend(
            self.last.iter().enumerate().map(|(node, last)| (format!("last request served by Console {}", node + 1), last.as_slice())),
        );
        rows
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "on": ON, "revoked_while_connected": self.answer.len(), "served": self.served, "begun_after_the_answer_and_served": self.late,
            "milliseconds": self.rows().iter().map(|(what, times)| json!({
                "what": what, "p50": quantile(times, 0.5), "p90": quantile(times, 0.9), "p99": quantile(times, 0.99), "max": quantile(times, 1.0),
            })).collect::<Vec<_>>(),
            "outages": self.outages.iter().map(|outage| json!({
                "stop": outage.mode, "away_seconds": outage.away_s, "revocations_refused": outage.refused, "longest_refusal_seconds": outage.longest_s,
                "last_served_seconds_after_the_stop": outage.closed_s, "served_again_milliseconds_after_the_start": outage.again_ms,
                "open_log_cut_seconds_after_the_stop": outage.log_s,
            })).collect::<Vec<_>>(),
        })
    }

    pub(super) fn table(&self) -> String {
        let mut table = format!(
            "\n{ON}: {} keys in use at all three and revoked at one, times from sending the revocation.\n\n\
             | what | p50 ms | p90 ms | p99 ms | max ms |\n|---|--:|--:|--:|--:|\n",
            self.answer.len()
        );
        for (what, times) in self.rows() {
            let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|at| quantile(times, at));
            table.push_str(&format!("| {what} | {p50:.1} | {p90:.1} | {p99:.1} | {max:.1} |\n"));
        }
        table.push_str(
            "\nThe database stopped in between, with a revocation asked for at once and again until it was confirmed; at the latest of the three \
             Consoles:\n\n| stop | away s | tries refused | longest s | last request served, s after the stop | open log cut, s | serves again, ms after \
             the start |\n|---|--:|--:|--:|--:|--:|--:|\n",
        );
        let latest = |times: &[f64; NODES]| times.iter().copied().fold(0.0, f64::max);
        for outage in &self.outages {
            let log = outage.log_s.map_or_else(|| "-".to_owned(), |log| format!("{log:.2}"));
            let closed = if outage.log_s.is_some() { format!("{:.2}", latest(&outage.closed_s)) } else { "-".to_owned() };
            table.push_str(&format!(
                "| {} | {:.1} | {} | {:.1} | {closed} | {log} | {:.0} |\n",
                outage.mode,
                outage.away_s,
                outage.refused,
                outage.longest_s,
                latest(&outage.again_ms)
            ));
        }
        table.push_str(&format!(
            "\n{} requests served, {} of them begun after their key's revocation was confirmed.\n",
            self.served, self.late
        ));
        table
    }

    /// What was promised was kept.
    pub(super) fn ensure(&self) -> anyhow::Result<()> {
        ensure!(self.late == 0, "{ON}: {} requests were begun after a revocation was confirmed, and served all the same", self.late);
        for (what, times) in self.rows() {
            ensure!(times.iter().all(|ms| *ms < PROMISE_MS), "{ON}: {what}: {:.0} ms", quantile(times, 1.0));
        }
        Ok(())
    }
}
