//! On whose behalf a change is made: its audit event, and what must still hold at the moment of its commit.
//!
//! A caller's key and role are looked up when their request comes in. By the time of the change they may be gone: whoever revoked them has
//! been told that they are. So the change looks again, in its own transaction.

use convox_model::{Event, KeyId, OrgId, Role};
use convox_seal::KeyKind;

use crate::StoreError;

/// On whose behalf, and what is written down.
#[derive(Clone, Debug)]
pub struct Act {
    /// Goes into the audit log with the change.
    pub event: Event,
    /// The key or session that asks; `None` for the command line on the server itself.
    pub key: Option<KeyId>,
    /// The least role that the key's owner must have, and where.
    pub needs: Option<(OrgId, Role)>,
}

impl Act {
    /// By the command line on the server itself, which nobody can revoke: it has the database.
    pub fn host(event: Event) -> Self {
        Self { event, key: None, needs: None }
    }
}

/// What the acting key is, as of the transaction: kind, end, role of its owner where one is needed, and whether it is whole: `{}` and no
/// organization.
pub(crate) type Standing = Option<(String, Option<i64>, Option<String>, String, Option<String>)>;

/// Judges it. Refuses what is gone meanwhile, and keys of machines: those work on Racks, not on the Console.
pub(crate) fn judge(act: &Act, standing: Standing) -> Result<(), StoreError> {
    let refused = |words: &str| Err(StoreError::Refused(words.to_owned()));
    let Some((kind, expires_ms, role, scope, only_org)) = standing else {
        return refused("your API key was revoked, or you were signed out, meanwhile");
    };
    let is_session = kind == KeyKind::Session.as_str();
    if expires_ms.is_some_and(|end| end <= act.event.at_ms) {
        return refused(if is_session { "your session has ended meanwhile; sign in again" } else { "your API key has ended meanwhile" });
    }
    if kind != KeyKind::User.as_str() && !is_session {
        return refused("a deploy key works on Racks; use a key of your own to change the Console");
    }
    if scope != "{}" || only_org.is_some() {
        return refused("this key is limited to some Racks or commands; use a whole key of your own to change the Console");
    }
    match &act.needs {
        Some((_, needed)) if role.and_then(|role| role.parse::<Role>().ok()).is_none_or(|role| role < *needed) => {
            refused("your role was changed meanwhile")
        }
        _ => Ok(()),
    }
}

/// Checks inside a transaction that the act may still be done.
macro_rules! check {
    ($tx:ident, $act:expr) => {
        if let Some(key) = &$act.key {
            let standing: $crate::act::Standing = sqlx::query_as(
                "SELECT k.kind, k.expires_ms, m.role, k.scope, k.org_id FROM keys k LEFT JOIN members m ON m.user_id = k.user_id AND m.org_id = $2 WHERE k.id = $1",
            )
            .bind(key.as_str())
            .bind($act.needs.as_ref().map(|(org, _)| org.as_str()).unwrap_or_default())
            .fetch_optional(&mut *$tx)
            .await?;
            $crate::act::judge($act, standing)?;
        }
    };
}
pub(crate) use check;

#[cfg(test)]
mod tests {
    use super::*;

    fn act(needs: Option<Role>) -> Act {
        Act { event: Event { at_ms: 1_000, ..Event::default() }, key: Some(KeyId::new()), needs: needs.map(|role| (OrgId::new(), role)) }
    }

    #[expect(clippy::unnecessary_wraps, reason = "a standing that is there, beside `None` for one that is not")]
    fn standing(kind: &str, expires_ms: Option<i64>, role: Option<&str>) -> Standing {
        Some((kind.to_owned(), expires_ms, role.map(str::to_owned), "{}".to_owned(), None))
    }

    #[test]
    fn who_has_the_right_still_has_it() {
        assert!(judge(&act(None), standing("user", None, None)).is_ok());
        assert!(judge(&act(Some(Role::Operator)), standing("user", Some(1_001), Some("operator"))).is_ok());
        assert!(judge(&act(Some(Role::Operator)), standing("user", None, Some("administrator"))).is_ok());
        assert!(judge(&act(Some(Role::Operator)), standing("session", Some(1_001), Some("operator"))).is_ok());
    }

    #[test]
    fn a_limited_key_changes_nothing() {
        for (scope, org) in [(r#"{"apps":["shop"]}"#, None), ("{}", Some("acme".to_owned())), ("", None)] {
            let limited = Some(("user".to_owned(), None, Some("administrator".to_owned()), scope.to_owned(), org));
            assert!(matches!(judge(&act(None), limited), Err(StoreError::Refused(_))), "{scope}");
        }
    }

    #[test]
    fn whoever_lost_it_is_refused() {
        let operator = || act(Some(Role::Operator));
        for (act, standing) in [
            (act(None), None),
            (act(None), standing("user", Some(1_000), None)),
            (act(None), standing("session", Some(1_000), None)),
            (act(None), standing("invitation", None, None)),
            (act(None), standing("deploy", None, None)),
            (act(None), standing("setup", None, None)),
            (operator(), standing("user", None, None)),
            (operator(), standing("user", None, Some("developer"))),
            (operator(), standing("user", None, Some("emperor"))),
        ] {
            let refusal = judge(&act, standing.clone());
            assert!(matches!(refusal, Err(StoreError::Refused(_))), "{standing:?}");
        }
    }
}
