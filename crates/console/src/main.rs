//! `convox-console`. The map is in `lib.rs`.

use std::process::ExitCode;

// Every request makes and drops many small header values, which is what this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    convox_console::main()
}
