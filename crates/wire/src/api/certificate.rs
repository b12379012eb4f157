//! Certificates and how they are got, and image registries.

use std::fmt;

use super::{Hidden, shapes};
use crate::time::Time;

shapes! {
    /// A certificate without its key.
    #[derive(Debug)]
    pub struct Certificate {
        /// Its id.
        id: String = "id",
        /// The first domain.
        domain: String = "domain",
        /// All domains.
        domains: Vec<String> = "domains",
        /// End of its validity.
        expiration: Time = "expiration",
        /// v3: its state.
        #[serde(skip_serializing_if = "String::is_empty")]
        status: String = "status",
    }

    /// Credentials of an image registry; the password is hidden in `Debug`.
    pub struct Registry {
        /// Host name.
        server: String = "server",
        /// User.
        username: String = "username",
        /// In the clear, as the originals list it.
        password: String = "password",
    }

    /// v3: how certificates are asked for.
    #[derive(Debug)]
    pub struct LetsEncrypt {
        /// Of the certificate manager.
        role: String = "role",
        /// In the order in which they are tried.
        solvers: Vec<LetsEncryptSolver> = "solvers",
    }

    /// v3: who answers for some DNS zones.
    #[derive(Debug)]
    pub struct LetsEncryptSolver {
        /// Its number.
        id: i64 = "id",
        /// At least one.
        dns_zones: Vec<String> = "dns-zones",
        /// Its settings, if it is Route 53.
        route53: Option<LetsEncryptRoute53> = "route53",
    }

    /// v3: settings of a Route 53 solver.
    #[derive(Debug)]
    pub struct LetsEncryptRoute53 {
        /// The zone.
        hosted_zone_id: Option<String> = "hosted-zone-id",
        /// The region.
        region: Option<String> = "region",
        /// Taken on to change the zone.
        role: Option<String> = "role",
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("server", &self.server)
            .field("username", &self.username)
            .field("password", &Hidden::text(&self.password))
            .finish()
    }
}
