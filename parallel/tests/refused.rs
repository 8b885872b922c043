//! Programs that must not compile, and what the compiler says: sentences that tell what to do.

#[test]
fn compile_errors_say_what_to_do() {
    let cases = trybuild::TestCases::new();
    // With a program that compiles among them, all are built, not only checked: captures are found when code is made.
    cases.pass("tests/accepted.rs");
    cases.compile_fail("tests/refused/*.rs");
}
