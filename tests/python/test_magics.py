"""Magics: `%checkpoint on|off|status`, where a `%` is a magic and where it is Rust's remainder."""

from __future__ import annotations

import pytest

from chorus_client import Kernel
from live import error_text


@pytest.fixture(autouse=True)
def switched_on(kernel: Kernel) -> None:
    kernel.run("%checkpoint on").expect_ok()


def shown(result) -> str:
    return result.stdout + "".join(str(v) for d in result.displays for v in d.values())


def test_status_tells_on_and_off(kernel: Kernel) -> None:
    assert shown(kernel.run("%checkpoint off").expect_ok())
    off = shown(kernel.run("%checkpoint status").expect_ok()).lower()
    assert "off" in off
    assert shown(kernel.run("%checkpoint on").expect_ok())
    on = shown(kernel.run("%checkpoint status").expect_ok()).lower()
    assert "off" not in on and on != off


def test_off_means_that_a_death_loses_the_variables_and_says_so(kernel: Kernel) -> None:
    kernel.run("%checkpoint off").expect_ok()
    kernel.run("let doomed = vec![1]; let also_doomed = 2;").expect_ok()
    result = kernel.run("std::process::abort();")
    said = error_text(result.error).lower()
    assert "lost" in said, said
    assert "checkpoint" in said, "what to do next"
    gone = kernel.run("doomed.len()")
    assert gone.status == "error"
    assert "doomed" in error_text(gone.error)
    kernel.run("let doomed = vec![1, 2];").expect_ok()
    assert kernel.run("doomed.len()").expect_ok().text.strip() == "2"


def test_off_and_on_again(kernel: Kernel) -> None:
    kernel.run("%checkpoint off").expect_ok()
    kernel.run("let saved_again = 4;").expect_ok()
    kernel.run("%checkpoint on").expect_ok()
    kernel.run("std::process::abort();")
    assert kernel.run("saved_again").expect_ok().text.strip() == "4"


def test_off_is_not_forgotten_by_a_death(kernel: Kernel) -> None:
    kernel.run("%checkpoint off").expect_ok()
    kernel.run("std::process::abort();")
    assert "off" in shown(kernel.run("%checkpoint status").expect_ok()).lower()


def test_a_magic_together_with_code(kernel: Kernel) -> None:
    result = kernel.run("%checkpoint off\nlet beside = 3;\nbeside * 2").expect_ok()
    assert "6" in shown(result)
    assert "off" in shown(kernel.run("%checkpoint status")).lower()


def test_without_an_argument_it_tells_or_helps(kernel: Kernel) -> None:
    result = kernel.run("%checkpoint")
    said = shown(result) + (error_text(result.error) if result.error else "")
    assert "on" in said and said.strip()


@pytest.mark.parametrize("code", ["%checkpoint sideways", "%checkpoint on off", "%checkpiont on", "%nothing_like_it"])
def test_wrong_use_is_an_error_that_helps(kernel: Kernel, code: str) -> None:
    result = kernel.run(code)
    assert result.status == "error"
    said = error_text(result.error)
    if "check" in code:
        assert "checkpoint" in said
    if "sideways" in code:
        assert "on" in said and "off" in said and "status" in said
    assert kernel.run("1 + 1").expect_ok().text.strip() == "2"


@pytest.mark.parametrize("code, value", [
    ("17 % 5", "2"),
    ("let a = 17;\nlet b = 5;\na\n% b", "2"),
    ("let checkpoint = 4; let r = (11\n%checkpoint); r", "3"),
    ("fn rem(a: i32, b: i32) -> i32 {\n    a\n    % b\n}\nrem(9, 4)", "1"),
    ("let mut m = 9; m %= 4; m", "1"),
    ('let s = "\n%checkpoint off\n"; s.len()', "17"),
    ("/*\n%checkpoint off\n*/ 5", "5"),
    ('let r = r#"\n%checkpoint off\n"#; r.len()', "17"),
])
def test_remainder_and_text_are_no_magics(kernel: Kernel, code: str, value: str) -> None:
    assert kernel.run(code).expect_ok().text.strip() == value
    assert "off" not in shown(kernel.run("%checkpoint status")).lower()


@pytest.mark.parametrize("code", ["  %checkpoint status", "\n\n%checkpoint status\n", "// a comment\n%checkpoint status", "%checkpoint  status  "])
def test_spaces_and_comments_around_a_magic(kernel: Kernel, code: str) -> None:
    assert shown(kernel.run(code).expect_ok()).strip()
