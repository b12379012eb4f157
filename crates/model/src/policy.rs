//! The rights: a pure function from who, where and what to yes or no. Default deny.
//!
//! | effect | developer | operator | administrator |
//! |---|---|---|---|
//! | `read` | everywhere | everywhere | everywhere |
//! | `read-secret`, `write`, `shell` | on routes that name an app, and making an app | everywhere | everywhere |
//! | `admin` | - | - | everywhere |
//!
//! "Everywhere" means every Rack of an organization in which the principal is a member. For anybody else, its Racks do not exist.

use convox_wire::routes::{Effect, Route};

use crate::id::OrgId;
use crate::principal::{Principal, Role};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Whose Rack.
    pub org: &'a OrgId,
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
        /// The least role that would do.
        needs: Option<Role>,
    },
}

/// Whether `principal` may do `request`.
pub fn decide(principal: &Principal, request: &Request<'_>) -> Decision {
    let Some(role) = principal.role_in(request.org) else {
        return Decision::Deny { rule: "not-a-member", visible: false, needs: None };
    };
    let on_app = request.app.is_some() || request.route.name == "AppCreate";
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
        }
    }

    fn allowed(principal: &Principal, org: &OrgId, route: &'static Route) -> bool {
        let app = route.pattern.starts_with("/apps/{app}").then_some("web");
        matches!(decide(principal, &Request { org, route, app }), Decision::Allow { .. })
    }

    /// The whole matrix: every route of both generations for every role, against the table in words above.
    #[test]
    fn every_route_and_role_is_as_the_table_says() {
        let org = OrgId::new();
        let (developer, operator, administrator) =
            (member(&org, Some(Role::Developer)), member(&org, Some(Role::Operator)), member(&org, Some(Role::Administrator)));
        let mut checked = 0;
        for route in ROUTES {
            let on_app = route.pattern.starts_with("/apps/{app}") || route.name == "AppCreate";
            let expected = match route.effect {
                Effect::Read => (true, true, true),
                Effect::Admin => (false, false, true),
                _ => (on_app, true, true),
            };
            let found = (allowed(&developer, &org, route), allowed(&operator, &org, route), allowed(&administrator, &org, route));
            assert_eq!(found, expected, "{} {} {}", route.method, route.pattern, route.effect);
            checked += 1;
        }
        assert!(checked > 110, "the table has shrunk to {checked} rows");
    }

    #[test]
    fn a_stranger_does_not_learn_that_a_rack_exists() {
        let (org, other) = (OrgId::new(), OrgId::new());
        for principal in [member(&org, None), member(&other, Some(Role::Administrator))] {
            for route in ROUTES {
                let decision = decide(&principal, &Request { org: &org, route, app: Some("web") });
                assert_eq!(decision, Decision::Deny { rule: "not-a-member", visible: false, needs: None }, "{}", route.pattern);
            }
        }
    }

    #[test]
    fn nobody_below_administrator_makes_credentials_or_opens_hosts() {
        let org = OrgId::new();
        for name in ["SystemJwtToken", "SystemJwtSignKeyRotate", "InstanceKeyroll", "KubernetesProxy"] {
            let route = ROUTES.iter().find(|route| route.name == name).unwrap();
            assert!(!allowed(&member(&org, Some(Role::Operator)), &org, route), "{name}");
        }
        for name in ["InstanceShell", "Proxy", "SystemUpdate", "RegistryList"] {
            let route = ROUTES.iter().find(|route| route.name == name).unwrap();
            assert!(!allowed(&member(&org, Some(Role::Developer)), &org, route), "{name}");
        }
    }
}
