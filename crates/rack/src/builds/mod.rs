//! From an uploaded source archive to what processes run from: images where there is a container engine, else a checked
//! directory.
//!
//! The process runtime runs commands from the source: no Dockerfile is built. What is in an
//! archive is hostile; nothing in it may write outside its own directory or fill the disk.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::files;
use crate::logs::LogStore;
use crate::manifest::Manifest;
use crate::resources;
use crate::runtime::Isolation;
use crate::scheduler;

pub(crate) mod context;
pub(crate) mod export;
mod images;
mod loading;
mod places;
mod running;
mod tree;
mod unpack;

pub(crate) use images::registry_of;
pub use images::{ImageBounds, Images, RegistryLogin, StepMemory};
use running::Running;

/// The log of an app's builds: beside that of the app, so that neither pushes the other out. No app's name has an underscore.
pub(crate) fn log_of(app: &str) -> String {
    format!("{app}_builds")
}

/// The object that holds the source of a build.
pub(crate) fn source_key(build: &str) -> String {
    format!("build/{build}/source.tgz")
}

/// What to build.
#[derive(Clone, Default)]
pub struct BuildRequest {
    /// Id of the build.
    pub id: String,
    /// Name of the app.
    pub app: String,
    /// The uploaded gzip tar on disk.
    pub archive: PathBuf,
    /// The environment of the newest release: replaces `${NAME}` in the manifest. Holds secrets.
    pub env: std::collections::BTreeMap<String, String>,
    /// Name of the manifest in the archive; `convox.yml` if none is given.
    pub manifest: Option<String>,
    /// `NAME=value` for Dockerfiles. May hold secrets.
    pub build_args: Vec<String>,
    /// Memory of each step, where it is another than what the Rack was started with.
    pub memory: StepMemory,
    /// Whether images are built from scratch.
    pub no_cache: bool,
    /// Whether it is for development: up to the stage of that name, where a Dockerfile has one.
    pub development: bool,
    /// Private registries.
    pub registries: Vec<RegistryLogin>,
}

/// Where the images of a build come from that are not made here.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// Every service gets this one, but for those that name another.
    Image(&'a str),
    /// The request's archive holds images of these services.
    Export(&'a BTreeSet<String>),
}

/// What a build made.
#[derive(Clone, Debug)]
pub struct BuildOutput {
    /// The manifest's text.
    pub manifest_text: String,
    /// The checked manifest.
    pub manifest: Manifest,
    /// The read-only source that processes run from.
    pub dir: PathBuf,
}

/// Why a build failed: a text for the person who started it. Everything was also logged.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct BuildError {
    /// What was wrong, on what, and what to do next.
    pub reason: String,
}

/// How much an archive may unpack to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildLimits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files and directories.
    pub entries: u64,
}

impl Default for BuildLimits {
    /// 2 GiB, 200,000 entries.
    fn default() -> Self {
        Self { bytes: 2 << 30, entries: 200_000 }
    }
}

/// Makes builds. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Builder {
    dir: PathBuf,
    logs: LogStore,
    limits: BuildLimits,
    images: Option<Images>,
    running: Arc<Running>,
}

impl Builder {
    /// Builds live under `dir`/APP/ID; what happens is logged to stream `build/ID` of the app.
    pub fn new(dir: &Path, logs: LogStore, limits: BuildLimits) -> Self {
        Self { dir: dir.to_owned(), logs, limits, images: None, running: Arc::default() }
    }

    /// The same, making images too.
    #[must_use]
    pub fn with_images(self, images: Images) -> Self {
        Self { images: Some(images), ..self }
    }

    /// Where the source of a finished build lies.
    pub fn source_dir(&self, app: &str, id: &str) -> PathBuf {
        self.dir.join(app).join(id).join("src")
    }

    /// Unpacks and checks, and makes images where there is an engine. Logs every step to `build/ID`. Run it in a task of its own
    /// and record the outcome as the build's status. Leaves nothing behind if it fails.
    pub async fn build(&self, request: BuildRequest) -> Result<BuildOutput, BuildError> {
        let log = Log { logs: &self.logs, app: &request.app, stream: format!("build/{}", request.id) };
        let running = self.running.begin(&request.app, &request.id);
        let outcome = match self.build_now(&request, &log, running.stop()).await {
            // Whatever broke off because of it.
            Err(_) if running.stop().is_cancelled() => Err(BuildError { reason: "it was cancelled".to_owned() }),
            outcome => outcome,
        };
        match &outcome {
            Ok(_) => log.say("Build complete"),
            Err(error) => {
                log.say(&format!("ERROR: {error}"));
                if let Err(error) = self.remove(&request.app, &request.id).await {
                    log.say(&format!("what it left could not be deleted: {error}"));
                }
            }
        }
        outcome
    }

    /// Whether it makes images.
    pub fn has_images(&self) -> bool {
        self.images.is_some()
    }

    /// A build of images that are there already. `text` is the manifest.
    pub async fn import(&self, request: BuildRequest, text: String, origin: Origin<'_>) -> Result<BuildOutput, BuildError> {
        let log = Log { logs: &self.logs, app: &request.app, stream: format!("build/{}", request.id) };
        let running = self.running.begin(&request.app, &request.id);
        let made = async {
            let images =
                self.images.as_ref().ok_or_else(|| BuildError { reason: "this Rack runs plain processes, without images".to_owned() })?;
            let manifest =
                Manifest::parse_new(&text, &request.env).map_err(|error| BuildError { reason: format!("convox.yml: {error}") })?;
            if manifest.services.is_empty() {
                return Err(BuildError { reason: "convox.yml has no services to give the image to".to_owned() });
            }
            let taken = async {
                match origin {
                    Origin::Image(image) => images.take(&request, &manifest, image, &log).await,
                    Origin::Export(services) => {
                        check_services(&manifest, services)?;
                        images.load(&request, &manifest, &log).await
                    }
                }
            };
            tokio::select! {
                taken = taken => taken?,
                () = running.stop().cancelled() => return Err(BuildError { reason: "it was cancelled".to_owned() }),
            }
            Ok(manifest)
        };
        match made.await {
            Ok(manifest) => {
                log.say("Build complete");
                let dir = self.source_dir(&request.app, &request.id);
                Ok(BuildOutput { manifest_text: text, manifest, dir })
            }
            Err(error) => {
                log.say(&format!("ERROR: {error}"));
                if let Err(error) = self.remove(&request.app, &request.id).await {
                    log.say(&format!("what it left could not be deleted: {error}"));
                }
                Err(error)
            }
        }
    }

    /// How many builds run.
    pub fn running(&self) -> usize {
        self.running.count()
    }

    /// Ends all builds of an app that run, and waits until they have ended. Says how many there were.
    pub async fn cancel(&self, app: &str) -> usize {
        self.running.cancel(app).await
    }

    async fn build_now(&self, request: &BuildRequest, log: &Log<'_>, stop: &CancellationToken) -> Result<BuildOutput, BuildError> {
        let (builder, wanted, stopped) = (self.clone(), request.clone(), stop.clone());
        let work = tokio::task::spawn_blocking(move || {
            let log = Log { logs: &builder.logs, app: &wanted.app, stream: format!("build/{}", wanted.id) };
            builder.unpack_and_check(&wanted, &log, &stopped)
        });
        let output = work.await.map_err(|error| BuildError { reason: format!("the build broke off: {error}") })??;
        if let Some(images) = &self.images {
            tokio::select! {
                made = images.make(request, &output.manifest, &output.dir, log) => made?,
                () = stop.cancelled() => return Err(BuildError { reason: "stopped".to_owned() }),
            }
            // The images have what is needed of it, and the archive is kept.
            self.remove_elsewhere(&request.app, Some(&request.id)).await?;
        }
        Ok(output)
    }

    fn isolation(&self) -> Isolation {
        match &self.images {
            Some(_) => Isolation::Container { own_network: true, machine: std::net::Ipv4Addr::LOCALHOST.into() },
            None => Isolation::None,
        }
    }

    fn unpack_and_check(&self, request: &BuildRequest, log: &Log<'_>, stop: &CancellationToken) -> Result<BuildOutput, BuildError> {
        let file = request.manifest.as_deref().filter(|file| !file.is_empty()).unwrap_or("convox.yml");
        self.remove_now(&request.app, Some(&request.id)).map_err(|error| self.failed("clearing", &error))?;
        let build = self.path(&request.app, Some(&request.id))?;
        let unpacking = build.join("unpacking");
        // What is in a source is nobody else's business on this machine.
        DirBuilder::new().recursive(true).mode(0o700).create(&unpacking).map_err(|error| self.failed("creating", &error))?;

        log.say("Unpacking the source");
        let unpacked =
            unpack::unpack(&request.archive, &unpacking, self.limits, stop).map_err(|refused| BuildError { reason: refused.0 })?;
        log.say(&format!("{} files, {} KB", unpacked.files, unpacked.bytes.div_ceil(1024)));

        log.say(&format!("Reading {file}"));
        let manifest_text = read_manifest(&unpacking, file)?;
        let in_file = |error: &dyn std::fmt::Display| BuildError { reason: format!("{file}: {error}") };
        let manifest = Manifest::parse_new(&manifest_text, &request.env).map_err(|error| in_file(&error))?;
        let isolation = self.isolation();
        if !isolation.has_images() {
            log.say("This Rack runs plain processes from the source; it builds no images, and a Dockerfile matters only for its CMD");
            if !request.build_args.is_empty() {
                log.say("NOTICE: build arguments are without effect: this Rack builds no images");
            }
        }
        for service in &manifest.services {
            let dir = scheduler::directory(&unpacking, service);
            if !dir.starts_with(&unpacking) || !dir.is_dir() {
                let path = service.build.as_ref().map_or("", |build| build.path.as_str());
                return Err(in_file(&format!("services.{}.build: there is no directory {path:?} in the source", service.name)));
            }
            let command = scheduler::command(isolation, &unpacking, service).map_err(|reason| in_file(&reason))?;
            if !command.is_empty() {
                log.say(&format!("Service {} runs: {}", service.name, command.words.join(" ")));
            }
        }
        for resource in &manifest.resources {
            if resources::Kind::of(&resource.kind).is_some() {
                continue;
            }
            let variable = resources::url_variable(&resource.name);
            let what = "this Rack does not provide it; run one yourself and set";
            log.say(&format!("NOTICE: resource {} ({}): {what} {variable} with `convox env set`", resource.name, resource.kind));
        }
        if !manifest.unused.is_empty() {
            log.say(&format!("NOTICE: without effect on this Rack: {}", manifest.unused.join(", ")));
        }

        let dir = build.join("src");
        std::fs::rename(&unpacking, &dir).map_err(|error| self.failed("renaming", &error))?;
        tree::make_read_only(&dir).map_err(|error| self.failed("protecting", &error))?;
        Ok(BuildOutput { manifest_text, manifest, dir })
    }

    /// Deletes what is kept of one build. An image that still runs stays until it does not.
    pub async fn remove(&self, app: &str, id: &str) -> Result<(), BuildError> {
        if let Some(images) = &self.images {
            images.remove(app, Some(id)).await?;
        }
        self.remove_elsewhere(app, Some(id)).await
    }

    /// Deletes what is kept of all of an app's builds.
    pub async fn remove_app(&self, app: &str) -> Result<(), BuildError> {
        if let Some(images) = &self.images {
            images.remove(app, None).await?;
        }
        self.remove_elsewhere(app, None).await
    }

    async fn remove_elsewhere(&self, app: &str, id: Option<&str>) -> Result<(), BuildError> {
        let (builder, app, id) = (self.clone(), app.to_owned(), id.map(str::to_owned));
        let work = tokio::task::spawn_blocking(move || {
            builder.remove_now(&app, id.as_deref()).map_err(|error| builder.failed("deleting", &error))
        });
        work.await.map_err(|error| BuildError { reason: format!("the deletion broke off: {error}") })?
    }

    fn remove_now(&self, app: &str, id: Option<&str>) -> std::io::Result<()> {
        tree::remove(&self.path(app, id).map_err(std::io::Error::other)?)
    }

    /// The directory of an app or of one of its builds. Names come from outside.
    fn path(&self, app: &str, id: Option<&str>) -> Result<PathBuf, BuildError> {
        let is_plain = |name: &str| {
            !name.is_empty() && name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        match id {
            Some(id) if is_plain(app) && is_plain(id) => Ok(self.dir.join(app).join(id)),
            None if is_plain(app) => Ok(self.dir.join(app)),
            _ => Err(BuildError { reason: format!("not a name of an app and a build: {app:?}, {id:?}") }),
        }
    }

    fn failed(&self, doing: &str, error: &std::io::Error) -> BuildError {
        BuildError { reason: format!("{doing} the build's directory under {}: {error}", self.dir.display()) }
    }
}

/// The build's log.
struct Log<'a> {
    logs: &'a LogStore,
    app: &'a str,
    stream: String,
}

impl Log<'_> {
    fn say(&self, message: &str) {
        self.logs.append(&log_of(self.app), &self.stream, message);
    }
}

/// Whether an export has an image for every service, and no other.
fn check_services(manifest: &Manifest, images: &BTreeSet<String>) -> Result<(), BuildError> {
    if let Some(service) = manifest.services.iter().find(|service| !images.contains(&service.name)) {
        return Err(BuildError { reason: format!("the export has no image of service {}", service.name) });
    }
    match images.iter().find(|name| manifest.service(name).is_none()) {
        Some(name) => Err(BuildError { reason: format!("the export has an image of service {name}, which its manifest does not have") }),
        None => Ok(()),
    }
}

/// The manifest's text.
fn read_manifest(source: &Path, file: &str) -> Result<String, BuildError> {
    match files::read_below(source, file) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(BuildError { reason: format!("there is no {file} in the source; add one, or name it with --manifest") }),
        Err(reason) => Err(BuildError { reason }),
    }
}

#[cfg(test)]
mod tests;
