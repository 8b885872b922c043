"""`%px` and its relatives as ipyparallel has them: labels, layouts, options, results; on one notebook with two engines.

What fails is in test_px_failures.py, what becomes of clusters in test_px_clusters.py.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import engines
from chorus_client import Kernel
from engines import Flag, pieces, results, shown, until_shown
from live import Live

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n rest").decode()


@pytest.fixture(scope="module")
def module_kernel(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with engines.started(kernel_name, tmp_path_factory.mktemp("px"), 2) as kernel:
        yield kernel


def test_text_and_results_are_labelled(kernel: Kernel) -> None:
    result = kernel.run('%px println!("to stdout"); eprintln!("to stderr"); 6 * 7').expect_ok()
    # Text comes as it comes, results in the order of the engines.
    texts = shown(result)
    streams = [text for text in texts if text.startswith("[")]
    assert sorted(streams) == ["[stderr:0] to stderr\n", "[stderr:1] to stderr\n", "[stdout:0] to stdout\n", "[stdout:1] to stdout\n"]
    first, second = (text for text in texts if text not in streams)
    assert re.fullmatch(r"Out\[0:\d+\]: 42", first)
    assert re.fullmatch(r"Out\[1:\d+\]: 42", second)
    assert not result.of_type("execute_result"), "a label stands before each result"


def test_counts_are_the_engines_own(kernel: Kernel) -> None:
    def count(code: str) -> dict[int, int]:
        found = (re.match(r"Out\[(\d+):(\d+)\]: ", text) for text in shown(kernel.run(code).expect_ok()))
        return {int(match[1]): int(match[2]) for match in found}

    before = count("%px 1")
    assert count("%px -t 1 1") == {1: before[1] + 1}
    assert count("%px 1") == {0: before[0] + 1, 1: before[1] + 2}


def test_a_cell_of_many_lines(kernel: Kernel) -> None:
    result = kernel.run("%%px\nfn twice(n: u32) -> u32 {\n    n * 2\n}\nlet four = twice(2);\nfour + 1").expect_ok()
    assert results(result) == {0: "5", 1: "5"}
    assert results(kernel.run("%px twice(four)").expect_ok()) == {0: "8", 1: "8"}, "names stay"
    assert kernel.run("four").status == "error", "and the notebook does not have them"


def test_rust_before_and_behind(kernel: Kernel) -> None:
    result = kernel.run("let here = 1;\n%px 2\nhere + 2").expect_ok()
    assert results(result) == {0: "2", 1: "2"}
    assert result.text == "3"


def test_values_of_several_lines_begin_on_their_own(kernel: Kernel) -> None:
    kernel.run('%%px\nstruct Poem;\nimpl Poem {\n    fn evcxr_display(&self) { println!("EVCXR_BEGIN_CONTENT text/plain\\nroses\\nviolets\\nEVCXR_END_CONTENT"); }\n}').expect_ok()
    first = shown(kernel.run("%px Poem").expect_ok())[0]
    assert re.fullmatch(r"Out\[0:\d+\]: \nroses\nviolets\n?", first)


@pytest.mark.parametrize("mime, body", [("text/html", "<b>bold</b>"), ("image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg"/>'), ("image/png", PNG)])
def test_rich_displays_follow_their_label(kernel: Kernel, mime: str, body: str) -> None:
    code = f'println!("EVCXR_BEGIN_CONTENT {mime}"); println!("{{}}", r##"{body}"##); println!("EVCXR_END_CONTENT");'
    found = pieces(kernel.run(f"%%px\n{code}").expect_ok().messages)
    assert len(found) == 4
    for label, display in (found[:2], found[2:]):
        engine = display["metadata"]["engine"]
        assert label["data"] == {"text/plain": f"[output:{engine}]"}
        assert display["data"][mime].strip() == body
    assert {found[1]["metadata"]["engine"], found[3]["metadata"]["engine"]} == {0, 1}


def test_rich_results_follow_their_label(kernel: Kernel) -> None:
    kernel.run('%%px\nstruct Bold;\nimpl Bold {\n    fn evcxr_display(&self) { println!("EVCXR_BEGIN_CONTENT text/html\\n<b>x</b>\\nEVCXR_END_CONTENT"); }\n}').expect_ok()
    found = pieces(kernel.run("%px Bold").expect_ok().messages)
    assert [list(output["data"].values())[0].strip() for output in found] == ["[output:0]", "<b>x</b>", "[output:1]", "<b>x</b>"]


def test_output_comes_while_engines_run(kernel: Kernel, flag: Flag) -> None:
    live = Live(kernel)
    request = live.submit(f'%px println!("begun"); {flag.wait()} println!("ended"); 5')
    until_shown(request, r"\[stdout:0\] begun")
    until_shown(request, r"\[stdout:1\] begun")
    assert not request.replies, "it runs"
    flag.raise_()
    request.done()
    live.settle()
    texts = engines.texts(event.message for event in request.iopub)
    assert {"[stdout:0] begun\nended\n", "[stdout:1] begun\nended\n"} <= set(texts)


def test_much_output_is_complete(kernel: Kernel) -> None:
    result = kernel.run('%px for n in 0..20_000 { println!("line {n}"); }').expect_ok()
    for engine in (0, 1):
        text = "".join(text.removeprefix(f"[stdout:{engine}] ") for text in shown(result) if text.startswith(f"[stdout:{engine}] "))
        assert text == "".join(f"line {n}\n" for n in range(20_000))
    assert len(result.messages) < 4_000, "lines are shown many at a time"


def test_results_come_in_the_order_of_the_engines(kernel: Kernel, flag: Flag) -> None:
    live = Live(kernel)
    request = live.submit(f'%px if std::env::var("CHORUS_ENGINE_ID").unwrap() == "0" {{ {flag.wait()} }} else {{ println!("ends"); }} 1')
    until_shown(request, r"\[stdout:1\] ends")
    flag.raise_()
    assert request.done().reply["status"] == "ok"
    live.settle()
    texts = [text for text in engines.texts(event.message for event in request.iopub) if text.startswith("Out")]
    assert [text[:6] for text in texts] == ["Out[0:", "Out[1:"], "though the second engine ends first"


@pytest.mark.alone
def test_a_progress_line_after_two_seconds(kernel: Kernel) -> None:
    # While its compiler starts, the line says that.
    kernel.run("%px let warm = vec![1].len();").expect_ok()
    result = kernel.run("%px std::thread::sleep(std::time::Duration::from_millis(3200));").expect_ok()
    (at, kind, first), *later = engines.progress(result)
    assert at > 1.9 and kind == "display_data"
    assert first == "%px:   0%|          | 0/2 engines [00:02]"
    assert {kind for _, kind, _ in later} == {"update_display_data"}, "it changes in place"
    assert re.fullmatch(r"%px: 100%\|█{10}\| 2/2 engines \[00:\d\d\]", later[-1][2])
    assert len(later) > 1, "and moves meanwhile"


@pytest.mark.parametrize("option", ["--progress-after 0", "--progress-after=0.05"])
def test_when_the_progress_line_comes_can_be_chosen(kernel: Kernel, flag: Flag, option: str) -> None:
    live = Live(kernel)
    request = live.submit(f"%px {option} {flag.wait()}")
    line = request.until(lambda event: bool(engines.PROGRESS.match(event.content.get("data", {}).get("text/plain", ""))))
    flag.raise_()
    assert re.search(r"\[00:0[01]\]", line.content["data"]["text/plain"]), "before the two seconds that it would be"
    assert request.done().reply["status"] == "ok"
    live.settle()


def test_a_progress_line_can_be_left_out(kernel: Kernel) -> None:
    result = kernel.run("%px --progress-after -1 std::thread::sleep(std::time::Duration::from_millis(2500));").expect_ok()
    assert not engines.progress(result)


@pytest.mark.parametrize("targets, ids", [
    ("0", [0]), ("1", [1]), ("-1", [1]), ("all", [0, 1]), ("::2", [0]), ("1:", [1]), ("0,1", [0, 1]), ("[0,1]", [0, 1]), ("[0, 1]", [0, 1]), ("[1]", [1]),
    ("::-1", [1, 0]), ("'0, 1'", [0, 1]),
])
@pytest.mark.parametrize("option", ["-t ", "--targets="])
def test_targets(kernel: Kernel, option: str, targets: str, ids: list[int]) -> None:
    result = kernel.run(f"%px {option}{targets} 1").expect_ok()
    assert list(results(result)) == ids


def test_engines_with_other_histories(kernel: Kernel) -> None:
    kernel.run("%px -t 0 let own = 1;").expect_ok()
    kernel.run('%px -t 1 let own = "one";').expect_ok()
    assert results(kernel.run("%px own").expect_ok()) == {0: "1", 1: '"one"'}
    kernel.run("%px let shared = own;").expect_ok()
    assert results(kernel.run("%px (own, shared)").expect_ok()) == {0: "(1, 1)", 1: '("one", "one")'}


def test_asynchronous_and_its_result(kernel: Kernel, flag: Flag) -> None:
    result = kernel.run(f'%px -a println!("late"); {flag.wait()} 7').expect_ok()
    assert result.text == "<AsyncResult(%px): pending>"
    assert kernel.run("1 + 1").expect_ok().text == "2", "the notebook goes on"
    flag.raise_()
    after = kernel.run("%pxresult").expect_ok()
    assert after.stdout == "[stdout:0] \nlate\n[stdout:1] \nlate\n"
    assert results(after) == {0: "7", 1: "7"}
    again = kernel.run("%pxresult -o kept_texts").expect_ok()
    assert shown(again) == []
    assert kernel.run("kept_texts").expect_ok().text == '["7", "7"]'


def test_asynchronous_failures_are_told_by_pxresult(kernel: Kernel) -> None:
    kernel.run('%px --noblock panic!("later")').expect_ok()
    result = kernel.run("%pxresult")
    assert result.status == "error"
    assert "[0:execute]" in engines.said(result) and "later" in engines.said(result)
    kernel.run("%px 1").expect_ok()


SPOKEN = 'println!("text"); println!("EVCXR_BEGIN_CONTENT text/html\\n<i>a</i>\\nEVCXR_END_CONTENT"); println!("EVCXR_BEGIN_CONTENT text/html\\n<i>b</i>\\nEVCXR_END_CONTENT"); 1'
OUT0, OUT1 = r"Out\[0:\d+\]: 1", r"Out\[1:\d+\]: 1"


@pytest.mark.parametrize("options, expected", [
    ("--group-outputs type", [r"\[stdout:0\] \ntext\n\[stdout:1\] \ntext\n", r"\[output:0\]", "a", "b", r"\[output:1\]", "a", "b", OUT0, OUT1]),
    ("--group-outputs engine", [r"\[stdout:0\] \ntext\n", r"\[output:0\]", "a", "b", OUT0, r"\[stdout:1\] \ntext\n", r"\[output:1\]", "a", "b", OUT1]),
    ("-e", [r"\[stdout:0\] \ntext\n", r"\[output:0\]", "a", "b", OUT0, r"\[stdout:1\] \ntext\n", r"\[output:1\]", "a", "b", OUT1]),
    ("--group-outputs order", [r"\[stdout:0\] \ntext\n\[stdout:1\] \ntext\n", r"\[output:0\]", "a", r"\[output:1\]", "a", r"\[output:0\]", "b", r"\[output:1\]", "b", OUT0, OUT1]),
    ("-r", [r"\[stdout:0\] \ntext\n\[stdout:1\] \ntext\n", r"\[output:0\]", "a", r"\[output:1\]", "a", r"\[output:0\]", "b", r"\[output:1\]", "b", OUT0, OUT1]),
    ("--no-stream", [r"\[stdout:0\] \ntext\n\[stdout:1\] \ntext\n", r"\[output:0\]", "a", "b", r"\[output:1\]", "a", "b", OUT0, OUT1]),
])
def test_outputs_can_be_grouped(kernel: Kernel, options: str, expected: list[str]) -> None:
    result = kernel.run(f"%%px {options}\n{SPOKEN}").expect_ok()
    texts = [re.sub(r"</?i>|\n$", "", o["data"]["text/html"]) if "text/html" in o["data"] else text for o, text in zip(pieces(result.messages), shown(result))]
    assert len(texts) == len(expected), texts
    for text, pattern in zip(texts, expected):
        assert re.fullmatch(pattern, text), texts


def test_results_are_bound_in_the_notebook(kernel: Kernel) -> None:
    kernel.run("%px -o found format!(\"a \\\"quoted\\\"\\nline\")").expect_ok()
    assert kernel.run("{ let typed: &Vec<String> = &found; typed.len() }").expect_ok().text == "2"
    assert kernel.run(r'found[1] == "\"a \\\"quoted\\\"\\nline\""').expect_ok().text == "true", "the text of the result"
    kernel.run("%%px --out numbers -t 1\n40 + 2").expect_ok()
    assert kernel.run("numbers[0].parse::<i32>()? + 1").expect_ok().text == "43"


def test_here_too(kernel: Kernel) -> None:
    result = kernel.run("%%px --local\nfn both() -> i32 { 4 }\nboth()").expect_ok()
    assert results(result) == {0: "4", 1: "4"}
    assert "4" in shown(result), "the notebook's own value"
    assert kernel.run("both()").expect_ok().text == "4"


def test_verbose_says_where_it_runs(kernel: Kernel) -> None:
    assert shown(kernel.run("%px --verbose let v = 1;").expect_ok()) == ["Parallel execution on engine(s): all\n"]
    assert shown(kernel.run("%px --verbose -t [0,1] let v = 1;").expect_ok()) == ["Parallel execution on engine(s): [0, 1]\n"]


def test_settings_last(kernel: Kernel) -> None:
    usual = "--targets all --block --stream --no-verbose --progress-after 2 --signal-on-interrupt SIGINT\n"
    assert kernel.run("%pxconfig").expect_ok().stdout == usual
    try:
        assert shown(kernel.run("%pxconfig -t 1 --verbose --no-stream --progress-after 5 --signal-on-interrupt SIGTERM").expect_ok()) == []
        assert kernel.run("%pxconfig").expect_ok().stdout == "--targets 1 --block --no-stream --verbose --progress-after 5 --signal-on-interrupt SIGTERM\n"
        result = kernel.run('%px println!("x"); 1').expect_ok()
        assert shown(result)[0].startswith("Parallel execution on engine(s): 1\n")
        assert list(results(result)) == [1]
        kernel.run("%pxconfig --noblock").expect_ok()
        assert kernel.run("%px 2").expect_ok().text == "<AsyncResult(%px): pending>"
        kernel.run("%pxresult").expect_ok()
    finally:
        kernel.run("%pxconfig -t all --block --stream --no-verbose --progress-after 2 --signal-on-interrupt SIGINT").expect_ok()
    assert kernel.run("%pxconfig").expect_ok().stdout == usual


def test_autopx_sends_every_cell_to_the_engines(kernel: Kernel) -> None:
    assert kernel.run("%autopx").expect_ok().stdout == "%autopx enabled\n"
    try:
        kernel.run("let everywhere = 11;").expect_ok()
        assert results(kernel.run("everywhere").expect_ok()) == {0: "11", 1: "11"}
        assert results(kernel.run("%px -t 1 everywhere").expect_ok()) == {1: "11"}
    finally:
        assert kernel.run("%autopx").expect_ok().stdout == "%autopx disabled\n"
    assert kernel.run("everywhere").status == "error", "here it is unknown"


def test_a_dependency_for_all_engines(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "Cargo.toml").write_text('[package]\nname = "answers"\nversion = "0.1.0"\nedition = "2021"\n')
    (tmp_path / "src" / "lib.rs").write_text("pub fn answer() -> u32 { 42 }\n")
    result = kernel.run(f'%%px\n:dep answers = {{ path = "{tmp_path}" }}\nanswers::answer()').expect_ok()
    assert results(result) == {0: "42", 1: "42"}
    assert results(kernel.run("%px answers::answer() + 1").expect_ok()) == {0: "43", 1: "43"}, "and it stays"


def test_the_remainder_stays_rust(kernel: Kernel) -> None:
    assert kernel.run("let px = 4; let r = (11\n%px); r").expect_ok().text == "3"
    assert kernel.run("let cluster = 5;\nlet s = 13\n% cluster;\ns").expect_ok().text == "3"
    assert results(kernel.run("%px 17 % 5").expect_ok()) == {0: "2", 1: "2"}
    assert results(kernel.run("%%px\nlet a = 17;\nlet b = 5;\na\n% b").expect_ok()) == {0: "2", 1: "2"}


def complete(kernel: Kernel, marked: str) -> list[str]:
    """What is offered where `|` is."""
    code = marked.replace("|", "", 1)
    reply = kernel.request("complete_request", {"code": code, "cursor_pos": marked.index("|")}).content
    assert reply["status"] == "ok"
    return reply["matches"]


@pytest.mark.parametrize("marked, wanted", [
    ("%p|", ["%px", "%pxresult", "%pxconfig"]), ("%%p|", ["%%px"]), ("%clu|", ["%cluster"]), ("%%ti|", ["%%time", "%%timeit"]),
    ("%px --tar|", ["--targets"]), ("%%px --gro|", ["--group-outputs"]), ("%%px --group-outputs |", ["type", "engine", "order"]),
    ("%px --signal-on-interrupt SIGI|", ["SIGINT"]), ("%px -t |", ["all", "0", "1"]), ("%cluster |", ["start", "stop", "status", "scale", "restart"]),
    ("%timeit %px --no|", ["--noblock"]), ("%px known_on_eng|", ["known_on_engines"]), ("%px -t 0 known_on_eng|", ["known_on_engines"]),
    ("%%px\nlet x = known_on_eng|", ["known_on_engines"]), ("%%px\nlet x = known_fun|", ["known_function"]),
])
def test_completion(kernel: Kernel, marked: str, wanted: list[str]) -> None:
    kernel.run("%%px\nlet known_on_engines = 1;\nfn known_function() {}").expect_ok()
    offered = complete(kernel, marked)
    assert set(wanted) <= set(offered), offered


@pytest.mark.parametrize("marked, wanted", [
    ("%px far_away.|", ["title", "age_in"]), ("%%px\nlet n = far_away.ti|", ["title"]), ("%px far_away.title.to_upp|", ["to_uppercase"]),
    ("%%px\nfar_away.age_in(1).checked_a|", ["checked_add"]),
])
def test_members_of_engines_variables(kernel: Kernel, marked: str, wanted: list[str]) -> None:
    kernel.run("%%px\npub struct Far { pub title: String }\nimpl Far {\n    /// How old it is then.\n    pub fn age_in(&self, year: u32) -> u32 { year }\n}\n"
               'let far_away = Far { title: "x".into() };').expect_ok()
    offered = [word.split("(")[0] for word in complete(kernel, marked)]
    assert set(wanted) <= set(offered), offered


def test_help_on_what_engines_have(kernel: Kernel) -> None:
    kernel.run("%%px\n/// What engines do.\npub fn engines_do_it(n: i32) -> i32 { n }").expect_ok()
    code = "%px engines_do_it(1)"
    reply = kernel.request("inspect_request", {"code": code, "cursor_pos": code.index("(") - 2, "detail_level": 0}).content
    assert reply["found"] and "What engines do." in reply["data"]["text/plain"], reply


def test_names_of_engines_are_not_offered_in_the_notebook(kernel: Kernel) -> None:
    kernel.run("%px let only_on_engines = 1;").expect_ok()
    assert complete(kernel, "only_on_eng|") == []


@pytest.mark.parametrize("marked, wanted", [("%p|x", ["--targets", "--group-outputs", "--progress-after"]), ("%%px -t|", ["--noblock"]), ("%cluster|", ["scale", "restart"]), ("%timeit|", ["-r"])])
def test_inspection(kernel: Kernel, marked: str, wanted: list[str]) -> None:
    code = marked.replace("|", "", 1)
    reply = kernel.request("inspect_request", {"code": code, "cursor_pos": marked.index("|"), "detail_level": 0}).content
    assert reply["found"]
    assert all(word in reply["data"]["text/plain"] for word in wanted)


@pytest.mark.parametrize("name", ["%px", "%%px", "%pxresult", "%pxconfig", "%autopx", "%cluster", "%time", "%%timeit", "%who", "%whos", "%lsmagic"])
def test_help_for_each(kernel: Kernel, name: str) -> None:
    result = kernel.run(f"{name}?").expect_ok()
    told = "".join(shown(result)) + "".join(str(payload) for payload in result.content.get("payload", []))
    assert name.lstrip("%") in told and len(told) > 40
