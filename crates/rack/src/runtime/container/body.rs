//! From what a process needs to what an engine is asked for.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum};

use super::spec::{ContainerSpec, Network};

/// Processes and threads in one container: enough for any service, too few to bring the machine down.
const PIDS: i64 = 4096;
const MB: i64 = 1 << 20;
/// CPU units of one core, and nanoseconds of processor time per second that it has.
const UNITS: i64 = 1024;
const NANOS: i64 = 1_000_000_000;

/// The request for one container.
pub(crate) fn of(command: &[String], env: &BTreeMap<String, String>, container: &ContainerSpec) -> ContainerCreateBody {
    let limits = container.limits;
    let memory = limits.memory.filter(|memory| *memory > 0).map(|memory| i64::from(memory) * MB);
    let (network_mode, ports) = match &container.network {
        Network::Host => ("host".to_owned(), None),
        Network::Bridge { name, .. } => (name.clone(), container.port.zip(env_port(container))),
    };
    let key = ports.map(|(inside, _)| format!("{inside}/tcp"));
    let bindings = key.clone().zip(ports).map(|(key, (_, outside))| {
        let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(outside.to_string()) };
        HashMap::from([(key, Some(vec![binding]))])
    });
    let limited = limits != crate::runtime::Limits::default();
    let host = HostConfig {
        network_mode: Some(network_mode),
        port_bindings: bindings,
        memory,
        // No swap beyond: a process over its limit ends and does not drag the machine along.
        memory_swap: memory,
        cpu_shares: limits.cpu.filter(|cpu| *cpu > 0).map(|cpu| i64::from(cpu).max(2)),
        nano_cpus: limits.cpu_most.filter(|cpu| *cpu > 0).map(|cpu| i64::from(cpu) * NANOS / UNITS),
        pids_limit: limited.then_some(PIDS),
        binds: Some(container.mounts.iter().map(|mount| format!("{}:{}", mount.from, mount.to)).collect()),
        privileged: Some(container.privileged),
        // A set-user-id program in an image gives no more rights than the image's user has.
        security_opt: (!container.privileged).then(|| vec!["no-new-privileges".to_owned()]),
        init: container.init.then_some(true),
        // The scheduler decides what follows an end.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        // What it says is in the Rack's own log, which is bounded.
        log_config: Some(HostConfigLogConfig { typ: Some("json-file".to_owned()), config: Some(log_bounds()) }),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(container.image.clone()),
        cmd: (!command.is_empty()).then(|| command.to_vec()),
        env: Some(env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(container.labels.clone().into_iter().collect()),
        exposed_ports: key.map(|key| vec![key]),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

fn log_bounds() -> HashMap<String, String> {
    HashMap::from([("max-size".to_owned(), "10m".to_owned())])
}

/// The machine's port for it, which its labels carry.
fn env_port(container: &ContainerSpec) -> Option<u16> {
    container.labels.get(super::spec::LABEL_PORT)?.parse().ok()
}
