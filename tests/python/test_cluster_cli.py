"""`chorus cluster` and `chorus profile` at a shell: clusters that start, grow, shrink and end, and mistakes that say what to do."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

import engines
from engines import role, still_there

PATIENCE = 120


@dataclass
class Shell:
    """Runs the program with a data folder of its own."""

    chorus: Path
    data: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"XDG_DATA_HOME": str(self.data)} | self.extra

    def call(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.chorus, *map(str, arguments)], env=self.environment, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)

    def good(self, *arguments: object) -> str:
        """What it prints; it must succeed, and have nothing to complain of."""
        done = self.call(*arguments)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    def bad(self, *arguments: object) -> str:
        """Why it fails: one line for people, and nothing else."""
        done = self.call(*arguments)
        assert done.returncode == 1, done.stdout
        assert re.fullmatch(r"chorus: [^\n]+\n", done.stderr), done.stderr
        assert done.stdout == ""
        return done.stderr

    def processes(self) -> list[psutil.Process]:
        return engines.processes(self.data)

    def of_role(self, wanted: str) -> list[psutil.Process]:
        return [process for process in self.processes() if role(process) == wanted]

    @property
    def profiles(self) -> Path:
        return self.data / "chorus" / "profiles"

    @property
    def security(self) -> Path:
        return self.profiles / "default" / "security"


@pytest.fixture
def shell(chorus: Path, tmp_path: Path, jupyter_home: Path) -> Iterator[Shell]:
    """Afterwards no process is left."""
    data = tmp_path / "data"
    data.mkdir()
    shell = Shell(chorus, data)
    yield shell
    for cluster in json_states(shell):
        shell.call("cluster", "stop", *cluster)
    assert engines.ended(data) == []


def json_states(shell: Shell) -> list[list[str]]:
    """The options of each cluster that has a file."""
    found = []
    for path in shell.profiles.glob("*/cluster*.json"):
        cluster_id = path.stem.removeprefix("cluster").removeprefix("-")
        found.append(["--profile", path.parent.name, *(["--cluster-id", cluster_id] if cluster_id else [])])
    return found


def ids(status: str) -> list[int]:
    """The engines in the table that `status` prints."""
    table = status.split("ENGINE", 1)[1] if "ENGINE" in status else ""
    return [int(number) for number in re.findall(r"(?m)^\s*(\d+)\s", table)]


def test_start_status_list_stop(shell: Shell) -> None:
    said = shell.good("cluster", "start", "-n", 2, "--daemonize")
    assert "2 engines" in said and "chorus cluster stop" in said
    assert str(shell.security / "ipcontroller-client.json") in said
    assert sorted(role(p) for p in shell.processes() if role(p) in ("controller", "engine", "compiler")) == ["compiler", "controller", "engine", "engine"]
    status = shell.good("cluster", "status")
    assert ids(status) == [0, 1]
    assert re.search(r"Compiler: runs", status), status
    listed = shell.good("cluster", "list")
    assert re.search(r"(?m)^\s*default\s+running\s+2\s+\d+", listed), listed
    there = shell.processes()
    shell.good("cluster", "stop")
    assert not still_there(there, 1), "gone when the command is"
    assert not list(shell.security.iterdir())
    assert "chorus cluster start" in shell.good("cluster", "list")


def test_engines_come_and_go(shell: Shell) -> None:
    shell.good("cluster", "start", "-n", 1, "--daemonize")
    assert re.search(r"engines (1, 2|2, 1)\b", shell.good("cluster", "engines", "add", 2))
    assert ids(shell.good("cluster", "status")) == [0, 1, 2]
    assert len(shell.of_role("engine")) == 3
    assert "engines 0, 2" in shell.good("cluster", "engines", "remove", 0, 2)
    assert ids(shell.good("cluster", "status")) == [1]
    assert len(shell.of_role("engine")) == 1
    said = shell.bad("cluster", "engines", "remove", 7)
    assert "engine 7" in said and "1" in said
    assert ids(shell.good("cluster", "status")) == [1]
    shell.good("cluster", "engines", "remove", 1)
    assert "chorus cluster engines add" in shell.good("cluster", "status"), "no engines: what to do"


def test_no_engines_at_first(shell: Shell) -> None:
    shell.good("cluster", "start", "-n", 0, "--daemonize")
    assert shell.of_role("engine") == []
    assert "chorus cluster engines add" in shell.good("cluster", "status")


def test_one_engine_a_core_by_default(shell: Shell) -> None:
    shell.good("cluster", "start", "--daemonize")
    assert len(ids(shell.good("cluster", "status"))) == len(os.sched_getaffinity(0))


def test_in_the_foreground_until_interrupted(shell: Shell) -> None:
    process = subprocess.Popen([shell.chorus, "cluster", "start", "-n", "1"], env=shell.environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline()]
        while "Ctrl-C" not in lines[-1]:
            assert lines[-1], process.stderr.read()
            lines.append(process.stdout.readline())
        assert ids(shell.good("cluster", "status")) == [0]
        there = shell.processes()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert not still_there(there, 1)
        assert not list(shell.security.iterdir())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_foreground_cluster_ends_with_its_shell(shell: Shell, number: signal.Signals) -> None:
    process = subprocess.Popen([shell.chorus, "cluster", "start", "-n", "2"], env=shell.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        while "Ctrl-C" not in process.stdout.readline():
            assert process.poll() is None
        there = shell.processes()
        assert len(there) > 4
        process.send_signal(number)
        assert not still_there(there, 10)
    finally:
        process.kill()
        process.communicate()
    shell.good("cluster", "start", "-n", 1, "--daemonize")


def test_a_daemon_outlives_who_started_it(shell: Shell) -> None:
    subprocess.run(["sh", "-c", f'"{shell.chorus}" cluster start -n 1 --daemonize; kill -KILL -$$'], env=shell.environment, start_new_session=True,
                   capture_output=True, timeout=PATIENCE)
    assert ids(shell.good("cluster", "status")) == [0]


def test_a_second_cluster_of_the_same_name(shell: Shell) -> None:
    shell.good("cluster", "start", "-n", 1, "--daemonize")
    before = (shell.security / "ipcontroller-client.json").read_bytes()
    said = shell.bad("cluster", "start", "-n", 1, "--daemonize")
    assert "running already" in said and "chorus cluster stop" in said and "--cluster-id" in said
    assert (shell.security / "ipcontroller-client.json").read_bytes() == before
    assert ids(shell.good("cluster", "status")) == [0], "the first one is unharmed"
    shell.good("cluster", "start", "-n", 2, "--daemonize", "--cluster-id", "nightly")
    assert (shell.security / "ipcontroller-nightly-engine.json").exists()
    assert ids(shell.good("cluster", "status", "--cluster-id", "nightly")) == [0, 1]
    listed = shell.good("cluster", "list")
    assert re.search(r"(?m)^\s*default\s+nightly\s+running\s+2", listed) and re.search(r"(?m)^\s*default\s+running\s+1", listed), listed
    shell.good("cluster", "stop", "--cluster-id", "nightly")
    assert ids(shell.good("cluster", "status")) == [0]


@pytest.mark.parametrize("arguments", ["cluster status", "cluster stop", "cluster engines remove 0", "cluster start --profile none", "profile show none", "profile create a/b"])
def test_errors_are_sentences(shell: Shell, arguments: str) -> None:
    assert re.match(r"chorus: failed to ", shell.bad(*arguments.split())), "not `chorus: find the cluster`"


def test_where_nothing_runs(shell: Shell) -> None:
    for arguments in (["status"], ["stop"], ["engines", "add"], ["engines", "remove", "0"], ["status", "--cluster-id", "nightly"]):
        said = shell.bad("cluster", *arguments)
        assert "not running" in said and "chorus cluster start" in said
    assert "--cluster-id nightly" in said, "a command that one can copy"
    assert shell.good("cluster", "clean").strip()


def test_what_a_dead_cluster_left(shell: Shell) -> None:
    shell.good("cluster", "start", "-n", 1, "--daemonize")
    victims = shell.processes()
    for process in victims:
        # One ends with another.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert not still_there(victims, 5)
    assert (shell.security / "ipcontroller-client.json").exists(), "stale"
    said = shell.bad("cluster", "status")
    assert "chorus cluster" in said
    assert re.search(r"dead.*chorus cluster clean", shell.good("cluster", "list"))
    removed = shell.good("cluster", "clean")
    assert "ipcontroller-client.json" in removed
    assert not list(shell.security.iterdir())
    assert "chorus cluster start" in shell.bad("cluster", "status")


def test_stale_files_are_no_obstacle_to_a_start(shell: Shell) -> None:
    shell.good("cluster", "start", "-n", 2, "--daemonize")
    [controller] = shell.of_role("controller")
    orphans = shell.of_role("engine")
    controller.kill()
    assert not still_there([controller], 5)
    shell.good("cluster", "start", "-n", 1, "--daemonize")
    assert not still_there(orphans, 5), "the engines of the dead one have ended"
    assert ids(shell.good("cluster", "status")) == [0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": "secret-of-mine"}'])
def test_a_broken_connection_file(shell: Shell, text: str) -> None:
    shell.security.mkdir(parents=True)
    for name in ("client", "engine"):
        (shell.security / f"ipcontroller-{name}.json").write_text(text)
    said = shell.bad("cluster", "status")
    assert "ipcontroller-client.json" in said and "chorus cluster clean" in said
    assert "secret-of-mine" not in said
    engine = shell.call("engine", "--file", shell.security / "ipcontroller-engine.json")
    assert engine.returncode != 0 and "ipcontroller-engine.json" in engine.stderr and "secret-of-mine" not in engine.stderr
    assert "ipcontroller-client.json" in shell.good("cluster", "clean")
    assert not (shell.security / "ipcontroller-client.json").exists()


def test_an_engine_without_a_file(shell: Shell, tmp_path: Path) -> None:
    done = shell.call("engine", "--file", tmp_path / "nowhere" / "ipcontroller-engine.json")
    assert done.returncode != 0
    assert "chorus cluster start" in done.stderr
    assert "panicked" not in done.stderr


def test_a_folder_that_cannot_be_written(shell: Shell) -> None:
    shell.profiles.parent.mkdir(parents=True)
    shell.profiles.write_text("a file where a folder should be")
    said = shell.bad("cluster", "start", "-n", 1, "--daemonize")
    assert str(shell.profiles) in said
    shell.profiles.unlink()


def test_a_missing_folder_is_made(shell: Shell) -> None:
    shutil.rmtree(shell.data)
    shell.good("cluster", "start", "-n", 1, "--daemonize")
    assert ids(shell.good("cluster", "status")) == [0]


def test_folders_deleted_under_a_running_cluster(shell: Shell) -> None:
    shell.good("cluster", "start", "-n", 1, "--daemonize")
    there = shell.processes()
    shutil.rmtree(shell.profiles)
    said = shell.bad("cluster", "status")
    assert "chorus cluster start" in said
    # Nobody can find it any more, so it must be ended by hand.
    for process in there:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    assert not still_there(there, 10)


def tcp(shell: Shell, name: str = "tcp", **network: object) -> Path:
    """A profile with other network settings; its folder."""
    shell.good("profile", "create", name)
    path = shell.profiles / name / "profile.toml"
    text = path.read_text()
    for key, value in {"transport": "tcp", **network}.items():
        written = json.dumps(value)
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {written}", text)
        assert count == 1
    path.write_text(text)
    return path.parent


def test_a_port_in_use(shell: Shell) -> None:
    folder = tcp(shell)
    shell.good("cluster", "start", "-n", 1, "--daemonize", "--profile", "tcp")
    kept = {path: path.read_text() for path in (folder / "security").iterdir()}
    shell.good("cluster", "stop", "--profile", "tcp")
    for path, text in kept.items():
        path.write_text(text)
    port = json.loads(kept[folder / "security" / "ipcontroller-client.json"])["mux"]
    with socket.create_server(("127.0.0.1", port)):
        done = shell.call("controller", "--profile-dir", folder, "--reuse")
    assert done.returncode != 0
    assert str(port) in done.stderr and "in use" in done.stderr
    assert "chorus cluster list" in done.stderr, "what to do"
    assert shell.processes() == []


def test_addresses_that_others_can_reach_are_refused(shell: Shell) -> None:
    tcp(shell, address="0.0.0.0")
    said = shell.bad("cluster", "start", "-n", 1, "--daemonize", "--profile", "tcp")
    assert "insecure" in said and "0.0.0.0" in said
    assert shell.processes() == []


def test_over_tcp(shell: Shell) -> None:
    tcp(shell)
    shell.good("cluster", "start", "-n", 2, "--daemonize", "--profile", "tcp")
    assert ids(shell.good("cluster", "status", "--profile", "tcp")) == [0, 1]
    listening = [c.laddr.ip for p in shell.of_role("controller") for c in p.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN]
    assert listening and set(listening) == {"127.0.0.1"}
    shell.good("cluster", "stop", "--profile", "tcp")


def test_files_and_folders_are_private(shell: Shell) -> None:
    os.umask(old := os.umask(0))
    try:
        os.umask(0)
        shell.good("cluster", "start", "-n", 1, "--daemonize")
    finally:
        os.umask(old)
    for path in shell.security.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for folder in (shell.security, shell.profiles / "default"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    file = json.loads((shell.security / "ipcontroller-client.json").read_text())
    sockets = Path(file["interface"].removeprefix("ipc://")).parent
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    shell.good("cluster", "stop")
    assert not sockets.exists()


def test_no_key_is_seen(shell: Shell) -> None:
    shell.extra = {"CHORUS_LOG": "trace"}
    said = shell.call("cluster", "start", "-n", 2, "--daemonize")
    assert said.returncode == 0
    keys = {json.loads(path.read_text())["key"] for path in shell.security.iterdir()}
    assert len(keys) == 1 and len(min(keys)) >= 32
    everything = said.stdout + said.stderr
    for arguments in (["status"], ["engines", "add"], ["list"]):
        done = shell.call("cluster", *arguments)
        everything += done.stdout + done.stderr
    processes = shell.processes()
    assert len(processes) > 5
    for process in processes:
        everything += engines.seen_by_others(process)
    done = shell.call("cluster", "stop")
    everything += done.stdout + done.stderr
    logs = [path.read_text(errors="replace") for path in (shell.profiles / "default" / "log").iterdir()]
    assert any(logs), "they log something"
    assert not any(key in text for key in keys for text in [everything, *logs])


def test_profiles(shell: Shell) -> None:
    assert "default" in shell.good("profile", "list")
    assert str(shell.profiles / "big") in shell.good("profile", "create", "big")
    shown = shell.good("profile", "show", "big")
    settings = tomllib.loads(shown)
    assert {"engines", "network", "heartbeat", "scheduler", "limits"} <= set(settings)
    assert {"transport", "address"} <= set(settings["network"])
    assert shown.count("#") >= 10, "it explains itself"
    assert shell.good("profile", "show") == shown, "the default one has the same"
    assert re.search(r"(?m)^\s*big\s+\S*profile\.toml", shell.good("profile", "list"))
    said = shell.bad("profile", "create", "big")
    assert "exists" in said
    assert "chorus profile create other" in shell.bad("profile", "show", "other")
    assert "chorus profile create other" in shell.bad("cluster", "start", "--profile", "other", "--daemonize")
    for name in ("../up", "", "a/b", ".hidden"):
        assert "letters" in shell.bad("profile", "create", name)


def test_a_profiles_settings_hold(shell: Shell) -> None:
    shell.good("profile", "create", "three")
    path = shell.profiles / "three" / "profile.toml"
    path.write_text(path.read_text().replace("count = 0", "count = 3"))
    shell.good("cluster", "start", "--daemonize", "--profile", "three")
    assert ids(shell.good("cluster", "status", "--profile", "three")) == [0, 1, 2]


@pytest.mark.parametrize("line, says", [("[engines]\ncount = 'many'", "count"), ("[engines]\nconut = 1", "conut"), ("[network]\ntransport = 'udp'", "udp"), ("nonsense", "profile.toml")])
def test_mistakes_in_a_profile_are_told(shell: Shell, line: str, says: str) -> None:
    shell.good("profile", "create", "wrong")
    (shell.profiles / "wrong" / "profile.toml").write_text(line)
    done = shell.call("cluster", "start", "--profile", "wrong", "--daemonize")
    assert done.returncode == 1
    assert says in done.stderr and "profile.toml" in done.stderr
    assert shell.processes() == []


@pytest.mark.parametrize("subcommand", ["cluster", "cluster start", "cluster stop", "cluster list", "cluster status", "cluster clean", "cluster engines", "cluster engines add", "cluster engines remove",
                                        "profile", "profile create", "profile list", "profile show", "controller", "engine", "compiler"])
def test_help_has_examples(shell: Shell, subcommand: str) -> None:
    said = shell.good(*subcommand.split(), "--help")
    assert re.search(r"(?im)^\s*examples?:", said)
    assert f"chorus {subcommand}" in said.split("xample", 1)[1]


@pytest.mark.parametrize("arguments", ["cluster start -n", "cluster start -n many", "cluster start --no-such", "cluster sidestep", "cluster engines remove", "profile create", "cluster engines add 0"])
def test_wrong_use_shows_the_usage(shell: Shell, arguments: str) -> None:
    done = shell.call(*arguments.split())
    assert done.returncode == 2
    assert "--help" in done.stderr or "Usage" in done.stderr
    assert shell.processes() == []
