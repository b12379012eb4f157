//! Options of calls on services.

use super::calls;

calls! {
    /// `PUT /apps/{app}/services/{service}`
    ServiceUpdateOptions {
        /// Processes.
        count: i64 = form "count";
        /// CPU units.
        cpu: i64 = form "cpu";
        /// v3.
        gpu: i64 = form "gpu";
        /// v3.
        gpu_vendor: String = form "gpu-vendor";
        /// v3: fewest processes.
        min: i64 = form "min";
        /// v3: most processes.
        max: i64 = form "max";
        /// Megabytes.
        memory: i64 = form "memory";
    }

    /// v3: `POST /apps/{app}/services/{service}/scale-override`
    ServiceScaleOverrideOptions {
        /// Whether a hand-set count stands against the scaler.
        active: bool = form "active";
        /// Who does it.
        ack_by: String = form_or_header "ack_by";
    }

    /// v3: `POST /apps/{app}/services/{service}/triggers/enable` and `.../disable`
    ServiceTriggersOptions {
        /// JSON of [`crate::api::ServiceTriggers`]; only to enable.
        opts: String = form "opts";
        /// Who does it.
        ack_by: String = form_or_header "ack_by";
    }

    /// v3: `POST /apps/{app}/services/{service}/triggers/threshold`
    ServiceThresholdOptions {
        /// `cpu`, `memory`, `gpuUtilization`, `queueDepth`.
        r#type: String = form "type";
        /// A number, as text.
        threshold: String = form "threshold";
        /// Who does it.
        ack_by: String = form_or_header "ack_by";
    }
}
