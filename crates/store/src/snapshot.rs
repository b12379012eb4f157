//! Everything that the data path must know, read as of one moment.

use std::collections::{BTreeMap, BTreeSet};

use convox_db::Db;
use convox_model::{KeyId, OrgId, Role, UserId};
use convox_seal::{KeyKind, WrappedDataKey};

use crate::factors::Factor;
use crate::racks::{RackRow, Row, rack_row};
use crate::{Store, StoreError};

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
    /// Names and data keys by organization.
    pub orgs: BTreeMap<OrgId, (String, WrappedDataKey)>,
    /// Organizations whose members need a second factor.
    pub strict: BTreeSet<OrgId>,
    /// Users who have one.
    pub factored: BTreeSet<UserId>,
}

/// A key's row: id, user, kind, hash, last four characters, expiry, whether it is due for a new id, proven, factor, API key.
type KeyRow = (String, String, String, Vec<u8>, String, Option<i64>, i64, i64, String, Option<String>);

/// What was read, not yet understood.
struct Raw {
    seq: i64,
    keys: Vec<KeyRow>,
    users: Vec<(String, String)>,
    members: Vec<(String, String, String)>,
    racks: Vec<Row>,
    orgs: Vec<(String, String, Vec<u8>, i64)>,
    factored: Vec<(String,)>,
}

/// Reads all tables inside a transaction.
macro_rules! read {
    ($tx:ident) => {{
        let (seq,): (i64,) = sqlx::query_as("SELECT seq FROM feed WHERE id = 1").fetch_one(&mut *$tx).await?;
        Raw {
            seq,
            keys: sqlx::query_as("SELECT id, user_id, kind, hash, last4, expires_ms, renew, proven_ms, factor, goes_with FROM keys")
                .fetch_all(&mut *$tx)
                .await?,
            users: sqlx::query_as("SELECT id, email FROM users").fetch_all(&mut *$tx).await?,
            members: sqlx::query_as("SELECT org_id, user_id, role FROM members").fetch_all(&mut *$tx).await?,
            racks: sqlx::query_as(
                "SELECT r.id, r.org_id, o.name, r.name, r.provider, r.host, r.pin, r.password, r.generation, r.created_ms, r.protected, r.password_ms \
                 FROM racks r JOIN orgs o ON o.id = r.org_id ORDER BY o.name, r.name",
            )
            .fetch_all(&mut *$tx)
            .await?,
            orgs: sqlx::query_as("SELECT id, name, data_key, needs_factor FROM orgs").fetch_all(&mut *$tx).await?,
            factored: sqlx::query_as("SELECT user_id FROM passkeys UNION SELECT user_id FROM totp").fetch_all(&mut *$tx).await?,
        }
    }};
}

impl Store {
    /// Reads everything in one transaction: on SQLite as of its first read, on PostgreSQL as of its first statement.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn load_snapshot(&self) -> Result<Rows, StoreError> {
        let raw = match &self.db {
            Db::Sqlite { read, .. } => {
                let mut tx = read.begin().await?;
                let raw = read!(tx);
                tx.commit().await?;
                raw
            }
            Db::Postgres(pool) => {
                let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                let raw = read!(tx);
                tx.commit().await?;
                raw
            }
        };
        Ok(raw.into())
    }
}

impl From<Raw> for Rows {
    /// A row that cannot be read grants nothing.
    fn from(raw: Raw) -> Self {
        let key = |(id, user, kind, hash, last4, expires_ms, renew, proven_ms, factor, goes_with): KeyRow| {
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
            })
        };
        let member =
            |(org, user, role): (String, String, String)| Some((OrgId::from_text(org), UserId::from_text(user), role.parse().ok()?));
        let strict = raw.orgs.iter().filter(|(.., needs_factor)| *needs_factor != 0).map(|(id, ..)| OrgId::from_text(id.clone())).collect();
        let org = |(id, name, key, _): (String, String, Vec<u8>, i64)| (OrgId::from_text(id), (name, WrappedDataKey::from_bytes(key)));
        Self {
            seq: raw.seq,
            keys: raw.keys.into_iter().filter_map(key).collect(),
            users: raw.users.into_iter().map(|(id, email)| (UserId::from_text(id), email)).collect(),
            members: raw.members.into_iter().filter_map(member).collect(),
            racks: raw.racks.into_iter().map(rack_row).collect(),
            orgs: raw.orgs.into_iter().map(org).collect(),
            strict,
            factored: raw.factored.into_iter().map(|(user,)| UserId::from_text(user)).collect(),
        }
    }
}
