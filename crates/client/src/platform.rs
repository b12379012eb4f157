//! Endpoints that concern the Rack or its machines and not one app: certificates, registries, instances, ways into its network.
//! No logic, as in [`crate::rack`].

use convox_wire::api::{Certificate, Instance, KeyPair, Registry};
use convox_wire::form::Params;
use convox_wire::options::{CertificateCreateOptions, CertificateGenerateOptions, CertificateListOptions, InstanceShellOptions};
use http::Method;

use crate::call::escape_segment;
use crate::{Call, Client, Error, Socket};

/// Of an answer that is a key pair or only `ok`.
const LONGEST_KEY: usize = 64 * 1024;

impl Client {
    /// `GET /certificates`
    pub async fn certificates(&self, options: &CertificateListOptions) -> Result<Vec<Certificate>, Error> {
        self.list(Call::get(&["certificates"])?.options(options)?).await
    }

    /// `POST /certificates`: a certificate and its key, both PEM.
    pub async fn certificate_create(&self, public: &str, key: &str, options: &CertificateCreateOptions) -> Result<Certificate, Error> {
        let call = Call::post(&["certificates"])?.options(options)?;
        self.value(call.form_value("pub", public).form_value("key", key)).await
    }

    /// `DELETE /certificates/{id}`
    pub async fn certificate_delete(&self, id: &str) -> Result<(), Error> {
        self.done(Call::delete(&["certificates", id])?).await
    }

    /// `POST /certificates/generate`
    pub async fn certificate_generate(&self, domains: &[String], options: &CertificateGenerateOptions) -> Result<Certificate, Error> {
        let call = Call::post(&["certificates", "generate"])?.options(options)?;
        self.value(call.form_value("domains", &domains.join(","))).await
    }

    /// v3: `POST /certificates/{app}/renew`
    pub async fn certificate_renew(&self, app: &str) -> Result<(), Error> {
        self.done(Call::post(&["certificates", app, "renew"])?).await
    }

    /// `PUT /apps/{app}/ssl/{service}/{port}`
    pub async fn certificate_apply(&self, app: &str, service: &str, port: &str, id: &str) -> Result<(), Error> {
        self.done(Call::put(&["apps", app, "ssl", service, port])?.form(&Params::new().with("id", id))).await
    }

    /// `GET /registries`
    pub async fn registries(&self) -> Result<Vec<Registry>, Error> {
        self.list(Call::get(&["registries"])?).await
    }

    /// `POST /registries`
    pub async fn registry_add(&self, server: &str, username: &str, password: &str) -> Result<Registry, Error> {
        let form = Params::new().with("password", password).with("server", server).with("username", username);
        self.value(Call::post(&["registries"])?.form(&form)).await
    }

    /// `DELETE /registries/{server}`; a server's name may hold slashes, which stay what they are.
    pub async fn registry_remove(&self, server: &str) -> Result<(), Error> {
        if server.is_empty() || server.split('/').any(|piece| piece == "." || piece == "..") {
            return Err(Error::input(format!("`{server}` is no registry")));
        }
        let mut path = "/registries".to_owned();
        for piece in server.split('/') {
            path.push('/');
            escape_segment(piece, &mut path);
        }
        self.done(Call::raw(Method::DELETE, path)).await
    }

    /// `GET /instances`
    pub async fn instances(&self) -> Result<Vec<Instance>, Error> {
        self.list(Call::get(&["instances"])?).await
    }

    /// `POST /instances/keyroll`; v3 Racks give the new key, others only say that it is done.
    pub async fn instance_keyroll(&self) -> Result<Option<KeyPair>, Error> {
        let body = self.send(Call::post(&["instances", "keyroll"])?).await?.bytes(LONGEST_KEY).await?;
        Ok(serde_json::from_slice(&body).ok())
    }

    /// `WS /instances/{id}/shell`
    pub async fn instance_shell(&self, id: &str, options: &InstanceShellOptions) -> Result<Socket, Error> {
        self.socket(Call::get(&["instances", id, "shell"])?.options(options)?).await
    }

    /// `DELETE /instances/{id}`
    pub async fn instance_terminate(&self, id: &str) -> Result<(), Error> {
        self.done(Call::delete(&["instances", id])?).await
    }

    /// `WS /proxy/{host}/{port}`: one TCP connection from inside the Rack's network.
    pub async fn proxy(&self, host: &str, port: u16) -> Result<Socket, Error> {
        self.socket(Call::get(&["proxy", host, &port.to_string()])?).await
    }
}
