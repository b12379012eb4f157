//! What a page asks of a Rack: the walk of [`crate::relay`] for a call that the Console itself makes for somebody who is signed in.
//!
//! The decision is about the very method and path that are sent, so a page cannot ask for one thing and do another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convox_client::{Call, Client, Error as ClientError, Socket};
use convox_model::Event;
use convox_proxy::{Outcome, Permit as _};
use convox_wire::routes::{Effect, match_route};
use http::StatusCode;
use serde::de::DeserializeOwned;

use crate::authn::Verified;
use crate::authz::{Permit, authorize};
use crate::credentials::RackEntry;
use crate::front::find_rack;
use crate::meters::Decision;
use crate::ops::{Actor, OpsError};
use crate::reply::REQUEST_ID;
use crate::state::App;

/// How long a Rack may take to answer a page.
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody's way to one Rack.
pub(crate) struct Reach {
    app: Arc<App>,
    who: Verified,
    actor: Actor,
    pub(crate) rack: Arc<RackEntry>,
    client: Client,
}

impl Reach {
    /// To the Rack of that whole name. A Rack that they may not know of does not exist.
    pub(crate) fn to(app: &Arc<App>, who: &Verified, actor: &Actor, path: &str) -> Result<Self, OpsError> {
        let snapshot = app.snapshots.now();
        let missing = |error: crate::front::NoRack| OpsError::Missing(error.to_string());
        let rack = Arc::clone(find_rack(&snapshot, who.principal(), path).map_err(missing)?);
        let client = app.credentials.client(&rack, &snapshot).map_err(|error| {
            tracing::error!(rack.name = %path, %error, "the Rack's credential cannot be used");
            OpsError::Rack(format!("the stored credential of {} cannot be used; ask an operator to add the Rack again", rack.row.path()))
        })?;
        Ok(Self { app: Arc::clone(app), who: who.clone(), actor: actor.clone(), rack, client })
    }

    /// Sends a call and decodes its JSON answer.
    pub(crate) async fn value<T: DeserializeOwned>(&self, call: Result<Call, ClientError>) -> Result<T, OpsError> {
        let (permit, call) = self.admit(call, false).await?;
        self.ended(permit, tokio::time::timeout(PATIENCE, self.client.value(call)).await)
    }

    /// Sends a call whose answer says nothing but that it worked.
    pub(crate) async fn done(&self, call: Result<Call, ClientError>) -> Result<(), OpsError> {
        let (permit, call) = self.admit(call, false).await?;
        self.ended(permit, tokio::time::timeout(PATIENCE, self.client.done(call)).await)
    }

    /// Opens a stream. Whoever reads from it stops when the permit is revoked.
    pub(crate) async fn socket(&self, call: Result<Call, ClientError>) -> Result<(Permit, Socket), OpsError> {
        let (permit, call) = self.admit(call, true).await?;
        match tokio::time::timeout(PATIENCE, self.client.socket(call)).await {
            Ok(Ok(socket)) => Ok((permit, socket)),
            Ok(Err(error)) => Err(self.ended::<()>(permit, Ok(Err(error))).err().unwrap_or_else(|| self.silent())),
            Err(late) => Err(self.ended::<()>(permit, Err(late)).err().unwrap_or_else(|| self.silent())),
        }
    }

    /// Decides about a call, and writes it down unless it only reads.
    async fn admit(&self, call: Result<Call, ClientError>, is_socket: bool) -> Result<(Permit, Call), OpsError> {
        let Self { app, who, actor, rack, .. } = self;
        let call = call.map_err(|error| OpsError::Input(error.to_string()))?;
        // Copies: a call's body is not to be looked at while something is waited for.
        let (method, path) = (call.method().as_str().to_owned(), call.path().to_owned());
        let found = match_route(&method, &path, is_socket).ok_or_else(|| OpsError::Input("no Rack has such a route".to_owned()))?;
        let route = found.route;
        let event = |rule: &str, decision: &str| Event {
            org: rack.row.org_name.clone(),
            org_id: rack.row.org.to_string(),
            rack: rack.row.name.clone(),
            app: found.app.unwrap_or_default().to_owned(),
            effect: route.effect.as_str().to_owned(),
            method: method.clone(),
            rule: rule.to_owned(),
            decision: decision.to_owned(),
            ..actor.event(&*app.clock, route.name, path.clone())
        };
        let permit = authorize(app, who, rack, route, found.app).map_err(|refusal| {
            app.meters.decided(Some(route.effect), Decision::Refused);
            app.audit.refused(|| event(refusal.rule, "refused"), app.clock.now_ms());
            match refusal.status {
                StatusCode::NOT_FOUND => OpsError::Missing(refusal.message),
                _ => OpsError::Denied(refusal.message),
            }
        })?;
        let permit = if route.effect == Effect::Read {
            app.meters.decided(Some(route.effect), Decision::Forwarded);
            permit
        } else {
            let event = event(permit.rule, "allowed");
            let id = event.id.clone();
            let written = app.audit.write(event).await;
            let permit = permit.with_event(id);
            if let Err(error) = written {
                app.meters.decided(Some(route.effect), Decision::Unavailable);
                permit.unused(StatusCode::SERVICE_UNAVAILABLE);
                return Err(OpsError::Rack(error.to_string()));
            }
            app.meters.decided(Some(route.effect), Decision::Forwarded);
            permit
        };
        // Writing took a while, in which the right may have ended.
        if let Some(ended) = permit.ended() {
            permit.unused(ended.status());
            return Err(OpsError::Denied(ended.to_string()));
        }
        let named =
            call.header("convox-actor", &who.principal().email).and_then(|call| call.header(REQUEST_ID.as_str(), &actor.request_id));
        match named {
            Ok(call) => Ok((permit, call)),
            Err(error) => {
                permit.unused(StatusCode::BAD_REQUEST);
                Err(OpsError::Input(error.to_string()))
            }
        }
    }

    /// Notes how a call ended, and says what failed.
    fn ended<T>(&self, permit: Permit, answer: Result<Result<T, ClientError>, tokio::time::error::Elapsed>) -> Result<T, OpsError> {
        let status = match &answer {
            Ok(Ok(_)) => StatusCode::OK,
            Ok(Err(ClientError::NotFound { .. })) => StatusCode::NOT_FOUND,
            Ok(Err(_)) => StatusCode::BAD_GATEWAY,
            Err(_) => StatusCode::GATEWAY_TIMEOUT,
        };
        permit.finished(outcome(status, Duration::ZERO));
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.is_not_found() => Err(OpsError::Missing(error.to_string())),
            Ok(Err(error)) if error.is_about_the_key() => {
                let path = self.rack.row.path();
                Err(OpsError::Rack(format!("{path} refused its password; it was changed there, so add the Rack again with the new one")))
            }
            Ok(Err(error)) => Err(OpsError::Rack(error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}")))),
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> OpsError {
        OpsError::Rack(format!("{} did not answer within {} s; look whether it runs", self.rack.row.path(), PATIENCE.as_secs()))
    }
}

/// How a stream ended that began at `began`.
pub(crate) fn streamed(began: Instant) -> Outcome {
    outcome(StatusCode::SWITCHING_PROTOCOLS, began.elapsed())
}

fn outcome(status: StatusCode, duration: Duration) -> Outcome {
    Outcome { status: Some(status), bytes_up: 0, bytes_down: 0, duration, answered_after: None, complete: true }
}
