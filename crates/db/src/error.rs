//! What can go wrong with a database, sorted by what the caller can do about it.

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something with that unique value is already there.
    Conflict,
    /// The database cannot be reached, or did not answer in time: try again.
    Unavailable,
    /// The disk is full or cannot be written.
    Storage,
    /// A fault of ours, or of the data.
    Other,
}

/// A failed use of the database. `Display` is for logs and administrators; no values of queries are in it.
#[derive(Debug, thiserror::Error)]
#[error("database: {message}")]
pub struct DbError {
    kind: Kind,
    message: String,
}

impl DbError {
    /// With a message of our own.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a unique value was already taken.
    pub fn is_conflict(&self) -> bool {
        self.kind == Kind::Conflict
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        let kind = match &error {
            sqlx::Error::Database(inner) if inner.is_unique_violation() => Kind::Conflict,
            sqlx::Error::Database(inner) => {
                let text = inner.message();
                let code = inner.code().unwrap_or_default();
                // SQLite: 13 is a full disk, 10 an I/O error, 8 read-only, 5 and 6 locks. PostgreSQL: class 53 is out of resources, 57 shutting down.
                if matches!(&*code, "13" | "10" | "8" | "778" | "53100") || text.contains("disk is full") {
                    Kind::Storage
                } else if matches!(&*code, "5" | "6" | "261" | "517") || code.starts_with("53") || code.starts_with("57") {
                    Kind::Unavailable
                } else {
                    Kind::Other
                }
            }
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                Kind::Unavailable
            }
            _ => Kind::Other,
        };
        let message = match kind {
            Kind::Storage => format!("{error} (is the disk full?)"),
            _ => error.to_string(),
        };
        Self { kind, message }
    }
}
