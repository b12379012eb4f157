//! Names and ids: what the originals make, and what we accept in a path.

/// `B` and ten letters A-Z, from ten random bytes. The slight bias of the modulus does not matter: an id is no secret.
pub fn build_id(random: [u8; 10]) -> String {
    letters('B', random)
}

/// `R` and ten letters A-Z.
pub fn release_id(random: [u8; 10]) -> String {
    letters('R', random)
}

fn letters(kind: char, random: [u8; 10]) -> String {
    std::iter::once(kind).chain(random.iter().map(|byte| char::from(b'A' + byte % 26))).collect()
}

/// `web-` style process ids: twelve lower-case hex digits of six random bytes.
pub fn process_id(random: [u8; 6]) -> String {
    use std::fmt::Write as _;
    random.iter().fold(String::with_capacity(12), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// A request id: twelve lower-case hex digits.
pub fn request_id(random: [u8; 6]) -> String {
    process_id(random)
}

/// `[a-z][a-z0-9-]*`, at most 63 characters, not ending in a dash: names of apps and services, which become host names.
pub fn is_valid_app_name(name: &str) -> bool {
    is_label(name, 63)
}

/// `[a-z][a-z0-9-]*`, at most 26 characters, not ending in a dash.
pub fn is_valid_rack_name(name: &str) -> bool {
    is_label(name, 26)
}

fn is_label(name: &str, longest: usize) -> bool {
    let mut bytes = name.bytes();
    name.len() <= longest
        && bytes.next().is_some_and(|byte| byte.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_that_clients_expect() {
        assert_eq!(build_id([0, 1, 25, 26, 255, 3, 4, 5, 6, 7]), "BABZAVDEFGH");
        assert_eq!(release_id([0; 10]), "RAAAAAAAAAA");
        assert_eq!(process_id([0, 255, 1, 2, 3, 4]), "00ff01020304");
    }

    #[test]
    fn names_become_host_names() {
        assert!(is_valid_app_name("web-2"));
        for bad in ["", "2web", "Web", "web_", "web-", "a.b", "a/b", "é", &"a".repeat(64)] {
            assert!(!is_valid_app_name(bad), "{bad}");
        }
        assert!(!is_valid_rack_name(&"a".repeat(27)));
    }
}
