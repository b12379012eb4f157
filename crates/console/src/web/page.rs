//! What all pages share: the frame around them, how they are answered, and what a fault looks like.

use askama::Template;
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};

use crate::ops::OpsError;

/// What stands around a page's content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    /// Who is signed in; empty before that.
    pub(crate) email: String,
    /// The current entry of the navigation: `racks`, `organizations`, `activity`, `account`.
    pub(crate) here: &'static str,
    /// What was just done, in words; empty if nothing.
    pub(crate) done: &'static str,
    /// Whether they still owe a second factor: no page but that is open to them.
    pub(crate) is_pending: bool,
}

impl Frame {
    /// For somebody who is signed in.
    pub(crate) fn of(email: &str, here: &'static str) -> Self {
        Self { email: email.to_owned(), here, done: "", is_pending: false }
    }

    /// For somebody who owes a second factor.
    pub(crate) fn pending(mut self, is_pending: bool) -> Self {
        self.is_pending = is_pending;
        self
    }

    /// Says what was just done.
    pub(crate) fn with_done(mut self, done: &'static str) -> Self {
        self.done = done;
        self
    }

    pub(crate) fn is_here(&self, here: &str) -> bool {
        self.here == here
    }
}

/// A message beside the field that it is about; the field `""` is the form as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problem {
    field: &'static str,
    message: String,
}

impl Problem {
    pub(crate) fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, message: message.into() }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.message.is_empty()
    }

    /// What is wrong with that field; empty if nothing.
    pub(crate) fn of(&self, field: &str) -> &str {
        if self.field == field { &self.message } else { "" }
    }
}

/// One page of a list that is known whole: no page grows with what it shows.
#[derive(Clone, Debug)]
pub(crate) struct Paged<T> {
    pub(crate) rows: Vec<T>,
    /// Number of the page, from 1.
    pub(crate) number: usize,
    /// How many there are on all pages.
    pub(crate) count: usize,
    size: usize,
}

impl<T> Paged<T> {
    /// That page of `all`, or the one nearest to it.
    pub(crate) fn of(all: Vec<T>, number: Option<usize>, size: usize) -> Self {
        let count = all.len();
        let number = number.unwrap_or(1).clamp(1, count.div_ceil(size).max(1));
        Self { rows: all.into_iter().skip((number - 1) * size).take(size).collect(), number, count, size }
    }

    /// The same page of what `turn` makes of the rows.
    pub(crate) fn map<U>(self, turn: impl FnMut(T) -> U) -> Paged<U> {
        Paged { rows: self.rows.into_iter().map(turn).collect(), number: self.number, count: self.count, size: self.size }
    }

    pub(crate) fn previous(&self) -> Option<usize> {
        (self.number > 1).then(|| self.number - 1)
    }

    pub(crate) fn next(&self) -> Option<usize> {
        (self.number * self.size < self.count).then_some(self.number + 1)
    }

    pub(crate) fn has_others(&self) -> bool {
        self.count > self.size
    }

    /// Position of the page's first row, from 1.
    pub(crate) fn first(&self) -> usize {
        (self.number - 1) * self.size + 1
    }

    pub(crate) fn last(&self) -> usize {
        self.first() + self.rows.len() - 1
    }
}

/// A page as an answer.
pub(crate) fn show(template: &impl Template) -> Response {
    show_with(StatusCode::OK, template)
}

/// A page with another status than 200: a form that was not accepted, for one.
pub(crate) fn show_with(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// After a form: to the page that shows what came of it, so that loading it again does not do it again.
pub(crate) fn go(path: &str) -> Response {
    Redirect::to(path).into_response()
}

#[derive(Template)]
#[template(path = "fault.html")]
struct FaultPage {
    frame: Frame,
    title: &'static str,
    what: String,
    next: String,
}

/// Why there is no page. A use case's error becomes one by `?`.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    status: StatusCode,
    message: String,
    frame: Frame,
    is_written: bool,
    /// When to try again, seconds from now.
    wait_s: Option<i64>,
}

/// On an answer: that something was refused is in the log already.
#[derive(Clone, Copy)]
pub(super) struct Written;

/// On an answer: the fault that it tells of without anybody's navigation around it.
#[derive(Clone)]
pub(super) struct Bare(pub(super) Fault);

impl Fault {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), frame: Frame::default(), is_written: false, wait_s: None }
    }

    /// Keeps the navigation for somebody who is signed in.
    pub(crate) fn framed(mut self, frame: Frame) -> Self {
        self.frame = frame;
        self
    }
}

/// What a use case's error is in HTTP, in words for whoever asked.
pub(crate) fn status_and_words(error: &OpsError) -> (StatusCode, String) {
    let status = error.status();
    let words = match error {
        OpsError::Store(inner) => {
            // What exactly is wrong with the database is for the log.
            tracing::error!(error = %inner, "the database could not be used");
            "the Console's database cannot be used; try again later, and tell whoever runs it".to_owned()
        }
        other => other.to_string(),
    };
    (status, words)
}

impl From<OpsError> for Fault {
    fn from(error: OpsError) -> Self {
        let (status, message) = status_and_words(&error);
        let wait_s = match error {
            OpsError::Limited { wait_s } | OpsError::Busy { wait_s } => Some(wait_s),
            _ => None,
        };
        Self { is_written: matches!(error, OpsError::Denied(_)), wait_s, ..Self::new(status, message) }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let bare = self.frame.email.is_empty().then(|| Bare(self.clone()));
        let Self { status, message, frame, is_written, wait_s } = self;
        let (what, next) = message.split_once("; ").unwrap_or((&message, ""));
        let title = match status {
            StatusCode::NOT_FOUND => "Not here",
            StatusCode::FORBIDDEN => "Not allowed",
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => "That did not work",
            _ => "Something is wrong",
        };
        let mut response = show_with(status, &FaultPage { frame, title, what: sentence(what), next: sentence(next) });
        if let Some(wait_s) = wait_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait_s));
        }
        if is_written {
            response.extensions_mut().insert(Written);
        }
        if let Some(bare) = bare {
            response.extensions_mut().insert(bare);
        }
        response
    }
}

/// With a capital and a full stop, as people read it.
pub(crate) fn sentence(text: &str) -> String {
    let mut chars = text.trim().chars();
    let Some(first) = chars.next() else { return String::new() };
    let rest = chars.as_str();
    let end = if rest.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{}{rest}{end}", first.to_uppercase())
}

/// A fault without a person.
pub(crate) fn error(status: StatusCode, message: &str) -> Fault {
    Fault::new(status, message)
}

/// For paths below the pages that are none.
pub(crate) async fn not_found() -> Fault {
    error(StatusCode::NOT_FOUND, "there is no such page; the links above lead to those that are there")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_into_pages_and_there_is_no_page_beyond() {
        let page = |count: usize, number| Paged::of((1..=count).collect(), number, 10);
        let whole = page(10, None);
        assert_eq!((whole.rows.len(), whole.has_others(), whole.previous(), whole.next()), (10, false, None, None));
        let second = page(25, Some(2)).map(|number| number * 2);
        assert_eq!((second.rows.first(), second.first(), second.last()), (Some(&22), 11, 20));
        assert_eq!((second.previous(), second.next(), second.count), (Some(1), Some(3), 25));
        let last = page(25, Some(9));
        assert_eq!((last.number, last.rows.len(), last.next()), (3, 5, None));
        assert_eq!(page(0, Some(0)).number, 1);
    }
}
