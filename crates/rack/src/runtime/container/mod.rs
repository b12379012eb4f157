//! The `container` runtime: each process in a container of its own, by Docker or Podman.
//!
//! As with plain processes a shim stands beside each (see [`crate::shim`]): it asks the engine for the container, keeps its
//! output and records how it ended, and outlives the Rack. Everything here is labelled with the Rack's id; nothing
//! without that label is ever touched.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{ExecSpec, ExecStream, Isolation, ProcessSpec, ProcessState, Runtime, RuntimeError};
use crate::logs::LogStore;
use crate::runtime::ProcessRuntime;

pub(crate) mod body;
pub(crate) mod bound;
pub(crate) mod build;
pub(crate) mod collect;
mod engine;
mod exec;
mod raw;
pub(crate) mod shell;
mod spec;
mod volumes;

pub use engine::{Engine, NoEngine};
pub(crate) use engine::{is_missing, reason};
pub(crate) use spec::{ContainerSpec, LABEL_APP, LABEL_BUILD, LABEL_PROCESS, LABEL_RACK};
use spec::{LABEL_PORT, LABEL_RELEASE, LABEL_SERVICE};
pub use spec::{Names, Network};

/// What an administrator allows containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// `privileged: true`, which is root on the machine.
    pub privileged: bool,
    /// Directories of the machine as volumes.
    pub machine_volumes: bool,
}

/// Containers of one engine.
#[derive(Debug)]
pub struct ContainerRuntime {
    shims: ProcessRuntime,
    engine: Engine,
    names: Names,
    network: Network,
    rights: Rights,
}

impl ContainerRuntime {
    /// A runtime that keeps what it knows in `dir`, starts shims from `program`, and containers by `engine` under `names`.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(
        dir: &Path,
        program: &Path,
        logs: LogStore,
        engine: Engine,
        names: Names,
        network: Network,
        rights: Rights,
    ) -> Result<Self, RuntimeError> {
        Ok(Self { shims: ProcessRuntime::new(dir, program, logs)?, engine, names, network, rights })
    }

    /// The network that containers get by default: one of the Rack's own.
    ///
    /// # Errors
    /// The engine refuses to make it.
    pub async fn own_network(engine: &Engine, names: &Names) -> Result<Network, RuntimeError> {
        let made = engine.ensure_network(&names.prefix, &names.rack).await;
        made.map_err(|error| RuntimeError::Io {
            doing: format!("making the network {} (use --container-network host to share the machine's)", names.prefix),
            source: std::io::Error::other(reason(&error)),
        })
    }

    fn container(&self, spec: &ProcessSpec) -> Result<ContainerSpec, RuntimeError> {
        let refused = |reason: String| RuntimeError::Start { id: spec.id.clone(), reason };
        if spec.privileged && !self.rights.privileged {
            let why = "asks for `privileged`, which is root on the machine; start the Rack with --allow-privileged, or remove it";
            return Err(refused(format!("service {} {why}", spec.service)));
        }
        let mut labels = spec.labels.clone();
        // The Rack's own win: by them it finds what is its own.
        labels.retain(|name, _| !name.starts_with("convox."));
        labels.extend([
            (LABEL_RACK.to_owned(), self.names.rack.clone()),
            (LABEL_APP.to_owned(), spec.app.clone()),
            (LABEL_SERVICE.to_owned(), spec.service.clone()),
            (LABEL_RELEASE.to_owned(), spec.release.clone()),
            (LABEL_PROCESS.to_owned(), spec.id.clone()),
        ]);
        if let Some(port) = spec.port {
            labels.insert(LABEL_PORT.to_owned(), port.to_string());
        }
        Ok(ContainerSpec {
            socket: self.engine.socket().to_owned(),
            name: self.names.container(&spec.id),
            image: spec.image.clone().unwrap_or_else(|| self.names.image(&spec.app, &spec.service, &spec.build)),
            labels,
            network: self.network.clone(),
            port: spec.own_port,
            limits: spec.limits,
            mounts: volumes::mounts(&self.names, self.rights, spec).map_err(refused)?,
            privileged: spec.privileged,
            init: spec.init,
            is_text: spec.is_text,
        })
    }
}

impl Runtime for ContainerRuntime {
    fn isolation(&self) -> Isolation {
        match &self.network {
            Network::Host => Isolation::Container { own_network: false, machine: IpAddr::V4(Ipv4Addr::LOCALHOST) },
            Network::Bridge { gateway, .. } => {
                Isolation::Container { own_network: true, machine: gateway.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)) }
            }
        }
    }

    fn start(&self, spec: ProcessSpec) -> BoxFuture<'_, Result<ProcessState, RuntimeError>> {
        if spec.plain {
            return self.shims.start_in(spec, None);
        }
        match self.container(&spec) {
            Ok(container) => self.shims.start_in(spec, Some(container)),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    fn stop<'a>(&'a self, id: &'a str, grace: Option<Duration>) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.shims.stop(id, grace)
    }

    fn get(&self, id: &str) -> Option<ProcessState> {
        self.shims.get(id)
    }

    fn list(&self) -> Vec<ProcessState> {
        self.shims.list()
    }

    fn wait<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ProcessState, RuntimeError>> {
        self.shims.wait(id)
    }

    fn forget<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()> {
        self.shims.forget(id)
    }

    fn exec<'a>(&'a self, id: &'a str, spec: ExecSpec) -> BoxFuture<'a, Result<ExecStream, RuntimeError>> {
        Box::pin(async move {
            match self.shims.container(id)? {
                Some(container) => exec::exec(&self.engine, &container, id, spec, self.shims.ended(id)).await,
                None => self.shims.exec(id, spec).await,
            }
        })
    }

    fn ensure_image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.engine.ensure_image(image))
    }

    fn forget_app<'a>(&'a self, app: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            let removed = collect::volumes(&self.engine, &self.names, app).await;
            removed.map_err(|reason| RuntimeError::Io {
                doing: format!("deleting the volumes of {app}"),
                source: std::io::Error::other(reason),
            })
        })
    }

    fn adopt(&self) -> BoxFuture<'_, Result<Vec<ProcessState>, RuntimeError>> {
        Box::pin(async move {
            let found = self.shims.adopt().await?;
            let known = found.iter().filter(|process| !process.status.is_final()).map(|process| process.id.clone()).collect();
            // What a crash left between the engine and us.
            if let Err(error) = collect::containers(&self.engine, &self.names.rack, &known).await {
                tracing::warn!(%error, "containers that nobody needs could not be looked for");
            }
            Ok(found)
        })
    }
}
