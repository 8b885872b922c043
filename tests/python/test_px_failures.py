"""`%px` where something goes wrong: mistakes, panics, crashes, interrupts, engines that die. Nothing hangs, and every error says what to do."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import engines
from chorus_client import Kernel
from engines import SOON, Flag, interrupted, results, said, shown, still_there, until_shown
from live import Live, error_text

ENDLESS = "loop { std::thread::sleep(std::time::Duration::from_millis(10)); }"
# True on one engine of two, which have the same history.
ON = 'std::env::var("CHORUS_ENGINE_ID").as_deref() == Ok("{}")'


@pytest.fixture(scope="module")
def module_kernel(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with engines.started(kernel_name, tmp_path_factory.mktemp("px"), 2) as kernel:
        yield kernel


@pytest.fixture
def own_kernel(kernel_name: str, tmp_path: Path) -> Iterator[Kernel]:
    """A notebook with two engines that may die."""
    with engines.started(kernel_name, tmp_path, 2) as kernel:
        yield kernel


@pytest.fixture
def joined_kernel(kernel_name: str, chorus: Path, tmp_path: Path) -> Iterator[Kernel]:
    """A notebook that uses a cluster which others started: its controller is a process, and may die."""
    with engines.started(kernel_name, tmp_path, None) as kernel:
        def cluster(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([chorus, "cluster", *arguments], env=os.environ | {"XDG_DATA_HOME": str(tmp_path / "data")}, capture_output=True, text=True)

        cluster("start", "-n", "2", "--daemonize").check_returncode()
        try:
            kernel.run("%px 0").expect_ok()
            yield kernel
        finally:
            cluster("stop")


@pytest.mark.alone
@pytest.mark.parametrize("code, ename, parts", [
    ("%px -t 9 1", "bad target", ["no engine 9", "0,1"]),
    ("%px -t foo 1", "bad target", ["`foo`", "::2", "all"]),
    ("%%px -t 0,5\n1", "bad target", ["no engine 5"]),
    ("%px -t 4: 1", "bad target", ["`4:`"]),
    ("%pxconfig -t 9", "bad target", ["no engine 9"]),
    ("%px --taget 0 1", "bad option", ["--taget", "--targets"]),
    ("%%px --no-such\n1", "bad option", ["--no-such"]),
    ("%px --group-outputs sideways 1", "bad option", ["type", "engine", "order"]),
    ("%px --signal-on-interrupt SIGNONSENSE 1", "bad option", ["SIGINT"]),
    ("%px -o 9lives 1", "bad option", ["9lives"]),
    ("%pxresult --no-such", "bad option", ["--no-such"]),
    ("%px", "usage", ["code"]),
    ("%%px", "usage", ["code"]),
    ("%%px let a = 1;\na", None, ["let"]),
    ("%pz 1", "unknown magic", ["%pz", "%lsmagic"]),
    ("%pxresults", "unknown magic", ["%pxresult"]),
    ("%cluster sidestep", "bad option", ["sidestep"]),
    ("%cluster scale", "bad option", ["N"]),
    ("%cluster start -n 2", None, ["already"]),
])
def test_mistakes_are_told_soon(kernel: Kernel, code: str, ename: str | None, parts: list[str]) -> None:
    result = kernel.run(code)
    assert result.status == "error"
    assert result.seconds < SOON
    assert ename in (None, result.error["ename"])
    assert all(part in said(result) for part in parts), said(result)
    assert results(kernel.run("%px 1").expect_ok()) == {0: "1", 1: "1"}


def test_pxresult_before_any_px(start_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    result = start_kernel(env={"XDG_DATA_HOME": str(tmp_path)}).run("%pxresult")
    assert result.status == "error" and "%px" in said(result)


def test_nothing_runs_of_a_cell_with_a_mistake(kernel: Kernel) -> None:
    result = kernel.run('println!("ran");\n%px println!("ran");\n%px -t 9 1')
    assert result.status == "error"
    # A target can only be checked when its turn comes; an option and a name before anything runs.
    for code in ('println!("ran");\n%pz 1', 'println!("ran");\n%px --taget 0 1'):
        result = kernel.run(code)
        assert result.status == "error"
        assert "ran" not in result.stdout, code


def test_a_compile_error_is_told_once_with_its_engines(kernel: Kernel) -> None:
    result = kernel.run('%px let x: u8 = "text";')
    assert result.error["ename"] == "CompositeError"
    text = "\n".join(result.error["traceback"])
    assert text.count("mismatched types") == 1, text
    assert "[0,1:execute]" in engines.plain(text)
    assert '"text"' in text, "the line is shown"
    assert shown(result) == []
    alone = kernel.run('%px -t 1 let x: u8 = "text";')
    assert alone.error["ename"] == "compile error"
    assert "[1:execute]" in said(alone)


def test_a_compile_error_for_one_history_of_two(kernel: Kernel) -> None:
    kernel.run("%px -t 0 let only_first = 5;").expect_ok()
    result = kernel.run("%px only_first")
    assert results(result) == {0: "5"}, "the engine that can, does"
    assert "only_first" in said(result) and "[1:execute]" in said(result) and "[0:execute]" not in said(result)


def test_places_in_errors_are_places_in_the_cell(kernel: Kernel) -> None:
    result = kernel.run('let here = 1;\n%%px\nlet fine = 2;\nlet wrong: u8 = "text";')
    assert re.search(r"\b4\b.*let wrong|:4:", said(result)), said(result)


def test_panics_are_told_each_and_the_others_results_shown(kernel: Kernel) -> None:
    result = kernel.run('%px if ' + ON.format(1) + ' { panic!("boom on {}", 1) } "fine"')
    assert results(result) == {0: '"fine"'}
    assert "boom on 1" in said(result) and "[1:execute]" in said(result) and "[0:execute]" not in said(result)
    both = kernel.run('%px let boom = 1; panic!("boom on {}", std::env::var("CHORUS_ENGINE_ID").unwrap());')
    assert both.error["ename"] == "CompositeError"
    assert all(part in said(both) for part in ("[0:execute]", "boom on 0", "[1:execute]", "boom on 1"))
    assert results(kernel.run("%px 1").expect_ok()) == {0: "1", 1: "1"}
    assert kernel.run("%px boom").status == "error", "what it had begun is gone"


def test_an_early_return_is_an_error(kernel: Kernel) -> None:
    result = kernel.run('%px "x".parse::<i32>()?;')
    assert result.status == "error" and "invalid digit" in said(result)


def test_a_failed_run_binds_nothing(kernel: Kernel) -> None:
    result = kernel.run("%px -o never_bound if " + ON.format(0) + ' { panic!("no") } 3')
    assert "never_bound" in said(result)
    assert kernel.run("never_bound").status == "error"


@pytest.mark.parametrize("death, ename", [
    ("std::process::abort();", "SIGABRT"),
    ("unsafe { *(8 as *mut u8) = 1; }", "SIGSEGV"),
    ("std::process::exit(3);", "exit"),
])
def test_variables_survive_a_crash(kernel: Kernel, death: str, ename: str) -> None:
    kernel.run("%px let mut kept = vec![1, 2, 3];").expect_ok()
    result = kernel.run(f"%%px -t 0\nkept.push(4);\n{death}")
    assert result.error["ename"] == ename
    assert "as it was" in said(result)
    assert results(kernel.run("%px kept").expect_ok()) == {0: "[1, 2, 3]", 1: "[1, 2, 3]"}


def test_one_crash_of_two_leaves_the_other_result(kernel: Kernel) -> None:
    result = kernel.run("%px if " + ON.format(0) + " { std::process::abort() } 5")
    assert results(result) == {1: "5"}
    assert "SIGABRT" in said(result)


@pytest.mark.alone
def test_an_interrupt_reaches_the_engines(kernel: Kernel) -> None:
    kernel.run("%px let before = 5;").expect_ok()
    request = interrupted(kernel, f'%%px\nprintln!("on");\n{ENDLESS}', r"\[stdout:0\] on", r"\[stdout:1\] on")
    assert request.reply["status"] == "error"
    assert "Received Keyboard Interrupt" in request.stream("stderr")
    text = error_text(request.of("error")[0].content)
    assert "interrupted" in text and "[0:execute]" in text and "[1:execute]" in text
    answer = kernel.run("%px before").expect_ok()
    assert results(answer) == {0: "5", 1: "5"}
    assert answer.seconds < 5


def test_an_interrupt_reaches_those_that_still_run(kernel: Kernel) -> None:
    code = f'%%px\nif {ON.format(1)} {{ println!("on"); {ENDLESS} }}\n"done"'
    request = interrupted(kernel, code, r"\[stdout:1\] on", r"Out\[0:\d+\]: \"done\"")
    text = error_text(request.of("error")[0].content)
    assert "[1:execute]" in text and "[0:execute]" not in text


def test_an_interrupt_without_a_signal_leaves_the_engines_running(kernel: Kernel, flag: Flag) -> None:
    request = interrupted(kernel, f'%%px --signal-on-interrupt 0\nprintln!("on");\n{flag.wait()}\n"ended"', r"\[stdout:0\] on", r"\[stdout:1\] on")
    assert "%pxresult" in error_text(request.of("error")[0].content)
    flag.raise_()
    assert results(kernel.run("%pxresult").expect_ok()) == {0: '"ended"', 1: '"ended"'}


def test_an_interrupted_pxresult_leaves_the_engines_running(kernel: Kernel, flag: Flag) -> None:
    kernel.run(f"%%px -a\nprintln!(\"on\");\n{flag.wait()}\n9").expect_ok()
    live = Live(kernel)
    request = live.submit("%pxresult")
    request.until(lambda event: event.type == "execute_input")
    live.interrupt().until_reply()
    assert request.done().reply["status"] == "error"
    live.settle()
    flag.raise_()
    assert results(kernel.run("%pxresult").expect_ok()) == {0: "9", 1: "9"}


@pytest.mark.alone
def test_an_interrupted_timeit_stops(kernel: Kernel) -> None:
    live = Live(kernel)
    with socket.create_server(("127.0.0.1", 0)) as server:
        # Nothing is shown of what is timed, so the engines call when they run.
        server.settimeout(30)
        port = server.getsockname()[1]
        request = live.submit(f'%%timeit -n 1 -r 1\n%%px\nstd::net::TcpStream::connect(("127.0.0.1", {port})).unwrap(); {ENDLESS}')
        for _ in (0, 1):
            server.accept()[0].close()
    live.interrupt().until_reply()
    assert request.done().reply["status"] == "error"
    live.settle()
    answer = kernel.run("%px 1").expect_ok()
    assert results(answer) == {0: "1", 1: "1"} and answer.seconds < 5


@pytest.mark.alone
def test_an_interrupt_at_once_is_not_lost(kernel: Kernel) -> None:
    """It comes when the kernel has just taken the cell, or when the request is on its way to the engines."""
    live = Live(kernel)
    for first in ["status", "execute_input"] * 5:
        request = live.submit("%px std::thread::sleep(std::time::Duration::from_secs(20));")
        request.until(lambda event, first=first: event.type == first)
        live.interrupt().until_reply()
        request.done()
        live.settle()
        assert request.reply["status"] == "error", f"ended by itself after {request.seconds:.1f} s"
        assert "Still running" not in error_text(request.of("error")[0].content)
        assert request.seconds < 3


@pytest.mark.alone
def test_an_engine_that_dies_amid_a_snippet(own_kernel: Kernel) -> None:
    process = engines.engine_process(own_kernel, 1)
    live = Live(own_kernel)
    request = live.submit('%%px\nprintln!("on");\nif ' + ON.format(1) + f" {{ {ENDLESS} }}\n5")
    until_shown(request, r"\[stdout:1\] on")
    died = time.monotonic()
    process.kill()
    request.done()
    assert request.replies[0].at - died < SOON
    live.settle()
    text = error_text(request.of("error")[0].content)
    assert "engine 1 is gone" in text and "%cluster" in text
    assert any(re.match(r"Out\[0:\d+\]: 5", shown) for shown in engines.texts(event.message for event in request.iopub))
    assert results(own_kernel.run("%px 1").expect_ok()) == {0: "1"}, "the other one goes on"
    missing = own_kernel.run("%px -t 1 1")
    assert missing.error["ename"] == "bad target" and missing.seconds < SOON


@pytest.mark.alone
def test_no_engines_at_all(own_kernel: Kernel) -> None:
    both = [engines.engine_process(own_kernel, engine) for engine in (0, 1)]
    live = Live(own_kernel)
    request = live.submit(f'%px println!("on"); {ENDLESS}')
    until_shown(request, r"\[stdout:0\] on")
    until_shown(request, r"\[stdout:1\] on")
    for process in both:
        process.kill()
    assert not still_there(both, 5)
    request.done()
    live.settle()
    result = own_kernel.run("%px 1")
    assert result.error["ename"] == "no engines", said(result)
    assert result.seconds < SOON
    assert "%cluster scale" in said(result)
    own_kernel.run("%cluster scale 2").expect_ok()
    assert list(results(own_kernel.run("%px 2").expect_ok()).values()) == ["2", "2"], "as the error said"


@pytest.mark.alone
def test_a_controller_that_dies(joined_kernel: Kernel, tmp_path: Path) -> None:
    [controller] = [process for process in engines.processes(tmp_path / "data") if engines.role(process) == "controller"]
    live = Live(joined_kernel)
    request = live.submit(f'%px println!("on"); {ENDLESS}')
    until_shown(request, r"\[stdout:0\] on")
    died = time.monotonic()
    controller.kill()
    request.done(30)
    assert request.reply["status"] == "error"
    assert request.replies[0].at - died < SOON, error_text(request.of("error")[0].content)
    live.settle()
    assert "%cluster" in error_text(request.of("error")[0].content), "what to do next"
    after = joined_kernel.run("%px 1")
    assert after.seconds < SOON or after.ok, "an error soon, or a new cluster"


@pytest.mark.alone
def test_a_controller_that_does_not_answer(joined_kernel: Kernel, tmp_path: Path) -> None:
    """It is there and stopped. What needs it can be interrupted, what doesn't goes on."""
    [controller] = [process for process in engines.processes(tmp_path / "data") if engines.role(process) == "controller"]
    controller.suspend()
    try:
        assert joined_kernel.run("%cluster status").seconds < SOON + 1
        live = Live(joined_kernel)
        request = live.submit("%px 1")
        request.until(lambda event: event.type == "execute_input")
        live.interrupt().until_reply()
        request.done(15)
        live.settle()
        assert request.reply["status"] == "error"
        assert "%cluster" in error_text(request.of("error")[0].content), "what to do next"
        assert joined_kernel.run("1 + 1").expect_ok().text == "2"
    finally:
        controller.resume()
    # Engines that had given it up come back. What was on its way to them meanwhile is lost, and said to be.
    deadline = time.monotonic() + 60
    while not (again := joined_kernel.run("%px 2", timeout=30)).ok:
        assert "send it again" in said(again) or "%cluster status" in said(again), said(again)
        assert time.monotonic() < deadline, said(again)
    assert set(results(again).values()) == {"2"}


def test_a_compiler_that_dies_is_told_of(own_kernel: Kernel, tmp_path: Path) -> None:
    [compiler] = [process for process in engines.processes(tmp_path / "data") if engines.role(process) == "compiler"]
    own_kernel.run("%px 1 + 1").expect_ok()
    compiler.kill()
    assert not still_there([compiler], 5)
    result = own_kernel.run("%px 1 + 2", timeout=30)
    # It is started again, or the error says what to do.
    assert result.ok or "compiler" in said(result), said(result)


def test_a_crash_loses_nothing_of_the_notebook(kernel: Kernel) -> None:
    kernel.run("let in_notebook = 8;").expect_ok()
    kernel.run("%px std::process::abort();")
    assert kernel.run("in_notebook").expect_ok().text == "8"


def test_out_of_memory_is_an_error_of_its_snippet(kernel: Kernel) -> None:
    result = kernel.run("%px -t 0 let v: Vec<u8> = Vec::with_capacity(usize::MAX / 4);")
    assert result.status == "error"
    assert results(kernel.run("%px 1").expect_ok()) == {0: "1", 1: "1"}
