"""`%time`, `%timeit` in IPython's words, over Rust and over `%px`, the compiler's time told apart; `%who`, `%whos`, `%lsmagic`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import engines
from chorus_client import Kernel, Result
from engines import results, said, shown

pytestmark = pytest.mark.alone

# What IPython prints: three significant digits and a unit.
TIME = r"(?:(?:\d+(?:\.\d+)?|\d(?:\.\d+)?e[+-]\d+) (?:ns|[µμ]s|ms|s)|(?:\d+(?:d|h|min|s) ?)+)"
LINE = rf"({TIME}) ± ({TIME}) per loop \(mean ± std\. dev\. of (\d+) runs?, ([\d,]+) loops? each\)"
SECONDS = {"ns": 1e-9, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0}


@pytest.fixture(scope="module")
def module_kernel(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with engines.started(kernel_name, tmp_path_factory.mktemp("timeit"), 2) as kernel:
        yield kernel


def seconds(text: str) -> float:
    """What `1.23 ms` says."""
    number, unit = text.split(" ")
    return float(number) * SECONDS[unit]


def timing(result: Result) -> re.Match[str]:
    """The one line of `%timeit`, taken apart."""
    found = re.findall(LINE, result.stdout)
    assert len(found) == 1, result.stdout
    return re.search(LINE, result.stdout)


def without_compiler(text: str) -> str:
    return re.sub(r"(?m)^Compiler *(time)? *: .*\n", "", text)


def sleep(milliseconds: int) -> str:
    return f"std::thread::sleep(std::time::Duration::from_millis({milliseconds}));"


@pytest.mark.parametrize("cell", ["%time {}", "%%time\n{}"])
def test_time(kernel: Kernel, cell: str) -> None:
    result = kernel.run(cell.format(f"{sleep(120)} 6 * 7")).expect_ok()
    assert result.text == "42", "the value is the cell's"
    match = re.fullmatch(rf"CPU times: user ({TIME}), sys: ({TIME}), total: ({TIME})\nWall time: ({TIME})\n", without_compiler(result.stdout))
    assert match, result.stdout
    assert 0.12 <= seconds(match[4]) < 0.5
    assert seconds(match[3]) < 0.1, "sleeping takes no processor time"


def test_time_counts_processor_time(kernel: Kernel) -> None:
    spin = "{ let begun = std::time::Instant::now(); let mut n = 0u64; while begun.elapsed().as_millis() < 300 { n = std::hint::black_box(n + 1); } }"
    result = kernel.run(f"%time {spin}").expect_ok()
    total = re.search(rf"total: ({TIME})", result.stdout)[1]
    assert 0.05 < seconds(total) < 0.5, result.stdout


def test_time_keeps_what_the_cell_makes(kernel: Kernel) -> None:
    kernel.run("%%time\nlet timed_variable = 5;\nfn timed_function() -> i32 { 2 }").expect_ok()
    assert kernel.run("timed_variable + timed_function()").expect_ok().text == "7"


def test_time_tells_the_compiler_apart(kernel: Kernel) -> None:
    # Much to compile and nothing to run.
    body = "\n".join(f"fn made_{n}(v: Vec<u64>) -> Vec<u64> {{ let mut v: Vec<u64> = v.into_iter().map(|x| x.wrapping_mul({n})).collect(); v.sort(); v.dedup(); v }}" for n in range(40))
    result = kernel.run(f"%%time\n{body}\nmade_3(vec![1]).len()").expect_ok()
    compiler = re.search(rf"(?m)^Compiler *(?:time)? *: ({TIME})$", result.stdout)
    assert compiler, result.stdout
    wall = re.search(rf"(?m)^Wall time: ({TIME})$", result.stdout)[1]
    assert seconds(wall) < 0.1 < seconds(compiler[1]) <= result.seconds


def test_time_of_a_fan_out(kernel: Kernel) -> None:
    result = kernel.run(f"%time %px {sleep(200)} 5").expect_ok()
    assert results(result) == {0: "5", 1: "5"}
    wall = re.search(rf"(?m)^Wall time: ({TIME})$", result.stdout)[1]
    assert 0.2 <= seconds(wall) < 3


def test_an_error_in_time_is_the_cells(kernel: Kernel) -> None:
    result = kernel.run('%time panic!("timed")')
    assert result.error["ename"] == "panic"
    assert "Wall time" not in result.stdout


@pytest.mark.parametrize("cell", ["%timeit {}", "%%timeit\n{}"])
def test_timeit_finds_the_loops_itself(kernel: Kernel, cell: str) -> None:
    kernel.run("let data: Vec<u64> = (0..1000).collect();").expect_ok()
    result = kernel.run(cell.format("data.iter().map(|n| n.wrapping_mul(31)).sum::<u64>()")).expect_ok()
    mean, _, runs, loops = timing(result).groups()
    assert runs == "7"
    assert re.fullmatch(r"1(0|00)?(,000)*", loops), loops
    count = int(loops.replace(",", ""))
    assert 0.05 < seconds(mean) * count < 5, "a run takes about 0.2 s"
    assert result.text is None, "without -o there is no value"


def test_timeit_of_something_slow_loops_once(kernel: Kernel) -> None:
    result = kernel.run(f"%timeit -r 2 {sleep(250)}").expect_ok()
    mean, _, runs, loops = timing(result).groups()
    assert (runs, loops) == ("2", "1")
    assert "2 runs, 1 loop each" in result.stdout
    assert 0.25 <= seconds(mean) < 0.4


@pytest.mark.parametrize("options, runs, loops", [("-n 3 -r 2", "2", "3"), ("-n3 -r2", "2", "3"), ("-r 1 -n 1", "1", "1"), ("-n 1000 -r 3", "3", "1,000")])
def test_timeit_counts(kernel: Kernel, options: str, runs: str, loops: str) -> None:
    kernel.run("static CALLS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);").expect_ok()
    kernel.run("let called = std::rc::Rc::new(std::cell::Cell::new(0u64));").expect_ok()
    result = kernel.run(f"%timeit {options} called.set(called.get() + 1)").expect_ok()
    assert timing(result).groups()[2:] == (runs, loops)
    assert f"{runs} run{'s' * (runs != '1')}, {loops} loop{'s' * (loops != '1')} each" in result.stdout
    count = int(kernel.run("called.get()").expect_ok().text)
    assert count == int(runs) * int(loops.replace(",", "")), "neither more nor less"


def test_timeit_quiet_and_its_value(kernel: Kernel) -> None:
    result = kernel.run("%timeit -q -o -n 10 -r 3 1 + 1").expect_ok()
    assert result.stdout == ""
    assert re.fullmatch(rf"<TimeitResult : {LINE}>", result.text), result.text
    loud = kernel.run("%timeit -o -n 10 -r 3 1 + 1").expect_ok()
    assert timing(loud)[0] in loud.text


def test_timeit_digits_and_seconds(kernel: Kernel) -> None:
    result = kernel.run(f"%timeit -n 1 -r 1 -p 6 -v measured {sleep(101)}").expect_ok()
    assert re.match(r"10[1-9]\.\d{2,3} ms ± 0 ns per loop", result.stdout), result.stdout
    assert kernel.run("{ let m: &Vec<f64> = &measured; m.len() == 1 && m[0] >= 0.101 && m[0] < 0.3 }").expect_ok().text == "true"


def test_timeit_setup_is_not_timed(kernel: Kernel) -> None:
    result = kernel.run(f"%%timeit -n 1 -r 3 let mut prepared = vec![3, 1, 2]; {sleep(100)}\nprepared.sort();\nprepared.len()").expect_ok()
    assert seconds(timing(result)[1]) < 0.05


def test_timeit_leaves_nothing(kernel: Kernel) -> None:
    kernel.run("let outside = 1;").expect_ok()
    kernel.run("%%timeit -n 1 -r 1\nlet inside = outside + 1;\ninside").expect_ok()
    assert kernel.run("inside").status == "error"
    assert kernel.run("outside").expect_ok().text == "1"


def test_timeit_tells_the_compiler_apart(kernel: Kernel) -> None:
    body = "; ".join(f"let v{n}: Vec<u64> = (0..2).map(|x| x * {n}).collect()" for n in range(60))
    result = kernel.run(f"%timeit -n 1 -r 1 {{ {body}; v3.len() }}").expect_ok()
    assert seconds(timing(result)[1]) < 0.02
    compiler = re.search(rf"(?m)^Compiler *(?:time)? *: ({TIME})$", result.stdout)
    assert compiler and seconds(compiler[1]) > 0.1, result.stdout


@pytest.mark.parametrize("cell", ["%timeit -n 1 -r 3 %px {}", "%%timeit -n 1 -r 3\n%%px\n{}", "%%timeit -n 1 -r 3\n%px {}"])
def test_timeit_of_a_fan_out(kernel: Kernel, cell: str) -> None:
    result = kernel.run(cell.format(sleep(150))).expect_ok()
    mean, _, runs, loops = timing(result).groups()
    assert (runs, loops) == ("3", "1")
    assert 0.15 <= seconds(mean) < 0.4, "both at the same time, and without the compiler"
    assert not any(text.startswith(("[", "Out[")) for text in shown(result))


def test_timeit_of_a_quick_fan_out(kernel: Kernel) -> None:
    mean, _, runs, loops = timing(kernel.run("%timeit %px 1 + 1").expect_ok()).groups()
    assert runs == "7" and int(loops.replace(",", "")) >= 1
    assert seconds(mean) < 0.2, "compiled once"


@pytest.mark.parametrize("code, parts", [
    ("%timeit", ["code"]), ("%%timeit", ["code"]), ("%time", ["code"]), ("%timeit -x 1", ["-x"]), ("%timeit -n 0 1", ["0"]), ("%timeit -n many 1", ["many"]), ("%%time 1\n2", ["%%time"]),
    ("%%timeit let a = 1;\n%px 1", ["let a = 1;"]),
])
def test_wrong_use_is_told(kernel: Kernel, code: str, parts: list[str]) -> None:
    result = kernel.run(code)
    assert result.status == "error" and result.seconds < engines.SOON
    assert all(part in said(result) for part in parts), said(result)


def test_what_fails_in_a_loop_is_told(kernel: Kernel) -> None:
    assert kernel.run('%timeit panic!("in a loop")').error["ename"] == "panic"
    assert "mismatched" in said(kernel.run('%timeit let x: u8 = "";'))
    assert "on engines" in said(kernel.run('%timeit %px panic!("on engines")'))


def test_lists(start_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    kernel = start_kernel(env={"XDG_DATA_HOME": str(tmp_path)})
    assert kernel.run("%who").expect_ok().stdout == "Interactive namespace is empty.\n"
    kernel.run('let apple = 1i32; let pear = vec![1.5f64]; let plum = String::from("x");').expect_ok()
    assert sorted(kernel.run("%who").expect_ok().stdout.split()) == ["apple", "pear", "plum"]
    assert kernel.run("%who Vec").expect_ok().stdout.split() == ["pear"]
    assert kernel.run("%who f64").expect_ok().stdout == "No variables match your requested type.\n"
    header, rule, *rows = kernel.run("%whos").expect_ok().stdout.splitlines()
    assert header.split()[:2] == ["Variable", "Type"] and set(rule) == {"-"}
    assert {row.split()[0]: re.sub(r"\w+::", "", row.split()[1]) for row in rows} == {"apple": "i32", "pear": "Vec<f64>", "plum": "String"}


def test_lsmagic(kernel: Kernel) -> None:
    listed = kernel.run("%lsmagic").expect_ok().stdout
    for name in ("%px, %%px", "%pxresult", "%pxconfig", "%autopx", "%cluster", "%time, %%time", "%timeit, %%timeit", "%who", "%whos", "%checkpoint", "%lsmagic"):
        assert re.search(rf"(?m)^{re.escape(name)} ", listed), name
