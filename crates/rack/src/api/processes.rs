//! Processes and services: what runs, one-off runs, scale, restart.

use convox_wire::api::{Balancer, BalancerPort, Process, Service, ServicePort};
use convox_wire::options::{ProcessListOptions, ProcessRunOptions, ServiceUpdateOptions};
use convox_wire::time::Time;

use super::{Answer, ApiError, Call, apps, builds};
use crate::command::Command;
use crate::rack::{Choice, Rack};
use crate::runtime::{Limits, ProcessState};
use crate::scheduler::{Formation, OneOff, ServiceState};

pub(super) fn shape(process: &ProcessState) -> Process {
    Process {
        id: process.id.clone(),
        app: process.app.clone(),
        command: process.command_line(),
        host: "127.0.0.1".to_owned(),
        image: process.dir.display().to_string(),
        instance: "local".to_owned(),
        // As the originals do: a run of a timer has the timer's name.
        name: process.timer.clone().unwrap_or_else(|| process.service.clone()),
        ports: process.port.iter().map(|port| format!("{port}:{port}")).collect(),
        release: process.release.clone(),
        started: Time::new(process.started),
        status: process.status.as_str().to_owned(),
        ..Process::default()
    }
}

pub(super) async fn list(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let options: ProcessListOptions = call.options()?;
    let wanted = |asked: &Option<String>, value: &str| asked.as_deref().is_none_or(|asked| asked.is_empty() || asked == value);
    let mut processes: Vec<Process> = rack
        .scheduler
        .processes(&app.name)
        .iter()
        .filter(|process| !process.status.is_final())
        .filter(|process| wanted(&options.release, &process.release) && wanted(&options.service, &process.service))
        .map(shape)
        .collect();
    processes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(Answer::json(&processes))
}

pub(super) async fn get(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let id = call.var("pid");
    let process = rack.scheduler.process(&app.name, id).ok_or_else(|| ApiError::not_found("process", id))?;
    Ok(Answer::json(&shape(&process)))
}

pub(super) async fn stop(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    rack.scheduler.stop_process(&app.name, call.var("pid")).await?;
    Ok(Answer::Ok)
}

/// What no Rack of ours does for a process of its own, or only one that runs containers.
fn refuse_options(rack: &Rack, options: &ProcessRunOptions) -> Result<(), ApiError> {
    let text = |asked: &Option<String>| asked.as_deref().is_some_and(|asked| !asked.is_empty());
    let asked = [
        ("an image of its own for a process", text(&options.image)),
        ("volumes of its own for a process", options.volumes.as_ref().is_some_and(|volumes| !volumes.is_empty())),
        ("gpus", options.gpu.is_some_and(|gpu| gpu > 0) || text(&options.gpu_vendor)),
        ("privileged for one process; set it for the service in convox.yml", options.privileged == Some(true)),
        ("labels of nodes", text(&options.node_labels)),
        ("processes that are evicted last", options.system_critical == Some(true)),
    ];
    if let Some((what, _)) = asked.into_iter().find(|(_, asked)| *asked) {
        return Err(ApiError::not_available(what));
    }
    let sizes = [options.cpu, options.cpu_limit, options.memory, options.memory_limit];
    if !rack.runtime.isolation().has_images() {
        if sizes.into_iter().flatten().any(|size| size > 0) {
            return Err(ApiError::not_available("a size of its own for a process; this rack runs plain processes, without limits"));
        }
        if options.use_service_volume == Some(true) {
            return Err(ApiError::not_available("volumes; this rack runs plain processes, which see the machine's disk"));
        }
    }
    Ok(())
}

/// A size between 1 and `most`; 0 is as good as none.
fn size(option: &str, asked: Option<i64>, most: i64) -> Result<Option<u32>, ApiError> {
    match asked {
        None | Some(0) => Ok(None),
        Some(value) if (1..=most).contains(&value) => Ok(u32::try_from(value).ok()),
        Some(value) => Err(ApiError::bad(format!("{option} is {value}: between 0 and {most}"))),
    }
}

/// Starts a one-off process of the active release, or of the named one.
pub(super) async fn run(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::usable(rack, call).await?;
    let options: ProcessRunOptions = call.options()?;
    refuse_options(rack, &options)?;
    let limits = Limits {
        cpu: size("cpu", options.cpu, 1_000_000)?,
        cpu_most: size("cpu-limit", options.cpu_limit, 1_000_000)?,
        memory: size("memory", options.memory_limit.filter(|size| *size > 0).or(options.memory), 100_000_000)?,
    };
    let id = options.release.filter(|id| !id.is_empty()).unwrap_or(app.release);
    if id.is_empty() {
        return Err(ApiError::bad(format!("app {} has no promoted release; run `convox deploy` first", app.name)));
    }
    let release = rack.state.release(&app.name, &id).await?.ok_or_else(|| ApiError::not_found("release", &id))?;
    builds::check_kept(rack, &app.name, &release.build).await?;
    let desired = rack.desired(&release).await.map_err(|error| ApiError::bad(error.to_string()))?;
    let one_off = OneOff {
        service: call.var("service").to_owned(),
        command: Command::text(&options.command.unwrap_or_default()),
        env: options.environment.unwrap_or_default(),
        limits,
        ..OneOff::default()
    };
    let process = rack.scheduler.run_one_off(&desired, one_off).await?;
    Ok(Answer::json(&shape(&process)))
}

/// `host` is the name under which the router serves it, if it does.
fn service(state: ServiceState, host: Option<String>, chosen: &[Choice]) -> Service {
    let address = state.endpoint.as_deref().and_then(|endpoint| endpoint.split_once("://")).map(|(_, address)| address.to_owned());
    let ports = state.balancer.zip(state.port).map(|(outside, inside)| ServicePort {
        balancer: i64::from(outside),
        container: i64::from(inside),
        certificate: chosen.iter().find(|choice| choice.service == state.name).map(|choice| choice.certificate.clone()).unwrap_or_default(),
    });
    Service {
        count: i64::from(state.count),
        cpu: i64::from(state.cpu),
        memory: i64::from(state.memory),
        // Without a router a service is where its port is, which the ports name in any case.
        domain: host.or(address).unwrap_or(state.domain),
        ports: ports.into_iter().collect(),
        name: state.name,
        ..Service::default()
    }
}

pub(super) async fn services(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let chosen = rack.chosen_certificates(Some(&app.name)).await?;
    let is_routed = rack.scheduler.fronts() != (None, None);
    let by_name = if is_routed { rack.scheduler.served(Some(&app.name)) } else { Vec::new() };
    let services: Vec<Service> = rack
        .scheduler
        .services(&app.name)
        .into_iter()
        .map(|state| {
            let host = by_name.iter().find(|(_, of, _)| of.name == state.name).and_then(|(_, _, hosts)| hosts.first().cloned());
            service(state, host, &chosen)
        })
        .collect();
    Ok(Answer::json(&services))
}

/// What stands before the processes of each service: its own port, which spreads connections over them.
pub(super) async fn balancers(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let balancer = |state: ServiceState| {
        let (source, target) = state.balancer.zip(state.port)?;
        let port = BalancerPort { protocol: "TCP".to_owned(), source: i64::from(source), target: i64::from(target) };
        Some(Balancer { name: state.name.clone(), endpoint: "127.0.0.1".to_owned(), ports: vec![port], service: state.name })
    };
    let balancers: Vec<Balancer> = rack.scheduler.services(&app.name).into_iter().filter_map(balancer).collect();
    Ok(Answer::json(&balancers))
}

/// The service of the path; v2 and v3 name the variable differently.
fn service_name(call: &Call) -> &str {
    Some(call.var("service")).filter(|name| !name.is_empty()).unwrap_or_else(|| call.var("name"))
}

/// Keeps the new size, then takes it over: a size that was answered for survives.
pub(super) async fn scale(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::usable(rack, call).await?;
    let name = service_name(call);
    let options: ServiceUpdateOptions = call.options()?;
    // A `min` of 0 asks for something too; -1 is as good as none, as below.
    let is_range = [options.min, options.max].into_iter().flatten().any(|asked| asked >= 0);
    if is_range || options.gpu.is_some_and(|gpu| gpu > 0) || options.gpu_vendor.as_deref().is_some_and(|vendor| !vendor.is_empty()) {
        return Err(ApiError::not_available("gpus and automatic scaling; set a count"));
    }
    if !rack.scheduler.services(&app.name).iter().any(|service| service.name == name) {
        return Err(ApiError::not_found("service", name));
    }
    let size = |option: &'static str, asked: Option<i64>, most: i64| match asked {
        None | Some(-1) => Ok(None),
        Some(value) if (0..=most).contains(&value) => Ok(u32::try_from(value).ok()),
        Some(value) => Err(ApiError::bad(format!("{option} is {value}: between 0 and {most}"))),
    };
    let before = rack.state.formations(&app.name).await?.remove(name).unwrap_or_default();
    let formation = Formation {
        count: size("count", options.count, 1000)?.or(before.count),
        cpu: size("cpu", options.cpu, 1_000_000)?.or(before.cpu),
        memory: size("memory", options.memory, 100_000_000)?.or(before.memory),
    };
    rack.state.put_formation(&app.name, name, formation).await?;
    rack.scheduler.scale(&app.name, name, formation)?;
    // Where sizes are enforced they hold for what is started from now on, so the others are replaced, one after the other.
    let is_resized = (formation.cpu, formation.memory) != (before.cpu, before.memory);
    if is_resized && rack.runtime.isolation().has_images() {
        rack.scheduler.restart_service(&app.name, name)?;
    }
    Ok(Answer::Ok)
}

pub(super) async fn restart(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    rack.scheduler.restart_service(&app.name, service_name(call))?;
    Ok(Answer::Ok)
}
