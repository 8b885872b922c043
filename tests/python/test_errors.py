"""Errors that help: panics, compile errors, early `?`, exits and signals; and the next cell works."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from chorus_client import Kernel, Result
from engines import started
from live import error_text, plain

# What a user must not see in an error: the files and names that the kernel wraps around his cell.
INTERNALS = re.compile(r"run_user_code|evcxr_variable|evcxr_internal|chorus_support|/tmp/|src/lib\.rs|std::panicking|core::panicking|__rust|catch_unwind|rust_begin_unwind|backtrace::")


def fails(kernel: Kernel, code: str) -> Result:
    """Runs a cell that must fail, checks the error's form, and that the next cell works."""
    result = kernel.run(code)
    assert result.status == "error", f"{result.stdout} {result.displays}"
    assert result.error is not None
    for key in ("ename", "evalue", "traceback"):
        assert result.content[key] == result.error[key], f"{key} differs between reply and iopub"
    assert result.content["execution_count"] > 0
    assert result.error["traceback"] and all(isinstance(line, str) for line in result.error["traceback"])
    assert not result.of_type("execute_result")
    assert kernel.run("40 + 2").expect_ok().text.strip() == "42"
    return result


def test_a_panic_is_an_error(kernel: Kernel) -> None:
    result = fails(kernel, 'println!("before");\nlet n = 3;\npanic!("boom {n}");')
    assert result.error["ename"] == "panic"
    assert result.error["evalue"] == "boom 3"
    assert "boom 3" in plain(result.traceback)
    assert re.search(r"(:|line )3\b", plain(result.traceback)), "the user's line"
    assert result.stdout == "before\n"
    assert "panicked at" not in result.stderr, "told once, as an error"
    assert not INTERNALS.search(plain(result.traceback))


@pytest.mark.parametrize("code, message, line", [
    ("None::<i32>.unwrap();", "called `Option::unwrap()` on a `None` value", 1),
    ('"x".parse::<i32>().unwrap();', 'called `Result::unwrap()` on an `Err` value: ParseIntError { kind: InvalidDigit }', 1),
    ("let v = vec![1, 2];\nlet i = v.len() + 3;\nv[i];", "index out of bounds: the len is 2 but the index is 5", 3),
    ('\n\nassert_eq!(1 + 1, 3, "sums");', "assertion `left == right` failed: sums\n  left: 2\n right: 3", 3),
    ("let zero = \"\".len();\n1 / zero;", "attempt to divide by zero", 2),
    ("todo!();", "not yet implemented", 1),
    ('panic!("two\\nlines and \\"quotes\\" é🦀");', 'two\nlines and "quotes" é🦀', 1),
    ('panic!("");', "", 1),
    ('std::panic::panic_any(String::from("a String"));', "a String", 1),
])
def test_panic_messages_and_lines(kernel: Kernel, code: str, message: str, line: int) -> None:
    error = fails(kernel, code).error
    assert error["ename"] == "panic"
    assert error["evalue"] == message
    assert re.search(rf"(:|line ){line}\b", plain("\n".join(error["traceback"])))


def test_a_panic_with_an_odd_payload(kernel: Kernel) -> None:
    assert fails(kernel, "std::panic::panic_any(42);").error["ename"] == "panic"


def test_the_frames_are_the_users_only(kernel: Kernel) -> None:
    # Frames are there as far as the optimizer leaves them: it drops a function that can only panic.
    kernel.run('#[inline(never)]\nfn inner_most(text: &str) -> i32 {\n    let n: i32 = text.parse().unwrap();\n    n * 2\n}\n#[inline(never)]\nfn outer_one(text: &str) -> i32 {\n    inner_most(text) + text.len() as i32\n}').expect_ok()
    traceback = plain(fails(kernel, 'println!("{}", outer_one(std::hint::black_box("x")));').traceback)
    assert "inner_most" in traceback
    assert "outer_one" in traceback
    assert traceback.index("inner_most") < traceback.index("outer_one"), "innermost first, as Rust has it"
    assert not INTERNALS.search(traceback), traceback
    assert "slice::index" not in traceback


def test_a_panic_in_a_function_of_an_earlier_cell_names_that_line(kernel: Kernel) -> None:
    kernel.run('fn first() {}\nfn failing() {\n    let why = "deep";\n    panic!("{why}");\n}').expect_ok()
    error = fails(kernel, "1;\nfailing();").error
    assert error["evalue"] == "deep"
    assert re.search(r"(:|line )4\b", plain("\n".join(error["traceback"])))


def test_a_panic_elsewhere_is_not_the_cells(kernel: Kernel) -> None:
    joined = kernel.run('std::thread::Builder::new().name("helper".into()).spawn(|| panic!("in a thread")).unwrap().join().is_err()').expect_ok()
    assert joined.text.strip() == "true"
    assert "in a thread" in joined.stderr and "helper" in joined.stderr
    caught = kernel.run('std::panic::catch_unwind(|| panic!("caught")).is_err()').expect_ok()
    assert caught.text.strip() == "true"


def test_variables_after_a_panic(kernel: Kernel) -> None:
    kernel.run("let before_panic = vec![1, 2, 3]; let copied = 7;").expect_ok()
    fails(kernel, 'let introduced = 1; panic!("x");')
    assert kernel.run("before_panic.len() + copied as usize").expect_ok().text.strip() == "10"
    assert kernel.run("introduced").status == "error"
    kernel.run("let introduced = 5;").expect_ok()
    assert kernel.run("introduced").expect_ok().text.strip() == "5"


# code, rustc's code, words of rustc's message, line and column in the cell
COMPILE_ERRORS = [
    ('let x: i32 = "text";', "E0308", "mismatched types", 1, 14),
    ('let ok = 1;\nlet x: i32 = "text";', "E0308", "mismatched types", 2, 14),
    ('fn f() -> i32 {\n    "seven"\n}', "E0308", "mismatched types", 2, 5),
    ("no_such_function();", "E0425", "cannot find function `no_such_function`", 1, 1),
    ("let x = 1;\n\n  no_such_variable + x", "E0425", "cannot find value `no_such_variable`", 3, 3),
    ("let v = vec![1];\nlet w = v;\nprintln!(\"{:?}\", v);", "E0382", "borrow of moved value: `v`", 3, 18),
    ("let s = String::from(\"a\");\ns.no_such_method();", "E0599", "no method named `no_such_method`", 2, 3),
    ("use std::no_such_module::Thing;", "E0432", "unresolved import", 1, 10),
    ("struct S { x: NoSuchType }", "E0425", "cannot find type `NoSuchType`", 1, 15),
    ("let x = 1; x = 2;", "E0384", "cannot assign twice to immutable variable", 1, 12),
    ('let é = "🦀🦀"; let n: i32 = é;', "E0308", "mismatched types", 1, 28),
    ("trait T { fn f(&self); }\nstruct S;\nimpl T for S {}", "E0046", "not all trait items implemented", 3, 1),
]


@pytest.mark.parametrize("code, number, words, line, column", COMPILE_ERRORS)
def test_a_compile_error_is_rustcs_and_points_into_the_cell(kernel: Kernel, code: str, number: str, words: str, line: int, column: int) -> None:
    result = fails(kernel, code)
    assert "compile" in result.error["ename"].lower()
    assert words in plain(result.error["evalue"]) + plain(result.traceback)
    text = plain(result.traceback)
    assert f"error[{number}]" in text
    assert words in text
    assert re.search(rf":{line}:{column}\b", text), f"expected {line}:{column} in\n{text}"
    assert "\x1b[" in result.traceback, "colours"
    assert code.splitlines()[line - 1].strip() in text, "the user's line is shown"
    assert "^" in text, "and marked"
    assert not INTERNALS.search(text), text


def test_a_compile_error_names_help(kernel: Kernel) -> None:
    kernel.run("let distance_in_metres = 3.5;").expect_ok()
    result = fails(kernel, "distance_in_meters * 2.0")
    assert "distance_in_metres" in plain(result.traceback), "a similar name exists"
    result = fails(kernel, "let m: HashMap<i32, i32> = HashMap::new();")
    assert "help" in plain(result.traceback) and "use std::collections::HashMap" in plain(result.traceback)


def test_all_compile_errors_of_a_cell_are_told(kernel: Kernel) -> None:
    text = plain(fails(kernel, 'let a: i32 = "one";\nlet b: bool = 2;').traceback)
    assert len(re.findall(r"error\[E0308\]", text)) == 2
    assert re.search(r":1:14\b", text) and re.search(r":2:15\b", text)


@pytest.mark.parametrize("code", ["let x = ;", "fn f( {", "1 +", "struct { }", "let s = \"unterminated", ")"])
def test_syntax_errors(kernel: Kernel, code: str) -> None:
    result = fails(kernel, code)
    assert "error" in error_text(result.error).lower()
    assert not INTERNALS.search(plain(result.traceback))


def test_a_compile_error_changes_nothing(kernel: Kernel) -> None:
    kernel.run("let untouched = String::from(\"here\"); fn known() -> i32 { 1 }").expect_ok()
    fails(kernel, 'let untouched = 5; fn known() -> i32 { 2 }\nlet wrong: bool = "no";')
    assert kernel.run("untouched").expect_ok().text.strip() == '"here"'
    assert kernel.run("known()").expect_ok().text.strip() == "1"


def test_an_early_return_by_question_mark(kernel: Kernel) -> None:
    assert kernel.run('let parsed: i32 = "12".parse::<i32>()?; parsed + 1').expect_ok().text.strip() == "13"
    kernel.run("let kept_through = 9;").expect_ok()
    result = fails(kernel, 'println!("reached");\nlet n: i32 = "twelve".parse::<i32>()?;\nprintln!("not reached");')
    assert "ParseIntError" in result.error["evalue"] or "invalid digit" in result.error["evalue"]
    assert result.stdout == "reached\n"
    assert kernel.run("kept_through").expect_ok().text.strip() == "9"
    assert kernel.run("n").status == "error"


def test_question_mark_with_an_error_of_ones_own(kernel: Kernel) -> None:
    kernel.run('#[derive(Debug)] struct Mine { why: String }\nimpl std::fmt::Display for Mine { fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result { write!(f, "mine: {}", self.why) } }\nimpl std::error::Error for Mine {}').expect_ok()
    assert "because" in fails(kernel, 'Err(Mine { why: "because".into() })?;').error["evalue"]
    assert "No such file" in fails(kernel, 'std::fs::read("/no/such/file/at/all")?;').error["evalue"]


DEATHS = [
    ("std::process::exit(7)", "7"),
    ("std::process::exit(0)", "0"),
    ("std::process::exit(255)", "255"),
    ("unsafe { std::ptr::null_mut::<i32>().write_volatile(1); }", "SIGSEGV"),
    ("std::process::abort();", "SIGABRT"),
    ('std::process::Command::new("sh").args(["-c", &format!("kill -9 {}", std::process::id())]).status().unwrap(); std::thread::sleep(std::time::Duration::from_secs(60));', "SIGKILL"),
    ('std::process::Command::new("sh").args(["-c", &format!("kill -TERM {}", std::process::id())]).status().unwrap(); std::thread::sleep(std::time::Duration::from_secs(60));', "SIGTERM"),
    ('extern "C" fn nounwind() { panic!("cannot unwind") } nounwind();', "SIGABRT"),
    ("unsafe { std::arch::asm!(\"ud2\") };", "SIGILL"),
]


@pytest.mark.parametrize("code, named", DEATHS)
def test_a_death_names_its_status_or_signal(kernel: Kernel, code: str, named: str) -> None:
    result = fails(kernel, f'print!("last words"); {code}')
    assert re.search(rf"\b{named}\b", error_text(result.error)), error_text(result.error)
    assert result.error["evalue"]
    assert result.stdout in ("last words", ""), "what was still in the process's own buffer may be gone"
    assert result.error["ename"] != "panic"


def test_a_stack_overflow_is_told(kernel: Kernel) -> None:
    result = fails(kernel, "#[allow(unconditional_recursion)]\nfn down(n: u64) -> u64 { let a = [n; 100]; down(n + 1) + std::hint::black_box(a)[5] }\ndown(0)")
    assert re.search(r"SIGSEGV|SIGABRT|SIGBUS|stack overflow", error_text(result.error))


def test_deep_recursion_within_reason_works(kernel: Kernel) -> None:
    assert kernel.run("fn deep(n: u64) -> u64 { if n == 0 { 0 } else { 1 + std::hint::black_box(deep(n - 1)) } }\ndeep(50_000)").expect_ok().text.strip() == "50000"


def test_unknown_magics_and_commands_are_errors(kernel: Kernel) -> None:
    assert "%checkpoint" in error_text(fails(kernel, "%checkpiont status").error), "the nearest one is named"
    assert ":no_such_command" in error_text(fails(kernel, ":no_such_command").error)


DEFINED = """
fn ff(x: i32) -> i32 { x * 2 }
fn only_copies<T: Copy>(x: T) -> T { x }
struct S; impl S { fn m(&self, x: i32) -> i32 { x } }
struct P { a: i32 }
"""


@pytest.mark.parametrize("engines", ["", "%%px\n"])
@pytest.mark.parametrize("cell, message, shown", [
    ('ff("x")', "[E0308] mismatched types", 'ff("x")'),
    ("ff(1, 2)", "[E0061] this function takes 1 argument but 2 arguments were supplied", "ff(1, 2)"),
    ("ff()", "[E0061] this function takes 1 argument but 0 arguments were supplied", "ff()"),
    ('S.m("x")', "[E0308] mismatched types", 'S.m("x")'),
    ('ff(ff("x")) + 1', "[E0308] mismatched types", 'ff(ff("x")) + 1'),
    ('let a = 1;\nff(\n    "x",\n)', "[E0308] mismatched types", '"x",'),
    ("only_copies(String::new())", "[E0277] the trait bound `String: Copy` is not satisfied", "only_copies(String::new())"),
    ('P { a: "x" }.a', "[E0308] mismatched types", 'P { a: "x" }.a'),
    ('vec!["a"].into_iter().map(ff).count()', "[E0631] type mismatch in function arguments", ".map(ff)"),
])
def test_an_error_in_the_last_expression_is_told_itself(told: tuple[Kernel, Kernel], engines: str, cell: str, message: str, shown: str) -> None:
    """And not only where the function that it calls is defined."""
    kernel = told[bool(engines)]
    result = kernel.run(engines + cell, timeout=60)
    assert result.status == "error"
    text = plain(error_text(result.error))
    assert message in text or message.split("] ")[1] in text, text
    assert shown in text, text
    assert not INTERNALS.search(text), text


@pytest.fixture(scope="module")
def told(module_kernel: Kernel, kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kernel, Kernel]]:
    """A notebook, and one with an engine, that have these definitions."""
    module_kernel.run(DEFINED, timeout=120).expect_ok()
    with started(kernel_name, tmp_path_factory.mktemp("engine"), 1) as kernel:
        kernel.run("%%px\n" + DEFINED, timeout=120).expect_ok()
        yield module_kernel, kernel
