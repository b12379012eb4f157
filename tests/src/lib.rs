//! End-to-end tests; the promises are in `tests/`.
