//! Builds that run, so that somebody can end them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a build may take to notice that it was cancelled.
const NOTICE: Duration = Duration::from_secs(30);

/// By app and id.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<BTreeMap<(String, String), Marks>>);

#[derive(Clone, Debug, Default)]
struct Marks {
    stop: CancellationToken,
    done: CancellationToken,
}

/// One build, for as long as it runs.
pub(super) struct Run {
    all: Arc<Running>,
    key: (String, String),
    marks: Marks,
}

impl Run {
    /// Cancelled when somebody wants it to end.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.marks.stop
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.all.lock().remove(&self.key);
        self.marks.done.cancel();
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Marks>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(self: &Arc<Self>, app: &str, id: &str) -> Run {
        let (key, marks) = ((app.to_owned(), id.to_owned()), Marks::default());
        self.lock().insert(key.clone(), marks.clone());
        Run { all: Arc::clone(self), key, marks }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Ends all of an app and waits for it. Says how many there were.
    pub(super) async fn cancel(&self, app: &str) -> usize {
        let found: Vec<Marks> = self.lock().iter().filter(|((owner, _), _)| owner == app).map(|(_, marks)| marks.clone()).collect();
        for marks in &found {
            marks.stop.cancel();
        }
        for marks in &found {
            let _ = timeout(NOTICE, marks.done.cancelled()).await;
        }
        found.len()
    }
}
