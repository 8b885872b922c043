//! Programs that must not compile, and what rustc says of them: sentences that tell what to do.
//!
//! `closures` are of the crate `chorus`; `magics` is what magics write, made by `magics/tests/cells.rs`. They are compiled by this package because
//! trybuild compiles all that the package of a test depends on once more, and this one depends on what a cell has and no more.
//! `TRYBUILD=overwrite` writes anew what rustc says.

#[test]
fn compile_errors_say_what_to_do() {
    let cases = trybuild::TestCases::new();
    // With programs that compile among them, all are built, not only checked: captures are found when code is made.
    cases.pass("tests/accepted/*.rs");
    cases.compile_fail("tests/refused/*/*.rs");
}
