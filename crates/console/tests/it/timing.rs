//! How long a refusal takes tells nothing about why (T16). Minutes, and only on a quiet machine: `bench/timing`.

use std::io::Write as _;
use std::time::Instant;

use convox_seal::{ApiKey, KeyKind};
use convox_testkit::go::{connect, read_reply};

use crate::console::Database;
use crate::limits::{Browser, ReadWrite, with_password};
use crate::{Door, Recorder};

/// Above this, Welch's test calls two samples different with certainty.
const T: f64 = 4.5;
/// How far apart their medians may be.
const APART: f64 = 0.01;

/// Microseconds.
#[derive(Default)]
struct Sample(Vec<f64>);

impl Sample {
    fn mean_and_variance(&self) -> (f64, f64) {
        let count = self.0.len() as f64;
        let mean = self.0.iter().sum::<f64>() / count;
        (mean, self.0.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0))
    }

    fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

fn welch(a: &Sample, b: &Sample) -> f64 {
    let ((mean_a, variance_a), (mean_b, variance_b)) = (a.mean_and_variance(), b.mean_and_variance());
    (mean_a - mean_b) / (variance_a / a.0.len() as f64 + variance_b / b.0.len() as f64).sqrt()
}

/// Takes turns, in an order that changes, so that what else the machine does falls on both alike.
fn interleaved(count: usize, mut one: impl FnMut(usize), mut between: impl FnMut(usize)) -> [Sample; 2] {
    let mut samples = [Sample::default(), Sample::default()];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for turn in 0..count {
        between(turn);
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let first = (state >> 63) as usize;
        for which in [first, 1 - first] {
            let begun = Instant::now();
            one(which);
            samples[which].0.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    samples
}

fn count(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn samples_that_differ_are_told_apart_from_such_that_do_not() {
    let around = |middle: f64| Sample((0..1000).map(|number| middle + f64::from(number % 11)).collect());
    assert!(welch(&around(100.0), &around(100.0)).abs() < 1e-9);
    assert!(welch(&around(100.0), &around(102.0)).abs() > T);
    assert!((around(100.0).median() - 105.0).abs() < 1e-9);
}

#[test]
#[ignore = "minutes, and only on a quiet machine: bench/timing"]
fn how_long_a_refusal_takes_tells_nothing_about_why() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let database = Database::open(&door);
    with_password(&door, "admin@example.com");
    // Somebody who has no password, as after an invitation that was not taken up.
    door.admin(&["user", "add", "blank@example.com"]);
    let (passwords, refusals) = (count("CONVOX_TIMING_PASSWORDS", 2_000), count("CONVOX_TIMING_REFUSALS", 50_000));
    let mut found: Vec<(&str, [Sample; 2])> = Vec::new();

    let mut browser = Browser::at(&door.console);
    // Once each, so that nothing is done for the first time while it is measured.
    for email in ["nobody@example.com", "admin@example.com", "blank@example.com"] {
        assert_eq!(browser.sign_in(email, "wrong").status, 403);
    }
    for (what, emails) in [
        ("nobody's address, a wrong password", ["nadim@example.com", "admin@example.com"]),
        ("an account without a password, a wrong password", ["blank@example.com", "admin@example.com"]),
    ] {
        let samples = interleaved(
            passwords,
            |which| assert_eq!(browser.sign_in(emails[which], "wrong").status, 403),
            // Tries are counted; these are not to run out.
            |turn| {
                if turn % 4 == 0 {
                    database.run("DELETE FROM guesses");
                }
            },
        );
        found.push((what, samples));
    }
    for email in ["nadim@example.com", "admin@example.com"] {
        while browser.sign_in(email, "wrong").status == 403 {}
    }
    let locked = interleaved(
        refusals,
        |which| assert_eq!(browser.sign_in(["nadim@example.com", "admin@example.com"][which], "wrong").status, 429),
        |_| (),
    );
    found.push(("locked: nobody's address, an account", locked));

    // Keys: what begins like a good one, and what was one.
    let mut stream: Box<dyn ReadWrite> = Box::new(connect(&door.console.host, &door.console.fingerprint).unwrap());
    let mut refused = |key: &str| {
        stream.write_all(door.head("GET /apps", key, "acme/main", "").as_bytes()).unwrap();
        stream.flush().unwrap();
        let status = read_reply(&mut stream, false).unwrap().status;
        assert!(matches!(status, 401 | 429), "{status}");
    };
    let gone = door.person("gone@example.com", Some(("acme", "developer")));
    door.admin(&["key", "revoke", &door.key_id("gone@example.com")]);
    let random = || ApiKey::generate(KeyKind::User).reveal().to_owned();
    // The last characters are the checksum: the rest is a good key's, all of it.
    let spoilt = |key: &str| {
        let (start, last) = key.split_at(key.len() - 1);
        format!("{start}{}", if last == "x" { "y" } else { "x" })
    };
    for (what, keys) in [
        ("key: all but the checksum wrong, all but the checksum right", [spoilt(&random()), spoilt(&door.key)]),
        ("key: never made, revoked", [random(), gone]),
    ] {
        // Until its network is told to wait, for both alike.
        for _ in 0..400 {
            for key in &keys {
                refused(key);
            }
        }
        found.push((what, interleaved(refusals, |which| refused(&keys[which]), |_| ())));
    }

    let mut table = "| refused | samples | median µs | apart | Welch's t |\n|---|--:|--:|--:|--:|\n".to_owned();
    let (mut figures, mut told) = (Vec::new(), Vec::new());
    for (what, [a, b]) in &found {
        let (t, medians) = (welch(a, b), [a.median(), b.median()]);
        let apart = (medians[0] - medians[1]).abs() / medians[0];
        table.push_str(&format!(
            "| {what} | 2 x {} | {:.1}, {:.1} | {:.2} % | {t:.2} |\n",
            a.0.len(),
            medians[0],
            medians[1],
            apart * 100.0
        ));
        figures.push(serde_json::json!({ "refused": what, "samples": a.0.len(), "medians_us": medians, "apart": apart, "welch_t": t }));
        if t.abs() >= T || apart >= APART {
            told.push(*what);
        }
    }
    let _ = std::io::stdout().write_all(table.as_bytes());
    if let Some(out) = std::env::var_os("CONVOX_TIMING_OUT").map(std::path::PathBuf::from) {
        std::fs::write(out.join("timing.md"), &table).unwrap();
        std::fs::write(out.join("timing.json"), format!("{:#}\n", serde_json::Value::from(figures))).unwrap();
    }
    assert_eq!(told, Vec::<&str>::new(), "the time tells why");
}
