//! Images of an app's services: built from its source, or pulled.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{CreateImageOptionsBuilder, ImportImageOptionsBuilder, TagImageOptionsBuilder};
use convox_seal::Secret;
use convox_wire::form::Params;
use futures_util::{Stream, StreamExt as _};
use http::HeaderValue;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{BuildError, BuildRequest, Log, context, loading};
use crate::files;
use crate::logs::LineSplitter;
use crate::manifest::{Build, Manifest, Service};
use crate::runtime::container::bound::Bound;
use crate::runtime::container::{Engine, LABEL_APP, LABEL_BUILD, LABEL_RACK, Names, build, collect, reason};
use crate::scheduler;

/// Builds at the same time; more wait.
const AT_ONCE: usize = 2;
/// Bytes of one build's log that are kept. What a build says beyond that is counted.
const LOG_CAP: usize = 16 << 20;

/// What making the images of one build may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageBounds {
    /// How long it may take, not counted what it waits for others.
    pub time: Duration,
    /// Memory of each of its steps in MB; 0 is no limit.
    pub memory: u32,
    /// Processes and threads that its steps may have together; 0 is no limit.
    pub processes: u32,
}

/// What parameters say about the memory of each step of a build, in MB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepMemory {
    /// The most that it may be, in the place of what the Rack was started with; 0 is no limit.
    pub rack: Option<u32>,
    /// Less, for this app; 0 is what the Rack gives.
    pub app: u32,
}

impl StepMemory {
    /// The most that any app's steps get, of a Rack that was started with `option`; 0 is no limit.
    fn most(self, option: u32) -> u32 {
        self.rack.unwrap_or(option)
    }

    /// What a step gets; 0 is no limit.
    pub(crate) fn holds(self, option: u32) -> u32 {
        let most = self.most(option);
        if self.app > 0 && (most == 0 || self.app < most) { self.app } else { most }
    }
}

/// What Podman says last of a step that was killed.
const KILLED: &[u8] = b"container exited on killed";

/// How a private registry is logged in to.
#[derive(Clone)]
pub struct RegistryLogin {
    /// Its host.
    pub server: String,
    /// The user.
    pub username: String,
    /// The password or token.
    pub password: Arc<Secret>,
}

/// Makes images with one engine.
#[derive(Clone, Debug)]
pub struct Images {
    engine: Engine,
    names: Names,
    bounds: ImageBounds,
    room: Arc<Semaphore>,
}

impl Images {
    /// Images under these names.
    pub fn new(engine: Engine, names: Names, bounds: ImageBounds) -> Self {
        Self { engine, names, bounds, room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Makes an image for every service. `source` is the unpacked source.
    pub(super) async fn make(&self, request: &BuildRequest, manifest: &Manifest, source: &Path, log: &Log<'_>) -> Result<(), BuildError> {
        let _room = match self.room.try_acquire() {
            Ok(room) => room,
            Err(_) => {
                log.say("Waiting for other builds to end");
                self.room.acquire().await.map_err(|error| BuildError { reason: error.to_string() })?
            }
        };
        self.in_time(self.make_all(request, manifest, source, log)).await
    }

    /// What is dropped when its time is over ends the call to the engine, which ends the build.
    async fn in_time(&self, work: impl Future<Output = Result<(), BuildError>>) -> Result<(), BuildError> {
        timeout(self.bounds.time, work).await.unwrap_or_else(|_| {
            let time = self.bounds.time.as_secs();
            Err(BuildError {
                reason: format!("it took longer than {time} s; make it quicker, or start the Rack with a longer --build-timeout"),
            })
        })
    }

    async fn make_all(&self, request: &BuildRequest, manifest: &Manifest, source: &Path, log: &Log<'_>) -> Result<(), BuildError> {
        let bound = self.bound(&request.id)?;
        let holds = request.memory.holds(self.bounds.memory);
        if request.memory.app > holds {
            let wish = request.memory.app;
            log.say(&format!("NOTICE: BuildMem={wish} is more than the {holds} MB that this Rack gives to a step of a build"));
        }
        let mut built: Vec<(&Build, String)> = Vec::new();
        for service in &manifest.services {
            let name = self.names.image(&request.app, &service.name, &request.id);
            if let Some(image) = &service.image {
                let pulled = self.pull(image, request, log).await?;
                self.tag(&pulled, &name).await?;
            } else if let Some(build) = &service.build {
                // Services that are built alike share an image.
                match built.iter().find(|(other, _)| *other == build) {
                    Some((_, image)) => self.tag(image, &name).await?,
                    None => {
                        self.build(request, service, build, &name, source, bound.as_ref(), log).await?;
                        built.push((build, name));
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives every service an image that is there already: its own where it names one, else this one.
    pub(super) async fn take(&self, request: &BuildRequest, manifest: &Manifest, image: &str, log: &Log<'_>) -> Result<(), BuildError> {
        let _room = self.room.acquire().await.map_err(|error| BuildError { reason: error.to_string() })?;
        self.in_time(self.take_all(request, manifest, image, log)).await
    }

    async fn take_all(&self, request: &BuildRequest, manifest: &Manifest, image: &str, log: &Log<'_>) -> Result<(), BuildError> {
        let mut pulled: BTreeMap<&str, String> = BTreeMap::new();
        for service in &manifest.services {
            let from = service.image.as_deref().unwrap_or(image);
            if !pulled.contains_key(from) {
                pulled.insert(from, self.pull(from, request, log).await?);
            }
            let name = self.names.image(&request.app, &service.name, &request.id);
            self.tag(pulled.get(from).map_or(from, String::as_str), &name).await?;
        }
        Ok(())
    }

    /// Gives every service its image out of the request's archive, which is an export. Not all of them on an error.
    pub(super) async fn load(&self, request: &BuildRequest, manifest: &Manifest, log: &Log<'_>) -> Result<(), BuildError> {
        let _room = self.room.acquire().await.map_err(|error| BuildError { reason: error.to_string() })?;
        self.in_time(self.load_all(request, manifest, log)).await
    }

    async fn load_all(&self, request: &BuildRequest, manifest: &Manifest, log: &Log<'_>) -> Result<(), BuildError> {
        let image = |service: &Service| (service.name.clone(), self.names.image(&request.app, &service.name, &request.id));
        let names: BTreeMap<String, String> = manifest.services.iter().map(image).collect();
        let export = request.archive.clone();
        let archives = files::blocking(move || loading::archives(&export)).await;
        for archive in archives.map_err(|error| BuildError { reason: format!("reading the export: {error}") })? {
            log.say(&format!("Loading {archive}"));
            let body = bollard::body_try_stream(build::pieces(loading::stream(request.archive.clone(), archive.clone(), names.clone())));
            let options = ImportImageOptionsBuilder::new().quiet(true).build();
            let steps = self.engine.docker.import_image(options, body, None);
            let texts = steps.map(|step| step.map(|step| step.stream.unwrap_or_default()).map_err(|error| reason(&error)));
            let refused = |error| BuildError { reason: format!("the container engine does not take {archive} of the export: {error}") };
            tell(texts, log).await.map_err(refused)?;
        }
        for (service, name) in &names {
            if let Err(error) = self.engine.docker.inspect_image(name).await {
                return Err(BuildError {
                    reason: format!("service {service}: the export's image is not there after loading: {}", reason(&error)),
                });
            }
        }
        Ok(())
    }

    /// Deletes all images of an app, or those of one build.
    pub(super) async fn remove(&self, app: &str, build: Option<&str>) -> Result<(), BuildError> {
        let removed = collect::images_of(&self.engine, &self.names, app, build).await;
        removed.map_err(|reason| BuildError { reason: format!("deleting the images of {app}: {reason}") })
    }

    fn bound(&self, build: &str) -> Result<Option<Bound>, BuildError> {
        let most = self.bounds.processes;
        let made = (most > 0).then(|| Bound::new(&self.names.prefix, build, most)).transpose();
        made.map_err(|error| BuildError {
            reason: format!("its processes could not be bounded ({error}); `--build-processes 0` starts the Rack without that limit"),
        })
    }

    async fn build(
        &self,
        request: &BuildRequest,
        service: &Service,
        build: &Build,
        name: &str,
        source: &Path,
        bound: Option<&Bound>,
        log: &Log<'_>,
    ) -> Result<(), BuildError> {
        let dir = scheduler::directory(source, service);
        let refused = |reason: String| BuildError { reason: format!("service {}: build.manifest: {reason}", service.name) };
        let dockerfile = plain_path(&build.manifest).map_err(refused)?;
        let text = files::read_below(&dir, &dockerfile).map_err(refused)?;
        let text = text.ok_or_else(|| refused(format!("there is no {dockerfile} in the source; add it, or name another")))?;
        let ignored = files::read_below(&dir, ".dockerignore").map_err(|reason| BuildError { reason })?.unwrap_or_default();
        refuse_others(&text)?;
        log.say(&format!("Building {} from {}", service.name, Path::new(&build.path).join(&build.manifest).display()));
        let json = |map: &BTreeMap<String, String>| serde_json::to_string(map).unwrap_or_default();
        let labels = [(LABEL_RACK, &self.names.rack), (LABEL_APP, &request.app), (LABEL_BUILD, &request.id)];
        let labels = labels.map(|(label, value)| (label.to_owned(), value.clone()));
        let mut options = Params::new()
            .with("dockerfile", dockerfile.as_str())
            .with("t", name)
            .with("rm", "1")
            .with("forcerm", "1")
            .with("buildargs", json(&arguments(&text, build, request)))
            .with("labels", json(&labels.into()))
            .with("target", target(&text, build, request.development));
        if request.no_cache {
            options.set("nocache", "1");
        }
        let memory = request.memory.holds(self.bounds.memory);
        if memory > 0 {
            let bytes = (u64::from(memory) << 20).to_string();
            // No swap beyond.
            options.set("memswap", bytes.as_str());
            options.set("memory", bytes);
        }
        if let Some(bound) = bound {
            options.set("cgroupparent", bound.place());
        }
        let failed = |error: String| {
            let hint =
                self.hint(&error, request.memory, bound).unwrap_or_else(|| login_hint(&error, &registries(&text), &request.registries));
            BuildError { reason: format!("service {}: {error}{hint}", service.name) }
        };
        let archive = context::stream(dir, dockerfile, &ignored);
        let steps = build::build(&self.engine, &options, logins(&request.registries), archive).await.map_err(failed)?;
        tell(steps, log).await.map_err(failed)
    }

    /// What to do about an end that may be a limit's doing.
    fn hint(&self, error: &str, memory: StepMemory, bound: Option<&Bound>) -> Option<String> {
        if bound.is_some_and(Bound::was_full) {
            let most = self.bounds.processes;
            return Some(format!(
                "; the steps of a build may have {most} processes at the same time here: start the Rack with another --build-processes"
            ));
        }
        let is_killed = ["exit status 137", "returned a non-zero code: 137", "killed", "cgroup"].iter().any(|word| error.contains(word));
        let (most, holds) = (memory.most(self.bounds.memory), memory.holds(self.bounds.memory));
        let more = match most {
            _ if holds == most => "whoever runs the Rack gives more with `convox rack params set BuildMemory=MB` (0: no limit)".to_owned(),
            0 => "the app's parameter BuildMem says so, and the Rack sets no limit".to_owned(),
            _ => format!("the app's parameter BuildMem says so, and the Rack gives {most} MB"),
        };
        (holds > 0 && is_killed).then(|| format!("; a step of a build gets {holds} MB of memory here: {more}"))
    }

    /// Gets an image from its registry, else takes what the machine has under that name.
    async fn pull(&self, image: &str, request: &BuildRequest, log: &Log<'_>) -> Result<String, BuildError> {
        refuse_others(image)?;
        let (full, host) = full_name(image);
        log.say(&format!("Pulling {full}"));
        let (name, tag) = match full.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
            _ if full.contains('@') => (full.clone(), String::new()),
            _ => (full.clone(), "latest".to_owned()),
        };
        let options = CreateImageOptionsBuilder::default().from_image(&name).tag(&tag).build();
        let login = request.registries.iter().find(|login| server(&login.server) == host).map(credential);
        let steps = self.engine.docker.create_image(Some(options), None, login);
        // Progress comes many times a second; the log has what was begun and done.
        let texts = steps.map(|step| {
            let step = step.map_err(|error| reason(&error))?;
            Ok(step.status.filter(|_| step.progress_detail.is_none()).map(|status| status + "\n").unwrap_or_default())
        });
        match tell(texts, log).await {
            Ok(()) => Ok(full),
            Err(error) => match self.engine.docker.inspect_image(image).await {
                Ok(_) => {
                    log.say(&format!("NOTICE: {error}; using the image of that name on this machine"));
                    Ok(image.to_owned())
                }
                Err(_) => {
                    let hint = login_hint(&error, &BTreeSet::from([host]), &request.registries);
                    Err(BuildError { reason: format!("could not pull {full}: {error}{hint}") })
                }
            },
        }
    }

    async fn tag(&self, image: &str, name: &str) -> Result<(), BuildError> {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
        let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
        let tagged = self.engine.docker.tag_image(image, Some(options)).await;
        tagged.map_err(|error| BuildError { reason: format!("could not name image {image}: {}", reason(&error)) })
    }
}

/// A path as an engine gets it, whatever its own way to read names: parts that lead down, and nothing else. What begins with a bracket,
/// Podman takes for a list of paths.
fn plain_path(name: &str) -> Result<String, String> {
    let parts: Option<Vec<&str>> = Path::new(name)
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| if let Component::Normal(part) = part { part.to_str() } else { None })
        .collect();
    match parts.map(|parts| parts.join("/")) {
        Some(path) if !path.is_empty() && !path.starts_with('[') && !path.chars().any(char::is_control) => Ok(path),
        _ => Err(format!("{name:?} is not the name of a file in the source")),
    }
}

/// Images of Racks are made from their apps' sources, and nobody else's business.
fn refuse_others(text: &str) -> Result<(), BuildError> {
    let wanted = text.lines().find(|line| line.to_ascii_lowercase().contains("localhost/convox-"));
    match wanted {
        Some(line) => Err(BuildError { reason: format!("{:?} names an image of a Rack's app, which others may not use", line.trim()) }),
        None => Ok(()),
    }
}

/// Writes what an engine says to the build's log. The error is the engine's.
async fn tell(steps: impl Stream<Item = Result<String, String>>, log: &Log<'_>) -> Result<(), String> {
    let mut steps = std::pin::pin!(steps);
    let mut splitter = LineSplitter::default();
    let (mut written, mut dropped, mut is_killed) = (0, 0_u64, false);
    let mut say = |line: &[u8]| {
        // Podman says so in a line of its own, and in its error no more than that there was one.
        is_killed = line == KILLED;
        if written < LOG_CAP {
            written += line.len() + 1;
            log.say(&String::from_utf8_lossy(line));
        } else {
            dropped += 1;
        }
    };
    let mut outcome = Ok(());
    while let Some(step) = steps.next().await {
        match step {
            Ok(text) => splitter.push(text.as_bytes(), &mut say),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    splitter.finish(&mut say);
    if is_killed {
        outcome = outcome.map_err(|error| format!("{error} (killed)"));
    }
    if dropped > 0 {
        log.say(&format!("NOTICE: {dropped} further lines of this build were not kept"));
    }
    outcome
}

/// The stage to stop at: the manifest's; else, for development, the one of that name.
fn target(dockerfile: &str, build: &Build, development: bool) -> String {
    let names_stage = |line: &str| {
        let words: Vec<String> = line.split_whitespace().map(str::to_ascii_lowercase).collect();
        words.first().is_some_and(|word| word == "from")
            && words.windows(2).any(|pair| matches!(pair, [r#as, name] if r#as == "as" && name == "development"))
    };
    if build.target.is_empty() && development && dockerfile.lines().any(names_stage) {
        "development".to_owned()
    } else {
        build.target.clone()
    }
}

/// Values for the arguments that a Dockerfile declares: of the manifest, of the caller, of the app's environment; and those that
/// the manifest gives.
fn arguments(dockerfile: &str, build: &Build, request: &BuildRequest) -> BTreeMap<String, String> {
    let given: BTreeMap<&str, &str> = request.build_args.iter().filter_map(|argument| argument.split_once('=')).collect();
    let value = |name: &str| given.get(name).map(|value| (*value).to_owned()).or_else(|| request.env.get(name).cloned());
    let declared = dockerfile.lines().filter_map(|line| {
        let (word, rest) = line.trim().split_once(char::is_whitespace)?;
        let name = rest.trim().split(['=', ' ', '\t']).next()?;
        word.eq_ignore_ascii_case("ARG").then(|| name.to_owned())
    });
    let mut found: BTreeMap<String, String> = declared.filter_map(|name| value(&name).map(|value| (name, value))).collect();
    for argument in &build.args {
        match argument.split_once('=') {
            // The caller's word is the later one.
            Some((name, otherwise)) => drop(found.insert(name.to_owned(), given.get(name).unwrap_or(&otherwise).to_string())),
            None => drop(value(argument).map(|value| found.insert(argument.clone(), value))),
        }
    }
    found
}

/// The host of an image's registry.
pub(crate) fn registry_of(image: &str) -> String {
    full_name(image).1
}

/// A name with its registry, and that registry's host. What has none is Docker Hub's.
fn full_name(image: &str) -> (String, String) {
    let host = image.split_once('/').map(|(host, _)| host).filter(|host| host.contains(['.', ':']) || *host == "localhost");
    match host {
        Some(host) => (image.to_owned(), host.to_owned()),
        None if image.contains('/') => (format!("docker.io/{image}"), "docker.io".to_owned()),
        None => (format!("docker.io/library/{image}"), "docker.io".to_owned()),
    }
}

/// The host of a registry, however it was written down.
fn server(text: &str) -> &str {
    let text = text.trim_start_matches("https://").trim_start_matches("http://");
    let host = text.split('/').next().unwrap_or(text);
    if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host }
}

fn credential(login: &RegistryLogin) -> DockerCredentials {
    DockerCredentials {
        username: Some(login.username.clone()),
        password: Some(login.password.expose().to_owned()),
        serveraddress: Some(login.server.clone()),
        ..DockerCredentials::default()
    }
}

/// All logins, as engines take them for a build: a header that no log shows.
fn logins(logins: &[RegistryLogin]) -> HeaderValue {
    let key = |login: &RegistryLogin| match server(&login.server) {
        "docker.io" => "https://index.docker.io/v1/".to_owned(),
        host => host.to_owned(),
    };
    let config: BTreeMap<String, DockerCredentials> = logins.iter().map(|login| (key(login), credential(login))).collect();
    let text = Secret::new(serde_json::to_string(&config).unwrap_or_default());
    let encoded = Secret::new(URL_SAFE.encode(text.expose()));
    let mut value = HeaderValue::from_str(encoded.expose()).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// The registries that a Dockerfile's images come from, as far as it names them.
fn registries(dockerfile: &str) -> BTreeSet<String> {
    let mut stages = BTreeSet::new();
    let mut found = BTreeSet::new();
    for line in dockerfile.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is = |index: usize, word: &str| words.get(index).is_some_and(|other| other.eq_ignore_ascii_case(word));
        let image = if is(0, "FROM") {
            words.iter().skip(1).find(|word| !word.starts_with("--")).copied()
        } else {
            words.iter().find_map(|word| word.strip_prefix("--from=")).filter(|from| from.contains(['/', ':', '.']))
        };
        if let Some(image) =
            image.filter(|image| !image.contains('$') && *image != "scratch" && !stages.contains(&image.to_ascii_lowercase()))
        {
            found.insert(registry_of(image));
        }
        if is(0, "FROM") && words.len() > 3 && is(words.len() - 2, "AS") {
            stages.extend(words.last().map(|stage| stage.to_ascii_lowercase()));
        }
    }
    found
}

/// What to do where a registry lets nobody in without a login, or not with the one that it was given.
fn login_hint(error: &str, registries: &BTreeSet<String>, logins: &[RegistryLogin]) -> String {
    let error = error.to_ascii_lowercase();
    let refusals = ["unauthorized", "authentication required", "access denied", "denied:", "no basic auth", "invalid username/password"];
    if !refusals.iter().any(|word| error.contains(word)) {
        return String::new();
    }
    let named: Vec<&String> = registries.iter().filter(|host| error.contains(host.as_str())).collect();
    // Not every engine says whose word it was.
    let hosts = if named.is_empty() { registries.iter().collect() } else { named };
    let hints = hosts.into_iter().map(|host| {
        let login = logins.iter().find(|login| server(&login.server) == host.as_str());
        let why = match login {
            Some(login) => format!("{host} refuses the login of {}", login.username),
            None => format!("this Rack has no login for {host}"),
        };
        let user = login.map_or("USER", |login| &login.username);
        format!("; {why}: `convox registries add {host} {user} --password-stdin`")
    });
    hints.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_gets_the_arguments_that_it_declares() {
        let build = Build { args: vec!["COMMIT".into(), "MODE=fast".into(), "MISSING".into()], ..Build::default() };
        let env = [("COMMIT", "abc"), ("SECRET", "s"), ("NODE_ENV", "production"), ("VERSION", "1")];
        let request = BuildRequest {
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            build_args: vec!["VERSION=2".into(), "MODE=slow".into()],
            ..BuildRequest::default()
        };
        let found = arguments("FROM x\nARG NODE_ENV=development\n  arg VERSION\nARG OTHER\nENV SECRET=1", &build, &request);
        let expected = [("COMMIT", "abc"), ("MODE", "slow"), ("NODE_ENV", "production"), ("VERSION", "2")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn an_engine_gets_a_path_that_leads_down_or_none() {
        assert_eq!(plain_path("./docker//Dockerfile.web").unwrap(), "docker/Dockerfile.web");
        for bad in [
            "",
            ".",
            "../Dockerfile",
            "a/../../x",
            "/etc/shadow",
            "[\"/etc/shadow\"]",
            "./[\"../../../../etc/shadow\"]",
            "a\nb",
            "../../../../../dev/zero",
        ] {
            assert!(plain_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_build_for_development_stops_at_the_stage_of_that_name() {
        let any = Build::default();
        let staged = "FROM x as Development\nRUN a\nFROM y\n";
        assert_eq!(target(staged, &any, true), "development");
        assert_eq!(target(staged, &any, false), "");
        assert_eq!(target("FROM development\n# FROM x AS development\n", &any, true), "");
        assert_eq!(target(staged, &Build { target: "prod".into(), ..any }, true), "prod");
    }

    #[test]
    fn a_refusal_of_a_registry_says_which_login_is_missing() {
        let text = "FROM --platform=x ghcr.io/team/base:1 AS build\nFROM build\nfrom nginx\nFROM $X\nFROM scratch\nCOPY --from=build / /\nCOPY --from=reg.example.com:5000/a / /";
        let found = registries(text);
        assert_eq!(found, ["docker.io", "ghcr.io", "reg.example.com:5000"].map(str::to_owned).into());
        let login = RegistryLogin {
            server: "https://ghcr.io/".into(),
            username: "ci".into(),
            password: Arc::new(Secret::new("hidden".to_owned())),
        };
        let of = |error: &str, logins: &[RegistryLogin]| login_hint(error, &found, logins);
        assert_eq!(
            of("reading manifest 1 in ghcr.io/team/base: unauthorized: authentication required", &[]),
            "; this Rack has no login for ghcr.io: `convox registries add ghcr.io USER --password-stdin`"
        );
        assert_eq!(
            of("ghcr.io: unauthorized", &[login]),
            "; ghcr.io refuses the login of ci: `convox registries add ghcr.io ci --password-stdin`"
        );
        assert_eq!(of("exit status 1", &[]), "");
        assert_eq!(of("pull access denied", &[]).matches("convox registries add").count(), 3);
    }

    #[tokio::test]
    async fn what_a_build_says_beyond_its_cap_is_counted_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let logs = crate::logs::LogStore::open(dir.path(), crate::logs::LogLimits::default()).unwrap();
        let log = Log { logs: &logs, app: "app", stream: "build/B1".to_owned() };
        let line = "x".repeat(65_535);
        let flood = futures_util::stream::iter((0..300).map(|_| Ok(format!("{line}\n"))));
        tell(flood, &log).await.unwrap();
        let kept: Vec<String> =
            logs.query(&crate::builds::log_of("app"), crate::logs::LogQuery::default()).map(|line| line.message).collect().await;
        assert_eq!(kept.len(), 256 + 1);
        assert_eq!(kept.last().unwrap(), "NOTICE: 44 further lines of this build were not kept");
    }

    #[test]
    fn a_name_without_a_registry_is_docker_hubs() {
        let of = |image: &str| full_name(image).0;
        assert_eq!(of("nginx"), "docker.io/library/nginx");
        assert_eq!(of("grafana/loki:3"), "docker.io/grafana/loki:3");
        assert_eq!(of("ghcr.io/a/b:1"), "ghcr.io/a/b:1");
        assert_eq!(of("localhost:5000/x"), "localhost:5000/x");
        assert_eq!(server("https://index.docker.io/v1/"), "docker.io");
        assert_eq!(server("ghcr.io"), "ghcr.io");
    }
}
