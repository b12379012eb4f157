//! The text form of each type that an option can have.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Time;
use crate::{duration, form};

/// A type with a text form on the wire.
pub trait Value: Sized {
    /// The text.
    fn to_text(&self) -> String;

    /// Reads it.
    ///
    /// # Errors
    /// A sentence about what was expected.
    fn from_text(text: &str) -> Result<Self, String>;
}

impl Value for String {
    fn to_text(&self) -> String {
        self.clone()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for bool {
    fn to_text(&self) -> String {
        self.to_string()
    }

    /// Anything but `true` is false, as in the originals.
    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text == "true")
    }
}

impl Value for i64 {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{}` is not a whole number", text.chars().take(32).collect::<String>()))
    }
}

impl Value for Duration {
    fn to_text(&self) -> String {
        duration::go_format(*self)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        duration::go_parse(text).map_err(|error| error.to_string())
    }
}

impl Value for Time {
    fn to_text(&self) -> String {
        self.to_option()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        Self::from_option(text).map_err(|error| error.to_string())
    }
}

impl Value for Vec<String> {
    fn to_text(&self) -> String {
        form::list_join(self)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(form::list_split(text))
    }
}

impl Value for BTreeMap<String, String> {
    fn to_text(&self) -> String {
        form::map_encode(self)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        form::map_decode(text).map_err(|error| error.to_string())
    }
}
