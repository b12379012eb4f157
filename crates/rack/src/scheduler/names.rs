//! Whose a host name is. The first app that begins to run a release which names it has it, and keeps it until no release of that app that runs
//! names it any more: whoever may deploy one app cannot take the callers of another.

use std::collections::BTreeMap;

use super::{App, DesiredApp, Inner};

/// A name that a release wants and another app has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) name: String,
    pub(super) owner: String,
}

impl Inner {
    /// Names under which the services of a release are served.
    pub(super) fn names(&self, desired: &DesiredApp) -> Vec<String> {
        desired.manifest.services.iter().flat_map(|service| self.hosts(&desired.app, service)).collect()
    }

    /// The first name of a release that is another app's.
    pub(super) fn foreign_name(&self, apps: &BTreeMap<String, App>, desired: &DesiredApp) -> Option<Foreign> {
        self.names(desired).into_iter().find_map(|name| {
            let owner = self.owner(apps, &desired.app, &name)?;
            Some(Foreign { name, owner })
        })
    }

    /// The app that has a name, if it is another than this one.
    fn owner(&self, apps: &BTreeMap<String, App>, app: &str, name: &str) -> Option<String> {
        // Below the Rack's own name every app has names, whether it runs already or not.
        let of = self.config.router.domain.as_deref().and_then(|domain| app_of(name, domain));
        if let Some(other) = of.filter(|other| *other != app) {
            return Some(other.to_owned());
        }
        let has_it = |entry: &App| {
            let runs = entry.desired.iter().flat_map(|desired| self.names(desired));
            let begins = entry.promotion.iter().flat_map(|promotion| promotion.names.iter().cloned());
            let is_held = entry.held.iter().flat_map(|held| held.names.iter().cloned());
            runs.chain(begins).chain(is_held).any(|theirs| theirs == name)
        };
        apps.iter().find(|(other, entry)| *other != app && has_it(entry)).map(|(other, _)| other.clone())
    }
}

/// The app that a name below the Rack's own is made for, as `shop` in `web.shop.apps.example.com`.
fn app_of<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    let (_, app) = name.strip_suffix(domain)?.strip_suffix('.')?.rsplit_once('.')?;
    Some(app)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_the_racks_own_are_those_of_the_app_that_they_name() {
        let of = |name| app_of(name, "apps.example.com");
        assert_eq!([of("web.shop.apps.example.com"), of("*.shop.apps.example.com")], [Some("shop"); 2]);
        for other in ["apps.example.com", "shop.apps.example.com", "web.shop.example.com", "webshop.xapps.example.com", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
