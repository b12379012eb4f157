//! The audit event: who did what, where, when, allowed or refused and by which rule.

use serde::{Deserialize, Serialize};

use crate::text::misleads;

/// Longest text in a field, in characters; longer ones are cut, since an attacker chooses them.
const LONGEST: usize = 512;

/// One event. Texts are what was sent, cut but not changed; secrets have no field here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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
    /// Name of the organization at that time; empty where there is none.
    pub org: String,
    /// Its id: a name can change hands, and who may read the log of one organization may not read another's.
    pub org_id: String,
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
    /// What came back; `None` while unknown, and when the caller went away before.
    pub status: Option<u16>,
    /// Bytes from the caller to the Rack, bodies and tunnels; `None` until it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_up: Option<u64>,
    /// Bytes from the Rack to the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_down: Option<u64>,
    /// From the decision to the end, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
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

    /// One line of JSON, whatever is in the fields: control, bidirectional and invisible characters are escaped, and are there again for
    /// who reads the JSON.
    pub fn to_json_line(&self) -> String {
        let plain = serde_json::to_string(self).unwrap_or_default();
        // Nearly all of them; looking at bytes is quicker than at characters.
        if plain.bytes().all(|byte| byte < 0x7f) || !plain.contains(misleads) {
            return plain;
        }
        let mut line = String::with_capacity(plain.len() + 16);
        for c in plain.chars() {
            // Outside of its texts, JSON of serde has none of them.
            if misleads(c) {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| line.push_str(&format!("\\u{unit:04x}")));
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

    #[test]
    fn an_event_of_an_earlier_version_is_still_read() {
        let event: Event = serde_json::from_str(r#"{"id":"1","actor":"ada@example.com","since_removed":true}"#).unwrap();
        assert_eq!((event.actor.as_str(), event.status), ("ada@example.com", None));
    }

    /// What attackers put into names, paths and headers, and what any bytes become when they are made text.
    fn hostile() -> impl Strategy<Value = String> {
        let breaker = prop::sample::select(vec![
            "\r\n",
            "\n",
            "\0",
            "\u{1b}[2J",
            "\u{1b}]0;x\u{7}",
            "\u{9b}31m",
            "\u{85}",
            "\u{202e}",
            "\u{2066}",
            "\u{2028}",
            "\u{feff}",
            "\u{e0041}",
            "\u{e01ef}",
            "\"",
            "\\",
            "\\\"",
            "\",\"decision\":\"allowed",
            "}\n{",
            "\\u0000",
            "\u{fffd}",
            "\u{d7ff}",
            "\u{10ffff}",
            "é",
            "a",
        ]);
        prop_oneof![
            prop::collection::vec(breaker, 0..12).prop_map(|parts| parts.concat()),
            prop::collection::vec(any::<u8>(), 0..64).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            any::<String>(),
        ]
    }

    proptest! {
        #[test]
        fn fields_never_leak_into_each_other(texts in prop::collection::vec(hostile(), 16), at_ms in any::<i64>(), status in any::<Option<u16>>()) {
            let [id, request_id, actor, actor_id, key_last4, org, org_id, rack, app, effect, action, method, path, decision, rule, peer] =
                <[String; 16]>::try_from(texts).unwrap();
            let empty = Event { at_ms, status, ..Event::default() };
            let event = Event {
                id, request_id, actor, actor_id, key_last4, org, org_id, rack, app, effect, action, method, path, decision, rule, peer, ..empty.clone()
            };
            let line = event.to_json_line();
            prop_assert!(!line.contains(misleads), "{:?}", line);
            let fields = |line: &str| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line).unwrap().len();
            prop_assert_eq!(fields(&line), fields(&empty.to_json_line()), "as many as without any text");
            prop_assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }

        #[test]
        fn cutting_never_panics_and_never_cuts_twice(path in hostile(), repeat in 1usize..200) {
            let once = Event { path: path.repeat(repeat), ..Event::default() }.bounded();
            prop_assert!(once.path.chars().count() <= LONGEST);
            prop_assert_eq!(once.clone().bounded(), once);
        }
    }
}
