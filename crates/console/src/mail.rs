//! Mail, over whatever SMTP server the Console is told of. Without one, whoever invites hands the link over by themselves.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use convox_seal::Secret;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

/// How long the server may take for one mail.
const PATIENCE: Duration = Duration::from_secs(15);

/// The way to a mail server, or none.
pub(crate) struct Mail(Option<Way>);

struct Way {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// What became of a mail.
pub(crate) enum Sent {
    /// This Console sends none.
    Never,
    /// The server took it.
    Yes,
    /// It did not, and why.
    Failed(String),
}

impl Mail {
    /// By the URL of a server (`smtps://user:password@host`, or `smtp://host:25?tls=required`) and the sender's address.
    pub(crate) fn new(url: Option<&Secret>, from: Option<&str>) -> Result<Self> {
        let Some(url) = url else { return Ok(Self(None)) };
        let Some(from) = from else { bail!("mail needs a sender: give --mail-from") };
        // The URL may hold a password, so no error repeats it.
        let built = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose());
        let Ok(builder) = built else {
            bail!("CONVOX_SMTP_URL is no address of a mail server: smtps://USER:PASSWORD@HOST or smtp://HOST:PORT")
        };
        let transport = builder.timeout(Some(PATIENCE)).build();
        Ok(Self(Some(Way { transport, from: from.parse().with_context(|| format!("--mail-from {from}"))? })))
    }

    /// Whether this Console sends mail.
    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// An invitation.
    pub(crate) async fn invite(&self, to: &str, org: &str, by: &str, link: &str) -> Sent {
        let text = format!(
            "{by} invites you to the organization {org} on Convox Console.\n\nOpen this link to join; it works once, within a week:\n\n{link}\n\n\
             If you do not know what this is about, do nothing.\n"
        );
        self.send(to, &format!("Join {org} on Convox Console"), text).await
    }

    /// A link for a forgotten password.
    pub(crate) async fn reset(&self, to: &str, link: &str) -> Sent {
        let text = format!(
            "Somebody, hopefully you, asked for a new password on Convox Console.\n\nOpen this link to choose one; it works once, within an \
             hour:\n\n{link}\n\nIf it was not you, do nothing: your password stays as it is.\n"
        );
        self.send(to, "A new password for Convox Console", text).await
    }

    async fn send(&self, to: &str, subject: &str, text: String) -> Sent {
        let Some(way) = &self.0 else { return Sent::Never };
        let Ok(to) = to.parse::<Mailbox>() else { return Sent::Failed("mail servers do not take that address".to_owned()) };
        let message = Message::builder().from(way.from.clone()).to(to).subject(subject).header(ContentType::TEXT_PLAIN).body(text);
        let message = match message {
            Ok(message) => message,
            Err(error) => return Sent::Failed(error.to_string()),
        };
        match tokio::time::timeout(PATIENCE, way.transport.send(message)).await {
            Ok(Ok(_)) => Sent::Yes,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a mail could not be sent");
                Sent::Failed(
                    if error.is_permanent() { "the mail server refused it" } else { "the mail server cannot be used now" }.to_owned(),
                )
            }
            Err(_) => Sent::Failed("the mail server did not answer in time".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(url: &str, from: Option<&str>) -> Result<bool, String> {
        Mail::new(Some(&Secret::new(url.to_owned())), from).map(|mail| mail.is_there()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_wrong_url_is_refused_without_repeating_it() {
        assert_eq!(made("smtps://u:hunter2@mail.example.com", Some("console@example.com")), Ok(true));
        assert!(!made("http://u:hunter2@x", Some("console@example.com")).unwrap_err().contains("hunter2"));
        assert!(made("smtp://localhost:25", None).unwrap_err().contains("--mail-from"));
        assert!(made("smtp://localhost:25", Some("nobody")).unwrap_err().contains("--mail-from nobody"));
        assert!(!Mail::new(None, None).unwrap().is_there());
    }
}
