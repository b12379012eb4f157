//! What the data path knows, in memory: keys by their hash, people with their grants, Racks by name. Swapped whole; read without a lock.
//!
//! [`Snapshots`] holds the current one, follows the feed, tells open streams of changes, and says when it must not be trusted any more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use convox_model::{Grant, KeyId, OrgId, Principal, RackId, UserId};
use convox_seal::{KeyKind, WrappedDataKey};
use convox_store::Store;
use convox_store::factors::Factor;
use convox_store::snapshot::Rows;
use http::HeaderValue;
use tokio::sync::{Notify, watch};

use crate::credentials::RackEntry;

/// How often SQLite's feed is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How often a server says that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(4);
/// Without a look at the feed for so long, memory is not trusted any more.
pub(crate) const TRUST: Duration = Duration::from_secs(5);

/// A key that authenticates.
#[derive(Debug)]
pub(crate) struct KnownKey {
    pub(crate) principal: Principal,
    /// Their address as the value of a header.
    pub(crate) actor: HeaderValue,
    /// End, milliseconds since 1970.
    pub(crate) expires_ms: Option<i64>,
    /// What kind of key it is; `None` for the user as such, whom no key stands for.
    pub(crate) kind: Option<KeyKind>,
    /// Whether it is a session that is to go on under a new id, because its owner may do more or less than at its making.
    pub(crate) is_due: bool,
    /// Of a session: when its owner last proved who they are, milliseconds since 1970, and by which second factor.
    pub(crate) proven_ms: i64,
    pub(crate) factor: Option<Factor>,
    /// Of a command line's session: its API key.
    goes_with: Option<KeyId>,
    /// Whether its owner has a second factor, and whether an organization of theirs requires one.
    pub(crate) has_factor: bool,
    pub(crate) needs_factor: bool,
    /// Last use, milliseconds since 1970; 0 before the first. Outlives the snapshot.
    used_ms: Arc<AtomicI64>,
}

impl KnownKey {
    /// Notes that it is used, to half a second: shards would wait for each other if each request wrote it down.
    pub(crate) fn note_use(&self, now_ms: i64) {
        if (now_ms - self.used_ms.load(Ordering::Relaxed)).abs() > USED_MS {
            self.used_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// When it was last used, milliseconds since 1970; 0 if not since this server's start.
    pub(crate) fn used_ms(&self) -> i64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// Whether it is a session, of a browser or a command line: such a key's end moves with its use.
    pub(crate) fn is_session(&self) -> bool {
        matches!(self.kind, Some(KeyKind::Session | KeyKind::CliSession))
    }

    /// The user as such; a key adds what it is.
    fn of(principal: Principal, has_factor: bool, needs_factor: bool) -> Self {
        // Addresses are plain ASCII when they come in; a row that was edited to something else names nobody.
        let actor = HeaderValue::from_str(&principal.email).unwrap_or(HeaderValue::from_static("unknown"));
        Self {
            principal,
            actor,
            expires_ms: None,
            kind: None,
            is_due: false,
            proven_ms: 0,
            factor: None,
            goes_with: None,
            has_factor,
            needs_factor,
            used_ms: Arc::default(),
        }
    }
}

/// How exactly the last use of a key is known, milliseconds.
const USED_MS: i64 = 500;

/// One moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) seq: i64,
    keys: HashMap<[u8; 32], Arc<KnownKey>>,
    key_ids: HashMap<KeyId, Arc<KnownKey>>,
    users: HashMap<UserId, Arc<KnownKey>>,
    racks: HashMap<String, Arc<RackEntry>>,
    by_short_name: HashMap<String, Vec<Arc<RackEntry>>>,
    by_org: HashMap<OrgId, Vec<Arc<RackEntry>>>,
    by_id: HashMap<RackId, Arc<RackEntry>>,
    data_keys: HashMap<OrgId, (String, WrappedDataKey)>,
    strict: BTreeSet<OrgId>,
}

impl Snapshot {
    /// Builds it from rows. Racks that did not change are taken over from `before`, with what is cached in them.
    fn build(rows: Rows, before: &Self) -> Self {
        let mut grants: HashMap<UserId, Vec<Grant>> = HashMap::new();
        for (org, user, role) in rows.members {
            grants.entry(user).or_default().push(Grant { org, role });
        }
        let grants: HashMap<UserId, Arc<[Grant]>> = grants.into_iter().map(|(user, grants)| (user, grants.into())).collect();
        let principal = |user: &UserId, key: Option<KeyId>, last4: String| Principal {
            user: user.clone(),
            email: rows.users.get(user).cloned().unwrap_or_default(),
            key,
            key_last4: last4,
            grants: grants.get(user).cloned().unwrap_or_default(),
        };
        let known = |principal: Principal| {
            let needs_factor = principal.grants.iter().any(|grant| rows.strict.contains(&grant.org));
            let has_factor = rows.factored.contains(&principal.user);
            KnownKey::of(principal, has_factor, needs_factor)
        };
        let mut snapshot = Self { seq: rows.seq, ..Self::default() };
        for user in rows.users.keys() {
            snapshot.users.insert(user.clone(), Arc::new(known(principal(user, None, String::new()))));
        }
        for key in rows.keys {
            let shown = if key.kind == KeyKind::Session { "web".to_owned() } else { key.last4 };
            let used_ms = before.key_ids.get(&key.id).map(|known| Arc::clone(&known.used_ms)).unwrap_or_default();
            let known = Arc::new(KnownKey {
                expires_ms: key.expires_ms,
                kind: Some(key.kind),
                is_due: key.is_due,
                proven_ms: key.proven_ms,
                factor: key.factor,
                goes_with: key.goes_with,
                used_ms,
                ..known(principal(&key.user, Some(key.id.clone()), shown))
            });
            snapshot.keys.insert(key.hash, Arc::clone(&known));
            snapshot.key_ids.insert(key.id, known);
        }
        for row in rows.racks {
            let path = row.path();
            let entry = match before.racks.get(&path) {
                Some(entry) if entry.row == row => Arc::clone(entry),
                _ => Arc::new(RackEntry::new(row)),
            };
            snapshot.by_short_name.entry(entry.row.name.clone()).or_default().push(Arc::clone(&entry));
            snapshot.by_org.entry(entry.row.org.clone()).or_default().push(Arc::clone(&entry));
            snapshot.by_id.insert(entry.row.id.clone(), Arc::clone(&entry));
            snapshot.racks.insert(path, entry);
        }
        snapshot.data_keys = rows.orgs.into_iter().collect();
        snapshot.strict = rows.strict;
        snapshot
    }

    /// The key with that keyed hash.
    pub(crate) fn key(&self, hash: &[u8; 32]) -> Option<&Arc<KnownKey>> {
        self.keys.get(hash)
    }

    /// Who `principal` is now; `None` once their key or they themselves are gone.
    pub(crate) fn again(&self, principal: &Principal) -> Option<&Arc<KnownKey>> {
        match &principal.key {
            Some(key) => self.key_ids.get(key),
            None => self.users.get(&principal.user),
        }
    }

    /// Whether a second factor was proven where one is needed: by the session itself, or for an API key by `cli`, the session that goes with
    /// it. A machine cannot be asked, so its key needs none.
    pub(crate) fn is_proven(&self, known: &KnownKey, cli: Option<&KeyId>, now_ms: i64) -> bool {
        match known.kind {
            Some(KeyKind::Session) => known.factor.is_some() || !(known.has_factor || known.needs_factor),
            Some(KeyKind::User) => !known.needs_factor || cli.is_some_and(|id| self.cli_session(id, known, now_ms).is_some()),
            Some(KeyKind::Deploy) | None => true,
            Some(_) => false,
        }
    }

    /// The command line's session of that id, if it is alive and goes with that API key.
    pub(crate) fn cli_session(&self, id: &KeyId, api_key: &KnownKey, now_ms: i64) -> Option<&Arc<KnownKey>> {
        self.key_ids.get(id).filter(|session| {
            session.kind == Some(KeyKind::CliSession)
                && session.goes_with.is_some()
                && session.goes_with == api_key.principal.key
                && session.expires_ms.is_some_and(|end| end > now_ms)
        })
    }

    /// The Rack of that whole name.
    pub(crate) fn rack(&self, path: &str) -> Option<&Arc<RackEntry>> {
        self.racks.get(path)
    }

    /// Racks with that name in any organization.
    pub(crate) fn racks_named(&self, short: &str) -> &[Arc<RackEntry>] {
        self.by_short_name.get(short).map(Vec::as_slice).unwrap_or_default()
    }

    /// The Rack of that id in that organization.
    pub(crate) fn rack_by_id(&self, org: &OrgId, id: &RackId) -> Option<&Arc<RackEntry>> {
        self.by_id.get(id).filter(|rack| rack.row.org == *org)
    }

    /// Racks of an organization, sorted by name.
    pub(crate) fn racks_of(&self, org: &OrgId) -> &[Arc<RackEntry>] {
        self.by_org.get(org).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether somebody has a second factor.
    pub(crate) fn has_factor(&self, user: &UserId) -> bool {
        self.users.get(user).is_some_and(|known| known.has_factor)
    }

    /// Whether members of an organization need a second factor.
    pub(crate) fn needs_factor(&self, org: &OrgId) -> bool {
        self.strict.contains(org)
    }

    /// The wrapped data key of an organization.
    pub(crate) fn data_key(&self, org: &OrgId) -> Option<&WrappedDataKey> {
        self.data_keys.get(org).map(|(_, key)| key)
    }

    /// When a key or session was last used, as this server saw it, milliseconds since 1970; 0 if it did not.
    pub(crate) fn key_used_ms(&self, id: &KeyId) -> i64 {
        self.key_ids.get(id).map_or(0, |known| known.used_ms())
    }

    /// Whether there is anybody at all; a Console without users waits for its setup.
    pub(crate) fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// All keys and sessions.
    pub(crate) fn all_keys(&self) -> impl Iterator<Item = &Arc<KnownKey>> {
        self.key_ids.values()
    }

    /// All Racks.
    pub(crate) fn all_racks(&self) -> impl Iterator<Item = &Arc<RackEntry>> {
        self.racks.values()
    }
}

/// The current snapshot and what keeps it current.
pub(crate) struct Snapshots {
    current: ArcSwap<Snapshot>,
    changed: watch::Sender<i64>,
    wake: Notify,
    started: Instant,
    /// Milliseconds after `started` of the last successful look at the feed.
    looked_ms: AtomicI64,
    node: String,
}

impl Snapshots {
    /// Loads the first one.
    pub(crate) async fn load(store: &Store) -> Result<Self, convox_store::StoreError> {
        let first = Snapshot::build(store.load_snapshot().await?, &Snapshot::default());
        let seq = first.seq;
        Ok(Self {
            current: ArcSwap::from_pointee(first),
            changed: watch::channel(seq).0,
            wake: Notify::new(),
            started: Instant::now(),
            looked_ms: AtomicI64::new(0),
            node: uuid::Uuid::now_v7().to_string(),
        })
    }

    /// The current one.
    pub(crate) fn now(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Tells of each change.
    pub(crate) fn watch(&self) -> watch::Receiver<i64> {
        self.changed.subscribe()
    }

    /// Whether the feed was seen recently enough to believe what is in memory.
    pub(crate) fn is_trusted(&self) -> bool {
        self.elapsed_ms() - self.looked_ms.load(Ordering::Relaxed) < TRUST.as_millis() as i64
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Waits until this server knows position `seq` of the feed, at most two seconds.
    pub(crate) async fn settle(&self, seq: i64) {
        let mut changed = self.changed.subscribe();
        self.wake.notify_one();
        let _ = tokio::time::timeout(Duration::from_secs(2), changed.wait_for(|seen| *seen >= seq)).await;
    }

    /// Follows the feed for ever: looks, reloads, tells. Faults are logged and tried again; meanwhile trust runs out. Reads only: that
    /// somebody else holds the database's write lock must not hold this up.
    pub(crate) async fn follow(&self, store: &Store) {
        let mut trusted = true;
        loop {
            // What is read is at least as fresh as the moment before the question.
            let asked_ms = self.elapsed_ms();
            let fault = match tokio::time::timeout(LOOK, self.look(store)).await {
                Ok(Ok(())) => {
                    self.looked_ms.store(asked_ms, Ordering::Relaxed);
                    None
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("the database did not answer within {} s", LOOK.as_secs())),
            };
            if std::mem::replace(&mut trusted, self.is_trusted()) != trusted {
                match &fault {
                    Some(fault) => tracing::error!(fault, "the database cannot be read: refusing everything that needs its memory"),
                    None => tracing::warn!("the database can be read again"),
                }
                // Those who are open look for themselves whether they may stay.
                self.changed.send_modify(|_| ());
            } else if let Some(fault) = fault {
                tracing::warn!(fault, "could not follow the feed of changes");
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Tells for ever that this server lives, and at once what it has seen.
    pub(crate) async fn acknowledge(&self, store: &Store) {
        let mut changes = self.changed.subscribe();
        loop {
            let seq = *changes.borrow_and_update();
            if let Err(error) = store.beat(&self.node, seq).await {
                tracing::warn!(%error, "could not acknowledge the feed of changes");
            }
            // As long as `self` is there, so is the sender.
            let _ = tokio::time::timeout(BEAT, changes.changed()).await;
        }
    }

    async fn look(&self, store: &Store) -> Result<(), convox_store::StoreError> {
        if store.feed_seq().await? == self.now().seq {
            return Ok(());
        }
        let next = Snapshot::build(store.load_snapshot().await?, &self.current.load());
        let seq = next.seq;
        self.current.store(Arc::new(next));
        self.changed.send_replace(seq);
        Ok(())
    }

    /// Takes this server out of those that are waited for.
    pub(crate) async fn leave(&self, store: &Store) {
        let _ = store.leave(&self.node).await;
    }
}
