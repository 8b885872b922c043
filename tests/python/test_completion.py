"""Completion and inspection: what they find, where in code points, and within 300 ms also while a cell runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import pytest

from chorus_client import Kernel
from live import Live, Request, check_states

SETUP = '''pub const FIRST: i32 = 0;
/// A person whom the tests know.
pub struct Person { pub first_name: String, pub birth_year: u32 }
impl Person {
    /// Tells how old this person is in a given year.
    pub fn age_in(&self, year: u32) -> u32 { year - self.birth_year }
    pub fn full_title(&self) -> String { format!("Dr {}", self.first_name) }
}
/// Doubles what it is given.
pub fn double_it(n: i32) -> i32 { n * 2 }
let ada = Person { first_name: "Ada".into(), birth_year: 1815 };
let measured_lengths: Vec<f64> = vec![1.0, 2.0];
let naïve_größe = 5;
'''


@pytest.fixture(scope="module", autouse=True)
def known(module_kernel: Kernel) -> None:
    module_kernel.run(SETUP).expect_ok()


def complete(kernel: Kernel, code: str, cursor: int | None = None) -> dict:
    """`|` in the code marks the cursor unless one is given."""
    if cursor is None:
        cursor = code.index("|") if "|" in code else len(code)
        code = code.replace("|", "", 1)
    reply = kernel.request("complete_request", {"code": code, "cursor_pos": cursor}).content
    assert reply["status"] == "ok"
    assert 0 <= reply["cursor_start"] <= reply["cursor_end"] <= len(code), "code points within the cell"
    return reply


@pytest.mark.parametrize("code, wanted", [
    ("ada.", ["first_name", "birth_year", "age_in", "full_title"]),
    ("ada.fi", ["first_name"]),
    ("ada.age", ["age_in"]),
    ("ada.first_name.to_upp", ["to_uppercase"]),
    ("ada.full_title().tr", ["trim"]),
    ("measured_lengths.pus", ["push"]),
    ("measured_lengths.iter().ma", ["map", "max_by"]),
    ("measured_le", ["measured_lengths"]),
    ("let x = measured_le", ["measured_lengths"]),
    ("double", ["double_it"]),
    ("Pers", ["Person"]),
    ("Person { fir", ["first_name"]),
    ("std::collections::HashM", ["HashMap"]),
    ("use std::collections::BTr", ["BTreeMap"]),
    ("let local_name = 3;\nlocal_na", ["local_name"]),
    ("fn f(argument_one: i32) -> i32 { argum| }", ["argument_one"]),
    ('let s = String::new(); s.is_em|; let t = 1;', ["is_empty"]),
    ("Some(3).unw", ["unwrap"]),
    ("Vec::<i32>::with_", ["with_capacity"]),
    (":de", [":dep"]),
    (":va", [":vars"]),
    ("%che", ["%checkpoint"]),
    ("%checkpoint st", ["status"]),
    ("%checkpoint o", ["on", "off"]),
])
def test_finds(kernel: Kernel, code: str, wanted: list[str]) -> None:
    matches = complete(kernel, code)["matches"]
    names = [match.split("(")[0].rstrip("!") for match in matches]
    for name in wanted:
        # A match replaces what is between cursor_start and cursor_end; for magics the sign may be part of it or not.
        assert name in names or name.lstrip(":%") in names, f"{name} not in {matches[:40]}"


@pytest.mark.parametrize("code, replaced, match", [
    ("ada.fi", "fi", "first_name"),
    ("1 + measured_le| + 2", "measured_le", "measured_lengths"),
    ("/* 🦀🦀🦀 */ measured_le", "measured_le", "measured_lengths"),
    ('let é = "🦀é漢"; ada.bir|; "🦀"', "bir", "birth_year"),
    ("let a = 1;\n\n/* 漢字 */ doubl|", "doubl", "double_it"),
    ("naïve_g", "naïve_g", "naïve_größe"),
])
def test_the_cursor_counts_code_points(kernel: Kernel, code: str, replaced: str, match: str) -> None:
    reply = complete(kernel, code)
    text = code.replace("|", "", 1)
    assert text[reply["cursor_start"]:reply["cursor_end"]] == replaced
    assert match in [m.split("(")[0] for m in reply["matches"]]


def test_only_what_fits_the_prefix(kernel: Kernel) -> None:
    matches = complete(kernel, "ada.fi")["matches"]
    assert "birth_year" not in matches
    assert len(matches) == len(set(matches)), "each once"


def test_experimental_types_say_what_each_match_is(kernel: Kernel) -> None:
    reply = complete(kernel, "ada.")
    types = reply["metadata"]["_jupyter_types_experimental"]
    assert [t["text"] for t in types] == reply["matches"]
    assert all(t["start"] == reply["cursor_start"] and t["end"] == reply["cursor_end"] for t in types)
    kinds = {t["text"].split("(")[0]: t["type"] for t in types}
    assert "field" in kinds["first_name"].lower() or kinds["first_name"] in ("property", "instance")
    assert kinds["age_in"].lower() in ("method", "function")


@pytest.mark.parametrize("code, name, told", [
    ("ad", "ada", "ada: Person"), ("measured_le", "measured_lengths", "measured_lengths: Vec<f64>"),
    ("double_", "double_it", "pub fn double_it(n: i32) -> i32"), ("Pers", "Person", "pub struct Person"), ("FIR", "FIRST", "pub const FIRST: i32 = 0"),
])
def test_names_are_told_with_their_types(kernel: Kernel, code: str, name: str, told: str) -> None:
    types = complete(kernel, code)["metadata"]["_jupyter_types_experimental"]
    signatures = {t["text"].split("(")[0]: t["signature"] for t in types}
    assert signatures[name] == told, signatures


def test_nothing_found_is_an_empty_list(kernel: Kernel) -> None:
    assert complete(kernel, "zzz_nothing_begins_so")["matches"] == []


@pytest.mark.parametrize("code", ["", "let x = ", "ada. fi(((", "🦀", '"in a string me', "// in a comment me", "%", ":", "struct", "\n\n"])
def test_odd_places_are_answered(kernel: Kernel, code: str) -> None:
    assert isinstance(complete(kernel, code)["matches"], list)


def inspect(kernel: Kernel, code: str, cursor: int | None = None, detail: int = 0) -> dict:
    cursor = len(code) if cursor is None else cursor
    reply = kernel.request("inspect_request", {"code": code, "cursor_pos": cursor, "detail_level": detail}).content
    assert reply["status"] == "ok"
    assert reply["metadata"] == {}
    return reply


@pytest.mark.parametrize("code, cursor, wanted", [
    ("double_it", 4, ["fn double_it", "Doubles what it is given"]),
    ("double_it(3)", 9, ["fn double_it"]),
    ("Person", 6, ["struct Person", "whom the tests know"]),
    ("ada.age_in(2000)", 7, ["age_in", "how old"]),
    ("ada.birth_year", 10, ["u32"]),
    ("measured_lengths", 3, ["Vec<f64>"]),
    ("measured_lengths.len()", 19, ["len"]),
    ("std::collections::HashMap::<i32, i32>::new()", 22, ["HashMap"]),
    ("/* 🦀🦀 */ double_it(1)", 14, ["Doubles"]),
    ("%checkpoint status", 4, ["checkpoint"]),
])
def test_inspect_finds(kernel: Kernel, code: str, cursor: int, wanted: list[str]) -> None:
    reply = inspect(kernel, code, cursor)
    assert reply["found"] is True
    for text in wanted:
        assert text in reply["data"]["text/plain"], reply["data"]


def test_inspect_finds_the_std_docs(kernel: Kernel) -> None:
    assert "contiguous growable array" in inspect(kernel, "let v: Vec<i32> = vec![];", 9)["data"]["text/plain"].lower()


@pytest.mark.parametrize("code", ["no_such_thing_at_all", "", "   ", "1 + "])
def test_inspect_says_what_it_does_not_find(kernel: Kernel, code: str) -> None:
    reply = inspect(kernel, code)
    assert reply["found"] is False
    assert reply["data"] == {}


@pytest.fixture
def busy(kernel: Kernel) -> Iterator[tuple[Live, Request]]:
    live = Live(kernel)
    cell = live.submit('println!("busy now"); let made_by_this_cell = 3; loop { std::thread::park(); }')
    cell.until_output("busy now")
    yield live, cell
    assert not cell.replies, "the cell ended by itself"
    live.interrupt().done()
    cell.done()


QUICK = [
    ("complete_request", {"code": "ada.", "cursor_pos": 4}, "matches", "age_in"),
    ("complete_request", {"code": "measured_lengths.pu", "cursor_pos": 19}, "matches", "push"),
    ("inspect_request", {"code": "double_it(1)", "cursor_pos": 4, "detail_level": 0}, "data", "Doubles"),
    ("is_complete_request", {"code": "fn f() {"}, "status", "incomplete"),
]


@pytest.mark.alone
@pytest.mark.parametrize("kind, content, key, wanted", QUICK)
def test_answers_within_300_ms_while_a_cell_runs(busy: tuple[Live, Request], kind: str, content: dict, key: str, wanted: str) -> None:
    live, _ = busy
    times = []
    for _ in range(6):
        request = live.ask(kind, content)
        assert wanted in str(request.reply[key])
        check_states(request)
        times.append(request.seconds)
    assert statistics.median(times) < 0.3, times


@pytest.mark.alone
@pytest.mark.parametrize("kind, content, key, wanted", QUICK)
def test_answers_within_300_ms_when_idle(kernel: Kernel, kind: str, content: dict, key: str, wanted: str) -> None:
    live = Live(kernel)
    times = [live.ask(kind, content).seconds for _ in range(6)]
    assert statistics.median(times) < 0.3, times
    live.settle()


@pytest.mark.alone
def test_the_first_completion_after_a_new_cell_is_quick_too(kernel: Kernel) -> None:
    """Each cell changes the state that rust-analyzer must know."""
    live = Live(kernel)
    times = []
    for n in range(5):
        live.run(f"let fresh_variable_{n} = vec![{n}];")
        request = live.ask("complete_request", {"code": f"fresh_variable_{n}.pus", "cursor_pos": 20})
        assert any(m.startswith("push") for m in request.reply["matches"])
        times.append(request.seconds)
    assert statistics.median(times) < 0.3, times


def test_variables_of_the_running_cell_complete(busy: tuple[Live, Request]) -> None:
    """evcxr commits its state before the cell runs, so the cell's own names are there already."""
    live, _ = busy
    reply = live.ask("complete_request", {"code": "made_by_th", "cursor_pos": 10}).reply
    assert "made_by_this_cell" in reply["matches"]
