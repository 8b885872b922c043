"""What benchmarks of figures with budgets have in common: their command line, and their report.

They exit with 1 if a budget is missed, with 2 if something did not work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "python"))
try:
    import psutil

    import engines
    from chorus_client import Kernel
except ImportError:  # told by `run`, so that --help works with any Python
    psutil = engines = Kernel = None


class Failed(Exception):
    """A figure could not be had; the text says why."""


@dataclass
class Figure:
    """One line of the report. Without a budget it only explains another line."""

    name: str
    value: float
    unit: str
    budget: float | None = None
    # Whether more is better.
    more: bool = False
    # The machine's, as the system tells it.
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    @property
    def kept(self) -> bool:
        if self.budget is None:
            return True
        return self.value >= self.budget if self.more else self.value <= self.budget

    def line(self) -> str:
        number, load = f"{self.value:.4g} {self.unit}".rstrip(), f"load {self.load:.1f}"
        if self.budget is None:
            return f"  {self.name:<62}{number:>16}   {load}"
        budget = f"{'at least' if self.more else 'at most'} {self.budget:.4g} {self.unit}".rstrip()
        return f"{self.name:<64}{number:>16}   {load}   {budget}  {'kept' if self.kept else 'MISSED'}"


Job = Callable[[Any], list[Figure]]


def install_kernelspec(chorus: Path, folder: Path) -> None:
    """For the kernels that this process starts."""
    os.environ["JUPYTER_PATH"] = str(folder / "prefix" / "share" / "jupyter")
    subprocess.run([chorus, "kernelspec", "install", "--prefix", folder / "prefix"], check=True, capture_output=True, stdin=subprocess.DEVNULL)


def run(description: str, examples: str, jobs: dict[str, Job], opened: Callable[[Path, int, Path], AbstractContextManager[Any]],
        optional: dict[str, tuple[str, Job]] | None = None) -> int:
    """Measures what the command line asks for. `opened`: what the jobs measure with, of the program, the number of rounds and an empty folder.
    `optional`: what is measured only if its option is given, with that option's help."""
    optional = optional or {}
    program = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chorus", type=Path, metavar="PATH", default=ROOT / "target/release/chorus", help="the chorus program (default: target/release/chorus)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="how often each figure is measured (default: 5)")
    parser.add_argument("--only", metavar="NAMES", default=",".join(jobs), help=f"some of {','.join(jobs)}")
    for name, (about, _) in optional.items():
        parser.add_argument(f"--{name}", action="store_true", help=about)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in jobs]:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(jobs)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if psutil is None:
        print(f"{program}: this Python lacks what the tests need; use target/test-venv/bin/python, which tests/run makes", file=sys.stderr)
        return 2
    chorus = options.chorus.resolve()
    if not chorus.exists():
        print(f"{program}: {chorus} does not exist; build it with `cargo build --release` or name it with --chorus PATH", file=sys.stderr)
        return 2
    wanted = [(name, jobs[name]) for name in names] + [(name, job) for name, (_, job) in optional.items() if getattr(options, name)]
    figures: list[Figure] = []
    broken = False
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, opened(chorus, options.rounds, Path(folder)) as bench:
        for name, job in wanted:
            try:
                found = job(bench)
            except (Failed, AssertionError, TimeoutError) as failure:
                print(f"{program}: {name}: {failure}", file=sys.stderr)
                broken = True
                continue
            figures += found
            if not options.json:
                print("\n".join(figure.line() for figure in found), flush=True)
    if options.json:
        print(json.dumps([asdict(figure) | {"kept": figure.kept} for figure in figures], indent=2))
    if broken:
        return 2
    return 0 if all(figure.kept for figure in figures) else 1
