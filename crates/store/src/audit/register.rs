//! How many chains there are, and how many events from before there were chains, under a seal. What heads say of chains is known only to those
//! that have moved since; the register moves with the chains themselves, and with retention, in the same transaction.

use convox_seal::chain::Link;

use super::check::Fault;
use crate::{Store, StoreError};

/// As which chain its seal is made.
const NAME: &str = "register";

/// Chains and events that it counts, its seal; those that are there.
type Row = (i64, i64, Vec<u8>, i64, i64);

/// What its seal says.
fn meaning(chains: i64, unchained: i64) -> String {
    format!("{chains} chains and {unchained} events before them")
}

/// Moves the register inside a transaction, if there is one, by so many chains and events.
macro_rules! count {
    ($store:expr, $tx:ident, $chains:expr, $unchained:expr) => {{
        let moved: Option<(i64, i64)> = sqlx::query_as(
            "UPDATE audit_register SET chains = chains + $1, unchained = unchained + $2 WHERE id = 1 RETURNING chains, unchained",
        )
        .bind($chains)
        .bind($unchained)
        .fetch_optional(&mut *$tx)
        .await?;
        if let Some((chains, unchained)) = moved {
            sqlx::query("UPDATE audit_register SET seal = $1 WHERE id = 1")
                .bind($store.audit_register_seal(chains, unchained))
                .execute(&mut *$tx)
                .await?;
        }
    }};
}
pub(crate) use count;

impl Store {
    pub(crate) fn audit_register_seal(&self, chains: i64, unchained: i64) -> Vec<u8> {
        self.seal(&meaning(chains, unchained), NAME, 0, &Link::first(NAME))
    }

    /// Counts once what there is, on a database that has no register yet. One that is gone is not made again: heads say that there was one, and
    /// [`Self::check_audit_register`] tells.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn begin_audit_register(&self) -> Result<(), StoreError> {
        let (there,): (i64,) =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT COUNT(*) FROM audit_register").fetch_one(pool).await)?;
        if there > 0 || self.chain_key.is_none() || self.knew_a_register().await? {
            return Ok(());
        }
        convox_db::transaction!(&self.db, |tx| {
            let (chains, unchained): (i64, i64) =
                sqlx::query_as("SELECT (SELECT COUNT(*) FROM audit_chains), (SELECT COUNT(*) FROM audit WHERE chain = 0)")
                    .fetch_one(&mut *tx)
                    .await?;
            sqlx::query("INSERT INTO audit_register (id, chains, unchained, seal) VALUES (1, $1, $2, $3) ON CONFLICT (id) DO NOTHING")
                .bind(chains)
                .bind(unchained)
                .bind(self.audit_register_seal(chains, unchained))
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// Whether any head was set while there was a register.
    async fn knew_a_register(&self) -> Result<bool, StoreError> {
        for chain in self.list_chains(None).await? {
            if self.checker(&chain).await?.knew_a_register(&chain.head) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether as many chains and events are there as the register says. For the whole log: a chain that is gone is no organization's any more.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn check_audit_register(&self) -> Result<Vec<Fault>, StoreError> {
        if self.chain_key.is_none() {
            return Ok(Vec::new());
        }
        // All as of one moment.
        let text = "SELECT chains, unchained, seal, (SELECT COUNT(*) FROM audit_chains), (SELECT COUNT(*) FROM audit WHERE chain = 0) FROM audit_register";
        let row: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(text).fetch_optional(pool).await)?;
        let fault = |what: String| vec![Fault { chain: String::new(), number: 0, event: String::new(), what }];
        let Some((said, events, seal, chains, unchained)) = row else {
            let is_gone = self.knew_a_register().await?;
            return Ok(if is_gone { fault("the register of the chains was taken out".to_owned()) } else { Vec::new() });
        };
        let link = Link::first(NAME);
        if !self.chain_key.as_ref().is_some_and(|key| key.is_seal(&meaning(said, events), NAME, 0, &link, &seal)) {
            return Ok(fault("the register of the chains was not set by this Console".to_owned()));
        }
        let mut faults = Vec::new();
        if chains < said {
            faults.extend(fault(format!("a chain was taken out as a whole: there were {said}, and there are {chains}")));
        }
        if unchained > events {
            faults.extend(fault(format!(
                "events were put in as if they were from before there were chains: there were {events} of these, and there are {unchained}"
            )));
        }
        if unchained < events {
            faults.extend(fault(format!(
                "events from before there were chains were taken out: there were {events}, and there are {unchained}"
            )));
        }
        Ok(faults)
    }
}
