//! What `rack params set` and `apps params set` can mean here. A parameter is honoured or it is refused: a setting that does nothing looks like one
//! that holds.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;

mod elsewhere;

use crate::builds::StepMemory;
use crate::manifest::read_network;

/// Days that logs are kept; of the Rack, and of an app whose own word wins.
pub(crate) const LOG_RETENTION: &str = "LogRetention";
/// Networks from which the Rack and its apps are reached.
pub(crate) const WHITE_LIST: &str = "WhiteList";
/// Most memory of each step of a build, MB; of the Rack, in v2's word.
pub(crate) const BUILD_MEMORY: &str = "BuildMemory";
/// Less of it, for an app, in v3's word.
pub(crate) const BUILD_MEM: &str = "BuildMem";
/// Whether requests by HTTP are sent to HTTPS, for all services of an app.
pub(crate) const REDIRECT: &str = "RedirectHttps";

/// Networks in one list.
const NETWORKS: usize = 64;
/// Megabytes that a step of a build may be given, as `--build-memory` has it.
const MOST_MB: u32 = 1_048_576;

/// Whose parameter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Rack,
    App,
}

impl Scope {
    /// What is honoured, and what it is.
    fn known(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Rack => &[
                (BUILD_MEMORY, "most MB of memory for each step of a build"),
                (LOG_RETENTION, "days that logs are kept"),
                (WHITE_LIST, "networks from which the rack and its apps are reached"),
            ],
            Self::App => &[
                (BUILD_MEM, "MB of memory for each step of a build, up to what the rack gives"),
                (LOG_RETENTION, "days that its logs are kept"),
                (REDIRECT, "Yes or No: send HTTP to HTTPS, whatever convox.yml says"),
            ],
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Rack => "this rack has",
            Self::App => "apps have",
        }
    }
}

/// What is to be kept of `changes`, or why they are refused, all of them. An empty value takes a parameter away, also one that came with older data
/// (`kept`).
pub(crate) fn check(
    scope: Scope,
    changes: &BTreeMap<String, String>,
    kept: &BTreeMap<String, String>,
    has_images: bool,
) -> Result<BTreeMap<String, String>, String> {
    let mut taken = BTreeMap::new();
    for (name, value) in changes {
        let value = value.trim();
        let is_known = scope.known().iter().any(|(known, _)| known == name);
        if value.is_empty() && (is_known || kept.contains_key(name)) {
            taken.insert(name.clone(), String::new());
        } else if is_known {
            check_value(name, value, has_images).map_err(|why| format!("{name}={value}: {why}"))?;
            taken.insert(name.clone(), value.to_owned());
        } else if let Some(other) = elsewhere::find(scope, name) {
            if !other.is_so_anyway(value) {
                return Err(format!("{} no parameter {name}: {}", scope.word(), other.why));
            }
            // True here too: no reason to stop an app that brings it along from somewhere else.
            taken.insert(name.clone(), value.to_owned());
        } else {
            let known: Vec<String> = scope.known().iter().map(|(name, what)| format!("{name} ({what})")).collect();
            return Err(format!("{} no parameter {name}; what can be set: {}", scope.word(), known.join(", ")));
        }
    }
    Ok(taken)
}

fn check_value(name: &str, value: &str, has_images: bool) -> Result<(), String> {
    match name {
        LOG_RETENTION => days(value).map(drop),
        WHITE_LIST => networks(value).map(drop),
        BUILD_MEMORY | BUILD_MEM if !has_images => Err("this rack runs plain processes and builds no images".to_owned()),
        BUILD_MEMORY => megabytes(value).map(drop).ok_or_else(|| format!("give a number of MB from 1 to {MOST_MB}, or 0 for no limit")),
        BUILD_MEM => {
            megabytes(value).map(drop).ok_or_else(|| format!("give a number of MB from 1 to {MOST_MB}, or 0 for what the rack gives"))
        }
        _ => yes_or_no(value).map(drop),
    }
}

/// A number of days.
fn days(value: &str) -> Result<Duration, String> {
    let days = value.parse::<u64>().ok().filter(|days| (1..=3650).contains(days));
    let days = days.ok_or("give a number of days from 1 to 3650, or nothing for what holds without it")?;
    Ok(Duration::from_hours(days * 24))
}

fn megabytes(value: &str) -> Option<u32> {
    value.parse::<u32>().ok().filter(|number| *number <= MOST_MB)
}

fn yes_or_no(value: &str) -> Result<bool, String> {
    match value {
        "Yes" => Ok(true),
        "No" => Ok(false),
        _ => Err("give Yes or No".to_owned()),
    }
}

/// Networks, as `10.0.0.0/8, 192.0.2.7`.
fn networks(value: &str) -> Result<Vec<IpNet>, String> {
    let networks: Vec<IpNet> =
        value.split(',').map(str::trim).filter(|part| !part.is_empty()).map(read_network).collect::<Result<_, _>>()?;
    match networks.len() {
        0 => Err("names no network".to_owned()),
        1..=NETWORKS => Ok(networks),
        _ => Err(format!("give {NETWORKS} networks at most")),
    }
}

/// How long logs are kept, where a parameter says so.
pub(crate) fn log_age(parameters: &BTreeMap<String, String>) -> Option<Duration> {
    days(parameters.get(LOG_RETENTION)?).ok()
}

/// From where the Rack and its apps are reached; empty is from everywhere. A list that cannot be read (of older data) is an error: it was
/// to keep somebody out.
pub(crate) fn allowed(parameters: &BTreeMap<String, String>) -> Result<Vec<IpNet>, String> {
    let list = parameters.get(WHITE_LIST).filter(|value| !value.is_empty());
    list.map_or(Ok(Vec::new()), |value| networks(value).map_err(|why| format!("{WHITE_LIST}={value}: {why}")))
}

/// Memory of a build's steps: what the Rack gives, and what the app asks for.
pub(crate) fn build_memory(rack: &BTreeMap<String, String>, app: &BTreeMap<String, String>) -> StepMemory {
    let of = |parameters: &BTreeMap<String, String>, name: &str| parameters.get(name).and_then(|value| megabytes(value));
    StepMemory { rack: of(rack, BUILD_MEMORY), app: of(app, BUILD_MEM).unwrap_or_default() }
}

/// What is kept and holds, as `NAME=value`: not what came with older data and means nothing here.
pub(crate) fn honoured(scope: Scope, parameters: &BTreeMap<String, String>, has_images: bool) -> Vec<String> {
    let known = scope.known().iter().filter_map(|(name, _)| parameters.get_key_value(*name));
    known.filter(|(name, value)| check_value(name, value, has_images).is_ok()).map(|(name, value)| format!("{name}={value}")).collect()
}

/// Whether an app is served by HTTP where it could be by HTTPS; `None` is what convox.yml says.
pub(crate) fn plain_http(app: &BTreeMap<String, String>) -> Option<bool> {
    app.get(REDIRECT).and_then(|value| yes_or_no(value).ok()).map(|redirects| !redirects)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(scope: Scope, name: &str, value: &str) -> Result<BTreeMap<String, String>, String> {
        check(scope, &BTreeMap::from([(name.to_owned(), value.to_owned())]), &BTreeMap::new(), true)
    }

    #[test]
    fn what_is_honoured_is_kept_and_nothing_else() {
        for (scope, name, value) in [
            (Scope::Rack, LOG_RETENTION, "30"),
            (Scope::Rack, WHITE_LIST, "10.0.0.0/8,192.0.2.7, 2001:db8::/32"),
            (Scope::Rack, BUILD_MEMORY, "1024"),
            (Scope::App, BUILD_MEM, "0"),
            (Scope::App, LOG_RETENTION, "3650"),
            (Scope::App, REDIRECT, "No"),
        ] {
            assert_eq!(one(scope, name, value).unwrap()[name], value);
            assert_eq!(one(scope, name, " ").unwrap()[name], "", "taken away");
        }
        for (scope, name, value) in [
            (Scope::Rack, LOG_RETENTION, "0"),
            (Scope::Rack, LOG_RETENTION, "a week"),
            (Scope::Rack, WHITE_LIST, "10.0.0.0/33"),
            (Scope::Rack, BUILD_MEMORY, "1048577"),
            (Scope::App, REDIRECT, "true"),
        ] {
            let refused = one(scope, name, value).unwrap_err();
            assert!(refused.starts_with(&format!("{name}={value}: ")), "{refused}");
        }
        let plain = check(Scope::App, &BTreeMap::from([(BUILD_MEM.to_owned(), "1".to_owned())]), &BTreeMap::new(), false);
        assert!(plain.unwrap_err().contains("builds no images"));
    }

    #[test]
    fn unknown_names_are_refused_with_those_that_are_known_and_the_originals_with_a_reason() {
        let unknown = one(Scope::Rack, "Colour", "blue").unwrap_err();
        assert!(unknown.starts_with("this rack has no parameter Colour; what can be set: BuildMemory (most MB"), "{unknown}");
        assert!(one(Scope::App, "Colour", "").unwrap_err().contains("RedirectHttps (Yes or No"));
        for (scope, name, value, why) in [
            (Scope::Rack, "InstanceType", "t3.large", "machine"),
            (Scope::Rack, "Password", "x", "password roll"),
            (Scope::Rack, "whitelist", "10.0.0.0/8", WHITE_LIST),
            (Scope::Rack, "karpenter_enabled", "true", "Kubernetes"),
            (Scope::App, "FargateServices", "Yes", "Fargate"),
            (Scope::App, "WebFormation", "2,256,512", "convox scale"),
            (Scope::App, "RackUrl", "Yes", "rack access"),
        ] {
            let refused = one(scope, name, value).unwrap_err();
            assert!(refused.contains(&format!("no parameter {name}: ")) && refused.contains(why), "{refused}");
        }
        // What an app brings along without having chosen it.
        for (name, value) in [("FargateServices", "No"), ("LogDriver", "CloudWatch"), ("SlowStartDuration", "0"), ("IamPolicy", "")] {
            assert_eq!(one(Scope::App, name, value).unwrap()[name], value);
        }
    }

    #[test]
    fn one_that_is_refused_keeps_all_from_being_taken_and_old_data_can_be_taken_away() {
        let both = BTreeMap::from([(LOG_RETENTION.to_owned(), "3".to_owned()), ("Colour".to_owned(), "blue".to_owned())]);
        assert!(check(Scope::App, &both, &BTreeMap::new(), true).is_err());
        let old = BTreeMap::from([("Colour".to_owned(), "red".to_owned())]);
        let away = BTreeMap::from([("Colour".to_owned(), String::new())]);
        assert_eq!(check(Scope::App, &away, &old, true).unwrap(), away);
    }

    #[test]
    fn an_app_lowers_the_memory_that_the_rack_gives_and_never_raises_it() {
        let of = |name: &str, value: &str| match value {
            "" => BTreeMap::new(),
            _ => BTreeMap::from([(name.to_owned(), value.to_owned())]),
        };
        // The option, the Rack's parameter, the app's, what holds.
        for (option, rack, app, holds) in [
            (2047, "", "", 2047),
            (2047, "", "512", 512),
            (2047, "", "0", 2047),
            (2047, "", "4096", 2047),
            (2047, "4096", "", 4096),
            (2047, "4096", "3000", 3000),
            (2047, "1024", "2047", 1024),
            (2047, "0", "", 0),
            (2047, "0", "9000", 9000),
            (0, "", "512", 512),
        ] {
            let memory = build_memory(&of(BUILD_MEMORY, rack), &of(BUILD_MEM, app));
            assert_eq!(memory.holds(option), holds, "--build-memory {option}, BuildMemory={rack}, BuildMem={app}");
        }
        let app = of(REDIRECT, "No");
        assert_eq!((plain_http(&app), plain_http(&BTreeMap::new())), (Some(true), None));
    }

    #[test]
    fn a_kept_list_that_cannot_be_read_is_an_error_and_not_everybody() {
        let of = |value: &str| BTreeMap::from([(WHITE_LIST.to_owned(), value.to_owned()), ("Colour".to_owned(), "red".to_owned())]);
        assert_eq!(allowed(&of("")).unwrap(), Vec::<IpNet>::new());
        assert_eq!(allowed(&of("10.0.0.0/8")).unwrap().len(), 1);
        for bad in ["here", "10.0.0.0/33", ",", "::ffff:10.0.0.1"] {
            assert!(allowed(&of(bad)).unwrap_err().starts_with(&format!("WhiteList={bad}: ")), "{bad}");
        }
        assert_eq!(honoured(Scope::Rack, &of("10.0.0.0/8"), true), ["WhiteList=10.0.0.0/8"]);
        assert_eq!(honoured(Scope::Rack, &of("here"), true), Vec::<String>::new());
    }
}
