//! Services: the scaled parts of an app.

use super::{is_false, is_none_at_all, shapes};

shapes! {
    /// A service of an app's active release.
    #[derive(Debug)]
    pub struct Service {
        /// Processes wanted.
        count: i64 = "count",
        /// Thousandths of a core for each process.
        cpu: i64 = "cpu",
        /// Host name; may be empty.
        domain: String = "domain",
        /// v3: graphics cards for each process.
        #[serde(skip_serializing_if = "is_none_at_all")]
        gpu: i64 = "gpu",
        /// v3: whose cards.
        #[serde(skip_serializing_if = "String::is_empty")]
        gpu_vendor: String = "gpu-vendor",
        /// Megabytes for each process.
        memory: i64 = "memory",
        /// Its name in the manifest.
        name: String = "name",
        /// Ports of network balancers.
        nlb: Vec<ServiceNlb> = "nlb",
        /// Ports of its balancer.
        ports: Vec<ServicePort> = "ports",
        /// v3: fewest processes.
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<i64> = "min",
        /// v3: most processes.
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<i64> = "max",
        /// v3: may go down to no process.
        #[serde(skip_serializing_if = "Option::is_none")]
        cold_start: Option<bool> = "cold-start",
        /// v3: how it scales by itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        autoscale: Option<ServiceAutoscale> = "autoscale",
        /// v3: one process on each machine.
        #[serde(skip_serializing_if = "is_false")]
        agent: bool = "agent",
        /// v3: percent, mean of the processes; `None` when nothing was measured, as for all that follow.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu_util: Option<f64> = "gpu-util",
        /// v3: bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu_mem_used: Option<i64> = "gpu-mem-used",
        /// v3: bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu_mem_total: Option<i64> = "gpu-mem-total",
        /// v3: percent.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu_tensor_active: Option<f64> = "gpu-tensor-active",
        /// v3: percent.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu_sm_active: Option<f64> = "gpu-sm-active",
        /// v3: percent.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu_dram_active: Option<f64> = "gpu-dram-active",
        /// v3: percent.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu_fp16_active: Option<f64> = "gpu-fp16-active",
        /// v3: percent.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu_fp32_active: Option<f64> = "gpu-fp32-active",
        /// v3: watts.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu_power_w: Option<f64> = "gpu-power-w",
        /// v3: whether a hand-set count stands against the scaler; `None` where the Rack cannot.
        #[serde(skip_serializing_if = "Option::is_none")]
        scale_override_active: Option<bool> = "scale-override-active",
        /// v3: the same for triggers.
        #[serde(skip_serializing_if = "Option::is_none")]
        triggers_override_active: Option<bool> = "triggers-override-active",
    }

    /// A port of a service's balancer.
    #[derive(Debug)]
    pub struct ServicePort {
        /// Outside.
        balancer: i64 = "balancer",
        /// Certificate of an encrypted port; may be empty.
        certificate: String = "certificate",
        /// Inside.
        container: i64 = "container",
    }

    /// A port of a network balancer.
    #[derive(Debug)]
    pub struct ServiceNlb {
        /// Inside.
        container_port: i64 = "container-port",
        /// Outside.
        port: i64 = "port",
        /// `tcp` or `tls`.
        protocol: String = "protocol",
        /// `public` or `internal`.
        scheme: String = "scheme",
        /// Of a `tls` port; may be empty.
        certificate: String = "certificate",
        /// Spreads over zones.
        #[serde(skip_serializing_if = "Option::is_none")]
        cross_zone: Option<bool> = "cross-zone",
        /// Who may connect; everybody when empty.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        allow_cidr: Vec<String> = "allow-cidr",
        /// Passes the caller's address on.
        #[serde(skip_serializing_if = "Option::is_none")]
        preserve_client_ip: Option<bool> = "preserve-client-ip",
    }

    /// v3: how a service scales by itself.
    #[derive(Debug)]
    pub struct ServiceAutoscale {
        /// Whether it does.
        enabled: bool = "enabled",
        /// Percent.
        #[serde(skip_serializing_if = "Option::is_none")]
        cpu_threshold: Option<i64> = "cpu-threshold",
        /// Percent.
        #[serde(skip_serializing_if = "Option::is_none")]
        mem_threshold: Option<i64> = "mem-threshold",
        /// Percent.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu_threshold: Option<i64> = "gpu-threshold",
        /// Items.
        #[serde(skip_serializing_if = "Option::is_none")]
        queue_threshold: Option<i64> = "queue-threshold",
        /// Of the queue.
        #[serde(skip_serializing_if = "String::is_empty")]
        metric_name: String = "metric-name",
        /// How many more triggers the manifest has.
        #[serde(skip_serializing_if = "is_none_at_all")]
        custom_triggers: i64 = "custom-triggers",
    }

    /// v3: the JSON inside the form field `opts` when triggers are enabled.
    #[derive(Debug)]
    pub struct ServiceTriggers {
        /// Fewest processes.
        min: i64 = "min",
        /// Most processes.
        max: i64 = "max",
        /// At least one, each type once.
        triggers: Vec<Trigger> = "triggers",
    }

    /// v3: one trigger.
    #[derive(Debug)]
    pub struct Trigger {
        /// `cpu`, `memory`, `gpuUtilization` or `queueDepth`.
        r#type: String = "type",
        /// Percent, or items of a queue.
        threshold: f64 = "threshold",
    }
}
