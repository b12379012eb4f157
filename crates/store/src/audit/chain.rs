//! How entries of the log hold each other in place: an organization has a chain for each writer, and each entry a link over the one before.
//!
//! Several servers write at the same time, each its own chains, so none waits for another; changes of the Console follow each other by the
//! lock of the feed, and are a chain of their own. That two writers took the same chain by mistake is noticed by its head, which moves only
//! from where the writer knew it to be.

use convox_seal::chain::{Link, digest};

/// The writer of the Console's own changes, whichever server or command line makes them.
pub(crate) const CHANGES: i64 = 0;

/// What the seal of the newest entry says.
pub(crate) const HEAD: &str = "head";
/// What it says in full: that there were so many chains at that time, of this organization, or of all for a chain that is nobody's. So a chain
/// that is taken out as a whole, with its row, is missed by the heads that moved since it was there. Chains never go by themselves.
///
/// And whether there was a register of all: so one that is taken out is missed.
pub(crate) fn head(chains: i64, is_registered: bool) -> String {
    let registered = if is_registered { ", registered" } else { "" };
    if chains == 0 { HEAD.to_owned() } else { format!("{HEAD} of {chains}{registered}") }
}

/// What the seal of the newest removed entry says.
pub(crate) const ANCHOR: &str = "anchor";

/// How a chain is called, in seals and in exports.
pub fn name(org_id: &str, slot: i64) -> String {
    format!("{org_id}/{slot}")
}

/// The newest entry of a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// Of the chain's row; 0 while there is none.
    pub(crate) id: i64,
    pub(crate) number: i64,
    pub(crate) link: Link,
}

impl Head {
    /// From a row: id, number and link. A link that is none (somebody edited it) begins anew: the log goes on, and the check tells of it.
    pub(crate) fn read(name: &str, row: Option<(i64, i64, Vec<u8>)>) -> Self {
        let (id, number, link) = row.unwrap_or_default();
        Self { id, number, link: Link::from_bytes(&link).unwrap_or_else(|| Link::first(name)) }
    }

    /// Puts one more entry behind it.
    pub(crate) fn extend(&mut self, line: &str) {
        self.number += 1;
        self.link = self.link.after(self.number, &digest(line));
    }
}

/// Reads the head of a chain inside a transaction.
macro_rules! read_head {
    ($tx:ident, $org_id:expr, $slot:expr) => {{
        let row: Option<(i64, i64, Vec<u8>)> = sqlx::query_as("SELECT id, number, link FROM audit_chains WHERE org_id = $1 AND slot = $2")
            .bind($org_id)
            .bind($slot)
            .fetch_optional(&mut *$tx)
            .await?;
        $crate::audit::chain::Head::read(&$crate::audit::chain::name($org_id, $slot), row)
    }};
}
pub(crate) use read_head;

/// Moves the head of a chain from entry `$before` inside a transaction; gives the id of the chain's row, or `None` when somebody else moved
/// it meanwhile.
macro_rules! move_head {
    ($store:expr, $tx:ident, $org_id:expr, $slot:expr, $before:expr, $head:expr) => {{
        use $crate::audit::chain::{ANCHOR, Head, name};
        let (head, name): (&Head, String) = ($head, name($org_id, $slot));
        let (chains, registers): (i64, i64) =
            sqlx::query_as("SELECT COUNT(*), (SELECT COUNT(*) FROM audit_register) FROM audit_chains WHERE $1 = '' OR org_id = $1")
                .bind($org_id)
                .fetch_one(&mut *$tx)
                .await?;
        let meaning = $crate::audit::chain::head(chains + i64::from(head.id == 0), registers > 0);
        let seal = $store.seal(&meaning, &name, head.number, &head.link);
        if head.id == 0 {
            let first = convox_seal::chain::Link::first(&name);
            let made: Option<(i64,)> = sqlx::query_as(
                "INSERT INTO audit_chains (org_id, slot, number, link, seal, anchor, anchor_link, anchor_seal) \
                 VALUES ($1, $2, $3, $4, $5, 0, $6, $7) ON CONFLICT (org_id, slot) DO NOTHING RETURNING id",
            )
            .bind($org_id)
            .bind($slot)
            .bind(head.number)
            .bind(&head.link.as_bytes()[..])
            .bind(seal)
            .bind(&first.as_bytes()[..])
            .bind($store.seal(ANCHOR, &name, 0, &first))
            .fetch_optional(&mut *$tx)
            .await?;
            if made.is_some() {
                $crate::audit::register::count!($store, $tx, 1i64, 0i64);
            }
            made.map(|(id,)| id)
        } else {
            let moved = sqlx::query("UPDATE audit_chains SET number = $2, link = $3, seal = $4 WHERE id = $1 AND number = $5")
                .bind(head.id)
                .bind(head.number)
                .bind(&head.link.as_bytes()[..])
                .bind(seal)
                .bind($before)
                .execute(&mut *$tx)
                .await?;
            (moved.rows_affected() == 1).then_some(head.id)
        }
    }};
}
pub(crate) use move_head;

/// Inserts the event of a change inside its transaction, which holds the feed: nobody else writes this chain meanwhile.
macro_rules! insert {
    ($store:expr, $tx:ident, $event:expr) => {{
        use $crate::audit::chain::{CHANGES, move_head, read_head};
        let event: &convox_model::Event = $event;
        let line = event.to_json_line();
        let mut head = read_head!($tx, event.org_id.as_str(), CHANGES);
        let before = head.number;
        head.extend(&line);
        let Some(chain) = move_head!($store, $tx, event.org_id.as_str(), CHANGES, before, &head) else {
            return Err($crate::StoreError::Conflict("the audit log moved meanwhile; try again".to_owned()));
        };
        let row = $crate::audit::write::Row { event, line: &line, chain, number: head.number, link: head.link };
        $crate::audit::write::bind!(sqlx::query($crate::audit::write::insert_events(1)), &row).execute(&mut *$tx).await?;
    }};
}
pub(crate) use insert;
