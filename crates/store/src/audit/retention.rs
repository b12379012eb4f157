//! How long events are kept. Removing the old ones shortens chains from their beginning and leaves an anchor: the place from which on the
//! rest can still be checked.

use convox_seal::chain::Link;

use super::chain::{ANCHOR, name};
use super::id_at;
use crate::{Act, Store, StoreError, change};

/// Entries that are removed in one transaction: others want to write meanwhile.
const SLICE: i64 = 2_000;

/// What was decided for an organization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Events are removed so long after they were written, milliseconds; `None` for never.
    pub keep_ms: Option<i64>,
    /// Nothing is removed, whatever its age.
    pub hold: bool,
}

impl Rule {
    /// Before which time events go, if any do.
    pub fn cutoff_ms(&self, now_ms: i64) -> Option<i64> {
        self.keep_ms.filter(|_| !self.hold).map(|keep_ms| now_ms - keep_ms)
    }
}

/// Whether nothing of an organization may be removed, inside a transaction. The rule's row is locked with that: a hold that is set meanwhile is
/// answered when this transaction is over, and holds from then on.
macro_rules! is_held {
    ($tx:ident, $org_id:expr) => {{
        let rule: Option<(i64,)> = sqlx::query_as("UPDATE audit_rules SET hold = hold WHERE org_id = $1 RETURNING hold")
            .bind($org_id)
            .fetch_optional(&mut *$tx)
            .await?;
        rule.is_some_and(|(hold,)| hold != 0)
    }};
}

impl Store {
    /// All rules, by id of the organization; empty for what belongs to none.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_audit_rules(&self) -> Result<Vec<(String, Rule)>, StoreError> {
        let rows: Vec<(String, Option<i64>, i64)> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as("SELECT org_id, keep_ms, hold FROM audit_rules ORDER BY org_id").fetch_all(pool).await
        })?;
        Ok(rows.into_iter().map(|(org_id, keep_ms, hold)| (org_id, Rule { keep_ms, hold: hold != 0 })).collect())
    }

    /// Sets the rule of an organization.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn set_audit_rule(&self, org_id: &str, rule: Rule, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            sqlx::query(
                "INSERT INTO audit_rules (org_id, keep_ms, hold) VALUES ($1, $2, $3) \
                 ON CONFLICT (org_id) DO UPDATE SET keep_ms = excluded.keep_ms, hold = excluded.hold",
            )
            .bind(org_id)
            .bind(rule.keep_ms)
            .bind(i64::from(rule.hold))
            .execute(&mut *tx)
            .await?;
        });
        Ok(seq)
    }

    /// Whether an organization has events from before `before_ms`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn has_audit_before(&self, org_id: &str, before_ms: i64) -> Result<bool, StoreError> {
        let first: Option<(i64,)> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as("SELECT at_ms FROM audit WHERE org_id = $1 ORDER BY id LIMIT 1").bind(org_id).fetch_optional(pool).await
        })?;
        Ok(first.is_some_and(|(at_ms,)| at_ms < before_ms))
    }

    /// Writes down that events are about to be removed: the log says so itself.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn announce_prune(&self, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {});
        Ok(seq)
    }

    /// Removes the events of an organization from before `before_ms`, slice by slice; gives how many entries went. An event goes only when
    /// all before it in its chain do. Ends when a hold is set meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Conflict`] when a chain is broken where it would be shortened to.
    pub async fn prune_audit(&self, org_id: &str, before_ms: i64) -> Result<u64, StoreError> {
        let mut removed = 0;
        for chain in self.list_chains(Some(org_id)).await? {
            let kept: Option<(i64,)> = convox_db::query!(&self.db, |pool| sqlx::query_as(
                "SELECT number FROM audit WHERE chain = $1 AND at_ms >= $2 ORDER BY number LIMIT 1"
            )
            .bind(chain.id)
            .bind(before_ms)
            .fetch_optional(pool)
            .await)?;
            let end = kept.map_or(chain.head.number, |(number,)| number - 1);
            let mut anchor = chain.anchor.number;
            while anchor < end {
                let to = end.min(anchor + SLICE);
                if !self.shorten(org_id, chain.id, &name(org_id, chain.slot), anchor, to).await? {
                    return Ok(removed);
                }
                removed += (to - anchor).unsigned_abs();
                anchor = to;
            }
        }
        // From before there were chains.
        convox_db::transaction!(&self.db, |tx| {
            if is_held!(tx, org_id) {
                return Ok(removed);
            }
            let old = sqlx::query("DELETE FROM audit WHERE chain = 0 AND org_id = $1 AND id < $2 AND at_ms < $3")
                .bind(org_id)
                .bind(id_at(before_ms))
                .bind(before_ms)
                .execute(&mut *tx)
                .await?;
            let gone = i64::try_from(old.rows_affected()).unwrap_or(i64::MAX);
            if gone > 0 {
                super::register::count!(self, tx, 0i64, -gone);
            }
            removed += old.rows_affected();
        });
        Ok(removed)
    }

    /// Removes a chain's entries up to number `to`; `false` when it may not (any more), or somebody else does.
    async fn shorten(&self, org_id: &str, chain: i64, name: &str, from: i64, to: i64) -> Result<bool, StoreError> {
        let broken = || {
            StoreError::Conflict(format!("chain {name} of the audit log is broken at entry {to}, so nothing was removed; check it first"))
        };
        let done = convox_db::transaction!(&self.db, |tx| {
            if is_held!(tx, org_id) {
                return Ok(false);
            }
            let row: Option<(Vec<u8>,)> = sqlx::query_as(
                "SELECT link FROM audit WHERE chain = $1 AND number = $2 UNION ALL SELECT link FROM audit_ends WHERE chain = $1 AND number = $2",
            )
            .bind(chain)
            .bind(to)
            .fetch_optional(&mut *tx)
            .await?;
            let link = row.and_then(|(link,)| Link::from_bytes(&link)).ok_or_else(broken)?;
            for text in ["DELETE FROM audit WHERE chain = $1 AND number <= $2", "DELETE FROM audit_ends WHERE chain = $1 AND number <= $2"]
            {
                sqlx::query(text).bind(chain).bind(to).execute(&mut *tx).await?;
            }
            let moved =
                sqlx::query("UPDATE audit_chains SET anchor = $2, anchor_link = $3, anchor_seal = $4 WHERE id = $1 AND anchor = $5")
                    .bind(chain)
                    .bind(to)
                    .bind(&link.as_bytes()[..])
                    .bind(self.seal(ANCHOR, name, to, &link))
                    .bind(from)
                    .execute(&mut *tx)
                    .await?;
            if moved.rows_affected() == 0 {
                return Ok(false);
            }
            true
        });
        Ok(done)
    }
}
