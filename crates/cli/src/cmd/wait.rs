//! Waiting for an app or a Rack to settle, with its system log beside it where the originals show it.
//!
//! The originals look every 5 s and want to see the goal twice in a row, after 5 s of waiting. We look sooner and more
//! often: a change that was seen under way is done at the first two looks that say so; one that never showed is believed
//! after five seconds of saying so, which is when the originals look first.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use convox_client::{Client, Error, Socket};
use convox_wire::options::LogOptions;
use tokio::time::Instant;

use crate::error::Failure;
use crate::output::Printer;

const LIMIT: Duration = Duration::from_mins(35);
const PROCESS_LIMIT: Duration = Duration::from_mins(5);
/// Servers that settle later than they answer have shown it by then.
const UNSEEN: Duration = Duration::from_secs(5);
const SLOWEST: Duration = Duration::from_secs(5);

/// One look.
pub(super) enum Look {
    /// There.
    Done,
    /// On its way, and seen to be.
    Under,
    /// It will not come.
    Failed(Failure),
}

/// Looks until it is done, has failed, or `limit` is over. Two errors in a row end it with the second. `is_under` says that
/// the change is known to be under way already.
async fn until<F: Future<Output = Result<Look, Error>>>(
    limit: Duration,
    is_under: bool,
    mut look: impl FnMut() -> F,
) -> Result<(), Failure> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(100);
    let (mut seen_under, mut done, mut errors) = (is_under, 0u32, 0u32);
    let mut done_since = Instant::now();
    loop {
        match look().await {
            Ok(Look::Done) => {
                if done == 0 {
                    done_since = Instant::now();
                }
                done += 1;
                errors = 0;
                if done >= 2 && (seen_under || done_since.elapsed() >= UNSEEN) {
                    return Ok(());
                }
            }
            Ok(Look::Under) => {
                (seen_under, done, errors) = (true, 0, 0);
            }
            Ok(Look::Failed(failure)) => return Err(failure),
            Err(error) => {
                errors += 1;
                done = 0;
                if errors >= 2 {
                    return Err(error.into());
                }
            }
        }
        if start.elapsed() > limit {
            return Err(Failure::new("timeout").hint("it may still finish: look again later"));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(if seen_under { Duration::from_secs(1) } else { SLOWEST });
    }
}

/// Until the app is `running`. Ends with `rollback` once that was seen, unless it is what is waited for.
pub(super) async fn app_running(client: &Client, app: &str, is_rollback_fine: bool) -> Result<(), Failure> {
    until(LIMIT, false, || async move {
        Ok(match client.app(app).await?.status.as_str() {
            "running" => Look::Done,
            "rollback" if !is_rollback_fine => {
                Look::Failed(Failure::new("rollback").hint(format!("see why: convox logs -a {app} --no-follow --since 10m")))
            }
            _ => Look::Under,
        })
    })
    .await
}

/// [`app_running`], with the app's system log meanwhile.
pub(super) async fn app_with_logs(client: &Client, out: &Printer, app: &str, is_rollback_fine: bool) -> Result<(), Failure> {
    let options = logs_of_the_wait();
    beside(out, || client.app_logs(app, &options), app_running(client, app, is_rollback_fine)).await
}

/// Until the app is gone.
pub(super) async fn app_deleted(client: &Client, app: &str) -> Result<(), Failure> {
    until(LIMIT, true, || async move {
        match client.app(app).await {
            Ok(_) => Ok(Look::Under),
            Err(error) if is_missing_app(&error) => Ok(Look::Done),
            Err(error) => Err(error),
        }
    })
    .await
}

fn is_missing_app(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("no such app") || text.contains("app not found")
}

/// Until the Rack is `running`, with its system log meanwhile.
pub(super) async fn rack_with_logs(client: &Client, out: &Printer) -> Result<(), Failure> {
    let options = logs_of_the_wait();
    let waiting =
        until(LIMIT, false, || async move { Ok(if client.system().await?.status == "running" { Look::Done } else { Look::Under }) });
    beside(out, || client.system_logs(&options), waiting).await
}

/// Until the process runs.
pub(super) async fn process_running(client: &Client, app: &str, process: &str) -> Result<(), Failure> {
    until(PROCESS_LIMIT, true, || async move {
        Ok(match client.process(app, process).await?.status.as_str() {
            "running" => Look::Done,
            "failed" | "complete" | "stopped" => Look::Failed(Failure::new(format!("process {process} ended before it could be used"))),
            _ => Look::Under,
        })
    })
    .await
}

fn logs_of_the_wait() -> LogOptions {
    LogOptions { prefix: Some(true), since: Some(Duration::from_secs(5)), ..LogOptions::default() }
}

/// Runs `waiting`, and prints the `system/` lines of a log until it is over. The log is a courtesy: its faults are not told.
async fn beside<F: Future<Output = Result<Socket, Error>>>(
    out: &Printer,
    mut open: impl FnMut() -> F,
    waiting: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let showing = async {
        let mut told: VecDeque<Vec<u8>> = VecDeque::new();
        loop {
            if let Ok(socket) = open().await {
                let (mut reader, _writer) = socket.split();
                let mut rest = Vec::new();
                while let Ok(Some(piece)) = reader.next().await {
                    rest.extend_from_slice(&piece.data);
                    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = rest.drain(..=end).collect();
                        // A reconnection repeats what was said within the last seconds.
                        if is_system(&line) && !told.contains(&line) {
                            out.progress_raw(&line)?;
                            told.push_back(line);
                            if told.len() > 200 {
                                told.pop_front();
                            }
                        }
                    }
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        #[expect(unreachable_code, reason = "gives the loop's `?` its type")]
        Ok::<(), Failure>(())
    };
    tokio::select! {
        ended = waiting => ended,
        told = showing => told,
    }
}

/// `TIME system/... message`
fn is_system(line: &[u8]) -> bool {
    line.splitn(3, |byte| *byte == b' ').nth(1).is_some_and(|stream| stream.starts_with(b"system/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_systems_own_lines_are_shown() {
        assert!(is_system(b"2026-01-01T00:00:00Z system/release promoting\n"));
        assert!(!is_system(b"2026-01-01T00:00:00Z service/web/1 system/x\n"));
        assert!(!is_system(b"system/x\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_under_way_is_done_after_two_looks() {
        let mut looks = 0;
        let start = tokio::time::Instant::now();
        until(LIMIT, false, || {
            looks += 1;
            let look = if looks < 3 { Look::Under } else { Look::Done };
            async move { Ok(look) }
        })
        .await
        .unwrap();
        assert_eq!(looks, 4);
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_goal_that_never_changed_is_believed_after_five_seconds() {
        let start = tokio::time::Instant::now();
        until(LIMIT, false, || async { Ok(Look::Done) }).await.unwrap();
        assert!((5..11).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn two_errors_in_a_row_end_the_wait_and_one_does_not() {
        let mut looks = 0;
        let ended = until(LIMIT, false, || {
            looks += 1;
            let look = looks;
            async move {
                match look {
                    1 | 3 | 4 => Err(Error::input("down")),
                    _ => Ok(Look::Under),
                }
            }
        })
        .await;
        assert_eq!(ended.unwrap_err().to_string(), "down");
        assert_eq!(looks, 4);
    }
}
