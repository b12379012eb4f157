//! The second log as the writer uses it: whether it is needed, what of it is to be carried, and how it fares.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::spill::{Source, Spill};

/// How often the database is asked whether it takes events again.
pub(super) const RETRY: Duration = Duration::from_millis(250);
/// How often it is looked for files that a server left behind.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// When what the database refused is tried again.
const REFUSED: Duration = Duration::from_mins(1);

/// How the second log fares.
#[derive(Default)]
pub(crate) struct Standing {
    away: AtomicBool,
    waiting: AtomicU64,
    bytes: AtomicU64,
    limit: AtomicU64,
    left: AtomicU64,
    faults: AtomicU64,
}

impl Standing {
    /// Whether the database does not take events now.
    pub(crate) fn is_used(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Entries that are not in the database yet.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Entries that the database refused for themselves.
    pub(crate) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Entries that were changed since they were written.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }
}

/// The second log, and what of it is to be carried into the database.
pub(super) struct Second {
    /// Away while it is used.
    pub(super) spill: Option<Spill>,
    pub(super) sources: VecDeque<Box<Source>>,
    /// Those with something that cannot be carried.
    stuck: Vec<Source>,
    pub(super) is_away: bool,
    pub(super) next: Instant,
    next_look: Instant,
    next_refused: Instant,
    pub(super) standing: Arc<Standing>,
}

impl Second {
    pub(super) fn new(spill: Spill) -> Self {
        let (standing, now) = (Arc::<Standing>::default(), Instant::now());
        standing.limit.store(spill.limit(), Ordering::Relaxed);
        Self {
            spill: Some(spill),
            sources: VecDeque::new(),
            stuck: Vec::new(),
            is_away: false,
            next: now,
            next_look: now,
            next_refused: now + REFUSED,
            standing,
        }
    }

    /// Uses the files where that holds nobody up.
    pub(super) async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Spill) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Some(mut spill) = self.spill.take() else { return Err(io::Error::other("it is not there any more")) };
        let (spill, done) = tokio::task::spawn_blocking(move || {
            let done = work(&mut spill);
            (spill, done)
        })
        .await
        .map_err(io::Error::other)?;
        self.spill = Some(spill);
        self.tell();
        done
    }

    pub(super) fn is_away(&mut self, fault: &str) {
        if !std::mem::replace(&mut self.is_away, true) {
            tracing::error!(
                fault,
                "the audit log in the database cannot be written: events go to the second log, and are carried there afterwards"
            );
        }
        self.next = Instant::now() + RETRY;
        self.tell();
    }

    pub(super) fn is_back(&mut self) {
        if std::mem::replace(&mut self.is_away, false) {
            tracing::warn!(waiting = self.standing.waiting(), "the audit log in the database can be written again");
        }
        self.tell();
    }

    pub(super) fn tell(&self) {
        let set = |to: &AtomicU64, value: u64| to.store(value, Ordering::Relaxed);
        let all = || self.sources.iter().map(|source| &**source).chain(&self.stuck);
        let closed: u64 = all().map(|source| source.waiting).sum();
        self.standing.away.store(self.is_away, Ordering::Relaxed);
        if let Some(spill) = &self.spill {
            set(&self.standing.waiting, closed + spill.entries());
            set(&self.standing.bytes, spill.bytes());
        }
        set(&self.standing.left, all().map(|source| source.left).sum());
        set(&self.standing.faults, all().map(|source| source.faults.len() as u64).sum());
    }

    /// What is to be carried next. Closes the file that grows only when all before it is in the database.
    pub(super) async fn next_source(&mut self) -> io::Result<Option<Box<Source>>> {
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + LOOK;
            for source in self.with(Spill::adopt).await? {
                tracing::warn!(file = %source.path.display(), entries = source.waiting, "taking up a file of the second audit log that a server left");
                self.sources.push_back(Box::new(source));
            }
        }
        if now >= self.next_refused {
            self.next_refused = now + REFUSED;
            for mut source in std::mem::take(&mut self.stuck) {
                if source.left > 0 && source.again().is_ok() {
                    self.sources.push_back(Box::new(source));
                } else {
                    self.stuck.push(source);
                }
            }
        }
        if self.sources.is_empty()
            && let Some(source) = self.with(Spill::close).await?
        {
            self.sources.push_back(Box::new(source));
        }
        Ok(self.sources.pop_front())
    }

    /// Everything of a file was tried.
    pub(super) async fn finish(&mut self, source: Box<Source>) {
        if source.left == 0 && source.faults.is_empty() {
            let file = source.path.display().to_string();
            let removed = self.with(move |spill| spill.remove(&source)).await;
            if let Err(error) = removed {
                tracing::error!(%error, file, "a file of the second audit log that is in the database cannot be removed; remove it by hand");
            }
            return;
        }
        if source.left > 0 {
            tracing::error!(file = %source.path.display(), entries = source.left, "the database refuses entries of the second audit log; they stay there, and are tried again");
        }
        for fault in &source.faults {
            tracing::error!(file = %source.path.display(), number = fault.number, what = %fault.what, "a file of the second audit log was changed: what is not sound stays there");
        }
        self.stuck.push(*source);
        self.tell();
    }
}
