//! Finding processes again after the Rack was restarted or killed.
//!
//! A shim holds its directory's lock while it lives. Whoever gets the lock knows that there is
//! none; whoever does not finds it by pid and start time.

use std::sync::Arc;
use std::time::Duration;

use super::files::{ProcessDir, SpecFile, StartedFile};
use super::procfs::Birth;
use super::start::{conclude, exit_of, revive};
use super::watched::Watched;
use super::{Entry, Shared};
use crate::runtime::{ProcessState, RuntimeError};

/// How long a shim that was just started by the Rack's earlier run may take to say who it is.
const SETTLE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub(super) async fn adopt(shared: Arc<Shared>) -> Result<Vec<ProcessState>, RuntimeError> {
    let doing = |source| RuntimeError::Io { doing: format!("reading {}", shared.dir.display()), source };
    for found in std::fs::read_dir(&shared.dir).map_err(doing)? {
        let dir = ProcessDir::new(&found.map_err(doing)?.path());
        match adopt_one(&shared, &dir).await {
            Ok(true) => {}
            Ok(false) => {
                if let Err(error) = dir.remove() {
                    tracing::warn!(dir = %dir.path().display(), %error, "a stale process directory stays");
                }
            }
            Err(error) => {
                tracing::warn!(dir = %dir.path().display(), %error, "a process directory cannot be read");
            }
        }
    }
    let mut states: Vec<_> = shared.entries().values().map(|entry| entry.state.borrow().clone()).collect();
    states.sort_by_key(|state| state.started);
    Ok(states)
}

/// Takes over one directory; `false` if nothing in it is worth keeping.
async fn adopt_one(shared: &Arc<Shared>, dir: &ProcessDir) -> std::io::Result<bool> {
    let Ok(Some(spec)) = dir.spec() else { return Ok(false) };
    if shared.entries().contains_key(&spec.id) {
        return Ok(true);
    }
    if dir.lock()?.is_none()
        && let Some(entry) = running(shared, dir, &spec).await?
    {
        tokio::spawn(conclude(Arc::clone(shared), entry, None));
        return Ok(true);
    }
    if spec.container.is_some() && is_orphaned(dir)? {
        // The container may run on without its shim, as after the end of everything in the Rack's control group.
        if revive(shared, dir, &spec).await?.is_some() {
            return Ok(true);
        }
    }
    // Kept to the end: no shim may begin while we decide that there is none.
    let Some(_lock) = dir.lock()? else {
        return Err(std::io::Error::other("its shim is alive but does not say who it is"));
    };
    let Ok(Some(started)) = dir.started() else {
        // The shim never began, or the machine stopped before anything could be recorded.
        return Ok(false);
    };
    let exit = exit_of(dir, &started.shim);
    shared.enter_ended(dir.clone(), &spec, started.shim, Some(started.time), &exit);
    Ok(true)
}

/// Whether a shim has begun, recorded no end, and is not there any more.
fn is_orphaned(dir: &ProcessDir) -> std::io::Result<bool> {
    let has_begun = matches!(dir.started(), Ok(Some(StartedFile { process: Some(_), .. })));
    Ok(has_begun && dir.exit()?.is_none() && dir.lock()?.is_some())
}

/// The process behind a directory whose lock is held; `None` if it ends while we look.
async fn running(shared: &Arc<Shared>, dir: &ProcessDir, spec: &SpecFile) -> std::io::Result<Option<Arc<Entry>>> {
    let deadline = tokio::time::Instant::now() + SETTLE;
    while tokio::time::Instant::now() < deadline {
        if dir.exit()?.is_some() {
            // Recorded just now: the shim lets go of the lock next.
            let Ok(Some(started)) = dir.started() else { return Ok(None) };
            wait_gone(&started.shim).await;
            return Ok(None);
        }
        if let Ok(Some(started @ StartedFile { process: Some(_), .. })) = dir.started()
            && let Some(watched) = Watched::found(&started.shim)
        {
            return Ok(Some(shared.enter(dir.clone(), spec, started, watched)));
        }
        if dir.lock()?.is_some() {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(None)
}

async fn wait_gone(shim: &Birth) {
    if let Some(watched) = Watched::found(shim) {
        // Bounded: it only has to return from its last call.
        let _ = tokio::time::timeout(SETTLE, watched.ended()).await;
    }
}
