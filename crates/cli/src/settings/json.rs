//! JSON exactly as the originals write it: two spaces, sorted keys, `<`, `>` and `&` escaped, no newline at the end.

use super::Map;

/// An object of texts. Values that are no text (a hand edit, another program) are an error rather than lost.
pub(super) fn parse(text: &str) -> Result<Map, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

pub(super) fn format(map: &Map) -> String {
    escape(&serde_json::to_string_pretty(map).unwrap_or_else(|_| "{}".to_owned()))
}

/// Go's HTML-safe form. Applies to a whole document: these characters occur in texts only.
pub(super) fn escape(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_on_the_way_there_and_back() {
        let map: Map = [("a", "<&>\u{2028}\"\\\n"), ("ü", "")].into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        assert_eq!(parse(&format(&map)).unwrap(), map);
        assert_eq!(format(&Map::new()), "{}");
        assert!(parse("[]").is_err());
        assert!(parse("{\"a\": 1}").is_err());
    }
}
