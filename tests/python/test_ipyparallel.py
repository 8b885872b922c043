"""A Python `ipyparallel.Client` drives a Chorus cluster by its connection file; a Python engine joins one.

CHORUS_CLUSTER names another program with the same subcommands, such as the example `cluster_process` of the crate `cluster`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import pytest

from engines import Flag

ipp = pytest.importorskip("ipyparallel")

PATIENCE = 120


@pytest.fixture(scope="module")
def program(request: pytest.FixtureRequest) -> Path:
    named = os.environ.get("CHORUS_CLUSTER")
    path = Path(named).resolve() if named else request.getfixturevalue("chorus")
    if not named:
        known = subprocess.run([path, "cluster", "--help"], capture_output=True, timeout=PATIENCE)
        if known.returncode != 0:
            pytest.skip("this program has no `cluster` yet")
    return path


def call(program: Path, *arguments: object) -> str:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cluster(program: Path, jupyter_home: Path) -> Iterator[Path]:
    """A cluster of two engines; its clients' connection file."""
    call(program, "cluster", "start", "-n", 2, "--daemonize")
    yield jupyter_home / "data" / "chorus" / "profiles" / "default" / "security" / "ipcontroller-client.json"
    call(program, "cluster", "stop")


@pytest.fixture
def client(cluster: Path) -> Iterator[ipp.Client]:
    with ipp.Client(connection_info=str(cluster), timeout=PATIENCE) as client:
        yield client


def executed(view: ipp.DirectView, code: str) -> ipp.AsyncResult:
    result = view.execute(code, silent=False)
    result.get(timeout=PATIENCE)
    result.wait_for_output(PATIENCE)
    return result


def test_files_are_private(cluster: Path) -> None:
    assert cluster.stat().st_mode & 0o777 == 0o600
    assert cluster.parent.stat().st_mode & 0o777 == 0o700


def test_output_and_results(client: ipp.Client) -> None:
    assert client.ids == [0, 1]
    assert executed(client[:], 'println!("hi from rust");').stdout == ["hi from rust\n"] * 2
    results = executed(client[:], "6 * 7")
    assert [reply.execute_result["data"]["text/plain"] for reply in results.get()] == ["42", "42"]
    assert results.engine_id == [0, 1]


def test_a_panic_is_a_remote_error(client: ipp.Client) -> None:
    with pytest.raises(ipp.RemoteError) as raised:
        client[0].execute('panic!("boom")').get(timeout=PATIENCE)
    assert (raised.value.ename, raised.value.evalue) == ("panic", "boom")
    assert raised.value.engine_info["engine_id"] == 0
    with pytest.raises(ipp.error.CompositeError) as both:
        client[:].execute('panic!("boom")').get(timeout=PATIENCE)
    assert len(both.value.elist) == 2


def test_a_compile_error_is_a_remote_error(client: ipp.Client) -> None:
    with pytest.raises(ipp.RemoteError) as raised:
        client[0].execute('let x: u8 = "text";').get(timeout=PATIENCE)
    assert raised.value.ename == "compile error"


def test_a_runtime_that_dies_leaves_its_engine(client: ipp.Client) -> None:
    with pytest.raises(ipp.RemoteError) as raised:
        client[0].execute("std::process::abort();").get(timeout=PATIENCE)
    assert raised.value.ename == "SIGABRT"
    assert executed(client[0], 'println!("still here");').stdout == "still here\n"
    assert client.ids == [0, 1]


def test_interrupt_abort_and_clear(client: ipp.Client) -> None:
    running = client[0].execute('loop { println!("on"); std::thread::sleep(std::time::Duration::from_millis(10)); }')
    waiting = client[0].execute('println!("never");')
    deadline = time.monotonic() + PATIENCE
    while not running.stdout and time.monotonic() < deadline:
        running.wait(0.05)
    client.abort(waiting, targets=0, block=True)
    client.send_signal("SIGINT", targets=0, block=True)
    with pytest.raises(ipp.RemoteError) as raised:
        running.get(timeout=PATIENCE)
    assert raised.value.ename == "interrupted"
    with pytest.raises(ipp.error.TaskAborted):
        waiting.get(timeout=PATIENCE)
    client.clear(targets=0, block=True)
    assert executed(client[0], 'println!("on");').stdout == "on\n"


def test_load_balanced_and_broadcast_views(client: ipp.Client) -> None:
    balanced = client.load_balanced_view()
    done = client.send_execute_request(balanced._socket, "40 + 2", silent=False).result(timeout=PATIENCE)
    assert done.metadata["status"] == "ok"
    with pytest.raises(ipp.RemoteError) as raised:
        balanced.apply(abs, -1).get(timeout=PATIENCE)
    assert raised.value.ename == "unsupported"
    everywhere = client.broadcast_view().execute('println!("all");', silent=False)
    everywhere.get(timeout=PATIENCE)
    everywhere.wait_for_output(PATIENCE)
    assert everywhere.stdout == ["all\n", "all\n"]


def test_the_hub_answers(client: ipp.Client, cluster: Path) -> None:
    result = executed(client[1], 'println!("kept");')
    status = client.queue_status()
    assert status["unassigned"] == 0
    assert {key: status[1][key] for key in ("queue", "tasks")} == {"queue": 0, "tasks": 0}
    assert status[1]["completed"] >= 1
    msg_id = result.msg_ids[0]
    assert client.hub_history()[-1] == msg_id
    records = client.db_query({"msg_id": msg_id}, keys=["stdout", "engine_uuid", "completed"])
    assert records[0]["stdout"] == "kept\n"
    with ipp.Client(connection_info=str(cluster), timeout=PATIENCE) as other:
        again = other.get_result(msg_id)
        again.get(timeout=PATIENCE)
        assert again.stdout == "kept\n"
        assert other.result_status(msg_id)["completed"] == [msg_id]
        resubmitted = other.resubmit(msg_id)
        resubmitted.get(timeout=PATIENCE)
        other.purge_hub_results(jobs=[msg_id])
        assert msg_id not in other.hub_history()
    with pytest.raises(ipp.RemoteError) as raised:
        client.result_status(["unknown"])
    assert raised.value.ename == "KeyError"


def test_a_python_engine_joins(client: ipp.Client, cluster: Path) -> None:
    file = cluster.with_name("ipcontroller-engine.json")
    engine = subprocess.Popen([sys.executable, "-m", "ipyparallel.engine", f"--file={file}"], stderr=subprocess.DEVNULL)
    try:
        client.wait_for_engines(3, timeout=PATIENCE, interactive=False)
        python = client.ids[-1]
        assert client[python].apply_sync(lambda: 6 * 7) == 42
        assert client.load_balanced_view(targets=[python]).map_sync(lambda x: x * x, range(5)) == [0, 1, 4, 9, 16]
        assert client.broadcast_view(targets=[python], is_coalescing=True).apply_sync(lambda: 3) == [3]
        client.shutdown(targets=[python], block=True)
    finally:
        engine.terminate()
        engine.wait(PATIENCE)


@pytest.mark.alone
def test_engines_come_and_go(program: Path, client: ipp.Client) -> None:
    call(program, "cluster", *(["add", "-n", "1"] if "CHORUS_CLUSTER" in os.environ else ["engines", "add", "1"]))
    client.wait_for_engines(3, timeout=PATIENCE, interactive=False)
    last = client.ids[-1]
    sleeping = client[last].execute("std::thread::sleep(std::time::Duration::from_secs(600));")
    client.shutdown(targets=[last], block=True)
    began = time.monotonic()
    with pytest.raises(ipp.RemoteError) as raised:
        sleeping.get(timeout=PATIENCE)
    assert raised.value.ename == "EngineError"
    assert time.monotonic() - began < 5
    while last in client.ids and time.monotonic() - began < 5:
        time.sleep(0.01)  # the news comes on another socket than the reply
    assert last not in client.ids


@pytest.fixture(scope="module")
def pythons(cluster: Path) -> Iterator[list[int]]:
    """Two Python engines for load-balanced tasks; their ids."""
    file = cluster.with_name("ipcontroller-engine.json")
    with ipp.Client(connection_info=str(cluster), timeout=PATIENCE) as client:
        before = set(client.ids)
        command = [sys.executable, "-m", "ipyparallel.engine", f"--file={file}"]
        engines = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
        try:
            client.wait_for_engines(len(before) + 2, timeout=PATIENCE, interactive=False)
            yield sorted(set(client.ids) - before)
        finally:
            for engine in engines:
                engine.terminate()
                engine.wait(PATIENCE)


@pytest.fixture
def balanced(client: ipp.Client, pythons: list[int]) -> ipp.LoadBalancedView:
    """A view of the Python engines. One task at a time is given to each, since the last ones were long."""
    view = client.load_balanced_view(targets=pythons)
    view.map_sync(time.sleep, [0.01] * 4, chunksize=1)
    return view


def fails() -> None:
    raise ValueError("on purpose")


def getpid() -> int:
    import os

    return os.getpid()


def counted(path: str, good_after: int) -> int:
    """Fails until it has run so often, which it counts in a file."""
    with open(path, "a+") as file:
        file.write("ran\n")
        file.seek(0)
        count = len(file.readlines())
    if count <= good_after:
        raise ValueError(f"run {count}")
    return count


def hold(path: str) -> None:
    """Runs until there is a file."""
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.01)


def occupy(view: ipp.LoadBalancedView, until: Flag) -> ipp.AsyncResult:
    """Tasks for both engines that run until the flag is raised. The engines have them when this returns."""
    tasks = view.map_async(hold, [str(until.path)] * 2, chunksize=1)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        status = view.client.queue_status(targets=view.targets)
        if all(status[engine]["tasks"] for engine in view.targets):
            return tasks
    raise TimeoutError("the engines did not get their tasks")


def error(result: ipp.AsyncResult) -> str:
    with pytest.raises(ipp.RemoteError) as raised:
        result.get(timeout=PATIENCE)
    return raised.value.ename


def test_many_small_tasks(client: ipp.Client, balanced: ipp.LoadBalancedView) -> None:
    assert balanced.map_sync(lambda x: x + 1, range(300), chunksize=1) == list(range(1, 301))
    status = client.queue_status()
    assert (status["unassigned"], status["task_bytes"]) == (0, 0)


def test_tasks_after_others(balanced: ipp.LoadBalancedView) -> None:
    first, second = balanced.apply(time.sleep, 0.3), balanced.apply(time.sleep, 0.1)
    with balanced.temp_flags(after=[first, second]):
        later = balanced.apply(time.time)
    assert later.get(timeout=PATIENCE) >= max(done.completed.timestamp() for done in (first, second))
    with balanced.temp_flags(after=ipp.Dependency([first, later], all=False)):
        assert balanced.apply(getpid).get(timeout=PATIENCE) > 0
    bad = balanced.apply(fails)
    with balanced.temp_flags(after=bad):
        impossible = balanced.apply(getpid)
    with balanced.temp_flags(after=ipp.Dependency(impossible, success=False, failure=True)):
        rescue = balanced.apply(getpid)
    with balanced.temp_flags(after="nobody's"):
        invalid = balanced.apply(getpid)
    assert error(bad) == "ValueError"
    assert error(impossible) == "ImpossibleDependency"
    assert rescue.get(timeout=PATIENCE) > 0
    assert error(invalid) == "InvalidDependency"


def test_tasks_follow_others(balanced: ipp.LoadBalancedView, client: ipp.Client) -> None:
    both = [client.load_balanced_view(targets=[engine]).apply(getpid) for engine in balanced.targets]
    pids = [one.get(timeout=PATIENCE) for one in both]
    assert pids[0] != pids[1]
    for one, pid in zip(both, pids):
        with balanced.temp_flags(follow=one):
            assert balanced.map_sync(lambda _: getpid(), range(5), chunksize=1) == [pid] * 5
    with balanced.temp_flags(follow=both):
        scattered = balanced.apply(getpid)
    assert error(scattered) == "ImpossibleDependency"


def test_failed_tasks_are_retried_so_often(balanced: ipp.LoadBalancedView, tmp_path: Path) -> None:
    for retries, name in [(2, "enough"), (1, "too few")]:
        path = tmp_path / name
        with balanced.temp_flags(retries=retries):
            task = balanced.apply(counted, str(path), 2)
        if name == "enough":
            assert task.get(timeout=PATIENCE) == 3
        else:
            assert error(task) == "ValueError"
        assert len(path.read_text().splitlines()) == retries + 1


def test_engines_may_refuse_tasks(balanced: ipp.LoadBalancedView) -> None:
    pid = balanced.apply(getpid).get(timeout=PATIENCE)

    @ipp.depend(lambda wanted: __import__("os").getpid() == wanted, pid)
    def picky() -> int:
        return getpid()

    assert [task.get(timeout=PATIENCE) for task in [balanced.apply(picky) for _ in range(5)]] == [pid] * 5

    @ipp.require("a_module_that_nobody_has")
    def lost() -> None:
        pass

    assert error(balanced.apply(lost)) == "ImpossibleDependency"


@pytest.mark.alone
def test_waiting_tasks_time_out(balanced: ipp.LoadBalancedView, flag: Flag) -> None:
    busy = occupy(balanced, flag)
    began = time.monotonic()
    with balanced.temp_flags(timeout=0.3):
        waits = balanced.apply(getpid)
    assert error(waits) == "TaskTimeout"
    assert 0.25 < time.monotonic() - began < 1.4
    assert not busy.ready()
    flag.raise_()
    busy.get(timeout=PATIENCE)


def test_waiting_tasks_are_aborted(balanced: ipp.LoadBalancedView, client: ipp.Client, flag: Flag, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    busy = occupy(balanced, flag)
    one, two, three = (balanced.apply(counted, str(path), 0) for _ in range(3))
    two.abort()
    with pytest.raises(ipp.error.TaskAborted):
        two.get(timeout=PATIENCE)
    client.abort([one], targets=balanced.targets, block=True)
    with pytest.raises(ipp.error.TaskAborted):
        one.get(timeout=PATIENCE)
    assert not busy.ready()
    flag.raise_()
    assert three.get(timeout=PATIENCE) == 1
    assert len(path.read_text().splitlines()) == 1


def test_a_killed_engines_task_runs_elsewhere(balanced: ipp.LoadBalancedView, client: ipp.Client, cluster: Path, flag: Flag, tmp_path: Path) -> None:
    before = set(client.ids)
    file = cluster.with_name("ipcontroller-engine.json")
    engine = subprocess.Popen([sys.executable, "-m", "ipyparallel.engine", f"--file={file}"], stderr=subprocess.DEVNULL)
    try:
        client.wait_for_engines(len(before) + 1, timeout=PATIENCE, interactive=False)
        mortal = (set(client.ids) - before).pop()
        path = tmp_path / "pids"

        def dies_there(path: str, victim: int) -> int:
            with open(path, "a") as file:
                file.write(f"{getpid()}\n")
            time.sleep(600 if getpid() == victim else 0)
            return getpid()

        pid = client[mortal].apply_sync(getpid)
        view = client.load_balanced_view(targets=[mortal, *balanced.targets])
        alone = client.load_balanced_view(targets=[mortal])
        occupied = occupy(balanced, flag)
        with view.temp_flags(retries=1):
            task = view.apply(dies_there, str(path), pid)
        hopeless = alone.apply(getpid)
        deadline = time.monotonic() + PATIENCE
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        engine.kill()
        flag.raise_()
        assert task.get(timeout=PATIENCE) != pid
        assert path.read_text().split()[0] == str(pid)
        assert len(path.read_text().split()) == 2
        assert error(hopeless) in ("ImpossibleDependency", "EngineError")
        occupied.get(timeout=PATIENCE)
    finally:
        engine.kill()
        engine.wait(PATIENCE)
