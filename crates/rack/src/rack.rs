//! A running Rack: its rows, its files, its runtime, and what is done with them behind the API.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use convox_db::DbError;
use convox_proxy::tls_server;
use convox_seal::Secret;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::acme::Acme;
use crate::auth::Door;
use crate::builds::{self, Builder};
use crate::files;
use crate::instances::Instances;
use crate::logs::LogStore;
use crate::manifest::{Manifest, ManifestError};
use crate::meters::Meters;
use crate::parameters;
use crate::readiness::Looked;
use crate::resources;
use crate::runtime::Runtime;
use crate::scheduler::{DesiredApp, PromoteOptions, Scheduler};
use crate::state::{CertificateRow, Issuer, ReleaseRow, State, now_ms};

/// The log of the Rack itself.
pub(crate) const SYSTEM_LOG: &str = "_rack";

/// What the wire calls the version. Clients compare it as text; fourteen digits sort above every classic Rack.
pub(crate) const VERSION: &str = "20261123000000";

/// Everything that handlers share.
pub(crate) struct Rack {
    pub(crate) name: String,
    /// `HOST:PORT` under which it was bound.
    pub(crate) host: String,
    /// `HOST[:PORT]` by which callers reach it, if that is another.
    pub(crate) domain: Option<String>,
    pub(crate) state: State,
    pub(crate) logs: LogStore,
    pub(crate) builder: Builder,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) door: Door,
    /// The certificate authority that it asks, if it asks one.
    pub(crate) acme: Option<Acme>,
    /// Hosts that it can log in to.
    pub(crate) instances: Instances,
    /// Whether callers may have a shell on the Rack's own machine, outside of containers.
    pub(crate) allows_machine_shell: bool,
    /// The program that this is.
    pub(crate) program: PathBuf,
    /// Directory of object files.
    pub(crate) objects: PathBuf,
    /// Directory of resources' data.
    pub(crate) resources: PathBuf,
    /// When it was started, milliseconds since 1970.
    pub(crate) started_ms: i64,
    pub(crate) runtime: Arc<dyn Runtime>,
    /// Held from the reading of the certificates to the telling of the router: who read last tells last.
    pub(crate) serving: tokio::sync::Mutex<()>,
    /// Held from the writing of parameters to their taking effect: what was written last holds.
    pub(crate) setting: tokio::sync::Mutex<()>,
    /// Open WebSockets.
    pub(crate) streams: TaskTracker,
    /// Cancelled when the Rack is asked to end.
    pub(crate) ending: CancellationToken,
    pub(crate) looked: Looked,
    pub(crate) meters: Meters,
    /// Networks from which it is reached; empty is from everywhere.
    pub(crate) allowed: ArcSwap<Vec<IpNet>>,
    /// How long logs are kept where no parameter says otherwise.
    pub(crate) log_age: Duration,
    /// Builds of each app that are kept.
    pub(crate) keep_builds: i64,
}

/// A certificate that was chosen for a service.
pub(crate) struct Choice {
    pub(crate) service: String,
    /// Names under which the service is served.
    pub(crate) hosts: Vec<String>,
    pub(crate) certificate: String,
}
/// How long uploads under `tmp/` are kept: builds have links of their own.
const UPLOADS: i64 = 24 * 60 * 60 * 1000;

/// Why a release cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseError {
    #[error(transparent)]
    Database(#[from] DbError),
    #[error("the manifest of release {release}: {error}")]
    Manifest { release: String, error: ManifestError },
}

/// Why a certificate is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("{0}")]
    Unusable(String),
    #[error(transparent)]
    Database(#[from] DbError),
}

/// What the scheduler needs to run a release.
pub(crate) async fn desired(state: &State, builder: &Builder, release: &ReleaseRow) -> Result<DesiredApp, ReleaseError> {
    let env: BTreeMap<String, String> = convox_wire::env::parse(&release.env);
    let manifest =
        Manifest::parse_with(&release.manifest, &env).map_err(|error| ReleaseError::Manifest { release: release.id.clone(), error })?;
    let build = state.build(&release.app, &release.build).await?.unwrap_or_default();
    let mut passwords = BTreeMap::new();
    for (resource, _) in resources::provided(&manifest, &env) {
        passwords.insert(resource.name.clone(), state.resource_password(&release.app, &resource.name).await?);
    }
    Ok(DesiredApp {
        app: release.app.clone(),
        release: release.id.clone(),
        build: release.build.clone(),
        build_description: build.description,
        build_git_sha: build.git_sha,
        manifest,
        env,
        dir: builder.source_dir(&release.app, &release.build),
        formation: state.formations(&release.app).await?,
        plain_http: parameters::plain_http(&state.app(&release.app).await?.unwrap_or_default().parameters),
        resources: passwords,
    })
}

impl Rack {
    /// As [`desired`], with this Rack's rows.
    pub(crate) async fn desired(&self, release: &ReleaseRow) -> Result<DesiredApp, ReleaseError> {
        desired(&self.state, &self.builder, release).await
    }

    /// Keeps a certificate, in the place of the one with its id if there is one, and serves it from now on.
    pub(crate) async fn keep_certificate(
        &self,
        id: String,
        chain: String,
        key: Secret,
        issuer: Issuer,
    ) -> Result<CertificateRow, CertificateError> {
        let leaf = tls_server::inspect(chain.as_bytes(), key.expose().as_bytes());
        let leaf = leaf.map_err(|error| CertificateError::Unusable(error.to_string()))?;
        if leaf.names.is_empty() {
            return Err(CertificateError::Unusable("the certificate names no domain: it needs a subject alternative name".to_owned()));
        }
        if leaf.expires.saturating_mul(1000) <= now_ms() {
            return Err(CertificateError::Unusable("the certificate has ended already".to_owned()));
        }
        let row = CertificateRow { id, domains: leaf.names, chain, key, issuer, expires_ms: leaf.expires.saturating_mul(1000) };
        self.state.put_certificate(&row).await?;
        self.serve_certificates().await?;
        Ok(row)
    }

    /// Has the router serve the certificates that are kept: of those for the same name the newest that has not ended, unless another one was chosen for
    /// its service.
    pub(crate) async fn serve_certificates(&self) -> Result<(), DbError> {
        let _one_at_a_time = self.serving.lock().await;
        let mut certificates = self.state.certificates().await?;
        // The last one for a name is served.
        certificates.sort_by_key(|row| row.expires_ms > now_ms());
        let mut chosen = Vec::new();
        for choice in self.chosen_certificates(None).await? {
            let Some(row) = certificates.iter().find(|row| row.id == choice.certificate) else { continue };
            let domains: Vec<String> = choice.hosts.into_iter().filter(|host| row.covers(host)).collect();
            chosen.push((domains, row.chain.clone(), Secret::new(row.key.expose().to_owned())));
        }
        let by_name = certificates.into_iter().map(|row| (row.domains, row.chain, row.key));
        self.scheduler.serve_certificates(by_name.chain(chosen));
        Ok(())
    }

    /// The certificates that were chosen for services of running apps (or of this one), by `ssl update` or else by `certificate` in convox.yml.
    pub(crate) async fn chosen_certificates(&self, app: Option<&str>) -> Result<Vec<Choice>, DbError> {
        let mut by_hand = self.state.service_certificates().await?;
        let mut choices = Vec::new();
        for (app, service, hosts) in self.scheduler.served(app) {
            let by_hand = by_hand.remove(&(app, service.name.clone()));
            let certificate = by_hand.or(service.certificate).filter(|id| !id.is_empty());
            choices.extend(certificate.map(|certificate| Choice { service: service.name, hosts, certificate }));
        }
        Ok(choices)
    }

    /// Refuses a release that names a certificate which is not there, or not for the names of its service.
    pub(crate) async fn check_certificates(&self, desired: &DesiredApp) -> Result<(), CertificateError> {
        let certificates = self.state.certificates().await?;
        for service in &desired.manifest.services {
            let Some(id) = service.certificate.as_deref().filter(|id| !id.is_empty()) else { continue };
            let place = format!("services.{}.certificate", service.name);
            let row = certificates.iter().find(|row| row.id == id);
            let missing = || CertificateError::Unusable(format!("{place}: certificate not found: {id}; `convox certs` lists them"));
            let row = row.ok_or_else(missing)?;
            if let Some(domain) = service.domains.iter().find(|domain| !row.covers(&domain.to_ascii_lowercase())) {
                let names = row.domains.join(", ");
                let why = format!("{place}: certificate {id} is for {names}, and not for {domain}, a domain of this service");
                return Err(CertificateError::Unusable(why));
            }
        }
        Ok(())
    }

    /// Lets these networks in from now on, and nobody else, here and at the router; none is everybody.
    pub(crate) fn allow(&self, networks: Vec<IpNet>) {
        self.scheduler.set_allowed(&networks);
        self.allowed.store(Arc::new(networks));
    }

    /// Holds to the parameters of an app.
    pub(crate) fn follow(&self, app: &str, parameters: &BTreeMap<String, String>) {
        self.keep_logs(app, parameters::log_age(parameters));
        self.scheduler.set_plain_http(app, parameters::plain_http(parameters));
    }

    /// How long the logs of an app are kept, where it is another time than the Rack's.
    pub(crate) fn keep_logs(&self, app: &str, age: Option<Duration>) {
        self.logs.set_age_of(app, age);
        self.logs.set_age_of(&builds::log_of(app), age);
    }

    /// How many processes of apps run.
    pub(crate) fn running(&self) -> i64 {
        i64::try_from(self.runtime.list().iter().filter(|process| !process.status.is_final()).count()).unwrap_or(i64::MAX)
    }

    /// CPU units and megabytes that the services of running apps ask for.
    pub(crate) fn asked_for(&self) -> (i64, i64) {
        let apps: std::collections::BTreeSet<String> = self.runtime.list().into_iter().map(|process| process.app).collect();
        apps.iter().flat_map(|app| self.scheduler.services(app)).fold((0, 0), |(cpu, memory), service| {
            let count = i64::from(service.count);
            (cpu + count * i64::from(service.cpu), memory + count * i64::from(service.memory))
        })
    }

    /// Carries a promotion out that was already noted, and notes its end.
    pub(crate) fn promote(self: &Arc<Self>, desired: DesiredApp, options: PromoteOptions) {
        let rack = Arc::clone(self);
        tokio::spawn(async move {
            let (app, release) = (desired.app.clone(), desired.release.clone());
            let outcome = rack.scheduler.promote(desired, options).await;
            if let Err(error) = &outcome {
                rack.logs.append(&app, "system/rack", &format!("Promotion of {release} failed: {error}"));
            }
            if let Err(error) = rack.state.end_promote(&app, &release, outcome.is_ok()).await {
                tracing::error!(%app, %release, %error, "the end of a promotion could not be kept");
            }
            // Another release may have chosen others.
            if let Err(error) = rack.serve_certificates().await {
                tracing::error!(%app, %release, %error, "the certificates of a release could not be served");
            }
        });
    }

    /// Removes everything of an app that is marked as deleting.
    pub(crate) fn delete(self: &Arc<Self>, app: String) {
        let rack = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = rack.delete_now(&app).await {
                tracing::error!(%app, %error, "an app could not be deleted; it is tried again when the Rack starts");
            }
        });
    }

    async fn delete_now(&self, app: &str) -> anyhow::Result<()> {
        self.builder.cancel(app).await;
        self.scheduler.remove(app).await?;
        self.runtime.forget_app(app).await?;
        self.builder.remove_app(app).await?;
        for kept in [&self.objects, &self.resources] {
            match tokio::fs::remove_dir_all(kept.join(app)).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        self.keep_logs(app, None);
        self.logs.remove(app)?;
        self.logs.remove(&builds::log_of(app))?;
        // The row last: as long as it is there, the rest is tried again.
        self.state.delete_app(app).await?;
        Ok(())
    }

    /// Gives up builds that are older than what is kept, and old uploads.
    pub(crate) async fn give_up_old(&self) -> anyhow::Result<()> {
        let releases: Vec<String> =
            self.runtime.list().into_iter().filter(|process| !process.status.is_final()).map(|process| process.release).collect();
        for (app, build) in self.state.give_up_builds(self.keep_builds, &releases, now_ms()).await? {
            self.builder.remove(&app, &build).await?;
            if let Some(file) = self.state.delete_object(&app, &builds::source_key(&build)).await? {
                let _ = tokio::fs::remove_file(self.objects.join(&app).join(file)).await;
            }
            tracing::info!(%app, %build, "the files of an old build were deleted");
        }
        for (app, file) in self.state.delete_uploads(now_ms() - UPLOADS).await? {
            let _ = tokio::fs::remove_file(self.objects.join(app).join(file)).await;
        }
        Ok(())
    }

    /// Removes files that no object names: uploads that a crash cut off, and what deleted objects held. To be called before uploads come.
    async fn sweep_objects(&self) -> anyhow::Result<usize> {
        let named = self.state.object_files().await?;
        let objects = self.objects.clone();
        let swept = files::blocking(move || {
            let mut removed = 0;
            let apps = match std::fs::read_dir(&objects) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
                apps => apps?,
            };
            for app in apps {
                let app = app?;
                for file in std::fs::read_dir(app.path())? {
                    let file = file?;
                    let place = (app.file_name().to_string_lossy().into_owned(), file.file_name().to_string_lossy().into_owned());
                    if !named.contains(&place) {
                        std::fs::remove_file(file.path())?;
                        removed += 1;
                    }
                }
            }
            Ok(removed)
        });
        Ok(swept.await?)
    }

    /// Takes up what a crash or restart cut off.
    pub(crate) async fn resume(self: &Arc<Self>) -> anyhow::Result<()> {
        for (app, build) in self.state.fail_cut_builds(now_ms()).await? {
            tracing::warn!(%app, %build, "a build was cut off by the end of the Rack");
            self.builder.remove(&app, &build).await?;
        }
        let left = self.sweep_objects().await?;
        if left > 0 {
            tracing::info!(files = left, "what cut-off uploads left was removed");
        }
        for app in self.state.apps().await? {
            if app.status == "deleting" {
                self.delete(app.name);
            } else if app.status == "updating" {
                self.logs.append(
                    &app.name,
                    "system/rack",
                    &format!("Resuming the promotion of {} after a restart of the Rack", app.promoting),
                );
                let desired = match self.state.release(&app.name, &app.promoting).await? {
                    Some(release) => self.desired(&release).await.map_err(|error| error.to_string()),
                    None => Err("it is not there".to_owned()),
                };
                match desired {
                    Ok(desired) => self.promote(desired, PromoteOptions::default()),
                    Err(error) => {
                        let words = format!("Promotion of {} failed: {error}", app.promoting);
                        self.logs.append(&app.name, "system/rack", &words);
                        self.state.end_promote(&app.name, &app.promoting, false).await?;
                    }
                }
            }
        }
        Ok(())
    }
}
