//! Which host and which Rack a command means, and which source said so. Decided once per command, before anything is sent.
//!
//! Host: `RACK_URL`, `CONVOX_HOST`, the saved host, `console.convox.com`. Rack: `--rack`, `CONVOX_RACK`, `RACK`,
//! `./.convox/rack`, the saved selection. A name that this machine itself knows (a Rack installed by `rack install`, or a
//! v3 `racks/NAME` file) leads straight to that Rack.

use std::fmt;

use convox_client::{Endpoint, Key};

use crate::accounts::{self, Book, Place};
use crate::env::Env;
use crate::error::Failure;
use crate::settings::select::{self, Kind};
use crate::settings::{Settings, local};

/// The Console that the originals mean when nothing says otherwise.
pub(crate) const DEFAULT_HOST: &str = "console.convox.com";

/// A value, and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) value: String,
    pub(crate) source: Source,
}

/// Who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `--rack`.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// A file of the current directory.
    Project(String),
    /// A file of the configuration directory.
    Saved(&'static str),
    /// The Rack is one that this machine knows by name.
    Machine(&'static str),
    /// Nobody; the originals' default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "{name}"),
            Self::Variable(name) => write!(f, "{name} in the environment"),
            Self::Project(file) => write!(f, "{file}"),
            Self::Saved("host" | "console" | "auth") => f.write_str("saved by login"),
            Self::Saved("accounts") => f.write_str("the active one"),
            Self::Saved(file) => write!(f, "saved by switch, file `{file}`"),
            Self::Machine(file) => write!(f, "this machine's `{file}`"),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// Where a command goes, from start to end.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    pub(crate) host: Choice,
    /// Who supplied the key.
    pub(crate) key: Source,
    /// Where it is kept; `None` when it comes from the environment.
    pub(crate) place: Option<Place>,
    /// Whose key it is, of those that this machine has for the host.
    pub(crate) account: Option<Choice>,
    /// The Rack behind the host, as `--rack` or a file names it; `None` when the host decides.
    pub(crate) rack: Option<Choice>,
    /// Sources that name another Rack and lost.
    pub(crate) overruled: Vec<Choice>,
}

impl Target {
    /// For messages: `acme/main on console.example.com`.
    pub(crate) fn describe(&self) -> String {
        match &self.rack {
            Some(rack) => format!("{} on {}", rack.value, self.host.value),
            None => self.host.value.clone(),
        }
    }
}

/// Every source that names a Rack, in order of precedence, except for the saved selection.
fn named(env: &Env, flag: Option<&str>) -> Vec<Choice> {
    let mut found = Vec::new();
    let mut add = |value: Option<String>, source: Source| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            found.push(Choice { value, source });
        }
    };
    add(flag.map(|flag| flag.trim().to_owned()), Source::Flag("--rack"));
    for name in ["CONVOX_RACK", "RACK"] {
        add(env.var(name), Source::Variable(name));
    }
    if let Some((value, file)) = local::read(env.cwd(), "rack") {
        add(Some(value), Source::Project(file));
    }
    found
}

/// The host that commands mean; `None` when nothing is saved and nothing is set.
pub(crate) fn host(env: &Env, settings: &Settings) -> Result<Option<Choice>, Failure> {
    if let Some(value) = env.var("CONVOX_HOST") {
        return Ok(Some(Choice { value: bare_host(&value).to_owned(), source: Source::Variable("CONVOX_HOST") }));
    }
    // v2 writes `host`, v3 `console`; ours both. Of two that differ, the later is meant.
    let mut names = ["host", "console"];
    names.sort_by_key(|name| std::cmp::Reverse(settings.written(name)));
    if settings.written("host").is_some() && settings.written("host") == settings.written("console") {
        names = ["host", "console"];
    }
    for name in names {
        let value = settings.text(name)?;
        if !value.is_empty() {
            return Ok(Some(Choice { value, source: Source::Saved(name) }));
        }
    }
    Ok(None)
}

/// People paste URLs where a host belongs.
pub(crate) fn bare_host(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix("https://").map_or(text, |rest| rest.trim_end_matches('/'))
}

/// Decides. Reads files and variables only; a short Rack name is resolved later, by the Console's own list.
pub(crate) fn resolve(env: &Env, settings: &Settings, flag: Option<&str>) -> Result<Target, Failure> {
    let mut candidates = named(env, flag);
    if let Some(url) = env.var("RACK_URL") {
        let endpoint = Endpoint::parse(&url).map_err(|error| Failure::from(error).while_doing("RACK_URL"))?;
        // Files speak of other hosts; what was said for this very command travels along.
        candidates.retain(|choice| !matches!(choice.source, Source::Project(_)));
        return Ok(finish(endpoint, Source::Variable("RACK_URL"), Source::Variable("RACK_URL"), candidates));
    }
    let host = host(env, settings)?;
    let host_is_given = matches!(&host, Some(Choice { source: Source::Variable(_), .. }));
    if !host_is_given
        && let Some(choice) = candidates.first()
        && let Some(target) = on_this_machine(env, settings, choice)?
    {
        return Ok(target);
    }
    if let Some(host) = &host
        && let Some(saved) = select::read(settings, &host.value)?
    {
        let choice = Choice { value: saved.name, source: Source::Saved(saved.file) };
        if candidates.is_empty() && !host_is_given && saved.kind != Kind::Console {
            return on_this_machine(env, settings, &choice)?.ok_or_else(|| gone(&choice.value, saved.kind));
        }
        if saved.kind == Kind::Console {
            candidates.push(choice);
        }
    }
    let host = match host {
        Some(host) => host,
        // v3 may have selected a Rack of its own without ever logging in to a Console.
        None if candidates.is_empty()
            && let Some(saved) = select::read(settings, "")?
            && saved.kind != Kind::Console =>
        {
            let choice = Choice { value: saved.name, source: Source::Saved(saved.file) };
            return on_this_machine(env, settings, &choice)?.ok_or_else(|| gone(&choice.value, saved.kind));
        }
        None if env.var("CONVOX_PASSWORD").is_some() => Choice { value: DEFAULT_HOST.to_owned(), source: Source::Default },
        None => return Err(Failure::new("no racks found, try `convox login`").hint("convox login HOST, of a Console or of a Rack")),
    };
    if let Some(key) = env.var("CONVOX_PASSWORD") {
        let endpoint = endpoint(env, &host.value, Key::new(key))?;
        return Ok(finish(endpoint, host.source, Source::Variable("CONVOX_PASSWORD"), candidates));
    }
    let book = Book::read(settings)?;
    let account = accounts::choose(env, &book, &host.value)?;
    let Some(kept) = accounts::chosen_key(settings, &book, &host.value, &account)? else {
        return Err(accounts::missing(settings, &book, &host.value, &account));
    };
    let endpoint = endpoint(env, &host.value, kept.key)?;
    let target = finish(endpoint, host.source, Source::Saved("auth"), candidates);
    Ok(Target { place: Some(kept.place), account: Some(account), ..target })
}

fn finish(endpoint: Endpoint, host: Source, key: Source, candidates: Vec<Choice>) -> Target {
    let mut candidates = candidates.into_iter();
    let rack = candidates.next();
    let overruled = candidates.filter(|choice| rack.as_ref().is_some_and(|rack| rack.value != choice.value)).collect();
    let host = Choice { value: endpoint.authority().to_owned(), source: host };
    Target { host, endpoint, key, place: None, account: None, rack, overruled }
}

/// The endpoint of a host; in clear text only where that was asked for.
pub(crate) fn endpoint(env: &Env, host: &str, key: Key) -> Result<Endpoint, Failure> {
    let endpoint = Endpoint::console(host, key)?;
    Ok(if env.is_true("X_DEV_ALLOW_HTTP") { endpoint.insecure() } else { endpoint })
}

/// A Rack that this machine knows by exactly that name.
pub(crate) fn on_this_machine(env: &Env, settings: &Settings, choice: &Choice) -> Result<Option<Target>, Failure> {
    let name = &choice.value;
    if let Some(host) = settings.key("self-managed", name)? {
        // Its own key: one from the environment is meant for the host that the environment or `login` names.
        let Some(kept) = accounts::active_key(settings, &host)? else {
            return Err(Failure::new(format!("not logged in to the Rack {name} at {host}")).hint(format!("convox login {host}")));
        };
        let endpoint = endpoint(env, &host, kept.key)?;
        let target = direct(endpoint, "self-managed", Source::Saved("auth"), choice);
        return Ok(Some(Target { place: Some(kept.place), ..target }));
    }
    if name.contains(['/', '\\', '\0']) || name.starts_with('.') || name.is_empty() {
        return Ok(None);
    }
    let url = settings.text(&format!("racks/{name}"))?;
    if !url.is_empty() {
        let endpoint = Endpoint::parse(&url).map_err(|error| Failure::from(error).while_doing(&format!("racks/{name}")))?;
        return Ok(Some(direct(endpoint, "racks", Source::Machine("racks"), choice)));
    }
    if settings.path("racks").join(name).is_dir() {
        let state = settings.text(&format!("racks/{name}/terraform.tfstate"))?;
        let state: serde_json::Value = serde_json::from_str(&state).unwrap_or_default();
        let url = state.pointer("/outputs/api/value").and_then(serde_json::Value::as_str);
        let Some(url) = url else {
            return Err(Failure::new(format!(
                "the Rack {name} is run by Terraform, and no address of it is in {}",
                settings.path("racks").join(name).display()
            ))
            .hint("give its address in RACK_URL"));
        };
        let endpoint = Endpoint::parse(url).map_err(|error| Failure::from(error).while_doing(&format!("racks/{name}")))?;
        return Ok(Some(direct(endpoint, "racks", Source::Machine("racks"), choice)));
    }
    Ok(None)
}

fn direct(endpoint: Endpoint, file: &'static str, key: Source, choice: &Choice) -> Target {
    Target {
        host: Choice { value: endpoint.authority().to_owned(), source: Source::Machine(file) },
        endpoint,
        key,
        place: None,
        account: None,
        rack: Some(choice.clone()),
        overruled: Vec::new(),
    }
}

fn gone(name: &str, kind: Kind) -> Failure {
    let what = if kind == Kind::Terraform { "Terraform Rack" } else { "Rack" };
    Failure::new(format!("the selected {what} {name} is not on this machine any more")).hint("convox racks, then convox switch NAME")
}

/// The app that a command means: an argument or `--app`, `./.convox/app`, the current directory's name.
pub(crate) fn app(env: &Env, given: Option<&str>) -> Result<String, Failure> {
    if let Some(name) = given.map(str::trim).filter(|name| !name.is_empty()) {
        return Ok(name.to_owned());
    }
    if let Some((name, _)) = local::read(env.cwd(), "app") {
        return Ok(name);
    }
    let name = env.cwd().file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.is_empty() {
        return Err(Failure::new("which app?").hint("name it with --app, or in ./.convox/app"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    struct Case {
        dir: tempfile::TempDir,
        settings: Settings,
    }

    impl Case {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let settings = Settings::new(dir.path().join("config"));
            let case = Self { dir, settings };
            case.save("host", "saved.example");
            case.save("auth", r#"{"saved.example":"savedkey","other.example":"otherkey","10.0.0.1:5443":"deskkey"}"#);
            case
        }

        fn save(&self, name: &str, text: &str) {
            let path = self.settings.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn project(&self, name: &str, text: &str) {
            let dir = self.cwd().join(".convox");
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(name), text).unwrap();
        }

        fn cwd(&self) -> &Path {
            self.dir.path()
        }

        fn target(&self, vars: &[(&str, &str)], flag: Option<&str>) -> Result<Target, Failure> {
            resolve(&Env::fake(vars, self.cwd()), &self.settings, flag)
        }

        /// host, key, Rack, source of the Rack
        fn outcome(&self, vars: &[(&str, &str)], flag: Option<&str>) -> (String, String, String, String) {
            let target = self.target(vars, flag).unwrap();
            let key = target.endpoint.password().map(|key| key.expose().to_owned()).unwrap_or_default();
            let (rack, source) = target.rack.map_or_else(Default::default, |rack| (rack.value, rack.source.to_string()));
            (target.host.value, key, rack, source)
        }
    }

    fn words(host: &str, key: &str, rack: &str, source: &str) -> (String, String, String, String) {
        (host.to_owned(), key.to_owned(), rack.to_owned(), source.to_owned())
    }

    #[test]
    fn each_source_outranks_the_ones_below_it() {
        let case = Case::new();
        assert_eq!(case.outcome(&[], None), words("saved.example", "savedkey", "", ""));
        case.save("racks", r#"{"saved.example":"acme/saved"}"#);
        assert_eq!(case.outcome(&[], None), words("saved.example", "savedkey", "acme/saved", "saved by switch, file `racks`"));
        case.project("rack", "acme/project");
        assert_eq!(case.outcome(&[], None).2, "acme/project");
        assert_eq!(case.outcome(&[("RACK", "acme/r")], None).2, "acme/r");
        assert_eq!(case.outcome(&[("RACK", "acme/r"), ("CONVOX_RACK", "acme/cr")], None).3, "CONVOX_RACK in the environment");
        assert_eq!(
            case.outcome(&[("CONVOX_RACK", "acme/cr")], Some("acme/flag")),
            words("saved.example", "savedkey", "acme/flag", "--rack")
        );
        assert_eq!(
            case.outcome(&[("CONVOX_HOST", "other.example")], None),
            words("other.example", "otherkey", "acme/project", "./.convox/rack")
        );
        assert_eq!(case.outcome(&[("CONVOX_PASSWORD", "envkey")], None).1, "envkey");
        let url = ("RACK_URL", "https://convox:urlkey@rack.example");
        assert_eq!(case.outcome(&[url], None), words("rack.example", "urlkey", "", ""));
        assert_eq!(case.outcome(&[url, ("CONVOX_HOST", "x"), ("CONVOX_PASSWORD", "y")], Some("acme/flag")).2, "acme/flag");
        assert_eq!(case.outcome(&[("CONVOX_RACK", "  ")], None).2, "acme/project");
    }

    #[test]
    fn what_lost_is_known_by_name() {
        let case = Case::new();
        case.save("racks", r#"{"saved.example":"acme/saved"}"#);
        let target = case.target(&[("CONVOX_RACK", "acme/env")], None).unwrap();
        assert_eq!(target.overruled, [Choice { value: "acme/saved".to_owned(), source: Source::Saved("racks") }]);
        let target = case.target(&[("CONVOX_RACK", "acme/saved")], None).unwrap();
        assert!(target.overruled.is_empty(), "sources that agree are no conflict");
    }

    #[test]
    fn a_rack_of_this_machine_is_reached_by_its_name_with_its_own_key() {
        let case = Case::new();
        case.save("self-managed", r#"{"desk":"10.0.0.1:5443"}"#);
        assert_eq!(case.outcome(&[("CONVOX_PASSWORD", "envkey")], Some("desk")), words("10.0.0.1:5443", "deskkey", "desk", "--rack"));
        // A host that was named wins: then `desk` is a Rack of that Console.
        assert_eq!(case.outcome(&[("CONVOX_HOST", "other.example")], Some("desk")).0, "other.example");
        let case = Case::new();
        case.save("racks/prod", "https://convox:prodkey@prod.example\n");
        assert_eq!(case.outcome(&[], Some("prod")), words("prod.example", "prodkey", "prod", "--rack"));
        case.save("current", r#"{"name":"prod","type":"direct"}"#);
        assert_eq!(case.outcome(&[], None).0, "prod.example");
        case.save("racks/tf/terraform.tfstate", r#"{"outputs":{"api":{"value":"https://convox:tfkey@tf.example"}}}"#);
        assert_eq!(case.outcome(&[], Some("tf")).1, "tfkey");
    }

    #[test]
    fn without_a_key_it_says_how_to_log_in() {
        let case = Case::new();
        let failure = case.target(&[("CONVOX_HOST", "new.example")], None).unwrap_err();
        assert_eq!(failure.to_string(), "not logged in to new.example");
        assert_eq!(failure.hint_text(), Some("convox login new.example"));
        let empty = tempfile::tempdir().unwrap();
        let settings = Settings::new(empty.path().join("none"));
        let failure = resolve(&Env::fake(&[], empty.path()), &settings, None).unwrap_err();
        assert_eq!(failure.to_string(), "no racks found, try `convox login`");
        let target = resolve(&Env::fake(&[("CONVOX_PASSWORD", "deploykey")], empty.path()), &settings, None).unwrap();
        assert_eq!(target.host.value, DEFAULT_HOST);
    }

    #[test]
    fn an_app_is_named_by_argument_project_or_directory() {
        let case = Case::new();
        let env = Env::fake(&[], case.cwd());
        assert_eq!(app(&env, Some("given")).unwrap(), "given");
        assert_eq!(app(&env, None).unwrap(), case.cwd().file_name().unwrap().to_str().unwrap());
        case.project("app", "shop");
        assert_eq!(app(&env, Some("")).unwrap(), "shop");
    }
}
