"""The program's other subcommands: help with examples, the version, the kernelspec, the demo; and JupyterLab's own view of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager


def call(chorus: Path, *arguments: object, timeout: float = 300, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([chorus, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, **options)


@pytest.mark.parametrize("subcommand", [[], ["kernel"], ["kernelspec"], ["kernelspec", "install"], ["kernelspec", "uninstall"], ["kernelspec", "show"], ["demo"], ["lab"]])
def test_help_has_examples(chorus: Path, subcommand: list[str]) -> None:
    done = call(chorus, *subcommand, "--help")
    assert done.returncode == 0
    assert re.search(r"(?im)^\s*examples?:", done.stdout), done.stdout
    assert f"chorus {' '.join(subcommand)}".strip() in done.stdout, "an example one can copy"
    assert done.stderr == ""


def test_hidden_subcommands_stay_hidden(chorus: Path) -> None:
    listed = re.search(r"(?is)commands:\n(.*?)\n\n", call(chorus, "--help").stdout)[1]
    names = re.findall(r"(?m)^\s{2}(\S+)", listed)
    assert {"kernel", "kernelspec", "demo", "lab"} <= set(names)
    assert "runtime" not in names


def test_version(chorus: Path) -> None:
    assert re.fullmatch(r"chorus \d+\.\d+\.\d+\S*\n", call(chorus, "--version").stdout)


@pytest.mark.parametrize("arguments", [["no-such-command"], ["kernel"], ["kernel", "-f"], ["kernelspec", "install", "--no-such-option"]])
def test_wrong_use_fails_and_shows_the_usage(chorus: Path, arguments: list[str]) -> None:
    done = call(chorus, *arguments)
    assert done.returncode == 2
    assert "--help" in done.stderr or "Usage" in done.stderr


def found(folder: Path) -> dict:
    """The kernelspecs that Jupyter itself finds below a prefix's share/jupyter."""
    return KernelSpecManager(kernel_dirs=[str(folder / "kernels")], ensure_native_kernel=False).get_all_specs()


@pytest.mark.parametrize("name", [None, "rust-chorus.2"])
def test_kernelspec_install_show_uninstall(chorus: Path, tmp_path: Path, name: str | None) -> None:
    where = ["--prefix", tmp_path] + (["--name", name] if name else [])
    assert call(chorus, "kernelspec", "install", *where).returncode == 0
    specs = found(tmp_path / "share/jupyter")
    spec = specs[name or "chorus"]["spec"]
    assert spec["display_name"] == "Rust (Chorus)"
    assert spec["language"] == "rust"
    assert spec["argv"][1:] == ["kernel", "-f", "{connection_file}"]
    assert Path(spec["argv"][0]).samefile(chorus)
    assert spec["interrupt_mode"] == "message"
    folder = Path(specs[name or "chorus"]["resource_dir"])
    assert {"logo-svg.svg", "logo-32x32.png", "logo-64x64.png"} <= {p.name for p in folder.iterdir()}
    assert (folder / "logo-64x64.png").read_bytes().startswith(b"\x89PNG")
    shown = call(chorus, "kernelspec", "show", *where)
    assert shown.returncode == 0 and "Rust (Chorus)" in shown.stdout
    assert call(chorus, "kernelspec", "install", *where).returncode == 0, "again is fine"
    assert call(chorus, "kernelspec", "uninstall", *where).returncode == 0
    assert found(tmp_path / "share/jupyter") == {}


def test_kernelspec_install_for_the_user(chorus: Path, tmp_path: Path) -> None:
    environment = os.environ | {"JUPYTER_DATA_DIR": str(tmp_path / "data")}
    assert call(chorus, "kernelspec", "install", "--user", env=environment).returncode == 0
    assert "chorus" in found(tmp_path / "data")
    assert call(chorus, "kernelspec", "uninstall", "--user", env=environment).returncode == 0
    assert found(tmp_path / "data") == {}


def test_kernelspec_install_into_a_python_environment(chorus: Path, tmp_path: Path) -> None:
    environment = os.environ | {"VIRTUAL_ENV": str(tmp_path)}
    assert call(chorus, "kernelspec", "install", "--sys-prefix", env=environment).returncode == 0
    assert "chorus" in found(tmp_path / "share/jupyter")


@pytest.mark.parametrize("arguments", [["install", "--name", "no/slashes"], ["install", "--name", ""], ["uninstall", "--name", "never-installed"]])
def test_kernelspec_mistakes_are_told(chorus: Path, tmp_path: Path, arguments: list[str]) -> None:
    done = call(chorus, "kernelspec", *arguments, "--prefix", tmp_path)
    assert done.returncode != 0
    assert done.stderr.strip()
    assert "panicked" not in done.stderr


def test_demo_counts_the_words_of_a_text(chorus: Path, jupyter_home: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The chorus sings; the CHORUS sings again.\n" * 50)
    done = call(chorus, "demo", timeout=180, env=os.environ | {"CHORUS_TEXT": str(text)})
    assert done.returncode == 0, done.stderr
    assert re.search(r"\b350 words, 4 of them different", done.stdout), done.stdout[-2000:]
    for word, count in (("the", 100), ("chorus", 100), ("sings", 100), ("again", 50)):
        assert re.search(rf"\b{word}\s+{count}\b", done.stdout)
    # What ran where, of the load-balanced run.
    assert re.search(r"^map_shared: \d+ items in \d+ tasks done, ", done.stdout, re.M), done.stdout[-4000:]


def wait_until_it_listens(server: subprocess.Popen, port: int) -> None:
    """jupyter_server tells its address a moment before it listens there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"jupyter lab ended with {server.wait(timeout=0.1)}")
    pytest.fail("jupyter lab does not listen where it says")


def test_jupyter_lab_lists_the_kernel_with_its_logo(chorus: Path, jupyter_home: Path, kernel_name: str, tmp_path: Path) -> None:
    """The server of `jupyter lab`, asked as its front end asks, and a kernel started by it."""
    if not (jupyter := shutil.which("jupyter-lab", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")):
        pytest.fail("jupyter-lab is not installed beside this Python; tests/run installs it")
    command = [jupyter, "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", "--IdentityProvider.token=t", f"--ServerApp.root_dir={tmp_path}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        seen = []
        for line in server.stderr:
            seen.append(line)
            if match := re.search(r"http://(?:localhost|127\.0\.0\.1):(\d+)/lab", line):
                break
        else:
            pytest.fail("no address from jupyter lab: " + "".join(seen)[-3000:])
        wait_until_it_listens(server, int(match[1]))
        base = f"http://127.0.0.1:{match[1]}"

        def get(path: str) -> bytes:
            request = urllib.request.Request(base + path, headers={"Authorization": "token t"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()

        specs = json.loads(get("/api/kernelspecs"))["kernelspecs"]
        assert specs[kernel_name]["spec"]["display_name"] == "Rust (Chorus)"
        logos = specs[kernel_name]["resources"]
        assert b"<svg" in get(logos["logo-svg"])
        assert get(logos["logo-64x64"]).startswith(b"\x89PNG")
        posted = urllib.request.Request(base + "/api/kernels", data=json.dumps({"name": kernel_name}).encode(), headers={"Authorization": "token t"}, method="POST")
        with urllib.request.urlopen(posted, timeout=60) as answer:
            assert json.load(answer)["name"] == kernel_name
    finally:
        server.terminate()
        server.communicate(timeout=30)
