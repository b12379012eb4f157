//! Tokens of Racks whose makers have lost the right to them: revoked there, one by one.

use convox_client::{Call, Client, Error as ClientError};
use convox_model::{RackId, Role};
use convox_store::racks::RackRow;
use convox_wire::form::Params;

use super::rolls::asking::{broken, call, is_original, send, with_password};
use super::{Actor, Ops, OpsError};
use crate::credentials::open_password;

/// A Rack that could not be told of a revocation is told again after so long, milliseconds.
const REVOKE_AGAIN_MS: i64 = 5_000;

impl Ops {
    /// Racks with tokens whose makers have lost the right to them, those first that wait longest.
    pub(crate) async fn racks_of_dead_tokens(&self) -> Result<Vec<RackId>, OpsError> {
        let mut racks = Vec::new();
        for token in self.store.dead_tokens(None, self.clock.now_ms()).await? {
            if !racks.contains(&token.rack) {
                racks.push(token.rack);
            }
        }
        Ok(racks)
    }

    /// Revokes them at one Rack. What cannot be done there is tried again after a while: it holds up no other Rack, and no other token.
    pub(crate) async fn revoke_dead_tokens(&self, rack: &RackId) -> Result<(), OpsError> {
        let (row, client) = match self.client_of(rack).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            Err(error) => return self.defer_tokens(rack, None, &error).await,
        };
        for token in self.store.dead_tokens(Some(rack), self.clock.now_ms()).await? {
            let early = Params::new().with("beforehand", "true");
            let revoke = call(Call::delete(&["system", "jwt", "tokens", &token.id]))?.query(&early);
            match send(&row, client.done(revoke)).await {
                Ok(Ok(())) => {
                    tracing::info!(rack.name = %row.path(), token = token.id, "a token was revoked: its maker lost the right to it");
                    self.note_token(&row, "RackTokenRevoked", &token.id).await?;
                }
                Ok(Err(error)) if error.is_not_found() => {
                    // Something on the way may have said so.
                    if !is_original(&row, &client).await? {
                        self.defer_tokens(rack, None, &OpsError::Rack(error.to_string())).await?;
                        return Ok(());
                    }
                    let hint = "rotate its signing key: `convox rack access key rotate`";
                    tracing::warn!(rack.name = %row.path(), hint, "this Rack cannot revoke a single token");
                    self.note_token(&row, "RackTokenNotRevocable", &token.id).await?;
                }
                // It said something about this one.
                Ok(Err(error @ (ClientError::Server { .. } | ClientError::Forbidden { .. }))) => {
                    self.defer_tokens(rack, Some(&token.id), &OpsError::Rack(error.to_string())).await?;
                    continue;
                }
                Ok(Err(error)) => return self.defer_tokens(rack, None, &OpsError::Rack(error.to_string())).await,
                Err(error) => return self.defer_tokens(rack, None, &error).await,
            }
            self.store.forget_token(&token.id).await?;
        }
        Ok(())
    }

    /// Writes down what became of a token whose maker lost the right to it.
    async fn note_token(&self, row: &RackRow, action: &str, id: &str) -> Result<(), OpsError> {
        let entered = self.enter(&Actor::host(), &row.org_name, Role::Administrator).await?;
        let mut act = self.act_in(&Actor::host(), &entered, action, &row.name, &format!("racks/{}/tokens/{id}", row.name));
        "console".clone_into(&mut act.event.actor);
        Ok(self.store.note_roll(&act).await.map(|_| ())?)
    }

    async fn defer_tokens(&self, rack: &RackId, id: Option<&str>, error: &OpsError) -> Result<(), OpsError> {
        tracing::warn!(rack.id = %rack, token = id, %error, "tokens could not be revoked; it is tried again");
        Ok(self.store.defer_tokens(rack, id, self.clock.now_ms() + REVOKE_AGAIN_MS).await?)
    }

    /// A client of a Rack with its password; `None` when the Rack is gone.
    async fn client_of(&self, rack: &RackId) -> Result<Option<(RackRow, Client)>, OpsError> {
        let Some(row) = self.store.find_rack_by_id(rack).await? else { return Ok(None) };
        let entered = self.enter(&Actor::host(), &row.org_name, Role::Administrator).await?;
        let data_key = self.data_keys(&entered.org).await?;
        let password = open_password(&row, &data_key).map_err(|error| broken(&row, &error))?;
        let client = with_password(&row, &password)?;
        Ok(Some((row, client)))
    }
}
