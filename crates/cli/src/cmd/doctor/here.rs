//! What can be wrong on this machine: files of the configuration, and the variables that name proxies.

use convox_client::{Endpoint, Proxies, Scheme};

use super::Findings;
use crate::accounts::Book;
use crate::env::Env;
use crate::settings::Settings;

/// Files that hold keys or sessions: nobody else's business.
const SECRET: [&str; 3] = ["auth", "accounts", "session"];
/// Files that say where a key is sent and what is believed there: nobody else's to write.
const TRUSTED: [&str; 3] = ["host", "pins", "self-managed"];
/// Files that are JSON objects of texts.
const MAPS: [&str; 4] = ["auth", "session", "pins", "self-managed"];

/// Whether the files can be read and written, and by nobody else.
pub(super) fn configuration(settings: &Settings, findings: &mut Findings) {
    const CHECK: &str = "configuration";
    let before = findings.0.len();
    for name in MAPS {
        if let Err(failure) = settings.map(name) {
            findings.failure(CHECK, &failure);
        }
    }
    if let Err(failure) = Book::read(settings) {
        findings.failure(CHECK, &failure);
    }
    permissions(settings, findings);
    if findings.0.len() == before {
        let there = if settings.dir().exists() { "" } else { " (not there yet)" };
        findings.ok(CHECK, format!("{}{there}", settings.dir().display()));
    }
}

#[cfg(unix)]
fn permissions(settings: &Settings, findings: &mut Findings) {
    use std::os::unix::fs::MetadataExt as _;
    const CHECK: &str = "configuration";
    let own = rustix::process::getuid().as_raw();
    let dir = settings.dir();
    if let Ok(metadata) = std::fs::metadata(dir) {
        if metadata.mode() & 0o022 != 0 {
            let found = format!("others on this machine may write into {}", dir.display());
            findings.warn(CHECK, found, format!("they could exchange your key and its host: chmod go-w {}", dir.display()));
        }
        if metadata.uid() != own {
            let found = format!("{} belongs to another user", dir.display());
            findings.fault(CHECK, found, "what you log in to could not be kept: chown it, or name another directory in CONVOX_CONFIG");
        }
    }
    for name in SECRET {
        let path = settings.path(name);
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.mode() & 0o077 != 0 {
            let found = format!("others on this machine can get at {}", path.display());
            let advice = format!("chmod 600 {}; if others use this machine, roll the key too: convox keys roll", path.display());
            findings.warn(CHECK, found, advice);
        }
    }
    for name in TRUSTED {
        let path = settings.path(name);
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.mode() & 0o022 != 0 {
            let found = format!("others on this machine may write into {}", path.display());
            findings.warn(
                CHECK,
                found,
                format!("they could lead your key elsewhere: look at what it says, and chmod go-w {}", path.display()),
            );
        }
    }
}

#[cfg(not(unix))]
fn permissions(_settings: &Settings, _findings: &mut Findings) {}

/// Which proxy lies between us and the host; `false` when it cannot be used.
pub(super) fn proxy(env: &Env, endpoint: &Endpoint, proxies: &Proxies, findings: &mut Findings) -> bool {
    const CHECK: &str = "proxy";
    let is_set = |name: &str| env.var(name).or_else(|| env.var(&name.to_ascii_lowercase())).is_some();
    let variable = if endpoint.scheme() == Scheme::Https { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let before = findings.0.len();
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        let (upper, lower) = (env.var(name), env.var(&name.to_ascii_lowercase()));
        if upper.is_some() && lower.is_some() && upper != lower {
            let found = format!("{name} and {} differ, and {name} counts here", name.to_ascii_lowercase());
            findings.warn(CHECK, found, "other programs may take the other one: give both the same value");
        }
    }
    let strange = |item: &&str| item.contains("://") || item.trim_matches('*').contains('*') || item.trim().contains(char::is_whitespace);
    let exceptions = env.var("NO_PROXY").or_else(|| env.var("no_proxy")).unwrap_or_default();
    if let Some(item) = exceptions.split(',').find(strange) {
        let found = format!("`{}` in NO_PROXY stands for no host", item.trim());
        findings.warn(
            CHECK,
            found,
            "hosts, .suffixes, addresses and networks, divided by commas: NO_PROXY=localhost,.example.com,10.0.0.0/8",
        );
    }
    match proxies.between(endpoint) {
        Err(error) => {
            let advice = format!("{variable}=http://HOST:PORT, or take {} out of its way with NO_PROXY", endpoint.host());
            findings.fault(CHECK, error.to_string(), advice);
            return false;
        }
        Ok(Some(proxy)) if findings.0.len() == before => findings.ok(CHECK, format!("{proxy} ({variable})")),
        Ok(Some(_)) => {}
        Ok(None) if findings.0.len() > before => {}
        Ok(None) if is_set(variable) => {
            let why = if exceptions.is_empty() { "it is on this machine" } else { "NO_PROXY, or it is on this machine" };
            findings.ok(CHECK, format!("none for {} ({why})", endpoint.host()));
        }
        Ok(None) if variable == "HTTPS_PROXY" && is_set("HTTP_PROXY") && proxies_matter(endpoint.host()) => {
            let found = "HTTP_PROXY is set and HTTPS_PROXY is not: connections with TLS go straight";
            findings.warn(CHECK, found, "if hosts are reached through the proxy only, set HTTPS_PROXY to it as well");
        }
        Ok(None) => findings.ok(CHECK, "none"),
    }
    true
}

/// Whether a host is one that a proxy could be for.
fn proxies_matter(host: &str) -> bool {
    !convox_client::is_loopback(host)
}

#[cfg(test)]
mod tests {
    use convox_client::Key;

    use super::super::Status;
    use super::*;

    fn found(vars: &[(&str, &str)]) -> Vec<(Status, String)> {
        let env = Env::fake(vars, std::path::Path::new("/"));
        let endpoint = Endpoint::console("console.example.com", Key::new("k")).unwrap();
        let mut findings = Findings::default();
        proxy(&env, &endpoint, &Proxies::from_env(|name| env.var(name)), &mut findings);
        findings.0.into_iter().map(|finding| (finding.status, finding.found)).collect()
    }

    #[test]
    fn the_variables_of_proxies_are_read_as_commands_read_them() {
        assert_eq!(found(&[]), [(Status::Ok, "none".to_owned())]);
        assert_eq!(found(&[("HTTPS_PROXY", "http://u:secret@proxy:3128")]), [(Status::Ok, "proxy:3128 (HTTPS_PROXY)".to_owned())]);
        let cases = [
            (&[("HTTP_PROXY", "http://proxy:3128")][..], Status::Warning, "go straight"),
            (&[("HTTPS_PROXY", "socks5://u:secret@proxy")], Status::Fault, "only http:// proxies"),
            (&[("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://b:1")], Status::Warning, "differ"),
            (&[("HTTPS_PROXY", "http://a:1"), ("NO_PROXY", "https://console.example.com")], Status::Warning, "stands for no host"),
            (&[("HTTPS_PROXY", "http://a:1"), ("NO_PROXY", ".example.com")], Status::Ok, "none for console.example.com"),
        ];
        for (vars, status, words) in cases {
            let all = found(vars);
            assert!(all.iter().any(|(is, text)| *is == status && text.contains(words)), "{vars:?}: {all:?}");
            assert!(all.iter().all(|(_, text)| !text.contains("secret")), "{all:?}");
        }
    }
}
