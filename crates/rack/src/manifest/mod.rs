//! `convox.yml`, generation 2, in its real format: read, checked, with defaults applied.
//!
//! Errors carry line and column and name what is wrong; unknown keys are errors, not ignored.
//! Input is hostile (anyone who may deploy): size, depth and alias expansion are bounded, and
//! nothing here panics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::command::Command;

mod fields;
mod service;
mod tree;

pub(crate) use service::read_network;

use fields::{Field, Name, Reading, hint};

/// A checked manifest with all defaults applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// Environment that every service gets.
    pub environment: Vec<EnvEntry>,
    /// Services in the order of the file.
    pub services: Vec<Service>,
    /// Resources in the order of the file.
    pub resources: Vec<Resource>,
    /// Timers in the order of the file.
    pub timers: Vec<Timer>,
    /// Parameters.
    pub params: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Keys that are valid but have no effect on this Rack, as `services.web.nlb`.
    pub unused: Vec<String>,
    /// What a new release is refused for, and one that runs already runs on with.
    pub refused: Vec<ManifestError>,
}

/// One entry of an `environment` list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvEntry {
    /// `*`: everything in the release's environment.
    All,
    /// `NAME`: must be in the release's environment.
    Required(String),
    /// `NAME=value`: the value unless the release's environment has one.
    Default(String, String),
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// How its image is built; plain processes only need the path.
    pub build: Option<Build>,
    /// A ready image, which only containers can run.
    pub image: Option<String>,
    /// What it runs; none if not given.
    pub command: Command,
    /// The port it serves to the outside.
    pub port: Option<ServicePort>,
    /// Other ports, for other services only.
    pub ports: Vec<ServicePort>,
    /// How to tell that a process is healthy.
    pub health: Health,
    /// How many processes, and how large.
    pub scale: Scale,
    /// Host names.
    pub domains: Vec<String>,
    /// Its own entries; see [`Manifest::service_environment`] for the whole.
    pub environment: Vec<EnvEntry>,
    /// Not served to the outside.
    pub internal: bool,
    /// Names of resources it uses.
    pub resources: Vec<String>,
    /// Names of services it talks to.
    pub links: Vec<String>,
    /// Volumes as written.
    pub volumes: Vec<String>,
    /// Command that tests it.
    pub test: Option<String>,
    /// Never two at the same time, not even during a promotion.
    pub singleton: bool,
    /// A client stays with its process.
    pub sticky: bool,
    /// Runs with more rights.
    pub privileged: bool,
    /// Runs below a small init, which passes signals on and buries orphans.
    pub init: bool,
    /// One on every instance.
    pub agent: bool,
    /// How long open connections may take to finish when a process is replaced.
    pub drain: Duration,
    /// Percentages of the count during a promotion.
    pub deployment: Deployment,
    /// How long a process may take to end after SIGTERM.
    pub termination_grace: Duration,
    /// Longest time a request may take.
    pub timeout: Duration,
    /// Certificate.
    pub certificate: Option<String>,
    /// Labels of its containers, beside the manifest's.
    pub labels: BTreeMap<String, String>,
    /// Networks from which the router lets requests in; empty is from everywhere.
    pub allowed: Vec<IpNet>,
    /// Answered by the router with HTTP, where it could be with HTTPS.
    pub plain_http: bool,
}

impl Service {
    /// How its processes are spoken to.
    pub fn scheme(&self) -> &str {
        self.port.as_ref().map_or("http", |port| port.scheme.as_str())
    }

    /// Whether its processes speak HTTP/1.1, with TLS or without: the router serves no others by host name.
    pub fn speaks_http(&self) -> bool {
        matches!(self.scheme(), "http" | "https")
    }
}

/// `build` of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Build {
    /// Directory below the source.
    pub path: String,
    /// Name of the Dockerfile.
    pub manifest: String,
    /// Names (and values) of build arguments.
    pub args: Vec<String>,
    /// The stage of the Dockerfile to stop at; the last one if empty.
    pub target: String,
}

/// A port and how it is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// The number.
    pub port: u16,
    /// `http`, `https`, `tcp`, `udp`, `grpc`, ...
    pub scheme: String,
}

/// `health` of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Path of the HTTP check; `None` when the manifest gives no health at all.
    pub path: Option<String>,
    /// Time between checks.
    pub interval: Duration,
    /// Longest time for an answer.
    pub timeout: Duration,
    /// Time after the start in which failures do not count.
    pub grace: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self { path: None, interval: Duration::from_secs(5), timeout: Duration::from_secs(4), grace: Duration::from_secs(5) }
    }
}

/// `scale` of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Fewest processes; the count until someone scales.
    pub min: u32,
    /// Most processes.
    pub max: u32,
    /// CPU units, 1024 to a core.
    pub cpu: u32,
    /// Memory in MB.
    pub memory: u32,
    /// Most CPU units, if there is a limit beyond the share.
    pub cpu_most: Option<u32>,
    /// Most memory in MB, if it is another than `memory`.
    pub memory_most: Option<u32>,
}

impl Default for Scale {
    fn default() -> Self {
        Self { min: 1, max: 1, cpu: 256, memory: 512, cpu_most: None, memory_most: None }
    }
}

/// `deployment` of a service, in per cent of the count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// At least so many run during a promotion.
    pub minimum: u32,
    /// At most so many run during a promotion.
    pub maximum: u32,
}

impl Default for Deployment {
    fn default() -> Self {
        Self { minimum: 50, maximum: 200 }
    }
}

/// One resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// `postgres`, `redis`, ...
    pub kind: String,
    /// The image of its server, where there are images; else the usual one of its kind.
    pub image: Option<String>,
    /// Options as written.
    pub options: BTreeMap<String, String>,
}

/// One timer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    /// Its name.
    pub name: String,
    /// Service whose code it runs.
    pub service: String,
    /// Cron expression.
    pub schedule: String,
    /// What it runs; the service's own if not given.
    pub command: Command,
    /// What happens when the run before is not over.
    pub concurrency: Concurrency,
    /// Processes of one run, each with its number from 0 in `TIMER_INDEX` if there is more than one.
    pub parallel: u32,
}

/// What happens when a timer is due and its run before is not over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// It is left out.
    #[default]
    Forbid,
    /// Another one runs beside it.
    Allow,
    /// The one before is stopped first.
    Replace,
}

/// A schedule that is never due after this one never is.
const SOME_DAY: Timestamp = Timestamp::constant(1_700_000_000, 0);

impl Timer {
    /// The first time after `since` at which it is due, in UTC; `None` if there is none.
    pub fn next(&self, since: Timestamp) -> Option<Timestamp> {
        let cron = cron(&self.schedule).ok()?;
        let next = cron.find_next_occurrence(&since.to_zoned(TimeZone::UTC), false).ok()?;
        Some(next.timestamp())
    }
}

/// A schedule, as the originals take it: five fields, of a sixth (AWS's year) nothing is made, and `?` is `*`.
fn cron(schedule: &str) -> Result<Cron, String> {
    let fields: Vec<&str> = schedule.split_whitespace().map(|field| if field == "?" { "*" } else { field }).collect();
    let Some(five) = fields.get(..5).filter(|_| fields.len() <= 6) else {
        return Err("it has five fields: minute, hour, day of the month, month, day of the week".to_owned());
    };
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(&five.join(" ")).map_err(|error| error.to_string())
}

/// What is wrong with a manifest, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ManifestError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong, naming the key.
    pub message: String,
}

/// Names in the manifest that the release's environment lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("required env: {}", .names.join(", "))]
pub struct MissingEnv {
    /// Sorted names.
    pub names: Vec<String>,
}

impl Manifest {
    /// Reads and checks a manifest without an environment.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        Self::parse_with(text, &BTreeMap::new())
    }

    /// Reads and checks a manifest; `env` (the release's) replaces `${NAME}` in its values. A
    /// name that `env` lacks becomes nothing, except in commands, where the shell gets to see it.
    pub fn parse_with(text: &str, env: &BTreeMap<String, String>) -> Result<Self, ManifestError> {
        let root = Field::root(tree::read(text)?);
        if !root.is_map() {
            return Err(root.error("a manifest is a map with the key services"));
        }
        let mut reading = Reading { env, unused: Vec::new(), refused: Vec::new(), names: Vec::new() };
        let reading = &mut reading;
        let mut fields = root.fields()?;
        let mut manifest = Self::default();
        let mut timers = Vec::new();
        if let Some(field) = fields.take("environment") {
            manifest.environment = service::read_environment(&field, reading)?;
        }
        if let Some(field) = fields.take("services") {
            for (name, field) in field.entries()? {
                manifest.services.push(service::read(&name, &field, reading)?);
            }
        }
        if let Some(field) = fields.take("resources") {
            for (name, field) in field.entries()? {
                manifest.resources.push(read_resource(name, &field, reading)?);
            }
        }
        if let Some(field) = fields.take("timers") {
            for (name, field) in field.entries()? {
                let timer = read_timer(name, &field, reading)?;
                // One is enough to refuse it; to look for a day that never comes takes a while.
                if manifest.refused.is_empty() && timer.next(SOME_DAY).is_none() {
                    manifest.refused.push(field.error(format!("invalid schedule expression: {}: that day never comes", timer.schedule)));
                }
                timers.push((timer, field));
            }
        }
        if let Some(field) = fields.take("params") {
            manifest.params = field.text_map(reading)?;
        }
        if let Some(field) = fields.take("labels") {
            manifest.labels = service::read_labels(&field, reading)?;
        }
        for (timer, field) in timers {
            if manifest.service(&timer.service).is_none() {
                return Err(field.error(format!("there is no service {}", timer.service)));
            }
            manifest.timers.push(timer);
        }
        if !manifest.params.is_empty() {
            reading.unused.push("params".to_owned());
        }
        fields.ignore(reading, &["appSettings", "balancers", "budget", "configs"]);
        fields.finish()?;
        for Name { field, kind, name } in std::mem::take(&mut reading.names) {
            let known: Vec<&str> = match kind {
                "resource" => manifest.resources.iter().map(|resource| resource.name.as_str()).collect(),
                _ => manifest.services.iter().map(|service| service.name.as_str()).collect(),
            };
            if !known.contains(&name.as_str()) {
                reading.refused.push(field.error(format!("there is no {kind} {name}{}", hint(&name, &known))));
            }
        }
        manifest.refused.append(&mut reading.refused);
        manifest.unused = std::mem::take(&mut reading.unused);
        Ok(manifest)
    }

    /// As [`parse_with`](Self::parse_with), for what is to become a release.
    pub fn parse_new(text: &str, env: &BTreeMap<String, String>) -> Result<Self, ManifestError> {
        let mut manifest = Self::parse_with(text, env)?;
        if manifest.refused.is_empty() { Ok(manifest) } else { Err(manifest.refused.swap_remove(0)) }
    }

    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The environment of a service: what its entries (the manifest's own first) take from the
    /// release's environment, or their defaults. Later entries win. What no entry names is left
    /// out, as the originals do.
    pub fn service_environment(
        &self,
        service: &Service,
        release_env: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, MissingEnv> {
        let mut env = BTreeMap::new();
        let mut missing = BTreeSet::new();
        for entry in self.environment.iter().chain(&service.environment) {
            match entry {
                EnvEntry::All => env.extend(release_env.clone()),
                EnvEntry::Required(name) => match release_env.get(name) {
                    Some(value) => drop(env.insert(name.clone(), value.clone())),
                    None => drop(missing.insert(name.clone())),
                },
                EnvEntry::Default(name, otherwise) => {
                    env.insert(name.clone(), release_env.get(name).unwrap_or(otherwise).clone());
                }
            }
        }
        if missing.is_empty() { Ok(env) } else { Err(MissingEnv { names: missing.into_iter().collect() }) }
    }

    /// Checks that every service gets all it requires; the error names everything missing.
    pub fn check_environment(&self, release_env: &BTreeMap<String, String>) -> Result<(), MissingEnv> {
        let missing = self.services.iter().filter_map(|service| self.service_environment(service, release_env).err());
        let names: BTreeSet<String> = missing.flat_map(|missing| missing.names).collect();
        if names.is_empty() { Ok(()) } else { Err(MissingEnv { names: names.into_iter().collect() }) }
    }
}

/// Names that stand in DNS, in log streams and in directories.
fn is_valid_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

const INVALID_NAME: &str = "invalid name: it must begin with a lower-case letter and have only lower-case letters, digits and dashes";

fn read_resource(name: String, field: &Field, reading: &mut Reading<'_>) -> Result<Resource, ManifestError> {
    let mut fields = field.fields()?;
    let kind = fields.take("type").map(|kind| kind.text(reading)).transpose()?.unwrap_or_default();
    if kind.trim().is_empty() {
        return Err(field.error("resource type can not be blank"));
    }
    if !is_valid_name(&name) {
        return Err(field.error(INVALID_NAME));
    }
    let options = fields.take("options").map(|options| options.text_map(reading)).transpose()?.unwrap_or_default();
    let image = fields.take("image").map(|image| image.text(reading)).transpose()?.filter(|image| !image.is_empty());
    fields.ignore(reading, &["tags"]);
    fields.finish()?;
    Ok(Resource { name, kind, image, options })
}

fn read_timer(name: String, field: &Field, reading: &mut Reading<'_>) -> Result<Timer, ManifestError> {
    let mut fields = field.fields()?;
    let command = fields.take("command").map(|command| service::read_command(&command, reading)).transpose()?;
    let mut text = |key| -> Result<String, ManifestError> {
        let missing = || field.error(format!("{key} is missing"));
        fields.take(key).ok_or_else(missing)?.text(reading)
    };
    let schedule = text("schedule")?;
    let service = text("service")?;
    cron(&schedule).map_err(|reason| field.error(format!("invalid schedule expression: {schedule}: {reason}")))?;
    if !is_valid_name(&name) {
        return Err(field.error(INVALID_NAME));
    }
    let concurrency = match fields.take("concurrency").map(|text| text.text(reading)).transpose()?.as_deref() {
        None | Some("" | "Forbid") => Concurrency::Forbid,
        Some("Allow") => Concurrency::Allow,
        Some("Replace") => Concurrency::Replace,
        Some(other) => return Err(field.error(format!("concurrency is {other}: give Forbid, Allow or Replace"))),
    };
    let parallel = match fields.take("parallelCount").map(|text| text.text(reading)).transpose()? {
        None => 1,
        Some(text) => text
            .parse()
            .ok()
            .filter(|count| (1..=100).contains(count))
            .ok_or_else(|| field.error(format!("parallelCount is {text}: give a number from 1 to 100")))?,
    };
    fields.ignore(reading, &["annotations", "policies"]);
    fields.finish()?;
    Ok(Timer { name, service, schedule, command: command.unwrap_or_default(), concurrency, parallel })
}

#[cfg(test)]
mod tests;
