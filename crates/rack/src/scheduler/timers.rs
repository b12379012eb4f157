//! Timers: one-off processes at the times that the manifest says, in UTC.
//!
//! The time of the last run is on the disk before the run begins. So a Rack that was away makes up for what it missed by one run, and never runs
//! anything a second time because it does not know better.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::sleep;

use super::slot::how_it_ended;
use super::{DesiredApp, Inner, OneOff, one_off};
use crate::manifest::{Concurrency, Timer};
use crate::runtime::{ProcessState, replace_durably};

/// Schedules count in minutes; this is how late a run may be.
const LOOK: Duration = Duration::from_secs(1);

/// A clock that is set back by less than this makes nothing run twice.
const AHEAD: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// App, timer, when it was due last.
type Past = BTreeMap<String, BTreeMap<String, Timestamp>>;

/// Looks every second for what is due.
pub(super) async fn follow(inner: Arc<Inner>) {
    let file = inner.config.dir.join("timers.json");
    let mut past: Past = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let starting = Arc::new(Mutex::new(BTreeSet::new()));
    loop {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = inner.stop.cancelled() => return,
        }
        let apps: Vec<Arc<DesiredApp>> = inner.apps().values().filter_map(|entry| entry.desired.clone()).collect();
        let mut now_past = past.clone();
        let (due, changed) = due(&apps, &mut now_past, Timestamp::now());
        if changed && let Err(error) = keep(file.clone(), now_past.clone()).await {
            // Late rather than twice: what is due stays due.
            tracing::error!(%error, "timers wait: the time of their runs could not be kept");
            continue;
        }
        past = now_past;
        for (app, timer) in due {
            let (inner, starting) = (Arc::clone(&inner), Arc::clone(&starting));
            inner.tasks.clone().spawn(async move {
                let key = (app.app.clone(), timer.name.clone());
                let is_free = starting.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
                if is_free {
                    run(&inner, &app, &timer).await;
                    starting.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                } else {
                    say(&inner, &app, &timer, "is due again while its last run is still starting: left out");
                }
            });
        }
    }
}

/// What is due now, noted as run; and whether anything is to be kept.
fn due(apps: &[Arc<DesiredApp>], past: &mut Past, now: Timestamp) -> (Vec<(Arc<DesiredApp>, Timer)>, bool) {
    let before = past.clone();
    past.retain(|name, _| apps.iter().any(|app| app.app == *name && !app.manifest.timers.is_empty()));
    let mut due = Vec::new();
    for app in apps.iter().filter(|app| !app.manifest.timers.is_empty()) {
        let timers = past.entry(app.app.clone()).or_default();
        timers.retain(|name, _| app.manifest.timers.iter().any(|timer| timer.name == *name));
        for timer in &app.manifest.timers {
            // One that is new has missed nothing.
            let last = timers.entry(timer.name.clone()).or_insert(now);
            // The clock was far ahead when it ran last: what was noted then says nothing.
            if last.duration_since(now) > AHEAD {
                *last = now;
            }
            if timer.next(*last).is_some_and(|next| next <= now) {
                *last = now;
                due.push((Arc::clone(app), timer.clone()));
            }
        }
    }
    let changed = *past != before;
    (due, changed)
}

async fn keep(file: PathBuf, past: Past) -> std::io::Result<()> {
    crate::files::blocking(move || replace_durably(&file, &serde_json::to_vec_pretty(&past).map_err(std::io::Error::other)?)).await
}

async fn run(inner: &Arc<Inner>, app: &Arc<DesiredApp>, timer: &Timer) {
    let is_of_it =
        |process: &ProcessState| process.app == app.app && process.timer.as_deref() == Some(&timer.name) && !process.status.is_final();
    let running: Vec<String> = inner.runtime.list().into_iter().filter(is_of_it).map(|process| process.id).collect();
    match timer.concurrency {
        Concurrency::Forbid if !running.is_empty() => {
            let processes = running.join(", ");
            return say(inner, app, timer, &format!("is due and its run before is not over ({processes}): left out"));
        }
        Concurrency::Replace => {
            let stopped = join_all(running.iter().map(|process| inner.runtime.stop(process, None))).await;
            if let Some(error) = stopped.into_iter().find_map(Result::err) {
                return say(inner, app, timer, &format!("its run before could not be stopped: {error}"));
            }
        }
        _ => {}
    }
    for number in 0..timer.parallel {
        let mut env = BTreeMap::new();
        if timer.parallel > 1 {
            env.insert("TIMER_INDEX".to_owned(), number.to_string());
        }
        let one_off = OneOff {
            service: timer.service.clone(),
            command: timer.command.clone(),
            timer: Some(timer.name.clone()),
            env,
            ..OneOff::default()
        };
        match one_off::run(inner, app, one_off).await {
            Ok(process) => {
                say(inner, app, timer, &format!("started process {}", process.id));
                let (inner, app, timer) = (Arc::clone(inner), Arc::clone(app), timer.clone());
                inner.tasks.clone().spawn(async move {
                    tokio::select! {
                        Ok(ended) = inner.runtime.wait(&process.id) => {
                            say(&inner, &app, &timer, &format!("process {} {}", process.id, how_it_ended(&ended)));
                        }
                        () = inner.stop.cancelled() => {}
                    }
                });
            }
            Err(error) => say(inner, app, timer, &format!("could not be started: {error}")),
        }
    }
}

fn say(inner: &Inner, app: &DesiredApp, timer: &Timer, what: &str) {
    inner.logs.append(&app.app, &format!("system/timer/{}", timer.name), &format!("timer {} {what}", timer.name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    fn app(schedule: &str) -> Vec<Arc<DesiredApp>> {
        let text = format!("services: {{web: }}\ntimers:\n  t: {{service: web, schedule: \"{schedule}\"}}\n");
        vec![Arc::new(DesiredApp { app: "shop".into(), manifest: Manifest::parse(&text).unwrap(), ..DesiredApp::default() })]
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn what_was_missed_is_made_up_for_once_and_nothing_runs_twice() {
        let (apps, mut past) = (app("*/5 * * * *"), Past::new());
        let mut runs = |time: &str| due(&apps, &mut past, at(time)).0.len();
        assert_eq!(runs("2026-11-27T20:03:00Z"), 0, "a new timer has missed nothing");
        assert_eq!((runs("2026-11-27T20:04:59Z"), runs("2026-11-27T20:05:00.4Z")), (0, 1));
        assert_eq!((runs("2026-11-27T20:05:01Z"), runs("2026-11-27T20:09:59Z")), (0, 0));
        // The Rack was away for an hour, and is killed right after.
        assert_eq!((runs("2026-11-27T21:07:00Z"), runs("2026-11-27T21:07:01Z")), (1, 0));
        assert_eq!(runs("2026-11-27T21:10:00Z"), 1);
        // The clock was set back, and then by years.
        assert_eq!(runs("2026-11-27T21:09:59Z") + runs("2026-11-27T21:10:01Z"), 0);
        assert_eq!((runs("2024-11-27T21:09:00Z"), runs("2024-11-27T21:10:00Z")), (0, 1));
    }

    #[test]
    fn a_timer_that_is_gone_is_forgotten() {
        let mut past = Past::new();
        due(&app("* * * * *"), &mut past, at("2026-11-27T20:03:00Z"));
        assert_eq!(past.len(), 1);
        assert!(due(&[], &mut past, at("2026-11-27T20:03:01Z")).1 && past.is_empty());
    }
}
