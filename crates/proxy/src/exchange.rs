//! One forwarded request from verdict to last byte: holds the permit, and tells it how things ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::conversation::Conversation;
use crate::pool;
use crate::upload::Progress;
use crate::upstream::Upstream;
use crate::{Outcome, Permit};

/// Tells its permit of the outcome when dropped, however that comes about.
#[derive(Debug)]
pub(crate) struct Exchange<P: Permit> {
    permit: Option<P>,
    begun: Instant,
    pub(crate) status: Option<StatusCode>,
    answered: Option<Duration>,
    pub(crate) upload: Option<Arc<Progress>>,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) complete: bool,
    /// Its connection is used again if both the reply and the request went through whole.
    pub(crate) conversation: Option<(Arc<Upstream>, Conversation)>,
}

impl<P: Permit> Exchange<P> {
    pub(crate) fn new(permit: P) -> Self {
        Self {
            permit: Some(permit),
            begun: Instant::now(),
            status: None,
            answered: None,
            upload: None,
            bytes_up: 0,
            bytes_down: 0,
            complete: false,
            conversation: None,
        }
    }

    /// The head of the upstream's answer is there.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.answered = Some(self.begun.elapsed());
    }

    /// There until this is dropped.
    pub(crate) fn permit(&self) -> Option<&P> {
        self.permit.as_ref()
    }
}

impl<P: Permit> Drop for Exchange<P> {
    fn drop(&mut self) {
        if self.complete
            && let Some((upstream, conversation)) = self.conversation.take()
            && let Some(connection) = conversation.into_idle()
        {
            pool::give(&upstream, connection);
        }
        if let Some(permit) = self.permit.take() {
            permit.finished(Outcome {
                status: self.status,
                bytes_up: self.bytes_up + self.upload.as_ref().map_or(0, |progress| progress.bytes()),
                bytes_down: self.bytes_down,
                duration: self.begun.elapsed(),
                answered_after: self.answered,
                complete: self.complete,
            });
        }
    }
}
