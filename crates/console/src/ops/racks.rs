//! Racks: contacted before they are added, so that a wrong password, an unreachable host or another certificate each say so at once.

use convox_client::{Endpoint, Error as ClientError, Key, Probed, Proxies};
use convox_model::{Event, RackId, RackName, Role};
use convox_seal::Secret;
use convox_store::Page;
use convox_store::audit::Filter;
use convox_store::orgs::OrgRow;
use convox_store::racks::RackRow;
use convox_tls::{Certificate, Fingerprint, Trust};

use super::{Actor, Ops, OpsError, plain};
use crate::credentials::{open_password, seal_password, trust};

/// How a new Rack's certificate is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pin {
    /// By the system's roots.
    Verified,
    /// It must be this one.
    Exactly(Fingerprint),
    /// Whatever it shows now is pinned.
    FirstUse,
}

/// A Rack that was added.
pub(crate) struct Added {
    pub(crate) row: RackRow,
    pub(crate) probed: Probed,
    pub(crate) seq: i64,
}

impl Ops {
    /// Asks a Rack for itself with its password; gives what it said and the pin to keep.
    pub(crate) async fn probe(&self, host: &str, password: &Secret, pin: Pin) -> Result<(Probed, Option<Fingerprint>), OpsError> {
        let trust = match pin {
            Pin::Verified => Trust::SystemRoots,
            Pin::Exactly(fingerprint) => Trust::Pinned(fingerprint),
            Pin::FirstUse => Trust::Pinned(self.inspect(host).await?.fingerprint),
        };
        let kept = match trust {
            Trust::Pinned(fingerprint) => Some(fingerprint),
            _ => None,
        };
        let probed = convox_client::probe(host, Key::new(password.expose()), trust).await.map_err(|error| explained(host, &error))?;
        Ok((probed, kept))
    }

    /// The certificate that a host shows, without telling it anything.
    pub(crate) async fn inspect(&self, host: &str) -> Result<Certificate, OpsError> {
        let endpoint = Endpoint::console(host, Key::new("")).map_err(|error| OpsError::Input(error.to_string()))?;
        convox_client::inspect(&endpoint, &Proxies::default()).await.map_err(|error| explained(host, &error))
    }

    /// Adds a Rack after it answered.
    pub(crate) async fn add_rack(
        &self,
        actor: &Actor,
        org: &str,
        name: &str,
        host: &str,
        password: &Secret,
        pin: Pin,
    ) -> Result<Added, OpsError> {
        let name: RackName = name.parse()?;
        let org = self.org(actor, org, Role::Operator).await?;
        if password.is_empty() {
            return Err(OpsError::Input("the Rack's password is empty".to_owned()));
        }
        if self.store.find_rack(&org.id, name.as_str()).await?.is_some() {
            return Err(OpsError::Conflict(format!("a Rack named {name} is already there")));
        }
        let (probed, pinned) = self.probe(host, password, pin).await?;
        let id = RackId::new();
        let data_key = self.data_key(&org).await?;
        let pin = pinned.map(|pin| pin.to_string());
        let row = RackRow {
            password: seal_password(&data_key, &org.id, &id, host, pin.as_deref(), password),
            id: id.clone(),
            org: org.id.clone(),
            org_name: org.name.clone(),
            name: name.to_string(),
            provider: plain(&probed.system.provider),
            host: host.to_owned(),
            pin,
            generation: 1,
            created_ms: self.clock.now_ms(),
        };
        let seq = self.store.insert_rack(&row, &actor.event(&*self.clock, "RackAdd", &org.name, name.as_str())).await?;
        Ok(Added { row, probed, seq })
    }

    /// Asks a known Rack again.
    pub(crate) async fn probe_rack(&self, actor: &Actor, org: &str, name: &str) -> Result<Probed, OpsError> {
        let org = self.org(actor, org, Role::Developer).await?;
        let row = self.rack(&org, name).await?;
        let data_key = self.data_key(&org).await?;
        let broken =
            |error: &dyn std::fmt::Display| OpsError::Rack(format!("the stored credential of {} cannot be used: {error}", row.path()));
        let password = open_password(&row, &data_key).map_err(|error| broken(&error))?;
        let trust = trust(row.pin.as_deref()).map_err(|error| broken(&error))?;
        convox_client::probe(&row.host, Key::new(password.expose()), trust).await.map_err(|error| explained(&row.host, &error))
    }

    /// Gives a Rack another name.
    pub(crate) async fn rename_rack(&self, actor: &Actor, org: &str, name: &str, to: &str) -> Result<i64, OpsError> {
        let to: RackName = to.parse()?;
        let org = self.org(actor, org, Role::Operator).await?;
        let row = self.rack(&org, name).await?;
        Ok(self.store.rename_rack(&row.id, &to, &actor.event(&*self.clock, "RackRename", &org.name, name)).await?)
    }

    /// Removes a Rack from the Console; the Rack itself goes on.
    pub(crate) async fn remove_rack(&self, actor: &Actor, org: &str, name: &str) -> Result<i64, OpsError> {
        let org = self.org(actor, org, Role::Operator).await?;
        let row = self.rack(&org, name).await?;
        Ok(self.store.delete_rack(&row.id, &actor.event(&*self.clock, "RackRemove", &org.name, name)).await?)
    }

    /// Racks of an organization; on the command line of all.
    pub(crate) async fn list_racks(&self, actor: &Actor, org: Option<&str>, page: &Page) -> Result<Vec<RackRow>, OpsError> {
        let org = match org {
            Some(name) => Some(self.org(actor, name, Role::Developer).await?.id),
            None if actor.principal.is_none() => None,
            None => return Err(OpsError::Input("whose Racks? name an organization".to_owned())),
        };
        Ok(self.store.list_racks(org.as_ref(), page).await?)
    }

    /// Audit events of an organization, for its operators; on the command line of all.
    pub(crate) async fn list_audit(&self, actor: &Actor, filter: &Filter, page: &Page) -> Result<Vec<Event>, OpsError> {
        if actor.principal.is_some() {
            self.org(actor, &filter.org, Role::Operator).await?;
        }
        Ok(self.store.list_audit(filter, page).await?)
    }

    async fn rack(&self, org: &OrgRow, name: &str) -> Result<RackRow, OpsError> {
        let found = self.store.find_rack(&org.id, name).await?;
        found.ok_or_else(|| OpsError::Missing(format!("no such rack: {}/{}", org.name, plain(name))))
    }

    async fn data_key(&self, org: &OrgRow) -> Result<convox_seal::DataKey, OpsError> {
        let wrapped = self.store.data_key(&org.id).await?;
        self.keyring
            .unwrap_data_key(&wrapped, org.id.as_str())
            .map_err(|error| OpsError::Rack(format!("the data key of {} cannot be opened: {error}; is this the right root key?", org.name)))
    }
}

/// What a failed look at a Rack means, and what to do.
fn explained(host: &str, error: &ClientError) -> OpsError {
    let host = plain(host);
    let words = match error {
        ClientError::Input(words) => return OpsError::Input(words.clone()),
        ClientError::Unauthorized { .. } | ClientError::Expired { .. } => {
            format!("wrong password: the Rack at {host} refused it; nothing was kept")
        }
        ClientError::Tls { fault, .. } => format!(
            "the certificate of {host} was not accepted: {fault}; check it, then give --pin FINGERPRINT or --trust-on-first-use (the password was not sent)"
        ),
        other => match other.hint() {
            Some(hint) => format!("{other}; {hint}"),
            None => other.to_string(),
        },
    };
    OpsError::Rack(words)
}
