//! A request's head as bytes of HTTP/1.1.

use bytes::Bytes;
use http::header;
use http::request::Parts;
use http::uri::PathAndQuery;

/// How long the body is that follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// There is none.
    None,
    Known(u64),
    /// It says so itself, in chunks.
    Chunked,
}

/// Bytes that most heads fit into.
const ROOM: usize = 768;

/// The request line and all headers of `head`, but for those that frame the body: `length` says that.
pub(crate) fn write(head: &Parts, length: Length) -> Bytes {
    let mut to = Vec::with_capacity(ROOM);
    to.extend_from_slice(head.method.as_str().as_bytes());
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    to.extend_from_slice(if target.starts_with(['/', '*']) { b" " } else { b" /" });
    to.extend_from_slice(target.as_bytes());
    to.extend_from_slice(b" HTTP/1.1\r\n");
    let mut is_empty_said = false;
    for (name, value) in &head.headers {
        match *name {
            header::CONTENT_LENGTH => is_empty_said = true,
            header::TRANSFER_ENCODING => {}
            _ => {
                to.extend_from_slice(name.as_str().as_bytes());
                to.extend_from_slice(b": ");
                to.extend_from_slice(value.as_bytes());
                to.extend_from_slice(b"\r\n");
            }
        }
    }
    match length {
        Length::Known(length) => to.extend_from_slice(format!("content-length: {length}\r\n").as_bytes()),
        Length::Chunked => to.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Length::None if is_empty_said => to.extend_from_slice(b"content-length: 0\r\n"),
        Length::None => {}
    }
    to.extend_from_slice(b"\r\n");
    to.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn written(uri: &str, headers: &[(&str, &str)], length: Length) -> String {
        let mut request = Request::builder().method("PUT").uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        String::from_utf8(write(&head, length).to_vec()).unwrap()
    }

    #[test]
    fn the_body_is_framed_once_whatever_the_caller_said() {
        let said = [("host", "a"), ("content-length", "9"), ("transfer-encoding", "chunked"), ("x", "y")];
        let head = "PUT /p?q HTTP/1.1\r\nhost: a\r\nx: y\r\n";
        assert_eq!(written("/p?q", &said, Length::Known(5)), format!("{head}content-length: 5\r\n\r\n"));
        assert_eq!(written("/p?q", &said, Length::Chunked), format!("{head}transfer-encoding: chunked\r\n\r\n"));
        assert_eq!(written("/p?q", &said, Length::None), format!("{head}content-length: 0\r\n\r\n"));
        assert_eq!(written("/p?q", &[], Length::None), "PUT /p?q HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn a_target_is_a_path_or_a_star() {
        for (uri, target) in [("/", "/"), ("*", "*"), ("https://rack.example", "/"), ("https://rack.example?q", "/?q")] {
            assert_eq!(written(uri, &[], Length::None), format!("PUT {target} HTTP/1.1\r\n\r\n"), "{uri}");
        }
    }
}
