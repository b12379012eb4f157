//! What a Console answers itself: who one is, Racks, runtimes, workflows, machines (protocol 5).

use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Hidden, Parameters, shapes};

shapes! {
    /// The answer to `GET /auth`.
    #[derive(Debug)]
    pub struct Identity {
        /// Of the user; empty from a Rack.
        #[serde(skip_serializing_if = "String::is_empty")]
        id: String = "id",
        /// Our Console: the user's e-mail address.
        #[serde(skip_serializing_if = "String::is_empty")]
        email: String = "email",
        /// Our Console: what the key is, when it is less than the user: `deploy key ci: acme/main; ci-legacy`.
        #[serde(skip_serializing_if = "String::is_empty")]
        key: String = "key",
    }

    /// The answer to the last step of a session; hidden in `Debug`.
    pub struct SessionId {
        /// Sent as the header `Session` from then on.
        id: String = "id",
    }

    /// A Rack in `GET /racks`.
    #[derive(Debug)]
    pub struct RackEntry {
        /// Without the organization.
        name: String = "name",
        /// Whose it is. Some answers give its name as a text instead of an object; both are read.
        #[serde(skip_serializing_if = "Option::is_none")]
        organization: Option<Organization> = "organization",
        /// `aws`, `local`, ...; may be empty.
        provider: String = "provider",
        /// running, updating, unreachable, unknown, ...
        status: String = "status",
    }

    /// A Rack in `GET /racks/{org}/{name}`. Values of parameters and the state are hidden in `Debug`.
    pub struct RackDetail {
        /// Without the organization.
        name: String = "name",
        /// Whose it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        organization: Option<Organization> = "organization",
        /// `aws`, `local`, ...; may be empty.
        provider: String = "provider",
        /// As in [`RackEntry`].
        status: String = "status",
        /// Whether nothing depends on it, so that it may leave this Console.
        deletable: bool = "deletable",
        /// Settings, when this Console keeps them.
        parameters: Option<Parameters> = "parameters",
        /// Base64 of the installer's state; none marks a Rack that is updated through its own API.
        state: Option<String> = "state",
        /// Its version, when this Console knows it.
        version: String = "version",
    }

    /// The answer to `GET /racks/{org}/{name}/host`.
    #[derive(Debug)]
    pub struct RackHost {
        /// Where the Rack answers.
        host: String = "host",
    }

    /// A cloud account in which Racks can be installed.
    #[derive(Debug)]
    pub struct Runtime {
        /// Its id.
        id: String = "id",
        /// For people.
        title: String = "title",
    }

    /// Workflows of an organization.
    #[derive(Debug)]
    pub struct Workflows {
        /// The organization's id.
        organization_id: String = "oid",
        /// All of them.
        workflows: Vec<Workflow> = "workflows",
    }

    /// A workflow.
    #[derive(Debug)]
    pub struct Workflow {
        /// Its id.
        id: String = "id",
        /// For people.
        name: String = "name",
        /// What sets it off.
        kind: String = "kind",
    }

    /// The answer to a workflow's run.
    #[derive(Debug)]
    pub struct WorkflowRun {
        /// The typing error of the key is on the wire.
        job_id: String = "jod_id",
    }

    /// v3 cloud: a machine.
    #[derive(Debug)]
    pub struct Machine {
        /// Its id.
        #[serde(alias = "id", alias = "Id")]
        id: String = "ID",
        /// For people.
        #[serde(alias = "name")]
        name: String = "Name",
        /// Has the key `name`.
        organization_info: Parameters = "organization_info",
        /// Has the keys `vcpu` and `mem`.
        #[serde(alias = "dimensions")]
        dimensions: Parameters = "Dimensions",
        /// For people.
        #[serde(alias = "age")]
        age: String = "Age",
        /// RFC 3339.
        created_at: String = "created_at_rfc3339",
    }
}

/// An organization. Most answers give an object, some only its name as a text; both are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Organization {
    /// Its id; empty where only the name travels.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The part of a Rack's name before the slash.
    pub name: String,
}

impl<'de> Deserialize<'de> for Organization {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Organization;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an organization or its name")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Organization, E> {
                Ok(Organization { id: String::new(), name: name.to_owned() })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Organization, A::Error> {
                let mut organization = Organization::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "id" => organization.id = map.next_value::<Option<String>>()?.unwrap_or_default(),
                        "name" => organization.name = map.next_value::<Option<String>>()?.unwrap_or_default(),
                        _ => drop(map.next_value::<de::IgnoredAny>()?),
                    }
                }
                Ok(organization)
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl RackEntry {
    /// `org/name`, or the bare name when no organization is told.
    pub fn path(&self) -> String {
        match &self.organization {
            Some(organization) if !organization.name.is_empty() => format!("{}/{}", organization.name, self.name),
            _ => self.name.clone(),
        }
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionId").field("id", &Hidden::text(&self.id)).finish()
    }
}

impl fmt::Debug for RackDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RackDetail")
            .field("name", &self.name)
            .field("organization", &self.organization)
            .field("provider", &self.provider)
            .field("status", &self.status)
            .field("version", &self.version)
            .field("state", &Hidden::if_any(self.state.is_some()))
            .finish_non_exhaustive()
    }
}
