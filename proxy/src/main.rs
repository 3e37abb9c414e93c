//! The `oilskin` binary: reads the process' words and variables, and picks the exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: oilskin::Allocator = oilskin::Allocator;

fn main() -> ExitCode {
    let vars = std::env::vars_os().collect();
    ExitCode::from(oilskin::cli(std::env::args_os(), &vars) as u8)
}
