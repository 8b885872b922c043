"""Fixtures: a private Jupyter world for the run, and kernels in it.

The kernel under test is the program named by CHORUS (default: target/release/chorus beside this folder's workspace). It is installed
into a temporary folder, and every folder that Jupyter or Chorus writes to is a temporary one too, so that a run neither
sees nor leaves anything of the user's. CHORUS_TEST_KERNEL=python3 tries the fixtures on another installed kernel.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Callable, Iterator

import pytest

from chorus_client import Kernel
from engines import Flag
from workers import stop_workers

ROOT = Path(__file__).resolve().parents[2]

# Two processes take files in this order: a long one at the end would have one of them wait.
LONGEST_FIRST = ["closures", "browser", "notebooks", "crate", "lifecycle", "px_clusters", "commands", "checkpoint", "compile_service", "px_failures",
                 "cli", "cluster_cli", "parallel", "history", "output", "control", "px"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}.py": rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def chorus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The program under test. What it compiles for all of its processes is in one folder for the whole run
    (CHORUS_CACHE_DIR, if that is set, for many runs)."""
    path = Path(os.environ.get("CHORUS", ROOT / "target" / "release" / "chorus")).resolve()
    if not path.exists():
        pytest.fail(f"{path} does not exist: run `cargo build --release` or set CHORUS")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHORUS_CACHE_DIR", os.environ.get("CHORUS_CACHE_DIR") or str(tmp_path_factory.mktemp("cache")))
        yield path


@pytest.fixture(scope="session")
def jupyter_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which Jupyter and Chorus keep everything during this run; named by the environment of every child."""
    home = tmp_path_factory.mktemp("home")
    folders = {
        "JUPYTER_DATA_DIR": home / "jupyter-data",
        "JUPYTER_CONFIG_DIR": home / "jupyter-config",
        "JUPYTER_RUNTIME_DIR": home / "jupyter-runtime",
        "JUPYTER_PATH": home / "prefix" / "share" / "jupyter",
        "IPYTHONDIR": home / "ipython",
        "XDG_DATA_HOME": home / "data",
        "XDG_CONFIG_HOME": home / "config",
        "XDG_CACHE_HOME": home / "cache",
        "XDG_STATE_HOME": home / "state",
        "XDG_RUNTIME_DIR": home / "run",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in folders.items():
            folder.mkdir(parents=True, exist_ok=True)
            patch.setenv(name, str(folder))
        yield home
        program = Path(os.environ.get("CHORUS", ROOT / "target" / "release" / "chorus"))
        if program.exists():
            # It would stay for some minutes.
            stop_workers(program)


@pytest.fixture(scope="session")
def kernel_name(request: pytest.FixtureRequest, jupyter_home: Path) -> str:
    """The name of the kernelspec under test, installed into the private prefix."""
    other = os.environ.get("CHORUS_TEST_KERNEL")
    if other:
        return other
    program = request.getfixturevalue("chorus")
    # This compiles the crate `chorus` into the run's cache as well.
    subprocess.run([program, "kernelspec", "install", "--prefix", jupyter_home / "prefix"], check=True, timeout=600)
    return "chorus"


@pytest.fixture
def start_kernel(kernel_name: str, tmp_path: Path) -> Iterator[Callable[..., Kernel]]:
    """A function that starts a kernel of its own each time (arguments as of `Kernel.start`); all end with the test."""
    kernels: list[Kernel] = []

    def start(**options: object) -> Kernel:
        kernel = Kernel.start(kernel_name, tmp_path / f"kernel-{len(kernels)}", **options)
        kernels.append(kernel)
        return kernel

    yield start
    for kernel in kernels:
        kernel.kill()


@pytest.fixture
def flag(tmp_path: Path) -> Iterator[Flag]:
    """Not raised yet; raised at the end of the test, so that nothing is held by one that failed."""
    made = Flag(tmp_path / "flag")
    yield made
    made.raise_()


@pytest.fixture
def fresh_kernel(kernel_name: str, tmp_path: Path) -> Iterator[Kernel]:
    """A kernel that no other test has touched, checked for unread messages at the end."""
    kernel = Kernel.start(kernel_name, tmp_path / "kernel")
    yield kernel
    kernel.close()


@pytest.fixture(scope="module")
def module_kernel(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """The module's kernel; tests take it as `kernel`."""
    kernel = Kernel.start(kernel_name, tmp_path_factory.mktemp("module-kernel"))
    yield kernel
    kernel.close()


@pytest.fixture
def kernel(module_kernel: Kernel) -> Iterator[Kernel]:
    """One kernel for all tests of a module (starting one costs seconds), with nothing left unread after each of them."""
    yield module_kernel
    if module_kernel.manager.is_alive():
        module_kernel.barrier()
        module_kernel.assert_clean()
