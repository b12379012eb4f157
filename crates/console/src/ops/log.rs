//! Reading the audit log, and how long it is kept.

use convox_model::{Event, OrgId, Role};
use convox_store::audit::Filter;
use convox_store::audit::retention::Rule;
use convox_store::{Act, Page};

use super::{Actor, Ops, OpsError};

impl Ops {
    /// Audit events, newest first: of one organization, for its operators; on the command line of all.
    pub(crate) async fn list_audit(&self, actor: &Actor, org: Option<&str>, filter: Filter, page: &Page) -> Result<Vec<Event>, OpsError> {
        let org = match org {
            Some(name) => Some(self.enter(actor, name, Role::Operator).await?.org.id),
            None if actor.principal.is_none() => None,
            None => return Err(OpsError::Input("whose audit log? name an organization".to_owned())),
        };
        Ok(self.store.list_audit(&Filter { org, ..filter }, page).await?)
    }

    /// How long events are kept, by name of the organization; `-` for what belongs to none.
    pub(crate) async fn list_audit_rules(&self) -> Result<Vec<(String, Rule)>, OpsError> {
        let mut named = Vec::new();
        for (org_id, rule) in self.store.list_audit_rules().await? {
            let org = self.store.find_org_by_id(&OrgId::from_text(&org_id)).await?;
            named.push((org.map_or_else(|| if org_id.is_empty() { "-".to_owned() } else { org_id.clone() }, |org| org.name), rule));
        }
        Ok(named)
    }

    /// The rule of one organization, or of what belongs to none, with its id.
    pub(crate) async fn audit_rule(&self, actor: &Actor, org: Option<&str>) -> Result<(String, Rule), OpsError> {
        let org_id = match org {
            Some(name) => self.enter(actor, name, Role::Administrator).await?.org.id.to_string(),
            None => String::new(),
        };
        let rules = self.store.list_audit_rules().await?;
        let rule = rules.into_iter().find(|(id, _)| *id == org_id).map(|(_, rule)| rule).unwrap_or_default();
        Ok((org_id, rule))
    }

    /// Sets it.
    pub(crate) async fn set_audit_rule(&self, actor: &Actor, org: Option<&str>, org_id: &str, rule: Rule) -> Result<i64, OpsError> {
        let act = self.rule_act(actor, org, org_id, "AuditRetention", &rule);
        Ok(self.store.set_audit_rule(org_id, rule, &act).await?)
    }

    /// Removes what is older than the rules keep; gives how many entries went. That it happens is in the log.
    pub(crate) async fn prune_audit(&self, actor: &Actor) -> Result<u64, OpsError> {
        let mut removed = 0;
        for (org_id, rule) in self.store.list_audit_rules().await? {
            let Some(before_ms) = rule.cutoff_ms(self.clock.now_ms()) else { continue };
            if !self.store.has_audit_before(&org_id, before_ms).await? {
                continue;
            }
            let org = self.store.find_org_by_id(&OrgId::from_text(&org_id)).await?;
            let act = self.rule_act(actor, org.as_ref().map(|org| org.name.as_str()), &org_id, "AuditPrune", &rule);
            self.store.announce_prune(&act).await?;
            removed += self.store.prune_audit(&org_id, before_ms).await?;
        }
        Ok(removed)
    }

    fn rule_act(&self, actor: &Actor, org: Option<&str>, org_id: &str, action: &str, rule: &Rule) -> Act {
        let target = org.map_or_else(|| "/audit".to_owned(), |name| format!("/organizations/{name}/audit"));
        let mut act = Act::host(actor.event(&*self.clock, action, target));
        org.unwrap_or_default().clone_into(&mut act.event.org);
        org_id.clone_into(&mut act.event.org_id);
        let days = rule.keep_ms.map_or_else(|| "for ever".to_owned(), |ms| format!("for {} days", ms / 86_400_000));
        act.event.rule = format!("keep {days}{}", if rule.hold { ", on hold" } else { "" });
        act
    }
}
