//! What went wrong between us and an upstream, in words for the person who asked.

use std::io;

use convox_tls::TlsFault;
use http::{HeaderValue, Response, StatusCode, header};

pub(crate) use crate::request_id::REQUEST_ID;
use crate::{Body, Reason, RequestId, Upstream};

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum Fault {
    Lookup(String),
    Refused,
    Unreachable(io::Error),
    ConnectTimedOut,
    HandshakeTimedOut,
    Tls(TlsFault),
    /// Closed before its reply was whole.
    ClosedEarly,
    ReplyTimedOut,
    /// It answered, and not in HTTP that can be passed on.
    BadReply(String),
    /// The caller's own body ended early or was ambiguous.
    BadRequestBody,
    Revoked(Reason),
    RevokedBefore,
}

impl Fault {
    fn status(&self) -> StatusCode {
        match self {
            Self::ConnectTimedOut | Self::HandshakeTimedOut | Self::ReplyTimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::BadRequestBody => StatusCode::BAD_REQUEST,
            Self::Revoked(_) | Self::RevokedBefore => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    fn text(&self, upstream: &Upstream) -> String {
        let at = upstream.label();
        match self {
            Self::Lookup(why) => format!("cannot find {at}: name lookup failed: {why}; check the host that is registered for it"),
            Self::Refused => format!("cannot reach {at}: connection refused; is it running?"),
            Self::Unreachable(error) => format!("cannot reach {at}: {}", plain(error)),
            Self::ConnectTimedOut => format!("cannot reach {at}: timed out while connecting; check its address and firewall"),
            Self::HandshakeTimedOut => format!("cannot reach {at}: timed out during the TLS handshake"),
            Self::Tls(fault @ TlsFault::PinChanged { .. }) => {
                format!("refused to talk to {at}: {fault}; nothing was sent to it. If the change is known, pin the new one")
            }
            Self::Tls(fault) => format!("refused to talk to {at}: {fault}; nothing was sent to it"),
            Self::ClosedEarly => {
                format!("{at} closed the connection before it answered; it may be restarting, so look before you try again")
            }
            Self::ReplyTimedOut => format!("{at} took the request and did not answer in time"),
            Self::BadReply(why) => format!("{at} sent an answer that cannot be passed on: {why}"),
            Self::BadRequestBody => "the body of the request ended early".to_owned(),
            Self::Revoked(reason) => reason.text.clone(),
            Self::RevokedBefore => "your access was revoked before the request was sent on".to_owned(),
        }
    }

    /// The answer to the caller. Never holds anything of the credential, and no `%`, which the original clients would read
    /// as a format.
    pub(crate) fn response(&self, upstream: &Upstream, id: RequestId) -> Response<Body> {
        let text = format!("{} (request {id})\n", self.text(upstream)).replace('%', " ");
        text_response(self.status(), text, Some(id))
    }
}

pub(crate) fn text_response(status: StatusCode, text: impl Into<Body>, id: Option<RequestId>) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(id) = id {
        id.name_error(headers);
    }
    response
}

/// An I/O error without the number of the operating system, which says nothing to people.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_text_of_its_own() {
        let upstream = Upstream::new("id", 1, "rack.example", 443, None).unwrap();
        let faults = [
            Fault::Lookup("no such name".to_owned()),
            Fault::Refused,
            Fault::Unreachable(io::ErrorKind::HostUnreachable.into()),
            Fault::ConnectTimedOut,
            Fault::HandshakeTimedOut,
            Fault::Tls(TlsFault::Expired),
            Fault::Tls(TlsFault::Protocol("100% wrong".to_owned())),
            Fault::ClosedEarly,
            Fault::ReplyTimedOut,
            Fault::BadReply("why".to_owned()),
        ];
        let texts: std::collections::HashSet<String> = faults.iter().map(|fault| fault.text(&upstream)).collect();
        assert_eq!(texts.len(), faults.len());
    }
}
