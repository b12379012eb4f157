//! Everything that the data path must know, read as of one moment.

use std::collections::BTreeMap;

use convox_model::{KeyId, OrgId, RackId, Role, UserId};
use convox_seal::{KeyKind, Sealed, WrappedDataKey};

use crate::racks::RackRow;
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
}

macro_rules! load {
    ($begin:expr) => {{
        let mut tx = $begin;
        let (seq,): (i64,) = sqlx::query_as("SELECT seq FROM feed WHERE id = 1").fetch_one(&mut *tx).await?;
        let keys: Vec<(String, String, String, Vec<u8>, String, Option<i64>)> =
            sqlx::query_as("SELECT id, user_id, kind, hash, last4, expires_ms FROM keys").fetch_all(&mut *tx).await?;
        let users: Vec<(String, String)> = sqlx::query_as("SELECT id, email FROM users").fetch_all(&mut *tx).await?;
        let members: Vec<(String, String, String)> =
            sqlx::query_as("SELECT org_id, user_id, role FROM members").fetch_all(&mut *tx).await?;
        let racks: Vec<(String, String, String, String, String, String, Option<String>, Vec<u8>, i64, i64)> = sqlx::query_as(
            "SELECT r.id, r.org_id, o.name, r.name, r.provider, r.host, r.pin, r.password, r.generation, r.created_ms \
             FROM racks r JOIN orgs o ON o.id = r.org_id ORDER BY o.name, r.name",
        )
        .fetch_all(&mut *tx)
        .await?;
        let orgs: Vec<(String, String, Vec<u8>)> = sqlx::query_as("SELECT id, name, data_key FROM orgs").fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(Rows {
            seq,
            keys: keys
                .into_iter()
                .filter_map(|(id, user, kind, hash, last4, expires_ms)| {
                    // A row that cannot be read grants nothing.
                    Some(KeyEntry {
                        id: KeyId::from_text(id),
                        user: UserId::from_text(user),
                        kind: KeyKind::from_name(&kind)?,
                        hash: hash.try_into().ok()?,
                        last4,
                        expires_ms,
                    })
                })
                .collect(),
            users: users.into_iter().map(|(id, email)| (UserId::from_text(id), email)).collect(),
            members: members
                .into_iter()
                .filter_map(|(org, user, role)| Some((OrgId::from_text(org), UserId::from_text(user), role.parse().ok()?)))
                .collect(),
            racks: racks
                .into_iter()
                .map(|(id, org, org_name, name, provider, host, pin, password, generation, created_ms)| RackRow {
                    id: RackId::from_text(id),
                    org: OrgId::from_text(org),
                    org_name,
                    name,
                    provider,
                    host,
                    pin,
                    password: Sealed::from_bytes(password),
                    generation,
                    created_ms,
                })
                .collect(),
            orgs: orgs.into_iter().map(|(id, name, key)| (OrgId::from_text(id), (name, WrappedDataKey::from_bytes(key)))).collect(),
        })
    }};
}

impl Store {
    /// Reads everything in one transaction.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn load_snapshot(&self) -> Result<Rows, StoreError> {
        match &self.db {
            convox_db::Db::Sqlite { read, .. } => load!(read.begin().await?),
            convox_db::Db::Postgres(pool) => load!(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?),
        }
    }
}
