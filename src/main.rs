//! The program: everything is in the library.

use std::process::ExitCode;

/// Connections come and go by the thousand; with the system's allocator their memory does not come back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gatecast::cli::run()
}
