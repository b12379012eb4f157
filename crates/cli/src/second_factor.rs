//! Answers the session challenge of a Console (protocol 3.4): by a code typed at the terminal where the Console takes one, else by its page in
//! the browser of this machine.
//!
//! The original v3 client listens on every address, on any path, and takes what comes first. Here the answer is awaited on 127.0.0.1, on a
//! path of 128 random bits, once; and it is worth nothing without the API key that asked.

use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convox_client::session::{Answer, Challenge};
use convox_client::{Client, Error};
use convox_wire::form::Params;
use convox_wire::session::SessionDemand;

use crate::accounts;
use crate::env::Env;
use crate::error::Failure;
use crate::output::Printer;
use crate::prompt;
use crate::settings::Settings;
use crate::sign_in::browser;
use crate::sign_in::callback::{Awaited, Brought, Callback};

/// How long somebody may take.
const PATIENCE: Duration = Duration::from_mins(5);
/// So many wrong codes, and it is given up.
const TRIES: u32 = 3;

/// Asks the person at the terminal, and keeps the session that comes of it.
pub(crate) struct SecondFactor {
    pub(crate) env: Env,
    pub(crate) settings: Settings,
    pub(crate) out: Printer,
}

impl Answer for SecondFactor {
    fn answer<'a>(
        &'a self,
        client: &'a Client,
        demand: &'a SessionDemand,
    ) -> Pin<Box<dyn Future<Output = Result<String, Error>> + Send + 'a>> {
        Box::pin(self.session(client, demand))
    }
}

impl SecondFactor {
    async fn session(&self, client: &Client, demand: &SessionDemand) -> Result<String, Error> {
        let host = client.endpoint().authority();
        let id = if !demand.token {
            client.open_session(demand, None, Vec::new()).await?
        } else if self.env.stdin_is_terminal && self.env.stderr_is_terminal {
            self.ask(client, demand, host).await?
        } else {
            return Err(Error::Session { host: host.to_owned(), demand: demand.clone() });
        };
        // The command goes on even if the session cannot be kept; the next one asks again, and this one says why.
        if let Err(failure) = accounts::keep_session(&self.env, &self.settings, host, &id) {
            self.out.talk(&format!("The session could not be kept: {failure}"));
        }
        Ok(id)
    }

    /// A code, as often as it is mistyped within reason; or the browser.
    async fn ask(&self, client: &Client, demand: &SessionDemand, host: &str) -> Result<String, Error> {
        for _ in 0..TRIES {
            let challenge = client.challenge(demand).await?;
            if !challenge.answers.iter().any(|way| way == "code") {
                return self.by_browser(client, demand, &challenge).await;
            }
            let question = format!("{host} asks for your second factor. Code of your authenticator app (Enter: use the browser): ");
            let code = prompt::secret(&question).map_err(|failure| given_up(failure.to_string()))?;
            if code.is_empty() {
                return self.by_browser(client, demand, &challenge).await;
            }
            let answer = serde_json::json!({ "code": code }).to_string();
            match client.open_session(demand, Some(&challenge.id), answer.into_bytes()).await {
                Err(Error::Forbidden { message } | Error::Server { status: 400, message, .. }) => self.out.talk(&message),
                outcome => return outcome,
            }
        }
        Err(given_up("no code was right".to_owned()))
    }

    async fn by_browser(&self, client: &Client, demand: &SessionDemand, challenge: &Challenge) -> Result<String, Error> {
        let answer = self.ask_browser(client, challenge).await.map_err(|failure| given_up(failure.to_string()))?;
        client.open_session(demand, Some(&challenge.id), answer).await
    }

    /// Opens the Console's page, and waits for what it brings.
    async fn ask_browser(&self, client: &Client, challenge: &Challenge) -> Result<Vec<u8>, Failure> {
        let (path, start) = (browser::random::<16>()?, browser::random::<16>()?);
        let callback = Callback::listen(&path, &start, Awaited::Data).await?;
        let query = Params::new().with("callback_url", callback.redirect_uri()).with("token", STANDARD.encode(&challenge.json));
        let endpoint = client.endpoint();
        let url = format!("{}://{}/login/u2f?{}", endpoint.scheme().as_str(), endpoint.authority(), query.encode());
        callback.leads_to(&url);
        if browser::open(&self.env, &callback.start_uri()) {
            self.out.talk(&format!("Answer in your browser. If it did not open, open this address in one on this machine:\n\n  {url}\n"));
        } else {
            self.out.talk(&format!("Open this address in a browser on this machine:\n\n  {url}\n"));
        }
        self.out.talk("Waiting, at most five minutes (Ctrl-C to stop)...");
        let brought = tokio::time::timeout(PATIENCE, callback.wait()).await.map_err(|_| Failure::new("nobody answered in time"))??;
        let (text, browser) = match brought {
            Brought::Data(text, browser) => (text, browser),
            Brought::Code(_, browser) | Brought::Denied(browser) => {
                browser.say("This is not the answer that is waited for.").await;
                return Err(Failure::new("the browser brought something else than an answer"));
            }
        };
        browser.say("Your terminal has the answer. You can close this page.").await;
        STANDARD.decode(text.trim()).map_err(|_| Failure::new("what the browser brought is no answer"))
    }
}

fn given_up(message: String) -> Error {
    let hint = "run the command again; a recovery code goes too, and whoever runs the Console can reset your second factor".to_owned();
    Error::SecondFactor { message, hint }
}
