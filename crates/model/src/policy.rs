//! The rights: a pure function from who, where and what to yes or no. Default deny.
//!
//! | effect | developer | operator | administrator |
//! |---|---|---|---|
//! | `read` | everywhere | everywhere | everywhere |
//! | `read-secret`, `write`, `shell` | on routes that name an app, and making an app | everywhere | everywhere |
//! | `admin` | - | - | everywhere |
//!
//! What is about a Rack's password is for nobody: the Console rolls it by itself.
//!
//! "Everywhere" means every Rack of an organization in which the principal is a member. For anybody else, its Racks do not exist.
//!
//! The scope of the key comes on top of that and only takes away ([`Scope`](crate::Scope)).

use convox_wire::routes::{Effect, Route};

use crate::id::{OrgId, RackId};
use crate::principal::{Principal, Role};
use crate::scope::OutOfScope;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Whose Rack.
    pub org: &'a OrgId,
    /// Which Rack.
    pub rack: &'a RackId,
    /// The row of the route table.
    pub route: &'static Route,
    /// The app that the path names.
    pub app: Option<&'a str>,
}

/// The answer, with the rule that gave it: for the audit log and for "why".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow {
        /// Which rule.
        rule: &'static str,
    },
    /// No.
    Deny {
        /// Which rule.
        rule: &'static str,
        /// Whether the caller may know that the Rack exists: 403 if so, else 404.
        visible: bool,
        /// The least role that would do, where the role is what is missing.
        needs: Option<Role>,
    },
}

/// Whether `principal` may do `request`.
pub fn decide(principal: &Principal, request: &Request<'_>) -> Decision {
    let Some(role) = principal.role_in(request.org) else {
        return Decision::Deny { rule: "not-a-member", visible: false, needs: None };
    };
    let outside = principal.scope.as_ref().and_then(|scope| scope.refuses(request.org, request.rack, request.route, request.app));
    if let Some(outside) = outside {
        let (rule, visible) = match outside {
            OutOfScope::Organization => ("key-scope-organization", false),
            OutOfScope::Rack => ("key-scope-rack", false),
            OutOfScope::App => ("key-scope-app", true),
            OutOfScope::Command => ("key-scope-command", true),
        };
        return Decision::Deny { rule, visible, needs: None };
    }
    if request.route.is_about_the_password() {
        return Decision::Deny { rule: "console-rolls-passwords", visible: true, needs: None };
    }
    // The row says whether the path names an app; who calls cannot make an app's route of a Rack's.
    let names_app = request.app.is_some() && request.route.pattern.starts_with("/apps/{app}");
    let on_app = names_app || request.route.name == "AppCreate";
    let needs = match request.route.effect {
        Effect::Read => Role::Developer,
        Effect::ReadSecret | Effect::Write | Effect::Shell if on_app => Role::Developer,
        Effect::ReadSecret | Effect::Write | Effect::Shell => Role::Operator,
        Effect::Admin => Role::Administrator,
    };
    if role >= needs {
        return Decision::Allow {
            rule: match role {
                Role::Developer => "developer",
                Role::Operator => "operator",
                Role::Administrator => "administrator",
            },
        };
    }
    let rule = match needs {
        Role::Developer => "needs-developer",
        Role::Operator => "needs-operator",
        Role::Administrator => "needs-administrator",
    };
    Decision::Deny { rule, visible: true, needs: Some(needs) }
}

#[cfg(test)]
mod tests {
    use convox_wire::routes::ROUTES;

    use super::*;
    use crate::id::UserId;
    use crate::principal::Grant;

    fn member(org: &OrgId, role: Option<Role>) -> Principal {
        Principal {
            user: UserId::new(),
            email: "ada@example.com".to_owned(),
            key: None,
            key_last4: String::new(),
            grants: role.map(|role| Grant { org: org.clone(), role }).into_iter().collect(),
            is_deploy: false,
            scope: None,
        }
    }

    fn allowed(principal: &Principal, org: &OrgId, route: &'static Route) -> bool {
        // Whether it says so or not: only the row counts.
        matches!(decide(principal, &Request { org, rack: &RackId::new(), route, app: Some("web") }), Decision::Allow { .. })
    }

    fn row(name: &str) -> &'static Route {
        ROUTES.iter().find(|route| route.name == name).unwrap()
    }

    // Every route for every role: tests/rights.rs.

    #[test]
    fn a_stranger_does_not_learn_that_a_rack_exists() {
        let (org, other) = (OrgId::new(), OrgId::new());
        for principal in [member(&org, None), member(&other, Some(Role::Administrator))] {
            for route in ROUTES {
                let decision = decide(&principal, &Request { org: &org, rack: &RackId::new(), route, app: Some("web") });
                assert_eq!(decision, Decision::Deny { rule: "not-a-member", visible: false, needs: None }, "{}", route.pattern);
            }
        }
    }

    #[test]
    fn a_role_counts_in_its_own_organization_only() {
        let (here, there) = (OrgId::new(), OrgId::new());
        let grants = [Grant { org: there.clone(), role: Role::Administrator }, Grant { org: here.clone(), role: Role::Developer }];
        let principal = Principal { grants: grants.into_iter().collect(), ..member(&here, None) };
        assert!(allowed(&principal, &there, row("SystemUpdate")));
        assert!(!allowed(&principal, &here, row("SystemUpdate")));
    }

    #[test]
    fn nobody_below_administrator_makes_credentials_or_opens_hosts() {
        let org = OrgId::new();
        for name in ["SystemJwtToken", "SystemJwtSignKeyRotate", "SystemUpdate", "InstanceKeyroll", "KubernetesProxy"] {
            assert!(!allowed(&member(&org, Some(Role::Operator)), &org, row(name)), "{name}");
        }
        for name in ["InstanceShell", "Proxy", "RegistryList", "SystemResourceUnlink"] {
            assert!(!allowed(&member(&org, Some(Role::Developer)), &org, row(name)), "{name}");
        }
    }

    #[test]
    fn nobody_changes_a_racks_password_behind_the_console() {
        let org = OrgId::new();
        let routes: Vec<_> = ROUTES.iter().filter(|route| route.is_about_the_password()).collect();
        assert_eq!(routes.len(), 4);
        for route in routes {
            assert!(Role::ALL.into_iter().all(|role| !allowed(&member(&org, Some(role)), &org, route)), "{}", route.name);
        }
    }

    #[test]
    fn a_scope_only_takes_away() {
        use crate::scope::{EffectName, May, Preset, Scope};
        let (org, rack) = (OrgId::new(), RackId::new());
        let all_effects = Effect::ALL.map(EffectName).map(May::Effect);
        let scopes = [
            Scope { org: Some(org.clone()), ..Scope::default() },
            Scope { racks: [rack.clone()].into(), ..Scope::default() },
            Scope { apps: ["web".to_owned()].into(), ..Scope::default() },
            Scope { may: Preset::CiLegacy.may(), ..Scope::default() },
            Scope { may: all_effects.into(), ..Scope::default() },
        ];
        for scope in scopes {
            for role in Role::ALL {
                let whole = member(&org, Some(role));
                let key = Principal { scope: Some(scope.clone().into()), ..whole.clone() };
                for (route, app) in ROUTES.iter().flat_map(|route| [None, Some("web"), Some("other")].map(|app| (route, app))) {
                    let request = Request { org: &org, rack: &rack, route, app };
                    if let Decision::Allow { .. } = decide(&key, &request) {
                        assert!(matches!(decide(&whole, &request), Decision::Allow { .. }), "{role} {} {scope:?}", route.name);
                    }
                }
            }
        }
    }

    #[test]
    fn a_refusal_names_what_is_missing_in_the_scope_and_hides_what_the_key_is_not_for() {
        use crate::scope::{May, Scope};
        let (org, rack, other) = (OrgId::new(), RackId::new(), RackId::new());
        let rule = |scope: Scope, rack: &RackId, name: &str, app: Option<&str>| {
            let key = Principal { scope: Some(scope.into()), ..member(&org, Some(Role::Administrator)) };
            match decide(&key, &Request { org: &org, rack, route: row(name), app }) {
                Decision::Allow { .. } => ("allowed", true),
                Decision::Deny { rule, visible, needs } => {
                    assert_eq!(needs, None, "no role would do");
                    (rule, visible)
                }
            }
        };
        let elsewhere = Scope { org: Some(OrgId::new()), ..Scope::default() };
        assert_eq!(rule(elsewhere, &rack, "AppGet", Some("web")), ("key-scope-organization", false));
        let one_rack = || Scope { racks: [rack.clone()].into(), ..Scope::default() };
        assert_eq!(rule(one_rack(), &other, "AppGet", Some("web")), ("key-scope-rack", false));
        assert_eq!(rule(one_rack(), &rack, "AppGet", Some("web")), ("allowed", true));
        let one_app = || Scope { apps: ["web".to_owned()].into(), ..Scope::default() };
        for (name, app) in [("AppGet", Some("other")), ("AppList", None), ("AppCreate", None), ("SystemLogs", None), ("Proxy", Some("web"))]
        {
            assert_eq!(rule(one_app(), &rack, name, app), ("key-scope-app", true), "{name}");
        }
        for (name, app) in [("AppGet", Some("web")), ("SystemGet", None), ("ProcessExec", Some("web"))] {
            assert_eq!(rule(one_app(), &rack, name, app), ("allowed", true), "{name}");
        }
        let build = || Scope { may: ["build".parse::<May>().unwrap()].into(), ..Scope::default() };
        assert_eq!(rule(build(), &rack, "ReleasePromote", Some("web")), ("key-scope-command", true));
        assert_eq!(rule(build(), &rack, "BuildCreate", Some("web")), ("allowed", true));
    }

    #[test]
    fn an_app_route_without_its_app_is_no_app_route() {
        let org = OrgId::new();
        let rack = RackId::new();
        let request = Request { org: &org, rack: &rack, route: row("ProcessExec"), app: None };
        let needs = Decision::Deny { rule: "needs-operator", visible: true, needs: Some(Role::Operator) };
        assert_eq!(decide(&member(&org, Some(Role::Developer)), &request), needs);
    }

    #[test]
    fn a_higher_role_may_what_a_lower_may_and_a_refusal_names_what_would_do() {
        let org = OrgId::new();
        for route in ROUTES.iter().filter(|route| !route.is_about_the_password()) {
            let rack = RackId::new();
            let request = Request { org: &org, rack: &rack, route, app: Some("web") };
            let decisions = Role::ALL.map(|role| decide(&member(&org, Some(role)), &request));
            let least = Role::ALL.into_iter().zip(decisions).find(|(_, decision)| matches!(decision, Decision::Allow { .. }));
            let (least, _) = least.expect("an administrator may do everything");
            for (role, decision) in Role::ALL.into_iter().zip(decisions) {
                match decision {
                    Decision::Allow { rule } => assert!(role >= least && rule == role.as_str(), "{}", route.name),
                    Decision::Deny { needs, visible, .. } => {
                        assert!(role < least && needs == Some(least) && visible, "{}", route.name);
                    }
                }
            }
        }
    }
}
