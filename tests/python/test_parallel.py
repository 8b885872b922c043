"""`%%parallel`, `%push`, `%pull`, `%scatter`, `%gather`: a notebook's own functions, types and variables on two engines.

How options are read and which cells rustc refuses is in the crate `magics`; here is what a notebook shows.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

import engines
from chorus_client import Kernel
from live import Live, plain

POINT = """%%px --local
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Point { x: f64, name: String }"""


@pytest.fixture(scope="module")
def module_kernel(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with engines.started(kernel_name, tmp_path_factory.mktemp("parallel"), 2) as kernel:
        kernel.run(
            "use std::collections::{BTreeMap, HashSet};\n"
            'let lines: Vec<String> = (0..1000).map(|n| format!("the line {} of {}", n % 7, n % 3)).collect();\n'
            'let stop: HashSet<String> = HashSet::from(["the".to_owned(), "of".to_owned()]);\n'
            "let samples = 0..100_000u64;\n"
            "let factor = 3u64;\n"
            "fn square(n: u64) -> u64 { n * n }"
        ).expect_ok()
        yield kernel


def value(kernel: Kernel, cell: str) -> str | None:
    return kernel.run(cell).expect_ok().text


def error(kernel: Kernel, cell: str) -> str:
    """The error as a page shows it, without colours."""
    result = kernel.run(cell)
    assert result.status == "error", result.outputs
    text = plain(result.traceback)
    assert "__private" not in text and "evcxr" not in text, f"generated code is shown:\n{text}"
    return text


# -- %%parallel ----------------------------------------------------------------------------------------------------------


def test_words_are_counted(kernel: Kernel) -> None:
    result = kernel.run(
        "%%parallel --over lines --with stop --merge counts --into total\n"
        "let mut counts = BTreeMap::new();\n"
        "for word in lines.iter().flat_map(|line| line.split(' ')).filter(|word| !stop.contains(*word)) {\n"
        "    *counts.entry(word.to_owned()).or_insert(0u64) += 1;\n"
        "}\n"
        "counts"
    ).expect_ok()
    assert not result.outputs, "--into shows nothing"
    assert value(kernel, "total.values().sum::<u64>()") == "3000"
    assert value(kernel, 'total["line"]') == "1000"
    assert value(kernel, "lines.len()") == "1000", "the variable is only borrowed"


def test_the_merged_value_is_the_cells(kernel: Kernel) -> None:
    result = kernel.run("%%parallel --over samples --merge sum\nsamples.map(square).sum::<u64>()").expect_ok()
    assert result.text == str(sum(n * n for n in range(100_000)))
    assert result.of_type("execute_result")


def test_parts_are_in_order(kernel: Kernel) -> None:
    assert value(kernel, "%%parallel --over samples\n(samples.start, samples.end)") == "[(0, 50000), (50000, 100000)]"
    assert value(kernel, "%%parallel --over n=0..6u8 --balanced --chunks 3\nn.collect::<Vec<_>>()") == "[[0, 1], [2, 3], [4, 5]]"
    assert value(kernel, "%%parallel --over lines --merge concat --balanced\nlines.into_iter().map(|line| line.len()).collect::<Vec<_>>()") \
        == value(kernel, "lines.iter().map(|line| line.len()).collect::<Vec<_>>()")


def test_targets(kernel: Kernel) -> None:
    ids = value(kernel, "%%parallel\nstd::process::id()")
    assert ids is not None and len(set(re.findall(r"\d+", ids))) == 2, "once on each engine"
    one = value(kernel, "%%parallel -t 1\nstd::process::id()")
    assert one is not None and one.strip("[]") in ids
    assert "no engine 7" in error(kernel, "%%parallel -t 7\n1")


def test_variables_that_are_shared(kernel: Kernel) -> None:
    assert value(kernel, "%%parallel --over n=0..4u64 --with factor,add=10u64 --merge sum\nn.map(|n| n * factor + add).sum::<u64>()") == "58"


def test_types_of_the_notebook(kernel: Kernel) -> None:
    kernel.run(POINT).expect_ok()
    kernel.run('let points: Vec<Point> = (0..10).map(|n| Point { x: f64::from(n), name: format!("p{n}") }).collect();').expect_ok()
    text = value(kernel, "fn larger(a: Point, b: Point) -> Point { if a.x > b.x { a } else { b } }\n"
                         "%%parallel --over points --merge larger\npoints.into_iter().reduce(larger).unwrap()")
    assert text == 'Point { x: 9.0, name: "p9" }'


def test_compile_errors_are_at_the_users_lines(kernel: Kernel) -> None:
    text = error(kernel, "%%parallel --over lines --merge sum\nlet n: u32 = lines.len();\nn")
    assert "E0308" in text and re.search(r"In\[\d+\]:2:14", text) and "let n: u32 = lines.len();" in text
    text = error(kernel, "%%parallel --over liens --merge sum\nliens.len()")
    assert "cannot find value `liens`" in text and "%%parallel --over liens --merge sum" in text
    text = error(kernel, "%%parallel --over factor\n1")
    assert "`u64` can't be cut into parts" in text and "%%parallel --over factor" in text
    text = error(kernel, "%%parallel --over lines --merge smu\nlines.len()")
    assert "cannot find" in text and "`smu`" in text


def test_a_variable_that_was_not_given(kernel: Kernel) -> None:
    text = error(kernel, "%%parallel --over samples --merge sum\n// factor\nsamples.map(|n| n * factor).sum::<u64>()")
    assert "----> 3 samples.map(|n| n * factor).sum::<u64>()" in text
    assert "`--with factor`" in text


def test_a_panic_tells_part_engine_and_line(kernel: Kernel) -> None:
    text = error(kernel, "%%parallel --over samples --chunks 4\nlet n = samples.end - samples.start;\nassert!(samples.start < 50_000, \"too far\");\nn")
    assert text.startswith("%%parallel failed: 2 of 4 failed"), text
    assert re.search(r"\[part 2: items 50000 to 74999, engine 0\] panicked: too far", text)
    assert re.search(r"at In\[\d+\], line 3: assert!", text)
    assert value(kernel, "factor") == "3"


@pytest.mark.alone
def test_progress_and_interrupts(kernel: Kernel) -> None:
    live = Live(kernel)
    cell = live.send("execute_request", {"code":
        "%%parallel --over n=0..4u64 --balanced --chunks 4\n"
        "std::thread::sleep(std::time::Duration::from_secs(if n.start < 2 { 0 } else { 600 }));\n1"})
    shown = cell.until(lambda event: event.type == "display_data" and "of 4 parts" in event.content["data"]["text/plain"])
    assert shown.content["data"]["text/plain"].startswith("2 of 4 parts")
    assert "<progress" in shown.content["data"]["text/html"]
    began = time.monotonic()
    live.interrupt()
    assert cell.until_reply()["ename"] == "interrupted"
    cell.until_idle()
    assert time.monotonic() - began < 5
    assert value(kernel, "%%parallel --over n=0..4u64 --merge sum\nn.sum::<u64>()") == "6", "the engines are free again"


# -- variables -----------------------------------------------------------------------------------------------------------


def test_push_and_pull(kernel: Kernel) -> None:
    kernel.run("%push factor, twice = factor * 2").expect_ok()
    assert engines.results(kernel.run("%px factor + twice").expect_ok()) == {0: "9", 1: "9"}
    kernel.run("%px let mine: u64 = u64::from(std::process::id());").expect_ok()
    kernel.run("%pull mine: u64, twice: u64 --as theirs,both").expect_ok()
    assert value(kernel, "theirs[0] != theirs[1]") == "true"
    assert value(kernel, "both") == "[6, 6]"
    kernel.run("%pull -t 1 mine: u64").expect_ok()
    assert value(kernel, "mine == theirs[1..]") == "true"


def test_scatter_and_gather(kernel: Kernel) -> None:
    kernel.run("let data: Vec<f64> = (0..101).map(f64::from).collect();\n%scatter data").expect_ok()
    assert engines.results(kernel.run("%px data.len()").expect_ok()) == {0: "50", 1: "51"}
    kernel.run("%px let halves: Vec<f64> = data.iter().map(|x| x / 2.0).collect();").expect_ok()
    kernel.run("%gather halves: Vec<f64>").expect_ok()
    assert value(kernel, "halves.iter().map(|x| x * 2.0).collect::<Vec<_>>() == data") == "true"


def test_a_type_of_the_notebook_goes_with_px_local(kernel: Kernel) -> None:
    kernel.run("#[derive(serde::Serialize, serde::Deserialize)]\nstruct OnlyHere(u8);\nlet only = OnlyHere(1);").expect_ok()
    assert "%%px --local" in error(kernel, "%push only")
    kernel.run(POINT).expect_ok()
    kernel.run('let point = Point { x: 1.5, name: "p".to_owned() };\n%push point').expect_ok()
    assert engines.results(kernel.run("%px -t 0 point.x").expect_ok()) == {0: "1.5"}
    kernel.run("%pull point: Point --as all_points").expect_ok()
    assert value(kernel, "all_points == vec![point.clone(), point.clone()]") == "true"


def test_wrong_variables(kernel: Kernel) -> None:
    text = error(kernel, "let before = 1;\n%push liens")
    assert "cannot find value `liens`" in text and re.search(r"In\[\d+\]:2", text) and "%push liens" in text
    assert "`%pull factor: u64` binds one value an engine" in error(kernel, "%pull factor")
    assert "`u64` can't be gathered" in error(kernel, "%gather factor: u64")
    text = error(kernel, "%pull not_there: u64")
    assert "%pull failed" in text and "not_there" in text


# -- help ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marked, wanted", [
    ("%%par|", "%%parallel"), ("%%parallel --ov|", "--over"), ("%%parallel --over li|", "lines"), ("%%parallel --over lines --with stop,fac|", "factor"),
    ("%%parallel --merge co|", "counts"), ("%%parallel -t |", "0"), ("%push sam|", "samples"), ("%scatter --a|", "--as"),
])
def test_completion(kernel: Kernel, marked: str, wanted: str) -> None:
    code = marked.replace("|", "")
    reply = kernel.request("complete_request", {"code": code, "cursor_pos": marked.index("|")}).content
    assert wanted in reply["matches"], reply


@pytest.mark.parametrize("name", ["%%parallel", "%push", "%pull", "%scatter", "%gather"])
def test_help(kernel: Kernel, name: str) -> None:
    [page] = kernel.run(f"{name}?").expect_ok().content["payload"]
    assert "--targets" in page["data"]["text/plain"]
    assert name in kernel.run("%lsmagic").expect_ok().stdout
