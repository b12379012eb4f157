//! One function per endpoint of a Rack (protocol section 6), no logic. The same calls go through a Console when the client's
//! context names a Rack.

use std::time::Duration;

use base64::Engine as _;
use convox_wire::api::{App, AppConfig, Balancer, Build, Object, Process, Release, Resource, Service, System, SystemJwt, TokenInfo};
use convox_wire::form::Params;
use convox_wire::options::{
    AppCreateOptions, AppUpdateOptions, BuildCreateOptions, BuildImportImageOptions, BuildUpdateOptions, FilesUploadOptions, LogOptions,
    ProcessExecOptions, ProcessListOptions, ProcessRunOptions, ReleaseCreateOptions, ReleasePromoteOptions, ResourceConsoleOptions,
    ServiceUpdateOptions, SystemJwtRotateOptions, SystemUpdateOptions,
};
use http::Method;

use crate::{Body, Call, Client, Error, Reply, Socket};

/// `?limit=N`, where one is given.
fn limited(call: Call, limit: Option<i64>) -> Call {
    match limit {
        Some(limit) => call.query(&Params::new().with("limit", limit.to_string())),
        None => call,
    }
}

impl Client {
    /// `GET /system`
    pub async fn system(&self) -> Result<System, Error> {
        self.value(Call::get(&["system"])?).await
    }

    /// `PUT /system`
    pub async fn system_update(&self, options: &SystemUpdateOptions) -> Result<(), Error> {
        self.done(Call::put(&["system"])?.options(options)?).await
    }

    /// `GET /system/processes`; `all` includes those of apps.
    pub async fn system_processes(&self, all: bool) -> Result<Vec<Process>, Error> {
        let call = Call::get(&["system", "processes"])?;
        self.list(if all { call.query(&Params::new().with("all", "true")) } else { call }).await
    }

    /// `GET /system/releases`
    pub async fn system_releases(&self) -> Result<Vec<Release>, Error> {
        self.list(Call::get(&["system", "releases"])?).await
    }

    /// `WS /system/logs`
    pub async fn system_logs(&self, options: &LogOptions) -> Result<Socket, Error> {
        self.socket(Call::get(&["system", "logs"])?.options(options)?).await
    }

    /// `POST /system/jwt/token`: a token of `role` for so many hours.
    pub async fn access_token(&self, role: &str, hours: u32) -> Result<String, Error> {
        let form = Params::new().with("durationInHour", hours.to_string()).with("role", role);
        let jwt: SystemJwt = self.value(Call::post(&["system", "jwt", "token"])?.form(&form)).await?;
        Ok(jwt.token)
    }

    /// `PUT /system/jwt/rotate`: every token dies; with `overlap` (our Racks), when that is over.
    pub async fn access_key_rotate(&self, overlap: Option<Duration>) -> Result<(), Error> {
        let call = Call::put(&["system", "jwt", "rotate"])?;
        // Exactly what the originals send, where nothing else was asked for.
        self.done(if overlap.is_some() { call.options(&SystemJwtRotateOptions { overlap })? } else { call }).await
    }

    /// Ours: `GET /system/jwt/tokens`
    pub async fn access_tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        self.list(Call::get(&["system", "jwt", "tokens"])?).await
    }

    /// Ours: `DELETE /system/jwt/tokens/{id}`, or all of them.
    pub async fn access_revoke(&self, id: Option<&str>) -> Result<(), Error> {
        let path: Vec<&str> = ["system", "jwt", "tokens"].into_iter().chain(id).collect();
        self.done(Call::delete(&path)?).await
    }

    /// `GET /apps`
    pub async fn apps(&self) -> Result<Vec<App>, Error> {
        self.list(Call::get(&["apps"])?).await
    }

    /// `GET /apps/{app}`
    pub async fn app(&self, app: &str) -> Result<App, Error> {
        self.value(Call::get(&["apps", app])?).await
    }

    /// `POST /apps`
    pub async fn app_create(&self, app: &str, options: &AppCreateOptions) -> Result<App, Error> {
        let call = Call::post(&["apps"])?.options(options)?;
        self.value(call.form_value("name", app)).await
    }

    /// `DELETE /apps/{app}`
    pub async fn app_delete(&self, app: &str) -> Result<(), Error> {
        self.done(Call::delete(&["apps", app])?).await
    }

    /// `PUT /apps/{app}`
    pub async fn app_update(&self, app: &str, options: &AppUpdateOptions) -> Result<(), Error> {
        self.done(Call::put(&["apps", app])?.options(options)?).await
    }

    /// `POST /apps/{app}/cancel`
    pub async fn app_cancel(&self, app: &str) -> Result<(), Error> {
        self.done(Call::post(&["apps", app, "cancel"])?).await
    }

    /// `WS /apps/{app}/logs`
    pub async fn app_logs(&self, app: &str, options: &LogOptions) -> Result<Socket, Error> {
        self.socket(Call::get(&["apps", app, "logs"])?.options(options)?).await
    }

    /// v3: `WS /apps/{app}/services/{service}/logs`
    pub async fn service_logs(&self, app: &str, service: &str, options: &LogOptions) -> Result<Socket, Error> {
        self.socket(Call::get(&["apps", app, "services", service, "logs"])?.options(options)?).await
    }

    /// `GET /apps/{app}/builds`, newest first.
    pub async fn builds(&self, app: &str, limit: Option<i64>) -> Result<Vec<Build>, Error> {
        self.list(limited(Call::get(&["apps", app, "builds"])?, limit)).await
    }

    /// `GET /apps/{app}/builds/{id}`
    pub async fn build(&self, app: &str, build: &str) -> Result<Build, Error> {
        self.value(Call::get(&["apps", app, "builds", build])?).await
    }

    /// `POST /apps/{app}/builds` from an uploaded source.
    pub async fn build_create(&self, app: &str, url: &str, options: &BuildCreateOptions) -> Result<Build, Error> {
        let call = Call::post(&["apps", app, "builds"])?.options(options)?;
        self.value(call.form_value("url", url)).await
    }

    /// v3: `POST /apps/{app}/builds/{id}/image`: the Rack fetches `image` for a build that was made for it.
    pub async fn build_import_image(&self, app: &str, build: &str, image: &str, options: &BuildImportImageOptions) -> Result<(), Error> {
        let call = Call::post(&["apps", app, "builds", build, "image"])?.options(options)?;
        self.done(call.form_value("image", image)).await
    }

    /// `PUT /apps/{app}/builds/{id}`
    pub async fn build_update(&self, app: &str, build: &str, options: &BuildUpdateOptions) -> Result<Build, Error> {
        self.value(Call::put(&["apps", app, "builds", build])?.options(options)?).await
    }

    /// `WS /apps/{app}/builds/{id}/logs`
    pub async fn build_logs(&self, app: &str, build: &str) -> Result<Socket, Error> {
        self.socket(Call::get(&["apps", app, "builds", build, "logs"])?).await
    }

    /// `GET /apps/{app}/builds/{id}.tgz`: the archive, as it comes.
    pub async fn build_export(&self, app: &str, build: &str) -> Result<Reply, Error> {
        self.send(Call::get(&["apps", app, "builds", &format!("{build}.tgz")])?).await
    }

    /// `POST /apps/{app}/builds/import`
    pub async fn build_import(&self, app: &str, archive: Body) -> Result<Build, Error> {
        self.value(Call::post(&["apps", app, "builds", "import"])?.body(archive)).await
    }

    /// `POST /apps/{app}/objects/{key}`; every piece of the key is one segment.
    pub async fn object_store(&self, app: &str, key: &[&str], content: Body) -> Result<Object, Error> {
        let path: Vec<&str> = ["apps", app, "objects"].into_iter().chain(key.iter().copied()).collect();
        self.value(Call::post(&path)?.body(content)).await
    }

    /// `GET /apps/{app}/processes`
    pub async fn processes(&self, app: &str, options: &ProcessListOptions) -> Result<Vec<Process>, Error> {
        self.list(Call::get(&["apps", app, "processes"])?.options(options)?).await
    }

    /// `GET /apps/{app}/processes/{id}`
    pub async fn process(&self, app: &str, process: &str) -> Result<Process, Error> {
        self.value(Call::get(&["apps", app, "processes", process])?).await
    }

    /// `POST /apps/{app}/services/{service}/processes`
    pub async fn process_run(&self, app: &str, service: &str, options: &ProcessRunOptions) -> Result<Process, Error> {
        self.value(Call::post(&["apps", app, "services", service, "processes"])?.options(options)?).await
    }

    /// `WS /apps/{app}/processes/{id}/exec`
    pub async fn process_exec(&self, app: &str, process: &str, command: &str, options: &ProcessExecOptions) -> Result<Socket, Error> {
        let call = Call::get(&["apps", app, "processes", process, "exec"])?;
        self.socket(call.header("Command", command)?.options(options)?).await
    }

    /// `DELETE /apps/{app}/processes/{id}`
    pub async fn process_stop(&self, app: &str, process: &str) -> Result<(), Error> {
        self.done(Call::delete(&["apps", app, "processes", process])?).await
    }

    /// `GET /apps/{app}/processes/{id}/files`: a tar of one file or directory.
    pub async fn files_download(&self, app: &str, process: &str, file: &str) -> Result<Reply, Error> {
        let call = Call::get(&["apps", app, "processes", process, "files"])?;
        self.send(call.query(&Params::new().with("file", file))).await
    }

    /// `POST /apps/{app}/processes/{id}/files`: a tar that is unpacked at `/`.
    pub async fn files_upload(&self, app: &str, process: &str, archive: Body, options: &FilesUploadOptions) -> Result<(), Error> {
        self.done(Call::post(&["apps", app, "processes", process, "files"])?.options(options)?.body(archive)).await
    }

    /// v3: `GET /apps/{app}/configs`: names only.
    pub async fn app_configs(&self, app: &str) -> Result<Vec<AppConfig>, Error> {
        self.list(Call::get(&["apps", app, "configs"])?).await
    }

    /// v3: `GET /apps/{app}/configs/{name}`
    pub async fn app_config(&self, app: &str, name: &str) -> Result<AppConfig, Error> {
        self.value(Call::get(&["apps", app, "configs", name])?).await
    }

    /// v3: `PUT /apps/{app}/configs/{name}`; `value` travels as base64.
    pub async fn app_config_set(&self, app: &str, name: &str, value: &[u8]) -> Result<(), Error> {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value);
        self.done(Call::put(&["apps", app, "configs", name])?.form(&Params::new().with("value", encoded))).await
    }

    /// `GET /apps/{app}/releases`, newest first.
    pub async fn releases(&self, app: &str, limit: Option<i64>) -> Result<Vec<Release>, Error> {
        self.list(limited(Call::get(&["apps", app, "releases"])?, limit)).await
    }

    /// `GET /apps/{app}/releases/{id}`, with its environment.
    pub async fn release(&self, app: &str, release: &str) -> Result<Release, Error> {
        self.value(Call::get(&["apps", app, "releases", release])?).await
    }

    /// `POST /apps/{app}/releases`
    pub async fn release_create(&self, app: &str, options: &ReleaseCreateOptions) -> Result<Release, Error> {
        self.value(Call::post(&["apps", app, "releases"])?.options(options)?).await
    }

    /// `POST /apps/{app}/releases/{id}/promote`
    pub async fn release_promote(&self, app: &str, release: &str, options: &ReleasePromoteOptions) -> Result<(), Error> {
        self.done(Call::post(&["apps", app, "releases", release, "promote"])?.options(options)?).await
    }

    /// v3: `GET /apps/{app}/balancers`
    pub async fn balancers(&self, app: &str) -> Result<Vec<Balancer>, Error> {
        self.list(Call::get(&["apps", app, "balancers"])?).await
    }

    /// `GET /apps/{app}/services`
    pub async fn services(&self, app: &str) -> Result<Vec<Service>, Error> {
        self.list(Call::get(&["apps", app, "services"])?).await
    }

    /// `PUT /apps/{app}/services/{service}`
    pub async fn service_update(&self, app: &str, service: &str, options: &ServiceUpdateOptions) -> Result<(), Error> {
        self.done(Call::put(&["apps", app, "services", service])?.options(options)?).await
    }

    /// `POST /apps/{app}/services/{service}/restart`
    pub async fn service_restart(&self, app: &str, service: &str) -> Result<(), Error> {
        self.done(Call::post(&["apps", app, "services", service, "restart"])?).await
    }

    /// `GET /apps/{app}/resources`
    pub async fn resources(&self, app: &str) -> Result<Vec<Resource>, Error> {
        self.list(Call::get(&["apps", app, "resources"])?).await
    }

    /// `GET /apps/{app}/resources/{name}`
    pub async fn resource(&self, app: &str, resource: &str) -> Result<Resource, Error> {
        self.value(Call::get(&["apps", app, "resources", resource])?).await
    }

    /// v3: `GET /apps/{app}/resources/{name}/data`: its content, as it comes.
    pub async fn resource_export(&self, app: &str, resource: &str) -> Result<Reply, Error> {
        self.send(Call::get(&["apps", app, "resources", resource, "data"])?).await
    }

    /// v3: `PUT /apps/{app}/resources/{name}/data`
    pub async fn resource_import(&self, app: &str, resource: &str, data: Body) -> Result<(), Error> {
        self.done(Call::put(&["apps", app, "resources", resource, "data"])?.body(data)).await
    }

    /// v3: `WS /apps/{app}/resources/{name}/console`; no exit code comes.
    pub async fn resource_console(&self, app: &str, resource: &str, options: &ResourceConsoleOptions) -> Result<Socket, Error> {
        self.socket(Call::get(&["apps", app, "resources", resource, "console"])?.options(options)?).await
    }

    /// `GET` of any path, as JSON. The path is taken as it is typed, with its query.
    pub async fn raw(&self, path: &str) -> Result<serde_json::Value, Error> {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        self.value(Call::raw(Method::GET, path)).await
    }

    /// A list; Go servers send `null` for an empty one.
    pub(crate) async fn list<T: serde::de::DeserializeOwned>(&self, call: Call) -> Result<Vec<T>, Error> {
        Ok(self.value::<Option<Vec<T>>>(call).await?.unwrap_or_default())
    }
}
