#!/usr/bin/env python3
"""The figures of a cluster on this machine, each with its budget: fan-out, latency, start, memory, size.

Every figure is a median over rounds on a fresh cluster; snippets that are to be compiled differ from all before. Not part of tests/run:
it needs a machine with nothing else to do. Exits with 1 if a budget is missed, with 2 if something did not work.
"""

from __future__ import annotations

import itertools
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Failed, Figure, Kernel, engines, install_kernelspec, psutil, run

EXAMPLES = """examples (in the Python environment that tests/run makes):
  target/test-venv/bin/python tests/bench_cluster.py
  target/test-venv/bin/python tests/bench_cluster.py --only fan-out,latency --rounds 10
  target/test-venv/bin/python tests/bench_cluster.py --chorus target/release/chorus --json > cluster.json
"""


class Bench:
    """Kernels and clusters in folders of their own, with compiled snippets kept in a common cache as a user has it."""

    def __init__(self, chorus: Path, rounds: int, folder: Path):
        self.chorus, self.rounds, self.folder = chorus, rounds, folder
        self.numbers = itertools.count()
        for name in ("CONFIG", "CACHE", "STATE"):
            os.environ[f"XDG_{name}_HOME"] = str(folder / name.lower())
        install_kernelspec(chorus, folder)

    def command(self, arguments: list, environment: dict) -> float:
        """Runs the program; seconds from its start to its end."""
        began = time.monotonic()
        done = subprocess.run([self.chorus, *map(str, arguments)], env=dict(environment), capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        took = time.monotonic() - began
        if done.returncode:
            raise Failed(f"chorus {' '.join(map(str, arguments))}: {done.stderr}")
        return took

    def new_folder(self) -> Path:
        folder = self.folder / str(next(self.numbers))
        folder.mkdir()
        return folder

    @contextmanager
    def notebook(self, count: int) -> Iterator[Kernel]:
        """A kernel with so many engines that have run something."""
        with engines.started("chorus", self.new_folder(), count) as kernel:
            kernel.run("%px 0").expect_ok()
            yield kernel

    def unlike_others(self) -> str:
        """A snippet of some size that was never compiled, as a user would write one."""
        n = next(self.numbers) + time.time_ns()
        return f"let text = format!(\"{{}}\", {n}u128); text.chars().filter(|c| c.is_numeric()).map(|c| c as u32 as f64).sum::<f64>()"

    def median(self, measure: Callable[[], float]) -> float:
        return statistics.median(measure() for _ in range(self.rounds))


def seconds(kernel: Kernel, code: str) -> float:
    """From sending a cell to its end, as a notebook's user waits for it."""
    return kernel.run(code).expect_ok().seconds


def fan_out(bench: Bench) -> list[Figure]:
    """The same kind of new snippet on one engine and on eight."""
    ones, eights = [], []
    with bench.notebook(8) as kernel:
        for _ in range(max(bench.rounds, 5)):
            # All engines keep one history, so both compile once; an expression changes no history.
            ones.append(seconds(kernel, f"%px -t 0 {{ {bench.unlike_others()} }}"))
            eights.append(seconds(kernel, f"%px {{ {bench.unlike_others()} }}"))
    one, eight = statistics.median(ones), statistics.median(eights)
    return [Figure("%px of a new snippet on 8 engines, times that on 1", eight / one, "", 1.2),
            Figure("on 1 engine", one * 1e3, "ms"), Figure("on 8 engines", eight * 1e3, "ms")]


def latency(bench: Bench) -> list[Figure]:
    """A snippet compiled before, there and back."""
    with bench.notebook(2) as kernel:
        def inside(code: str) -> float:
            kernel.run(f"%timeit -q -n 1 -r 101 -v took %px {code}").expect_ok()
            text = kernel.run("took").expect_ok().text
            return statistics.median(map(float, re.findall(r"[\d.]+(?:e-?\d+)?", text)))

        own = bench.median(lambda: inside("1 + 1"))
        seconds(kernel, "%px 1 + 1")
        whole = statistics.median(seconds(kernel, "%px 1 + 1") for _ in range(101))
    return [Figure("%px of a snippet compiled before, 2 engines, there and back", own * 1e3, "ms", 3.0),
            Figure("the whole cell, from the client's request to idle", whole * 1e3, "ms")]


def start(bench: Bench) -> list[Figure]:
    """`chorus cluster start --daemonize` returns when all engines are ready."""
    figures = []
    for count, budget in ((2, 0.5), (8, 1.5)):
        def once() -> float:
            environment = os.environ | {"XDG_DATA_HOME": str(bench.new_folder())}
            took = bench.command(["cluster", "start", "-n", count, "--daemonize"], environment)
            bench.command(["cluster", "stop"], environment)
            return took

        figures.append(Figure(f"a cluster of {count} engines ready", bench.median(once), "s", budget))
    return figures


def memory(bench: Bench) -> list[Figure]:
    """Controller, two engines, their runtimes and what these forked, after a snippet has run; shared pages counted once (PSS)."""
    pss, rss = [], []
    for _ in range(bench.rounds):
        folder = bench.new_folder()
        environment = os.environ | {"XDG_DATA_HOME": str(folder / "data")}
        with engines.started("chorus", folder, None) as kernel:
            # One of a notebook's own has its controller in the kernel.
            bench.command(["cluster", "start", "-n", 2, "--daemonize"], environment)
            kernel.run("%px let v: Vec<u64> = (0..100).collect(); v.len()").expect_ok()
            mine = {"controller": [], "engine": [], "runtime": []}
            notebooks = {p.pid for p in psutil.Process(kernel.pid).children(recursive=True) if engines.role(p) == "runtime" and not of_engine(p)}
            for process in engines.processes(folder / "data"):
                if engines.role(process) in mine and process.pid not in notebooks:
                    mine[engines.role(process)].append(process.memory_full_info())
            if len(mine["controller"]) != 1 or len(mine["engine"]) != 2 or len(mine["runtime"]) < 2:
                raise Failed(f"these processes were found: { {role: len(those) for role, those in mine.items()} }")
            bench.command(["cluster", "stop"], environment)
            everything = [info for those in mine.values() for info in those]
            pss.append(sum(info.pss for info in everything))
            rss.append(sum(info.rss for info in everything))
    return [Figure("memory of controller and 2 engines, without compiler (PSS)", statistics.median(pss) / 1e6, "MB", 60),
            Figure("the same, shared pages counted in each process (RSS)", statistics.median(rss) / 1e6, "MB")]


def of_engine(process: psutil.Process) -> bool:
    return any(engines.role(parent) == "engine" for parent in process.parents())


def many(bench: Bench) -> list[Figure]:
    """64 engines: all of them answer."""
    with engines.started("chorus", bench.new_folder(), None) as kernel:
        ready = seconds(kernel, "%cluster start -n 64")
        kernel.run("%px 0").expect_ok()
        result = kernel.run('%px println!("here"); 6 * 7').expect_ok()
        answers = engines.results(result)
        printed = [text for text in engines.shown(result) if re.fullmatch(r"\[stdout:\d+\] here\n", text)]
        if answers != {engine: "42" for engine in range(64)} or len(printed) != 64:
            raise Failed(f"of 64 engines {len(answers)} answered and {len(printed)} printed")
        again = statistics.median(seconds(kernel, "%px 6 * 7") for _ in range(bench.rounds))
    return [Figure("engines of 64 that did not answer", 0, "", 0), Figure("64 engines ready", ready, "s"),
            Figure("%px of a snippet compiled before, on all 64", again * 1e3, "ms")]


ALL = {"fan-out": fan_out, "latency": latency, "start": start, "memory": memory, "many": many}


@contextmanager
def opened(chorus: Path, rounds: int, folder: Path) -> Iterator[Bench]:
    yield Bench(chorus, rounds, folder)


if __name__ == "__main__":
    sys.exit(run(__doc__, EXAMPLES, ALL, opened))
