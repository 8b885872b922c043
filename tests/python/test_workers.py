"""The user's compile service, as those who use it see it: shared, started on demand, gone by itself, and no loss when it is killed.

Each test has a runtime folder of its own, and so a service of its own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from chorus_client import Kernel
from engines import Flag, results, seen_by_others, started, until, write_crate
from live import Live, alive_after, family
from workers import stop_workers, workers_log

PATIENCE = 120


class Service:
    """The compile service of a runtime folder."""

    def __init__(self, chorus: Path, folder: Path):
        self.chorus, self.folder = chorus, folder
        self.environment = {"XDG_RUNTIME_DIR": str(folder)}

    def call(self, *arguments: str, **environment: str) -> str:
        done = subprocess.run([self.chorus, "compiler", *arguments], capture_output=True, text=True, timeout=PATIENCE,
                              env={**os.environ, **self.environment, **environment})
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def status(self) -> str:
        return self.call("status")

    @property
    def front(self) -> psutil.Process:
        return psutil.Process(int(re.search(r"in process (\d+)", self.status)[1]))

    @property
    def workers(self) -> list[psutil.Process]:
        return [psutil.Process(int(pid)) for pid in re.findall(r"^ *(\d+) +(?:idle|compiles|starts)", self.status, re.MULTILINE)]

    @property
    def builds(self) -> list[psutil.Process]:
        """Build scripts that run."""
        return [p for worker in self.workers for p in family(worker.pid) if "build-script" in seen_by_others(p).split("\0")[0]]


@pytest.fixture
def service(chorus: Path, jupyter_home: Path) -> Iterator[Service]:
    # The path of a Unix socket may have 107 bytes; pytest's own folders can be longer.
    with tempfile.TemporaryDirectory(prefix="ch") as folder:
        service = Service(chorus, Path(folder))
        yield service
        stop_workers(chorus, **service.environment)


@pytest.fixture
def start(service: Service, start_kernel: Callable[..., Kernel]) -> Callable[..., Live]:
    """A function that starts a kernel with this service."""
    return lambda **environment: Live(start_kernel(env={**service.environment, **environment}))


def fresh() -> str:
    """A number that no cell has had, so that a cell with it is compiled."""
    return str(time.time_ns())


def test_notebooks_share_a_worker(service: Service, start: Callable[..., Live]) -> None:
    assert "No compile service runs" in service.status
    kernels = [start(JPY_SESSION_NAME=f"{n}.ipynb") for n in range(3)]
    for kernel in kernels:
        assert kernel.run(f"let own = {fresh()}u64; own % 1").text == "0"
    assert len(service.workers) == 1
    assert "Clients: 3" in service.status
    # None of them has a compiler of its own, or starts what compiles.
    for kernel in kernels:
        assert all("rust-analyzer" not in p.name() and p.memory_info().rss < 100 << 20 for p in family(kernel.kernel.pid))


def test_a_cluster_shares_it_too(service: Service, kernel_name: str, tmp_path: Path) -> None:
    with started(kernel_name, tmp_path / "kernel", 2, env=service.environment) as kernel:
        kernel.run(f"{fresh()}u64 % 1").expect_ok()
        assert results(kernel.run(f"%px {fresh()}u64 % 1")) == {0: "0", 1: "0"}
        assert len(service.workers) == 1


def test_run_all_after_a_restart_starts_nothing(service: Service, start: Callable[..., Live]) -> None:
    cells = [f"let a = vec![{fresh()}u64];", "fn f(v: &[u64]) -> usize { v.len() }", "f(&a)", "let b = a.iter().map(|x| x % 1).sum::<u64>();", "b"]
    first = start()
    shown = [first.run(cell).text for cell in cells]
    first.kernel.close()
    stop_workers(service.chorus, **service.environment)
    second = start()
    assert [second.run(cell).text for cell in cells] == shown
    assert "No compile service runs" in service.status
    # What is new is compiled in the state that these cells led to.
    assert second.run(f"f(&a) as u64 + b + {fresh()}u64 % 1").text == "1"


def test_it_leaves_when_nobody_is_connected(service: Service, start: Callable[..., Live]) -> None:
    kernel = start(CHORUS_COMPILER_IDLE="1")
    kernel.run(fresh() + "u64")
    processes = [service.front, *service.workers]
    time.sleep(1.5)
    assert all(process.is_running() for process in processes), "its client is still there"
    kernel.kernel.close()
    assert not alive_after(processes, within=10)
    assert not list(service.folder.glob("chorus/*.sock"))


def test_a_stopped_service_is_started_again(service: Service, start: Callable[..., Live]) -> None:
    kernel = start()
    kernel.run(f"let kept = {fresh()}u64;")
    assert "has ended" in service.call("stop")
    assert "No compile service runs" in service.call("stop")
    assert kernel.run(f"kept % 1 + {fresh()}u64 % 1").text == "0"


@pytest.mark.parametrize("victim", ["worker", "service", "both"])
def test_a_kill_loses_nothing(service: Service, kernel_name: str, tmp_path: Path, flag: Flag, victim: str) -> None:
    """In the notebook and on engines; idle, and during a compile."""
    with started(kernel_name, tmp_path / "kernel", 2, env=service.environment) as kernel:
        live = Live(kernel)
        live.run(f"// {fresh()}\nlet kept = vec![1, 2, 3];\nstruct P {{ x: i32 }}\nlet p = P {{ x: 7 }};")
        live.run("%%px\nlet there = vec![4, 5];")

        def kill() -> None:
            victims = [*service.workers] if victim == "worker" else [service.front] if victim == "service" else [service.front, *service.workers]
            for process in victims:
                process.send_signal(signal.SIGKILL)

        kill()
        assert live.run(f"kept.len() as u64 + p.x as u64 + {fresh()}u64 % 1").text == "10"
        kill()
        assert results(kernel.run(f"%px there.len() as u64 + {fresh()}u64 % 1")) == {0: "2", 1: "2"}
        # A build script that waits for the flag keeps the compile going, a second time as well.
        slow = tmp_path / "slow-one"
        write_crate(slow, build=flag.wait())
        request = live.submit(f':dep slow-one = {{ path = "{slow}" }}\nslow_one::number()')
        until(lambda: bool(service.builds), within=60)
        kill()
        flag.raise_()
        assert request.done(PATIENCE).reply["status"] == "ok", request.reply
        assert live.run("kept.len() + p.x as usize").text == "10"


def test_a_killed_compiler_of_a_cluster_is_no_loss(service: Service, kernel_name: str, tmp_path: Path) -> None:
    with started(kernel_name, tmp_path / "kernel", 2, env=service.environment) as kernel:
        kernel.run("%%px\nlet there = vec![4, 5];").expect_ok()
        [compiler] = [p for p in family(kernel.pid) if "compiler" in seen_by_others(p).split("\0")]
        compiler.kill()
        began = time.monotonic()
        assert results(kernel.run(f"%px there.len() as u64 + {fresh()}u64 % 1")) == {0: "2", 1: "2"}
        assert time.monotonic() - began < 10
        assert results(kernel.run(f"%px there.len() as u64 + 1 + {fresh()}u64 % 1")) == {0: "3", 1: "3"}


def test_engines_of_an_ipcontroller_compile(service: Service, tmp_path: Path) -> None:
    """A connection file that names no compiler."""
    ipp = pytest.importorskip("ipyparallel")
    environment = {**os.environ, **service.environment}
    profile = tmp_path / "ipython"
    controller = subprocess.Popen(["ipcontroller", f"--profile-dir={profile}", "--ip=127.0.0.1", "--log-level=ERROR"], env={
        **environment, "PATH": f"{Path(os.sys.executable).parent}:{environment['PATH']}"})
    engine = None
    try:
        file = profile / "security" / "ipcontroller-engine.json"
        until(file.exists, within=60)
        engine = subprocess.Popen([service.chorus, "engine", "--file", file], env=environment)
        with ipp.Client(connection_info=str(profile / "security" / "ipcontroller-client.json"), timeout=PATIENCE) as client:
            client.wait_for_engines(1, timeout=PATIENCE)
            client[0].execute("let there = vec![1, 2, 3];", silent=False).get(timeout=PATIENCE)
            result = client[0].execute(f"there.len() as u64 + {fresh()}u64 % 1", silent=False).get(timeout=PATIENCE)
            assert result.execute_result["data"]["text/plain"] == "3"
            with pytest.raises(ipp.RemoteError) as raised:
                client[0].execute('let x: u8 = "text";').get(timeout=PATIENCE)
            assert raised.value.ename == "compile error"
        assert len(service.workers) == 1
    finally:
        for process in (engine, controller):
            if process is not None:
                process.terminate()
                process.wait(PATIENCE)


def test_a_long_build_keeps_nobody_else_waiting(service: Service, start: Callable[..., Live], tmp_path: Path, flag: Flag) -> None:
    slow = tmp_path / "slow-one"
    write_crate(slow, build=flag.wait())
    busy, other = start(), start()
    request = busy.submit(f':dep slow-one = {{ path = "{slow}" }}\nslow_one::number()')
    until(lambda: "compiles" in service.status, within=60)
    began = time.monotonic()
    assert other.run(f"{fresh()}u64 % 1", timeout=60).text == "0"
    print(f"a cell beside a long build: {time.monotonic() - began:.1f} s")
    assert len(service.workers) == 2
    flag.raise_()
    assert request.done(PATIENCE).reply["status"] == "ok"


@pytest.mark.parametrize("magic", ["", "%%px\n"])
def test_an_interrupted_build_is_gone_at_once(service: Service, kernel_name: str, tmp_path: Path, flag: Flag, magic: str) -> None:
    slow = tmp_path / "slow-one"
    write_crate(slow, build=flag.wait())
    with started(kernel_name, tmp_path / "kernel", 2, env=service.environment) as kernel:
        live = Live(kernel)
        live.run(f"{magic}1 + 1")
        request = live.submit(f'{magic}:dep slow-one = {{ path = "{slow}" }}\nslow_one::number()')
        until(lambda: bool(service.builds), within=60)
        builds = service.builds
        began = time.monotonic()
        live.interrupt()
        assert request.done().reply["status"] == "error"
        assert time.monotonic() - began < 1.5
        cell = live.run(f"{magic}{fresh()}u64 % 1", timeout=20)
        assert cell.reply["status"] == "ok"
        print(f"interrupt and next cell: {time.monotonic() - began:.1f} s")
        assert time.monotonic() - began < 10
        assert not alive_after(builds, within=5)
        live.settle()


def test_a_service_that_does_not_answer_is_told(service: Service, start: Callable[..., Live]) -> None:
    kernel = start()
    kernel.run(f"let kept = {fresh()}u64;")
    front = service.front
    front.suspend()
    try:
        cell = kernel.run(f"{fresh()}u64 % 1", timeout=60)
        assert cell.reply["ename"] == "no compiler"
        assert f"kill -9 {front.pid}" in cell.reply["evalue"]
    finally:
        front.resume()
    assert kernel.run(f"kept % 1 + {fresh()}u64 % 1", timeout=60).text == "0"


def test_namespaces_that_take_turns_are_quick(service: Service, kernel_name: str, tmp_path: Path) -> None:
    """A notebook with a dependency, and its engines without."""
    with started(kernel_name, tmp_path / "kernel", 2, env=service.environment) as kernel:
        live = Live(kernel)
        live.run(':dep itoa = "1"\nitoa::Buffer::new().format(1u8).len()', timeout=180)
        for _ in range(2):
            live.run(f"%px {fresh()}u64 % 1")
            live.run(f"{fresh()}u64 % 1")
        assert len(service.workers) == 2
        seconds = [live.run(f"{magic}{fresh()}u64 % 1").seconds for _ in range(3) for magic in ("", "%px ")]
        assert max(seconds) < 1.5, seconds


def test_a_long_build_of_an_engine_keeps_no_other_waiting(service: Service, kernel_name: str, tmp_path: Path, flag: Flag) -> None:
    slow = tmp_path / "slow-one"
    write_crate(slow, build=flag.wait())
    with started(kernel_name, tmp_path / "kernel", 2, env=service.environment) as kernel:
        kernel.run(f'%%px --targets 0 --noblock\n:dep slow-one = {{ path = "{slow}" }}\nslow_one::number()').expect_ok()
        until(lambda: bool(service.builds), within=60)
        assert results(kernel.run(f"%px --targets 1 {fresh()}u64 % 1", timeout=60)) == {1: "0"}
        flag.raise_()


def test_completions_start_no_second_worker(service: Service, start: Callable[..., Live], tmp_path: Path, flag: Flag) -> None:
    slow = tmp_path / "slow-one"
    write_crate(slow, build=flag.wait())
    busy, other = start(), start()
    other.run(f"let v = vec![{fresh()}u64];")
    request = busy.submit(f':dep slow-one = {{ path = "{slow}" }}\nslow_one::number()')
    until(lambda: bool(service.builds), within=60)
    # Nothing is known in time, but the words of the cell.
    reply = other.ask("complete_request", {"code": "let vector = 1; vec", "cursor_pos": 19}, timeout=60).reply
    assert "vector" in reply["matches"]
    time.sleep(4)
    assert len(service.workers) == 1
    flag.raise_()
    assert request.done(PATIENCE).reply["status"] == "ok"


def test_two_kernels_start_it_at_the_same_moment(service: Service, start: Callable[..., Live]) -> None:
    kernels = [start() for _ in range(3)]
    cells = [kernel.submit(f"{fresh()}u64 % 1") for kernel in kernels]
    assert [cell.done(PATIENCE).text for cell in cells] == ["0"] * 3
    assert service.status.count("runs in process") == 1


def test_a_stale_socket_is_no_obstacle(service: Service, start: Callable[..., Live]) -> None:
    kernel = start()
    kernel.run(fresh() + "u64")
    [socket] = service.folder.glob("chorus/*.sock")
    for process in (service.front, *service.workers):
        process.kill()
    assert socket.exists()
    other = start()
    assert other.run(f"{fresh()}u64 % 1").text == "0"


def test_without_a_folder_for_its_socket_a_session_has_its_own(service: Service, start_kernel: Callable[..., Kernel]) -> None:
    temporary = service.folder / "t"
    temporary.mkdir()
    # Neither folder can be the user's.
    (temporary / f"chorus-{os.geteuid()}").write_text("")
    kernel = start_kernel(env={"XDG_RUNTIME_DIR": str(temporary / "absent"), "TMPDIR": str(temporary)})
    live = Live(kernel)
    assert live.run(f"let kept = {fresh()}u64; kept % 1").text == "0"
    [socket] = temporary.rglob("compiler-*.sock")
    [log] = temporary.rglob("compiler-*.log")
    assert log.parent.stat().st_mode & 0o777 == 0o700
    assert "No compile service runs" in service.status
    fronts = [p for p in psutil.process_iter(["cmdline"]) if str(socket) in (p.info["cmdline"] or [])]
    assert len(fronts) == 1
    kernel.close()
    assert not alive_after(fronts, within=15)


def test_environments_have_workers_of_their_own(service: Service, start: Callable[..., Live]) -> None:
    for value in ("one", "two"):
        assert start(CHORUS_TEST_VALUE=value).run('env!("CHORUS_TEST_VALUE")').text == f'"{value}"'
    assert len(service.workers) == 2
    # A terminal's variables make no difference, but can be read.
    for value in ("3", "4"):
        assert start(CHORUS_TEST_VALUE="one", SHLVL=value).run('env!("SHLVL")').text == f'"{value}"'
    assert len(service.workers) == 2


def test_no_secret_of_the_environment_is_shown(service: Service, start: Callable[..., Live]) -> None:
    start(CHORUS_LOG="debug", A_TOKEN="s3cret-token").run(fresh() + "u64")
    assert "s3cret-token" not in service.status
    assert "s3cret-token" not in workers_log(service.folder)
    for process in (service.front, *service.workers):
        assert all("s3cret-token" not in argument for argument in process.cmdline())
