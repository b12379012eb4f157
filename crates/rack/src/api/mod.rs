//! The Rack's API. [`answer`](Api::answer) is the walk of a request: find its row in the route table, check the credential, check the role,
//! then hand it to the handler of that row. A route without a row cannot be served: handlers are found by the row's name, and a handler
//! of a name that no row has does not compile.

mod apps;
mod builds;
mod call;
mod certificates;
mod configs;
mod credentials;
mod files;
mod inside;
mod objects;
mod processes;
mod registries;
mod releases;
mod resources;
mod rows;
mod socket;
mod streams;
mod system;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use convox_proxy::{Body, Local, Peer, RequestId, is_websocket};
use convox_wire::routes::{Effect, Match, match_route};
use convox_wire::trace::TraceParent;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tracing::Instrument as _;

pub(crate) use call::{Answer, ApiError, Call};
use rows::handlers;
pub(crate) use system::is_plain_host;

use crate::auth::{Caller, allows};
use crate::rack::{Rack, SYSTEM_LOG};
use crate::readiness;
use crate::router;

/// The API of one Rack.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) Arc<Rack>);

impl Local for Api {
    async fn call(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let said = TraceParent::of(request.headers().get_all("traceparent").iter().map(HeaderValue::as_bytes));
        let id = said.map_or_else(RequestId::next, |said| RequestId::next().in_trace(said.trace));
        // In every line that is logged on the way.
        let span = tracing::error_span!("request", request.id = %id, trace.id = id.trace().map(tracing::field::display));
        let wants_json = request.headers().get("accept").is_some_and(|accept| accept == "application/json");
        request.extensions_mut().insert(Peer(peer));
        let (began, mut effect) = (Instant::now(), None);
        let answer = async { self.answer(request, id, &mut effect).await.unwrap_or_else(|error| error.response(wants_json, id)) };
        let mut response = answer.instrument(span).await;
        self.0.meters.answered(effect, response.status(), began.elapsed());
        let is_error = response.status().is_client_error() || response.status().is_server_error();
        let headers = response.headers_mut();
        if is_error {
            id.name_error(headers);
        } else {
            headers.insert("request-id", id.header());
        }
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        response
    }
}

impl Api {
    /// Leaves in `effect` what the request would do, once that is known.
    async fn answer(&self, request: Request<Incoming>, id: RequestId, effect: &mut Option<Effect>) -> Result<Response<Body>, ApiError> {
        let (parts, body) = request.into_parts();
        // A balancer that looks whether this Rack lives is in no list, and learns nothing else.
        if let Some(answer) = readiness::answer(&self.0, &parts.method, parts.uri.path()) {
            return Ok(answer);
        }
        if !router::lets_in(&self.0.allowed.load(), from(&parts.extensions)) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "this rack does not let your network in: see its parameter WhiteList"));
        }
        let is_socket = is_websocket(&parts);
        let request = Request::from_parts(parts, body);
        let path = request.uri().path().to_owned();
        let method = request.method().as_str().to_owned();
        // What no Rack serves is unknown to everybody; the clients expect an empty body.
        let found = match_route(&method, &path, is_socket).ok_or_else(ApiError::unknown_route)?;
        *effect = Some(found.route.effect);
        let name = found.route.name;
        if name == rows::CHECK {
            return Ok(text("ok"));
        }
        let caller = self.authenticate(&request)?;
        if name == rows::AUTH {
            return Ok(text("ok\n"));
        }
        // Who asked is written down for all but plain reads: what came of it, refusals too.
        let entry = (found.route.effect > Effect::Read).then(|| format!("{} {method} {path}", actor(&caller, request.headers())));
        let outcome = if !allows(caller.role, found.route.effect) {
            Err(ApiError::new(StatusCode::UNAUTHORIZED, "you are unauthorized to access this"))
        } else if is_socket {
            streams::open(&self.0, &found, request, caller)
        } else {
            self.handle(&found, request, caller).await
        };
        if let Some(entry) = entry {
            let status = outcome.as_ref().map_or_else(|error| error.status, Response::status).as_u16();
            let trace = id.trace().map(|trace| format!(" trace {trace}")).unwrap_or_default();
            self.0.logs.append(SYSTEM_LOG, "system/api", &format!("{entry} {status} request {id}{trace}"));
        }
        outcome
    }

    async fn handle(&self, found: &Match<'_>, request: Request<Incoming>, caller: Caller) -> Result<Response<Body>, ApiError> {
        let ended = || -> call::Ended {
            let (rack, caller) = (Arc::clone(&self.0), caller.clone());
            Box::pin(async move { rack.door.ended(&caller, jiff::Timestamp::now().as_second()).await })
        };
        let mut call = Call::read(found, request, caller.clone(), ended).await?;
        // Reading took as long as the caller liked.
        self.0
            .door
            .still(&caller, jiff::Timestamp::now().as_second())
            .map_err(|message| ApiError::new(StatusCode::UNAUTHORIZED, message))?;
        Ok(self.dispatch(found.route.name, &mut call).await?.ending(ended).response())
    }

    fn authenticate(&self, request: &Request<Incoming>) -> Result<Caller, ApiError> {
        let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let now = jiff::Timestamp::now().as_second();
        self.0.door.caller(authorization, now).map_err(|message| ApiError::new(StatusCode::UNAUTHORIZED, message))
    }

    /// The handler of a row.
    async fn dispatch(&self, name: &str, call: &mut Call) -> Result<Answer, ApiError> {
        let rack = &self.0;
        handlers!(name, {
            "AppBudgetGet" => apps::budget(rack, call).await,
            "AppCancel" => apps::cancel(rack, call).await,
            "AppConfigGet" => configs::get(rack, call).await,
            "AppConfigList" => configs::list(rack, call).await,
            "AppConfigSet" => configs::set(rack, call).await,
            "AppCreate" => apps::create(rack, call).await,
            "AppDelete" => apps::delete(rack, call).await,
            "AppGet" => apps::get(rack, call).await,
            "AppList" => apps::list(rack).await,
            "AppUpdate" => apps::update(rack, call).await,
            "AppMetrics" | "ServiceMetrics" => apps::metrics(rack, call).await,
            "BuildCreate" => builds::create(rack, call).await,
            "BuildExport" => builds::export(rack, call).await,
            "BuildGet" => builds::get(rack, call).await,
            "BuildImport" => builds::import(rack, call).await,
            "BuildImportImage" => builds::import_image(rack, call).await,
            "BuildList" => builds::list(rack, call).await,
            "BuildUpdate" => builds::update(rack, call).await,
            "CapacityGet" => Ok(system::capacity(rack)),
            "BalancerList" => processes::balancers(rack, call).await,
            "CertificateApply" => certificates::apply(rack, call).await,
            "CertificateCreate" => certificates::create(rack, call).await,
            "CertificateDelete" => certificates::delete(rack, call).await,
            "CertificateGenerate" => certificates::generate(rack, call).await,
            "CertificateList" => certificates::list(rack).await,
            "CertificateRenew" => certificates::renew(rack, call).await,
            "FilesDelete" => files::delete(rack, call).await,
            "FilesDownload" => files::download(rack, call).await,
            "FilesUpload" => files::upload(rack, call).await,
            "InstanceKeyroll" => system::keyroll(rack).await,
            "InstanceList" => Ok(system::instances(rack, call)),
            "ObjectDelete" => objects::delete(rack, call).await,
            "ObjectExists" => objects::exists(rack, call).await,
            "ObjectFetch" => objects::fetch(rack, call).await,
            "ObjectList" => objects::list(rack, call).await,
            "ObjectStore" => objects::store(rack, call).await,
            "ProcessGet" => processes::get(rack, call).await,
            "ProcessList" => processes::list(rack, call).await,
            "ProcessRun" => processes::run(rack, call).await,
            "ProcessStop" => processes::stop(rack, call).await,
            "RegistryAdd" => registries::add(rack, call).await,
            "RegistryList" => registries::list(rack).await,
            "RegistryRemove" | "ClassicRegistryRemove" => registries::remove(rack, call).await,
            "ReleaseCreate" => releases::create(rack, call).await,
            "ReleaseGet" => releases::get(rack, call).await,
            "ReleaseList" => releases::list(rack, call).await,
            "ReleasePromote" => releases::promote(rack, call).await,
            "ResourceExport" => resources::export(rack, call).await,
            "ResourceGet" => resources::get(rack, call).await,
            "ResourceImport" => resources::import(rack, call).await,
            "ResourceList" => resources::list(rack, call).await,
            "ServiceList" => processes::services(rack, call).await,
            "ServiceRestart" => processes::restart(rack, call).await,
            "ServiceUpdate" => processes::scale(rack, call).await,
            "SystemGet" => system::get(rack, call).await,
            "SystemJwtSignKeyRotate" => credentials::rotate(rack, call).await,
            "SystemJwtToken" => credentials::token(rack, call).await,
            "SystemMetrics" => system::metrics(call),
            "SystemProcesses" => system::processes(rack, call).await,
            "SystemReleases" => system::releases(rack).await,
            "SystemUpdate" => system::update(rack, call).await,
            "PasswordAccept" => credentials::accept(rack, call).await,
            "PasswordGet" => credentials::passwords(rack).await,
            "PasswordRetire" => credentials::retire(rack, call).await,
            "PasswordUndo" => credentials::undo(rack, call).await,
            "TokenList" => credentials::tokens(rack).await,
            "TokenRevoke" => credentials::revoke(rack, call).await,
            "TokenRevokeAll" => credentials::revoke_all(rack).await,
            // Nothing of these kinds can be made here yet, so there are none.
            "SystemResourceList" | "SystemResourceTypes" => Ok(Answer::json(&Vec::<()>::new())),
            _ => Err(ApiError::not_available(rows::lacking(name))),
        })
    }
}

/// Whom the log names: the Console's word for who asks, if it may be believed.
fn actor(caller: &Caller, headers: &HeaderMap) -> String {
    let named = headers.get("convox-actor").or_else(|| headers.get("x-convox-actor"));
    let named = named.filter(|_| caller.may_name_actor()).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let named: String = named.chars().filter(char::is_ascii_graphic).take(256).collect();
    if named.is_empty() { caller.name.clone() } else { named }
}

/// Who is connected, in its shortest form. Nobody who is not would be asked for.
pub(crate) fn from(extensions: &http::Extensions) -> IpAddr {
    extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip().to_canonical())
}

fn text(body: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
