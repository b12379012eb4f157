//! How rows are shown, to the API and on the command line alike. No secret has a view, but a key that was just made.

use std::collections::BTreeMap;

use convox_client::Probed;
use convox_model::{Event, Preset, RackId, Scope};
use convox_store::due::RollRule;
use convox_store::invitations::InvitationRow;
use convox_store::keys::KeyRow;
use convox_store::members::MemberRow;
use convox_store::orgs::OrgRow;
use convox_store::racks::RackRow;
use convox_store::rolls::RollRow;
use convox_store::users::UserRow;
use serde_json::{Value, json};

use crate::ops::keys::Made;
use crate::ops::racks::Added;

/// Milliseconds since 1970 as RFC 3339; null for none.
pub(crate) fn time(ms: impl Into<Option<i64>>) -> Value {
    match ms.into().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
        Some(time) => json!(time.to_string()),
        None => Value::Null,
    }
}

pub(crate) fn org(row: &OrgRow) -> Value {
    json!({ "id": row.id, "name": row.name, "created": time(row.created_ms) })
}

pub(crate) fn user(row: &UserRow) -> Value {
    json!({ "id": row.id, "email": row.email, "created": time(row.created_ms) })
}

pub(crate) fn member(row: &MemberRow) -> Value {
    json!({ "id": row.user, "email": row.email, "role": row.role, "created": time(row.created_ms) })
}

pub(crate) fn invitation(row: &InvitationRow) -> Value {
    json!({
        "id": row.id, "organization": row.org_name, "email": row.email, "role": row.role, "invited_by": row.invited_by,
        "created": time(row.created_ms), "expires": time(row.expires_ms),
    })
}

/// `names` are those of the Racks in scopes.
pub(crate) fn key(row: &KeyRow, names: &BTreeMap<RackId, String>) -> Value {
    let state = match (&row.scope, &row.replaces, row.rolled_ms) {
        (None, ..) => "unreadable",
        (_, Some(_), _) => "pending",
        (.., Some(_)) => "rolled",
        _ => "active",
    };
    let mut value = json!({
        "id": row.id, "email": row.email, "kind": row.kind, "name": row.name, "last4": row.last4, "state": state,
        "created": time(row.created_ms), "expires": time(row.expires_ms), "used": time(row.used_ms), "organization": row.org_name,
    });
    if let Some(scope) = &row.scope {
        value["racks"] = json!(scope.racks.iter().map(|id| names.get(id).cloned().unwrap_or_else(|| id.to_string())).collect::<Vec<_>>());
        value["apps"] = json!(scope.apps);
        value["may"] = json!(scope.may);
        value["networks"] = json!(scope.networks);
    }
    value
}

/// What a key is limited to, in words; empty for nothing.
pub(crate) fn scope(row: &KeyRow, names: &BTreeMap<RackId, String>) -> String {
    let Some(scope) = &row.scope else { return "unreadable: made by a newer version".to_owned() };
    let racks = scope.racks.iter().map(|id| names.get(id).cloned().unwrap_or_else(|| "a Rack that is gone".to_owned())).collect();
    let places: Vec<String> = if scope.racks.is_empty() { row.org_name.iter().map(|org| format!("{org}/*")).collect() } else { racks };
    let lists = [
        ("", places),
        ("apps ", scope.apps.iter().cloned().collect()),
        ("", preset_or_words(scope)),
        ("from ", scope.networks.iter().map(ToString::to_string).collect()),
    ];
    lists
        .iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(what, list)| format!("{what}{}", list.join(", ")))
        .collect::<Vec<_>>()
        .join("; ")
}

fn preset_or_words(scope: &Scope) -> Vec<String> {
    match Preset::ALL.into_iter().find(|preset| preset.may() == scope.may) {
        Some(preset) => vec![preset.as_str().to_owned()],
        None => scope.may.iter().map(ToString::to_string).collect(),
    }
}

pub(crate) fn rack(row: &RackRow) -> Value {
    json!({
        "id": row.id, "organization": row.org_name, "name": row.name, "provider": row.provider, "host": row.host, "pin": row.pin,
        "created": time(row.created_ms),
    })
}

/// How far the roll of a Rack's password is, and by which rule it is rolled.
pub(crate) fn roll(roll: Option<&RollRow>, rule: &RollRule) -> Value {
    let roll = roll.map(|roll| {
        json!({
            "step": roll.step.as_str(), "kind": roll.kind.as_str(), "reason": roll.reason, "started_by": roll.started_by,
            "started": time(roll.started_ms), "since": time(roll.step_ms), "window_seconds": roll.window_ms / 1000,
            "cut_streams": roll.cut, "fault": roll.fault,
        })
    });
    json!({
        "roll": roll, "every_days": rule.every_days, "entered_by_a_person": rule.is_known, "wanted": rule.wanted, "last_fault": rule.fault,
        "not_before": (rule.not_before_ms > 0).then(|| time(rule.not_before_ms)),
    })
}

/// A Rack that was just added, with what it showed of itself.
pub(crate) fn added(added: &Added) -> Value {
    let mut value = rack(&added.row);
    value["fingerprint"] = json!(added.probed.fingerprint.map(|fingerprint| fingerprint.to_string()));
    value["version"] = json!(added.probed.system.version);
    value
}

/// An audit event with its time as text too.
pub(crate) fn event(event: &Event) -> Value {
    let mut value = json!(event);
    value["at"] = time(event.at_ms);
    value
}

pub(crate) fn probed(probed: &Probed) -> Value {
    json!({
        "name": probed.system.name, "provider": probed.system.provider, "status": probed.system.status, "version": probed.system.version,
        "fingerprint": probed.fingerprint.map(|fingerprint| fingerprint.to_string()),
    })
}

/// The one place where a key's text is shown.
pub(crate) fn made_key(made: &Made) -> Value {
    json!({
        "id": made.id, "name": made.name, "kind": made.key.kind().as_str(), "api_key": made.key.reveal(), "last4": made.key.last4(),
        "expires": time(made.expires_ms),
    })
}
