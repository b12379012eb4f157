//! The Rack itself.

use std::net::SocketAddr;
use std::time::Duration;

use convox_wire::api::{Capacity, Instance, Process, Release, System};
use convox_wire::options::{MetricsOptions, SystemProcessesOptions, SystemUpdateOptions};
use convox_wire::time::Time;
use http::StatusCode;
use http::header::HOST;

use super::{Answer, ApiError, Call, apps, processes};
use crate::instances::InstanceError;
use crate::parameters::{self, LOG_RETENTION, Scope, WHITE_LIST};
use crate::rack::{Rack, SYSTEM_LOG, VERSION};
use crate::router;

/// Whole days, at least one.
fn days(age: Duration) -> u64 {
    (age.as_secs() / (24 * 60 * 60)).max(1)
}

/// Parameters whose names say that they are secret are never given out.
fn masked(name: &str, value: String) -> String {
    let name = name.to_ascii_lowercase();
    let is_secret = ["password", "secret", "token", "key"].iter().any(|word| name.contains(word));
    if is_secret { "**********".to_owned() } else { value }
}

/// Host and port by which callers reach this Rack, for the URL of a token: what it was told; else where it listens; else, where it listens
/// on every address, what this caller used.
fn domain(rack: &Rack, call: &Call) -> String {
    if let Some(domain) = &rack.domain {
        return domain.clone();
    }
    let listens_everywhere = rack.host.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified());
    let used = call.headers.get(HOST).and_then(|value| value.to_str().ok()).filter(|host| is_plain_host(host));
    used.filter(|_| listens_everywhere).unwrap_or(&rack.host).to_owned()
}

/// `HOST` or `HOST:PORT` that can stand in a URL as it is.
pub(crate) fn is_plain_host(host: &str) -> bool {
    (1..=255).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
}

pub(super) async fn get(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let mut parameters = rack.state.parameters().await?;
    parameters.entry(LOG_RETENTION.to_owned()).or_insert_with(|| days(rack.logs.limits().age).to_string());
    let parameters = parameters.into_iter().map(|(name, value)| (name.clone(), masked(&name, value))).collect();
    let system = System {
        count: 1,
        domain: domain(rack, call),
        name: rack.name.clone(),
        parameters,
        provider: "local".to_owned(),
        rack_domain: domain(rack, call),
        status: "running".to_owned(),
        r#type: "process".to_owned(),
        version: VERSION.to_owned(),
        ..System::default()
    };
    Ok(Answer::json(&system))
}

pub(super) async fn update(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let options: SystemUpdateOptions = call.options()?;
    if options.version.is_some_and(|version| !version.is_empty() && version != VERSION) {
        return Err(ApiError::bad("this rack cannot replace its own program: install the new version and start it on the same data"));
    }
    if options.count.is_some_and(|count| count != 1) || options.r#type.is_some_and(|kind| !kind.is_empty() && kind != "process") {
        return Err(ApiError::bad("this rack is one machine: its count is 1 and its type process"));
    }
    let changes = options.parameters.unwrap_or_default();
    let _one_at_a_time = rack.setting.lock().await;
    let kept = rack.state.parameters().await?;
    let changes = parameters::check(Scope::Rack, &changes, &kept, rack.builder.has_images()).map_err(ApiError::bad)?;
    let peer = call.peer();
    if !router::lets_in(&parameters::allowed(&changes).map_err(ApiError::bad)?, peer) {
        return Err(ApiError::bad(format!("{WHITE_LIST}: you come from {peer}, which is not in it: you would lock yourself out")));
    }
    rack.state.update_parameters(&changes).await?;
    let now = rack.state.parameters().await?;
    let allowed = parameters::allowed(&now).map_err(ApiError::bad)?;
    rack.logs.set_age(parameters::log_age(&now).unwrap_or(rack.log_age));
    rack.allow(allowed);
    Ok(Answer::Ok)
}

pub(super) async fn processes(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let options: SystemProcessesOptions = call.options()?;
    let mut list = vec![Process {
        id: format!("api-{}", std::process::id()),
        app: "system".to_owned(),
        name: "api".to_owned(),
        command: "convox-rack serve".to_owned(),
        host: rack.host.clone(),
        instance: "local".to_owned(),
        release: VERSION.to_owned(),
        started: Time::from_millis(rack.started_ms),
        status: "running".to_owned(),
        ..Process::default()
    }];
    if options.all.unwrap_or(false) {
        for app in rack.state.apps().await? {
            list.extend(rack.scheduler.processes(&app.name).iter().filter(|process| !process.status.is_final()).map(processes::shape));
        }
    }
    Ok(Answer::json(&list))
}

pub(super) async fn releases(rack: &Rack) -> Result<Answer, ApiError> {
    let list: Vec<Release> = rack
        .state
        .versions()
        .await?
        .into_iter()
        .map(|(id, created_ms)| Release { id, created: Time::from_millis(created_ms), ..Release::default() })
        .collect();
    Ok(Answer::json(&list))
}

/// Total and available memory, bytes.
fn memory() -> (i64, i64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<i64>().ok().map(|kib| kib * 1024)
    };
    (line("MemTotal:").unwrap_or(0), line("MemAvailable:").unwrap_or(0))
}

fn cores() -> i64 {
    std::thread::available_parallelism().map_or(1, |cores| i64::try_from(cores.get()).unwrap_or(1))
}

/// Mean load of the last minute as a share of all cores: 1 is all of them, also where more waits than can run.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0);
    (load / cores() as f64).min(1.0)
}

fn memory_share() -> f64 {
    let (total, available) = memory();
    if total == 0 { 0.0 } else { (total - available) as f64 / total as f64 }
}

pub(super) fn capacity(rack: &Rack) -> Answer {
    let (total, _) = memory();
    let running = rack.running();
    let (cpu, memory) = rack.asked_for();
    Answer::json(&Capacity {
        cluster_cpu: cores() * 1024,
        cluster_memory: total >> 20,
        instance_cpu: cores() * 1024,
        instance_memory: total >> 20,
        process_count: running,
        process_cpu: cpu,
        process_memory: memory,
        ..Capacity::default()
    })
}

/// New SSH keys on every host; answered when the old ones are gone. `ok`, which both clients take for done.
pub(super) async fn keyroll(rack: &Rack) -> Result<Answer, ApiError> {
    match rack.instances.roll(&rack.state, false).await {
        Ok(hosts) => {
            rack.logs.append(SYSTEM_LOG, "system/rack", &format!("Rolled the SSH keys of {hosts} instances"));
            Ok(Answer::Ok)
        }
        Err(error @ InstanceError::None) => Err(ApiError::not_available(&error.to_string())),
        Err(InstanceError::Database(error)) => Err(error.into()),
        Err(error) => {
            let words = format!("{error}; what was reached is kept, and the same again goes on");
            rack.logs.append(SYSTEM_LOG, "system/rack", &format!("The SSH keys could not be rolled: {words}"));
            Err(ApiError::new(StatusCode::BAD_GATEWAY, words))
        }
    }
}

/// This machine, and the hosts that it can log in to.
pub(super) fn instances(rack: &Rack, call: &Call) -> Answer {
    let host = domain(rack, call);
    let address = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host).to_owned();
    let mut all = vec![Instance {
        id: "local".to_owned(),
        status: "active".to_owned(),
        private_ip: address,
        cpu: load(),
        memory: memory_share(),
        processes: rack.running(),
        started: Time::from_millis(rack.started_ms),
        ..Instance::default()
    }];
    all.extend(rack.instances.hosts().iter().map(|host| Instance {
        id: host.id.clone(),
        status: "host".to_owned(),
        private_ip: host.address.rsplit_once('@').map_or(host.address.as_str(), |(_, name)| name).to_owned(),
        ..Instance::default()
    }));
    Answer::json(&all)
}

/// What is known now; no history is kept.
pub(super) fn metrics(call: &Call) -> Result<Answer, ApiError> {
    let options: MetricsOptions = call.options()?;
    let now =
        vec![apps::sample("cluster:cpu:utilization", load() * 100.0), apps::sample("cluster:mem:utilization", memory_share() * 100.0)];
    Ok(Answer::json(&apps::wanted(now, options.metrics.as_deref())))
}
