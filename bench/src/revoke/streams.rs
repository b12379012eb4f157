//! A key with everything open that a key can open, revoked: when each of it ends.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::ground::Ground;
use super::wire::Connection;

/// Milliseconds from the moment at which the revocation was sent.
#[derive(Default)]
pub(super) struct Times {
    pub(super) answer: Vec<f64>,
    pub(super) request: Vec<f64>,
    pub(super) log: Vec<f64>,
    pub(super) shell: Vec<f64>,
}

/// A key with a log stream and a shell open, and requests one after the other, is revoked.
pub(super) fn streams(ground: &Ground, run: usize, times: &mut Times) -> anyhow::Result<()> {
    let mut admin = ground.first()?;
    let (id, key) = ground.key(&mut admin, &format!("stream-{run}"))?;
    let (mut log, mut shell, mut requests) = (ground.last()?, ground.last()?, ground.last()?);
    log.upgrade("/apps/web/logs", &key)?;
    shell.upgrade("/apps/web/processes/p1/exec", &key)?;
    ensure!(requests.ask("GET", "/apps", &key, "")?.status == 200, "a new key does not work");
    std::thread::scope(|scope| {
        let ended = |mut connection: Connection| {
            scope.spawn(move || {
                let ending = connection.listen();
                (Instant::now(), ending)
            })
        };
        let (log, shell) = (ended(log), ended(shell));
        let asking = scope.spawn(|| -> anyhow::Result<Instant> {
            let mut last = Instant::now();
            loop {
                let begun = Instant::now();
                match requests.ask("GET", "/apps", &key, "").map(|reply| (reply.status, reply.body)) {
                    Ok((200, _)) => last = begun,
                    // Before it was looked at, or while the Rack was asked.
                    Ok((401, _)) => return Ok(last),
                    Ok((403, body)) if body.contains("revoked") || body.contains("withdrawn") => {}
                    Ok((other, body)) => bail!("a request was answered with {other}: {body}"),
                    // It was under way, and was cut.
                    Err(_) => requests = ground.last()?,
                }
            }
        });
        let (sent, answered) = ground.revoke(&mut admin, &id)?;
        let join = |what: &str| anyhow::anyhow!("{what} was not waited for");
        let last = asking.join().map_err(|_| join("the requests"))??;
        let (log_at, log_end) = log.join().map_err(|_| join("the log"))?;
        let (shell_at, shell_end) = shell.join().map_err(|_| join("the shell"))?;
        for (what, end) in [("log", &log_end), ("shell", &shell_end)] {
            ensure!(
                end.code == 1008 && end.reason.contains("revoked") && end.text.contains("revoked"),
                "the {what} ended without saying why: {} {:?} {:?}",
                end.code,
                end.reason,
                end.text
            );
        }
        let ms = |at: Instant| at.saturating_duration_since(sent).as_secs_f64() * 1000.0;
        times.answer.push(ms(answered));
        times.request.push(ms(last));
        times.log.push(ms(log_at));
        times.shell.push(ms(shell_at));
        Ok(())
    })?;
    let end = Instant::now() + Duration::from_secs(5);
    while ground.rack.open() > 0 {
        ensure!(Instant::now() < end, "the Rack still has a stream open");
        std::thread::sleep(Duration::from_millis(1));
    }
    ground.rack.take_paths();
    Ok(())
}
