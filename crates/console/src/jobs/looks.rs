//! Looks at Racks: whether they answer, and how long their certificates do.

use std::collections::{HashSet, VecDeque};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{AT_ONCE, ROUND, SCAN_AGAIN};
use crate::credentials::RackEntry;
use crate::ops::Actor;
use crate::ops::racks::inspect;
use crate::state::App;

/// Most Racks that are looked at in a round.
const MOST_LOOKS: usize = 600;
/// From one look to the next, at least.
const SHORTEST_PACE: Duration = Duration::from_millis(100);
/// A Rack is in use for so long after a request for it, milliseconds.
const IN_USE_MS: i64 = 10 * 60 * 1000;
/// A certificate is looked up anew after so long, milliseconds.
const CERTIFICATE_MS: i64 = 60 * 60 * 1000;
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(15);

/// Looks at Racks now and then, so that lists can show whether they answer without waiting for it. New Racks are looked at soon. However many
/// there are, no more than [`MOST_LOOKS`] are looked at in a round, spread over it.
pub(crate) async fn look_at_racks(app: Arc<App>) {
    let mut changes = app.snapshots.watch();
    let mut open = FuturesUnordered::new();
    let mut queue: VecDeque<Arc<RackEntry>> = VecDeque::new();
    let (mut next_round, mut next_look, mut next_scan) = (Instant::now(), Instant::now(), Instant::now());
    let (mut pace, mut has_news) = (SHORTEST_PACE, false);
    let mut looking: HashSet<usize> = HashSet::new();
    let address = |rack: &Arc<RackEntry>| Arc::as_ptr(rack).addr();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next_round) => {
                queue = plan(app.snapshots.now().all_racks(), app.snapshots.node(), app.clock.now_ms());
                pace = (ROUND / u32::try_from(queue.len().max(1)).unwrap_or(u32::MAX)).max(SHORTEST_PACE);
                (next_round, next_look) = (Instant::now() + ROUND, Instant::now());
            }
            changed = changes.changed(), if !has_news => has_news = changed.is_ok(),
            // Looking for new ones takes a while where there are many, and changes come in flocks.
            () = tokio::time::sleep_until(next_scan), if has_news => {
                (has_news, next_scan) = (false, Instant::now() + SCAN_AGAIN);
                let known: HashSet<usize> = queue.iter().map(address).chain(looking.iter().copied()).collect();
                let is_new = |rack: &&Arc<RackEntry>| rack.is_unseen() && !known.contains(&address(rack));
                for rack in app.snapshots.now().all_racks().filter(is_new).take(AT_ONCE) {
                    queue.push_front(Arc::clone(rack));
                    queue.truncate(MOST_LOOKS);
                    next_look = Instant::now();
                }
            }
            () = tokio::time::sleep_until(next_look), if !queue.is_empty() && open.len() < AT_ONCE => {
                if let Some(rack) = queue.pop_front() {
                    next_look = Instant::now() + if rack.is_unseen() { SHORTEST_PACE } else { pace };
                    looking.insert(address(&rack));
                    let app = Arc::clone(&app);
                    open.push(async move {
                        look_at(&app, &rack).await;
                        address(&rack)
                    });
                }
            }
            Some(looked) = open.next(), if !open.is_empty() => drop(looking.remove(&looked)),
        }
    }
}

/// Whom to look at in a round: first those that nobody has looked at, then those in use, then those that were not looked at for longest. Each
/// server goes through them in another order, so that they do not all come at once.
fn plan<'r>(racks: impl Iterator<Item = &'r Arc<RackEntry>>, node: &str, now_ms: i64) -> VecDeque<Arc<RackEntry>> {
    let rank = |rack: &RackEntry| match rack.seen() {
        None => (0, 0),
        Some(seen) if now_ms - rack.used_ms() < IN_USE_MS => (1, seen.at_ms),
        Some(seen) => (2, seen.at_ms),
    };
    let mut all: Vec<((i32, i64), &Arc<RackEntry>)> = racks.map(|rack| (rank(rack), rack)).collect();
    if all.len() > MOST_LOOKS {
        all.select_nth_unstable_by_key(MOST_LOOKS, |(rank, _)| *rank);
        all.truncate(MOST_LOOKS);
    }
    let place = |rack: &RackEntry| {
        let mut hasher = std::hash::DefaultHasher::new();
        (node, rack.row.id.as_str()).hash(&mut hasher);
        hasher.finish()
    };
    all.sort_unstable_by_key(|((first, _), rack)| (*first > 0, place(rack)));
    all.into_iter().map(|(_, rack)| Arc::clone(rack)).collect()
}

/// One look: does it answer, and how long will its certificate do?
async fn look_at(app: &App, rack: &RackEntry) {
    let (ops, actor) = (app.ops(), Actor::host());
    let look = tokio::time::timeout(LOOK, ops.probe_rack(&actor, &rack.row.org_name, &rack.row.name)).await;
    let now_ms = app.clock.now_ms();
    let known = rack.seen().and_then(|seen| seen.certificate).filter(|(_, at_ms)| now_ms - at_ms < CERTIFICATE_MS);
    let certificate = match known {
        Some(known) => Some(known),
        // Whoever cannot be logged in to is not talked to at all.
        None if !matches!(look, Ok(Ok(_))) => None,
        None => {
            let shown = tokio::time::timeout(LOOK, inspect(&rack.row.host)).await.ok().and_then(Result::ok);
            shown.map(|shown| (shown.not_after.saturating_mul(1000), now_ms))
        }
    };
    if let Ok(Ok(probed)) = &look {
        match ops.follow_hand_over(&rack.row, probed.fingerprint).await {
            Ok(true) => {
                tracing::info!(rack.name = %rack.row.path(), pin = ?probed.fingerprint, "the Rack's pinned certificate handed over to another");
            }
            Ok(false) => {}
            Err(error) => tracing::error!(rack.name = %rack.row.path(), %error, "a pin could not follow the Rack's certificate"),
        }
    }
    match look {
        Ok(Ok(probed)) => rack.keep(Ok((&probed.system.status, &probed.system.version)), certificate, now_ms),
        Ok(Err(error)) => rack.keep(Err(error.to_string()), certificate, now_ms),
        Err(_) => rack.keep(Err(format!("it did not answer within {} s", LOOK.as_secs())), certificate, now_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::tests::entry;

    #[test]
    fn however_many_racks_there_are_a_round_is_bounded_and_those_in_use_come_first() {
        let now_ms = 100 * IN_USE_MS;
        let racks: Vec<_> = (0..5_000).map(|number| entry(&number.to_string())).collect();
        let names = |planned: &VecDeque<Arc<RackEntry>>| planned.iter().map(|rack| rack.row.name.parse().unwrap()).collect::<Vec<usize>>();
        for (rack, at_ms) in racks.iter().zip(1..) {
            rack.keep(Ok(("running", "1")), None, at_ms);
        }
        for used in [4_000, 4_500] {
            racks[used].use_for_tests(now_ms - 1);
        }
        // And a new one.
        let new = entry("4999");
        let all: Vec<_> = racks.iter().take(4_999).chain([&new]).cloned().collect();
        let planned = names(&plan(all.iter(), "one", now_ms));
        assert_eq!((planned.len(), planned[0]), (MOST_LOOKS, 4_999));
        assert!(planned.contains(&4_000) && planned.contains(&4_500));
        assert!(planned[1..].iter().all(|number| *number < MOST_LOOKS || *number >= 4_000), "then those that waited for longest");
        assert_ne!(planned, names(&plan(all.iter(), "two", now_ms)), "each server in another order");
        // All get their turn.
        let mut looked = std::collections::BTreeSet::new();
        for round in 0..10 {
            for rack in plan(all.iter(), "one", now_ms) {
                looked.insert(rack.row.name.clone());
                rack.keep(Ok(("running", "1")), None, 10_000 + round);
            }
        }
        assert_eq!(looked.len(), all.len());
    }
}
