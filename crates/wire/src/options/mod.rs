//! The options of calls and where each one travels: as a header, in the form body, or in the query. What is `None` is not sent at all
//! (protocol 1.4). Source: `pkg/structs` of both originals.
//!
//! Defaults (`since` two minutes, `tty` true, `generation` 2) are applied by accessors, not on reading, so that "not given" stays visible.

mod calls;
mod value;

use crate::form::Params;

pub use calls::*;
pub use value::Value;

/// Encoded options, by place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Ordinary headers.
    pub headers: Vec<(&'static str, String)>,
    /// Form body.
    pub form: Params,
    /// Query; never travels on WebSockets.
    pub query: Params,
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
