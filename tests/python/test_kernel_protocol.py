"""The `jupyter_kernel_test` package's own suite, with every sample it offers filled in and nothing skipped."""

from __future__ import annotations

import jupyter_kernel_test
import pytest


@pytest.fixture(scope="module", autouse=True)
def installed(kernel_name: str) -> None:
    """The suite starts kernels by name in setUpClass: the kernelspec has to be there before."""
    RustKernelTests.kernel_name = kernel_name
    RustIopubWelcomeTests.kernel_name = kernel_name


class RustKernelTests(jupyter_kernel_test.KernelTests):
    language_name = "rust"
    file_extension = ".rs"

    code_hello_world = 'println!("hello, world");'
    code_stderr = 'eprintln!("hello, stderr");'

    completion_samples = [
        {"text": "std::collections::HashM", "matches": {"HashMap"}},
        {"text": "std::collections::BTreeM", "matches": {"BTreeMap"}},
        {"text": "vec![1].is_em"},
    ]
    complete_code_samples = [
        "1 + 1",
        "let x = 1;",
        'println!("{}", "{");',
        "fn f(x: u32) -> u32 {\n    x + 1\n}",
        "struct Point<'a> { name: &'a str }",
        ":vars",
        "%checkpoint status",
    ]
    incomplete_code_samples = [
        "fn f() {",
        "let x = (1 +",
        "vec![1,\n",
        'println!("half',
        "/* a comment",
        "match 1 {\n    1 => 2,",
    ]
    invalid_code_samples = ["let x = );", "fn f( { }", "}"]

    code_generate_error = 'let empty: Vec<u8> = vec![]; panic!("{} is too few", empty.len());'

    code_execute_result = [
        {"code": "6 * 7", "result": "42"},
        {"code": '"chorus".to_uppercase()', "result": '"CHORUS"'},
        {"code": "(1..4).map(|n| n * n).collect::<Vec<i32>>()", "result": "[1, 4, 9]"},
    ]
    code_display_data = [
        {"code": r'println!("EVCXR_BEGIN_CONTENT text/html\n<b>hello</b>\nEVCXR_END_CONTENT");', "mime": "text/html"},
        {"code": r'println!("EVCXR_BEGIN_CONTENT image/svg+xml\n<svg/>\nEVCXR_END_CONTENT");', "mime": "image/svg+xml"},
    ]
    code_clear_output = (
        r'println!("EVCXR_BEGIN_CONTENT application/x.chorus.clear-output+json\n{}\nEVCXR_END_CONTENT", "{\"wait\": false}");'
    )

    supported_history_operations = ("tail", "range", "search")
    # Cells of all test files are in one history: only this suite's may match.
    code_history_pattern = '"chorus".to_upper*'

    code_inspect_sample = "Vec::new"

    # As in IPython, a question mark shows help in the pager.
    code_page_something = "%checkpoint?"


class RustIopubWelcomeTests(jupyter_kernel_test.IopubWelcomeTests):
    support_iopub_welcome = True


@pytest.mark.parametrize("suite", [RustKernelTests, RustIopubWelcomeTests])
def test_every_sample_is_filled_in(suite: type) -> None:
    """The package skips what has no sample; a later version may offer more of them than we know of."""
    base = suite.__mro__[1]
    offered = [name for name, value in vars(base).items() if value in ("", [], (), False) and not name.startswith("_")]
    assert offered
    assert [name for name in offered if not getattr(suite, name)] == []
