"""Text of Rust that looks like Chorus's own: `name?` and help, lines of strings and comments like commands and magics, paths that begin with a colon."""

from __future__ import annotations

import pytest

from chorus_client import Kernel
from engines import said, shown

SETUP = """
let r: Result<i32, u8> = Ok(5);
let failed: Result<i32, u8> = Err(9);
struct W { o: Result<u8, u8> }
impl W { fn get(&self) -> Result<u8, u8> { self.o } }
let w = W { o: Ok(6) };
const SOME: Result<i32, u8> = Ok(7);
static SHARED: Result<i32, u8> = Ok(8);
/// Doubles.
fn my_fn(x: i32) -> i32 { x * 2 }
"""


@pytest.fixture(scope="module")
def names(module_kernel: Kernel) -> None:
    module_kernel.run(SETUP, timeout=120).expect_ok()


@pytest.mark.parametrize("cell, value", [
    ("r?", "5"), (" r? ", "5"), ("r.clone()?", "5"), ("w.o?", "6"), ("w.get()?", "6"), ("SOME?", "7"), ("SHARED?", "8"),
    ("// five\nr?", "5"),
])
def test_a_question_mark_behind_a_value_is_rust(kernel: Kernel, names: None, cell: str, value: str) -> None:
    result = kernel.run(cell, timeout=60).expect_ok()
    assert result.text.strip() == value


def test_a_question_mark_behind_an_error_ends_the_cell(kernel: Kernel, names: None) -> None:
    assert "9" in said(kernel.run("failed?"))


@pytest.mark.parametrize("cell, tells", [
    ("?r", "Result<i32, u8>"), ("r??", "Result<i32, u8>"), ("my_fn?", "Doubles."), ("?my_fn", "Doubles."), ("Vec?", "Vec"),
    ("%px?", "%px"), ("%px??", "%px"), ("Vec::new?", "new"), ("SOME??", "SOME"),
])
def test_help_stays(kernel: Kernel, names: None, cell: str, tells: str) -> None:
    result = kernel.run(cell, timeout=60).expect_ok()
    assert not [message for message in result.messages if message["msg_type"] == "execute_result"]
    assert any(tells in text for text in shown(result))


def test_no_help_for_what_nobody_knows(kernel: Kernel) -> None:
    assert "Nothing is known" in said(kernel.run("no_such_name?"))


@pytest.mark.parametrize("line", [":vars", "%who", "%%px", "!ls", ":dep itoa", "?Vec", ":clear", "%px 1", ":dep x = \\\"1\\\"", "// no comment", "/*"])
@pytest.mark.parametrize("before", [":vars\n%who", "};", "x;\n%who\n", ""])
def test_lines_of_a_string_are_text(kernel: Kernel, line: str, before: str) -> None:
    lines = f"{before}\n{line}\n"
    length = len(lines.replace("\\", ""))
    assert kernel.run(f'let s = "{lines}"; s.len()', timeout=60).expect_ok().text.strip() == str(length)
    assert kernel.run(f'1 + 1;\nlet s = String::from("{lines}"); s.len()', timeout=60).expect_ok().text.strip() == str(length)


@pytest.mark.parametrize("cell, value", [
    ('let s = r#"\n:vars\n"%who"\n%%px\n"#; s.len()', "19"),
    ("let a = 3;\n/*\n%who\n:vars\n*/\na", "3"),
    ("/*\n:no_such_command\n%no_such_magic\n*/\n4", "4"),
    ("  // a comment\n:opt 2\n5", "5"),
    ("\t// a comment\n\t:opt 2\n6", "6"),
    ("/* a comment */\n:opt 2\n7", "7"),
    ("/* a /* nested */\n:no_such_command */\n:opt 2\n8", "8"),
    ("// one\n\n/* two */\n  // three\n:opt 2\n%who\n9", "9"),
    ("::std::cmp::max(1, 10)", "10"),
    (":opt 2\n::std::cmp::max(1, 11)", "11"),
    ('format!("{}\n%who\n:vars", 1).lines().count()', "3"),
    ("let m = 17\n%5;\nm", "2"),
])
def test_only_a_statements_beginning_is_a_magics(kernel: Kernel, cell: str, value: str) -> None:
    assert kernel.run(cell, timeout=60).expect_ok().text.strip() == value


def test_a_key_that_cargo_has_renamed(fresh_kernel: Kernel) -> None:
    result = fresh_kernel.run(':dep itoa = { version = "1", default_features = false }\nitoa::Buffer::new().format(7u8).len()', timeout=180).expect_ok()
    assert result.text.strip() == "1"
    assert any("default-features" in text for text in shown(result))


def test_an_impl_that_is_run_again_takes_the_place_of_the_earlier_one(fresh_kernel: Kernel) -> None:
    def run(code: str) -> str:
        return (fresh_kernel.run(code, timeout=120).expect_ok().text or "").strip()

    run("#[derive(Clone)]\nstruct A { x: i32 }\nimpl A { fn twice(&self) -> i32 { 2 }\n    fn thrice(&self) -> i32 { 3 } }\nlet a = A { x: 1 };")
    run("impl std::fmt::Display for A { fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result { write!(f, \"first\") } }")
    assert run("(a.twice(), a.thrice(), a.to_string())") == '(2, 3, "first")'
    run("impl A { fn twice(&self) -> i32 { 2 * self.x + 18 } }")
    assert run("(a.twice(), a.thrice(), a.to_string())") == '(20, 3, "first")'
    run("use std::fmt;\nimpl fmt::Display for A { fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result { write!(f, \"second\") } }")
    assert run("(a.twice(), a.thrice(), a.to_string())") == '(20, 3, "second")'
    run("impl A { fn more(&self) -> i32 { 4 } }")
    assert run("(a.clone().more(), a.thrice())") == "(4, 3)"
    # A signature that others use is still told at once.
    run("fn user(a: &A) -> i32 { a.more() }")
    failed = fresh_kernel.run("impl A { fn more(&self, by: i32) -> i32 { by } }")
    assert "E0061" in said(failed) or "this method takes 1 argument" in said(failed)
    assert run("a.more() + user(&a)") == "8"
