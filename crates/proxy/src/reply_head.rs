//! The head of an upstream's reply: from bytes to what it says, and how its body ends.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use hyper::ext::ReasonPhrase;
use memchr::memchr_iter;

use crate::content::Content;
use crate::websocket::names;

/// Headers that a reply may have.
const HEADERS: usize = 128;

/// What is wrong with a reply, for the person who asked for it.
pub(crate) type Wrong = &'static str;

/// The head of a reply.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) response: Response<()>,
    /// The body that follows.
    pub(crate) content: Content,
    /// The connection takes another request afterwards.
    pub(crate) is_kept: bool,
    /// Bytes of this head.
    pub(crate) length: usize,
}

/// Reads a head from the beginning of `bytes`; `None` if it is not whole yet. `to_head` says that the request was a HEAD, whose replies have no body.
///
/// What two lengths at once would mean is not decided here: [`to_caller`](crate::headers::to_caller) refuses such a reply.
///
/// # Errors
/// It is not HTTP/1.
pub(crate) fn read(bytes: &Bytes, to_head: bool) -> Result<Option<Head>, Wrong> {
    const INVALID: Wrong = "it is not valid HTTP/1.1";
    let mut slots = [const { MaybeUninit::uninit() }; HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err("it has too many headers"),
        Err(_) => return Err(INVALID),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(INVALID)?;
    let is_modern = parsed.version == Some(1);
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    let (mut known, mut is_chunked) = (None, false);
    for said in &*parsed.headers {
        let name = HeaderName::from_bytes(said.name.as_bytes()).map_err(|_| INVALID)?;
        match name {
            header::CONTENT_LENGTH => known = Some(number(said.value).ok_or("its length is not a number")?),
            header::TRANSFER_ENCODING => is_chunked = true,
            _ => {}
        }
        // A part of the one buffer, not a copy of its own.
        headers.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(said.value)).map_err(|_| INVALID)?);
    }
    let content = if to_head || status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        Content::known(0)
    } else if is_chunked && !is_modern {
        return Err("HTTP/1.0 has no transfer codings");
    } else if is_chunked {
        Content::chunked()
    } else if let Some(known) = known {
        Content::known(known)
    } else {
        Content::to_end()
    };
    let is_kept = !content.is_to_end()
        && !names(&headers, header::CONNECTION, "close")
        && (is_modern || names(&headers, header::CONNECTION, "keep-alive"));
    let mut response = Response::new(());
    // Words of the upstream's own pass too.
    if let Some(words) = parsed.reason
        && Some(words) != status.canonical_reason()
        && let Ok(words) = ReasonPhrase::try_from(words.as_bytes())
    {
        response.extensions_mut().insert(words);
    }
    *response.status_mut() = status;
    *response.version_mut() = Version::HTTP_11;
    *response.headers_mut() = headers;
    Ok(Some(Head { response, content, is_kept, length }))
}

/// Whether a head may end in what came after the first `looked` bytes.
pub(crate) fn may_end(bytes: &[u8], looked: usize) -> bool {
    let new = bytes.get(looked.saturating_sub(2)..).unwrap_or_default();
    memchr_iter(b'\n', new).any(|at| matches!(new.get(at + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..])))
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, to_head: bool) -> Result<Head, Wrong> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        for end in 0..text.find("\r\n\r\n").map_or(text.len(), |at| at + 4) {
            assert!(!matches!(read(&bytes.slice(..end), to_head), Ok(Some(_))), "{end} bytes of {text:?} are no whole head");
        }
        read(&bytes, to_head).map(|head| head.expect("a whole head"))
    }

    #[test]
    fn a_body_ends_as_its_head_says() {
        for (text, to_head, content, is_kept) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, Content::known(5), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, Content::known(0), true),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, Content::known(0), true),
            ("HTTP/1.1 204 No Content\r\n\r\n", false, Content::known(0), true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, Content::chunked(), true),
            ("HTTP/1.1 200 OK\r\n\r\n", false, Content::to_end(), false),
            ("HTTP/1.1 200\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n", false, Content::known(0), false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false, Content::known(0), false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", false, Content::known(0), true),
        ] {
            let head = whole(text, to_head).unwrap();
            assert_eq!((head.content, head.is_kept), (content, is_kept), "{text:?}");
            assert_eq!(head.length, text.find("\r\n\r\n").unwrap() + 4, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
        for text in [
            "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/1.1 99 Low\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            &many,
        ] {
            assert!(whole(text, false).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_head_in_pieces_is_seen_when_it_is_whole() {
        let text = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
        for step in [1, 2, 3, 4, 5] {
            let ends: Vec<usize> = (step..text.len()).step_by(step).chain([text.len()]).collect();
            let seen: Vec<usize> = ends.iter().filter(|end| may_end(&text[..**end], **end - step.min(**end))).copied().collect();
            assert_eq!(seen.last(), Some(&text.len()), "in pieces of {step}");
        }
        assert!(may_end(b"A\n\n", 1) && !may_end(b"A\r\nB", 1));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_upset_it(bytes: Vec<u8>, to_head: bool) {
            let _ = read(&Bytes::from([b"HTTP/1.1 200 OK\r\n", &*bytes].concat()), to_head);
            let _ = read(&Bytes::from(bytes), to_head);
        }
    }
}
