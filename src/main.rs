//! The program: reads its command line, does one command, answers with an exit code.
//!
//! What each command does stands in [`hydrant::commands`], one file per command.

use std::process::ExitCode;

/// Records are allocated on one thread and freed on another all day long; mimalloc is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hydrant::commands::main(std::env::args_os())
}
