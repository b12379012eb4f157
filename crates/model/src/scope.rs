//! The scope of a key: what it is limited to. A scope only takes away; what is left is never more than what its owner may do.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use convox_wire::routes::{Effect, Route};
use serde::{Deserialize, Serialize};

use crate::id::{OrgId, RackId};
use crate::network::Network;

/// What a key is limited to. An empty list limits nothing. An unknown field makes the whole unreadable, and a key with an unreadable
/// scope is no key: what a newer version limited must not be ignored by an older one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    /// One organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<OrgId>,
    /// These Racks of it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub racks: BTreeSet<RackId>,
    /// These apps, on each of the Racks.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub apps: BTreeSet<String>,
    /// These effects and commands.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub may: BTreeSet<May>,
    /// Callers in these networks.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub networks: BTreeSet<Network>,
}

/// One thing that a limited key may do: everything of an effect, or what one command of the command line needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum May {
    /// Every route of this effect.
    Effect(EffectName),
    /// The routes that this command needs.
    Command(Command),
}

/// An effect, in an order of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EffectName(pub Effect);

impl PartialOrd for EffectName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for EffectName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

macro_rules! commands {
    ($($(#[$about:meta])* $name:ident $text:literal [$($route:literal)*];)*) => {
        /// A command that a key can be limited to. Names never change: they are in the rows of keys.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Command {
            $($(#[$about])* $name,)*
        }

        impl Command {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// `build`, `builds-export`, ...
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Names of the routes that the original clients and ours call for it.
            pub fn routes(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name => &[$($route),*],)*
                }
            }
        }
    };
}

commands! {
    /// `build`
    Build "build" ["SystemGet" "AppGet" "ObjectStore" "BuildCreate" "BuildGet" "BuildLogs"];
    /// `builds`
    Builds "builds" ["BuildList"];
    /// `builds export`
    BuildsExport "builds-export" ["BuildGet" "BuildExport"];
    /// `builds import`
    BuildsImport "builds-import" ["SystemGet" "BuildGet" "BuildImport" "BuildImportImage"];
    /// `deploy`: a build and its promotion
    Deploy "deploy" ["SystemGet" "AppGet" "AppLogs" "ObjectStore" "BuildCreate" "BuildGet" "BuildLogs" "ReleasePromote"];
    /// `env set --replace`: without it the present values would be read
    EnvSet "env-set" ["SystemGet" "AppGet" "ReleaseCreate"];
    /// `logs`
    Logs "logs" ["AppLogs" "ServiceLogs"];
    /// `releases promote` with an id
    Promote "promote" ["SystemGet" "AppGet" "AppLogs" "ReleasePromote"];
    /// `rack`
    Rack "rack" ["SystemGet"];
    /// `racks`, which the Console itself answers
    Racks "racks" [];
    /// `run`: any code, in the app's environment
    Run "run" ["SystemGet" "AppGet" "ProcessRun" "ProcessGet" "ProcessExec" "ProcessStop"];
}

/// A set of commands that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// What a deploy key of the original Console may do.
    CiLegacy,
    /// Build and deploy, without running code by itself and without reading what builds hold.
    Deploy,
    /// Look, without secrets.
    ReadOnly,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CiLegacy, Self::Deploy, Self::ReadOnly];

    /// `ci-legacy`, `deploy-only`, `read-only`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CiLegacy => "ci-legacy",
            Self::Deploy => "deploy-only",
            Self::ReadOnly => "read-only",
        }
    }

    /// What it stands for.
    pub fn may(self) -> BTreeSet<May> {
        let commands = |commands: &[Command]| commands.iter().copied().map(May::Command).collect();
        match self {
            Self::CiLegacy => commands(Command::ALL),
            Self::Deploy => commands(&[
                Command::Build,
                Command::Builds,
                Command::Deploy,
                Command::Logs,
                Command::Promote,
                Command::Rack,
                Command::Racks,
            ]),
            Self::ReadOnly => [May::Effect(EffectName(Effect::Read))].into(),
        }
    }
}

/// Text that names nothing that a key may do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key may do effects ({}) and commands ({})", Effect::ALL.map(Effect::as_str).join(", "), Command::ALL.iter().map(|command| command.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownMay;

impl May {
    /// `read`, ... or `build`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Effect(EffectName(effect)) => effect.as_str(),
            Self::Command(command) => command.as_str(),
        }
    }

    fn covers(self, route: &Route) -> bool {
        match self {
            Self::Effect(EffectName(effect)) => route.effect == effect,
            Self::Command(command) => command.routes().contains(&route.name),
        }
    }
}

impl FromStr for May {
    type Err = UnknownMay;

    fn from_str(text: &str) -> Result<Self, UnknownMay> {
        let effect = text.parse().map(|effect| Self::Effect(EffectName(effect))).ok();
        let command = || Command::ALL.iter().find(|command| command.as_str() == text).copied().map(Self::Command);
        effect.or_else(command).ok_or(UnknownMay)
    }
}

impl TryFrom<String> for May {
    type Error = UnknownMay;

    fn try_from(text: String) -> Result<Self, UnknownMay> {
        text.parse()
    }
}

impl From<May> for &'static str {
    fn from(may: May) -> Self {
        may.as_str()
    }
}

impl fmt::Display for May {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a scope does not let a request through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfScope {
    /// Another organization. For this key it does not exist.
    Organization,
    /// Another Rack. For this key it does not exist.
    Rack,
    /// Another app, or none where the key is for some.
    App,
    /// Neither the effect nor a command that needs it.
    Command,
}

impl Scope {
    /// Whether it limits nothing.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a Rack exists for this key.
    pub fn sees(&self, org: &OrgId, rack: &RackId) -> bool {
        self.org.as_ref().is_none_or(|only| only == org) && (self.racks.is_empty() || self.racks.contains(rack))
    }

    /// Whether it may be used from that address.
    pub fn is_at_home(&self, peer: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(peer))
    }

    /// What stands in the way of a request; `None` if nothing of this scope does.
    pub(crate) fn refuses(&self, org: &OrgId, rack: &RackId, route: &Route, app: Option<&str>) -> Option<OutOfScope> {
        if self.org.as_ref().is_some_and(|only| only != org) {
            return Some(OutOfScope::Organization);
        }
        if !self.sees(org, rack) {
            return Some(OutOfScope::Rack);
        }
        // A key for some apps sees what the Rack is, which every client asks first, and nothing else that is not of one of them: not even
        // which other apps there are.
        let names_one = app.is_some_and(|app| self.apps.contains(app)) && route.pattern.starts_with("/apps/{app}");
        if !self.apps.is_empty() && !names_one && !["SystemGet", "Auth", "Check"].contains(&route.name) {
            return Some(OutOfScope::App);
        }
        if !self.may.is_empty() && !self.may.iter().any(|may| may.covers(route)) {
            return Some(OutOfScope::Command);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use convox_wire::routes::ROUTES;

    use super::*;

    #[test]
    fn every_command_is_made_of_routes_that_exist_and_none_of_them_is_for_administrators() {
        for command in Command::ALL {
            for name in command.routes() {
                let route = ROUTES.iter().find(|route| route.name == *name);
                assert!(route.is_some_and(|route| route.effect != Effect::Admin), "{} of {}", name, command.as_str());
            }
        }
    }

    #[test]
    fn every_word_is_read_again_and_stands_for_one_thing() {
        let all: BTreeSet<May> = Effect::ALL
            .into_iter()
            .map(|effect| May::Effect(EffectName(effect)))
            .chain(Command::ALL.iter().copied().map(May::Command))
            .collect();
        let words: BTreeSet<&str> = all.iter().map(|may| may.as_str()).collect();
        assert_eq!(all.len(), words.len());
        for may in all {
            assert_eq!(may.as_str().parse(), Ok(may));
        }
        assert!("emperor".parse::<May>().unwrap_err().to_string().contains("read-secret"));
    }

    #[test]
    fn the_original_deploy_key_does_its_commands_and_no_other() {
        let original =
            ["build", "builds", "builds-export", "builds-import", "deploy", "env-set", "logs", "promote", "rack", "racks", "run"];
        assert_eq!(Preset::CiLegacy.may().iter().map(|may| may.as_str()).collect::<Vec<_>>(), original);
        let scope = Scope { may: Preset::CiLegacy.may(), ..Scope::default() };
        let (org, rack) = (OrgId::new(), RackId::new());
        let may = |name: &str| scope.refuses(&org, &rack, ROUTES.iter().find(|route| route.name == name).unwrap(), Some("web")).is_none();
        for name in [
            "AppDelete",
            "AppCreate",
            "ReleaseGet",
            "ReleaseList",
            "FilesDownload",
            "InstanceShell",
            "Proxy",
            "SystemJwtToken",
            "AppList",
            "ResourceGet",
        ] {
            assert!(!may(name), "{name}");
        }
        for name in ["BuildCreate", "ReleasePromote", "AppLogs", "ProcessExec", "SystemGet"] {
            assert!(may(name), "{name}");
        }
    }

    #[test]
    fn a_scope_survives_being_written_and_what_it_does_not_know_makes_it_unreadable() {
        let scope = Scope {
            org: Some(OrgId::new()),
            racks: [RackId::new()].into(),
            apps: ["shop".to_owned()].into(),
            may: Preset::CiLegacy.may(),
            networks: ["10.0.0.0/8".parse().unwrap()].into(),
        };
        let text = serde_json::to_string(&scope).unwrap();
        assert_eq!(serde_json::from_str::<Scope>(&text).unwrap(), scope);
        assert_eq!(serde_json::to_string(&Scope::default()).unwrap(), "{}");
        for unknown in [r#"{"hours":"9-17"}"#, r#"{"may":["fly"]}"#, r#"{"networks":["10.1.0.0/8"]}"#] {
            assert!(serde_json::from_str::<Scope>(unknown).is_err(), "{unknown}");
        }
    }
}
