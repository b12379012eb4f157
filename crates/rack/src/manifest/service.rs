//! One service of a manifest.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::fields::{Field, Name, Reading};
use super::{Build, Command, Deployment, EnvEntry, Health, ManifestError, Scale, Service, ServicePort};

/// Keys of the originals that a runtime without images, networks or a cloud has no use for.
const WITHOUT_EFFECT: &[&str] = &[
    "annotations",
    "disableHostUsers",
    "dnsConfig",
    "grpcHealthEnabled",
    "imagePullSecrets",
    "ingressAnnotations",
    "internalRouter",
    "liveness",
    "nlb",
    "nodeAffinityLabels",
    "nodeSelectorLabels",
    "policies",
    "startupProbe",
    "tags",
];

/// Keys that protect others from an app or the app from others, or without which it cannot be right: who writes them must not believe
/// that they hold.
const REFUSED: &[(&str, &str)] = &[
    ("accessControl", "it would let in those whom this keeps out; restrict who reaches the router, or use `whitelist`"),
    ("configMounts", "its files would not be there; build them into the image, or keep them in the environment"),
    ("initContainer", "it would not run; put it before the service's command"),
    ("securityContext", "its limits would not hold; set the user with USER in the Dockerfile"),
    ("volumeOptions", "it would not be mounted; use `volumes`"),
];

/// Most processes of one service.
const COUNT_CAP: u32 = 1000;

pub(super) fn read(name: &str, field: &Field, reading: &mut Reading<'_>) -> Result<Service, ManifestError> {
    if !super::is_valid_name(name) {
        return Err(field.error(super::INVALID_NAME));
    }
    let mut fields = field.fields()?;
    let image = fields.take("image").map(|image| image.text(reading)).transpose()?.filter(|image| !image.is_empty());
    let build = match fields.take("build") {
        Some(build) => Some(read_build(&build, reading)?),
        None if image.is_none() => Some(Build { path: ".".into(), manifest: "Dockerfile".into(), ..Build::default() }),
        None => None,
    };
    let agent = fields.take("agent").map(|agent| read_agent(&agent, reading)).transpose()?.unwrap_or(false);
    let internal_and_external = flag(&mut fields, "internalAndExternal", reading)?.unwrap_or(false);
    let singleton = flag(&mut fields, "singleton", reading)?.unwrap_or(false);
    let one_at_a_time = agent || singleton;
    let sticky = flag(&mut fields, "sticky", reading)?;
    let timeout = seconds(&mut fields, "timeout", reading)?;
    let domain = fields.take("domain");
    let (is_sticky, is_timed) = (sticky == Some(true), timeout.is_some());
    let sticky = sticky.unwrap_or(true);
    let service = Service {
        name: name.to_owned(),
        build,
        image,
        command: fields.take("command").map(|command| read_command(&command, reading)).transpose()?.unwrap_or_default(),
        port: fields.take("port").map(|port| read_port(&port, reading)).transpose()?,
        ports: fields.take("ports").map(|ports| read_ports(&ports, reading)).transpose()?.unwrap_or_default(),
        health: fields.take("health").map(|health| read_health(&health, reading)).transpose()?.unwrap_or_default(),
        scale: fields.take("scale").map(|scale| read_scale(&scale, reading)).transpose()?.unwrap_or_default(),
        domains: domain.as_ref().map(|domain| read_domains(domain, reading)).transpose()?.unwrap_or_default(),
        environment: fields.take("environment").map(|environment| read_environment(&environment, reading)).transpose()?.unwrap_or_default(),
        internal: flag(&mut fields, "internal", reading)?.unwrap_or(false) && !internal_and_external,
        resources: fields.take("resources").map(|names| read_names(&names, "resource", reading)).transpose()?.unwrap_or_default(),
        links: fields.take("links").map(|names| read_names(&names, "service", reading)).transpose()?.unwrap_or_default(),
        volumes: fields.take("volumes").map(|volumes| volumes.texts(reading)).transpose()?.unwrap_or_default(),
        test: fields.take("test").map(|test| test.shell_text(reading)).transpose()?.filter(|test| !test.is_empty()),
        singleton,
        sticky,
        privileged: flag(&mut fields, "privileged", reading)?.unwrap_or(false),
        init: flag(&mut fields, "init", reading)?.unwrap_or(false),
        agent,
        drain: seconds(&mut fields, "drain", reading)?.filter(|drain| !drain.is_zero()).unwrap_or(Duration::from_secs(30)),
        deployment: read_deployment(fields.take("deployment"), one_at_a_time, reading)?,
        termination_grace: read_termination(fields.take("termination"), reading)?,
        timeout: timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(Duration::from_mins(1)),
        certificate: fields.take("certificate").map(|certificate| read_certificate(&certificate, reading)).transpose()?,
        labels: fields.take("labels").map(|labels| read_labels(&labels, reading)).transpose()?.unwrap_or_default(),
        allowed: fields.take("whitelist").map(|networks| read_networks(&networks, reading)).transpose()?.unwrap_or_default(),
        plain_http: !fields.take("tls").map(|tls| read_redirect(&tls, reading)).transpose()?.unwrap_or(true),
    };
    let mut without_effect = |is_given: bool, key: &str| {
        if is_given {
            reading.unused.push(format!("{}.{key}", field.path));
        }
    };
    without_effect(is_sticky, "sticky");
    without_effect(is_timed, "timeout");
    without_effect(!service.ports.is_empty(), "ports");
    without_effect(service.scale.max > service.scale.min, "scale (its upper bound)");
    let deployment = &service.deployment;
    without_effect(deployment.minimum != if one_at_a_time { 0 } else { 50 }, "deployment.minimum");
    without_effect(!one_at_a_time && !matches!(deployment.maximum, 0..=100 | 200), "deployment.maximum (above 100)");
    let is_nameless = !service.internal && !service.speaks_http();
    without_effect(
        is_nameless && service.domains.is_empty(),
        "port by host name (the router speaks HTTP/1.1 to processes; others are reached on the service's own port)",
    );
    if let Some(domain) = domain.filter(|_| is_nameless && !service.domains.is_empty()) {
        let why = format!(
            "the router speaks HTTP/1.1 to processes, and this one speaks {}, so nobody would reach it under this name; take `domain` out, or set \
             `internal: true`, and reach it on the service's own port (`convox services`)",
            service.scheme()
        );
        reading.refused.push(domain.error(format!("not on this Rack: {why}")));
    }
    for (key, why) in REFUSED {
        fields.refuse(reading, key, why);
    }
    read_lifecycle(fields.take("lifecycle"), reading)?;
    fields.ignore(reading, WITHOUT_EFFECT);
    fields.finish()?;
    Ok(service)
}

fn flag(fields: &mut super::fields::Fields, key: &'static str, reading: &Reading<'_>) -> Result<Option<bool>, ManifestError> {
    fields.take(key).map(|field| field.boolean(reading)).transpose()
}

fn seconds(fields: &mut super::fields::Fields, key: &'static str, reading: &Reading<'_>) -> Result<Option<Duration>, ManifestError> {
    fields.take(key).map(|field| field.seconds(reading)).transpose()
}

fn read_build(field: &Field, reading: &Reading<'_>) -> Result<Build, ManifestError> {
    let or = |text: String, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text };
    if !field.is_map() {
        return Ok(Build { path: or(field.text(reading)?, "."), manifest: "Dockerfile".into(), ..Build::default() });
    }
    let mut fields = field.fields()?;
    let path = fields.take("path").map(|path| path.text(reading)).transpose()?.unwrap_or_default();
    let manifest = fields.take("manifest").map(|manifest| manifest.text(reading)).transpose()?.unwrap_or_default();
    let args = fields.take("args").map(|args| read_args(&args, reading)).transpose()?.unwrap_or_default();
    let target = fields.take("target").map(|target| target.text(reading)).transpose()?.unwrap_or_default();
    fields.finish()?;
    Ok(Build { path: or(path, "."), manifest: or(manifest, "Dockerfile"), args, target })
}

/// A list of `NAME` and `NAME=value`, or a map.
fn read_args(field: &Field, reading: &Reading<'_>) -> Result<Vec<String>, ManifestError> {
    if !field.is_map() {
        return field.texts(reading);
    }
    let pairs = field.entries()?.into_iter();
    pairs.map(|(name, value)| Ok(if value.is_null() { name } else { format!("{name}={}", value.text(reading)?) })).collect()
}

pub(super) fn read_command(field: &Field, reading: &Reading<'_>) -> Result<Command, ManifestError> {
    if field.is_list() { field.texts(reading).map(Command::list) } else { field.shell_text(reading).map(|text| Command::text(&text)) }
}

fn read_agent(field: &Field, reading: &mut Reading<'_>) -> Result<bool, ManifestError> {
    if !field.is_map() {
        return field.boolean(reading);
    }
    let mut fields = field.fields()?;
    let enabled = flag(&mut fields, "enabled", reading)?.unwrap_or(true);
    fields.ignore(reading, &["ports"]);
    fields.finish()?;
    Ok(enabled)
}

fn read_port(field: &Field, reading: &Reading<'_>) -> Result<ServicePort, ManifestError> {
    if field.is_map() {
        let mut fields = field.fields()?;
        let port = fields.take("port");
        let scheme = fields.take("scheme").map(|scheme| scheme.text(reading)).transpose()?;
        fields.finish()?;
        let mut port = read_port(&port.ok_or_else(|| field.error("port is missing"))?, reading)?;
        if let Some(scheme) = scheme {
            port.scheme = scheme.trim().to_ascii_lowercase();
        }
        return Ok(port);
    }
    let text = field.text(reading)?;
    let (scheme, number) = text.split_once(':').unwrap_or(("http", &text));
    let port = port_number(field, number)?;
    Ok(ServicePort { port, scheme: scheme.trim().to_ascii_lowercase() })
}

fn port_number(field: &Field, text: &str) -> Result<u16, ManifestError> {
    Ok(u16::try_from(field.parse_number(text.trim(), 1, 65_535)?).unwrap_or_default())
}

fn read_ports(field: &Field, reading: &Reading<'_>) -> Result<Vec<ServicePort>, ManifestError> {
    let one = |item: &Field| {
        if item.is_map() {
            let mut fields = item.fields()?;
            let port = fields.take("port").ok_or_else(|| item.error("port is missing"))?;
            let protocol = fields.take("protocol").map(|protocol| protocol.text(reading)).transpose()?;
            fields.finish()?;
            let port = port_number(&port, &port.text(reading)?)?;
            return Ok(ServicePort { port, scheme: protocol.unwrap_or_else(|| "tcp".into()) });
        }
        let text = item.text(reading)?;
        let (number, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        Ok(ServicePort { port: port_number(item, number)?, scheme: protocol.to_ascii_lowercase() })
    };
    field.items()?.iter().map(one).collect()
}

fn read_health(field: &Field, reading: &mut Reading<'_>) -> Result<Health, ManifestError> {
    if !field.is_map() {
        return Ok(Health { path: Some(health_path(field, reading)?), ..Health::default() });
    }
    let mut fields = field.fields()?;
    let path = fields.take("path").map(|path| health_path(&path, reading)).transpose()?;
    let disabled = flag(&mut fields, "disable", reading)?.unwrap_or(false);
    let positive = |duration: &Duration| !duration.is_zero();
    let interval = seconds(&mut fields, "interval", reading)?.filter(positive).unwrap_or(Duration::from_secs(5));
    let health = Health {
        path: if disabled { None } else { Some(path.unwrap_or_else(|| "/".into())) },
        interval,
        timeout: seconds(&mut fields, "timeout", reading)?
            .filter(positive)
            .unwrap_or_else(|| interval.saturating_sub(Duration::from_secs(1)).max(Duration::from_secs(1))),
        grace: seconds(&mut fields, "grace", reading)?.filter(positive).unwrap_or(interval),
    };
    fields.ignore(reading, &["port"]);
    fields.finish()?;
    Ok(health)
}

fn health_path(field: &Field, reading: &Reading<'_>) -> Result<String, ManifestError> {
    let path = field.text(reading)?;
    if !path.starts_with('/') {
        return Err(field.error(format!("must be a path that begins with /, not {path:?}")));
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(field.error("may only have visible ASCII characters"));
    }
    Ok(path)
}

fn read_scale(field: &Field, reading: &mut Reading<'_>) -> Result<Scale, ManifestError> {
    let mut scale = Scale::default();
    if !field.is_map() {
        (scale.min, scale.max) = read_count(field, reading)?;
        return Ok(scale);
    }
    let mut fields = field.fields()?;
    if let Some(count) = fields.take("count") {
        (scale.min, scale.max) = read_count(&count, reading)?;
    }
    let min = fields.take("min").map(|min| min.number(reading, 0, COUNT_CAP)).transpose()?;
    let max = fields.take("max").map(|max| max.number(reading, 0, COUNT_CAP)).transpose()?;
    if min.is_some() || max.is_some() {
        scale.min = min.or(max).unwrap_or(scale.min);
        scale.max = max.or(min).unwrap_or(scale.max);
        check_order(field, scale.min, scale.max)?;
    }
    if let Some(cpu) = fields.take("cpu") {
        scale.cpu = cpu.number(reading, 0, 1 << 20)?;
    }
    if let Some(memory) = fields.take("memory") {
        scale.memory = memory.number(reading, 0, 1 << 30)?;
    }
    if let Some(limit) = fields.take("limit") {
        let mut limits = limit.fields()?;
        scale.cpu_most = limits.take("cpu").map(|cpu| cpu.number(reading, 1, 1 << 20)).transpose()?;
        scale.memory_most = limits.take("memory").map(|memory| memory.number(reading, 1, 1 << 30)).transpose()?;
        limits.finish()?;
    }
    fields.ignore(reading, &["autoscale", "cooldown", "gpu", "keda", "targets", "vpa"]);
    fields.finish()?;
    Ok(scale)
}

fn read_count(field: &Field, reading: &Reading<'_>) -> Result<(u32, u32), ManifestError> {
    if field.is_map() {
        let mut fields = field.fields()?;
        let min = fields.take("min").map(|min| min.number(reading, 0, COUNT_CAP)).transpose()?;
        let max = fields.take("max").map(|max| max.number(reading, 0, COUNT_CAP)).transpose()?;
        fields.finish()?;
        let (min, max) = (min.or(max).unwrap_or(1), max.or(min).unwrap_or(1));
        check_order(field, min, max)?;
        return Ok((min, max));
    }
    let text = field.text(reading)?;
    let number = |text: &str| field.parse_number(text.trim(), 0, COUNT_CAP);
    let (min, max) = match text.split_once('-') {
        Some((min, max)) => (number(min)?, number(max)?),
        None => {
            let count = number(text.strip_suffix('+').unwrap_or(&text))?;
            (count, count)
        }
    };
    check_order(field, min, max)?;
    Ok((min, max))
}

fn check_order(field: &Field, min: u32, max: u32) -> Result<(), ManifestError> {
    if min <= max { Ok(()) } else { Err(field.error(format!("the least, {min}, is more than the most, {max}"))) }
}

fn read_domains(field: &Field, reading: &Reading<'_>) -> Result<Vec<String>, ManifestError> {
    let texts = if field.is_list() { field.texts(reading)? } else { vec![field.text(reading)?] };
    let parts = texts.iter().flat_map(|text| text.split(','));
    Ok(parts.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect())
}

fn read_deployment(field: Option<Field>, one_at_a_time: bool, reading: &Reading<'_>) -> Result<Deployment, ManifestError> {
    let mut deployment = if one_at_a_time { Deployment { minimum: 0, maximum: 100 } } else { Deployment { minimum: 50, maximum: 200 } };
    if let Some(field) = field {
        let mut fields = field.fields()?;
        if let Some(minimum) = fields.take("minimum") {
            deployment.minimum = minimum.number(reading, 0, 100)?;
        }
        if let Some(maximum) = fields.take("maximum") {
            deployment.maximum = maximum.number(reading, 0, 1000)?;
        }
        fields.finish()?;
    }
    Ok(deployment)
}

fn read_termination(field: Option<Field>, reading: &Reading<'_>) -> Result<Duration, ManifestError> {
    let otherwise = Duration::from_secs(30);
    let Some(field) = field else { return Ok(otherwise) };
    let mut fields = field.fields()?;
    let grace = seconds(&mut fields, "grace", reading)?;
    fields.finish()?;
    Ok(grace.unwrap_or(otherwise))
}

fn read_certificate(field: &Field, reading: &mut Reading<'_>) -> Result<String, ManifestError> {
    if !field.is_map() {
        return field.text(reading);
    }
    let mut fields = field.fields()?;
    let id = fields.take("id").map(|id| id.text(reading)).transpose()?;
    fields.ignore(reading, &["duration"]);
    fields.finish()?;
    Ok(id.unwrap_or_default())
}

/// Names of resources (`NAME` or `NAME:VARIABLE`) or services, each of which must be in the manifest.
fn read_names(field: &Field, kind: &'static str, reading: &mut Reading<'_>) -> Result<Vec<String>, ManifestError> {
    let mut texts = Vec::new();
    for item in field.items()? {
        let text = item.text(reading)?;
        let name = text.split_once(':').map_or(text.as_str(), |(name, _)| name).to_owned();
        reading.names.push(Name { field: item, kind, name });
        texts.push(text);
    }
    Ok(texts)
}

/// Labels of containers. Those of the Rack are how it finds what is its own.
pub(super) fn read_labels(field: &Field, reading: &Reading<'_>) -> Result<BTreeMap<String, String>, ManifestError> {
    let labels = field.text_map(reading)?;
    match labels.keys().find(|name| name.is_empty() || name.starts_with("convox.")) {
        Some(name) => Err(field.error(format!("not a label for apps: {name:?}; those that begin with convox. are the Rack's"))),
        None => Ok(labels),
    }
}

/// A network, or an address alone.
pub(crate) fn read_network(text: &str) -> Result<IpNet, String> {
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network: Option<IpNet> = text.parse().ok().or_else(alone);
    match network {
        // Connections count by their IPv4 address: it would let nobody in.
        Some(IpNet::V6(network)) if network.addr().to_ipv4_mapped().is_some() => {
            Err(format!("not IPv6: write it as IPv4, as 10.0.0.0/8: {text:?}"))
        }
        Some(network) => Ok(network),
        None => Err(format!("not a network or an address, as 10.0.0.0/8: {text:?}")),
    }
}

/// Networks and single addresses: a list, or separated by commas.
fn read_networks(field: &Field, reading: &Reading<'_>) -> Result<Vec<IpNet>, ManifestError> {
    let texts = if field.is_list() { field.texts(reading)? } else { vec![field.text(reading)?] };
    let parts = texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|part| !part.is_empty());
    let networks: Vec<IpNet> = parts.map(|part| read_network(part).map_err(|why| field.error(why))).collect::<Result<_, _>>()?;
    // Nobody would be kept out, and somebody wanted that.
    if networks.is_empty() { Err(field.error("names no network")) } else { Ok(networks) }
}

/// `redirect` of `tls`.
fn read_redirect(field: &Field, reading: &Reading<'_>) -> Result<bool, ManifestError> {
    let mut fields = field.fields()?;
    let redirect = flag(&mut fields, "redirect", reading)?;
    fields.finish()?;
    Ok(redirect.unwrap_or(true))
}

/// What runs before an end only is left out as other keys are; what runs at the start may be what an app needs.
fn read_lifecycle(field: Option<Field>, reading: &mut Reading<'_>) -> Result<(), ManifestError> {
    let Some(field) = field else { return Ok(()) };
    let mut fields = field.fields()?;
    fields.ignore(reading, &["preStop"]);
    fields.refuse(reading, "postStart", "it would not run; put it into the service's command");
    fields.finish()
}

/// A list of `NAME`, `NAME=value` and `*` (lists in it are taken as if written out), or a map.
pub(super) fn read_environment(field: &Field, reading: &Reading<'_>) -> Result<Vec<EnvEntry>, ManifestError> {
    let mut entries = Vec::new();
    if field.is_map() {
        for (name, value) in field.entries()? {
            check_env_name(&value, &name)?;
            entries.push(if value.is_null() { EnvEntry::Required(name) } else { EnvEntry::Default(name, value.text(reading)?) });
        }
        return Ok(entries);
    }
    for item in field.items()? {
        let texts = if item.is_list() { item.items()? } else { vec![item] };
        for text in texts {
            let entry = text.text(reading)?;
            entries.push(match entry.split_once('=') {
                Some((name, value)) => {
                    check_env_name(&text, name)?;
                    EnvEntry::Default(name.to_owned(), value.to_owned())
                }
                None if entry == "*" => EnvEntry::All,
                None => {
                    check_env_name(&text, &entry)?;
                    EnvEntry::Required(entry)
                }
            });
        }
    }
    Ok(entries)
}

fn check_env_name(field: &Field, name: &str) -> Result<(), ManifestError> {
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '=') {
        return Err(field.error(format!("not a name of a variable: {name:?}")));
    }
    Ok(())
}
