//! The register of what is sealed: when it begins, and what a look at it shows. On the server's command line, and by servers themselves.

use convox_seal::Sealed;
use convox_store::data_keys::LOOKUP;
use convox_store::register::Checked;

use super::{Actor, Ops, OpsError};

/// What to do about a password that is not the present one.
pub(crate) const HINT: &str =
    "somebody wrote to the database past the Console: find out who; then remove that Rack and add it again, or have its roll taken back";

impl Ops {
    /// Begins to keep the register, unless it is kept or a live server cannot do so yet; `true` when it is kept. `node` is the server that asks.
    pub(crate) async fn keep_register(&self, node: Option<&str>) -> Result<bool, OpsError> {
        if self.store.keeps_register() {
            return Ok(true);
        }
        let Some(lookup) = self.store.data_keys(LOOKUP).await?.into_iter().next() else { return Ok(false) };
        let broken = |error| OpsError::Conflict(format!("the key of the keyed hashes cannot be opened: {error}"));
        if self.keyring.unwrap_data_key(&lookup.wrapped, LOOKUP).map_err(broken)?.keeps_register() {
            self.store.must_keep_register();
            return Ok(true);
        }
        let marked = self.keyring.keeping_register(&lookup.wrapped, LOOKUP).map_err(broken)?;
        Ok(self.store.keep_register(node, &lookup, &marked).await?)
    }

    /// Looks at everything that is sealed.
    pub(crate) async fn check_register(&self) -> Result<Checked, OpsError> {
        Ok(self.store.check_register().await?)
    }

    /// Takes what is sealed now for the present texts.
    pub(crate) async fn accept_register(&self, actor: &Actor) -> Result<i64, OpsError> {
        Ok(self.store.accept_register(&actor.act(&*self.clock, "RegisterAccept", "/register".to_owned())).await?)
    }

    /// Says in the log that something was put back, if it was.
    pub(crate) fn tell_put_back(what: &str, of: &str, sealed: &Sealed) {
        if !sealed.is_current() {
            tracing::error!(what, of, hint = HINT, "a sealed text is not the present one of its place and is refused: it was put back");
        }
    }
}
