"""The main job as a person does it: the real JupyterLab in headless Chromium, its kernel picker, its Run menu, its stop button.

Pictures of what was seen stay under target/test-artifacts/, and their paths are printed. Chromium is the system's (Debian's package);
playwright drives it and brings no browser. CHORUS_CHROMIUM names another one.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from conftest import ROOT
from engines import Flag, write_crate
from test_cli import wait_until_it_listens

ARTIFACTS = Path(os.environ.get("CHORUS_ARTIFACTS", ROOT / "target" / "test-artifacts"))
BOOK = ROOT / "LICENSE-APACHE"
KERNEL = "Rust (Chorus)"
# Seconds: a page, and work (the first %px of a notebook starts a cluster and compiles).
PAGE, WORK = 120, 240
# What JupyterLab shows an error as.
ERROR = '[data-mime-type="application/vnd.jupyter.stderr"], [data-mime-type="application/vnd.jupyter.error"]'
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where JupyterLab finds its notebooks."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(kernel_name: str, folder: Path, jupyter_home: Path) -> Iterator[str]:
    """The address of a JupyterLab server."""
    jupyter = shutil.which("jupyter-lab", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not jupyter:
        pytest.fail("jupyter-lab is not installed beside this Python; tests/run installs it")
    # No offer of news, which needs the network.
    settings = jupyter_home / "jupyter-config/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    command = [jupyter, "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", "--IdentityProvider.token=t",
               f"--ServerApp.root_dir={folder}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=folder,
                              env=os.environ | {"CHORUS_TEXT": str(BOOK)})
    lines: queue.Queue[str] = queue.Queue()
    # Reads to the end, so that the server never waits for a reader.
    reader = threading.Thread(target=lambda: [lines.put(line) for line in server.stderr], daemon=True)
    reader.start()
    try:
        seen = ""
        while not (match := re.search(r"http://(?:localhost|127\.0\.0\.1):(\d+)/lab", seen)):
            try:
                seen += lines.get(timeout=PAGE)
            except queue.Empty:
                pytest.fail("no address from jupyter lab: " + seen[-3000:])
        wait_until_it_listens(server, int(match[1]))
        yield f"http://127.0.0.1:{match[1]}/lab"
    finally:
        server.terminate()
        try:
            server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            server.kill()
            raise
        reader.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = os.environ.get("CHORUS_CHROMIUM") or shutil.which("chromium")
    if not program:
        pytest.fail("there is no chromium: apt-get install chromium, or name one with CHORUS_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def picture(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[[Page, str], None]:
    """Keeps what a page shows, and says where."""
    def take(page: Page, name: str) -> None:
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        path = ARTIFACTS / f"{request.node.name.removeprefix('test_')}-{name}.png"
        page.screenshot(path=path)
        with capsys.disabled():
            print(f"\npicture: {path}", flush=True)

    return take


@pytest.fixture
def page(browser: Browser, picture: Callable[[Page, str], None]) -> Iterator[Page]:
    """A page of a browser that knows nothing of other tests; a picture of its last state is kept."""
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(PAGE * 1000)
    yield page
    with contextlib.suppress(Exception):
        picture(page, "end")
    context.close()


class NotebookPage:
    """A notebook in JupyterLab, worked with keyboard and mouse."""

    def __init__(self, page: Page, lab: str, name: str):
        self.page = page
        # In a workspace of its own, so that nothing of other tests is open.
        page.goto(f"{lab}/workspaces/{Path(name).stem}/tree/{name}?token=t")
        self.panel = page.locator(".jp-NotebookPanel:visible")
        expect(self.panel).to_be_visible(timeout=PAGE * 1000)

    def select_kernel(self) -> None:
        """In the dialog that JupyterLab opens for a notebook without a kernel."""
        dialog = self.page.locator(".jp-Dialog")
        picker = dialog.locator("select")
        expect(picker).to_be_visible()
        offered = picker.locator("option").all_text_contents()
        assert len([name for name in offered if name == KERNEL]) == 1, offered
        picker.select_option(label=KERNEL)
        dialog.get_by_role("button", name="Select", exact=False).last.click()
        expect(dialog).to_have_count(0)
        expect(self.panel.locator(".jp-KernelName")).to_have_text(KERNEL)
        self.expect_status("idle")

    def expect_status(self, status: str, seconds: float = PAGE) -> None:
        """What the circle beside the kernel's name tells: `idle` or `busy`."""
        expect(self.panel.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", status, timeout=seconds * 1000)

    def choose(self, menu: str, command: str) -> None:
        """A command of the menu bar."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{menu}$")).click()
        self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{command}$")).click()

    def press(self, command: str) -> None:
        """A button of the notebook's toolbar, named by its JupyterLab command."""
        self.panel.locator(f'[data-command="{command}"], [data-jp-item-name="{command}"]').first.click()

    def cell(self, number: int) -> Locator:
        """The `number`th cell, from 0."""
        return self.panel.locator(".jp-Notebook .jp-Cell").nth(number)

    def run(self, code: str) -> Locator:
        """Types code into the last cell and runs it with Shift+Enter, which makes the next cell; gives the cell's output."""
        cells = self.panel.locator(".jp-Notebook .jp-CodeCell")
        count = cells.count()
        cell = cells.nth(count - 1)
        cell.locator(".cm-content").click()
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Shift+Enter")
        expect(cells).to_have_count(count + 1)
        return cell.locator(".jp-Cell-outputArea")

    def expect_prompt(self, output: Locator, seconds: float = WORK) -> None:
        """Waits until the cell of this output has a number, that is, has ended."""
        prompt = output.locator("xpath=ancestor::div[contains(@class, 'jp-CodeCell')]").locator(".jp-InputPrompt")
        expect(prompt).to_have_text(re.compile(r"^\[\d+\]:$"), timeout=seconds * 1000)


def write_notebook(path: Path, cells: list[nbformat.NotebookNode]) -> None:
    """A notebook that names no kernel, so that JupyterLab asks for one."""
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_word_count(page: Page, lab: str, folder: Path, picture: Callable[[Page, str], None]) -> None:
    example = nbformat.read(ROOT / "examples" / "wordcount.ipynb", as_version=4)
    write_notebook(folder / "wordcount.ipynb", example.cells)
    notebook = NotebookPage(page, lab, "wordcount.ipynb")
    notebook.select_kernel()
    picture(page, "kernel-selected")
    notebook.choose("Run", "Run All Cells")

    words = [w.strip("'’") for w in re.findall(r"[^\W_'’]+(?:['’]+[^\W_'’]+)*", BOOK.read_text())]
    counts = Counter(word.lower() for word in words)
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]
    code = [number for number, cell in enumerate(example.cells) if cell.cell_type == "code"]
    prompt = notebook.cell(code[-1]).locator(".jp-InputPrompt")
    expect(prompt).to_have_text(f"[{len(code)}]:", timeout=WORK * 1000)
    notebook.expect_status("idle")
    assert notebook.panel.locator(ERROR).all_text_contents() == []

    engines = os.cpu_count()
    merged = f"{len(words)} words, {len(counts)} of them different, merged from {engines} engines"
    counted = notebook.panel.get_by_text(merged)
    counted.scroll_into_view_if_needed()
    expect(counted).to_be_visible()
    picture(page, "merged")
    for engine in range(engines):
        expect(notebook.panel.get_by_text(f"[stdout:{engine}] engine {engine} is process")).to_have_count(1)
    ranking = notebook.panel.locator(".jp-RenderedHTMLCommon table").filter(has=page.get_by_text("word", exact=True))
    rows = ranking.locator("tr").filter(has=page.locator("td"))
    expect(rows).to_have_count(20)
    shown = [row.locator("td").all_text_contents() for row in rows.all()]
    assert [(word, int(count)) for _, word, count in shown] == top
    assert notebook.panel.locator(".jp-RenderedSVG").count() >= 1
    rows.first.scroll_into_view_if_needed()
    picture(page, "ranking")


def test_forest_fire_shows_what_ran_where(page: Page, lab: str, folder: Path, picture: Callable[[Page, str], None]) -> None:
    example = nbformat.read(ROOT / "examples" / "forestfire.ipynb", as_version=4)
    write_notebook(folder / "forestfire.ipynb", example.cells)
    notebook = NotebookPage(page, lab, "forestfire.ipynb")
    notebook.select_kernel()
    notebook.choose("Run", "Run All Cells")
    code = [number for number, cell in enumerate(example.cells) if cell.cell_type == "code"]
    prompt = notebook.cell(code[-1]).locator(".jp-InputPrompt")
    expect(prompt).to_have_text(f"[{len(code)}]:", timeout=WORK * 1000)
    assert notebook.panel.locator(ERROR).all_text_contents() == []
    for name, source in (("equal-shares", "let fixed"), ("load-balanced", "let balanced")):
        number = next(number for number in code if source in example.cells[number].source)
        shown = notebook.cell(number).locator(".jp-RenderedHTMLCommon")
        shown.scroll_into_view_if_needed()
        expect(shown.locator("table")).to_be_visible()
        bars = shown.locator("svg rect")
        expect(bars.first).to_be_visible()
        # A bar a task, and each says what it is to whoever points at it.
        assert bars.count() >= (2 if source == "let fixed" else 96)
        assert shown.locator("svg title").count() >= 2
        picture(page, name)


def test_output_comes_while_engines_run_and_the_stop_button_stops_them(
    page: Page, lab: str, folder: Path, picture: Callable[[Page, str], None]
) -> None:
    write_notebook(folder / "parallel.ipynb", [nbformat.v4.new_code_cell()])
    notebook = NotebookPage(page, lab, "parallel.ipynb")
    notebook.select_kernel()
    started = notebook.run("%cluster start -n 2")
    expect(started).to_contain_text("2 engines: 0,1", timeout=WORK * 1000)

    # Ends when the file is there, which the test makes when it has seen output.
    go_on = folder / "go-on"
    slow = notebook.run(
        f'%px println!("begun"); while !std::path::Path::new({str(go_on)!r}).exists() '.replace("'", '"')
        + '{ std::thread::sleep(std::time::Duration::from_millis(20)); } println!("ended");'
    )
    expect(slow.get_by_text("[stdout:0] begun")).to_be_visible(timeout=WORK * 1000)
    expect(slow.get_by_text("[stdout:1] begun")).to_be_visible(timeout=WORK * 1000)
    expect(slow.get_by_text(re.compile(r"%px: +0%.*0/2 engines"))).to_be_visible(timeout=WORK * 1000)
    expect(slow).not_to_contain_text("ended")
    notebook.expect_status("busy")
    picture(page, "while-it-runs")
    go_on.touch()
    notebook.expect_prompt(slow)
    for engine in (0, 1):
        expect(slow.get_by_text(re.compile(rf"\[stdout:{engine}\] begun\s+ended"))).to_be_visible()

    endless = notebook.run('%px println!("round"); loop { std::thread::sleep(std::time::Duration::from_millis(20)); }')
    expect(endless.get_by_text("[stdout:1] round")).to_be_visible(timeout=WORK * 1000)
    expect(endless.get_by_text("[stdout:0] round")).to_be_visible()
    notebook.press("notebook:interrupt-kernel")
    notebook.expect_prompt(endless)
    expect(endless.locator(ERROR).last).to_contain_text("interrupted")
    picture(page, "interrupted")

    answer = notebook.run("%px 6 * 7")
    notebook.expect_prompt(answer)
    for engine in (0, 1):
        expect(answer.get_by_text(re.compile(rf"Out\[{engine}:\d+\]: 42"))).to_be_visible()
    notebook.expect_status("idle")


def test_what_a_cell_waits_for_is_gone_afterwards(
    page: Page, lab: str, folder: Path, picture: Callable[[Page, str], None]
) -> None:
    go_on = folder / "built"
    crate = folder / "slow-one"
    write_crate(crate, build=Flag(go_on).wait())
    write_notebook(folder / "waiting.ipynb", [nbformat.v4.new_code_cell()])
    notebook = NotebookPage(page, lab, "waiting.ipynb")
    notebook.select_kernel()
    cell = notebook.run(f':dep slow-one = {{ path = "{crate}" }}\nslow_one::number()')
    line = cell.get_by_text(re.compile(r"compiling slow-one \(\d+ of \d+\)"))
    expect(line).to_be_visible(timeout=WORK * 1000)
    expect(cell.locator(".jp-OutputArea-child")).to_have_count(1)
    picture(page, "waits")
    go_on.touch()
    notebook.expect_prompt(cell)
    expect(line).to_have_count(0)
    expect(cell.locator(".jp-OutputArea-child")).to_have_count(1)
    expect(cell.locator(".jp-OutputArea-output")).to_have_text("7")
    picture(page, "waited")
