//! The two forms of an error on the wire: plain text, and `{"error":"..."}` for those who ask for JSON (protocol 1.7).

use serde_json::Value;

/// The words of an error reply, as the clients find them: `error` of a JSON object, else the trimmed text, else the status.
pub fn body_message(status: u16, body: &[u8]) -> String {
    if let Ok(Value::Object(object)) = serde_json::from_slice(body)
        && let Some(Value::String(message)) = object.get("error")
        && !message.is_empty()
    {
        return message.clone();
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if text.is_empty() { format!("response status {status}") } else { text.to_owned() }
}

/// `{"error":"message"}`
pub fn json_body(message: &str) -> String {
    Value::Object(std::iter::once(("error".to_owned(), Value::String(message.to_owned()))).collect()).to_string()
}

/// Makes a message safe for Go clients, which use it as a format: no `%`, one line, no control characters.
pub fn safe_message(message: &str) -> String {
    message
        .chars()
        .map(|c| {
            if c == '%' {
                '\u{ff05}'
            } else if c.is_control() {
                ' '
            } else {
                c
            }
        })
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_found_where_clients_look() {
        assert_eq!(body_message(404, b"app not found: x\n"), "app not found: x");
        assert_eq!(body_message(400, json_body("no \"x\"").as_bytes()), "no \"x\"");
        assert_eq!(body_message(404, b""), "response status 404");
        assert_eq!(body_message(500, b"{\"error\":\"\"}"), "{\"error\":\"\"}");
        assert_eq!(body_message(500, b"\xff"), "\u{fffd}");
        assert_eq!(safe_message("100%s\n"), "100％s");
    }
}
