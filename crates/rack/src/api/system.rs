//! The Rack itself.

use std::net::SocketAddr;
use std::sync::Arc;

use convox_seal::access::Role;
use convox_wire::api::{Capacity, Instance, Process, Release, System, SystemJwt};
use convox_wire::options::{MetricsOptions, SystemJwtOptions, SystemProcessesOptions, SystemUpdateOptions};
use convox_wire::time::Time;
use http::StatusCode;
use http::header::HOST;

use super::{Answer, ApiError, Call, apps, processes};
use crate::rack::{Rack, VERSION};

/// Longest life of a token, hours: a year.
const LONGEST_HOURS: i64 = 8760;

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
    let parameters = rack.state.parameters().await?.into_iter().map(|(name, value)| (name.clone(), masked(&name, value))).collect();
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
    rack.state.update_parameters(&options.parameters.unwrap_or_default()).await?;
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

/// Signs a token. Its life is bounded, and by that of the caller's own token.
pub(super) fn token(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let options: SystemJwtOptions = call.options()?;
    let role = call.loose("role").or(options.role.as_deref()).and_then(Role::from_name);
    let role = role.ok_or_else(|| ApiError::bad("invalid role: must be read, write, or admin"))?;
    if role > call.caller.role {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "a token cannot make one with more rights than its own"));
    }
    let hours = call.loose("durationInHour").and_then(|text| text.parse::<i64>().ok()).filter(|hours| (1..=LONGEST_HOURS).contains(hours));
    let hours = hours.ok_or_else(|| ApiError::bad(format!("invalid duration: between 1 and {LONGEST_HOURS} hours")))?;
    let now = jiff::Timestamp::now().as_second();
    let expires_at = (now + hours * 3600).min(call.caller.expires_at().unwrap_or(i64::MAX));
    let token = rack.door.mint(role, &rack.name, now, expires_at);
    let token = token.ok_or_else(|| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "there is no signing key; rotate it"))?;
    Ok(Answer::json(&SystemJwt { token }))
}

/// A new signing key: every token so far is dead when this is answered.
pub(super) async fn rotate(rack: &Arc<Rack>) -> Result<Answer, ApiError> {
    rack.door.replace_signers(rack.state.rotate_signers().await?);
    Ok(Answer::Ok)
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

/// This machine as the one instance.
pub(super) fn instances(rack: &Rack, call: &Call) -> Answer {
    let host = domain(rack, call);
    let address = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host).to_owned();
    Answer::json(&[Instance {
        id: "local".to_owned(),
        status: "active".to_owned(),
        private_ip: address,
        cpu: load(),
        memory: memory_share(),
        processes: rack.running(),
        started: Time::from_millis(rack.started_ms),
        ..Instance::default()
    }])
}

/// What is known now; no history is kept.
pub(super) fn metrics(call: &Call) -> Result<Answer, ApiError> {
    let options: MetricsOptions = call.options()?;
    let now =
        vec![apps::sample("cluster:cpu:utilization", load() * 100.0), apps::sample("cluster:mem:utilization", memory_share() * 100.0)];
    Ok(Answer::json(&apps::wanted(now, options.metrics.as_deref())))
}
