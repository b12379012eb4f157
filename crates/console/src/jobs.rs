//! What a server does by itself, beside the requests.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use convox_model::RackId;
use convox_store::sessions::Use;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::counters::Count;
use crate::credentials::{RackEntry, forget};
use crate::ops::guesses::WINDOW_MS;
use crate::ops::racks::inspect;
use crate::ops::sessions::use_of;
use crate::ops::{Actor, OpsError};
use crate::root::Source;
use crate::state::App;

/// How often Racks are looked at, idle credentials forgotten, and counters told.
const ROUND: Duration = Duration::from_mins(1);
/// Racks that are looked at at the same time.
const AT_ONCE: usize = 8;
/// A certificate is looked up anew after so long, milliseconds.
const CERTIFICATE_MS: i64 = 60 * 60 * 1000;
/// How often old audit events are removed.
const PRUNE: Duration = Duration::from_hours(1);
/// How often rolls of keys are looked after.
const ROLLS: Duration = Duration::from_millis(500);
/// How often the file with the root keys is looked at.
const ROOT_LOOK: Duration = Duration::from_millis(500);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(15);

/// Looks at each Rack now and then, so that lists can show whether it answers without waiting for it. New Racks are looked at soon.
pub(crate) async fn look_at_racks(app: Arc<App>) {
    let mut changes = app.snapshots.watch();
    let mut next_round = tokio::time::Instant::now();
    loop {
        let is_round = next_round <= tokio::time::Instant::now();
        if is_round {
            next_round = tokio::time::Instant::now() + ROUND;
        }
        let racks: Vec<Arc<RackEntry>> = app.snapshots.now().all_racks().filter(|rack| is_round || rack.is_unseen()).cloned().collect();
        futures_util::stream::iter(racks)
            .for_each_concurrent(AT_ONCE, |rack| {
                let app = Arc::clone(&app);
                async move { look_at(&app, &rack).await }
            })
            .await;
        tokio::select! {
            () = tokio::time::sleep_until(next_round) => {}
            _ = changes.changed() => {}
        }
    }
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

/// Removes audit events that are older than the rules of their organizations keep, and counts of guesses that count no more.
pub(crate) async fn prune_audit(app: Arc<App>) {
    loop {
        match app.ops().prune_audit(&Actor::host()).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "old entries of the audit log were removed, as its rules say"),
            Err(error) => tracing::error!(%error, "old entries of the audit log could not be removed; the next round tries again"),
        }
        if let Err(error) = app.store.sweep_guesses(app.clock.now_ms() - WINDOW_MS).await {
            tracing::warn!(%error, "old counts of guesses could not be removed; the next round tries again");
        }
        tokio::time::sleep(PRUNE).await;
    }
}

/// Rolls passwords of Racks and revokes tokens. Every server does this; what one works on, it holds, so that nothing is done twice. A Rack that
/// does not answer holds up nothing but itself.
pub(crate) async fn roll_keys(app: Arc<App>) {
    let begin = async {
        loop {
            if let Err(error) = app.ops().begin_due_rolls().await {
                tracing::warn!(%error, "rolls of passwords that are due could not begin; the next round tries again");
            }
            tokio::time::sleep(ROLLS).await;
        }
    };
    tokio::join!(begin, Care::Rolls.go_on(&app), Care::Tokens.go_on(&app));
}

/// What is to be done at Racks, at each by itself.
#[derive(Clone, Copy)]
enum Care {
    /// Rolls of passwords go on.
    Rolls,
    /// Tokens whose makers lost the right to them are revoked.
    Tokens,
}

impl Care {
    async fn list(self, app: &App) -> Result<Vec<RackId>, OpsError> {
        match self {
            Self::Rolls => app.ops().waiting_rolls().await,
            Self::Tokens => app.ops().racks_of_dead_tokens().await,
        }
    }

    async fn work(self, app: Arc<App>, rack: RackId) -> RackId {
        let worked = match self {
            Self::Rolls => app.ops().advance_roll(&rack, app.snapshots.node()).await.map(drop),
            Self::Tokens => app.ops().revoke_dead_tokens(&rack).await,
        };
        if let Err(error) = worked {
            tracing::error!(rack.id = %rack, %error, "keys of a Rack could not be rolled or revoked; it is tried again");
        }
        rack
    }

    /// For ever: at several Racks at once, at each once at a time.
    async fn go_on(self, app: &Arc<App>) {
        let (mut busy, mut running) = (HashSet::new(), FuturesUnordered::new());
        loop {
            match self.list(app).await {
                Ok(racks) => {
                    for rack in racks {
                        if running.len() < AT_ONCE && busy.insert(rack.clone()) {
                            running.push(self.work(Arc::clone(app), rack));
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "keys of Racks could not be looked after; the next round tries again"),
            }
            let pause = tokio::time::sleep(ROLLS);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    Some(done) = running.next() => busy.remove(&done),
                };
            }
        }
    }
}

/// Keeps the Racks of this machine running.
pub(crate) async fn revive_racks(app: Arc<App>) {
    let mut is_start = true;
    loop {
        if let Err(error) = app.ops().revive_racks(&app.homes, is_start).await {
            tracing::error!(%error, "racks of this machine could not be looked after; the next round tries again");
        }
        is_start = false;
        tokio::time::sleep(ROUND).await;
    }
}

/// Writes down when keys and sessions were last used, and lets sessions in use go on. All at once, so that a request never waits for it.
pub(crate) async fn record_uses(app: Arc<App>) {
    let round = Duration::from_millis(app.rules.round_ms().unsigned_abs());
    let mut recorded_ms = app.clock.now_ms();
    loop {
        tokio::time::sleep(round).await;
        let snapshot = app.snapshots.now();
        let uses: Vec<Use> = snapshot
            .all_keys()
            .filter(|known| known.used_ms() > recorded_ms)
            .filter_map(|known| {
                let session_ends_ms = known.expires_ms.filter(|_| known.is_session());
                Some(use_of(known.principal.key.as_ref()?, known.used_ms(), session_ends_ms, &app.rules))
            })
            .collect();
        let newest_ms = uses.iter().map(|one| one.used_ms).max();
        match app.store.record_uses(&uses).await {
            Ok(()) => recorded_ms = newest_ms.unwrap_or(recorded_ms),
            Err(error) => tracing::warn!(%error, "could not write down when keys were used; the next round tries again"),
        }
    }
}

/// Takes root keys over when their file was written: that is how a roll reaches a running server. What cannot be read is not taken over.
pub(crate) async fn follow_root_keys(app: Arc<App>, source: Source) {
    let mut taken = source.seen();
    loop {
        tokio::time::sleep(ROOT_LOOK).await;
        let seen = source.seen();
        if seen == taken {
            continue;
        }
        match source.load().await.and_then(|ring| ring.keyring()) {
            Ok(keyring) => {
                tracing::info!(root_keys = ?keyring.ids(), "root keys taken over");
                app.keyring.replace(keyring);
                taken = seen;
                app.snapshots.tell();
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "the root keys cannot be read; going on with those that were"),
        }
    }
}

/// Forgets credentials that are not in use, and tells what the data path did: in one line a minute instead of one per request.
pub(crate) async fn tidy(app: Arc<App>) {
    let mut before = [0; 5];
    loop {
        tokio::time::sleep(ROUND).await;
        forget(app.snapshots.now().all_racks(), app.clock.now_ms());
        app.audit.tell_left_out(app.clock.now_ms());
        if let Err(error) = app.store.forget_ended_tokens(app.clock.now_ms()).await {
            tracing::warn!(%error, "tokens that ended could not be forgotten; the next round tries again");
        }
        let now = [Count::Read, Count::Audited, Count::Unidentified, Count::Refused, Count::Unavailable].map(|what| app.counters.get(what));
        let [read, audited, unidentified, refused, unavailable] = {
            let mut since = now;
            since.iter_mut().zip(before).for_each(|(now, before)| *now -= before);
            since
        };
        if now != before {
            tracing::info!(read, audited, unidentified, refused, unavailable, "requests for Racks in the last minute");
        }
        before = now;
    }
}
