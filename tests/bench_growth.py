#!/usr/bin/env python3
"""Cell latency in notebooks that have grown: Chorus against evcxr_jupyter, alternately, in one run.

A kernel is given N definitions (each a struct with three derives, an impl with two methods, and a function), then new expressions, `let`s and
functions are measured that mention none of them or one. With --cells, one session runs that many small cells, and its time, memory, descriptors
and memory maps are told along the way. Not part of tests/run, for the reasons of bench_latency.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bench_latency import Contender, Failed, Kernel, add_programs, contenders, processes_of

EXAMPLES = """examples:
  tests/bench_growth.py                         both kernels with 0, 50, 150 and 400 definitions
  tests/bench_growth.py --alone --sizes 0,400   Chorus only
  tests/bench_growth.py --alone --px            with `%px` on two engines
  tests/bench_growth.py --alone --cells 1000    a session of 1000 cells
"""

DEFINITION = """#[derive(Debug, Clone, PartialEq)]
pub struct S{n} {{ pub a: f64, pub b: Vec<u32> }}
impl S{n} {{
    pub fn sum(&self) -> f64 {{ self.a + self.b.iter().map(|x| *x as f64).sum::<f64>() }}
    pub fn grow(&mut self, by: u32) {{ for x in &mut self.b {{ *x += by; }} self.a *= 2.0; }}
}}
pub fn make{n}(a: f64) -> S{n} {{ let mut s = S{n} {{ a, b: (0..{n}).collect() }}; s.grow(1); s }}
"""

# name, code for the round `i`, of which `k` is one of the definitions
MEASURED = {
    "expression": "{i} + 1",
    "let": "let v{i} = vec![{i}];",
    "fn": "fn f{i}(x: i32) -> i32 {{ x + {i} }}",
}
REACHING = {
    "expression of one": "make{k}({i}.0).sum()",
    "let of one": "let w{i} = make{k}({i}.0);",
    "fn of one": "fn g{i}(x: &S{k}) -> f64 {{ x.sum() + {i}.0 }}",
}
PX = {"%px": "%px let p{i} = {i} + 1; p{i}"}


@dataclass
class Session:
    """What one kernel took: seconds by measure."""

    size: int
    seconds: dict[str, list[float]] = field(default_factory=dict)


def checked(kernel: Kernel, name: str, code: str) -> float:
    seconds, reply, shown = kernel.run(code)
    if reply["status"] != "ok":
        raise Failed(f"{name}: {code!r} failed: {[m['content'] for m in shown]}")
    return seconds


def grown(contender: Contender, folder: Path, size: int, rounds: int, px: bool) -> Session:
    session = Session(size)
    kernel = Kernel(contender, folder)
    try:
        for code in ("let warm_up = 1;", "warm_up + 1"):
            kernel.run(code)
        for start in range(0, size, 10):
            checked(kernel, contender.name, "\n".join(DEFINITION.format(n=n) for n in range(start, min(start + 10, size))))
        measured = MEASURED | (REACHING if size else {})
        if px and contender.name == "chorus":
            checked(kernel, contender.name, "%cluster start -n 2")
            for start in range(0, size, 10):
                checked(kernel, contender.name, "%%px\n" + "\n".join(DEFINITION.format(n=n) for n in range(start, min(start + 10, size))))
            measured |= PX
            checked(kernel, contender.name, "%px 1 + 1")
        for i in range(rounds):
            for name, code in measured.items():
                seconds = checked(kernel, contender.name, code.format(i=i, k=size * i // rounds))
                session.seconds.setdefault(name, []).append(seconds)
            seconds, _, _ = kernel.ask("complete_request", {"code": "mak", "cursor_pos": 3}, 60)
            session.seconds.setdefault("completion", []).append(seconds)
    finally:
        kernel.end()
    return session


def resources(kernel: Kernel) -> dict[str, int]:
    """Sums over the processes of the kernel's user; maps of the one that has most."""
    total = {"MB": 0, "descriptors": 0, "maps": 0}
    for process in processes_of(kernel.home):
        proc = Path(f"/proc/{process}")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pss = [line for line in (proc / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:")]
            total["MB"] += int(pss[0].split()[1]) // 1024
            total["descriptors"] += len(list((proc / "fd").iterdir()))
            total["maps"] = max(total["maps"], (proc / "maps").read_text().count("\n"))
    return total


def long(contender: Contender, folder: Path, cells: int) -> list[dict]:
    """One session of many small cells, which define variables and functions in turns."""
    kernel = Kernel(contender, folder)
    rows, times = [], []
    try:
        for i in range(cells):
            code = f"let x{i} = vec![{i}];" if i % 2 == 0 else f"fn f{i}(x: usize) -> usize {{ x + x{i - 1}_() }}\nfn x{i - 1}_() -> usize {{ {i} }}"
            times.append(checked(kernel, contender.name, code))
            if (i + 1) % max(cells // 10, 1) == 0:
                rows.append({"cells": i + 1, "ms": statistics.median(times) * 1000, **resources(kernel)})
                print(rows[-1], file=sys.stderr)
                times = []
    finally:
        kernel.end()
    return rows


def table(kind: Contender, sessions: list[Session]) -> str:
    names = list(dict.fromkeys(name for session in sessions for name in session.seconds))
    lines = [f"{kind.name} {kind.version}: medians in ms, and as multiples of those with no definitions",
             f"{'N':<6}" + "".join(f"{name:>20}" for name in names)]
    base = {}
    for session in sessions:
        cells = []
        for name in names:
            if name not in session.seconds:
                cells.append(f"{'':>20}")
                continue
            median = statistics.median(session.seconds[name])
            # What mentions a definition is compared with the same kind of cell that mentions none.
            first = base.setdefault(name.removesuffix(" of one"), median)
            cells.append(f"{median * 1000:>12.0f} {median / first:>6.2f}x")
        lines.append(f"{session.size:<6}" + "".join(cells))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_programs(parser)
    parser.add_argument("--alone", action="store_true", help="measure Chorus only")
    parser.add_argument("--sizes", default="0,50,150,400", metavar="N,N,..", help="how many definitions (default: 0,50,150,400)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="cells of each kind in a notebook (default: 7)")
    parser.add_argument("--px", action="store_true", help="measure `%%px` on two engines that have the same definitions, too")
    parser.add_argument("--cells", type=int, metavar="N", help="run a session of N small cells instead")
    parser.add_argument("--at-most", type=float, metavar="RATIO", help="exit with 1 if a median of Chorus exceeds RATIO times that of the first size")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, times in seconds")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    worst = 0.0
    try:
        chorus = Contender("chorus", [str(options.chorus), "kernel", "-f", "{connection_file}"])
        kinds = [chorus] if options.alone else list(contenders(options))
        with tempfile.TemporaryDirectory(prefix="growth-") as folder:
            if options.cells:
                result = {kind.name: long(kind, Path(folder) / kind.name, options.cells) for kind in kinds}
                print(json.dumps(result, indent=2))
                return 0
            sessions = {kind.name: [] for kind in kinds}
            for size in sizes:
                for kind in kinds:
                    print(f"{kind.name} with {size} definitions", file=sys.stderr)
                    sessions[kind.name].append(grown(kind, Path(folder) / f"{kind.name}-{size}", size, options.rounds, options.px))
    except Failed as failure:
        print(f"bench_growth: {failure}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({name: [vars(session) for session in found] for name, found in sessions.items()}, indent=2))
    else:
        print("\n\n".join(table(kind, sessions[kind.name]) for kind in kinds))
    first = sessions["chorus"][0].seconds
    for session in sessions["chorus"][1:]:
        for name in MEASURED | (PX if options.px else {}):
            worst = max(worst, statistics.median(session.seconds[name]) / statistics.median(first[name]))
    if options.at_most is not None and worst > options.at_most:
        print(f"bench_growth: {worst:.2f} times the latency of the first size", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
