//! From a target to a connected client: certificate, session, and the full name of the Rack.

use std::sync::Arc;

use convox_client::session::Answerer;
use convox_client::{Client, Context, Proxies};
use convox_wire::api::RackEntry;
use convox_wire::racks::{self, NoMatch};

use crate::Ctx;
use crate::accounts;
use crate::args::RackFlag;
use crate::error::Failure;
use crate::pins;
use crate::second_factor::SecondFactor;
use crate::target::{self, Source, Target};

/// One command's way to its target.
pub(crate) struct Reached {
    pub(crate) client: Client,
    pub(crate) target: Target,
}

impl Ctx {
    /// The Rack that this command means, connected.
    pub(crate) async fn rack(&self, flag: &RackFlag) -> Result<Reached, Failure> {
        let target = target::resolve(&self.env, &self.settings, flag.rack.as_deref())?;
        self.reach(target).await
    }

    /// Tells a person at a terminal where a change is about to happen: what is changed in the wrong place is what people
    /// regret most.
    pub(crate) fn announce(&self, reached: &Reached) {
        if self.env.stderr_is_terminal && !self.out.is_json() {
            self.out.talk(&format!("On {}", reached.target.describe()));
        }
    }

    /// The host that this command means, connected, with no Rack named.
    pub(crate) async fn host(&self) -> Result<Reached, Failure> {
        let mut target = target::resolve(&self.env, &self.settings, None)?;
        target.rack = None;
        let client = self.client(&target, None).await?;
        Ok(Reached { client, target })
    }

    /// The Rack of a target that was decided on, connected.
    pub(crate) async fn reach(&self, mut target: Target) -> Result<Reached, Failure> {
        let named = match (&target.rack, &target.host.source) {
            // The host is the Rack.
            (_, Source::Machine(_)) | (None, _) => None,
            (Some(rack), _) => Some(rack.value.clone()),
        };
        let Some(name) = named else {
            let client = self.client(&target, None).await?;
            return Ok(Reached { client, target });
        };
        if name.contains('/') {
            let client = self.client(&target, Some(name)).await?;
            return Ok(Reached { client, target });
        }
        // A short name: the Console's own list says what it stands for, before anything else is asked.
        let client = self.client(&target, None).await?;
        let full = match client.racks().await {
            Ok(list) => {
                let names: Vec<String> = list.iter().map(full_name).collect();
                matched(&name, &names)?
            }
            // A Rack itself, which needs no name.
            Err(error) if error.is_not_found() => name,
            Err(error) => return Err(error.into()),
        };
        if let Some(rack) = &mut target.rack {
            rack.value.clone_from(&full);
        }
        Ok(Reached { client: client.with_rack(full), target })
    }

    async fn client(&self, target: &Target, rack: Option<String>) -> Result<Client, Failure> {
        let context = self.context(target.endpoint.authority(), rack)?;
        if target.endpoint.scheme() == convox_client::Scheme::Http && self.env.is_true("X_DEV_ALLOW_HTTP") {
            self.out.talk("WARNING: X_DEV_ALLOW_HTTP is set: the key travels in clear text");
        }
        pins::connect(&self.env, &self.settings, &self.out, &target.endpoint, &context, None).await
    }

    /// What travels with every request to `host`.
    pub(crate) fn context(&self, host: &str, rack: Option<String>) -> Result<Context, Failure> {
        Ok(Context {
            rack,
            session: accounts::session(&self.env, &self.settings, host)?,
            actor: self.env.var("CONVOX_ACTOR"),
            proxies: Proxies::from_env(|name| self.env.var(name)),
            answerer: Some(Answerer(Arc::new(SecondFactor { env: self.env.clone(), settings: self.settings.clone(), out: self.out }))),
        })
    }
}

/// `org/rack`, as the Console lists it.
pub(crate) fn full_name(rack: &RackEntry) -> String {
    match rack.organization.as_ref().map(|organization| organization.name.as_str()).filter(|name| !name.is_empty()) {
        Some(organization) => format!("{organization}/{}", rack.name),
        None => rack.name.clone(),
    }
}

/// Exactly that name, or the only `*/name`.
pub(crate) fn matched(name: &str, names: &[String]) -> Result<String, Failure> {
    match racks::resolve(name, names.iter().map(String::as_str)) {
        Ok(full) => Ok(full.to_owned()),
        Err(NoMatch::Unknown) => {
            Err(Failure::new(format!("could not find rack: {name}")).hint("convox racks lists those that you may use"))
        }
        Err(NoMatch::Ambiguous(candidates)) => {
            Err(Failure::new(format!("ambiguous rack name: {name}")).hint(format!("say which: {}", candidates.join(", "))))
        }
    }
}
