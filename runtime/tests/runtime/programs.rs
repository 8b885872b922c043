//! Programs whose closures run in their own executable.

use std::process::Command;

use crate::support::example;

#[test]
fn closures_of_a_programs_own_executable_are_called() {
    let output = Command::new(example("program_process")).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        stdout.lines().collect::<Vec<_>>(),
        [
            "doubling",
            "Bytes(b\"abcabc\")",
            "panicked: as asked in Some(\"runtime/examples/program_process.rs\")",
            "doubling",
            "Bytes(b\"dede\")",
        ],
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && output.stderr.is_empty());
}
