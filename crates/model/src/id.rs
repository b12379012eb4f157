//! Ids: UUIDv7 as text, so that they sort by the time of their making. Each kind has its own type; one cannot stand for another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$about:meta])* $name:ident)*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
            #[serde(transparent)]
            pub struct $name(String);

            impl $name {
                /// A new one.
                #[expect(clippy::new_without_default, reason = "a default id would be a different one each time")]
                pub fn new() -> Self {
                    Self(uuid::Uuid::now_v7().to_string())
                }

                /// From the store or a caller; what is no id is simply not found.
                pub fn from_text(text: impl Into<String>) -> Self {
                    Self(text.into())
                }

                /// The text.
                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }
        )*
    };
}

ids! {
    /// An organization.
    OrgId
    /// A user.
    UserId
    /// An API key.
    KeyId
    /// A Rack.
    RackId
}
