//! The options of calls and where each one travels: as a header, in the form body, or in the query. What is `None` is not sent at all
//! (protocol 1.4). Source: `pkg/structs` and the SDKs of both originals.
//!
//! Defaults (`since` two minutes, `tty` true, `generation` 2) are applied by accessors, not on reading, so that "not given" stays visible.
//! `Debug` hides what may be a secret: environments, parameters, keys, passwords.

use std::fmt;

use crate::form::Params;

mod apps;
mod builds;
mod console;
mod processes;
mod releases;
mod services;
mod system;
#[cfg(test)]
mod tests;
mod value;

pub use apps::{AppBudgetOptions, AppBudgetResetOptions, AppCreateOptions, AppUpdateOptions, DiagnoseOptions};
pub use builds::{BuildCreateOptions, BuildImportImageOptions, BuildListOptions, BuildUpdateOptions, ObjectStoreOptions};
pub use console::{RackCreateOptions, RackInstallOptions, RackUpdateOptions, RuntimeAttachOptions, WorkflowRunOptions};
pub use processes::{FilesUploadOptions, LogOptions, MetricsOptions, ProcessExecOptions, ProcessListOptions, ProcessRunOptions};
pub use releases::{ReleaseCreateOptions, ReleaseListOptions, ReleasePromoteOptions};
pub use services::{ServiceScaleOverrideOptions, ServiceThresholdOptions, ServiceTriggersOptions, ServiceUpdateOptions};
pub use system::{
    CertificateCreateOptions, CertificateGenerateOptions, CertificateListOptions, EventSendOptions, InstanceShellOptions,
    PasswordAcceptOptions, PasswordRetireOptions, ResourceConsoleOptions, ResourceCreateOptions, ResourceUpdateOptions, SystemJwtOptions,
    SystemJwtRotateOptions, SystemProcessesOptions, SystemUpdateOptions,
};
pub use value::Value;

type Map = std::collections::BTreeMap<String, String>;
type List = Vec<String>;

/// Encoded options, by place. `Debug` shows names, not values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Placed {
    /// Ordinary headers.
    pub headers: Vec<(&'static str, String)>,
    /// Form body.
    pub form: Params,
    /// Query; never travels on WebSockets.
    pub query: Params,
}

impl fmt::Debug for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placed")
            .field("headers", &self.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>())
            .field("form", &self.form.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("query", &self.query.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .finish()
    }
}

/// Where a server looks for options. Header names are case-insensitive.
pub trait Source {
    /// First value of a header.
    fn header(&self, name: &str) -> Option<&str>;
    /// First value in the form body, else in the query (servers merge them, the body wins).
    fn form(&self, name: &str) -> Option<&str>;
    /// First value in the query.
    fn query(&self, name: &str) -> Option<&str>;
}

impl Source for Placed {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn form(&self, name: &str) -> Option<&str> {
        self.form.get(name).or_else(|| self.query.get(name))
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name)
    }
}

/// What the originals call a loose value: anything but empty in form or query, else a header of that name. Protocol 1.5.
pub fn loose<'a>(source: &'a dyn Source, name: &str) -> Option<&'a str> {
    let form = source.form(name);
    form.filter(|text| !text.is_empty()).or_else(|| source.header(name)).or(form)
}

/// An option whose text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("option {name}: {reason}")]
pub struct OptionError {
    /// Its name on the wire.
    pub name: &'static str,
    /// What was expected.
    pub reason: String,
}

/// The options of one call.
pub trait Options: Default {
    /// Puts each given option in its place.
    fn encode(&self) -> Placed;

    /// Reads what is there.
    ///
    /// # Errors
    /// [`OptionError`] for the first option that cannot be read.
    fn decode(source: &dyn Source) -> Result<Self, OptionError>;
}

/// One struct for each call: `field: Type = place "name"`. Places: `header`, `form`, `query`; `form_or_header` and `header_or_form` are
/// sent in the first and read from either. `, secret` hides the value in `Debug`.
macro_rules! calls {
    ($($(#[$about:meta])* $name:ident { $($(#[$meta:meta])* $field:ident : $type:ty = $place:ident $wire:literal $(, $secret:ident)?;)* })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Default, PartialEq)]
            pub struct $name {
                $($(#[$meta])* pub $field: Option<$type>,)*
            }

            impl $crate::options::Options for $name {
                fn encode(&self) -> $crate::options::Placed {
                    let mut placed = $crate::options::Placed::default();
                    $(if let Some(value) = &self.$field {
                        calls!(@put placed, $place, $wire, $crate::options::Value::to_text(value));
                    })*
                    placed
                }

                fn decode(source: &dyn $crate::options::Source) -> Result<Self, $crate::options::OptionError> {
                    Ok(Self {
                        $($field: calls!(@take source, $place, $wire)
                            .map(<$type as $crate::options::Value>::from_text)
                            .transpose()
                            .map_err(|reason| $crate::options::OptionError { name: $wire, reason })?,)*
                    })
                }
            }

            impl std::fmt::Debug for $name {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    let mut shown = f.debug_struct(stringify!($name));
                    $(if let Some(value) = &self.$field {
                        calls!(@show shown, stringify!($field), value $(, $secret)?);
                    })*
                    shown.finish()
                }
            }

            #[cfg(test)]
            impl $crate::options::tests::Sample for $name {
                fn sample(rng: &mut proptest::test_runner::TestRng) -> Self {
                    Self { $($field: $crate::options::tests::Sample::sample(rng),)* }
                }
            }
        )*
    };
    (@put $placed:ident, header, $wire:literal, $text:expr) => { $placed.headers.push(($wire, $text)) };
    (@put $placed:ident, form, $wire:literal, $text:expr) => { $placed.form.set($wire, $text) };
    (@put $placed:ident, query, $wire:literal, $text:expr) => { $placed.query.set($wire, $text) };
    (@put $placed:ident, header_or_form, $wire:literal, $text:expr) => { $placed.headers.push(($wire, $text)) };
    (@put $placed:ident, form_or_header, $wire:literal, $text:expr) => { $placed.form.set($wire, $text) };
    (@take $source:ident, header_or_form, $wire:literal) => { $crate::options::loose($source, $wire) };
    (@take $source:ident, form_or_header, $wire:literal) => { $crate::options::loose($source, $wire) };
    (@take $source:ident, $place:ident, $wire:literal) => { $source.$place($wire) };
    (@show $shown:ident, $field:expr, $value:ident, secret) => { let _ = $value; $shown.field($field, &format_args!("(hidden)")) };
    (@show $shown:ident, $field:expr, $value:ident) => { $shown.field($field, $value) };
}
use calls;
