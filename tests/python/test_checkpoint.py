"""A cell that dies takes nothing with it: after an interrupt, a signal or an exit every variable is as it was before the cell."""

from __future__ import annotations

import re
import statistics
import time

import psutil
import pytest

from chorus_client import Kernel, Result
from engines import until
from live import Live, alive_after, error_text, family

DEATHS = {
    "segmentation fault": "unsafe { std::ptr::null_mut::<i32>().write_volatile(1); }",
    "abort": "std::process::abort();",
    "exit": "std::process::exit(4);",
    "kill": 'std::process::Command::new("sh").args(["-c", &format!("kill -9 {}", std::process::id())]).status().unwrap(); loop {}',
}
SETUP = """
#[derive(Debug, Clone, PartialEq)]
pub struct Point { x: f64, tags: Vec<String> }
let number = 42;
let text = String::from("kept");
let mut list = vec![1, 2, 3];
let mut map = std::collections::HashMap::from([("one", 1), ("two", 2)]);
let point = Point { x: 1.5, tags: vec!["a".into(), "b".into()] };
let shared = std::rc::Rc::new(std::cell::RefCell::new(vec![10, 20]));
let boxed: Box<dyn std::fmt::Debug> = Box::new(("dyn", 7));
let add: fn(i32) -> i32 = |n| n + number_base();
fn number_base() -> i32 { 100 }
"""
LOOK = 'format!("{number} {text} {list:?} {} {} {point:?} {shared:?} {boxed:?} {}", map.len(), map["two"], add(1))'
SEEN = '"42 kept [1, 2, 3] 2 2 Point { x: 1.5, tags: [\\"a\\", \\"b\\"] } RefCell { value: [10, 20] } (\\"dyn\\", 7) 101"'
# What the dying cell does first: changes everything in place and makes new variables.
DAMAGE = 'list.push(4); list[0] = 99; map.clear(); shared.borrow_mut().push(30); let never_made = vec![5];'


@pytest.fixture
def prepared(kernel: Kernel) -> Kernel:
    kernel.run("%checkpoint on").expect_ok()
    kernel.run(SETUP).expect_ok()
    return kernel


def looked(kernel: Kernel) -> str:
    """The variables, as Debug text without the second level of escapes."""
    return kernel.run(LOOK).expect_ok().text.strip()


def check_all_is_as_before(kernel: Kernel) -> None:
    assert looked(kernel) == SEEN
    assert kernel.run("never_made").status == "error", "a variable of the dead cell does not exist"
    kernel.run("list.push(4); let goes_on = 1_usize;").expect_ok()
    assert kernel.run("list.len() + goes_on").expect_ok().text.strip() == "5", "and all goes on"


@pytest.mark.parametrize("death", DEATHS)
def test_variables_are_as_before_a_death(prepared: Kernel, death: str) -> None:
    result = prepared.run(f"{DAMAGE} {DEATHS[death]}")
    assert result.status == "error"
    check_all_is_as_before(prepared)


@pytest.mark.parametrize("death", DEATHS)
def test_moved_variables_are_back_after_a_death(prepared: Kernel, death: str) -> None:
    result = prepared.run(f"drop(list); drop(point); drop(text); drop(boxed); let moved_map = map; {DEATHS[death]}")
    assert result.status == "error"
    assert looked(prepared) == SEEN
    assert prepared.run("moved_map").status == "error"


def test_variables_are_as_before_an_interrupt(prepared: Kernel) -> None:
    live = Live(prepared)
    cell = live.submit(f'{DAMAGE} println!("looping"); loop {{ std::hint::black_box(1); }}')
    cell.until_output("looping")
    live.interrupt().done()
    cell.done()
    assert cell.reply["status"] == "error"
    assert "interrupt" in error_text(cell.reply).lower()
    check_all_is_as_before(prepared)


def test_redefined_types_of_variables_are_as_before(kernel: Kernel) -> None:
    """The dying cell gives a variable another type."""
    kernel.run("let shape = 5_i32;").expect_ok()
    assert kernel.run('let shape = String::from("text"); println!("{shape}"); std::process::abort();').status == "error"
    assert kernel.run("shape + 1").expect_ok().text.strip() == "6"


def test_a_function_and_type_of_earlier_cells_still_work(prepared: Kernel) -> None:
    prepared.run("fn twice(n: i32) -> i32 { n * 2 }").expect_ok()
    prepared.run("std::process::abort();")
    assert prepared.run("twice(number)").expect_ok().text.strip() == "84"


def test_two_hundred_megabytes_survive(kernel: Kernel) -> None:
    kernel.run("let mut large: Vec<u64> = (0..25_000_000).collect();").expect_ok()
    started = time.monotonic()
    assert kernel.run("for n in large.iter_mut() { *n = 0; } unsafe { std::ptr::null_mut::<i32>().write_volatile(1); }").status == "error"
    assert kernel.run("large.iter().sum::<u64>()").expect_ok().text.strip() == str(25_000_000 * 24_999_999 // 2)
    assert time.monotonic() - started < 30
    kernel.run("drop(large);").expect_ok()


def test_death_after_death(prepared: Kernel) -> None:
    """Each time the copy of a copy takes over; processes don't add up."""
    prepared.run("std::process::abort();")
    before = len(family(prepared.pid))
    for round in range(6):
        for death in DEATHS.values():
            assert prepared.run(f"{DAMAGE} {death}").status == "error"
    assert looked(prepared) == SEEN
    # Who takes over reaps those before it, in its own time.
    until(lambda: len(family(prepared.pid)) <= before, otherwise=lambda: str(family(prepared.pid)))


INTERRUPTED = {
    "an endless loop": "loop { std::hint::black_box(1); }",
    "a sleep": "std::thread::sleep(std::time::Duration::from_secs(600));",
    "a child process": 'std::process::Command::new("sleep").arg("600").status().unwrap();',
    "endless output": 'loop { println!("more and more"); }',
    "a deadlock": "{ let m = std::sync::Mutex::new(1); let a = m.lock().unwrap(); let b = m.lock().unwrap(); }",
    "a join": "std::thread::spawn(|| loop { std::thread::park(); }).join().unwrap();",
}


@pytest.mark.alone
@pytest.mark.parametrize("what", INTERRUPTED)
def test_interrupt_takes_effect_within_200_ms(kernel: Kernel, what: str) -> None:
    live = Live(kernel)
    kernel.run("let through_interrupts = 5;").expect_ok()
    delays = []
    for n in range(3):
        cell = live.submit(f'println!("going {n}"); {INTERRUPTED[what]}')
        cell.until_output(f"going {n}\n")
        asked = live.interrupt()
        cell.done()
        delays.append(cell.replies[0].at - asked.sent)
        assert cell.reply["status"] == "error"
        assert asked.done().reply["status"] == "ok"
    assert statistics.median(delays) < 0.2, delays
    assert kernel.run("through_interrupts").expect_ok().text.strip() == "5"


def test_interrupt_ends_the_children_of_the_cell(kernel: Kernel) -> None:
    live = Live(kernel)
    cell = live.submit('let mut c = std::process::Command::new("sleep").arg("54321").spawn().unwrap(); println!("child {};", c.id()); c.wait().unwrap();')
    cell.until_output(";\n")
    child = psutil.Process(int(cell.stdout.removeprefix("child ").strip(";\n")))
    live.interrupt().done()
    cell.done()
    assert not alive_after([child], within=5)


def test_interrupt_aborts_what_is_queued(kernel: Kernel) -> None:
    live = Live(kernel)
    cell = live.submit('println!("first"); loop { std::thread::park(); }')
    queued = live.submit('println!("must not run");')
    cell.until_output("first")
    live.interrupt().done()
    live.settle()
    assert cell.reply["status"] == "error"
    assert queued.reply["status"] == "aborted"


def test_interrupt_while_compiling(kernel: Kernel) -> None:
    """It ends with an error or, if the interrupt came too late, by itself; never does it stop a later cell."""
    live = Live(kernel)
    kernel.run("let while_compiling = 3;").expect_ok()
    body = "".join(f'println!("{{}}", (0..{n}).map(|x| format!("{{x:>5}}")).collect::<Vec<_>>().join("{n}").len());' for n in range(40))
    cell = live.submit(body)
    cell.until(lambda e: e.type == "execute_input")
    live.interrupt().done()
    cell.done()
    assert cell.reply["status"] in ("ok", "error")
    assert kernel.run("while_compiling + 1").expect_ok().text.strip() == "4"


def test_interrupt_of_an_idle_kernel_does_nothing(kernel: Kernel) -> None:
    live = Live(kernel)
    kernel.run("let idle_value = 8;").expect_ok()
    for _ in range(3):
        assert live.interrupt().done().reply["status"] == "ok"
    # Long enough for one that is late.
    cell = live.run("std::thread::sleep(std::time::Duration::from_millis(300)); idle_value")
    assert cell.text.strip() == "8", "an old interrupt does not hit a new cell"


def told(result: Result) -> str:
    assert result.status == "error"
    return error_text(result.error) + result.stderr + result.stdout


def test_lost_threads_are_told(kernel: Kernel) -> None:
    kernel.run('let worker = std::thread::spawn(|| -> () { loop { std::thread::park(); } });').expect_ok()
    said = told(kernel.run("std::process::abort();"))
    assert re.search(r"\bthreads?\b", said), said
    kernel.run("drop(worker);")
    assert not re.search(r"\bthreads?\b", told(kernel.run("std::process::abort();"))), "only when there was one"


def test_a_lost_tokio_runtime_is_told_and_made_anew(fresh_kernel: Kernel) -> None:
    fresh_kernel.run(':dep tokio = { version = "1", features = ["full"] }\nlet through_tokio = 11;', timeout=300).expect_ok()
    assert fresh_kernel.run("async fn later() -> i32 { tokio::time::sleep(std::time::Duration::from_millis(5)).await; 6 }\nlater().await", timeout=300).expect_ok().text.strip() == "6"
    assert "tokio" in told(fresh_kernel.run("std::process::abort();"))
    assert fresh_kernel.run("later().await + through_tokio").expect_ok().text.strip() == "17"


def test_what_happened_is_said(prepared: Kernel) -> None:
    """The user learns that the cell's process died and that his variables were kept."""
    said = told(prepared.run("std::process::abort();")).lower()
    assert "variable" in said or "restored" in said or "as before" in said or "kept" in said, said


def test_panics_and_errors_keep_working_beside(prepared: Kernel) -> None:
    assert prepared.run('panic!("x")').error["ename"] == "panic"
    assert looked(prepared) == SEEN
