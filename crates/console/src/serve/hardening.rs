//! What the process gives up: what lies open in its memory must not end in a file or in another process. Each step is tried; where the
//! system does not know it, the log says so.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, umask};

/// For the rest of the process's life.
pub(super) fn apply() {
    // New files are their owner's, whatever the shell that started us thought.
    umask(Mode::RWXG | Mode::RWXO);
    // A dump of memory would hold Rack passwords.
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "dumps of memory cannot be forbidden");
    }
    // Nor may another process of the same user read it.
    if let Err(error) = convox_proxy::close_memory() {
        tracing::warn!(%error, "other processes of this user can read this one's memory");
    }
    if let Err(error) = convox_proxy::raise_descriptor_limit() {
        tracing::warn!(%error, "the limit of open files cannot be raised, so few connections fit");
    }
}
