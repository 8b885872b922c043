#!/usr/bin/env python3
"""The first minutes of a notebook: Chorus against evcxr_jupyter, alternately, in one run.

Each round measures, of each kernel:

  first           from the kernel's start to the result of `1 + 1`, with an empty cache
  first, warm     the same with the cache of the kernel before
  let             from the start to the end of a `let` whose type is to be inferred, with that cache
  first, service  as `first`, of a cell that is not in the cache, while the compile service of the kernel before runs (Chorus only)
  let, service    as `let`, in the same way
  run all         from the start to the end of a notebook of ten cells, with an empty cache
  run all again   the same in a new kernel, with the cache that the first one has left
  %px             after a first cell: a new snippet on a cluster that is started for it (Chorus only)
  interrupt       from an interrupt to the end of a cell that compiles for long, and the next cell after it
  interrupt :dep  the same, of a cell that has cargo compile a crate
  memory          proportional set size of one kernel that has compiled something, and of five

Not part of tests/run, for the reasons of bench_latency.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench_growth import checked, resources
from bench_latency import CELLS, Contender, Failed, Kernel, add_programs, contenders, stop_workers

EXAMPLES = """examples:
  tests/bench_start.py                          three rounds of both kernels
  tests/bench_start.py --only first,interrupt   some of the measures
  tests/bench_start.py --alone --json           Chorus only, as JSON
"""

LET = "let lengths: Vec<_> = [\"one\", \"three\"].iter().map(|word| word.len()).collect();"
# As many functions as keep rustc busy for some seconds.
LONG = "fn long<T: std::fmt::Debug + Clone>(n: T) -> String { format!(\"{:?}\", vec![n; 3]) }\n" + "\n".join(
    f"fn long{n}() -> String {{ long([{n}u16; {n}]) + &long(({n}u8, [{n}i64; {n}])) }}" for n in range(1, 250)) + (
    "\n[" + ", ".join(f"long{n}()" for n in range(1, 250)) + "].concat().len()")
CRATE = ":dep regex = \"1\"\nregex::Regex::new(\"a\").is_ok()"
# When the interrupt comes, after the cell has been sent.
INTERRUPT_AFTER = 1.5


@dataclass
class Bench:
    """One contender in one round."""

    contender: Contender
    folder: Path
    kernels: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def kernel(self, home: Path, keeps_service: bool = False) -> Iterator[Kernel]:
        """A kernel of a user. What outlives it ends with it, unless `keeps_service` says otherwise."""
        self.kernels += 1
        kernel = Kernel(self.contender, self.folder / str(self.kernels), home)
        try:
            yield kernel
        finally:
            kernel.end()
            if not keeps_service:
                stop_workers(home)

    @property
    def is_ours(self) -> bool:
        return self.contender.name == "chorus"

    def from_start(self, name: str, home: Path, cells: list[str], keeps_service: bool = False) -> None:
        with self.kernel(home, keeps_service) as kernel:
            for code in cells:
                checked(kernel, self.contender.name, code)
            self.seconds[name] = time.monotonic() - kernel.started


def first(bench: Bench) -> None:
    home = bench.folder / "first"
    bench.from_start("first", home, ["1 + 1"])
    bench.from_start("first, warm", home, ["1 + 1"])
    bench.from_start("let", home, [LET], keeps_service=bench.is_ours)
    if bench.is_ours:
        bench.from_start("first, service", home, ["1 + 2"], keeps_service=True)
        bench.from_start("let, service", home, [LET.replace("lengths", "others")])


def run_all(bench: Bench) -> None:
    cells = [code for _, code, _ in CELLS[:10]]
    for name in ("run all", "run all again"):
        bench.from_start(name, bench.folder / "all", cells)


def px(bench: Bench) -> None:
    if bench.is_ours:
        with bench.kernel(bench.folder / "px") as kernel:
            checked(kernel, "chorus", "1 + 1")
            bench.seconds["%px"] = checked(kernel, "chorus", "%px 20 + 3")


def interrupted(bench: Bench, name: str, code: str) -> None:
    with bench.kernel(bench.folder / "interrupt") as kernel:
        for warm_up in ("let warm_up = vec![1].len();", "warm_up + 1"):
            checked(kernel, bench.contender.name, warm_up)
        # evcxr_jupyter knows no other way than the request, ours answers that and the signal alike.
        timer = threading.Timer(INTERRUPT_AFTER, lambda: kernel.client.session.send(kernel.client.control_channel.socket, "interrupt_request", {}))
        timer.start()
        try:
            seconds, reply, _ = kernel.run(code, INTERRUPT_AFTER + 120)
        finally:
            timer.cancel()
        if seconds < INTERRUPT_AFTER:
            raise Failed(f"{bench.contender.name}: the cell to interrupt took less than {INTERRUPT_AFTER} s")
        # evcxr_jupyter goes on to the end of the compile.
        if bench.is_ours and reply["status"] != "error":
            raise Failed("chorus: the cell was not interrupted")
        bench.seconds[name] = seconds - INTERRUPT_AFTER
        bench.seconds[f"{name}, next"] = checked(kernel, bench.contender.name, "2 + 2")


def interrupt(bench: Bench) -> None:
    interrupted(bench, "interrupt", LONG)
    interrupted(bench, "interrupt :dep", CRATE)


def memory(bench: Bench) -> None:
    open_kernels = []
    home = bench.folder / "memory"
    try:
        for number in range(5):
            kernel = Kernel(bench.contender, bench.folder / f"memory-{number}", home)
            open_kernels.append(kernel)
            checked(kernel, bench.contender.name, LET.replace("lengths", f"lengths_{number}"))
            if number in (0, 4):
                bench.seconds[f"memory of {number + 1}, MB"] = resources(kernel)["MB"]
    finally:
        for kernel in open_kernels:
            kernel.end()
        stop_workers(home)


JOBS: dict[str, Callable[[Bench], None]] = {"first": first, "all": run_all, "px": px, "interrupt": interrupt, "memory": memory}


def report(rounds: dict[str, list[dict[str, float]]]) -> str:
    names = list(dict.fromkeys(name for found in rounds.values() for one in found for name in one))
    medians = {kind: {name: statistics.median(one[name] for one in found if name in one) for name in names if any(name in one for one in found)}
               for kind, found in rounds.items()}
    lines = [f"{'seconds, medians':<26}" + "".join(f"{kind:>16}" for kind in rounds) + f"{'ratio':>8}"]
    for name in names:
        values = [medians[kind].get(name) for kind in rounds]
        cells = "".join(f"{'-' if value is None else format(value, '.2f'):>16}" for value in values)
        both = len(values) == 2 and None not in values
        lines.append(f"{name:<26}{cells}" + (f"{values[1] / values[0]:>8.2f}" if both else ""))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_programs(parser)
    parser.add_argument("--alone", action="store_true", help="measure Chorus only")
    parser.add_argument("--only", default=",".join(JOBS), metavar="NAMES", help=f"some of {','.join(JOBS)}")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often everything is measured (default: 3)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in JOBS]:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(JOBS)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    try:
        ours = Contender("chorus", [str(options.chorus), "kernel", "-f", "{connection_file}"])
        kinds = [ours] if options.alone else list(contenders(options))
        rounds: dict[str, list[dict[str, float]]] = {kind.name: [] for kind in kinds}
        with tempfile.TemporaryDirectory(prefix="start-") as folder:
            for number in range(options.rounds):
                # Who goes first alternates, so that a machine that warms or cools favours neither.
                for kind in kinds if number % 2 == 0 else reversed(kinds):
                    print(f"round {number + 1} of {options.rounds}: {kind.name}", file=sys.stderr)
                    bench = Bench(kind, Path(folder) / f"{kind.name}-{number}")
                    bench.folder.mkdir()
                    for name in names:
                        JOBS[name](bench)
                    rounds[kind.name].append(bench.seconds)
    except Failed as failure:
        print(f"bench_start: {failure}", file=sys.stderr)
        return 2
    print(json.dumps(rounds, indent=2) if options.json else report(rounds))
    print(f"load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
