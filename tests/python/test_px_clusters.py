"""Clusters of a notebook: the first `%px` starts one, `%cluster` rules it, one that runs is joined, the end leaves nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import engines
from chorus_client import Kernel
from engines import results, said, shown, still_there
from live import family


@pytest.fixture
def kernel(kernel_name: str, tmp_path: Path) -> Iterator[Kernel]:
    """A notebook without a cluster."""
    with engines.started(kernel_name, tmp_path, None) as kernel:
        yield kernel


def ids(kernel: Kernel, name: str = "pids") -> list[int]:
    """The engines' runtimes, by engine."""
    kernel.run(f"%px -o {name} std::process::id()").expect_ok()
    text = kernel.run(name).expect_ok().text
    return [int(pid) for pid in re.findall(r"\d+", text)]


def test_the_first_px_starts_one_engine_a_core_and_says_so(kernel: Kernel) -> None:
    cores = len(os.sched_getaffinity(0))
    result = kernel.run("%px 6 * 7").expect_ok()
    assert results(result) == {engine: "42" for engine in range(cores)}
    assert shown(result)[0].startswith("No cluster is running: starting one on this machine, with one engine a core.\n")
    assert re.search(rf'Cluster ".*" is up, {cores} engines?: 0.*`%cluster stop` ends it', shown(result)[0]), shown(result)[0]
    again = kernel.run("%px 1").expect_ok()
    assert results(again) == {engine: "1" for engine in range(cores)}
    assert len(shown(again)) == cores, "it says so once"


def test_the_cluster_ends_with_its_notebook(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run("%cluster start -n 2").expect_ok()
    kernel.run("%px 1").expect_ok()
    there = engines.processes(tmp_path / "data")
    assert sorted(engines.role(process) for process in there if engines.role(process) in ("controller", "engine")) == ["engine", "engine"], "the controller is in the kernel"
    kernel.close()
    assert not still_there(there, 5)
    left = [path.name for path in (tmp_path / "data").rglob("*.json")]
    assert left == [], "no stale connection file"


def test_the_cluster_ends_with_a_notebook_that_is_killed(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run("%px 1").expect_ok()
    there = engines.processes(tmp_path / "data")
    assert len(there) > 4
    family(kernel.pid)[0].kill()
    assert not still_there(there, 10)


def test_after_a_killed_notebook_the_next_one_starts(kernel: Kernel, kernel_name: str, tmp_path: Path) -> None:
    kernel.run("%cluster start -n 1").expect_ok()
    there = engines.processes(tmp_path / "data")
    [file] = (tmp_path / "data").rglob("ipcontroller-*-client.json")
    sockets = Path(json.loads(file.read_text())["interface"].removeprefix("ipc://")).parent
    assert sockets.is_dir()
    family(kernel.pid)[0].kill()
    assert not still_there(there, 10)
    again = Kernel.start(kernel_name, tmp_path / "again", env={"XDG_DATA_HOME": str(tmp_path / "data")})
    try:
        again.run("%cluster start -n 1").expect_ok()
        assert results(again.run("%px 5").expect_ok()) == {0: "5"}
        assert not sockets.exists(), "what the killed one left is gone"
        again.close()
        assert not list((tmp_path / "data").rglob("*.json"))
    finally:
        again.kill()


def test_the_end_of_its_cluster_is_not_the_notebooks(kernel: Kernel, chorus: Path, tmp_path: Path) -> None:
    kernel.run("let kept = 41;").expect_ok()
    kernel.run("%cluster start -n 1").expect_ok()
    [engine] = [process for process in engines.processes(tmp_path / "data") if engines.role(process) == "engine"]

    def cluster(*arguments: str) -> str:
        return subprocess.run([chorus, "cluster", *arguments], env=os.environ | {"XDG_DATA_HOME": str(tmp_path / "data")}, check=True,
                              capture_output=True, text=True).stdout

    assert re.search(rf"notebook-1 .* {kernel.pid}\n", cluster("list")), cluster("list")
    cluster("stop", "--cluster-id", "notebook-1")
    assert not still_there([engine], 1) and "notebook-1" not in cluster("list")
    assert kernel.run("kept + 1").expect_ok().text == "42"
    kernel.run("%cluster start -n 1").expect_ok()
    assert results(kernel.run("%px 5").expect_ok()) == {0: "5"}


def test_two_notebooks_at_a_time(kernel: Kernel, kernel_name: str, tmp_path: Path) -> None:
    other = Kernel.start(kernel_name, tmp_path / "other", env={"XDG_DATA_HOME": str(tmp_path / "data")})
    try:
        kernel.run("%cluster start -n 1").expect_ok()
        kernel.run("%px let mine = 1;").expect_ok()
        first = other.run("%px 1 + 1").expect_ok()
        assert set(results(first).values()) == {"2"}, "it has engines too, its own or those"
        other.close()
        assert results(kernel.run("%px mine").expect_ok()) == {0: "1"}, "the end of one takes nothing from the other"
    finally:
        other.kill()


@pytest.mark.alone
def test_cluster_start_scale_restart_status_stop(kernel: Kernel) -> None:
    assert "no cluster" in kernel.run("%cluster").expect_ok().stdout
    for code in ("%cluster stop", "%cluster scale 2", "%cluster restart"):
        result = kernel.run(code)
        assert result.error["ename"] == "no engines"
        assert result.seconds < engines.SOON
        assert "%cluster start" in said(result)
    assert "is up, 1 engine: 0." in kernel.run("%cluster start -n 1").expect_ok().stdout
    assert "already" in said(kernel.run("%cluster start"))
    kernel.run("%px let old = 1;").expect_ok()
    assert "3 engines: 0-2" in kernel.run("%cluster scale 3").expect_ok().stdout
    assert results(kernel.run("%px 1").expect_ok()) == {0: "1", 1: "1", 2: "1"}
    assert results(kernel.run("%px -t 0 old").expect_ok()) == {0: "1"}, "what was there stays"
    assert "3 engines: 0-2" in kernel.run("%cluster status").expect_ok().stdout
    assert "2 engines" in kernel.run("%cluster scale 2").expect_ok().stdout
    assert len(results(kernel.run("%px 1").expect_ok())) == 2
    before = ids(kernel)
    assert "2 engines" in kernel.run("%cluster restart").expect_ok().stdout
    assert not set(before) & set(ids(kernel, "pids_again"))
    assert kernel.run("%px -t 0 old").status == "error", "variables are gone"
    assert "stopped" in kernel.run("%cluster stop").expect_ok().stdout
    assert "no cluster" in kernel.run("%cluster status").expect_ok().stdout
    assert shown(kernel.run("%px 2").expect_ok())[0].startswith("No cluster is running"), "and the next %px starts one again"


def test_engines_know_their_number(kernel: Kernel) -> None:
    kernel.run("%cluster start -n 2").expect_ok()
    assert results(kernel.run('%px std::env::var("CHORUS_ENGINE_ID")?.parse::<u32>()?').expect_ok()) == {0: "0", 1: "1"}


def test_a_cluster_that_runs_is_joined_and_left_running(kernel: Kernel, chorus: Path, tmp_path: Path) -> None:
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path / "data")}

    def call(*arguments: str) -> str:
        done = subprocess.run([chorus, *arguments], env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("cluster", "start", "-n", "3", "--daemonize")
    try:
        result = kernel.run("%px let shared = 3; shared").expect_ok()
        assert results(result) == {0: "3", 1: "3", 2: "3"}
        assert not shown(result)[0].startswith("No cluster"), "it was there"
        kernel.close()
        status = call("cluster", "status")
        assert all(re.search(rf"(?m)^\s*{engine}\s", status) for engine in range(3)), status
    finally:
        call("cluster", "stop")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others compile meanwhile is elsewhere. Ask for it before `kernel`."""
    monkeypatch.setenv("CHORUS_CACHE_DIR", str(tmp_path / "cache"))


def cached() -> set[Path]:
    """Compiled snippets on disk."""
    return set((Path(os.environ["CHORUS_CACHE_DIR"]) / "snippets").rglob("*.so"))


def test_a_second_run_compiles_nothing(own_cache: None, kernel: Kernel) -> None:
    cells = ["%px let runs_again: u64 = (1..=20).sum();", "%%px\nfn unlike_others(n: u64) -> u64 { n * 31 }\nunlike_others(runs_again)"]
    kernel.run("%cluster start -n 2").expect_ok()
    before = cached()
    first = [kernel.run(cell).expect_ok() for cell in cells]
    assert results(first[-1]) == {0: "6510", 1: "6510"}
    compiled = cached()
    assert len(compiled - before) == len(cells), "one a cell, not one an engine"
    kernel.run("%cluster restart").expect_ok()
    second = [kernel.run(cell).expect_ok() for cell in cells]
    assert results(second[-1]) == {0: "6510", 1: "6510"}
    assert cached() == compiled


def test_a_distinct_history_compiles_once(own_cache: None, kernel: Kernel) -> None:
    kernel.run("%cluster start -n 4").expect_ok()
    kernel.run("%px -t ::2 let parity_of_mine = 0u8;").expect_ok()
    # Of another type, or else the same machine code would do for both.
    kernel.run('%px -t 1::2 let parity_of_mine = "odd";').expect_ok()
    before = cached()
    assert results(kernel.run("%px (parity_of_mine, 977)").expect_ok()) == {0: "(0, 977)", 1: '("odd", 977)', 2: "(0, 977)", 3: '("odd", 977)'}
    assert len(cached() - before) == 2


def test_no_key_is_seen(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run("%cluster start -n 1").expect_ok()
    kernel.run("%px 1").expect_ok()
    keys = {match[1] for path in (tmp_path / "data").rglob("ipcontroller*.json") for match in re.finditer(r'"key": *"([^"]+)"', path.read_text())}
    assert keys
    for process in engines.processes(tmp_path / "data"):
        seen = engines.seen_by_others(process)
        assert not any(key in seen for key in keys), engines.role(process)
    texts = kernel.log() + "".join(path.read_text(errors="replace") for path in (tmp_path / "data").rglob("*.log"))
    assert not any(key in texts for key in keys)
