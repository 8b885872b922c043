"""What can be measured without a peer: the same cell again compiles nothing. (Against evcxr_jupyter: bench_latency.py.)"""

from __future__ import annotations

import statistics

import pytest

from chorus_client import Kernel
from live import Live

pytestmark = pytest.mark.alone

# Generic code in plenty: seconds for rustc, nothing for the processor.
HEAVY = "\n".join(
    f'{{ let mut m: std::collections::BTreeMap<[u8; {n}], Vec<(u16, String)>> = Default::default(); m.entry([{n % 7}; {n}]).or_default().push(({n}, format!("{{:>{n}}}", {n}))); total += m.values().flatten().map(|(a, s)| *a as usize + s.len()).sum::<usize>(); }}'
    for n in range(1, 15)
)


def test_the_same_cell_from_the_same_state_compiles_nothing(kernel: Kernel) -> None:
    live = Live(kernel)
    live.run("1 + 1")
    code = f"(|| -> usize {{ let mut total = 0usize;\n{HEAVY}\ntotal }})()"
    first = live.run(code)
    assert first.reply["status"] == "ok", first.reply
    again = [live.run(code) for _ in range(3)]
    assert {a.text for a in again} == {first.text}
    assert first.seconds > 0.5, "this cell is meant to be slow to compile; make it heavier"
    assert statistics.median(a.seconds for a in again) < min(0.25 * first.seconds, 0.3), (first.seconds, [a.seconds for a in again])


def test_a_cell_that_failed_by_a_panic_is_known_too(kernel: Kernel) -> None:
    """A cell that changes no state and is run again after its panic comes from the cache as well."""
    live = Live(kernel)
    code = f'(|| -> usize {{ let mut total = 1usize;\n{HEAVY}\nif total > 0 {{ panic!("after all that") }} total }})()'
    first = live.run(code)
    again = live.run(code)
    assert first.reply["ename"] == again.reply["ename"] == "panic"
    assert again.seconds < 0.5 * first.seconds, (first.seconds, again.seconds)


def test_latency_of_small_cells_is_bounded(kernel: Kernel) -> None:
    """Far above what is promised, low enough that a cell compiled twice or by cargo would show."""
    live = Live(kernel)
    for n in range(3):
        live.run(f"{n} * 3")
    times = [live.run(f"{n} + 100").seconds for n in range(10)]
    assert statistics.median(times) < 0.6, times
