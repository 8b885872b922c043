#!/usr/bin/env python3
"""The figures of closures on engines, each with its budget: tasks a second, a call there and back, a map of many small items, bulk data, and
the word count.

All of them are measured in cells of a real notebook with a cluster of two engines, and are medians over rounds.

  tasks    no-op tasks through the load balancer, one message a task
  queue    100 000 such tasks that wait for busy engines: what `queue_status` says of their bytes, what the notebook's kernel, which its controller is in, takes more of memory
           at the peak, and how fast they then run, against 10 000
  call     `apply_sync` of a no-op on one engine, there and back
  map      `map_sync` over a million small items: the processor time of all processes, against that of the same loop in the cell
  bulk     `push` of 4 000 000 `f64` (32 MB) to both engines: the bytes that arrive, 64 MB, over the time until both have them
  words    the word count of examples/wordcount.rs in equal parts, text on the engines: how many times faster than on one core, in turns

Not part of tests/run: it needs a machine with nothing else to do; the load is printed with each figure. Exits with 1 if a budget is missed,
with 2 if something did not work.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import ROOT, Failed, Figure, Kernel, engines, install_kernelspec, run

EXAMPLES = """examples (in the Python environment that tests/run makes):
  target/test-venv/bin/python tests/bench_tasks.py
  target/test-venv/bin/python tests/bench_tasks.py --only tasks,call --rounds 9
  target/test-venv/bin/python tests/bench_tasks.py --peer --json > tasks.json
"""


class Bench:
    def __init__(self, kernel: Kernel, data: Path, rounds: int):
        self.kernel, self.data, self.rounds = kernel, data, rounds

    def numbers(self, code: str, runs: int | None = None) -> list[float]:
        """What a cell gives, run so often; a float each time. The first run is not counted: it compiles, and warms up."""
        found = []
        for _ in range((runs or self.rounds) + 1):
            text = self.kernel.run(code, timeout=300).expect_ok().text or ""
            if not re.fullmatch(r"[\d.e+-]+", text):
                raise Failed(f"{code!r} gave {text!r}")
            found.append(float(text))
        return found[1:]

    def cpu(self) -> float:
        """Seconds of the processor that all processes of the notebook and its cluster have taken so far."""
        total = 0
        for process in engines.processes(self.data):
            for stat in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
                try:
                    total += int(stat.read_text().split()[0])
                except OSError:
                    pass  # a thread that has ended
        return total / 1e9


def figure(name: str, values: list[float], unit: str, budget: float | None = None, more: bool = False) -> Figure:
    return Figure(name, statistics.median(values), unit, budget, more)


@contextmanager
def opened(chorus: Path, rounds: int, folder: Path) -> Iterator[Bench]:
    """A notebook with two engines, and a client in it."""
    install_kernelspec(chorus, folder)
    if TEXT.exists():
        os.environ.setdefault("CHORUS_TEXT", str(TEXT))
    with engines.started("chorus", folder / "notebook", 2) as kernel:
        kernel.run("use chorus::Client;\nlet client = Client::connect()?;", timeout=600).expect_ok()
        yield Bench(kernel, folder / "notebook" / "data", rounds)


def tasks(bench: Bench) -> list[Figure]:
    code = ("let start = std::time::Instant::now();\nlet count = client.load_balanced_view().chunk_size(1).map_sync(0..20000u64, |x| x)?.len();\n"
            "assert_eq!(count, 20000);\ncount as f64 / start.elapsed().as_secs_f64()")
    before = bench.cpu()
    rates = bench.numbers(code)
    each = (bench.cpu() - before) / (20000 * len(rates)) * 1e6
    return [figure("balanced no-op tasks, one message a task", rates, "/s", 20_000, more=True),
            figure("processor time of each, all processes together", [each], "us")]


def queue(bench: Bench) -> list[Figure]:
    def waited(count: int) -> str:
        return (f"let busy = client.all().apply(|_: ()| std::thread::sleep(std::time::Duration::from_millis(2500)), ());\n"
                f"let queued = client.load_balanced_view().chunk_size(1).map(0..{count}u64, |x| x);\n"
                "std::thread::sleep(std::time::Duration::from_millis(2000));\nlet bytes = client.queue_status(..)?.bytes as f64;\nbusy.wait();\n"
                f"let start = std::time::Instant::now();\nassert_eq!(queued.get()?.len(), {count});\nlet rate = {count} as f64 / start.elapsed().as_secs_f64();")

    kernel = Path(f"/proc/{bench.kernel.pid}")

    def megabytes(name: str) -> float:
        found = re.search(rf"{name}:\s+(\d+) kB", (kernel / "status").read_text())
        if not found:
            raise Failed("the system doesn't tell the kernel's memory")
        return int(found[1]) / 1e3

    # The peak from now on: proc_pid_clear_refs(5).
    (kernel / "clear_refs").write_text("5")
    before = megabytes("VmRSS")
    few, many = (bench.numbers(f"{waited(count)}\nrate") for count in (10_000, 100_000))
    told = bench.numbers(f"{waited(100_000)}\nbytes / 1e6", 1)
    return [figure("100 000 queued tasks, once the engines are free", many, "/s"),
            figure("  times as fast as 10 000", [statistics.median(many) / statistics.median(few)], "", 0.8, more=True),
            figure("  what queue_status says of them", told, "MB"),
            figure("  what the kernel takes more at the peak", [megabytes("VmHWM") - before], "MB", 500)]


def call(bench: Bench) -> list[Figure]:
    code = ("let view = client.direct_view(0);\nlet mut times: Vec<f64> = (0..1000).map(|n: u32| { let start = std::time::Instant::now(); view.apply_sync(|x: u32| x, n).unwrap(); start.elapsed().as_secs_f64() * 1e3 }).collect();\n"
            "times.sort_by(f64::total_cmp);\ntimes[500]")
    return [figure("apply_sync there and back, median of 1000", bench.numbers(code), "ms", 0.5)]


def many(bench: Bench) -> list[Figure]:
    kernel = bench.kernel
    kernel.run("fn small(x: u64) -> u64 { let mut y = x; for _ in 0..20 { y = y.wrapping_mul(6364136223846793005).rotate_left(7) ^ x; } y }\n"
               "let items: Vec<u64> = (0..1_000_000).collect();").expect_ok()
    times = 5
    serial = f"for _ in 0..{times} {{ std::hint::black_box(items.iter().map(|x| small(*x)).collect::<Vec<u64>>()); }}"
    mapped = f"for _ in 0..{times} {{ assert_eq!(client.load_balanced_view().map_sync(&items, small)?.len(), items.len()); }}"
    empty = "let nothing = ();"

    def measured(code: str) -> float:
        """Seconds of the processor for one of the `times`, without what every cell takes."""
        kernel.run(code, timeout=300).expect_ok()
        rounds = []
        for _ in range(bench.rounds):
            before = bench.cpu()
            kernel.run(code, timeout=300).expect_ok()
            rounds.append(bench.cpu() - before)
        return statistics.median(rounds)

    nothing = measured(empty)
    alone, engines_ = ((measured(code) - nothing) / times for code in (serial, mapped))
    wall = bench.numbers("let start = std::time::Instant::now();\nclient.load_balanced_view().map_sync(&items, small)?;\nstart.elapsed().as_secs_f64() * 1e3")
    return [figure("a map_sync over a million small items, processor time", [engines_ * 1e3], "ms", 1.5 * alone * 1e3 + 50),
            figure("the same loop in the cell, processor time", [alone * 1e3], "ms"),
            figure("the map_sync, wall time", wall, "ms")]


def bulk(bench: Bench) -> list[Figure]:
    bench.kernel.run("let bulk: Vec<f64> = (0..4_000_000).map(f64::from).collect();").expect_ok()
    code = ('let start = std::time::Instant::now();\nclient.all().push("bulk", &bulk).get()?;\n(2 * bulk.len() * 8) as f64 / start.elapsed().as_secs_f64() / 1e9')
    rates = bench.numbers(code)
    if engines.results(bench.kernel.run("%px bulk.iter().sum::<f64>()").expect_ok()) != {0: "7999998000000.0", 1: "7999998000000.0"}:
        raise Failed("the engines have something else than what was pushed")
    back = bench.numbers('let start = std::time::Instant::now();\nlet there: Vec<Vec<f64>> = client.all().pull("bulk").get()?;\n(there.len() * there[0].len() * 8) as f64 / start.elapsed().as_secs_f64() / 1e9')
    return [figure("32 MB pushed to 2 engines (64 MB arrive)", rates, "GB/s", 2, more=True), figure("the same, pulled", back, "GB/s")]


TEXT = ROOT.parent / "shared/data/27287-0.txt"


def words(bench: Bench) -> list[Figure]:
    for cell in (ROOT / "examples/wordcount.rs").read_text().split("// %%\n")[1:]:
        cell = cell.split("// %% [markdown]")[0].strip()
        if not cell.startswith("%timeit"):
            bench.kernel.run(cell, timeout=600).expect_ok()
        if "fn count_part" in cell:
            break
    bench.kernel.run("let long_text = text.repeat(100);\nlet shared_long_text = client.share(&long_text)?;").expect_ok()

    def gain(text: str, other: str, rounds: int) -> str:
        turns = [f"std::hint::black_box(count_words(&{text}));", f"std::hint::black_box({other});"]
        timed = "\n".join(f"let start = std::time::Instant::now();\n{turn}\ntimes[{n}].push(start.elapsed().as_secs_f64());" for n, turn in enumerate(turns))
        return (f"{{\nlet mut times = [vec![], vec![]];\nfor _ in 0..{rounds} {{\n{timed}\n}}\n"
                f"let [one, all] = times.map(|mut times| {{ times.sort_by(f64::total_cmp); times[{rounds // 2}] }});\none / all\n}}")

    def on_engines(text: str) -> str:
        return f"client.all().map_shared(&shared_{text}, &parts, count_part).counts()?"

    # What the machine has to give: on one with busy neighbours two cores at once may be little faster than one.
    threads = ("std::thread::scope(|scope| { let text = &text; let counting: Vec<_> = parts.iter().map(|part| scope.spawn(move || count_part(text, *part))).collect(); "
               "counting.into_iter().map(|thread| thread.join().unwrap()).reduce(chorus::merge::counts) })")
    return [figure("word count of 272 kB, times as fast on 2 engines", bench.numbers(gain("text", on_engines("text"), 101)), "", 1, more=True),
            figure("the same in 2 threads of the notebook", bench.numbers(gain("text", threads, 101)), ""),
            figure("word count of 27 MB, times as fast on 2 engines", bench.numbers(gain("long_text", on_engines("long_text"), 3), 3), "", 1.7, more=True)]


PEER = """
import ipyparallel, numpy, statistics, sys, time
rc = ipyparallel.Client(sys.argv[1]); view = rc[:]
bulk = numpy.arange(4_000_000, dtype=float)
rates = []
for _ in range(int(sys.argv[2]) + 1):
    start = time.perf_counter(); view.push({"bulk": bulk}, block=True); rates.append(2 * bulk.nbytes / (time.perf_counter() - start) / 1e9)
print(statistics.median(rates[1:]))
"""


def peer(bench: Bench) -> list[Figure]:
    """ipyparallel's push of the same, measured the same way."""
    import ipyparallel
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        os.environ["IPYTHONDIR"] = folder
        with ipyparallel.Cluster(n=2, log_level=40) as client:
            client.wait_for_engines(2, timeout=60)
            file = Path(folder, "profile_default/security").glob("ipcontroller-*-client.json")
            done = subprocess.run([sys.executable, "-c", PEER, str(next(file)), str(bench.rounds)], capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise Failed(done.stderr)
    return [figure("ipyparallel: 32 MB pushed to 2 engines (64 MB arrive)", [float(done.stdout)], "GB/s")]


ALL = {"tasks": tasks, "queue": queue, "call": call, "map": many, "bulk": bulk, "words": words}


PEERS = {"peer": ("measure ipyparallel's push as well", peer)}

if __name__ == "__main__":
    sys.exit(run(__doc__, EXAMPLES, ALL, opened, PEERS))
