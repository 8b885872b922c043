"""Errors, panics and printed places name the cell and its line, whatever made the code around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus_client import Kernel
from engines import said

SETUP = """
fn deep(x: i32) -> i32 { if x == 0 { panic!("deep") } else { 1 + deep(x - 1) } }
fn shallow() { panic!("shallow") }
let zero = std::env::args().count() as i32 - std::env::args().count() as i32;
let most = i32::MAX - zero;
"""


@pytest.fixture(scope="module")
def setup(module_kernel: Kernel) -> None:
    module_kernel.run(SETUP, timeout=120).expect_ok()


@pytest.mark.parametrize("cell, tells", [
    # Last expressions.
    ("1 / zero", ["panic at In[{}], line 1", "----> 1 1 / zero"]),
    ("let a = 1;\nmost + a", ["panic at In[{}], line 2", "----> 2 most + a"]),
    ("let q = 0;\n1 / q", ["In[{}]:2:1", "this operation will panic"]),
    ("let arr = [1, 2, 3]; let i = 7; arr[i]", ["In[{}]:1:33", "the index is 7"]),
    # The line that called.
    ("let a = 1;\nshallow();", ["----> 2 shallow();"]),
    ("let a = 1;\ndeep(3)", ["----> 2 deep(3)", "and "]),
    ("let a = 1;\nlet b = deep(300) + a;", ["----> 2 let b = deep(300) + a;"]),
    # The end of the cell.
    ("zero +", ["In[{}]:1:6", "found the end of the cell"]),
    ("x = ", ["In[{}]:1:3", "found the end of the cell"]),
    ("let a = std::", ["In[{}]:1:13", "found the end of the cell"]),
    # Another language.
    ("import numpy", ["In[{}]:1:1", "`import` is no word of Rust's", ":dep"]),
    ("def f(x): return x", ["In[{}]:1:1", "fn name"]),
    # Magics.
    ("%timeit c + 1", ["In[{}]:1:9", "| %timeit c + 1"]),
    ("%%timeit\nlet b = 1;\nb + cc", ["In[{}]:3:5"]),
    ("%px fn f() {} f(1)", ["In[{}]:1:15"]),
    ("%%px\nlet x = 1;\nx + yy", ["In[{}]:3:5"]),
    # A warning of an earlier cell is none of this one's.
    ("let g = |x: i32| x + y_;", ["cannot find value `y_`", "In[{}]:1:22"]),
])
def test_an_error_names_its_place(kernel: Kernel, setup: None, cell: str, tells: list[str]) -> None:
    kernel.run("fn warned() -> i32 { return 2; 3 }").expect_ok()
    result = kernel.run(cell, timeout=120)
    text, count = said(result), result.content["execution_count"]
    for words in tells:
        assert words.format(count) in text, text
    for hidden in ("evcxr", "__loops", "lib.rs", "black_box", "snippet:"):
        assert hidden not in text, text


def test_what_is_printed_names_the_cell(kernel: Kernel, setup: None) -> None:
    result = kernel.run('dbg!(zero);\nprintln!("{} {}", file!(), line!());\nfn at() -> u32 { line!() }', timeout=60).expect_ok()
    count = result.content["execution_count"]
    assert f"[In[{count}]:1:1] zero = 0" in result.stderr
    assert f"In[{count}] 2\n" in result.stdout
    again = kernel.run("// one\n(file!(), line!(), at())", timeout=60).expect_ok()
    assert again.text == f'("In[{again.content["execution_count"]}]", 2, 3)'
    thread = kernel.run("\nstd::thread::spawn(|| panic!(\"there\")).join().is_err()", timeout=60).expect_ok()
    assert f"panicked at In[{thread.content['execution_count']}]:2:" in thread.stderr


def test_a_crate_of_the_users_that_does_not_compile_is_shown(fresh_kernel: Kernel, tmp_path: Path) -> None:
    crate = tmp_path / "bad"
    (crate / "src").mkdir(parents=True)
    (crate / "Cargo.toml").write_text('[package]\nname = "bad"\nversion = "0.1.0"\nedition = "2024"\n')
    (crate / "src/lib.rs").write_text('pub fn f() -> i32 {\n    "x"\n}\n')
    text = said(fresh_kernel.run(f':dep bad = {{ path = "{crate}" }}\nbad::f()', timeout=120))
    assert f"{crate}/src/lib.rs:2:5" in text and '"x"' in text and "expected `i32`" in text, text


@pytest.mark.parametrize("cell", [
    'let kept: i32 = "x".parse()?;', 'let kept: i32 = "x".parse().unwrap();', "%pull kept: u64", 'let (kept, other) = (1, "x".parse::<u8>()?);',
])
def test_what_a_failing_cell_would_replace_stays(kernel: Kernel, setup: None, cell: str) -> None:
    kernel.run("let kept: u64 = 9;").expect_ok()
    assert not kernel.run(cell, timeout=120).ok
    assert kernel.run("kept", timeout=60).expect_ok().text == "9"


def test_a_closure_that_captures_is_shown_with_the_variable(fresh_kernel: Kernel) -> None:
    fresh_kernel.run("use chorus::*;\nlet client = Client::connect()?; let view = client.load_balanced_view();", timeout=120).expect_ok()
    fresh_kernel.run("let k = 5; let items: Vec<i32> = (0..4).collect();", timeout=60).expect_ok()
    text = said(fresh_kernel.run("let n = 1;\nlet r = view.map(&items, |x| { let m = x + n; m + k });", timeout=60))
    assert "captures `k`, `n`" in text and ":2:26" in text and "map_with" in text, text
    assert "E0080" not in text and "rustlib" not in text and "EMPTY" not in text, text
