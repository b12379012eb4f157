//! What a container gets beyond what a plain process does, and its names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::engine::{Engine, reason};
use crate::runtime::Limits;

/// Label of everything that a Rack owns; its value is the Rack's id.
pub(crate) const LABEL_RACK: &str = "convox.rack";
pub(crate) const LABEL_APP: &str = "convox.app";
pub(crate) const LABEL_SERVICE: &str = "convox.service";
pub(crate) const LABEL_RELEASE: &str = "convox.release";
pub(crate) const LABEL_BUILD: &str = "convox.build";
pub(crate) const LABEL_PROCESS: &str = "convox.process";
pub(crate) const LABEL_PORT: &str = "convox.port";

/// How containers reach, and are reached by, the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// They share the machine's: a process listens on the port in `PORT`, as plain processes do.
    #[default]
    Host,
    /// They have one of their own: a process listens on the port of the manifest.
    Bridge {
        /// Its name.
        name: String,
        /// The machine's address in it.
        gateway: Option<IpAddr>,
    },
}

/// A directory of the machine, or a volume of the engine, in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// A path of the machine, or the name of a volume.
    pub from: String,
    /// Path in the container.
    pub to: String,
}

/// A container around a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    /// The engine's socket.
    pub socket: PathBuf,
    /// Name of the container.
    pub name: String,
    /// What it is made from.
    pub image: String,
    /// Labels, the Rack's own among them.
    pub labels: BTreeMap<String, String>,
    /// How it is reached.
    pub network: Network,
    /// The port that the process listens on in its own network.
    pub port: Option<u16>,
    /// What it may use.
    pub limits: Limits,
    /// What it sees of the machine's disk.
    pub mounts: Vec<Mount>,
    /// Whether it has the rights of the machine's root.
    pub privileged: bool,
    /// Whether the engine puts a small init before the process.
    pub init: bool,
    /// Whether its command is a text, which is split into words where no shell of the image is to read it.
    #[serde(default)]
    pub is_text: bool,
}

impl ContainerSpec {
    /// Ends it at once and deletes it, if it is there.
    pub(crate) async fn remove(&self) -> Result<(), String> {
        let engine = Engine::connect(&self.socket).await.map_err(|error| error.to_string())?;
        engine.remove(&self.name).await.map_err(|error| reason(&error))
    }
}

/// Names of one Rack's images and containers. Two Racks on one machine never share any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Id of the Rack, as in its label.
    pub rack: String,
    /// As in `convox-main-1a2b3c4d`.
    pub prefix: String,
}

impl Names {
    /// The names of the Rack with this name and id.
    pub fn new(name: &str, id: &str) -> Self {
        // The end of the id: it begins with the time.
        let short: String = id.chars().filter(char::is_ascii_alphanumeric).collect::<Vec<_>>().into_iter().rev().take(8).collect();
        Self { rack: id.to_owned(), prefix: format!("convox-{name}-{}", short.to_ascii_lowercase()) }
    }

    /// Everything before app, service and build in an image's name.
    pub fn repository(&self) -> String {
        format!("localhost/{}/", self.prefix)
    }

    /// The image that a build made for a service.
    pub fn image(&self, app: &str, service: &str, build: &str) -> String {
        format!("{}{app}/{service}:{build}", self.repository())
    }

    /// The container of a process.
    pub fn container(&self, process: &str) -> String {
        format!("{}-{process}", self.prefix)
    }

    /// What the names of an app's volumes begin with.
    pub fn volumes(&self, app: &str) -> String {
        format!("{}.{app}.", self.prefix)
    }

    /// A volume of a service, shared by its processes and kept from release to release.
    pub fn volume(&self, app: &str, service: &str, path: &str) -> String {
        // No app's and no service's name has a dot, so no two of them share a volume.
        let mut name = format!("{}{service}", self.volumes(app));
        for byte in path.bytes() {
            match byte {
                b'/' => name.push('.'),
                byte if byte.is_ascii_alphanumeric() || byte == b'-' => name.push(char::from(byte)),
                other => name.push_str(&format!("_{other:02x}")),
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_engines_take_and_differ_between_racks() {
        let one = Names::new("main", "0198c0de-aaaa-7bbb-8ccc-0123456789AB");
        let other = Names::new("main", "0198c0de-aaaa-7bbb-8ccc-0123456789CD");
        assert_eq!(one.image("shop", "web", "BABC"), "localhost/convox-main-ba987654/shop/web:BABC");
        assert_eq!(one.volume("shop", "web", "/var/lib/x"), "convox-main-ba987654.shop.web.var.lib.x");
        assert_ne!(one.volume("shop", "web", "/a-b"), one.volume("shop", "web", "/a/b"));
        assert_ne!(one.container("p1"), other.container("p1"));
    }
}
