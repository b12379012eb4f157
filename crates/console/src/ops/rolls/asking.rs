//! What a Rack is asked about its passwords, and what its silence means.

use std::time::Duration;

use convox_client::{Call, Client, Context, Endpoint, Error as ClientError, Key};
use convox_seal::Secret;
use convox_store::racks::RackRow;

use crate::credentials::trust;
use crate::ops::OpsError;

/// How long a Rack may take to answer one step.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client of the Rack with this password.
pub(in crate::ops) fn with_password(row: &RackRow, password: &Secret) -> Result<Client, OpsError> {
    let broken = |error: &dyn std::fmt::Display| broken(row, error);
    let endpoint = Endpoint::console(&row.host, Key::new(password.expose())).map_err(|error| broken(&error))?;
    Ok(Client::new(endpoint, trust(row.pin.as_deref()).map_err(|error| broken(&error))?, Context::default()))
}

/// Whether the Rack lets this password in; an error when it does not say.
pub(in crate::ops) async fn is_accepted(row: &RackRow, password: &Secret) -> Result<bool, OpsError> {
    let client = with_password(row, password)?;
    match send(row, client.done(call(Call::get(&["auth"]))?)).await? {
        Ok(()) => Ok(true),
        Err(error) if error.is_about_the_key() => Ok(false),
        Err(error) => Err(OpsError::Rack(error.to_string())),
    }
}

/// Whether the Rack answers as one does, and does not know the routes that only ours have.
pub(in crate::ops) async fn is_original(row: &RackRow, client: &Client) -> Result<bool, OpsError> {
    if send(row, client.system()).await?.is_err() {
        return Ok(false);
    }
    let passwords = send(row, client.done(call(Call::get(&["system", "password"]))?)).await?;
    Ok(passwords.is_err_and(|error| error.is_not_found()))
}

pub(in crate::ops) fn broken(row: &RackRow, error: &dyn std::fmt::Display) -> OpsError {
    OpsError::Rack(format!("the stored credential of {} cannot be used: {error}; add the Rack again", row.path()))
}

pub(in crate::ops) fn call(call: Result<Call, ClientError>) -> Result<Call, OpsError> {
    call.map_err(|error| OpsError::Input(error.to_string()))
}

/// What a Rack answered, if it did in time.
pub(in crate::ops) async fn send<T>(
    row: &RackRow,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<Result<T, ClientError>, OpsError> {
    let silent = |_| OpsError::Rack(format!("{} did not answer within {} s", row.path(), PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, answer).await.map_err(silent)
}
