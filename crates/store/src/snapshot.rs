//! Everything that the data path must know, read as of one moment; and what of it changed since another.

use std::collections::{BTreeMap, BTreeSet};

use convox_model::{KeyId, OrgId, RackId, Role, Scope, UserId};
use convox_seal::{KeyKind, Place, WrappedDataKey};

use crate::factors::Factor;
use crate::keys::read_scope;
use crate::racks::{RackRow, Row, rack_row};
use crate::register::{self, Judging, read_register};
use crate::{Store, StoreError};

/// So many positions of the feed are kept row by row; whoever is further behind reads everything.
pub(crate) const KEPT: i64 = 100_000;
/// With more rows to read one by one, reading everything is faster.
const MOST_ROWS: usize = 20_000;

/// A key as the data path knows it.
#[derive(Clone, Debug)]
pub struct KeyEntry {
    /// Its id.
    pub id: KeyId,
    /// Whose.
    pub user: UserId,
    /// What it is for.
    pub kind: KeyKind,
    /// Keyed hash.
    pub hash: [u8; 32],
    /// For the audit log.
    pub last4: String,
    /// End, milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// For a session: whether what its owner may do changed after its making, so that it is to go on under a new id.
    pub is_due: bool,
    /// Of a session: when its owner last proved who they are, milliseconds since 1970.
    pub proven_ms: i64,
    /// Of a session: by which second factor.
    pub factor: Option<Factor>,
    /// Of a command line's session: its API key.
    pub goes_with: Option<KeyId>,
    /// What it is limited to.
    pub scope: Scope,
}

/// The rows of one moment.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Position of the feed that they stand for.
    pub seq: i64,
    /// All keys.
    pub keys: Vec<KeyEntry>,
    /// Addresses by user.
    pub users: BTreeMap<UserId, String>,
    /// Organization, user, role.
    pub members: Vec<(OrgId, UserId, Role)>,
    /// All Racks.
    pub racks: Vec<RackRow>,
    /// Names and data keys, the newest first, by organization.
    pub orgs: BTreeMap<OrgId, (String, Vec<WrappedDataKey>)>,
    /// Organizations whose members need a second factor.
    pub strict: BTreeSet<OrgId>,
    /// Users who have one.
    pub factored: BTreeSet<UserId>,
    /// Those of them who have a security key.
    pub with_security_key: BTreeSet<UserId>,
}

/// What changed between two positions of the feed: the ids of all rows that did, and those of them that are still there.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// Users that changed, came, went, or whose memberships did.
    pub users: BTreeSet<UserId>,
    /// Keys that changed, came or went.
    pub keys: BTreeSet<KeyId>,
    /// Racks that changed, came or went.
    pub racks: BTreeSet<RackId>,
    /// Organizations that changed, came or went.
    pub orgs: BTreeSet<OrgId>,
    /// As they are now.
    pub now: Rows,
}

/// A key's row: id, user, kind, hash, last four characters, expiry, whether it is due for a new id, proven, factor, API key, organization,
/// scope.
type KeyRow = (String, String, String, Vec<u8>, String, Option<i64>, i64, i64, String, Option<String>, Option<String>, String);
/// A user's row: id, address, number of second factors, number of security keys.
type UserRow = (String, String, i64, i64);
/// An organization's row: id, name, whether a second factor is needed.
type OrgRow = (String, String, i64);
/// A data key's row: whose, the key.
type DataKeyRow = (String, Vec<u8>);

/// What was read, not yet understood.
#[derive(Default)]
struct Raw {
    seq: i64,
    keys: Vec<KeyRow>,
    users: Vec<UserRow>,
    members: Vec<(String, String, String)>,
    racks: Vec<Row>,
    orgs: Vec<OrgRow>,
    data_keys: Vec<DataKeyRow>,
    /// What the register says of the Racks' passwords.
    register: register::Rows,
}

/// The texts, with what narrows them.
macro_rules! keys {
    ($narrow:literal) => {
        concat!("SELECT id, user_id, kind, hash, last4, expires_ms, renew, proven_ms, factor, goes_with, org_id, scope FROM keys ", $narrow)
    };
}
macro_rules! users {
    ($narrow:literal) => {
        concat!(
            "SELECT id, email, \
             (SELECT COUNT(*) FROM passkeys WHERE user_id = users.id) + (SELECT COUNT(*) FROM totp WHERE user_id = users.id), \
             (SELECT COUNT(*) FROM passkeys WHERE user_id = users.id AND kind = 'security-key') FROM users ",
            $narrow
        )
    };
}
macro_rules! members {
    ($narrow:literal) => {
        concat!("SELECT org_id, user_id, role FROM members ", $narrow)
    };
}
macro_rules! racks {
    ($narrow:literal) => {
        concat!(
            "SELECT r.id, r.org_id, o.name, r.name, r.provider, r.host, r.pin, r.password, r.generation, r.created_ms, r.protected, r.password_ms \
             FROM racks r JOIN orgs o ON o.id = r.org_id ",
            $narrow
        )
    };
}
macro_rules! orgs {
    ($narrow:literal) => {
        concat!("SELECT id, name, needs_factor FROM orgs ", $narrow)
    };
}
macro_rules! data_keys {
    ($narrow:literal) => {
        concat!("SELECT owner, wrapped FROM data_keys ", $narrow, " ORDER BY owner, version DESC")
    };
}

/// Where the feed stands, inside a transaction.
macro_rules! seq {
    ($tx:ident) => {{
        let (seq,): (i64,) = sqlx::query_as("SELECT seq FROM feed WHERE id = 1").fetch_one(&mut *$tx).await?;
        seq
    }};
}

/// Reads all tables inside a transaction.
macro_rules! read {
    ($tx:ident) => {{
        let mut raw = Raw {
            seq: seq!($tx),
            keys: sqlx::query_as(keys!("")).fetch_all(&mut *$tx).await?,
            users: sqlx::query_as(users!("")).fetch_all(&mut *$tx).await?,
            members: sqlx::query_as(members!("")).fetch_all(&mut *$tx).await?,
            racks: sqlx::query_as(racks!("ORDER BY o.name, r.name")).fetch_all(&mut *$tx).await?,
            orgs: sqlx::query_as(orgs!("")).fetch_all(&mut *$tx).await?,
            data_keys: sqlx::query_as(data_keys!("")).fetch_all(&mut *$tx).await?,
            register: register::Rows::default(),
        };
        raw.register = read_register!($tx, &places(&raw.racks));
        raw
    }};
}

/// Reads what changed inside a transaction; `None` when that is too much or too long ago.
macro_rules! read_changes {
    ($tx:ident, $since:expr) => {{
        let mut raw = Raw { seq: seq!($tx), ..Raw::default() };
        let changed: Vec<(String, String)> = if raw.seq - $since < KEPT {
            // With what was noted at `since` itself: whoever edits by hand may move the feed last.
            sqlx::query_as("SELECT DISTINCT what, row_id FROM changes WHERE seq >= $1 LIMIT $2")
                .bind($since)
                .bind(MOST_ROWS as i64 + 1)
                .fetch_all(&mut *$tx)
                .await?
        } else {
            return Ok(None);
        };
        if raw.seq < $since || changed.len() > MOST_ROWS {
            return Ok(None);
        }
        for (what, id) in &changed {
            match what.as_str() {
                "key" => raw.keys.extend(sqlx::query_as::<_, KeyRow>(keys!("WHERE id = $1")).bind(id).fetch_optional(&mut *$tx).await?),
                "rack" => raw.racks.extend(sqlx::query_as::<_, Row>(racks!("WHERE r.id = $1")).bind(id).fetch_optional(&mut *$tx).await?),
                "org" => {
                    raw.orgs.extend(sqlx::query_as::<_, OrgRow>(orgs!("WHERE id = $1")).bind(id).fetch_optional(&mut *$tx).await?);
                    raw.data_keys
                        .extend(sqlx::query_as::<_, DataKeyRow>(data_keys!("WHERE owner = $1")).bind(id).fetch_all(&mut *$tx).await?);
                }
                _ => {
                    raw.users.extend(sqlx::query_as::<_, UserRow>(users!("WHERE id = $1")).bind(id).fetch_optional(&mut *$tx).await?);
                    raw.members.extend(
                        sqlx::query_as::<_, (String, String, String)>(members!("WHERE user_id = $1")).bind(id).fetch_all(&mut *$tx).await?,
                    );
                }
            }
        }
        raw.register = read_register!($tx, &places(&raw.racks));
        (changed, raw)
    }};
}

/// Where the passwords of these Racks stand.
fn places(racks: &[Row]) -> Vec<Place> {
    racks.iter().map(|(id, ..)| register::password(id)).collect()
}

/// Runs a body in a transaction that sees one moment: on SQLite as of its first read, on PostgreSQL as of its first statement.
macro_rules! moment {
    ($db:expr, |$tx:ident| $body:expr) => {
        match $db {
            convox_db::Db::Sqlite { read, .. } => {
                let mut $tx = read.begin().await?;
                let out = $body;
                $tx.commit().await?;
                out
            }
            convox_db::Db::Postgres(pool) => {
                let mut $tx = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                let out = $body;
                $tx.commit().await?;
                out
            }
        }
    };
}

pub(crate) use moment;

impl Store {
    /// Reads everything as of one moment.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn load_snapshot(&self) -> Result<Rows, StoreError> {
        let judging = self.judging();
        let raw = moment!(&self.db, |tx| read!(tx));
        Ok(raw.rows(judging))
    }

    /// Reads what changed since position `since` of the feed. `None` when so much did, or so long ago, that reading everything is called
    /// for.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn load_changes(&self, since: i64) -> Result<Option<Delta>, StoreError> {
        let judging = self.judging();
        let (changed, raw) = moment!(&self.db, |tx| read_changes!(tx, since));
        let mut delta = Delta { now: raw.rows(judging), ..Delta::default() };
        for (what, id) in changed {
            match what.as_str() {
                "key" => drop(delta.keys.insert(KeyId::from_text(id))),
                "rack" => drop(delta.racks.insert(RackId::from_text(id))),
                "org" => drop(delta.orgs.insert(OrgId::from_text(id))),
                _ => drop(delta.users.insert(UserId::from_text(id))),
            }
        }
        Ok(Some(delta))
    }
}

impl Raw {
    /// A row that cannot be read grants nothing.
    fn rows(self, judging: Judging) -> Rows {
        let mut raw = self;
        let judge = judging.by(std::mem::take(&mut raw.register));
        let key = |(id, user, kind, hash, last4, expires_ms, renew, proven_ms, factor, goes_with, org, scope): KeyRow| {
            Some(KeyEntry {
                id: KeyId::from_text(id),
                user: UserId::from_text(user),
                kind: KeyKind::from_name(&kind)?,
                hash: hash.try_into().ok()?,
                last4,
                expires_ms,
                is_due: renew != 0,
                proven_ms,
                factor: Factor::from_name(&factor),
                goes_with: goes_with.map(KeyId::from_text),
                // A limit that this version cannot read is not ignored.
                scope: read_scope(org, &scope)?,
            })
        };
        let member =
            |(org, user, role): (String, String, String)| Some((OrgId::from_text(org), UserId::from_text(user), role.parse().ok()?));
        let strict = raw.orgs.iter().filter(|(.., needs_factor)| *needs_factor != 0).map(|(id, ..)| OrgId::from_text(id.clone())).collect();
        let who =
            |has: fn(&UserRow) -> bool| raw.users.iter().filter(|row| has(row)).map(|(id, ..)| UserId::from_text(id.clone())).collect();
        let (factored, with_security_key) = (who(|(.., factors, _)| *factors != 0), who(|(.., security_keys)| *security_keys != 0));
        let mut keys: BTreeMap<String, Vec<WrappedDataKey>> = BTreeMap::new();
        for (owner, wrapped) in raw.data_keys {
            keys.entry(owner).or_default().push(WrappedDataKey::from_bytes(wrapped));
        }
        let org = |(id, name, _): OrgRow| {
            let keys = keys.remove(&id).unwrap_or_default();
            (OrgId::from_text(id), (name, keys))
        };
        Rows {
            seq: raw.seq,
            keys: raw.keys.into_iter().filter_map(key).collect(),
            users: raw.users.into_iter().map(|(id, email, ..)| (UserId::from_text(id), email)).collect(),
            members: raw.members.into_iter().filter_map(member).collect(),
            racks: raw.racks.into_iter().map(|row| rack_row(row, &judge)).collect(),
            orgs: raw.orgs.into_iter().map(org).collect(),
            strict,
            factored,
            with_security_key,
        }
    }
}
