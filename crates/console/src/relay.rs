//! START HERE: the walk of one request, in order. Runs on a shard; no database, no lock.
//!
//! What a client may be told is decided by where the walk ends: ADR 0007. Why the log comes first: ADR 0008.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use convox_model::{Event, Principal};
use convox_proxy::{Forward, Gate, LocalHint, RequestId, Verdict, is_websocket};
use convox_wire::routes::{Effect, match_route};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::authn::{self, AuthError, ROOM};
use crate::authz::{Permit, authorize};
use crate::front::{self, NoRack};
use crate::meters::{Decision, Timing};
use crate::reply::{self, REQUEST_ID};
use crate::snapshot::{About, Snapshot};
use crate::state::App;
use crate::strangers;
use crate::traces::{self, Begun, Context, TRACEPARENT, TRACESTATE, Traces};

const ACTOR: HeaderName = HeaderName::from_static("convox-actor");
const TOKEN_ID: HeaderName = HeaderName::from_static("convox-token-id");
/// No Rack signs a token for longer: a year, milliseconds.
const LONGEST_TOKEN_MS: i64 = 8760 * 3_600_000;

/// Decides about each request of a Console.
pub(crate) struct Relay(pub(crate) Arc<App>);

impl Gate for Relay {
    type Permit = Permit;

    async fn decide(&self, head: &Parts, peer: SocketAddr) -> Verdict<Permit> {
        // 1. What is it for? The Console's own paths are never a Rack's, whatever the headers say.
        if front::is_own(head.uri.path()) {
            return Verdict::Local(LocalHint::default());
        }
        let peer = self.0.proxies.caller(peer.ip(), &head.headers);
        let asked = Asked { app: &self.0, head, peer, id: RequestId::next(), began: Instant::now() };
        match asked.walk().await {
            Ok(forward) => Verdict::Forward(forward),
            Err(refused) => asked.reply(&refused),
        }
    }
}

/// A request on its way.
struct Asked<'a> {
    app: &'a Arc<App>,
    head: &'a Parts,
    peer: IpAddr,
    id: RequestId,
    began: Instant,
}

/// A request that may be forwarded.
struct Admitted {
    permit: Permit,
    actor: HeaderValue,
    /// What is to be written before.
    event: Option<Event>,
}

/// What the caller is told instead.
struct Refused {
    status: StatusCode,
    message: Cow<'static, str>,
    /// The demand for a session, or how long to wait.
    further: Option<(HeaderName, HeaderValue)>,
}

fn refuse(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Refused {
    Refused { status, message: message.into(), further: None }
}

impl Asked<'_> {
    async fn walk(&self) -> Result<Forward<Permit>, Refused> {
        // 2. to 4. Who is it, for which Rack, and may they?
        let Admitted { permit, actor, event } = self.admit()?;
        self.app.meters.time(Timing::Decision, self.began.elapsed());
        // 5. What does more than read is written down before anything reaches the Rack.
        let permit = match event {
            None => permit,
            Some(event) => self.written(permit, event).await?,
        };
        // A token goes past this Console: it is written down under an id that we give it, so that it can be revoked at the Rack.
        let (permit, token) = if permit.makes_token() { self.noted(permit).await? } else { (permit, None) };
        // 6. With what, and off it goes.
        self.forward(permit, actor, token)
    }

    /// Waits until a token that is about to be made is written down; gives its id as the value of a header.
    async fn noted(&self, permit: Permit) -> Result<(Permit, Option<HeaderValue>), Refused> {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let principal = permit.principal();
        let (rack, user) = (permit.rack().row.id.clone(), principal.user.clone());
        let key = principal.key.clone().unwrap_or_else(|| convox_model::KeyId::from_text(""));
        let (store, now_ms, kept) = (self.app.store.clone(), self.app.clock.now_ms(), id.clone());
        // Not on the shard: a database has no place there.
        let noting = async move { store.note_token(&kept, &rack, &user, &key, now_ms, now_ms + LONGEST_TOKEN_MS).await };
        match (self.app.ordinary.spawn(noting).await, HeaderValue::from_str(&id)) {
            // Writing took a while, in which the right may have ended.
            (Ok(Ok(())), Ok(id)) => Ok((self.still(permit)?, Some(id))),
            (noted, _) => {
                let id = traces::named(self.id, &self.head.headers);
                let trace = id.trace().map(tracing::field::display);
                tracing::error!(request.id = %id, trace.id = trace, fault = ?noted.map(|noted| noted.map_err(|error| error.to_string())), "a token could not be written down");
                self.app.meters.decided(Some(permit.effect()), Decision::Unavailable);
                permit.unused(StatusCode::SERVICE_UNAVAILABLE);
                Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the Console cannot reach its database; try again later"))
            }
        }
    }

    /// Identifies, finds the Rack and the route, decides. All from memory.
    fn admit(&self) -> Result<Admitted, Refused> {
        let Self { app, head, .. } = *self;
        if !app.snapshots.is_trusted() {
            app.meters.decided(None, Decision::Unavailable);
            return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the Console cannot reach its database; try again later"));
        }
        if let Some(name) = front::doubled(&head.headers) {
            return Err(refuse(StatusCode::BAD_REQUEST, format!("the header {name} is there twice; send it once")));
        }
        let snapshot = app.snapshots.now();

        // Who?
        let mut room = [0; ROOM];
        let credential = authn::credential(&head.headers, &mut room);
        let (user, key) = credential.map_or(("", ""), |credential| (credential.user, credential.key));
        let who = authn::recognise(key, self.peer, &snapshot, &app.lookup, &*app.clock).map_err(|error| self.unidentified(key, &error))?;

        // Which Rack? Its organization says whether a second factor is needed; nothing is told of Racks before it is proven.
        let named = front::rack_name(&head.headers, user);
        let found = named.as_ref().map(|name| front::find_rack(&snapshot, who.principal(), name));
        let about = found.as_ref().and_then(|found| found.as_ref().ok()).map_or(About::Everything, |rack| About::Org(&rack.row.org));
        let who = who.proven(&head.headers, about, &snapshot, &app.lookup, &*app.clock).map_err(|error| self.unidentified(key, &error))?;
        let principal = who.principal();
        let Some((name, found)) = named.zip(found) else {
            return Err(refuse(StatusCode::BAD_REQUEST, "no rack selected: use `convox switch` or --rack"));
        };
        let rack = found.map_err(|error| {
            let status = match error {
                NoRack::Unknown(_) => StatusCode::NOT_FOUND,
                NoRack::Ambiguous(..) => StatusCode::BAD_REQUEST,
            };
            self.denied(None, status, error.to_string(), || Event {
                rack: name.to_string(),
                ..self.event(Some(principal), "FindRack", "no-such-rack")
            })
        })?;
        let row = &rack.row;
        let about = |event: Event| Event { org: row.org_name.clone(), org_id: row.org.to_string(), rack: row.name.clone(), ..event };

        // What would be done to it? The table is asked about the very bytes that would be forwarded.
        let Some(found) = match_route(head.method.as_str(), head.uri.path(), is_websocket(head)) else {
            // Clients expect an empty body for what no Rack serves.
            return Err(
                self.denied(None, StatusCode::NOT_FOUND, "", || about(self.event(Some(principal), "UnknownRoute", "no-such-route")))
            );
        };
        let route = found.route;
        let event = |rule: &str| Event {
            app: found.app.unwrap_or_default().to_owned(),
            effect: route.effect.as_str().to_owned(),
            ..about(self.event(Some(principal), route.name, rule))
        };

        // May they?
        let permit = authorize(app, &who, rack, route, found.app)
            .map_err(|refusal| self.denied(Some(route.effect), refusal.status, refusal.message, || event(refusal.rule)))?;
        let event = (route.effect != Effect::Read).then(|| Event { decision: "allowed".to_owned(), ..event(permit.rule) });
        Ok(Admitted { permit, actor: who.actor(), event })
    }

    /// Waits until the event is on the disk.
    async fn written(&self, permit: Permit, event: Event) -> Result<Permit, Refused> {
        let id = event.id.clone();
        let written = self.app.audit.write(event).await;
        let permit = permit.with_event(id);
        if let Err(error) = written {
            // It may still be written after this, and must then not look as if it had been forwarded.
            self.app.meters.decided(Some(permit.effect()), Decision::Unavailable);
            permit.unused(StatusCode::SERVICE_UNAVAILABLE);
            return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string()));
        }
        // Writing took a while, in which the right may have ended.
        self.still(permit)
    }

    /// The permit, if it still holds.
    fn still(&self, permit: Permit) -> Result<Permit, Refused> {
        if let Some(ended) = permit.ended() {
            self.app.meters.decided(Some(permit.effect()), Decision::Refused);
            permit.unused(ended.status());
            return Err(refuse(ended.status(), ended.to_string()));
        }
        Ok(permit)
    }

    /// Puts the Rack's own credential and the actor's name to it.
    fn forward(&self, permit: Permit, actor: HeaderValue, token: Option<HeaderValue>) -> Result<Forward<Permit>, Refused> {
        let app = self.app;
        let snapshot: &Snapshot = &app.snapshots.now();
        match app.credentials.open(permit.rack(), snapshot, app.clock.now_ms()) {
            Ok(opened) => {
                app.meters.decided(Some(permit.effect()), Decision::Forwarded);
                let trace = Context::of(&self.head.headers, || app.traces.as_ref().is_some_and(Traces::samples));
                let is_told = app.traces.is_some() && trace.is_sampled();
                let begun = is_told.then(|| Box::new(Begun::new(trace, self.head, self.id, self.began)));
                let mut add = vec![(ACTOR, actor), (REQUEST_ID, self.id.header()), (TRACEPARENT, trace.header())];
                add.extend(token.map(|id| (TOKEN_ID, id)));
                if trace.is_new() && self.head.headers.contains_key(TRACESTATE) {
                    add.push((TRACESTATE, HeaderValue::from_static("")));
                }
                Ok(Forward {
                    permit: permit.since(self.began, begun),
                    upstream: Arc::clone(&opened.upstream),
                    authorization: opened.authorization.clone(),
                    path_and_query: None,
                    add,
                    request_id: trace.names(self.id),
                })
            }
            Err(error) => {
                let rack = permit.rack().row.path();
                let id = traces::named(self.id, &self.head.headers);
                let trace = id.trace().map(tracing::field::display);
                tracing::error!(rack.name = %rack, request.id = %id, trace.id = trace, %error, "the Rack's credential cannot be used");
                app.meters.decided(Some(permit.effect()), Decision::Unavailable);
                permit.unused(StatusCode::BAD_GATEWAY);
                let message = format!(
                    "the stored credential of rack {rack} cannot be used, so nothing was sent to it; ask an operator to add the rack again"
                );
                Err(refuse(StatusCode::BAD_GATEWAY, message))
            }
        }
    }

    /// Nobody is known: says why, and writes it down as long as there are not too many.
    fn unidentified(&self, key: &str, error: &AuthError) -> Refused {
        self.app.meters.decided(None, Decision::Unidentified);
        let event = || {
            let event = self.event(error.known().map(|known| &known.principal), "Authenticate", error.rule());
            match error {
                AuthError::Unknown(last4) => Event { key_last4: last4.clone(), ..event },
                _ => event,
            }
        };
        self.app.audit.unidentified(event, self.app.clock.now_ms());
        if let Some(wait_s) = error.is_stranger().then(|| self.app.strangers.refused(self.app, &self.peer.to_string(), key)).flatten() {
            let further = Some((RETRY_AFTER, HeaderValue::from(wait_s)));
            return Refused { further, ..refuse(StatusCode::TOO_MANY_REQUESTS, strangers::words(wait_s)) };
        }
        let further = error.demand(&self.head.headers).map(|demand| (WWW_AUTHENTICATE, demand));
        Refused { further, ..refuse(error.status(), error.to_string()) }
    }

    /// Somebody who is known is refused: writes it down as long as there are not too many.
    fn denied(
        &self,
        effect: Option<Effect>,
        status: StatusCode,
        message: impl Into<Cow<'static, str>>,
        event: impl FnOnce() -> Event,
    ) -> Refused {
        self.app.meters.decided(effect, Decision::Refused);
        self.app.audit.refused(event, self.app.clock.now_ms());
        refuse(status, message)
    }

    fn reply(&self, refused: &Refused) -> Verdict<Permit> {
        let Refused { status, message, further } = refused;
        let mut response = reply::error(*status, message, reply::wants_json(&self.head.headers)).map(convox_proxy::Body::from);
        if let Some((name, value)) = further {
            response.headers_mut().insert(name, value.clone());
        }
        traces::named(self.id, &self.head.headers).name_error(response.headers_mut());
        Verdict::Reply(response)
    }

    /// What is written of a request; refused, until it is known to be allowed.
    fn event(&self, who: Option<&Principal>, action: &str, rule: &str) -> Event {
        Event {
            id: uuid::Uuid::now_v7().to_string(),
            at_ms: self.app.clock.now_ms(),
            request_id: self.id.to_string(),
            actor: who.map_or("unknown", |who| &who.email).to_owned(),
            actor_id: who.map_or("", |who| who.user.as_str()).to_owned(),
            key_last4: who.map_or("", |who| &who.key_last4).to_owned(),
            action: action.to_owned(),
            method: self.head.method.as_str().to_owned(),
            path: self.head.uri.path().to_owned(),
            decision: "refused".to_owned(),
            rule: rule.to_owned(),
            peer: self.peer.to_string(),
            ..Event::default()
        }
    }
}
