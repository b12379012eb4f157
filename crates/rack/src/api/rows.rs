//! Handlers and rows belong together, and the compiler sees to it: a handler of a name that no row of the route table has is an error, so
//! nothing can be served past the table's effects.

use convox_wire::routes::ROUTES;

/// The row that needs no credential.
pub(super) const CHECK: &str = row("Check");
/// The row that needs nothing but a credential.
pub(super) const AUTH: &str = row("Auth");

/// The name itself, if a row has it; else this does not compile.
pub(super) const fn row(name: &'static str) -> &'static str {
    assert!(has_row(name), "no row of the route table has this name: add one to convox_wire::routes, with its effect");
    name
}

const fn has_row(name: &str) -> bool {
    let mut at = 0;
    while at < ROUTES.len() {
        if is_same(ROUTES[at].name.as_bytes(), name.as_bytes()) {
            return true;
        }
        at += 1;
    }
    false
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A `match` on the name of a row.
macro_rules! handlers {
    ($name:expr, { $($($row:literal)|+ => $handler:expr,)+ _ => $otherwise:expr $(,)? }) => {{
        // Items, not inline constants: those are looked at by a check too.
        $($(const _: &str = $crate::api::rows::row($row);)+)+
        match $name {
            $($($row)|+ => $handler,)+
            _ => $otherwise,
        }
    }};
}
pub(super) use handlers;

/// What a row without a handler is for, in words for whoever asked: a row's name is ours, and tells nobody anything.
pub(super) fn lacking(name: &str) -> &'static str {
    match name {
        "InstanceTerminate" => "ending machines; this rack is the machine that it runs on, and its hosts are given at its start (--host)",
        "AppDiagnose" => {
            "diagnoses of a deploy; `convox logs -a APP --since 10m --no-follow` and `convox builds logs BUILD` say why one failed"
        }
        "AppManifestService" | "AppManifest" => "manifests of a service; `convox releases manifest RELEASE` has the whole one",
        "AppCost" => "costs; it has no prices",
        "MetricsByService" => "a history of metrics; `convox ps` and `convox instances` say what is known now",
        "SetDBDeletionProtectionAndCreateSnapShot" | "IsDBSnapshotComplete" | "DeleteDB" => {
            "snapshots of databases; `convox resources export NAME` saves one"
        }
        "KarpenterCleanup" => "Karpenter, which exists on AWS only",
        "SystemSyncInstancesIp" => "security groups, which exist on AWS only",
        "LetsEncryptConfigGet" | "LetsEncryptConfigApply" => "solvers of Let's Encrypt; start convox-rack with --acme-directory",
        "EventSend" => "events from outside",
        "RegistryProxy" => "a registry of images",
        "ProxyHttpService" | "KubernetesProxy" => "Kubernetes",
        name if name.starts_with("AppBudget") => "budgets; it has no prices",
        name if name.starts_with("SystemResource") => {
            "resources of the rack; they belong to apps: name them in convox.yml, and see `convox resources`"
        }
        name if name.starts_with("ServiceTriggers") || name.starts_with("ServiceScale") => {
            "automatic scaling; set a count: `convox scale SERVICE --count N`"
        }
        name if name.starts_with("Classic") => "calls of racks before July 2018; a newer convox makes others",
        _ => "this call",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_rack_lacks_is_told_in_words() {
        let known = [include_str!("mod.rs"), include_str!("streams.rs")].concat();
        for route in ROUTES.iter().filter(|route| !known.contains(&format!("\"{}\"", route.name)) && ![AUTH, CHECK].contains(&route.name)) {
            assert_ne!(lacking(route.name), "this call", "{} has no handler: say what is not there", route.name);
        }
    }

    #[test]
    fn a_name_is_a_row_as_a_whole_or_not_at_all() {
        assert!(has_row("AppGet") && has_row("ProcessExec"));
        for other in ["", "App", "AppGe", "AppGets", "appget"] {
            assert!(!has_row(other), "{other}");
        }
    }
}
