//! What the connections of a thread read into: one buffer for all of them, so that a connection on which nothing happens owns none.

use std::cell::Cell;

/// Read at a time.
pub(crate) const SIZE: usize = 16 * 1024;

thread_local! {
    /// Taken while one connection reads.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the buffer. Holds whatever it was filled with before.
pub(crate) fn lend<T>(to: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut scratch = SCRATCH.take();
    if scratch.is_empty() {
        scratch = vec![0; SIZE];
    }
    let given = to(&mut scratch);
    SCRATCH.set(scratch);
    given
}
