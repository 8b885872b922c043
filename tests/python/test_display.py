"""Rich output: evcxr_display, HTML, images, several kinds at once, clear_output, blocks between lines of text."""

from __future__ import annotations

import base64

import pytest

from chorus_client import Kernel
from engines import Flag
from live import Live

# A PNG of one red pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="


def block(mime: str, body: str) -> str:
    return f'println!("EVCXR_BEGIN_CONTENT {mime}\\n{{}}\\nEVCXR_END_CONTENT", r###"{body}"###);'


def test_evcxr_display_html(kernel: Kernel) -> None:
    result = kernel.run("""
pub struct Table(Vec<i32>);
impl Table {
    pub fn evcxr_display(&self) {
        let rows: String = self.0.iter().map(|n| format!("<tr><td>{n}</td></tr>")).collect();
        println!("EVCXR_BEGIN_CONTENT text/html\\n<table>{rows}</table>\\nEVCXR_END_CONTENT");
    }
}
Table(vec![1, 2])""").expect_ok()
    assert [d["text/html"].strip() for d in result.displays] == ["<table><tr><td>1</td></tr><tr><td>2</td></tr></table>"]
    assert "EVCXR" not in result.stdout
    again = kernel.run("let table = Table(vec![7]); table").expect_ok()
    assert "<td>7</td>" in again.data["text/html"]


def test_evcxr_display_wins_over_debug(kernel: Kernel) -> None:
    result = kernel.run(f"""
#[derive(Debug)]
pub struct Both;
impl Both {{ pub fn evcxr_display(&self) {{ {block("text/markdown", "**own**")} }} }}
Both""").expect_ok()
    assert result.data["text/markdown"].strip() == "**own**"
    assert "text/plain" not in result.data or "Both" not in result.data["text/plain"]


def test_evcxr_display_of_a_trait_and_of_a_reference(kernel: Kernel) -> None:
    kernel.run(f"pub struct Shown; impl Shown {{ pub fn evcxr_display(&self) {{ {block('text/html', '<i>s</i>')} }} }}\nlet shown = Shown;").expect_ok()
    assert kernel.run("&shown").expect_ok().data["text/html"].strip() == "<i>s</i>"


def test_evcxr_display_with_plain_output_around(kernel: Kernel) -> None:
    result = kernel.run(f'println!("before"); {block("text/html", "<b>1</b>")} println!("between"); {block("text/html", "<b>2</b>")} println!("after");').expect_ok()
    seen = [m["content"].get("text") or m["content"]["data"]["text/html"].strip() for m in result.outputs]
    assert seen == ["before\n", "<b>1</b>", "between\n", "<b>2</b>", "after\n"]


def test_several_kinds_of_one_value(kernel: Kernel) -> None:
    """A type that shows itself as text and as HTML gives the front end both to choose from, or one after the other."""
    result = kernel.run(f"""
pub struct Rich;
impl Rich {{ pub fn evcxr_display(&self) {{ {block("text/plain", "plain words")} {block("text/html", "<em>words</em>")} }} }}
Rich""").expect_ok()
    merged = {mime: text for data in result.displays for mime, text in data.items()}
    assert merged["text/plain"].strip() == "plain words"
    assert merged["text/html"].strip() == "<em>words</em>"


def test_a_png_is_shown_as_base64(kernel: Kernel) -> None:
    result = kernel.run(block("image/png", PIXEL)).expect_ok()
    [data] = result.displays
    assert base64.b64decode(data["image/png"]) == base64.b64decode(PIXEL)
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")


def test_an_svg_of_many_lines(kernel: Kernel) -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg">\n  <circle r="4"/>\n\n  <text>é 🦀</text>\n</svg>'
    [data] = kernel.run(block("image/svg+xml", svg)).expect_ok().displays
    assert data["image/svg+xml"].strip() == svg


def test_json_is_an_object(kernel: Kernel) -> None:
    [data] = kernel.run(block("application/json", '{"a": [1, 2.5, null]}')).expect_ok().displays
    value = data["application/json"]
    assert value == {"a": [1, 2.5, None]}, "front ends want JSON types parsed"


def test_a_large_block_arrives_whole(kernel: Kernel) -> None:
    result = kernel.run('println!("EVCXR_BEGIN_CONTENT text/html\\n{}\\nEVCXR_END_CONTENT", "<br>".repeat(1_000_000));').expect_ok()
    assert result.displays[0]["text/html"].strip() == "<br>" * 1_000_000


@pytest.mark.parametrize("wait", [False, True])
def test_clear_output(kernel: Kernel, wait: bool) -> None:
    body = '{"wait": %s}' % str(wait).lower()
    result = kernel.run(f'println!("old"); {block("application/x.chorus.clear-output+json", body)} println!("new");').expect_ok()
    assert [m["msg_type"] for m in result.outputs] == ["stream", "clear_output", "stream"]
    assert result.of_type("clear_output")[0]["content"] == {"wait": wait}
    assert [m["content"]["text"] for m in result.of_type("stream")] == ["old\n", "new\n"]


def test_a_display_is_updated(kernel: Kernel) -> None:
    """A block that names a display, beside what is shown, and later the same name with `update`, also from another cell."""

    def named(update: str) -> str:
        return block("application/x.chorus.display+json", f'{{"display_id": "meter", "update": {update}}}')

    first = kernel.run(f'{named("false")} {block("text/plain", "0 %")} println!("between"); {named("true")} {block("text/plain", "50 %")}').expect_ok()
    assert [m["msg_type"] for m in first.outputs] == ["display_data", "stream", "update_display_data"]
    later = kernel.run(f'{named("true")} {block("text/html", "<b>100 %</b>")}').expect_ok()
    shown = [m["content"] for m in first.of_type("display_data", "update_display_data") + later.of_type("update_display_data")]
    assert [c["transient"]["display_id"] for c in shown] == ["meter"] * 3
    assert [[v.strip() for v in c["data"].values()] for c in shown] == [["0 %"], ["50 %"], ["<b>100 %</b>"]]


def test_blocks_from_functions_and_loops(kernel: Kernel) -> None:
    result = kernel.run('fn show(n: i32) { println!("EVCXR_BEGIN_CONTENT text/html\\n<p>{n}</p>\\nEVCXR_END_CONTENT"); }\nfor n in 0..20 { show(n); }').expect_ok()
    assert [d["text/html"].strip() for d in result.displays] == [f"<p>{n}</p>" for n in range(20)]


def test_a_display_is_seen_while_the_cell_runs(kernel: Kernel, flag: Flag) -> None:
    live = Live(kernel)
    cell = live.submit(f'{block("text/html", "<b>now</b>")} {flag.wait()}')
    cell.until(lambda event: event.type == "display_data")
    flag.raise_()
    assert cell.done().reply["status"] == "ok"
    live.settle()
