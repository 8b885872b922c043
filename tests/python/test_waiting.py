"""A cell that waits for the compiler says what it waits for, in a line that is gone afterwards."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Callable

import pytest

import engines
from chorus_client import Kernel
from engines import Flag, compile_status, write_crate
from live import Event, Live, Request


def lines(request: Request) -> list[str]:
    return [text for text in map(compile_status, request.iopub) if text]


def counted(text: str) -> bool:
    """Whether a line says that the slow crate is compiled, as which of how many: there are the crates that come with the first dependency, too."""
    count = re.fullmatch(r"compiling slow-one \((\d+) of (\d+)\)", text)
    return bool(count) and 1 < int(count[1]) <= int(count[2])


def page(request: Request) -> list[str]:
    """The types of the messages whose outputs are on the page at the end."""
    shown: list[str] = []
    for event in request.iopub:
        if event.type == "clear_output":
            shown.clear()
        elif event.type in ("display_data", "stream", "execute_result", "error"):
            shown.append(event.type)
    return shown


def test_the_dependency_that_is_compiled(fresh_kernel: Kernel, tmp_path: Path, flag: Flag) -> None:
    below, slow = tmp_path / "below-it", tmp_path / "slow-one"
    write_crate(below)
    write_crate(slow, f'below-it = {{ path = "{below}" }}\n', flag.wait())
    live = Live(fresh_kernel)
    request = live.submit(f':dep slow-one = {{ path = "{slow}" }}\nslow_one::number()')
    request.until(lambda event: counted(compile_status(event)), timeout=120)
    flag.raise_()
    request.done(timeout=300)
    first = next(event for event in request.iopub if compile_status(event))
    assert first.type == "display_data"
    assert {event.type for event in request.iopub if compile_status(event)} == {"display_data", "update_display_data"}, "one line"
    assert page(request) == ["execute_result"]
    live.settle()


def test_an_interrupt_takes_the_line_away(fresh_kernel: Kernel, tmp_path: Path, flag: Flag) -> None:
    slow = tmp_path / "slow-one"
    write_crate(slow, build=flag.wait())
    live = Live(fresh_kernel)
    request = live.submit(f':dep slow-one = {{ path = "{slow}" }}\nslow_one::number()')
    request.until(lambda event: compile_status(event).startswith("compiling slow-one"), timeout=120)
    live.interrupt()
    assert request.done().reply["ename"] == "interrupted"
    assert page(request) == ["error"]
    flag.raise_()
    live.settle()


def test_an_interrupt_stops_what_would_have_been_compiled_next(fresh_kernel: Kernel, tmp_path: Path, flag: Flag) -> None:
    """evcxr goes on from one cargo to the next one."""
    slow = tmp_path / "slow-one"
    write_crate(slow, build=flag.wait())
    live = Live(fresh_kernel)
    live.run("let kept = 7;", timeout=120)
    request = live.submit(f':dep slow-one = {{ path = "{slow}" }}\nslow_one::number()')
    request.until(lambda event: bool(compile_status(event)), timeout=120)
    live.interrupt()
    assert request.done().reply["ename"] == "interrupted"
    # The crate can't be compiled: the flag is down.
    assert live.run("kept + 1", timeout=60).text == "8"
    flag.raise_()
    assert live.run("kept + 2").text == "9"
    live.settle()


def test_what_a_dependency_needs_goes_with_it(fresh_kernel: Kernel, tmp_path: Path, flag: Flag) -> None:
    slow = tmp_path / "slow-one"
    write_crate(slow, build=flag.wait())
    live = Live(fresh_kernel)
    live.run("let kept = 7;", timeout=120)
    request = live.submit(f':dep slow-one = {{ path = "{slow}" }}\nslow_one::number()')
    request.until(lambda event: compile_status(event).startswith("compiling slow-one"), timeout=120)
    live.interrupt()
    assert request.done().reply["ename"] == "interrupted"
    assert live.run("kept + 1", timeout=60).text == "8"
    assert not live.run(":show_deps").text
    flag.raise_()
    live.settle()


def test_an_error_takes_the_line_away(fresh_kernel: Kernel, tmp_path: Path, flag: Flag) -> None:
    slow = tmp_path / "slow-one"
    write_crate(slow, build=f'{flag.wait()} panic!("no such thing");')
    live = Live(fresh_kernel)
    request = live.submit(f':dep slow-one = {{ path = "{slow}" }}\nslow_one::number()')
    request.until(lambda event: compile_status(event).startswith("compiling slow-one"), timeout=120)
    flag.raise_()
    assert request.done(timeout=300).reply["status"] == "error"
    assert page(request) == ["error"]
    live.settle()


def test_a_first_cell_without_inference_reads_no_standard_library(start_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    # With temporary files of its own it has a compile worker of its own, which has to start.
    live = Live(start_kernel(env={"TMPDIR": str(tmp_path)}))
    code = f'// {time.time_ns()}\n' + 'let n: usize = 2; let text = "a b"; let mut all: Vec<String> = Vec::new();\nall.push(text.to_owned());\nall.len() + n'
    first = live.submit(code)
    assert first.done(timeout=120).text == "3"
    assert not {"reading the standard library", "inferring types"} & set(lines(first))
    # Who wants types gets them, whoever comes first.
    assert live.run("let k = 3; all.len() + k", timeout=120).text == "4", "the number is of the type that it is used as"
    live.run("let words: Vec<_> = text.split(' ').map(str::to_owned).collect(); let most = all.iter().max().cloned();", timeout=120)
    assert live.run("(words, most)").text == '(["a", "b"], Some("a b"))'
    assert live.run('std::env::var("RUST_SRC_PATH").is_err()').text == "true", "cells see nothing of it"
    live.settle()


def test_a_first_snippet_without_inference_reads_no_standard_library(fresh_kernel: Kernel) -> None:
    live = Live(fresh_kernel)
    live.run("%cluster start -n 1", timeout=120)
    first = live.submit("%px let n = 2i32; n + 40")
    first.done(timeout=120)
    assert "42" in "".join(engines.texts(event.message for event in first.iopub))
    live.run("%px let most = vec![n].into_iter().max();", timeout=120)
    shown = live.run("%px (most, std::env::var(\"RUST_SRC_PATH\").is_err())", timeout=120)
    assert "(Some(2), true)" in "".join(engines.texts(event.message for event in shown.iopub))
    live.run("%cluster stop")
    live.settle()


def test_the_first_cell_of_a_kernel(start_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    # With temporary files of its own it has a compile worker of its own, which has to start.
    live = Live(start_kernel(env={"TMPDIR": str(tmp_path)}))
    request = live.submit(f"let words = vec![String::new()]; words.len() // {time.time_ns()}")
    request.done(timeout=120)
    assert set(lines(request)) <= {
        "starting the compiler",
        "reading the standard library",
        "inferring types",
        "compiling the cell",
    }
    assert lines(request), "a first cell takes longer than a second"
    assert page(request) == ["execute_result"]
    live.settle()


def test_a_quick_cell_has_no_line(kernel: Kernel) -> None:
    live = Live(kernel)
    live.run("1 + 1")
    request = live.submit('std::thread::sleep(std::time::Duration::from_secs(2)); println!("x")')
    request.done()
    assert "clear_output" not in {event.type for event in request.iopub}
    live.settle()


def test_engines_say_what_they_wait_for(start_kernel: Callable[..., Kernel], tmp_path: Path, flag: Flag) -> None:
    slow = tmp_path / "slow-one"
    write_crate(slow, build=flag.wait())
    live = Live(start_kernel())
    live.run("%px let ready = 1;", timeout=120)

    def waits(event: Event) -> bool:
        text = event.content.get("data", {}).get("text/plain", "")
        line = re.fullmatch(r"%px: (.*) \[\d\d:\d\d\]", text)
        return bool(line) and counted(line[1])

    request = live.submit(f'%%px\n:dep slow-one = {{ path = "{slow}" }}\nslow_one::number()')
    request.until(waits, timeout=120)
    flag.raise_()
    request.done(timeout=300)
    texts = engines.texts(event.message for event in request.iopub)
    assert [text for text in texts if text.startswith("Out")] == ["Out[0:2]: 7", "Out[1:2]: 7"]
    assert "compile-status" not in str(request.iopub[-1].content)
    live.settle()


@pytest.mark.parametrize("code", ["1 + 1", "%px 1 + 1"])
def test_a_silent_cell_has_no_line(start_kernel: Callable[..., Kernel], code: str) -> None:
    live = Live(start_kernel())
    request = live.submit(code, silent=True)
    request.done(timeout=120)
    assert not lines(request)
    live.settle()
