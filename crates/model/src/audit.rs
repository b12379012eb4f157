//! The audit event: who did what, where, when, allowed or refused and by which rule.

use serde::{Deserialize, Serialize};

/// Longest text in a field, in characters; longer ones are cut, since an attacker chooses them.
const LONGEST: usize = 512;

/// One event. Texts are what was sent, cut but not changed; secrets have no field here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// UUIDv7.
    pub id: String,
    /// Milliseconds since 1970, UTC.
    pub at_ms: i64,
    /// Of the request, as the caller saw it.
    pub request_id: String,
    /// Address of the user, or what stands for it (`console command line`, `unknown`).
    pub actor: String,
    /// Id of the user; empty when unknown.
    pub actor_id: String,
    /// Last four characters of the key; empty without one.
    pub key_last4: String,
    /// Name of the organization; empty where there is none.
    pub org: String,
    /// Name of the Rack; empty where there is none.
    pub rack: String,
    /// App that the path named.
    pub app: String,
    /// `write`, `shell`, ... or `console` for the Console's own changes.
    pub effect: String,
    /// What was done: name of the route or use case.
    pub action: String,
    /// Method of the request.
    pub method: String,
    /// Path without its query.
    pub path: String,
    /// `allowed` or `refused`.
    pub decision: String,
    /// Which rule.
    pub rule: String,
    /// Address of the caller.
    pub peer: String,
    /// What came back; `None` while unknown.
    pub status: Option<u16>,
}

impl Event {
    /// Cuts what a caller chose to a bounded length.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for field in [&mut self.actor, &mut self.rack, &mut self.app, &mut self.method, &mut self.path, &mut self.action, &mut self.org] {
            if let Some((end, _)) = field.char_indices().nth(LONGEST) {
                field.truncate(end);
            }
        }
        self
    }

    /// One line of JSON, whatever is in the fields: control, bidirectional and invisible characters are escaped.
    pub fn to_json_line(&self) -> String {
        let plain = serde_json::to_string(self).unwrap_or_default();
        let mut line = String::with_capacity(plain.len());
        for c in plain.chars() {
            let invisible = matches!(c, '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}');
            if invisible {
                line.push_str(&format!("\\u{:04x}", u32::from(c)));
            } else {
                line.push(c);
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_is_one_line_however_hostile() {
        let event = Event { path: "/apps/\r\n{\"x\":1}\u{1b}[31m\u{202e}\u{2028}".to_owned(), ..Event::default() };
        let line = event.to_json_line();
        assert!(line.chars().all(|c| !c.is_control() && c != '\u{202e}' && c != '\u{2028}'), "{line}");
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }

    #[test]
    fn what_a_caller_chose_is_bounded() {
        let event = Event { path: "é".repeat(10_000), ..Event::default() }.bounded();
        assert_eq!(event.path.chars().count(), LONGEST);
    }

    proptest! {
        #[test]
        fn fields_never_leak_into_each_other(actor in any::<String>(), path in any::<String>(), rack in any::<String>()) {
            let event = Event { actor, rack, path, ..Event::default() };
            let line = event.to_json_line();
            prop_assert!(!line.contains('\n') && !line.contains('\r'));
            prop_assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
    }
}
