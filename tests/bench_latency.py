#!/usr/bin/env python3
"""Cell latency of Chorus against evcxr_jupyter: one script, both kernels, alternately, in one run.

Each round starts a fresh kernel of each kind, lets both warm up in the same way, and runs the same cells one by one; a cell's latency
is from sending the request to its idle, as a notebook's user waits for it. Not part of tests/run: it needs
evcxr_jupyter 0.22.0 (`cargo install --locked evcxr_jupyter --version 0.22.0`) and a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

try:
    import zmq
    from jupyter_client import BlockingKernelClient
    from jupyter_client.connect import write_connection_file
except ImportError:  # told by `contenders`, so that --help works with any Python
    zmq = None

ROOT = Path(__file__).resolve().parents[1]
INSTALL = "cargo install --locked evcxr_jupyter --version 0.22.0"
EXAMPLES = """examples:
  tests/bench_latency.py                                   five rounds of both kernels, as text
  tests/bench_latency.py --rounds 10 --json > latency.json
  tests/bench_latency.py --evcxr ~/evcxr/bin/evcxr_jupyter --chorus target/release/chorus
  tests/bench_latency.py --at-most 0.7                     fail if Chorus takes more than 0.7 of evcxr_jupyter's median

The kernels are run in a Python environment with jupyter_client; tests/run makes one:
  target/test-venv/bin/python tests/bench_latency.py
"""

# name, code, the text that must be in what the cell shows ("" for nothing; "error" cells must fail)
CELLS: list[tuple[str, str, str]] = [
    ("expression", "1 + 1", "2"),
    ("let", "let x = 21;", ""),
    ("expression of a variable", "x * 2", "42"),
    ("let of a collection", "let mut v: Vec<i64> = (1..=10).collect();", ""),
    ("change in place", "v.push(11); v.retain(|n| n % 2 == 1);", ""),
    ("iterator chain", "v.iter().map(|n| n * n).sum::<i64>()", "286"),
    ("function", "fn fib(n: u32) -> u64 { (0..n).fold((0, 1), |(a, b), _| (b, a + b)).0 }", ""),
    ("call of a function", "fib(50)", "12586269025"),
    ("struct with impl", "#[derive(Debug, Clone)]\npub struct Point { pub x: f64, pub y: f64 }\nimpl Point { pub fn norm(&self) -> f64 { (self.x * self.x + self.y * self.y).sqrt() } }", ""),
    ("value of a struct", "let p = Point { x: 3.0, y: 4.0 };\np", "Point { x: 3.0, y: 4.0 }"),
    ("method", "p.norm()", "5.0"),
    ("print", 'println!("x = {x}, norm = {:.2}", p.norm());', "x = 21, norm = 5.00"),
    ("use and a map", "use std::collections::HashMap;\nlet mut ages: HashMap<String, u32> = HashMap::new();\nages.insert(\"Ada\".into(), 36);\nages.insert(\"Alan\".into(), 41);", ""),
    ("lookup", 'ages.get("Ada")', "Some(36)"),
    ("compile error", 'let wrong: i32 = "text";', "error"),
    ("strings", 'let text = "the quick brown fox"; text.split_whitespace().map(str::len).collect::<Vec<_>>()', "[3, 5, 5, 3]"),
    ("enum and match", 'enum Shape { Circle(f64), Square(f64) }\nfn area(s: &Shape) -> f64 { match s { Shape::Circle(r) => 3.0 * r * r, Shape::Square(a) => a * a } }\narea(&Shape::Square(3.0)) + area(&Shape::Circle(1.0))', "12.0"),
    ("generic trait", "trait Twice { fn twice(self) -> Self; }\nimpl<T: std::ops::Add<Output = T> + Copy> Twice for T { fn twice(self) -> T { self + self } }\n4.5.twice()", "9.0"),
    ("loop that prints", 'for n in 0..5 { println!("{n}: {}", "*".repeat(n)); }', "4: ****"),
    ("early return", '"40".parse::<i32>()? + 2', "42"),
]


class Failed(Exception):
    """The comparison could not be made; the text says why."""


@dataclass
class Contender:
    """A kernel program: how it is called, and what its cells took, by cell, in seconds."""

    name: str
    argv: list[str]
    version: str = "?"
    starts: list[float] = field(default_factory=list)
    cells: list[list[float]] = field(default_factory=lambda: [[] for _ in CELLS])

    def medians(self) -> list[float]:
        return [statistics.median(times) for times in self.cells]

    def overall(self) -> float:
        """The median of all cells' medians: the latency of the script's typical cell."""
        return statistics.median(self.medians())


class Kernel:
    """A fresh kernel process and a client. `home`: the folder of the user, if it is not to be one of its own."""

    def __init__(self, contender: Contender, folder: Path, home: Path | None = None):
        folder.mkdir()
        self.home, self.owns_home = home or folder / "home", home is None
        file = folder / "connection.json"
        write_connection_file(str(file), key=os.urandom(16).hex().encode(), kernel_name=contender.name)
        self.log = folder / "log"
        environment = os.environ | environment_of(self.home)
        self.started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([a.format(connection_file=file) for a in contender.argv], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=environment, start_new_session=True)
        self.client = BlockingKernelClient(connection_file=str(file))
        self.client.load_connection_file()
        self.client.start_channels(hb=False)
        contender.version = self.ask("kernel_info_request", {}, 60)[1]["implementation_version"]
        # A cell that is answered at once would be over before this client is heard on iopub.
        while not self.client.iopub_channel.socket.poll(20):
            self.ask("kernel_info_request", {}, 60)
        self.start_seconds = time.monotonic() - self.started

    def ask(self, kind: str, content: dict, timeout: float) -> tuple[float, dict, list[dict]]:
        """Sends a request; gives seconds until idle, the reply's content and the iopub messages."""
        shell, iopub = self.client.shell_channel.socket, self.client.iopub_channel.socket
        poller = zmq.Poller()
        poller.register(shell, zmq.POLLIN)
        poller.register(iopub, zmq.POLLIN)
        message = self.client.session.msg(kind, content)
        mine = message["header"]["msg_id"]
        sent = time.monotonic()
        self.client.session.send(shell, message)
        reply, idle, shown = None, None, []
        while reply is None or (idle is None and kind == "execute_request"):
            ready = dict(poller.poll(max(0, sent + timeout - time.monotonic()) * 1000))
            if not ready:
                raise Failed(f"no answer within {timeout:.0f} s; the log ends: {self.log.read_text(errors='replace')[-1000:]}")
            for socket in ready:
                _, got = self.client.session.recv(socket, mode=zmq.NOBLOCK)
                if got["parent_header"].get("msg_id") != mine:
                    continue
                if socket is shell:
                    reply = got["content"]
                elif got["msg_type"] == "status":
                    if got["content"]["execution_state"] == "idle":
                        idle = time.monotonic()
                else:
                    shown.append(got)
        return (idle or time.monotonic()) - sent, reply, shown

    def run(self, code: str, timeout: float = 120) -> tuple[float, dict, list[dict]]:
        return self.ask("execute_request", {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False, "stop_on_error": False}, timeout)

    def end(self) -> None:
        try:
            self.client.session.send(self.client.control_channel.socket, "shutdown_request", {"restart": False})
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        finally:
            self.client.stop_channels()
            if self.owns_home:
                stop_workers(self.home)


def environment_of(home: Path) -> dict[str, str]:
    """The environment of a user whose folder this is, which is made."""
    folders = {f"XDG_{kind}_HOME": home / kind.lower() for kind in ("DATA", "CONFIG", "CACHE")} | {
        "XDG_RUNTIME_DIR": home / "run", "TMPDIR": home / "tmp"}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    return {name: str(path) for name, path in folders.items()}


def processes_of(home: Path) -> list[int]:
    """The processes of this user."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and f"XDG_CACHE_HOME={home / 'cache'}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def stop_workers(home: Path) -> None:
    """Ends what of this user's outlives kernels, and waits for it: Chorus's compile service."""
    for process in processes_of(home):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while processes_of(home):
        if time.monotonic() > deadline:
            raise Failed(f"processes of {home} do not end")
        time.sleep(0.02)


def text_of(shown: list[dict]) -> str:
    parts = []
    for message in shown:
        content = message["content"]
        parts += [content.get("text", ""), *map(str, content.get("data", {}).values())]
    return "\n".join(parts)


def play(contender: Contender, folder: Path) -> None:
    """One round: a fresh kernel, a warm-up, the script."""
    kernel = Kernel(contender, folder)
    try:
        # Both load std into rust-analyzer and start their helpers in a first `let`, which a user pays once a session.
        for code in ("let warm_up = 1;", "warm_up + 1"):
            kernel.run(code)
        for (name, code, expected), times in zip(CELLS, contender.cells, strict=True):
            seconds, reply, shown = kernel.run(code)
            if expected == "error":
                if not any(m["msg_type"] == "error" for m in shown):
                    raise Failed(f"{contender.name}: the cell `{name}` should fail")
            elif reply["status"] != "ok" or expected not in text_of(shown):
                raise Failed(f"{contender.name}: the cell `{name}` gave {reply['status']}, {text_of(shown)[:300]!r}, expected {expected!r}")
            times.append(seconds)
        contender.starts.append(kernel.start_seconds)
    finally:
        kernel.end()


def add_programs(parser: argparse.ArgumentParser) -> None:
    """The options that `contenders` takes."""
    parser.add_argument("--evcxr", type=Path, metavar="PATH", help="the evcxr_jupyter program (default: on PATH)")
    parser.add_argument("--chorus", type=Path, metavar="PATH", default=ROOT / "target/release/chorus", help="the chorus program (default: target/release/chorus)")


def contenders(options: argparse.Namespace) -> tuple[Contender, Contender]:
    if zmq is None:
        raise Failed("this Python has no jupyter_client; `pip install jupyter_client`, or use target/test-venv/bin/python, which tests/run makes")
    evcxr = options.evcxr or shutil.which("evcxr_jupyter")
    if not evcxr or not Path(evcxr).exists():
        raise Failed(f"evcxr_jupyter is not {'at ' + str(options.evcxr) if options.evcxr else 'on PATH'}; install it with\n  {INSTALL}\nor name it with --evcxr PATH")
    if not options.chorus.exists():
        raise Failed(f"{options.chorus} does not exist; build it with `cargo build --release` or name it with --chorus PATH")
    return (
        Contender("evcxr_jupyter", [str(evcxr), "--control_file", "{connection_file}"]),
        Contender("chorus", [str(options.chorus), "kernel", "-f", "{connection_file}"]),
    )


def report(peer: Contender, ours: Contender, rounds: int) -> dict:
    theirs, own = peer.medians(), ours.medians()
    ratios = [o / t for o, t in zip(own, theirs, strict=True)]
    return {
        "rounds": rounds,
        "cells": [{"name": name, peer.name: t, ours.name: o, "ratio": r} for (name, _, _), t, o, r in zip(CELLS, theirs, own, ratios, strict=True)],
        "versions": {c.name: c.version for c in (peer, ours)},
        "start": {c.name: statistics.median(c.starts) for c in (peer, ours)},
        "median": {c.name: c.overall() for c in (peer, ours)},
        "ratio_of_medians": ours.overall() / peer.overall(),
        "median_of_ratios": statistics.median(ratios),
    }


def as_text(result: dict) -> str:
    peer, ours = result["versions"]
    rows = [f"{'cell':<26}{peer + ', ms':>18}{ours + ', ms':>14}{'ratio':>8}"]
    rows += [f"{c['name']:<26}{c[peer] * 1000:>18.0f}{c[ours] * 1000:>14.0f}{c['ratio']:>8.2f}" for c in result["cells"]]
    rows += [
        f"{'median of all cells':<26}{result['median'][peer] * 1000:>18.0f}{result['median'][ours] * 1000:>14.0f}",
        f"{'start to kernel_info':<26}{result['start'][peer] * 1000:>18.0f}{result['start'][ours] * 1000:>14.0f}",
        "",
        f"ratio of medians {result['ratio_of_medians']:.2f}, median of ratios {result['median_of_ratios']:.2f}"
        f" ({result['rounds']} rounds; {peer} {result['versions'][peer]}, {ours} {result['versions'][ours]})",
    ]
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_programs(parser)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="fresh kernels of each kind, alternating (default: 5)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, times in seconds")
    parser.add_argument("--at-most", type=float, metavar="RATIO", help="exit with 1 if the ratio of medians is larger")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    try:
        both = contenders(options)
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            for number in range(options.rounds):
                # Who goes first alternates, so that a machine that warms or cools favours neither.
                for contender in both if number % 2 == 0 else reversed(both):
                    print(f"round {number + 1} of {options.rounds}: {contender.name}", file=sys.stderr)
                    play(contender, Path(folder) / f"{contender.name}-{number}")
    except Failed as failure:
        print(f"bench_latency: {failure}", file=sys.stderr)
        return 2
    result = report(*both, options.rounds)
    if both[0].version != "0.22.0":
        print(f"note: compared with evcxr_jupyter {both[0].version}; the claim is about 0.22.0", file=sys.stderr)
    print(json.dumps(result, indent=2) if options.json else as_text(result))
    if options.at_most is not None and result["ratio_of_medians"] > options.at_most:
        print(f"bench_latency: the ratio {result['ratio_of_medians']:.2f} is above {options.at_most}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
