"""`chorus compiler` spoken to as engines do: signed messages over a Unix socket. And a cluster whose second run compiles nothing.

What was compiled is counted by the service's own log, a line for each snippet.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import zmq
from jupyter_client.session import Session

from engines import until
from live import plain
from workers import WARM, stop_workers, workers_log

PATIENCE = 120
KEY = "a key of this test"
ROOT = "root"


class Service:
    """A `chorus compiler` process and a socket to it."""

    def __init__(self, chorus: Path, folder: Path, cache: Path, **environment: str):
        folder.mkdir()
        ports = {name: 1 for name in ("registration", "control", "mux", "task", "iopub", "hb_ping", "hb_pong")}
        self.file = folder / "engine.json"
        self.file.write_text(json.dumps({
            **ports, "broadcast": [1], "compile": 7, "interface": f"ipc://{folder}/s", "key": KEY, "ssh": "",
            "curve_serverkey": None, "location": None, "pack": "json", "unpack": "json", "signature_scheme": "hmac-sha256",
        }))
        self.log_path = folder / "log"
        self.process = subprocess.Popen(
            [chorus, "compiler", "--file", self.file, "--tied"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log_path.open("w"), text=True,
            env={**os.environ, "CHORUS_CACHE_DIR": str(cache), "CHORUS_LOG": "info", **environment})
        assert "ready" in json.loads(self.process.stdout.readline())
        self.session = Session(key=KEY.encode())
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.connect(f"ipc://{folder}/s:7")

    def ask(self, type: str, content: Any) -> dict[str, Any]:
        self.session.send(self.socket, type, content)
        assert self.socket.poll(PATIENCE * 1000), f"no answer; {self.log}"
        _, reply = self.session.recv(self.socket)
        return reply["content"]

    def compile(self, source: str, lineage: str = ROOT) -> dict[str, Any]:
        reply = self.ask("compile_request", {"lineage": lineage, "source": source})
        assert reply["status"] == "ok", plain(reply["diagnostics"][0]["rendered"])
        return reply["artifact"]

    def lineage(self, *sources: str, after: str = ROOT) -> str:
        """The lineage after these snippets, each run to its end."""
        for source in sources:
            after = self.compile(source, after)["lineage"]
        return after

    def errors(self, source: str, lineage: str = ROOT) -> list[dict[str, Any]]:
        reply = self.ask("compile_request", {"lineage": lineage, "source": source})
        assert reply["status"] == "error", reply
        return reply["diagnostics"]

    def error(self, source: str, lineage: str = ROOT) -> str:
        return plain("\n".join(error["rendered"] for error in self.errors(source, lineage)))

    def aftermath(self, source: str, lineage: str = ROOT, location: tuple[str, int] | None = None) -> dict[str, Any]:
        ended = {"request": {"lineage": lineage, "source": source}, "location": location}
        reply = self.ask("aftermath_request", ended)
        assert reply["status"] == "ok", reply
        return reply["aftermath"]

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def compiles(self) -> int:
        return self.log.count("compiled a snippet")

    def close(self) -> None:
        self.socket.close(linger=0)
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def service(chorus: Path, jupyter_home: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Service]:
    service = Service(chorus, tmp_path_factory.mktemp("service") / "s", cache)
    yield service
    service.close()


@pytest.fixture
def start(chorus: Path, jupyter_home: Path, tmp_path: Path, cache: Path) -> Iterator[Callable[..., Service]]:
    """A function that starts another service on the module's cache."""
    services: list[Service] = []

    def start(cache: Path = cache, **environment: str) -> Service:
        services.append(Service(chorus, tmp_path / f"service-{len(services)}", cache, **environment))
        return services[-1]

    yield start
    for service in services:
        service.close()


def test_libraries_are_there(service: Service) -> None:
    libraries = service.ask("libraries_request", None)["libraries"]
    assert Path(libraries["support"]).name == "libchorus_support.so"
    assert [Path(path).exists() for path in [libraries["support"], *libraries["preload"]]] == [True, True]


def test_what_changes_nothing_keeps_the_lineage(service: Service) -> None:
    for source, is_expression in [("1 + 1", True), ('println!("a");', False), ("let _ = 1;", False), ("{ let a = 1; }", True), ("", False)]:
        made = service.compile(source)
        assert made["lineage"] == ROOT, source
        assert made["ends_in_expression"] == is_expression, source
        assert [Path(load).exists() for load in made["loads"]] == [True] * (source != ""), source
    one = service.lineage("let x = vec![1];")
    assert one != ROOT
    assert service.lineage("x.len()", after=one) == one
    assert service.lineage("let x = vec![2];", after=one) == one
    assert service.lineage("drop(x);", after=one) == ROOT
    assert service.lineage("let mut x = vec![1];", after=one) != one


def test_equal_namespaces_have_equal_lineages(service: Service) -> None:
    both = service.lineage("let a = 1;", "fn f() {}")
    assert service.lineage("fn f() {}", "let a = 2;") == both
    assert service.lineage("\n\nlet a = 1;\n", "\nfn f() {}\n\n") == both


def test_items_have_nothing_to_run(service: Service) -> None:
    made = service.compile("struct P { x: i32 }\nimpl P { fn y(&self) -> i32 { self.x } }\nuse std::collections::*;")
    assert made["loads"] == []
    assert service.compile("HashMap::<i32, i32>::new().len() as i32 + P { x: 1 }.y()", made["lineage"])["lineage"] == made["lineage"]


def test_a_snippet_is_compiled_once(service: Service) -> None:
    first = service.compile("2 + 2")
    before = service.compiles
    times = []
    for _ in range(20):
        began = time.perf_counter()
        assert service.compile("2 + 2") == first
        times.append(time.perf_counter() - began)
    assert service.compile("\n\n2 + 2\n") == first
    assert service.compiles == before
    print(f"cached: {sorted(times)[10] * 1000:.2f} ms there and back")


def test_a_snippet_that_ends_early(service: Service) -> None:
    base = service.lineage("let kept = 1; let moved = vec![1];")
    source = "let new = 1; drop(moved); panic!();"
    after = service.aftermath(source, base)["lineage"]
    assert after == service.lineage("drop(moved);", after=base)
    shown = service.compile(":vars", after)["shown"]["text/plain"]
    assert shown == "kept: i32"
    assert service.aftermath("panic!()", base) == {"lineage": base, "place": None}
    # The early end of `?` is the same branch.
    asked = service.aftermath('let n: i32 = "x".parse()?; drop(moved);', base)["lineage"]
    assert service.compile(":vars", asked)["shown"]["text/plain"] == "kept: i32"


def test_errors_point_into_the_snippet(service: Service) -> None:
    error = service.errors("\n\nlet x = 1;\n  let y: u8 = \"a\";")
    assert (error[0]["code"], error[0]["message"]) == ("E0308", "mismatched types")
    rendered = plain(error[0]["rendered"])
    assert "--> snippet:4:15" in rendered and '4 |   let y: u8 = "a";' in rendered, rendered
    # An error in what an earlier snippet defined shows that.
    base = service.lineage("\n\nfn takes(n: i32) {}")
    assert "earlier snippet:1:4" in service.error('takes("a")', base)
    # Nothing has changed, and engines that ask for the same one after another don't make it compile again.
    before = service.compiles
    assert service.errors("\n\nlet x = 1;\n  let y: u8 = \"a\";") == error
    assert service.compiles == before


def test_redefining_a_type_gives_up_its_variables(service: Service) -> None:
    base = service.lineage("struct P(i32);", "let p = P(1); let n = 1;")
    made = service.compile("struct P(i64);", base)
    assert made["lost"] == ["p"]
    assert service.compile(":vars", made["lineage"])["shown"]["text/plain"] == "n: i32"
    assert service.lineage("struct P(i32);", after=made["lineage"]) == service.lineage("struct P(i32);", "let n = 1;")


def test_commands(service: Service) -> None:
    made = service.compile(":opt 0\n:vars")
    assert made["loads"] == [] and made["lineage"] != ROOT
    assert made["shown"]["text/plain"] == "Optimization: 0\nThere are no variables."
    assert service.lineage(":opt 2", after=made["lineage"]) == ROOT
    assert service.lineage(":opt 0", after=made["lineage"]) == made["lineage"]
    # Commands, then code.
    mixed = service.compile(":fmt {:#?}\nlet z = 1;\nz")
    assert len(mixed["loads"]) == 1 and mixed["ends_in_expression"]
    assert service.compile(":t z", mixed["lineage"])["shown"]["text/plain"] == "z: i32"
    error = service.error("\n:efmt nonsense\n1")
    assert "snippet:2:1" in error and "Available options" in error, error
    for source, says in [(":quit", "%cluster stop"), ("!ls", "std::process::Command"), (":none", ":help"), (":t none", "none")]:
        assert says in service.error(source), source


def test_clear(service: Service) -> None:
    base = service.lineage(":opt 0\nlet a = 1;")
    made = service.compile(":clear", base)
    assert made["lineage"] == ROOT and len(made["loads"]) == 1
    assert service.compile(":clear") == {**made, "loads": []}
    assert "begin anew with `%px :clear`" in service.error("1", "0" * 64)
    assert service.compile(":clear", "0" * 64)["lineage"] == ROOT


def test_a_dependency_is_part_of_the_lineage(service: Service, tmp_path: Path) -> None:
    crate = tmp_path / "own"
    (crate / "src").mkdir(parents=True)
    (crate / "Cargo.toml").write_text('[package]\nname = "own"\nversion = "1.0.0"\nedition = "2021"\n')
    (crate / "src" / "lib.rs").write_text("pub fn answer() -> i32 { 42 }")
    command = f':dep own = {{ path = "{crate}" }}'
    made = service.compile(command)
    assert made["loads"] == [] and made["lineage"] != ROOT
    assert service.compile(f"{command}\nown::answer()")["lineage"] == made["lineage"]
    assert "own = { path" in service.compile(":show_deps", made["lineage"])["shown"]["text/plain"]
    assert service.error("own::question()", made["lineage"])
    # Who changes it says `:dep` again.
    (crate / "src" / "lib.rs").write_text("pub fn answer() -> i32 { 42 }\npub fn question() {}")
    changed = service.lineage(command, after=made["lineage"])
    assert changed != made["lineage"]
    assert service.lineage(command) == changed
    assert service.lineage("own::question();", after=changed) == changed
    assert "snippet:1:1" in service.error(":dep own = { path = \"/none\" }")


def test_a_new_process_compiles_nothing_again(chorus: Path, service: Service, start: Callable[..., Service]) -> None:
    sources = ["let v = vec![1, 2, 3];", "fn sum(v: &[i32]) -> i32 { v.iter().sum() }", "sum(&v)", "drop(v); panic!()"]

    def notebook(service: Service) -> list[Any]:
        lineage, seen = ROOT, []
        for source in sources:
            seen.append(service.compile(source, lineage))
            # Each has a folder of its own for what it hands out.
            seen[-1]["loads"] = [Path(load).name for load in seen[-1]["loads"]]
            seen.append(service.aftermath(source, lineage))
            lineage = seen[-2]["lineage"]
        return seen

    first = notebook(service)
    other = start()
    began = time.perf_counter()
    assert notebook(other) == first
    print(f"a notebook of {len(sources)} snippets, from a new process: {(time.perf_counter() - began) * 1000:.0f} ms")
    assert other.compiles == 0
    # A state that no worker has been in is made again.
    stop_workers(chorus)
    lineage = first[2]["lineage"]
    assert other.compile("sum(&v) + 1", lineage)["lineage"] == lineage
    assert "a state is compiled again" in workers_log() and other.compiles == 1
    # The state after a panic as well.
    after = other.aftermath("drop(v); panic!()", lineage)["lineage"]
    assert other.compile("fn more() {}", after)["lineage"] != after


def test_a_request_does_not_wait_for_the_warm_up(start: Callable[..., Service], tmp_path: Path) -> None:
    service = start(tmp_path / "fresh")
    warm = workers_log().count(WARM)
    service.compile("1 + 1")
    assert workers_log().count(WARM) == warm
    # And it is no reason to leave that.
    until(lambda: workers_log().count(WARM) > warm, within=PATIENCE, otherwise=workers_log)
    began = time.perf_counter()
    service.compile("let x = 1;")
    print(f"a fresh snippet, warm: {(time.perf_counter() - began) * 1000:.0f} ms")


def test_two_processes_share_a_cache(start: Callable[..., Service], tmp_path: Path) -> None:
    pair = [start(tmp_path / "shared"), start(tmp_path / "shared")]
    made: dict[int, list[Any]] = {}

    def work(index: int) -> None:
        made[index] = [pair[index].compile(f"let x = {n};") for n in range(5)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * PATIENCE)
    assert [one["lineage"] for one in made[0]] == [one["lineage"] for one in made[1]]
    assert all(Path(load).exists() for index in made for one in made[index] for load in one["loads"])


def test_artifacts_have_the_name_of_their_bytes(service: Service) -> None:
    import hashlib

    path = Path(service.compile("3 + 3")["loads"][0])
    assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()


def test_nothing_is_left_when_it_ends(chorus: Path, jupyter_home: Path, tmp_path: Path, cache: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    service = Service(chorus, tmp_path / "s", cache, TMPDIR=str(temporary))
    service.compile("5 + 5")
    service.close()
    assert service.process.returncode == 0
    assert len(list(temporary.iterdir())) == 1, "its worker's"
    stop_workers(chorus)
    assert list(temporary.iterdir()) == []


class Cluster:
    """A cluster of one engine, driven by ipyparallel."""

    def __init__(self, chorus: Path, home: Path):
        self.chorus, self.home = chorus, home
        self.call("start", "-n", "1", "--daemonize")
        ipp = pytest.importorskip("ipyparallel")
        self.client = ipp.Client(connection_info=str(self.profile / "security" / "ipcontroller-client.json"), timeout=PATIENCE)

    @property
    def profile(self) -> Path:
        return self.home / "data" / "chorus" / "profiles" / "default"

    def call(self, *arguments: str) -> None:
        subprocess.run([self.chorus, "cluster", *arguments], check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, capture_output=True)

    def run(self, code: str) -> str:
        """What it shows: output, result or error."""
        ipp = pytest.importorskip("ipyparallel")
        result = self.client[0].execute(code, silent=False)
        try:
            result.get(timeout=PATIENCE)
        except ipp.RemoteError as error:
            return plain(f"{error.ename}: {error.evalue}\n{error.traceback}")
        result.wait_for_output(PATIENCE)
        shown = result.metadata["execute_result"]
        return plain(result.stdout + (shown["data"].get("text/plain", "") if shown else ""))

    def compiles(self) -> int:
        logs = [path.read_text() for path in (self.profile / "log").iterdir() if "compiler" in path.name]
        return "".join(logs).count("compiled a snippet")

    def stop(self) -> None:
        self.client.close()
        self.call("stop")


NOTEBOOK = [
    ("let words = vec![\"a\".to_string(), \"b\".to_string()];", ""),
    ("fn third(words: &[String]) -> &str {\n    &words[2]\n}", ""),
    ("println!(\"{}\", words.len());\nwords.join(\"-\")", "2\n\"a-b\""),
    ("let new = 1;\n\nthird(&words);", "line 2"),
    ("words.len()", "2"),
    ("let n: i32 = words[0].parse()?;", "invalid digit"),
    ("drop(words);\npanic!(\"over\");", "line 2"),
    ("let words = 3;\nwords", "3"),
    (":clear", ""),
    ("struct Picture;\nimpl Picture { fn evcxr_display(&self) { println!(\"EVCXR_BEGIN_CONTENT text/plain\\npicture\\nEVCXR_END_CONTENT\"); } }\nPicture", "picture"),
]


def test_a_second_run_of_a_notebook_compiles_nothing(chorus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA", "CONFIG", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("CHORUS_LOG", "info")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    shown, counts = [], []
    for _ in range(2):
        cluster = Cluster(chorus, tmp_path)
        try:
            began = time.perf_counter()
            shown.append([cluster.run(code) for code, _ in NOTEBOOK])
            print(f"{len(NOTEBOOK)} snippets: {time.perf_counter() - began:.2f} s")
            # Its log is begun anew with each cluster.
            counts.append(cluster.compiles())
            assert "cannot find value `words`" in cluster.run("words")
        finally:
            cluster.stop()
    for (code, says), text in zip(NOTEBOOK, shown[0], strict=True):
        assert says in text and (says or text == ""), f"{code}: {text}"
    assert shown[1] == shown[0]
    print(f"compiles: {counts}")
    assert counts[0] >= 10
    assert counts[1] == 0
