//! The Rack itself: settings, machines, capacity, metrics, tokens.

use std::fmt;

use super::{Hidden, Parameters, is_none_at_all, is_zero, shapes};
use crate::time::Time;

shapes! {
    /// A Rack about itself. Parameters may hold secrets: only their names are in `Debug`.
    pub struct System {
        /// Machines.
        count: i64 = "count",
        /// Under which its apps answer.
        domain: String = "domain",
        /// Its short name.
        name: String = "name",
        /// What its installation gave.
        #[serde(skip_serializing_if = "Parameters::is_empty")]
        outputs: Parameters = "outputs",
        /// Its settings.
        #[serde(skip_serializing_if = "Parameters::is_empty")]
        parameters: Parameters = "parameters",
        /// `aws`, `local`, ...
        provider: String = "provider",
        /// Where its API answers; goes into access URLs.
        rack_domain: String = "rack-domain",
        /// v3: its inner router.
        #[serde(skip_serializing_if = "String::is_empty")]
        router_internal: String = "router-internal",
        /// May be empty.
        region: String = "region",
        /// running, updating, ...
        status: String = "status",
        /// Of its machines.
        r#type: String = "type",
        /// Compared as text by the clients: 14 digits, or `3.x`.
        version: String = "version",
    }

    /// A machine of the Rack.
    #[derive(Debug)]
    pub struct Instance {
        /// Whether the Rack's agent runs on it.
        agent: bool = "agent",
        /// Share in use, 0..1.
        cpu: f64 = "cpu",
        /// v3: thousandths of a core.
        #[serde(skip_serializing_if = "is_zero")]
        cpu_capacity: f64 = "cpu-capacity",
        /// v3: thousandths of a core.
        #[serde(skip_serializing_if = "is_zero")]
        cpu_allocatable: f64 = "cpu-allocatable",
        /// v3: cards.
        #[serde(skip_serializing_if = "is_none_at_all")]
        gpu_capacity: i64 = "gpu-capacity",
        /// v3: cards.
        #[serde(skip_serializing_if = "is_none_at_all")]
        gpu_allocatable: i64 = "gpu-allocatable",
        /// Its id.
        id: String = "id",
        /// Share in use, 0..1.
        memory: f64 = "memory",
        /// v3: bytes.
        #[serde(skip_serializing_if = "is_zero")]
        memory_capacity: f64 = "memory-capacity",
        /// v3: bytes.
        #[serde(skip_serializing_if = "is_zero")]
        memory_allocatable: f64 = "memory-allocatable",
        /// Inner address.
        private_ip: String = "private-ip",
        /// How many run on it.
        processes: i64 = "processes",
        /// Outer address; may be empty.
        public_ip: String = "public-ip",
        /// Its state.
        status: String = "status",
        /// When it began.
        started: Time = "started",
    }

    /// What the Rack has, and what its processes ask for. CPU in thousandths of a core, memory in megabytes.
    #[derive(Debug)]
    pub struct Capacity {
        /// All machines.
        cluster_cpu: i64 = "cluster-cpu",
        /// v3: all machines.
        #[serde(skip_serializing_if = "is_none_at_all")]
        cluster_gpu: i64 = "cluster-gpu",
        /// All machines.
        cluster_memory: i64 = "cluster-memory",
        /// v2: one machine.
        instance_cpu: i64 = "instance-cpu",
        /// v2: one machine.
        instance_memory: i64 = "instance-memory",
        /// Processes.
        process_count: i64 = "process-count",
        /// Asked for.
        process_cpu: i64 = "process-cpu",
        /// v3: asked for.
        #[serde(skip_serializing_if = "is_none_at_all")]
        process_gpu: i64 = "process-gpu",
        /// Asked for.
        process_memory: i64 = "process-memory",
        /// v2: most processes of one service with a port.
        process_width: i64 = "process-width",
    }

    /// A measured series.
    #[derive(Debug)]
    pub struct Metric {
        /// What was measured.
        name: String = "name",
        /// Oldest first.
        values: Vec<MetricValue> = "values",
    }

    /// One period of a [`Metric`].
    #[derive(Debug)]
    pub struct MetricValue {
        /// Mean.
        avg: f64 = "avg",
        /// How many samples.
        count: f64 = "count",
        /// Largest.
        max: f64 = "max",
        /// Smallest.
        min: f64 = "min",
        /// v2: percentile.
        #[serde(skip_serializing_if = "is_zero")]
        p90: f64 = "p90",
        /// v2: percentile.
        #[serde(skip_serializing_if = "is_zero")]
        p95: f64 = "p95",
        /// v2: percentile.
        #[serde(skip_serializing_if = "is_zero")]
        p99: f64 = "p99",
        /// Sum.
        sum: f64 = "sum",
        /// Start of the period.
        time: Time = "time",
    }

    /// v3: the metrics of one service.
    #[derive(Debug)]
    pub struct ServiceMetrics {
        /// The service.
        name: String = "name",
        /// Its series.
        metrics: Vec<Metric> = "metrics",
    }

    /// A token that the Rack signed; hidden in `Debug`.
    pub struct SystemJwt {
        /// The token.
        token: String = "token",
    }

    /// Ours: which passwords a Rack accepts.
    #[derive(Debug)]
    pub struct Passwords {
        /// Since when the present one counts.
        current: Time = "current",
        /// Since when another is accepted beside it; zero when none is.
        next: Time = "next",
        /// When the Rack itself ends the present one; zero when it waits to be told.
        ends: Time = "ends",
    }

    /// Ours: a token that the Rack signed, without its text.
    #[derive(Debug)]
    pub struct TokenInfo {
        /// By which it is revoked.
        id: String = "id",
        /// The token that made it; empty for one that the password made.
        parent: String = "parent",
        /// read, write, admin.
        role: String = "role",
        /// Who asked for it.
        made_by: String = "made-by",
        /// When it was signed.
        created: Time = "created",
        /// When it ends.
        expires: Time = "expires",
        /// When it was revoked; zero when it was not.
        revoked: Time = "revoked",
    }

    /// v3: the answer of `InstanceKeyroll`; the key is hidden in `Debug`.
    pub struct KeyPair {
        /// Its name.
        name: String = "name",
        /// PEM.
        private_key: Option<String> = "private-key",
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System")
            .field("name", &self.name)
            .field("provider", &self.provider)
            .field("rack_domain", &self.rack_domain)
            .field("status", &self.status)
            .field("version", &self.version)
            .field("parameters", &self.parameters.keys())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SystemJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemJwt").field("token", &Hidden::text(&self.token)).finish()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("name", &self.name).field("private_key", &Hidden::if_any(self.private_key.is_some())).finish()
    }
}
