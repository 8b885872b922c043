"""A notebook that has grown: what a cell doesn't reach is left out of its compile, and nothing of that is felt but the speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chorus_client import Kernel
from engines import results, started
from live import family, plain
from workers import workers_with

# More than is shown without a search.
FILLER = "\n".join(f"fn filler{n}(x: u64) -> u64 {{ x + {n} }}" for n in range(60))

CELLS: list[tuple[str, str | None]] = [
    (FILLER, None),
    ("use std::fmt;\nuse std::collections::BTreeMap;", None),
    ("#[derive(Clone, Debug, Default)]\nstruct P { x: f64 }\nimpl P { fn twice(&self) -> f64 { double(self.x) } }", "double"),
    ("fn double(x: f64) -> f64 { x * 2.0 }\n#[derive(Clone, Debug, Default)]\nstruct P { x: f64 }\nimpl P { fn twice(&self) -> f64 { double(self.x) } }", None),
    ("trait Area { fn area(&self) -> f64; fn both(&self) -> f64 { self.area() * 2.0 } }", None),
    ("impl Area for P { fn area(&self) -> f64 { self.x } }", None),
    ("impl Area for u8 { fn area(&self) -> f64 { 1.5 } }", None),
    ("let p = P { x: 3.0 };\nlet n = 7u8;", None),
    ("p.twice()", "=6.0"),
    ("p.both() + n.both()", "=9.0"),
    ("impl fmt::Display for P { fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result { write!(f, \"P of {}\", self.x) } }", None),
    ("p.to_string()", '="P of 3"'),
    ("impl Drop for P { fn drop(&mut self) { println!(\"dropped\"); } }", None),
    ("drop(p.clone());", "dropped"),
    ("macro_rules! of { ($x:expr) => { P { x: filler3($x) as f64 } } }", None),
    ("of!(4).x", "=7.0"),
    ("mod deep { pub trait Deep { fn deep(&self) -> u32 { 5 } }\nimpl Deep for u8 {} }\nuse deep::Deep;", None),
    ("n.deep()", "=5"),
    ("enum Color { Red, Green }\nuse Color::*;", None),
    ("match Green { Red => 1, Green => 2 }", "=2"),
    ("let m: BTreeMap<u8, P> = BTreeMap::from([(1, P { x: 1.0 })]);", None),
    ('println!("{n} {:?}", m.len())', "7 1"),
    # A name that a macro puts together is found by a second compile with everything.
    ("macro_rules! call { ($($t:tt)*) => { filler1($($t)*) } }\ncall!(1)", "=2"),
    # A changed signature is told at once, with its users.
    ("fn double(x: f32) -> f32 { x * 2.0 }", "In[4]"),
    ("struct P;", "In["),
    ("trait Area { fn area(&self) -> f32; }", "In["),
    ("p.nothing()", "no method named `nothing`"),
    ("filler99(1)", "a function with a similar name exists"),
    ("nn + 1", "a local variable with a similar name exists"),
    ("p.twice()", "=6.0"),
    ("fn filler3(x: u64) -> u64 { x * 100 }\nof!(4).x", "=400.0"),
    ("struct Unrelated(u8);\nUnrelated(1).0", "=1"),
    ("m", "{1: P { x: 1.0 }}"),
]


def check(result, cell: str, expected: str | None) -> None:
    if expected is None:
        result.expect_ok()
    elif expected.startswith("="):
        assert result.expect_ok().text == expected[1:], cell
    elif result.ok:
        assert expected in (result.text or "") + result.stdout, cell
    else:
        assert expected in plain("\n".join(result.error["traceback"])), cell


def test_a_grown_notebook_means_what_it_says(fresh_kernel: Kernel) -> None:
    for cell, expected in CELLS:
        check(fresh_kernel.run(cell, timeout=120), cell, expected)


def test_so_do_engines(kernel_name: str, tmp_path: Path) -> None:
    with started(kernel_name, tmp_path / "kernel", 1) as kernel:
        for cell, expected in CELLS:
            result = kernel.run(f"%%px\n{cell}", timeout=120)
            if expected is None or expected.startswith("="):
                found = results(result.expect_ok())
                assert expected is None or list(found.values()) == [expected[1:]], cell
            elif expected.startswith("In["):
                # An engine's cells have no numbers.
                assert not result.ok, cell


def test_completion_of_names_that_a_cell_does_not_reach(fresh_kernel: Kernel) -> None:
    fresh_kernel.run(FILLER).expect_ok()
    fresh_kernel.run("let filled = vec![1u8];\nstruct Filed { first: u8 }\nlet filed = Filed { first: 1 };").expect_ok()

    def matches(code: str) -> list[str]:
        return fresh_kernel.request("complete_request", {"code": code, "cursor_pos": len(code)}).content["matches"]

    found = matches("fill")
    assert {"filled", "filler0(x)", "filler7"} <= set(found), found
    assert len({name.split("(")[0] for name in found if name.startswith("filler")}) == 60
    assert "len()" in matches("filled.l")
    assert matches("filed.fir") == ["first"]
    assert matches("1 + filler59") == ["filler59(x)"]


@pytest.mark.parametrize("cells", [60])
def test_a_cell_leaves_little_behind(start_kernel: Callable[..., Kernel], tmp_path: Path, cells: int) -> None:
    """A file and the maps of its library, no descriptor; neither at the kernel nor at its compile worker."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    kernel = start_kernel(env={"TMPDIR": str(temporary)})

    def left() -> tuple[int, int, int]:
        workers = workers_with(temporary)
        assert workers
        processes = [*family(kernel.pid), *workers]
        files = sum(1 for path in temporary.rglob("*") if path.is_file())
        descriptors = sum(p.num_fds() for p in processes)
        maps = max(len(Path(f"/proc/{p.pid}/maps").read_text().splitlines()) for p in processes)
        return files, descriptors, maps

    for i in range(10):
        kernel.run(f"let v{i} = vec![{i}];\nfn g{i}() -> usize {{ {i} }}").expect_ok()
    before = left()
    for i in range(10, 10 + cells):
        kernel.run(f"let v{i} = vec![{i}];\nfn g{i}() -> usize {{ {i} }}").expect_ok()
    files, descriptors, maps = (now - then for now, then in zip(left(), before, strict=True))
    assert files <= 2 * cells + 5
    assert descriptors <= 5
    assert maps <= 4 * cells + 20
