//! What a Console does with the Racks that it knows (protocol section 5.1, and our own API). No logic.

use convox_wire::api::{RackHost, Runtime};
use convox_wire::options::RuntimeAttachOptions;
use serde::Serialize;

use crate::{Call, Client, Error, Key};

/// A Rack as our Console is told of it.
#[derive(Serialize)]
struct NewRack<'a> {
    name: &'a str,
    host: &'a str,
    password: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pin: Option<&'a str>,
    trust_on_first_use: bool,
}

impl Client {
    /// `POST /racks/{org}/{rack}/sync`
    pub async fn rack_sync(&self, full_name: &str) -> Result<(), Error> {
        self.done(Call::post(&of_rack(full_name, "sync"))?).await
    }

    /// `GET /racks/{org}/{rack}/runtimes`
    pub async fn rack_runtimes(&self, full_name: &str) -> Result<Vec<Runtime>, Error> {
        self.list(Call::get(&of_rack(full_name, "runtimes"))?).await
    }

    /// `PUT /racks/{org}/{rack}/runtimes`
    pub async fn rack_runtime_attach(&self, full_name: &str, options: &RuntimeAttachOptions) -> Result<(), Error> {
        self.done(Call::put(&of_rack(full_name, "runtimes"))?.options(options)?).await
    }

    /// `GET /racks/{org}/{rack}/host`
    pub async fn rack_host(&self, full_name: &str) -> Result<String, Error> {
        let answer: RackHost = self.value(Call::get(&of_rack(full_name, "host"))?).await?;
        Ok(answer.host)
    }

    /// Our Console: takes a Rack on, with its password and the certificate that it must show.
    pub async fn rack_add(&self, organization: &str, name: &str, host: &str, password: &Key, pin: Option<&str>) -> Result<(), Error> {
        let body = NewRack { name, host, password: password.expose(), pin, trust_on_first_use: pin.is_none() };
        let body = serde_json::to_vec(&body).map_err(|error| Error::input(error.to_string()))?;
        self.done(Call::post(&["api", "v1", "organizations", organization, "racks"])?.body(body)).await
    }

    /// Our Console: forgets a Rack, which itself stays as it is.
    pub async fn rack_remove(&self, organization: &str, name: &str) -> Result<(), Error> {
        self.done(Call::delete(&["api", "v1", "organizations", organization, "racks", name])?).await
    }
}

/// `racks`, organization, name, and what follows: the slash of a full name parts two segments.
fn of_rack<'a>(full_name: &'a str, rest: &'a str) -> Vec<&'a str> {
    ["racks"].into_iter().chain(full_name.split('/')).chain([rest]).collect()
}
