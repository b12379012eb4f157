//! The Rack's API. [`serve`](Api::call) is the walk of a request: find its row in the route table, check the credential, check the role,
//! then hand it to the handler of that row. A route without a row cannot be served, because handlers are found by the row's name.

mod apps;
mod builds;
mod call;
mod objects;
mod processes;
mod releases;
mod streams;
mod system;

use std::net::SocketAddr;
use std::sync::Arc;

use convox_proxy::{Body, Local, RequestId, is_websocket};
use convox_wire::routes::match_route;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;

pub(crate) use call::{Answer, ApiError, Call};

use crate::auth::{Caller, allows};
use crate::rack::Rack;

/// The API of one Rack.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) Arc<Rack>);

impl Local for Api {
    async fn call(&self, request: Request<Incoming>, _peer: SocketAddr) -> Response<Body> {
        let id = RequestId::next();
        let wants_json = request.headers().get("accept").is_some_and(|accept| accept == "application/json");
        let mut response = self.answer(request, id).await.unwrap_or_else(|error| error.response(wants_json, id));
        let headers = response.headers_mut();
        headers.insert("request-id", id.header());
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        response
    }
}

impl Api {
    async fn answer(&self, request: Request<Incoming>, id: RequestId) -> Result<Response<Body>, ApiError> {
        let (parts, body) = request.into_parts();
        let is_socket = is_websocket(&parts);
        let request = Request::from_parts(parts, body);
        let path = request.uri().path().to_owned();
        let method = request.method().as_str().to_owned();
        // What no Rack serves is unknown to everybody; the clients expect an empty body.
        let found = match_route(&method, &path, is_socket).ok_or_else(ApiError::unknown_route)?;
        if found.route.name == "Check" {
            return Ok(text("ok"));
        }
        let caller = self.authenticate(&request)?;
        if found.route.name == "Auth" {
            return Ok(text("ok\n"));
        }
        if !allows(caller.role, found.route.effect) {
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, "you are unauthorized to access this"));
        }
        let actor = actor(&caller, &request);
        let name = found.route.name;
        if is_socket {
            return streams::open(&self.0, &found, request);
        }
        let mut call = Call::read(&found, request, caller).await?;
        let answer = self.dispatch(name, &mut call).await?;
        if found.route.effect > convox_wire::routes::Effect::ReadSecret {
            self.0.logs.append(crate::rack::SYSTEM_LOG, "system/api", &format!("{actor} {method} {path} request {id}"));
        }
        Ok(answer.response())
    }

    fn authenticate(&self, request: &Request<Incoming>) -> Result<Caller, ApiError> {
        let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let now = jiff::Timestamp::now().as_second();
        self.0.door.caller(authorization, now).map_err(|message| ApiError::new(StatusCode::UNAUTHORIZED, message))
    }

    /// The handler of a row.
    async fn dispatch(&self, name: &str, call: &mut Call) -> Result<Answer, ApiError> {
        let rack = &self.0;
        match name {
            "AppCancel" => apps::cancel(rack, call).await,
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
            "BuildList" => builds::list(rack, call).await,
            "CapacityGet" => Ok(system::capacity(rack)),
            "InstanceList" => Ok(system::instances(rack)),
            "ObjectDelete" => objects::delete(rack, call).await,
            "ObjectExists" => objects::exists(rack, call).await,
            "ObjectFetch" => objects::fetch(rack, call).await,
            "ObjectList" => objects::list(rack, call).await,
            "ObjectStore" => objects::store(rack, call).await,
            "ProcessGet" => processes::get(rack, call).await,
            "ProcessList" => processes::list(rack, call).await,
            "ProcessRun" => processes::run(rack, call).await,
            "ProcessStop" => processes::stop(rack, call).await,
            "ReleaseCreate" => releases::create(rack, call).await,
            "ReleaseGet" => releases::get(rack, call).await,
            "ReleaseList" => releases::list(rack, call).await,
            "ReleasePromote" => releases::promote(rack, call).await,
            "ServiceList" => processes::services(rack, call).await,
            "ServiceRestart" => processes::restart(rack, call).await,
            "ServiceUpdate" => processes::scale(rack, call).await,
            "SystemGet" => system::get(rack).await,
            "SystemJwtSignKeyRotate" => system::rotate(rack).await,
            "SystemJwtToken" => system::token(rack, call),
            "SystemMetrics" => system::metrics(call),
            "SystemProcesses" => system::processes(rack, call).await,
            "SystemReleases" => system::releases(rack).await,
            "SystemUpdate" => system::update(rack, call).await,
            // Nothing of these kinds can be made here yet, so there are none.
            "CertificateList"
            | "RegistryList"
            | "ResourceList"
            | "SystemResourceList"
            | "SystemResourceTypes"
            | "BalancerList"
            | "AppConfigList" => Ok(Answer::json(&Vec::<()>::new())),
            _ => Err(ApiError::new(
                StatusCode::NOT_IMPLEMENTED,
                format!("not available on this rack: {name} needs a provider that this rack does not have"),
            )),
        }
    }
}

/// Whom the log names: the Console's word for who asks, if it may be believed.
fn actor(caller: &Caller, request: &Request<Incoming>) -> String {
    let named = request.headers().get("convox-actor").or_else(|| request.headers().get("x-convox-actor"));
    match named.and_then(|value| value.to_str().ok()) {
        Some(named) if caller.may_name_actor => named.chars().filter(|c| c.is_ascii_graphic()).take(256).collect(),
        _ => caller.name.clone(),
    }
}

fn text(body: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
