"""history_request: tail, range, search, outputs; kept across restarts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chorus_client import Kernel

CELLS = ["let apple = 1;", "apple + 41", "let banana = apple * 2;", "apple + 41", "fn cherry() -> i32 {\n    7\n}", 'println!("printed, no value")', "cherry()"]


@pytest.fixture(scope="module")
def session(module_kernel: Kernel) -> int:
    """The number of this kernel's session, with CELLS run in it."""
    for code in CELLS:
        module_kernel.run(code).expect_ok()
    return ask(module_kernel, hist_access_type="tail", n=1)[0][0]


def ask(kernel: Kernel, **content: object) -> list:
    request = {"output": False, "raw": True} | content
    reply = kernel.request("history_request", request).content
    assert reply["status"] == "ok"
    return reply["history"]


def test_tail_gives_the_last_ones_in_order(kernel: Kernel, session: int) -> None:
    assert ask(kernel, hist_access_type="tail", n=3) == [[session, n + 1, CELLS[n]] for n in (4, 5, 6)]
    assert [entry[2] for entry in ask(kernel, hist_access_type="tail", n=1000)][-len(CELLS):] == CELLS


def test_tail_with_output_pairs_source_and_value(kernel: Kernel, session: int) -> None:
    entries = ask(kernel, hist_access_type="tail", n=7, output=True)
    values = {line: value for _, line, (_, value) in entries}
    assert values[2].strip() == "42"
    assert values[1] is None
    assert values[6] is None, "what is printed is no value"
    assert [source for _, _, (source, _) in entries] == CELLS


@pytest.mark.parametrize("start, stop, wanted", [(1, 3, [1, 2]), (2, 3, [2]), (5, None, [5, 6, 7]), (6, 100, [6, 7]), (50, 60, []), (3, 3, [])])
def test_range_leaves_stop_out(kernel: Kernel, session: int, start: int, stop: int | None, wanted: list[int]) -> None:
    """Session 0 is the current one, as in IPython; so is its own number."""
    for number in (0, session):
        entries = ask(kernel, hist_access_type="range", session=number, start=start, stop=stop)
        assert [entry[1:] for entry in entries] == [[n, CELLS[n - 1]] for n in wanted]


@pytest.mark.parametrize("pattern, wanted", [("*banana*", [3]), ("apple + 4?", [2, 4]), ("apple*", [2, 4]), ("*cherry()*", [5, 7]), ("no such*", []), ("*%*", []), ("banana", [])])
def test_search_is_a_glob(kernel: Kernel, session: int, pattern: str, wanted: list[int]) -> None:
    found = [entry[1] for entry in ask(kernel, hist_access_type="search", pattern=pattern, n=100) if entry[0] == session]
    assert found == wanted


def test_search_with_limit_takes_the_last(kernel: Kernel, session: int) -> None:
    assert [e[1] for e in ask(kernel, hist_access_type="search", pattern="*apple*", n=1)] == [4]


def test_search_unique_gives_each_source_once(kernel: Kernel, session: int) -> None:
    found = ask(kernel, hist_access_type="search", pattern="apple + 41", n=100, unique=True)
    assert [e[2] for e in found] == ["apple + 41"]


def test_history_is_kept_across_restarts(start_kernel: Callable[..., Kernel]) -> None:
    first = start_kernel()
    first.run("let from_before_the_restart = 1;").expect_ok()
    first.run("from_before_the_restart + 99").expect_ok()
    [[session, line, _]] = ask(first, hist_access_type="tail", n=1)
    first.kill()

    second = start_kernel()
    second.run("let after = 2;").expect_ok()
    tail = ask(second, hist_access_type="tail", n=3, output=True)
    assert [source for _, _, (source, _) in tail] == ["let from_before_the_restart = 1;", "from_before_the_restart + 99", "let after = 2;"]
    assert tail[1][2][1].strip() == "100"
    assert tail[2][0] > session, "a new session"
    assert tail[2][1] == 1, "lines are counted from one again"
    old = ask(second, hist_access_type="range", session=session, start=line, stop=line + 1)
    assert old == [[session, line, "from_before_the_restart + 99"]]
    assert ask(second, hist_access_type="range", session=-1, start=line, stop=line + 1) == old, "relative: the session before"
    assert [e[2] for e in ask(second, hist_access_type="search", pattern="*before_the_restart + *", n=5)] == ["from_before_the_restart + 99"]


def test_history_survives_a_killed_kernel(start_kernel: Callable[..., Kernel]) -> None:
    """What was answered has been written: kill -9 loses nothing."""
    first = start_kernel()
    first.run("let written_before_the_kill = 1;").expect_ok()
    first.manager.shutdown_kernel(now=True)
    second = start_kernel()
    assert ask(second, hist_access_type="search", pattern="*written_before_the_kill*", n=5)


def test_two_kernels_at_once_share_the_history(start_kernel: Callable[..., Kernel]) -> None:
    one, two = start_kernel(), start_kernel()
    for n in range(3):
        one.run(f"let first_kernel_{n} = 0;").expect_ok()
        two.run(f"let second_kernel_{n} = 0;").expect_ok()
    for kernel in (one, two):
        assert len(ask(kernel, hist_access_type="search", pattern="*first_kernel_*", n=100)) == 3
        assert len(ask(kernel, hist_access_type="search", pattern="*second_kernel_*", n=100)) == 3
        [last] = ask(kernel, hist_access_type="range", session=0, start=3)
        assert ("first" if kernel is one else "second") in last[2]
