//! The `chorus` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    kernel::cli::main()
}
