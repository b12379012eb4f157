//! Tells followers that a log has grown, whoever wrote to it: one inotify for all of them.
//!
//! A follower also looks by itself now and then, so a machine that is out of watches is slower
//! and not wrong.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::inotify;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

type Watched = Arc<Mutex<HashMap<i32, watch::Sender<u64>>>>;

/// Watches directories of logs. The task behind it ends with it.
#[derive(Debug)]
pub(super) struct Watcher {
    inotify: Arc<Receiver>,
    watched: Watched,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    /// Starts watching on the current runtime.
    pub(super) fn start() -> std::io::Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        // Not a pipe, but to be waited for and read in the same way.
        let inotify = Arc::new(Receiver::from_owned_fd_unchecked(inotify)?);
        let watched = Watched::default();
        let task = tokio::spawn(notify(Arc::clone(&inotify), Arc::clone(&watched)));
        Ok(Self { inotify, watched, task })
    }

    /// Whether the task behind it still runs; it ends with the runtime that started it.
    pub(super) fn is_alive(&self) -> bool {
        !self.task.is_finished()
    }

    /// A counter that changes whenever something in `dir` does.
    pub(super) fn watch(&self, dir: &Path) -> std::io::Result<watch::Receiver<u64>> {
        let flags =
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE | inotify::WatchFlags::DELETE_SELF;
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let descriptor = inotify::add_watch(&*self.inotify, dir, flags)?;
        Ok(watched.entry(descriptor).or_insert_with(|| watch::Sender::new(0)).subscribe())
    }
}

async fn notify(inotify: Arc<Receiver>, watched: Watched) {
    let mut buffer = [0_u8; 8192];
    while inotify.readable().await.is_ok() {
        match inotify.try_read(&mut buffer) {
            Ok(count) => events(buffer.get(..count).unwrap_or_default(), &inotify, &watched),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
            Err(_) => return,
        }
    }
}

/// What the kernel writes: descriptor, mask, cookie, length of the name (4 bytes each), the name.
fn events(mut bytes: &[u8], inotify: &Receiver, watched: &Watched) {
    const HEAD: usize = 16;
    let word = |bytes: &[u8], at: usize| -> Option<u32> { Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
    while let (Some(descriptor), Some(mask), Some(name)) = (word(bytes, 0), word(bytes, 4), word(bytes, 12)) {
        wake(watched, inotify, descriptor.cast_signed(), inotify::ReadFlags::from_bits_retain(mask));
        bytes = bytes.get(HEAD + name as usize..).unwrap_or_default();
    }
}

fn wake(watched: &Watched, inotify: &Receiver, descriptor: i32, events: inotify::ReadFlags) {
    let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
    if events.contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
        watched.values().for_each(|sender| sender.send_modify(|count| *count = count.wrapping_add(1)));
        return;
    }
    let Some(sender) = watched.get(&descriptor) else {
        return;
    };
    sender.send_modify(|count| *count = count.wrapping_add(1));
    if events.contains(inotify::ReadFlags::IGNORED) {
        watched.remove(&descriptor);
    } else if sender.receiver_count() == 0 {
        watched.remove(&descriptor);
        // Fails only if the kernel has dropped it by itself.
        let _ = inotify::remove_watch(inotify, descriptor);
    }
}
