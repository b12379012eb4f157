//! SSH keys by which the Rack logs in to its hosts, sealed.

use convox_db::DbError;
use convox_seal::Secret;

use super::{State, now_ms};

/// A key pair of SSH.
pub(crate) struct KeyPair {
    /// As `ssh-keygen` writes it.
    pub(crate) private: Secret,
    /// One line.
    pub(crate) public: String,
}

impl KeyPair {
    /// The key itself in the line, without type and comment.
    pub(crate) fn blob(&self) -> String {
        self.public.split_whitespace().nth(1).unwrap_or_default().to_owned()
    }
}

/// How far the roll of a host's key is.
pub(crate) enum Rolling {
    /// None is under way.
    No,
    /// The new key is kept, and the host may or may not know it.
    Made(KeyPair),
    /// The new key is the present one and was seen to work; this old one is to be taken away.
    Switched(KeyPair),
}

/// The keys of one host.
pub(crate) struct HostKeys {
    /// `None` before the first roll.
    pub(crate) current: Option<KeyPair>,
    pub(crate) rolling: Rolling,
}

type Row = (Vec<u8>, String, String, Vec<u8>, String);

impl State {
    /// What is known of a host.
    pub(crate) async fn host_keys(&self, id: &str) -> Result<HostKeys, DbError> {
        let row: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT private, public, step, other_private, other_public FROM host_keys WHERE id = $1"
        )
        .bind(id)
        .fetch_optional(pool)
        .await)?;
        let Some((private, public, step, other_private, other_public)) = row else {
            return Ok(HostKeys { current: None, rolling: Rolling::No });
        };
        let open = |field: &str, sealed: Vec<u8>, public: String| -> Result<KeyPair, DbError> {
            Ok(KeyPair { private: Secret::new(self.open_env("host key", &format!("{id} {field}"), sealed)?), public })
        };
        let current = Some(open("current", private, public)?);
        let rolling = match step.as_str() {
            "made" => Rolling::Made(open("other", other_private, other_public)?),
            "switched" => Rolling::Switched(open("other", other_private, other_public)?),
            _ => Rolling::No,
        };
        Ok(HostKeys { current, rolling })
    }

    /// Keeps it, as a whole.
    pub(crate) async fn keep_host_keys(&self, id: &str, keys: &HostKeys) -> Result<(), DbError> {
        let Some(current) = &keys.current else { return Ok(()) };
        let seal = |field: &str, pair: &KeyPair| self.seal_env("host key", &format!("{id} {field}"), pair.private.expose());
        let (step, other) = match &keys.rolling {
            Rolling::No => ("", None),
            Rolling::Made(next) => ("made", Some(next)),
            Rolling::Switched(old) => ("switched", Some(old)),
        };
        let other_private = other.map(|pair| seal("other", pair)).unwrap_or_default();
        let private = seal("current", current);
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query(
                "INSERT INTO host_keys (id, private, public, step, other_private, other_public, changed_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) \
                 ON CONFLICT (id) DO UPDATE SET private = excluded.private, public = excluded.public, step = excluded.step, \
                 other_private = excluded.other_private, other_public = excluded.other_public, changed_ms = excluded.changed_ms",
            )
            .bind(id)
            .bind(&private[..])
            .bind(current.public.as_str())
            .bind(step)
            .bind(&other_private[..])
            .bind(other.map_or("", |pair| pair.public.as_str()))
            .bind(now_ms())
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }
}
