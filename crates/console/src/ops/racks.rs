//! Racks: contacted before they are added, so that a wrong password, an unreachable host or another certificate each say so at once.

use std::time::Duration;

use convox_client::{Endpoint, Error as ClientError, Key, Probed, Proxies};
use convox_model::{Event, RackId, RackName, Role};
use convox_seal::Secret;
use convox_store::Page;
use convox_store::orgs::OrgRow;
use convox_store::racks::RackRow;
use convox_tls::{Certificate, Fingerprint, TlsFault, Trust};

use super::{Actor, Entered, Ops, OpsError, plain};
use crate::credentials::{open_password, seal_password, split_host, trust};

/// How long a Rack may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// A Rack that is to be added.
pub(crate) struct NewRack<'a> {
    pub(crate) org: &'a str,
    pub(crate) name: &'a str,
    pub(crate) host: &'a str,
    pub(crate) password: &'a Secret,
    pub(crate) pin: Pin,
}

impl Ops {
    /// Asks a Rack for itself with its password; gives what it said and the pin to keep. The password is sent only to a server whose
    /// certificate was accepted.
    async fn ask(&self, host: &str, password: &Secret, pin: Pin) -> Result<(Probed, Option<Fingerprint>), OpsError> {
        let kept = match pin {
            Pin::Verified => None,
            Pin::Exactly(fingerprint) => Some(fingerprint),
            Pin::FirstUse => Some(inspect(host).await?.fingerprint),
        };
        let probed = probe(host, password, kept.map_or(Trust::SystemRoots, Trust::Pinned)).await?;
        Ok((probed, kept))
    }

    /// Adds a Rack after it answered.
    pub(crate) async fn add_rack(&self, actor: &Actor, new: NewRack<'_>) -> Result<Added, OpsError> {
        self.add_rack_as(actor, new, RackId::new()).await
    }

    /// The same under an id that is known already.
    pub(super) async fn add_rack_as(&self, actor: &Actor, new: NewRack<'_>, id: RackId) -> Result<Added, OpsError> {
        let NewRack { org, name, host, password, pin } = new;
        let name: RackName = name.parse()?;
        let entered = self.enter(actor, org, Role::Operator).await?;
        let org = &entered.org;
        if password.is_empty() {
            return Err(OpsError::Input("the Rack's password is empty".to_owned()));
        }
        if self.store.find_rack(&org.id, name.as_str()).await?.is_some() {
            return Err(OpsError::Conflict(format!("a Rack named {name} is already there; choose another name, or remove it first")));
        }
        address(host)?;
        let (probed, pinned) = self.ask(host, password, pin).await?;
        let data_keys = self.data_keys(org).await?;
        let pin = pinned.map(|pin| pin.to_string());
        let row = RackRow {
            password: seal_password(&data_keys, &org.id, &id, host, pin.as_deref(), password),
            id: id.clone(),
            org: org.id.clone(),
            org_name: org.name.clone(),
            name: name.to_string(),
            provider: plain(&probed.system.provider),
            host: host.to_owned(),
            pin,
            generation: 1,
            created_ms: self.clock.now_ms(),
            protected: false,
            password_ms: self.clock.now_ms(),
        };
        let act = self.act_in(actor, &entered, "RackAdd", name.as_str(), &format!("racks/{name}"));
        let seq = self.store.insert_rack(&row, &act).await?;
        Ok(Added { row, probed, seq })
    }

    /// Asks a known Rack again, for members of its organization.
    pub(crate) async fn probe_rack(&self, actor: &Actor, org: &str, name: &str) -> Result<Probed, OpsError> {
        let Entered { org, .. } = self.enter(actor, org, Role::Developer).await?;
        let row = self.rack(&org, name).await?;
        let data_keys = self.data_keys(&org).await?;
        let broken = |error: &dyn std::fmt::Display| {
            OpsError::Rack(format!("the stored credential of {} cannot be used: {error}; add the Rack again", row.path()))
        };
        let password = open_password(&row, &data_keys).map_err(|error| broken(&error))?;
        let trust = trust(row.pin.as_deref()).map_err(|error| broken(&error))?;
        probe(&row.host, &password, trust).await
    }

    /// Pins what a Rack shows now, if the certificate that was pinned handed over to it: nothing else is let through a pinned connection. True
    /// if the pin moved.
    pub(crate) async fn follow_hand_over(&self, row: &RackRow, shown: Option<Fingerprint>) -> Result<bool, OpsError> {
        let (Some(pin), Some(shown)) = (row.pin.as_deref(), shown.map(|shown| shown.to_string())) else { return Ok(false) };
        if pin == shown {
            return Ok(false);
        }
        let actor = Actor::host();
        let entered = self.enter(&actor, &row.org_name, Role::Administrator).await?;
        let data_keys = self.data_keys(&entered.org).await?;
        let broken = |error| OpsError::Rack(format!("the stored credential of {} cannot be used: {error}; add the Rack again", row.path()));
        let password = open_password(row, &data_keys).map_err(broken)?;
        let sealed = seal_password(&data_keys, &row.org, &row.id, &row.host, Some(&shown), &password);
        let mut act = self.act_in(&actor, &entered, "RackPinHandOver", &row.name, &format!("racks/{}/pin/{pin}/to/{shown}", row.name));
        "console".clone_into(&mut act.event.actor);
        match self.store.hand_over_pin(row, &shown, &sealed, &act).await {
            Ok(_) => Ok(true),
            // Another server was faster, or a roll goes first; connections are let through meanwhile.
            Err(convox_store::StoreError::Conflict(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a Rack another name.
    pub(crate) async fn rename_rack(&self, actor: &Actor, org: &str, name: &str, to: &str) -> Result<i64, OpsError> {
        let to: RackName = to.parse()?;
        let entered = self.enter(actor, org, Role::Operator).await?;
        let row = self.rack(&entered.org, name).await?;
        // Under the name from now on, by which its log is asked for; the old one is in the path.
        let act = self.act_in(actor, &entered, "RackRename", to.as_str(), &format!("racks/{name}/name/{to}"));
        Ok(self.store.rename_rack(&row.id, &to, &act).await?)
    }

    /// Says whether a Rack may not be removed; for administrators, so that whoever may remove it cannot simply allow it.
    pub(crate) async fn protect_rack(&self, actor: &Actor, org: &str, name: &str, protected: bool) -> Result<i64, OpsError> {
        let entered = self.enter(actor, org, Role::Administrator).await?;
        let row = self.rack(&entered.org, name).await?;
        let action = if protected { "RackProtect" } else { "RackUnprotect" };
        let act = self.act_in(actor, &entered, action, name, &format!("racks/{name}/protected"));
        Ok(self.store.protect_rack(&row.id, protected, &act).await?)
    }

    /// Moves a Rack to another organization of the actor's; for administrators of both.
    pub(crate) async fn move_rack(&self, actor: &Actor, org: &str, name: &str, to: &str) -> Result<i64, OpsError> {
        let here = self.enter(actor, org, Role::Administrator).await?;
        let there = self.enter(actor, to, Role::Administrator).await?;
        let row = self.rack(&here.org, name).await?;
        if here.org.id == there.org.id {
            return Err(OpsError::Conflict(format!("{} is in {} already", row.name, there.org.name)));
        }
        let broken = |error| OpsError::Rack(format!("the stored credential of {} cannot be used: {error}; add the Rack again", row.path()));
        let password = open_password(&row, &self.data_keys(&here.org).await?).map_err(broken)?;
        let sealed = seal_password(&self.data_keys(&there.org).await?, &there.org.id, &row.id, &row.host, row.pin.as_deref(), &password);
        let out = self.act_in(actor, &here, "RackMoveOut", name, &format!("racks/{name}/organization/{}", there.org.name));
        let into = self.act_in(actor, &there, "RackMoveIn", name, &format!("racks/{name}/organization/{}", there.org.name));
        Ok(self.store.move_rack(&row, &there.org.id, &sealed, &out, &into).await?)
    }

    /// Which certificate a host shows, without telling it anything: for whoever is about to add a Rack.
    pub(crate) async fn look_at(&self, actor: &Actor, org: &str, host: &str) -> Result<Certificate, OpsError> {
        self.enter(actor, org, Role::Operator).await?;
        inspect(host).await
    }

    /// Who did what on a Rack last, for its details; `None` if nobody did. What was done to another one that had its name does not count.
    pub(crate) async fn last_used_by(&self, actor: &Actor, org: &str, row: &RackRow) -> Result<Option<Event>, OpsError> {
        let entered = self.enter(actor, org, Role::Developer).await?;
        Ok(self.store.last_of_rack(&entered.org.id, &row.name).await?.filter(|event| event.at_ms >= row.created_ms))
    }

    /// Removes a Rack from the Console; the Rack itself goes on.
    /// Also gives how many tokens that it signed for people may still be good there: nobody can end them through this Console any more.
    pub(crate) async fn remove_rack(&self, actor: &Actor, org: &str, name: &str) -> Result<(i64, i64), OpsError> {
        let entered = self.enter(actor, org, Role::Operator).await?;
        let row = self.rack(&entered.org, name).await?;
        let act = self.act_in(actor, &entered, "RackRemove", name, &format!("racks/{name}"));
        let tokens = self.store.count_tokens(&row.id, self.clock.now_ms()).await?;
        Ok((self.store.delete_rack(&row.id, &act).await?, tokens))
    }

    /// Racks of an organization; on the command line of all.
    pub(crate) async fn list_racks(&self, actor: &Actor, org: Option<&str>, page: &Page) -> Result<Vec<RackRow>, OpsError> {
        let org = match org {
            Some(name) => Some(self.enter(actor, name, Role::Developer).await?.org.id),
            None if actor.principal.is_none() => None,
            None => return Err(OpsError::Input("whose Racks? name an organization".to_owned())),
        };
        Ok(self.store.list_racks(org.as_ref(), page).await?)
    }

    pub(super) async fn rack(&self, org: &OrgRow, name: &str) -> Result<RackRow, OpsError> {
        let found = self.store.find_rack(&org.id, name).await?;
        found.ok_or_else(|| OpsError::Missing(format!("no such rack: {}/{}", org.name, plain(name))))
    }

    pub(super) async fn data_keys(&self, org: &OrgRow) -> Result<convox_seal::DataKeys, OpsError> {
        let rows = self.store.data_keys(org.id.as_str()).await?;
        self.keyring
            .unwrap_data_keys(rows.iter().map(|row| &row.wrapped), org.id.as_str())
            .map_err(|error| OpsError::Rack(format!("the data key of {} cannot be opened: {error}; is this the right root key?", org.name)))
    }
}

/// Refuses what is no `HOST` or `HOST:PORT`: with user information, a path or anything else around it the password could end elsewhere.
fn address(host: &str) -> Result<Endpoint, OpsError> {
    let endpoint = Endpoint::console(host, Key::new("")).map_err(|error| OpsError::Input(error.to_string()))?;
    // The relay splits it for itself; both must see the same place.
    if host.len() > 255 || split_host(host).is_none_or(|(_, port)| port != endpoint.port()) {
        return Err(OpsError::Input(format!("`{}` is no host; give HOST or HOST:PORT", plain(host))));
    }
    Ok(endpoint)
}

async fn probe(host: &str, password: &Secret, trust: Trust) -> Result<Probed, OpsError> {
    let probed = tokio::time::timeout(PATIENCE, convox_client::probe(host, Key::new(password.expose()), trust)).await;
    match probed.map_err(|_| silent(host))? {
        Ok(probed) => Ok(probed),
        Err(error) => Err(explained(host, &error).await),
    }
}

/// The certificate that a host shows, without telling it anything.
pub(crate) async fn inspect(host: &str) -> Result<Certificate, OpsError> {
    let endpoint = address(host)?;
    let proxies = Proxies::default();
    let shown = tokio::time::timeout(PATIENCE, convox_client::inspect(&endpoint, &proxies)).await;
    shown.map_err(|_| silent(host))?.map_err(|error| OpsError::Rack(in_words(&error)))
}

fn silent(host: &str) -> OpsError {
    OpsError::Rack(format!("{} did not answer within {} s; is it a Rack?", plain(host), PATIENCE.as_secs()))
}

fn in_words(error: &ClientError) -> String {
    match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

/// What a failed look at a Rack means, and what to do.
async fn explained(host: &str, error: &ClientError) -> OpsError {
    let shown = plain(host);
    OpsError::Rack(match error {
        ClientError::Input(words) => return OpsError::Input(words.clone()),
        ClientError::Unauthorized { .. } | ClientError::Expired { .. } => {
            format!("wrong password: the Rack at {shown} refused it, and nothing was kept; look it up where the Rack was installed")
        }
        ClientError::Tls { fault: fault @ (TlsFault::Protocol(_) | TlsFault::PinChanged { .. }), .. } => {
            format!("the certificate of {shown} was not accepted, so the password was not sent: {fault}")
        }
        ClientError::Tls { fault, .. } => {
            let found = match inspect(host).await {
                Ok(certificate) => format!("it shows {}; if that is the Rack's, pin it", certificate.fingerprint),
                Err(_) => "pin the Rack's certificate if it is its own".to_owned(),
            };
            format!("the certificate of {shown} was not accepted, so the password was not sent: {fault}; {found}")
        }
        other => in_words(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_nothing_around_it() {
        for good in ["rack.example.com", "rack.example.com:5443", "127.0.0.1:5443", "[::1]:5443", "[::1]", "localhost", "10.0.0.7"] {
            assert!(address(good).is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in [
            "",
            "https://rack.example.com",
            "user@rack.example.com",
            "user:pw@rack.example.com",
            "rack.example.com@evil.example",
            "rack.example.com/path",
            "rack.example.com?x",
            "rack.example.com#x",
            "rack.example.com\\@evil.example",
            "rack.example.com:0",
            "rack.example.com:70000",
            "rack.example.com:443:443",
            "rack.example.com:",
            "::1",
            "[::1",
            "[evil]:443",
            "rack example",
            " rack.example.com",
            "rack.example.com\r\nHost: evil",
            "rack\u{0}",
            "räck.example.com",
            "rack%2eexample",
            &long,
        ] {
            assert!(matches!(address(bad), Err(OpsError::Input(_))), "{bad:?}");
        }
    }
}
