//! The JSON of Rack and Console, both generations in one set of types (protocol 5 and 6.4).
//!
//! All shapes: unknown keys are passed over, a missing key or a `null` is the type's default (Go servers send `null` for an empty list or
//! map), lists and maps are never written as `null`. Fields that Go omits when empty are omitted here too. Where only one
//! generation has a field, the other ignores it. Types that hold a secret show none of it in `Debug`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer};

mod app;
mod budget;
mod build;
mod certificate;
mod console;
mod diagnose;
mod go_json;
mod process;
mod resource;
mod service;
mod system;

pub use app::{App, AppConfig, Balancer, BalancerPort, ManifestService, ManifestServiceScale};
pub use budget::{
    AppBudget, AppBudgetDismissed, AppBudgetEligibility, AppBudgetReport, AppBudgetShutdown, AppBudgetShutdownKeda, AppBudgetShutdownScale,
    AppBudgetShutdownService, AppBudgetSimulation, AppBudgetState, AppCost, ServiceCost, VariantCost,
};
pub use build::{Build, Object, Release};
pub use certificate::{Certificate, LetsEncrypt, LetsEncryptRoute53, LetsEncryptSolver, Registry};
pub use console::{Identity, Machine, Organization, RackDetail, RackEntry, RackHost, Runtime, SessionId, Workflow, WorkflowRun, Workflows};
pub use diagnose::{
    Diagnose, DiagnoseContainer, DiagnoseEvent, DiagnoseInitPod, DiagnoseOverview, DiagnosePod, DiagnoseService, DiagnoseSummary,
};
pub use go_json::to_go_json;
pub use process::Process;
pub use resource::{Resource, ResourceParameter, ResourceType};
pub use service::{Service, ServiceAutoscale, ServiceNlb, ServicePort, ServiceTriggers, Trigger};
pub use system::{Capacity, Instance, KeyPair, Metric, MetricValue, Passwords, ServiceMetrics, System, SystemJwt, TokenInfo};

/// `null`, or an object of text.
pub type Parameters = BTreeMap<String, String>;

/// Structs whose keys are given beside the fields: `field: Type = "key"`. Every key may be missing or `null`.
macro_rules! shapes {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty = $key:literal,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(rename = $key, deserialize_with = "crate::api::null_is_default")]
                pub $field: $type,
            )+
        }
    )+};
}
pub(crate) use shapes;

/// `null` as the default of any type.
pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Whether Go would omit this number.
pub(crate) fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

/// Whether Go would omit this count.
pub(crate) fn is_none_at_all(count: &i64) -> bool {
    *count == 0
}

/// Whether Go would omit this flag.
pub(crate) fn is_false(flag: &bool) -> bool {
    !flag
}

/// Stands in `Debug` for a secret: says only whether there is one.
pub(crate) struct Hidden(bool);

impl Hidden {
    pub(crate) fn text(secret: &str) -> Self {
        Self(!secret.is_empty())
    }

    pub(crate) fn if_any(any: bool) -> Self {
        Self(any)
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "(hidden)" } else { "(none)" })
    }
}

#[cfg(test)]
mod tests;
