//! Whether a server should get requests: what a Console and a Rack answer to `GET /ready`. `GET /health` says only that the process lives.
//! Neither asks for a credential, so nothing is told there that is anybody's business: no name, no address, no app.

use serde::Serialize;

/// The answer to `GET /health`.
pub const ALIVE: &str = "ok\n";

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Check {
    name: &'static str,
    ok: bool,
    needed: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    fault: String,
}

impl Check {
    /// What is wrong with something, if anything is; nothing secret. Without what is `needed`, requests go elsewhere.
    pub fn new(name: &'static str, needed: bool, fault: Option<String>) -> Self {
        Self { name, ok: fault.is_none(), needed, fault: fault.unwrap_or_default() }
    }
}

/// All that was looked at, and what follows from it.
#[derive(Debug, Serialize)]
pub struct Readiness {
    ready: bool,
    checks: Vec<Check>,
}

impl From<Vec<Check>> for Readiness {
    fn from(checks: Vec<Check>) -> Self {
        Self { ready: checks.iter().all(|check| check.ok || !check.needed), checks }
    }
}

impl Readiness {
    /// Whether the server should get requests.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The status of the answer, which is all that most balancers look at.
    pub fn status(&self) -> u16 {
        if self.ready { 200 } else { 503 }
    }

    /// The body of the answer: JSON, and a line end for whoever asks by hand.
    pub fn to_body(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_takes_a_server_away() {
        let readiness =
            Readiness::from(vec![Check::new("database", true, None), Check::new("router", false, Some("port taken".to_owned()))]);
        assert!(readiness.is_ready() && readiness.status() == 200);
        let readiness = Readiness::from(vec![Check::new("database", true, Some("away".to_owned())), Check::new("router", false, None)]);
        assert!(!readiness.is_ready() && readiness.status() == 503);
        assert_eq!(
            readiness.to_body(),
            "{\"ready\":false,\"checks\":[{\"name\":\"database\",\"ok\":false,\"needed\":true,\"fault\":\"away\"},\
             {\"name\":\"router\",\"ok\":true,\"needed\":false}]}\n"
        );
    }
}
