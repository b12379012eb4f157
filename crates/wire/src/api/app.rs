//! Apps, and what v3 tells beside them: configs, balancers, manifest services.

use std::fmt;

use super::{AppBudget, Hidden, Parameters, shapes};

shapes! {
    /// An app. `status`: creating, running, updating, rollback, deleting, failed, new, unknown. Of its parameters only the names are in `Debug`.
    pub struct App {
        /// `2`, or `1` for classic apps.
        #[serde(skip_serializing_if = "String::is_empty")]
        generation: String = "generation",
        /// Whether it may not be deleted.
        locked: bool = "locked",
        /// Its name in the Rack.
        name: String = "name",
        /// The active release; empty before the first promote.
        release: String = "release",
        /// Host name of its router; may be empty.
        router: String = "router",
        /// See above.
        status: String = "status",
        /// v3: its budget.
        #[serde(skip_serializing_if = "Option::is_none")]
        budget: Option<AppBudget> = "budget",
        /// Settings of the app in the Rack.
        parameters: Parameters = "parameters",
    }

    /// v3: a file of configuration; `value` is base64.
    pub struct AppConfig {
        /// Its name.
        name: String = "name",
        /// Its content as text (it is set as base64); hidden in `Debug`.
        value: String = "value",
    }

    /// v3: a custom balancer.
    #[derive(Debug)]
    pub struct Balancer {
        /// Its name.
        name: String = "name",
        /// Host name.
        endpoint: String = "endpoint",
        /// What it listens on.
        ports: Vec<BalancerPort> = "ports",
        /// The service behind it.
        service: String = "service",
    }

    /// v3: a port of a [`Balancer`].
    #[derive(Debug)]
    pub struct BalancerPort {
        /// `TCP` or `UDP`.
        protocol: String = "protocol",
        /// Outside.
        source: i64 = "source",
        /// Inside.
        target: i64 = "target",
    }

    /// v3: a service as the active manifest has it.
    #[derive(Debug)]
    pub struct ManifestService {
        /// Its name.
        name: String = "name",
        /// Names of variables, `NAME` or `NAME=default`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        environment: Vec<String> = "environment",
        /// Its limits.
        #[serde(skip_serializing_if = "Option::is_none")]
        scale: Option<ManifestServiceScale> = "scale",
    }

    /// v3: the limits of a [`ManifestService`].
    #[derive(Debug)]
    pub struct ManifestServiceScale {
        /// Fewest processes.
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<i64> = "min",
        /// Most processes.
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<i64> = "max",
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("name", &self.name)
            .field("status", &self.status)
            .field("release", &self.release)
            .field("locked", &self.locked)
            .field("parameters", &self.parameters.keys())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AppConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppConfig").field("name", &self.name).field("value", &Hidden::text(&self.value)).finish()
    }
}
