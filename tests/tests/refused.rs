//! Programs that must not compile, and what rustc says of them: sentences that tell what to do.
//!
//! Those of the crate `chorus` are in `parallel/tests/refused`, those that magics write in `magics/tests/cells/refused`. They are compiled from
//! here because trybuild builds all that the crate of a test depends on once more, and this one depends on what a cell has and no more.
//! `TRYBUILD=overwrite` writes anew what rustc says.

#[test]
fn compile_errors_say_what_to_do() {
    let cases = trybuild::TestCases::new();
    // With programs that compile among them, all are built, not only checked: captures are found when code is made.
    for folder in ["../parallel/tests", "../magics/tests/cells"] {
        cases.pass(format!("{folder}/accepted.rs"));
        cases.compile_fail(format!("{folder}/refused/*.rs"));
    }
}
