//! What a server does by itself, beside the requests.

mod looks;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use convox_model::{Event, RackId};
use convox_store::sessions::Use;
use convox_wire::routes::Effect;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::credentials::{RackEntry, forget};
use crate::meters::Decision;
use crate::ops::guesses::WINDOW_MS;
use crate::ops::sessions::use_of;
use crate::ops::{Actor, Ops, OpsError};
use crate::root::{Seen, Source};
use crate::state::App;

pub(crate) use self::looks::look_at_racks;

/// How often Racks are looked at, idle credentials forgotten, and counters told.
const ROUND: Duration = Duration::from_mins(1);
/// Racks that are looked at or cared for at the same time.
const AT_ONCE: usize = 8;
/// After looking for something new about Racks, before doing so again.
const SCAN_AGAIN: Duration = Duration::from_millis(200);
/// How often old audit events are removed.
const PRUNE: Duration = Duration::from_hours(1);
/// How often rolls of keys are looked after.
const ROLLS: Duration = Duration::from_millis(500);
/// How often the file with the root keys is looked at.
const ROOT_LOOK: Duration = Duration::from_millis(500);
/// How often a server tries to begin the register of what is sealed.
const KEEP_AGAIN: Duration = Duration::from_secs(2);

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

/// Begins to keep the register of what is sealed as soon as every live server does, after an upgrade.
pub(crate) async fn keep_register(app: Arc<App>) {
    loop {
        match app.ops().keep_register(Some(app.snapshots.node())).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the register of what is sealed could not be begun; the next round tries again"),
        }
        tokio::time::sleep(KEEP_AGAIN).await;
    }
}

/// Tells of each Rack whose sealed password is not the present one, once for as long as that is so: in the log and in the audit log.
pub(crate) async fn tell_put_back(app: Arc<App>) {
    let mut changes = app.snapshots.watch();
    let mut told: HashSet<RackId> = HashSet::new();
    loop {
        let put_back: Vec<Arc<RackEntry>> = app.snapshots.now().put_back().map(Arc::clone).collect();
        told.retain(|id| put_back.iter().any(|rack| rack.row.id == *id));
        for rack in put_back {
            let row = &rack.row;
            if !told.insert(row.id.clone()) {
                continue;
            }
            Ops::tell_put_back("the password of a Rack", &row.path(), &row.password);
            let event = || Event {
                org: row.org_name.clone(),
                org_id: row.org.to_string(),
                rack: row.name.clone(),
                actor: "console".to_owned(),
                decision: "refused".to_owned(),
                rule: "put-back".to_owned(),
                ..Actor::host().event(
                    &*app.clock,
                    "RackPasswordPutBack",
                    format!("/organizations/{}/racks/{}/password", row.org_name, row.name),
                )
            };
            app.audit.refused(event, app.clock.now_ms());
        }
        tokio::time::sleep(SCAN_AGAIN).await;
        let _ = changes.changed().await;
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

/// Takes root keys over when their file was written since it was last looked at, which was before they were first read: that is how a roll reaches a
/// running server, and one that starts meanwhile. What cannot be read is not taken over.
pub(crate) async fn follow_root_keys(app: Arc<App>, source: Source, mut taken: Seen) {
    // Longer each time that they cannot be read: a KMS that refuses is not asked twice a second.
    let (mut wait, mut vain) = (ROOT_LOOK, 0_u32);
    loop {
        tokio::time::sleep(wait).await;
        wait = ROOT_LOOK;
        let seen = source.seen();
        if seen == taken {
            continue;
        }
        match source.load().await.and_then(|ring| ring.keyring()) {
            Ok(keyring) => {
                tracing::info!(root_keys = ?keyring.ids(), "root keys taken over");
                app.keyring.replace(keyring);
                taken = seen;
                vain = 0;
                app.snapshots.tell();
            }
            Err(error) => {
                vain = (vain + 1).min(7);
                wait = ROOT_LOOK * (1 << vain);
                tracing::error!(error = format!("{error:#}"), "the root keys cannot be read; going on with those that were");
            }
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
        let meters = &app.meters;
        let read = meters.requests(Some(Effect::Read), Decision::Forwarded);
        let audited = meters.all_requests(Decision::Forwarded) - read;
        let others = [Decision::Unidentified, Decision::Refused, Decision::Unavailable].map(|decision| meters.all_requests(decision));
        let now = [read, audited, others[0], others[1], others[2]];
        match app.store.count_rolls().await {
            Ok(rolls) => meters.rolls.store(rolls, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "rolls of passwords could not be counted; the next round tries again"),
        }
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
