//! Certificates, and their keys.

use std::collections::BTreeMap;

use convox_db::DbError;
use convox_seal::Secret;

use super::{State, now_ms};

/// One certificate with its key.
pub(crate) struct CertificateRow {
    pub(crate) id: String,
    pub(crate) domains: Vec<String>,
    /// PEM, leaf first.
    pub(crate) chain: String,
    /// PEM.
    pub(crate) key: Secret,
    pub(crate) issuer: Issuer,
    pub(crate) expires_ms: i64,
}

impl CertificateRow {
    /// For one that is new.
    pub(crate) fn new_id() -> String {
        format!("cert-{}", uuid::Uuid::new_v4().simple())
    }

    /// Whether it is for this host name, lower case.
    pub(crate) fn covers(&self, host: &str) -> bool {
        let is_any = |domain: &str| host.split_once('.').is_some_and(|(_, parent)| domain.strip_prefix("*.") == Some(parent));
        self.domains.iter().any(|domain| domain == host || is_any(domain))
    }
}

/// Who signed a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Issuer {
    /// It itself, made here.
    Own,
    /// Somebody whom the Rack does not know.
    Import,
    /// The authority that the Rack asks.
    Acme,
}

impl Issuer {
    fn as_str(self) -> &'static str {
        match self {
            Self::Own => "self",
            Self::Import => "import",
            Self::Acme => "acme",
        }
    }
}

type Row = (String, String, String, Vec<u8>, String, i64);

impl State {
    /// Id, first domain, and when it ends, of each; without opening a key.
    pub(crate) async fn certificate_ends(&self) -> Result<Vec<(String, String, i64)>, DbError> {
        let rows: Vec<(String, String, i64)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT id, domains, expires_ms FROM certificates ORDER BY created_ms, id")
                .fetch_all(pool)
                .await)?;
        let first = |domains: &str| serde_json::from_str::<Vec<String>>(domains).ok().and_then(|domains| domains.into_iter().next());
        Ok(rows.into_iter().map(|(id, domains, expires_ms)| (id, first(&domains).unwrap_or_default(), expires_ms)).collect())
    }

    /// All of them, oldest first.
    pub(crate) async fn certificates(&self) -> Result<Vec<CertificateRow>, DbError> {
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT id, domains, chain, key, issuer, expires_ms FROM certificates ORDER BY created_ms, id"
        )
        .fetch_all(pool)
        .await)?;
        rows.into_iter()
            .map(|(id, domains, chain, key, issuer, expires_ms)| {
                let key = Secret::new(self.open_env("certificate", &id, key)?);
                let domains = serde_json::from_str(&domains).unwrap_or_default();
                let issuer = [Issuer::Own, Issuer::Acme].into_iter().find(|known| known.as_str() == issuer).unwrap_or(Issuer::Import);
                Ok(CertificateRow { id, domains, chain, key, issuer, expires_ms })
            })
            .collect()
    }

    /// Adds one, or puts it in the place of the one with its id.
    pub(crate) async fn put_certificate(&self, certificate: &CertificateRow) -> Result<(), DbError> {
        let sealed = self.seal_env("certificate", &certificate.id, certificate.key.expose());
        let domains = serde_json::to_string(&certificate.domains).unwrap_or_default();
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query(
                "INSERT INTO certificates (id, domains, chain, key, issuer, expires_ms, created_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) \
                 ON CONFLICT (id) DO UPDATE SET domains = excluded.domains, chain = excluded.chain, key = excluded.key, \
                 expires_ms = excluded.expires_ms, created_ms = excluded.created_ms",
            )
            .bind(&certificate.id)
            .bind(&domains)
            .bind(&certificate.chain)
            .bind(&sealed[..])
            .bind(certificate.issuer.as_str())
            .bind(certificate.expires_ms)
            .bind(now_ms())
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// Removes one; says whether there was one.
    pub(crate) async fn remove_certificate(&self, id: &str) -> Result<bool, DbError> {
        let removed = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM certificates WHERE id = $1").bind(id).execute(&mut *tx).await?.rows_affected()
        });
        Ok(removed > 0)
    }

    /// The certificates that were chosen by hand, by app and service.
    pub(crate) async fn service_certificates(&self) -> Result<BTreeMap<(String, String), String>, DbError> {
        let rows: Vec<(String, String, String)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT app, service, certificate FROM service_certificates")
                .fetch_all(pool)
                .await)?;
        Ok(rows.into_iter().map(|(app, service, certificate)| ((app, service), certificate)).collect())
    }

    /// Chooses a certificate for a service; `false` if there is no such certificate any more.
    pub(crate) async fn put_service_certificate(&self, app: &str, service: &str, certificate: &str) -> Result<bool, DbError> {
        let put = convox_db::transaction!(&self.db, |tx| {
            sqlx::query(
                "INSERT INTO service_certificates (app, service, certificate) SELECT $1, $2, id FROM certificates WHERE id = $3 \
                 ON CONFLICT (app, service) DO UPDATE SET certificate = excluded.certificate",
            )
            .bind(app)
            .bind(service)
            .bind(certificate)
            .execute(&mut *tx)
            .await?
            .rows_affected()
        });
        Ok(put > 0)
    }

    /// Forgets what the Rack is to the authority behind this directory.
    pub(crate) async fn remove_acme_account(&self, directory: &str) -> Result<(), DbError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM acme_accounts WHERE directory = $1").bind(directory).execute(&mut *tx).await?;
        });
        Ok(())
    }

    /// What the Rack is to the authority behind this directory.
    pub(crate) async fn acme_account(&self, directory: &str) -> Result<Option<Secret>, DbError> {
        let row: Option<(Vec<u8>,)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT credentials FROM acme_accounts WHERE directory = $1")
                .bind(directory)
                .fetch_optional(pool)
                .await)?;
        row.map(|(sealed,)| Ok(Secret::new(self.open_env("acme", directory, sealed)?))).transpose()
    }

    /// Keeps an account.
    pub(crate) async fn put_acme_account(&self, directory: &str, credentials: &Secret) -> Result<(), DbError> {
        let sealed = self.seal_env("acme", directory, credentials.expose());
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query(
                "INSERT INTO acme_accounts (directory, credentials) VALUES ($1, $2) \
                 ON CONFLICT (directory) DO UPDATE SET credentials = excluded.credentials",
            )
            .bind(directory)
            .bind(&sealed[..])
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }
}
