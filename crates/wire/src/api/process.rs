//! Processes.

use super::{is_none_at_all, shapes};
use crate::time::Time;

shapes! {
    /// A running or ended process. `status` as text; `running` is what waits test.
    #[derive(Debug)]
    pub struct Process {
        /// Its id within the app.
        id: String = "id",
        /// Whose it is.
        app: String = "app",
        /// What runs.
        command: String = "command",
        /// Share of its limit in use, 0..1 and above.
        cpu: f64 = "cpu",
        /// v3: graphics cards it holds.
        #[serde(skip_serializing_if = "is_none_at_all")]
        gpu: i64 = "gpu",
        /// Where it runs.
        host: String = "host",
        /// What it runs from.
        image: String = "image",
        /// The machine.
        instance: String = "instance",
        /// Share of its limit in use, 0..1 and above.
        memory: f64 = "memory",
        /// The service it belongs to.
        name: String = "name",
        /// `outside:inside`
        ports: Vec<String> = "ports",
        /// The release it runs.
        release: String = "release",
        /// When it began.
        started: Time = "started",
        /// See above.
        status: String = "status",
        /// v2: of the container service.
        #[serde(skip_serializing_if = "String::is_empty")]
        task_definition: String = "task_definition",
        /// v3: the service; empty for system processes.
        #[serde(skip_serializing_if = "String::is_empty")]
        service: String = "service",
        /// v3: percent, 0..100; `None` when nothing was measured, as for all that follow.
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
    }
}
