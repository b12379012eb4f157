//! Apps.

use std::sync::Arc;

use convox_wire::api::{App, Metric, MetricValue};
use convox_wire::ids::is_valid_app_name;
use convox_wire::options::{AppCreateOptions, AppUpdateOptions, MetricsOptions};
use convox_wire::time::Time;
use http::StatusCode;

use super::{Answer, ApiError, Call};
use crate::parameters::{self, Scope};
use crate::rack::Rack;
use crate::state::AppRow;

/// The app that the path names.
pub(super) async fn find(rack: &Rack, call: &Call) -> Result<AppRow, ApiError> {
    named(rack, call.var("app")).await
}

/// The app of this name.
pub(super) async fn named(rack: &Rack, name: &str) -> Result<AppRow, ApiError> {
    rack.state.app(name).await?.ok_or_else(|| ApiError::not_found("app", name))
}

/// The app that the path names, for what would add to it: not one that is on its way out.
pub(super) async fn usable(rack: &Rack, call: &Call) -> Result<AppRow, ApiError> {
    let app = find(rack, call).await?;
    if app.status == "deleting" {
        return Err(ApiError::new(StatusCode::CONFLICT, format!("app is being deleted: {}", app.name)));
    }
    Ok(app)
}

fn shape(row: AppRow) -> App {
    App {
        generation: row.generation,
        locked: row.locked,
        name: row.name,
        release: row.release,
        status: row.status,
        parameters: row.parameters,
        ..App::default()
    }
}

pub(super) async fn create(rack: &Arc<Rack>, call: &Call) -> Result<Answer, ApiError> {
    let name = call.loose("name").unwrap_or_default();
    if !is_valid_app_name(name) {
        return Err(ApiError::bad("an app's name has lower-case letters, digits and dashes, begins with a letter, and is at most 63 long"));
    }
    let options: AppCreateOptions = call.options()?;
    if options.generation() != "2" {
        return Err(ApiError::bad("this rack runs apps of generation 2 only"));
    }
    if !rack.state.insert_app(name, "2").await? {
        return Err(ApiError::new(StatusCode::CONFLICT, format!("app already exists: {name}")));
    }
    get_named(rack, name).await
}

async fn get_named(rack: &Rack, name: &str) -> Result<Answer, ApiError> {
    let row = rack.state.app(name).await?.ok_or_else(|| ApiError::not_found("app", name))?;
    Ok(Answer::json(&shape(row)))
}

pub(super) async fn get(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::json(&shape(find(rack, call).await?)))
}

pub(super) async fn list(rack: &Rack) -> Result<Answer, ApiError> {
    let apps: Vec<App> = rack.state.apps().await?.into_iter().map(shape).collect();
    Ok(Answer::json(&apps))
}

pub(super) async fn update(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = usable(rack, call).await?;
    let options: AppUpdateOptions = call.options()?;
    let changes = options.parameters.unwrap_or_default();
    let changes = parameters::check(Scope::App, &changes, &app.parameters, rack.builder.has_images()).map_err(ApiError::bad)?;
    rack.state.update_app(&app.name, options.lock, &changes).await?;
    rack.follow(&app.name, &named(rack, &app.name).await?.parameters);
    Ok(Answer::Ok)
}

pub(super) async fn delete(rack: &Arc<Rack>, call: &Call) -> Result<Answer, ApiError> {
    let app = find(rack, call).await?;
    if !rack.state.begin_delete(&app.name).await? {
        let message = format!("app is locked: {}; unlock it first with `convox apps unlock`", app.name);
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    rack.delete(app.name);
    Ok(Answer::Ok)
}

pub(super) async fn cancel(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = find(rack, call).await?;
    let is_promotion = app.status == "updating" && rack.scheduler.cancel(&app.name);
    // Builds too: whoever types it wants what is under way to stop.
    if rack.builder.cancel(&app.name).await == 0 && !is_promotion {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "app is not updating, and nothing of it is being built"));
    }
    Ok(Answer::Ok)
}

/// None: this Rack counts no costs. v3 clients ask with every list of processes or services.
pub(super) async fn budget(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    find(rack, call).await?;
    Ok(Answer::json(&serde_json::json!({"config": null, "state": null})))
}

/// What is known now: how many processes of the app (or service) run. No history is kept.
pub(super) async fn metrics(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = find(rack, call).await?;
    let options: MetricsOptions = call.options()?;
    let service = Some(call.var("service")).filter(|name| !name.is_empty()).or(Some(call.var("name")).filter(|name| !name.is_empty()));
    let processes = rack.scheduler.processes(&app.name);
    let running =
        processes.iter().filter(|process| !process.status.is_final() && service.is_none_or(|name| process.service == name)).count();
    Ok(Answer::json(&wanted(vec![sample("process:running", running as f64)], options.metrics.as_deref())))
}

/// One value of now as a series.
pub(super) fn sample(name: &str, value: f64) -> Metric {
    let time = Time::new(jiff::Timestamp::now());
    let value = MetricValue { time, avg: value, count: 1.0, min: value, max: value, sum: value, ..MetricValue::default() };
    Metric { name: name.to_owned(), values: vec![value] }
}

/// Those that were asked for; all of them when none is named.
pub(super) fn wanted(mut metrics: Vec<Metric>, names: Option<&[String]>) -> Vec<Metric> {
    if let Some(names) = names.filter(|names| !names.is_empty()) {
        metrics.retain(|metric| names.contains(&metric.name));
    }
    metrics
}
