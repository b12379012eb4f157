//! The engine behind the socket: Docker or Podman, by the API that both speak.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{Ipam, NetworkCreateRequest};
use bollard::query_parameters::{CreateImageOptionsBuilder, InspectNetworkOptions, RemoveContainerOptionsBuilder};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::TryStreamExt as _;
use tokio::time::timeout;

use super::spec::{LABEL_RACK, Network};

/// Longest wait for the answer to one call, in seconds. A stop answers only when the container is gone.
const CALL: u64 = 600;
/// How long an engine may take to say that it is there.
const HELLO: Duration = Duration::from_secs(10);

/// How long the image of a resource may take to arrive.
const PULL: Duration = Duration::from_mins(5);

/// Where an engine listens if nobody says otherwise, the first that answers wins.
const SOCKETS: &[&str] = &["/var/run/docker.sock", "/run/podman/podman.sock"];

/// A connection to an engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) docker: Docker,
    socket: PathBuf,
    /// As in `Podman Engine 4.3.1`.
    name: String,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("socket", &self.socket).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[error("no container engine answers on {}: {reason}", socket.display())]
pub struct NoEngine {
    socket: PathBuf,
    reason: String,
}

impl Engine {
    /// The engine behind this socket.
    ///
    /// # Errors
    /// Nobody answers there, or not as Docker and Podman do.
    pub async fn connect(socket: &Path) -> Result<Self, NoEngine> {
        let failed = |reason: String| NoEngine { socket: socket.to_owned(), reason };
        let docker =
            Docker::connect_with_unix(&socket.to_string_lossy(), CALL, API_DEFAULT_VERSION).map_err(|error| failed(reason(&error)))?;
        let asked = async {
            // An older engine gets the calls that it knows.
            let docker = docker.negotiate_version().await?;
            let version = docker.version().await?;
            Ok::<_, Error>((docker, version))
        };
        let (docker, version) = match timeout(HELLO, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(failed(reason(&error))),
            Err(_) => return Err(failed(format!("no answer within {} s", HELLO.as_secs()))),
        };
        let component = version.components.unwrap_or_default().into_iter().next().map(|component| component.name);
        let name = format!("{} {}", component.unwrap_or_else(|| "Docker".to_owned()), version.version.unwrap_or_default());
        Ok(Self { docker, socket: socket.to_owned(), name })
    }

    /// The first engine that answers: the one that `DOCKER_HOST` or `CONTAINER_HOST` names, else one in the usual places.
    pub async fn find() -> Option<Self> {
        for socket in candidates() {
            if !socket.exists() {
                continue;
            }
            match Self::connect(&socket).await {
                Ok(engine) => return Some(engine),
                Err(error) => tracing::warn!(%error, "a container socket is not used"),
            }
        }
        None
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the paths of calls that the client library does not make begin with: the version that both speak.
    pub(crate) fn version_path(&self) -> String {
        let version = self.docker.client_version();
        format!("/v{}.{}", version.major_version, version.minor_version)
    }

    /// Name and version, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes sure of the Rack's own network, and says where the machine itself is in it.
    ///
    /// # Errors
    /// The engine refuses to make one.
    pub(crate) async fn ensure_network(&self, name: &str, rack: &str) -> Result<Network, Error> {
        let seen = match self.docker.inspect_network(name, None::<InspectNetworkOptions>).await {
            Err(error) if is_missing(&error) => {
                let labels = HashMap::from([(LABEL_RACK.to_owned(), rack.to_owned())]);
                let request = NetworkCreateRequest {
                    name: name.to_owned(),
                    driver: Some("bridge".to_owned()),
                    labels: Some(labels),
                    ..NetworkCreateRequest::default()
                };
                self.docker.create_network(request).await?;
                self.docker.inspect_network(name, None::<InspectNetworkOptions>).await?
            }
            other => other?,
        };
        let config = seen.ipam.and_then(|Ipam { config, .. }| config).unwrap_or_default();
        let gateway = config.into_iter().filter_map(|config| config.gateway).find_map(|gateway| gateway.parse().ok());
        Ok(Network::Bridge { name: name.to_owned(), gateway })
    }

    /// Makes sure of a public image: the one on this machine, else its registry's.
    pub(crate) async fn ensure_image(&self, image: &str) -> Result<(), String> {
        if self.docker.inspect_image(image).await.is_ok() {
            return Ok(());
        }
        let (name, tag) = match image.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (image, "latest"),
        };
        let options = CreateImageOptionsBuilder::default().from_image(name).tag(tag).build();
        let pull = self.docker.create_image(Some(options), None, None).try_for_each(|_| async { Ok(()) });
        match timeout(PULL, pull).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("could not pull {image}: {}", reason(&error))),
            Err(_) => Err(format!("could not pull {image} within {} s", PULL.as_secs())),
        }
    }

    /// Ends a container at once, if it is there, and deletes it with its anonymous volumes.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker.remove_container(name, Some(options)).await {
            Err(error) if !is_missing(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn candidates() -> Vec<PathBuf> {
    let named = ["DOCKER_HOST", "CONTAINER_HOST"].into_iter().filter_map(|name| std::env::var(name).ok());
    let mut found: Vec<PathBuf> = named.filter_map(|host| host.strip_prefix("unix://").map(PathBuf::from)).collect();
    found.extend(SOCKETS.iter().map(PathBuf::from));
    if let Ok(dir) = std::env::var("XDG_RUNTIME_DIR") {
        found.push(Path::new(&dir).join("docker.sock"));
        found.push(Path::new(&dir).join("podman/podman.sock"));
    }
    found
}

/// Whether an engine says that what was named is not there.
pub(crate) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

/// What an engine said, for people: without the words of the client library.
pub(crate) fn reason(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        Error::RequestTimeoutError => format!("no answer within {CALL} s"),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    }
}
