//! Databases, queues and the like, of an app or of the Rack.

use std::fmt;

use super::{App, Hidden, Parameters, shapes};

shapes! {
    /// A resource. Its URL mostly holds a password: hidden in `Debug`, as are the values of its parameters.
    pub struct Resource {
        /// Its name.
        name: String = "name",
        /// Its settings.
        #[serde(skip_serializing_if = "Parameters::is_empty")]
        parameters: Parameters = "parameters",
        /// Its state.
        #[serde(skip_serializing_if = "String::is_empty")]
        status: String = "status",
        /// `postgres`, `redis`, ...
        r#type: String = "type",
        /// How apps reach it, with credentials.
        url: String = "url",
        /// Apps linked to it.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        apps: Vec<App> = "apps",
    }

    /// A kind of resource that the Rack can make.
    #[derive(Debug)]
    pub struct ResourceType {
        /// Its name.
        name: String = "name",
        /// What can be set.
        parameters: Vec<ResourceParameter> = "parameters",
    }

    /// A setting of a [`ResourceType`].
    #[derive(Debug)]
    pub struct ResourceParameter {
        /// Used when nothing is given.
        default: String = "default",
        /// For people.
        description: String = "description",
        /// Its name.
        name: String = "name",
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("name", &self.name)
            .field("type", &self.r#type)
            .field("status", &self.status)
            .field("url", &Hidden::text(&self.url))
            .field("parameters", &self.parameters.keys())
            .finish_non_exhaustive()
    }
}
