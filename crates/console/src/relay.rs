//! START HERE: the walk of one request, in order. Runs on a shard; no database, no lock.
//!
//! `front` (what is it for) -> `authn` (who) -> `front` (which Rack) -> `authz` (may they) -> `audit` (write it down) -> `credentials` (with what) -> forward.

use std::net::SocketAddr;
use std::sync::Arc;

use convox_model::{Event, Principal};
use convox_proxy::{Body, Forward, Gate, LocalHint, RequestId, Verdict, is_websocket};
use convox_wire::routes::{Effect, match_route};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::audit::Entry;
use crate::authz::{Permit, authorize};
use crate::state::App;
use crate::{authn, front, reply};

/// Decides about each request of a Console.
pub(crate) struct Relay(pub(crate) Arc<App>);

const ACTOR: HeaderName = HeaderName::from_static("convox-actor");

/// What the log says of a request before it is known who asks.
struct Asked<'a> {
    head: &'a Parts,
    peer: SocketAddr,
    id: RequestId,
}

impl Gate for Relay {
    type Permit = Permit;

    async fn decide(&self, head: &Parts, peer: SocketAddr) -> Verdict<Permit> {
        let app = &self.0;
        let path = head.uri.path();
        if front::is_own(path) {
            return Verdict::Local(LocalHint::default());
        }
        let asked = Asked { head, peer, id: RequestId::next() };
        if !app.snapshots.is_trusted() {
            return asked.refuse(StatusCode::SERVICE_UNAVAILABLE, "the Console cannot reach its database; try again later");
        }
        let snapshot = app.snapshots.now();

        // Who?
        let credential = authn::credential(&head.headers);
        let key = credential.as_ref().map(|credential| credential.password.as_str()).unwrap_or_default();
        let who = match authn::verify(key, &snapshot, &app.lookup, &*app.clock) {
            Ok(who) => who,
            Err(error) => {
                app.audit.note_failure(app.clock.now_ms() / 1000, || {
                    asked.event(app, None, "", "", "read", "Authenticate", "refused", "credential")
                });
                return asked.refuse(StatusCode::UNAUTHORIZED, &error.to_string());
            }
        };
        let principal = who.principal();

        // Which Rack, and what would be done to it?
        let user = credential.as_ref().map(|credential| credential.user.as_str()).unwrap_or_default();
        let Some(name) = front::rack_name(&head.headers, user) else {
            return asked.refuse(StatusCode::BAD_REQUEST, "no rack selected: use `convox switch` or --rack");
        };
        let rack = match front::find_rack(&snapshot, principal, &name) {
            Ok(rack) => rack,
            Err(error) => {
                let status = match error {
                    front::NoRack::Unknown(_) => StatusCode::NOT_FOUND,
                    front::NoRack::Ambiguous(..) => StatusCode::CONFLICT,
                };
                let event = asked.event(app, Some(principal), "", &name, "read", "FindRack", "refused", "no-such-rack");
                app.audit.note(Entry::Event(Box::new(event)));
                return asked.refuse(status, &error.to_string());
            }
        };
        let row = &rack.row;
        let Some(found) = match_route(head.method.as_str(), path, is_websocket(head)) else {
            let event = asked.event(app, Some(principal), &row.org_name, &row.name, "", "UnknownRoute", "refused", "no-such-route");
            app.audit.note(Entry::Event(Box::new(event)));
            // Clients expect an empty body for what no Rack serves.
            return asked.refuse(StatusCode::NOT_FOUND, "");
        };
        let (route, effect) = (found.route, found.route.effect);
        let event = |decision, rule| {
            let mut event = asked.event(app, Some(principal), &row.org_name, &row.name, effect.as_str(), route.name, decision, rule);
            found.app.unwrap_or_default().clone_into(&mut event.app);
            event
        };

        // May they?
        let mut permit = match authorize(app, &who, rack, route, found.app) {
            Ok(permit) => permit,
            Err(refusal) => {
                app.audit.note(Entry::Event(Box::new(event("refused", refusal.rule))));
                let status = if refusal.visible { StatusCode::FORBIDDEN } else { StatusCode::NOT_FOUND };
                return asked.refuse(status, &refusal.message);
            }
        };

        // Write it down, before anything reaches the Rack.
        if effect != Effect::Read {
            let event = event("allowed", permit.rule);
            let id = event.id.clone();
            if let Err(error) = app.audit.write(event).await {
                return asked.refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
            }
            permit = permit.with_event(id);
            // Writing takes a while, in which the right may have ended.
            if app.snapshots.now().seq != snapshot.seq
                && let Some(reason) = permit.ended()
            {
                return asked.refuse(StatusCode::FORBIDDEN, reason);
            }
        }

        // With what?
        let opened = match rack.open(&snapshot, &app.keyring, app.clock.now_ms()) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(rack.name = %row.path(), request.id = %asked.id, %error, "the Rack's credential cannot be used");
                let message = format!("the credential of rack {} cannot be used; ask an operator to add the Rack again", row.path());
                return asked.refuse(StatusCode::BAD_GATEWAY, &message);
            }
        };
        let actor = HeaderValue::from_str(&principal.email).unwrap_or(HeaderValue::from_static("unknown"));
        Verdict::Forward(Forward {
            permit,
            upstream: Arc::clone(&opened.upstream),
            authorization: opened.authorization.clone(),
            path_and_query: None,
            add: vec![(ACTOR, actor)],
            request_id: asked.id,
        })
    }
}

impl Asked<'_> {
    fn refuse(&self, status: StatusCode, message: &str) -> Verdict<Permit> {
        let mut response: Response<Body> = reply::error(status, message, reply::wants_json(&self.head.headers)).map(Body::from);
        response.headers_mut().insert(reply::REQUEST_ID, self.id.header());
        Verdict::Reply(response)
    }

    #[expect(clippy::too_many_arguments, reason = "an event has that many facts")]
    fn event(
        &self,
        app: &App,
        who: Option<&Principal>,
        org: &str,
        rack: &str,
        effect: &str,
        action: &str,
        decision: &str,
        rule: &str,
    ) -> Event {
        Event {
            id: uuid::Uuid::now_v7().to_string(),
            at_ms: app.clock.now_ms(),
            request_id: self.id.to_string(),
            actor: who.map_or("unknown", |who| &who.email).to_owned(),
            actor_id: who.map_or("", |who| who.user.as_str()).to_owned(),
            key_last4: who.map_or("", |who| &who.key_last4).to_owned(),
            org: org.to_owned(),
            rack: rack.to_owned(),
            app: String::new(),
            effect: effect.to_owned(),
            action: action.to_owned(),
            method: self.head.method.as_str().to_owned(),
            path: self.head.uri.path().to_owned(),
            decision: decision.to_owned(),
            rule: rule.to_owned(),
            peer: self.peer.ip().to_string(),
            status: None,
        }
    }
}
