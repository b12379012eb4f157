//! The race of a revocation with requests that are under way (T26).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::ground::Ground;
use super::wire::Connection;

/// Kept connections, for all races: of the one who revokes, and of those who ask.
pub(super) struct Lanes {
    admin: Connection,
    callers: [Connection; 2],
}

impl Lanes {
    pub(super) fn open(ground: &Ground) -> anyhow::Result<Self> {
        Ok(Self { admin: ground.first()?, callers: [ground.last()?, ground.last()?] })
    }
}

/// Stands for an answer that did not come.
const CUT: u16 = 0;

/// Requests that read and that change something, on two connections, while their key is revoked: how many were served, and how many of them
/// were begun after the revocation was answered. What the Rack saw is compared with what was answered.
pub(super) fn race(ground: &Ground, lanes: &mut Lanes, run: usize) -> anyhow::Result<(usize, usize)> {
    let Lanes { admin, callers } = lanes;
    let (id, key) = ground.key(admin, &format!("race-{run}"))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking: Vec<_> = callers
            .iter_mut()
            .enumerate()
            .map(|(thread, connection)| {
                let (key, stop) = (&key, &stop);
                scope.spawn(move || -> anyhow::Result<Vec<(String, Instant, u16)>> {
                    let mut all = Vec::new();
                    // Some more after the first refusal: a later one must not get through again.
                    let mut refused = 0;
                    while refused < 3 || !stop.load(Ordering::SeqCst) {
                        let (method, path) = if all.len() % 2 == 0 {
                            ("GET", format!("/apps/{run}-{thread}-r{}", all.len()))
                        } else {
                            ("PUT", format!("/apps/{run}-{thread}-w{}", all.len()))
                        };
                        let begun = Instant::now();
                        // A request that was under way when its key was revoked may be cut.
                        let status = match connection.ask(method, &path, key, "") {
                            Ok(reply) => reply.status,
                            Err(_) => {
                                *connection = ground.last()?;
                                CUT
                            }
                        };
                        refused += usize::from(status != 200);
                        all.push((path, begun, status));
                    }
                    Ok(all)
                })
            })
            .collect();
        // At another moment of their work in each run.
        std::thread::sleep(Duration::from_micros((run as u64 * 7919) % 3000));
        let answered = ground.revoke(admin, &id).map(|(_, answered)| answered);
        stop.store(true, Ordering::SeqCst);
        let answered = answered?;
        let (mut served, mut late) = (0, 0);
        let mut known = BTreeSet::new();
        for thread in asking {
            for (path, begun, status) in thread.join().map_err(|_| anyhow::anyhow!("a thread ended in a fault"))?? {
                if status == 200 {
                    served += 1;
                    late += usize::from(begun > answered);
                }
                // What was under way is told that its key was revoked (403), or is cut; the Rack may have seen it.
                if status == 200 || ((status == CUT || status == 403) && begun <= answered) {
                    known.insert(path);
                }
            }
        }
        // What was refused did not reach the Rack either. Only this race's: what was under way in the one before may arrive now.
        let own = format!("/{run}-");
        let unknown: Vec<String> =
            ground.rack.take_paths().into_iter().filter(|path| path.contains(&own) && !known.contains(path)).collect();
        ensure!(unknown.is_empty(), "refused, and the Rack saw it: {unknown:?}");
        Ok((served, late))
    })
}
