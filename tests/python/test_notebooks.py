"""Every notebook in examples/ runs from top to bottom and shows what it promises."""

from __future__ import annotations

import base64
import os
import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from conftest import ROOT

EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
BOOK = ROOT / "LICENSE-APACHE"


def execute(path: Path, kernel_name: str, folder: Path = EXAMPLES) -> NotebookNode:
    """The notebook after a run of all its cells in `folder`."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    # Generous for the cells that download and compile crates.
    client = NotebookClient(notebook, kernel_name=kernel_name, resources={"metadata": {"path": str(folder)}}, timeout=480)
    return client.execute()


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def stdout(notebook: NotebookNode) -> str:
    return "".join(o.text for cell in code_cells(notebook) for o in cell.outputs
                   if o.output_type == "stream" and o.name == "stdout")


def bundles(notebook: NotebookNode, mime: str) -> list[str]:
    """What the notebook shows of one MIME type, in order."""
    return [o.data[mime] for cell in code_cells(notebook) for o in cell.outputs if mime in o.get("data", {})]


def ranking(notebook: NotebookNode) -> str:
    """The word count's table of the most frequent words."""
    [table] = [html for html in bundles(notebook, "text/html") if "<th>word</th>" in html]
    return table


def seconds(shown: str) -> float:
    """A duration as Rust shows it."""
    number, unit = re.fullmatch(r"([\d.]+)(ns|µs|ms|s)", shown).groups()
    return float(number) * {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1}[unit]


def busy(cell: NotebookNode) -> list[float]:
    """How many seconds each engine worked for a result that the cell shows, most first."""
    [text] = [output.data["text/plain"] for output in cell.outputs if "text/plain" in output.get("data", {})]
    return sorted(map(seconds, re.findall(r"^ +\d+ +\d+ +\d+ +\d+ +(\S+) +\d+ %$", text, re.M)), reverse=True)


def output_of(notebook: NotebookNode, source: str) -> NotebookNode:
    """The cell whose source contains `source`."""
    [cell] = [cell for cell in code_cells(notebook) if source in cell.source]
    return cell


def check_errors(notebook: NotebookNode) -> None:
    for cell in code_cells(notebook):
        errors = [o for o in cell.outputs if o.output_type == "error"]
        expected = "raises-exception" in cell.metadata.get("tags", [])
        assert len(errors) == expected, f"{len(errors)} errors from\n{cell.source}\n{errors}"


@pytest.fixture(scope="module")
def tour(kernel_name: str) -> NotebookNode:
    return execute(EXAMPLES / "tour.ipynb", kernel_name)


@pytest.fixture(scope="module")
def forestfire(kernel_name: str) -> NotebookNode:
    return execute(EXAMPLES / "forestfire.ipynb", kernel_name)


@pytest.fixture(scope="module")
def wordcount(kernel_name: str, jupyter_home: Path) -> NotebookNode:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHORUS_TEXT", str(BOOK))
        return execute(EXAMPLES / "wordcount.ipynb", kernel_name)


def test_the_examples_are_all_tested() -> None:
    assert [path.name for path in NOTEBOOKS] == ["forestfire.ipynb", "tour.ipynb", "wordcount.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_committed_without_outputs(path: Path) -> None:
    for cell in code_cells(nbformat.read(path, as_version=4)):
        assert cell.outputs == [] and cell.execution_count is None, cell.source


@pytest.mark.parametrize("name", [pytest.param("forestfire", marks=pytest.mark.alone), "tour", "wordcount"])
def test_runs_from_top_to_bottom(request: pytest.FixtureRequest, name: str) -> None:
    notebook = request.getfixturevalue(name)
    check_errors(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_wordcount_counts_what_python_counts(wordcount: NotebookNode) -> None:
    text = BOOK.read_text()
    words = [w.strip("'’") for w in re.findall(r"[^\W_'’]+(?:['’]+[^\W_'’]+)*", text)]
    counts = Counter(word.lower() for word in words)
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]

    assert f"{len(text.encode())} bytes in {len(text.splitlines())} lines ({BOOK})" in stdout(wordcount)
    assert f"{len(words)} words, {len(counts)} of them different\n" in stdout(wordcount)
    engines = len(os.sched_getaffinity(0))
    assert f"{len(words)} words, {len(counts)} of them different, merged from {engines} engines\n" in stdout(wordcount)
    table = ranking(wordcount)
    rows = re.findall(r"<tr><td>(\d+)</td><td>([^<]+)</td><td>(\d+)</td></tr>", table)
    assert [(word, int(count)) for _, word, count in rows] == top
    [plain] = [text for text in bundles(wordcount, "text/plain") if text.lstrip().startswith("1 ")]
    assert plain.split()[1] == top[0][0]


def test_wordcount_runs_on_every_engine(wordcount: NotebookNode) -> None:
    shown = "".join(bundles(wordcount, "text/plain"))
    for engine in range(len(os.sched_getaffinity(0))):
        assert re.search(rf"\[stdout:{engine}\] engine {engine} is process \d+", shown)
        assert re.search(rf"\[stdout:{engine}\] part {engine} of \d+: \d+ bytes", shown)
        assert re.search(rf"Out\[{engine}:\d+\]", shown)


def test_wordcount_times_serial_and_parallel(wordcount: NotebookNode) -> None:
    timings = re.findall(r"^(\S+) (ns|μs|ms|s) ± .* per loop \(mean ± std\. dev\. of 7 runs, [\d,]+ loops? each\)$",
                         stdout(wordcount), re.M)
    assert len(timings) == 3


def test_wordcount_says_what_its_run_measured(wordcount: NotebookNode) -> None:
    engines = len(os.sched_getaffinity(0))
    said = stdout(wordcount)
    serial = seconds(re.search(r"^one core: (\S+)$", said, re.M)[1])
    for name in ("", ", load balanced"):
        time, times = re.search(rf"^{engines} engines{name}: (\S+), (\S+) times one core$", said, re.M).groups()
        assert float(times) == pytest.approx(serial / seconds(time), rel=0.02, abs=0.01)


def test_wordcount_says_whether_a_short_text_pays(wordcount: NotebookNode) -> None:
    engines = len(os.sched_getaffinity(0))
    alone, together, gain, verdict = re.search(
        rf"^\d+ kB: (\S+) on one core, (\S+) on {engines} engines, (\S+) times one core: (.+)$", stdout(wordcount), re.M).groups()
    assert float(gain) == pytest.approx(seconds(alone) / seconds(together), rel=0.02, abs=0.01)
    assert verdict == ("it pays" if float(gain) > 1 else "it does not pay") or float(gain) == 1


def test_wordcount_shows_what_ran_where(wordcount: NotebookNode) -> None:
    shown = output_of(wordcount, "let many:").outputs
    [html] = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    tasks = 8 * len(os.sched_getaffinity(0))
    assert "<table" in html and "<svg" in html and f"{tasks} tasks" in html
    assert html.count("<rect") >= tasks


@pytest.mark.alone
def test_forestfire_balances_what_equal_shares_do_not(forestfire: NotebookNode) -> None:
    """Most of the work is in the dense half: with equal shares one engine has nearly all of it."""
    if len(os.sched_getaffinity(0)) != 2:
        pytest.skip("what is told of the shares is true of two engines")
    rows = re.findall(r"^(one core|an equal share each|load balanced) +\d+ ms +(\S+) times one core$", stdout(forestfire), re.M)
    times = {name: float(value) for name, value in rows}
    assert times["one core"] == 1
    # How much each engine worked is what the views decide.
    dense, sparse = busy(output_of(forestfire, "let fixed"))
    assert sparse < 0.5 * dense
    most, least = busy(output_of(forestfire, "let balanced"))
    assert least > 0.6 * most
    assert sparse / dense < least / most
    [svg] = bundles(forestfire, "image/svg+xml")
    assert svg.count("<polyline") == 2
    [density] = re.findall(r"longest at a density of (0\.\d+)", "".join(bundles(forestfire, "text/plain")))
    assert 0.57 < float(density) < 0.62


def test_wordcount_draws_a_bar_for_each_word(wordcount: NotebookNode) -> None:
    [svg] = bundles(wordcount, "image/svg+xml")
    assert svg.startswith("<svg") and svg.rstrip().endswith("</svg>")
    assert svg.count('fill="#cf5527"') == 20


def test_wordcount_makes_up_a_text_where_there_is_none(
    kernel_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHORUS_TEXT", raising=False)
    notebook = execute(EXAMPLES / "wordcount.ipynb", kernel_name, folder=tmp_path)
    check_errors(notebook)
    assert re.search(r"^271565 bytes in \d+ lines \(made up\)$", stdout(notebook), re.M), stdout(notebook)
    table = ranking(notebook)
    words, counts = zip(*re.findall(r"<td>([a-z]+)</td><td>(\d+)</td>", table))
    # Zipf: the first word is the first syllable, twice as frequent as the second.
    assert words[:2] == ("ka", "lo")
    assert 1.4 < int(counts[0]) / int(counts[1]) < 2.0


def test_tour_shows_values_and_streams(tour: NotebookNode) -> None:
    assert output_of(tour, "(1..=10)").outputs[0].data["text/plain"] == "385"
    streams = {o.name: o.text for o in output_of(tour, 'eprintln!("the largest').outputs}
    assert streams == {"stdout": "10 numbers\n", "stderr": "the largest is 100\n"}
    assert output_of(tour, "doubled").outputs[0].data["text/plain"] == "42"
    assert "9.142" in output_of(tour, "total_area(&shapes)").outputs[0].data["text/plain"]
    [variables] = [o for o in output_of(tour, ":vars").outputs if o.output_type != "error"]
    assert "numbers" in str(variables)


def test_tour_errors_say_what_happened(tour: NotebookNode) -> None:
    early = output_of(tour, "forty-two").outputs[-1]
    assert "invalid digit" in early.evalue + "".join(early.traceback)
    panic = output_of(tour, "numbers[index]").outputs[-1]
    assert panic.ename == "panic"
    assert "the len is 10 but the index is 10" in panic.evalue


def test_tour_shows_html_svg_and_png(tour: NotebookNode) -> None:
    # `:vars` is HTML too.
    assert sum("<b>Bold</b>" in html for html in bundles(tour, "text/html")) == 1
    [svg] = bundles(tour, "image/svg+xml")
    assert "<polyline" in svg
    [png] = bundles(tour, "image/png")
    assert base64.b64decode(png).startswith(b"\x89PNG\r\n\x1a\n")


def test_tour_tells_about_checkpoints(tour: NotebookNode) -> None:
    outputs = output_of(tour, "%checkpoint status").outputs
    assert outputs and "checkpoint" in str(outputs).lower()
