"""Closures from a cell on engines: views, results, errors, bulk data, and what happens when something dies. One notebook, two engines.

What a user sees of it is asserted here; the crate's own tests (`parallel/tests`) have a carrier without a cluster.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from jupyter_client.kernelspec import KernelSpecManager

import engines
from chorus_client import Kernel
from engines import Flag, said, until, until_shown
from live import Live

SETUP = "use chorus::{Client, AsyncResult};\nuse std::time::Duration;\nlet client = Client::connect()?;"


def open_notebook(kernel: Kernel) -> None:
    kernel.run(SETUP, timeout=300).expect_ok()


@pytest.fixture(scope="module")
def module_kernel(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with engines.started(kernel_name, tmp_path_factory.mktemp("closures"), 2) as kernel:
        open_notebook(kernel)
        yield kernel
        until_no_files(kernel)


def files(kernel: Kernel) -> list[str]:
    """Files in memory of this kernel's processes that are still alive, but for the folders of engines."""
    data = psutil.Process(kernel.pid).environ()["XDG_DATA_HOME"]
    pids = {process.pid for process in engines.processes(Path(data))}
    found = []
    for path in Path("/dev/shm").glob("chorus-piece-*"):
        maker = path.name.split("-")[2]
        if maker.isdigit() and int(maker) in pids and not path.is_dir():
            found.append(path.name)
    return found


def until_no_files(kernel: Kernel, within: float = 10) -> None:
    """Files go soon after they aren't needed any more."""
    until(lambda: not files(kernel), within, lambda: f"left in memory: {files(kernel)}")


def test_apply_runs_on_each_engine(kernel: Kernel) -> None:
    result = kernel.run('let ids = client.all().apply_sync(|name: String| (name, std::env::var("CHORUS_ENGINE_ID").unwrap()), "x".to_owned())?;\nids').expect_ok()
    assert result.text == '[("x", "0"), ("x", "1")]'
    assert kernel.run("client.direct_view(1).apply_sync(|(a, b): (u32, u32)| a * b, (6, 7))?").expect_ok().text == "[42]"


def test_maps_of_all_kinds(kernel: Kernel) -> None:
    assert kernel.run("client.all().map_sync(0..10u64, |x| x * x)?").expect_ok().text == "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]"
    assert kernel.run("client.load_balanced_view().map_sync(0..1000u64, |x| x * x)?.iter().sum::<u64>()").expect_ok().text == str(sum(n * n for n in range(1000)))
    assert kernel.run("client.load_balanced_view().map_with(&vec![10u32, 20], vec![0usize, 1, 0], |table, i| table[i]).get()?").expect_ok().text == "[10, 20, 10]"
    assert kernel.run("client.load_balanced_view().chunk_size(7).map_reduce(1..=100u64, |x| x, |a, b| a + b).get()?").expect_ok().text == "5050"
    assert kernel.run("client.load_balanced_view().imap((0..50u32).filter(|x| x % 2 == 0), |x| x + 1).collect::<Result<Vec<_>, _>>()?.len()").expect_ok().text == "25"
    assert kernel.run("let mut seen: Vec<u32> = client.load_balanced_view().imap(0..20u32, |x| x).unordered().collect::<Result<_, _>>()?;\nseen.sort();\nseen.len()").expect_ok().text == "20"


def test_counts_overflow_as_any_sum_does(kernel: Kernel) -> None:
    counted = "client.all().apply(|_: ()| std::collections::HashMap::from([(\"a\".to_owned(), {})]), ()).counts()?"
    assert kernel.run(counted.format("1i32")).expect_ok().text == '{"a": 2}'
    text = said(kernel.run(counted.format("i32::MAX")))
    assert "attempt to add with overflow" in text, text


def test_the_notebooks_functions_and_types(kernel: Kernel) -> None:
    kernel.run("fn twice<T: std::ops::Add<Output = T> + Copy>(x: T) -> T { x + x }\n#[derive(serde::Serialize, serde::Deserialize, Debug, Clone, PartialEq)]\n"
               "enum Shape { Circle { radius: f64 }, Square(f64), Nothing }\nimpl Shape { fn area(&self) -> f64 { match self { Shape::Circle { radius } => 3.0 * radius * radius, Shape::Square(a) => a * a, Shape::Nothing => 0.0 } } }").expect_ok()
    assert kernel.run("client.all().map_sync(vec![1u8, 2, 3], twice::<u8>)?").expect_ok().text == "[2, 4, 6]"
    result = kernel.run("let shapes = vec![Shape::Circle { radius: 1.0 }, Shape::Square(2.0), Shape::Nothing];\nclient.load_balanced_view().map_sync(&shapes, |shape| (shape.area(), shape))?").expect_ok()
    assert result.text == "[(3.0, Circle { radius: 1.0 }), (4.0, Square(2.0)), (0.0, Nothing)]"


def test_functions_that_remember_where_they_run(kernel: Kernel) -> None:
    kernel.run("let everywhere = client.all().remote(|x: u32| x + 1);\nlet anywhere = client.load_balanced_view().remote(|x: u32| x + 1);").expect_ok()
    assert kernel.run("(everywhere.call_sync(1)?, anywhere.call_sync(1)?)").expect_ok().text == "([2, 2], 2)"
    for view in ("all", "load_balanced_view"):
        kernel.run(f"let spread = client.{view}().parallel(|x: u32| x * 2);").expect_ok()
        assert kernel.run("spread.map_sync(0..100u32)?.iter().sum::<u32>()").expect_ok().text == "9900"


def test_a_capture_is_a_compile_error_that_says_what_to_do(kernel: Kernel) -> None:
    result = kernel.run("let factor = 3u64;\nclient.all().map_sync(0..4u64, |x| x * factor)")
    assert result.status == "error"
    assert "captures" in said(result) and "map_with" in said(result)
    result = kernel.run("client.all().apply_sync(|x: std::rc::Rc<u8>| *x, std::rc::Rc::new(1))")
    assert result.status == "error"


def test_a_panic_says_where_and_the_others_are_kept(kernel: Kernel) -> None:
    result = kernel.run("let odd = client.load_balanced_view().chunk_size(2).map(0..6u32, |x| {\n    if x % 3 == 1 { panic!(\"bad {x}\") }\n    x * 10\n});\nodd.get()?")
    text = said(result)
    assert "2 of 6 failed" in text and "panicked: bad 1" in text and "panicked: bad 4" in text, text
    count = result.content["execution_count"]
    assert f"In[{count}], line 2: if x % 3 == 1" in text and re.search(r"\[item 1, engine [01]\]", text), text
    kept = kernel.run("let again = client.load_balanced_view().chunk_size(2).map(0..6u32, |x| if x % 3 == 1 { panic!(\"bad {x}\") } else { x * 10 });\n"
                      "again.results()?.into_iter().map(|r| r.ok()).collect::<Vec<_>>()").expect_ok()
    assert kept.text == "[Some(0), None, Some(20), Some(30), None, Some(50)]"
    single = kernel.run("client.direct_view(1).apply_sync(|x: u32| {\n    let v: Vec<u32> = vec![];\n    v[x as usize]\n}, 5)?")
    text = said(single)
    assert "[engine 1]" in text and "index out of bounds" in text and f"In[{single.content['execution_count']}], line 3" in text, text


def test_what_closures_print_is_shown_in_the_cell(kernel: Kernel) -> None:
    result = kernel.run('client.all().apply_sync(|x: u32| { println!("said {x}"); eprintln!("warned"); }, 3)?;').expect_ok()
    assert sorted(result.stdout.splitlines()) == ["[stdout:0] said 3", "[stdout:1] said 3"]
    assert sorted(result.stderr.splitlines()) == ["[stderr:0] warned", "[stderr:1] warned"]
    result = kernel.run('client.load_balanced_view().chunk_size(1).map_sync(0..40u32, |x| println!("number {x}"))?.len()').expect_ok()
    assert sorted(int(line.split()[-1]) for line in result.stdout.splitlines()) == list(range(40))
    kernel.run('let told = client.load_balanced_view().chunk_size(1).map(7..9u32, |x| { println!("out {x}"); eprintln!("err {x}"); });\ntold.wait();').expect_ok()
    printed = kernel.run('let mut printed: Vec<_> = told.output().iter().map(|it| (it.index, it.stderr, it.text.trim().to_owned())).collect();\nprinted.sort();\nprinted').expect_ok()
    assert printed.text == '[(0, false, "out 7"), (0, true, "err 7"), (1, false, "out 8"), (1, true, "err 8")]'


def test_variables_move(kernel: Kernel) -> None:
    kernel.run('let pushed = client.all().push("table", &vec![1.5f64, 2.5]);\npushed.get()?;\n'
               'assert!(pushed.metadata().iter().all(|task| task.started.is_some() && task.started <= task.completed));').expect_ok()
    assert engines.results(kernel.run("%px table.iter().sum::<f64>()").expect_ok()) == {0: "4.0", 1: "4.0"}
    assert kernel.run('client.all().pull::<Vec<f64>>("table").get()?').expect_ok().text == "[[1.5, 2.5], [1.5, 2.5]]"
    kernel.run('client.all().scatter("part", &(0..10u32).collect::<Vec<_>>()).get()?;').expect_ok()
    assert engines.results(kernel.run("%px part.len()").expect_ok()) == {0: "5", 1: "5"}
    kernel.run("%px for x in &mut part { *x *= 2; }").expect_ok()
    assert kernel.run('client.all().gather::<u32>("part").get()?.iter().sum::<u32>()').expect_ok().text == "90"
    result = kernel.run('client.all().pull::<u8>("nowhere").get()?')
    assert "nowhere" in said(result) and "E0425" in said(result), said(result)


def test_snippets(kernel: Kernel) -> None:
    result = kernel.run('let shown = client.all().execute("println!(\\"from a snippet\\"); 6 * 7").get()?;\nshown.iter().map(|it| it.text().unwrap().to_owned()).collect::<Vec<_>>()').expect_ok()
    assert result.text == '["42", "42"]'
    assert sorted(result.stdout.splitlines()) == ["[stdout:0] from a snippet", "[stdout:1] from a snippet"]


def test_large_values_go_through_memory_and_leave_nothing(kernel: Kernel) -> None:
    kernel.run("let large: Vec<f64> = (0..1_000_000).map(f64::from).collect();").expect_ok()
    assert kernel.run("client.all().apply_sync(|v: Vec<f64>| v.iter().sum::<f64>(), large.clone())?").expect_ok().text == "[499999500000.0, 499999500000.0]"
    assert kernel.run("client.all().apply_sync(|n: u32| vec![1u8; n as usize], 3_000_000)?.iter().map(|v| v.len()).collect::<Vec<_>>()").expect_ok().text == "[3000000, 3000000]"
    assert kernel.run("client.load_balanced_view().chunk_size(1).map_with(&large, 0..8usize, |v, i| v[i * 1000]).get()?.iter().sum::<f64>()").expect_ok().text == "28000.0"
    # Each task's items are a stretch of one file: a new one, one that was there, and more than fit into one.
    kernel.run("fn half(x: f64) -> f64 { x / 2.0 }\nlet halves: Vec<f64> = large.iter().map(|x| half(*x)).collect();\nlet huge = large.repeat(5);").expect_ok()
    for items, view, times in [("large", "load_balanced_view()", 1), ("large", "load_balanced_view()", 1), ("huge", "load_balanced_view()", 5), ("large", "all()", 1)]:
        assert kernel.run(f"client.{view}.map_sync(&{items}, half)? == halves.repeat({times})").expect_ok().text == "true", (items, view)
    kernel.run('client.all().push("large", &large).get()?;').expect_ok()
    assert engines.results(kernel.run("%px large.len()").expect_ok()) == {0: "1000000", 1: "1000000"}
    assert kernel.run('client.all().gather::<f64>("large").get()? == [large.clone(), large.clone()].concat()').expect_ok().text == "true"
    until_no_files(kernel)


def test_calls_and_magics_are_in_order(kernel: Kernel) -> None:
    kernel.run("%px let mut log: Vec<u32> = vec![];").expect_ok()
    kernel.run('let first = client.all().push("one", &1u32);\nlet second = client.all().execute("log.push(one)");\nlet third = client.all().push("one", &2u32);').expect_ok()
    kernel.run("%px log.push(one)").expect_ok()
    assert engines.results(kernel.run("%px log.clone()").expect_ok()) == {0: "[1, 2]", 1: "[1, 2]"}


def test_what_is_retried(kernel: Kernel, tmp_path: Path) -> None:
    """A task that panics is run again, that of a `map` with all of its items; without retries the other items have their results."""
    kernel.run(f'fn second_time(path: String) -> u32 {{ if std::fs::exists(&path).unwrap() {{ 1 }} else {{ std::fs::write(&path, "").unwrap(); panic!("first") }} }}\n'
               f'fn path(n: u32) -> String {{ format!("{tmp_path}/{{n}}") }}').expect_ok()
    assert kernel.run("client.load_balanced_view().retries(1).apply_sync(second_time, path(1))?").expect_ok().text == "1"
    result = kernel.run("client.load_balanced_view().apply_sync(second_time, path(2))?")
    assert "first" in said(result), said(result)
    assert kernel.run("client.load_balanced_view().retries(1).chunk_size(2).map_sync(vec![path(1), path(4), path(1)], second_time)?").expect_ok().text == "[1, 1, 1]"
    large = "client.load_balanced_view().retries(1).chunk_size(2).map_sync(vec![path(1), path(5)], |path| vec![second_time(path); 1_000_000])?"
    assert kernel.run(f"{large}.iter().map(|it| it.len()).collect::<Vec<_>>()").expect_ok().text == "[1000000, 1000000]"
    until_no_files(kernel)
    kernel.run("let items = client.load_balanced_view().chunk_size(2).map(vec![path(1), path(3), path(1)], second_time);\nitems.wait();").expect_ok()
    assert kernel.run("items.results()?.iter().map(|it| it.is_ok()).collect::<Vec<_>>()").expect_ok().text == "[true, false, true]"
    assert kernel.run("(items.successful(), items.metadata().iter().map(|it| it.success).collect::<Vec<_>>())").expect_ok().text == "(false, [Some(false), Some(true)])"
    result = kernel.run("client.load_balanced_view().after(&items).apply(|_: ()| (), ()).get()?")
    assert "ImpossibleDependency" in said(result), said(result)
    shown = kernel.run("items").expect_ok().displays[-1]
    assert "1 failed" in shown["text/plain"] and "[item 1, engine" in shown["text/plain"] and "panicked: first" in shown["text/plain"], shown
    assert "<pre>[item 1, engine" in shown["text/html"], shown
    printed = kernel.run('let noisy = client.load_balanced_view().retries(1).apply(|path: String| { println!("try"); second_time(path) }, path(6));\nnoisy.get()?').expect_ok()
    assert printed.text == "1" and len(re.findall(r"\[stdout:[01]\] try", printed.stdout)) == 2, printed.stdout
    assert kernel.run("noisy.output().len()").expect_ok().text == "2"
    assert kernel.run("client.load_balanced_view().after(chorus::After::all(&[&items]).when(true, true)).apply_sync(|_: ()| 5u32, ())?").expect_ok().text == "5"


def test_dependencies(kernel: Kernel, flag: Flag) -> None:
    kernel.run(f"let first = client.load_balanced_view().apply(|_: ()| {{ {flag.wait()} }}, ());\n"
               "let later = client.load_balanced_view().after(&first).apply(|_: ()| 5u32, ());").expect_ok()
    assert kernel.run("(later.wait_timeout(Duration::from_millis(200)), first.ready())").expect_ok().text == "(false, false)"
    flag.raise_()
    assert kernel.run("(later.get()?, later.started() >= first.completed())").expect_ok().text == "(5, true)"
    assert kernel.run("let there = client.load_balanced_view().follow(&first).apply(|_: ()| (), ());\nthere.wait();\nthere.engines() == first.engines()").expect_ok().text == "true"
    result = kernel.run('let bad = client.load_balanced_view().apply(|_: ()| -> () { panic!("no") }, ());\nclient.load_balanced_view().after(&bad).apply(|_: ()| (), ()).get()?')
    assert "ImpossibleDependency" in said(result), said(result)


def test_dependencies_on_any_and_on_failures(kernel: Kernel, flag: Flag) -> None:
    kernel.run(f"let holds = client.load_balanced_view().apply(|_: ()| {{ {flag.wait()} }}, ());\nlet passes = client.load_balanced_view().apply(|_: ()| (), ());\n"
               'let fails = client.load_balanced_view().apply(|_: ()| -> () { panic!("no") }, ());\npasses.wait();\nfails.wait();').expect_ok()
    kernel.run("use chorus::After;\nfn runs_after(client: &Client, after: After) -> AsyncResult<u32> { client.load_balanced_view().after(after).apply(|_: ()| 5u32, ()) }").expect_ok()
    assert kernel.run("(runs_after(&client, After::any(&[&holds, &passes])).get()?, holds.ready())").expect_ok().text == "(5, false)"
    assert kernel.run("(runs_after(&client, After::any(&[&fails, &passes])).get()?, runs_after(&client, After::any(&[&holds, &fails]).when(true, true)).get()?)").expect_ok().text == "(5, 5)"
    assert kernel.run("runs_after(&client, After::all(&[&fails, &fails]).when(false, true)).get()?").expect_ok().text == "5"
    for impossible in ("After::all(&[&passes, &fails])", "After::any(&[&fails])", "After::all(&[&passes]).when(false, true)"):
        result = kernel.run(f"runs_after(&client, {impossible}).get()?")
        assert "ImpossibleDependency" in said(result), (impossible, said(result))
    kernel.run("let both = runs_after(&client, After::all(&[&holds]).and(&passes));").expect_ok()
    assert kernel.run("(both.wait_timeout(Duration::from_millis(200)), holds.ready())").expect_ok().text == "(false, false)"
    flag.raise_()
    assert kernel.run("both.get()?").expect_ok().text == "5"


def test_a_task_that_waits_too_long(kernel: Kernel, flag: Flag) -> None:
    kernel.run(f"let busy = client.all().apply(|_: ()| {{ {flag.wait()} }}, ());\n"
               "let fills = client.load_balanced_view().chunk_size(1).map(0..200u32, |x| x);\n"
               "let late = client.load_balanced_view().timeout(Duration::from_millis(300)).apply(|_: ()| (), ());").expect_ok()
    result = kernel.run("late.get()?")
    flag.raise_()
    assert "TaskTimeout" in said(result), said(result)
    assert kernel.run("fills.get()?.len()").expect_ok().text == "200"


def test_abort_and_queue_status(kernel: Kernel, flag: Flag) -> None:
    kernel.run(f"let held = client.all().apply(|_: ()| {{ {flag.wait()} }}, ());\nlet many = client.load_balanced_view().chunk_size(1).map(0..100u32, |x| x);\n"
               "let direct = client.all().apply(|_: ()| 1u8, ());").expect_ok()
    status = kernel.run("let status = client.queue_status(..)?;\n(status.engines.len(), status.engines.iter().map(|q| q.queue).sum::<u64>(), status.unassigned > 0)").expect_ok()
    assert status.text == "(2, 4, true)"
    kernel.run("many.abort()?;\ndirect.abort()?;").expect_ok()
    flag.raise_()
    result = kernel.run("many.get()?")
    assert "TaskAborted" in said(result) and "100 of 100" in said(result), said(result)
    assert kernel.run("(direct.successful(), held.get().is_ok())").expect_ok().text == "(false, true)"


def test_a_client_aborts_its_own_tasks(kernel: Kernel, flag: Flag) -> None:
    kernel.run(f"let other = Client::connect()?;\nlet holding = client.all().apply(|_: ()| {{ {flag.wait()} }}, ());\nlet hers = other.load_balanced_view().chunk_size(1).map(0..20u32, |x| x);\n"
               "let mine = client.load_balanced_view().chunk_size(1).map(0..20u32, |x| x);\nlet directly = client.all().apply(|_: ()| 1u8, ());\n"
               "while holding.metadata().iter().any(|task| task.started.is_none()) { holding.wait_timeout(Duration::from_millis(5)); }\nclient.abort()?;").expect_ok()
    flag.raise_()
    assert kernel.run("hers.get()?.len()").expect_ok().text == "20"
    for name in ("mine", "directly"):
        result = kernel.run(f"{name}.get()?")
        assert "TaskAborted" in said(result) and "failed" in said(result), said(result)
    assert kernel.run("(holding.get().is_ok(), client.all().apply_sync(|x: u32| x, 9)?)").expect_ok().text == "(true, [9, 9])"
    kernel.run("drop(hers);\ndrop(other);").expect_ok()


def test_broadcast_view(kernel: Kernel) -> None:
    assert kernel.run('client.broadcast_view(..).apply_sync(|x: u32| x + 1, 1)?').expect_ok().text == "[2, 2]"
    assert kernel.run('client.broadcast_view("1").apply_sync(|x: u32| x + 1, 2)?').expect_ok().text == "[3]"
    kernel.run('client.broadcast_view(..).push("spread", &vec![1u8, 2]).get()?;').expect_ok()
    assert kernel.run('client.broadcast_view(..).pull::<Vec<u8>>("spread").get()?').expect_ok().text == "[[1, 2], [1, 2]]"


def test_a_label_is_shown(kernel: Kernel) -> None:
    kernel.run('let labelled = client.load_balanced_view().label("sweep <1>").map(0..4u32, |x| x);\nlabelled.wait();').expect_ok()
    assert kernel.run("(labelled.label(), client.all().apply(|_: ()| (), ()).label())").expect_ok().text == '(Some("sweep <1>"), None)'
    assert 'AsyncResult(sweep <1> (map): 4 of 4 items' in kernel.run('println!("{labelled:?}");').expect_ok().stdout
    shown = kernel.run("labelled").expect_ok().displays[-1]
    assert shown["text/plain"].startswith("sweep <1> (map): 4 items in") and "<p>sweep &lt;1&gt; (map): 4 items in" in shown["text/html"]


@pytest.mark.alone
def test_an_interrupt_ends_the_cell_and_its_tasks(kernel: Kernel) -> None:
    kernel.run("let before = 17;").expect_ok()
    live = Live(kernel)
    request = live.submit('client.load_balanced_view().chunk_size(1).map_sync(0..20u32, |x| {\n    println!("begun {x}");\n    loop { std::thread::sleep(Duration::from_millis(5)); }\n    #[allow(unreachable_code)] x\n})?')
    until_shown(request, r"\[stdout:0\] begun")
    until_shown(request, r"\[stdout:1\] begun")
    start = time.monotonic()
    live.interrupt().until_reply()
    request.done()
    assert time.monotonic() - start < 5
    live.settle()
    assert kernel.run("before").expect_ok().text == "17"
    assert kernel.run("client.all().apply_sync(|x: u32| x + 1, 1)?", timeout=20).expect_ok().text == "[2, 2]", "engines are usable"
    queue = kernel.run("let queue = client.queue_status(..)?;\n(queue.unassigned, queue.engines.iter().map(|it| it.tasks + it.queue).sum::<u64>())").expect_ok()
    assert queue.text == "(0, 0)"


def test_a_cell_that_dies_loses_no_tasks(kernel: Kernel, flag: Flag) -> None:
    # On an engine each: what is slow may not be in the way of what is to be there when the cell dies.
    kernel.run(f"let slow = client.load_balanced_view().targets(1).chunk_size(1).map(0..6u32, |x| {{ {flag.wait()} x * 2 }});\nlet quick = client.direct_view(0).apply(|n: u32| vec![n; 200_000], 4);").expect_ok()
    result = kernel.run("let taken = quick.get()?;\nlet lost = client.load_balanced_view().targets(0).map(0..4u32, |x| x);\nstd::process::abort();")
    assert result.status == "error"
    assert kernel.run("(slow.ready(), quick.get()?.len())").expect_ok().text == "(false, 1)"
    flag.raise_()
    assert kernel.run("slow.get()?").expect_ok().text == "[0, 2, 4, 6, 8, 10]"
    assert kernel.run("client.all().apply_sync(|x: u32| x, 9)?").expect_ok().text == "[9, 9]"


def test_a_cell_that_dies_while_it_submits(kernel: Kernel) -> None:
    """What it had written for the engines goes with it."""
    kernel.run("#[derive(Clone, serde::Deserialize)]\nstruct Deadly(u32, Vec<u8>);\nimpl serde::Serialize for Deadly {\n    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {\n"
               "        if self.0 == 3 { std::process::abort() }\n        (self.0, &self.1).serialize(to)\n    }\n}").expect_ok()
    for view in ("load_balanced_view().chunk_size(1)", "load_balanced_view().chunk_size(2)", "all()"):
        pid = kernel.run("std::process::id()").expect_ok().text
        result = kernel.run(f"client.{view}.map_sync((0..6).map(|n| Deadly(n, vec![1; 1_000_000])).collect::<Vec<_>>(), |it| it.0)")
        assert result.status == "error" and "SIGABRT" in said(result), said(result)
        assert kernel.run("client.all().apply_sync(|x: u32| x, 9)?").expect_ok().text == "[9, 9]"
        until(lambda: not list(Path("/dev/shm").glob(f"chorus-piece-{pid}-*")), otherwise=lambda: view)
    until_no_files(kernel)


def test_two_clients(kernel: Kernel) -> None:
    assert kernel.run("let other = Client::connect()?;\nlet a = client.load_balanced_view().chunk_size(1).map(0..100u32, |x| x);\nlet b = other.load_balanced_view().chunk_size(1).map(0..100u32, |x| x + 1000);\n"
                      "(a.get()?.iter().sum::<u32>(), b.get()?.iter().sum::<u32>())").expect_ok().text == "(4950, 104950)"
    kernel.run("drop(b);\ndrop(other);").expect_ok()


def test_purge(kernel: Kernel, flag: Flag) -> None:
    """The hub forgets; what waits and what has come stays."""
    kernel.run("let done = client.load_balanced_view().chunk_size(1).map(0..50u32, |x| x);\ndone.get()?;\nclient.purge_results(&done)?;").expect_ok()
    kernel.run(f"let holds = client.all().apply(|_: ()| {{ {flag.wait()} }}, ());\nlet waits = client.load_balanced_view().chunk_size(1).map(0..50u32, |x| x);\nclient.purge()?;").expect_ok()
    flag.raise_()
    assert kernel.run("(done.get()?.len(), waits.get()?.len(), holds.get()?.len())").expect_ok().text == "(50, 50, 2)"


def test_a_program_that_goes_away_has_its_tasks_aborted(kernel: Kernel, flag: Flag) -> None:
    kernel.run(f"{{\n    let gone = Client::connect()?;\n    let _ = gone.load_balanced_view().chunk_size(1).map(0..50u32, |x| {{ {flag.wait()} x }});\n    let _ = gone.all().push(\"unused\", &vec![0u8; 1_000_000]);\n}}").expect_ok()
    until(lambda: kernel.run("client.queue_status(..)?.unassigned").expect_ok().text == "0", within=15)
    flag.raise_()
    assert kernel.run("client.all().apply_sync(|x: u32| x, 1)?").expect_ok().text == "[1, 1]"
    until_no_files(kernel)


# -- clusters that change ------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(kernel_name: str, tmp_path: Path) -> Iterator[Kernel]:
    with engines.started(kernel_name, tmp_path, 2) as kernel:
        open_notebook(kernel)
        yield kernel


def test_an_engine_that_is_killed(fresh: Kernel, tmp_path: Path) -> None:
    kernel = fresh
    marks = tmp_path / "marks"
    marks.mkdir()
    # Each run leaves a mark with the engine's process, and waits on its first engine.
    task = f'|x: u32| {{ let pid = std::process::id(); std::fs::write(format!("{marks}/{{x}}-{{pid}}"), "").unwrap(); while std::fs::read_dir("{marks}").unwrap().count() < 2 || !std::path::Path::new("{tmp_path}/go").exists() {{ std::thread::sleep(Duration::from_millis(5)); }} x }}'
    kernel.run(f"let kept = client.load_balanced_view().retries(2).chunk_size(1).map(0..2u32, {task});").expect_ok()
    until(lambda: len(list(marks.iterdir())) >= 2)
    # The engine above the runtime that made a mark.
    runtime = psutil.Process(int(next(marks.iterdir()).name.split("-")[1]))
    [engine] = [parent for parent in runtime.parents() if engines.role(parent) == "engine"]
    engine.kill()
    (tmp_path / "go").touch()
    assert kernel.run("kept.get()?", timeout=60).expect_ok().text == "[0, 1]", "it was tried elsewhere"
    assert len(list(marks.iterdir())) == 3
    left = kernel.run("client.ids()?").expect_ok().text
    assert left in ("[0]", "[1]")
    # Without retries it fails, by its engine's number.
    number = left.strip("[]")
    (tmp_path / "go").unlink()
    for mark in marks.iterdir():
        mark.unlink()
    kernel.run(f"let lost = client.load_balanced_view().apply({task}, 7);\nlet direct = client.all().apply({task}, 8);").expect_ok()
    until(lambda: any(marks.iterdir()))
    runtime = psutil.Process(int(next(marks.iterdir()).name.split("-")[1]))
    [engine] = [parent for parent in runtime.parents() if engines.role(parent) == "engine"]
    engine.kill()
    for name in ("lost", "direct"):
        text = said(kernel.run(f"{name}.get()?", timeout=60))
        assert "EngineError" in text and f"engine {number} died" in text, text


def test_shutdown_and_waiting_for_engines(fresh: Kernel) -> None:
    kernel = fresh
    assert kernel.run("client.shutdown(0)?;\nclient.ids()?").expect_ok().text == "[1]"
    assert said(kernel.run("client.wait_for_engines(2, Duration::from_millis(200))?")).count("1 engines of the 2")
    kernel.run("%cluster scale 2").expect_ok()
    assert kernel.run("client.wait_for_engines(2, Duration::from_secs(20))?.len()").expect_ok().text == "2"
    assert kernel.run("client.shutdown(..)?;\nlet queue = client.queue_status(..)?;\n(client.ids()?.len(), queue.engines.len(), queue.unassigned)").expect_ok().text == "(0, 0, 0)"
    assert "no engines" in said(kernel.run("client.all().apply_sync(|x: u32| x, 1)?"))
    kernel.run("let data = vec![1u32, 2];").expect_ok()
    text = said(kernel.run("%%parallel --over data --balanced --chunks 2 --merge sum\ndata.iter().sum::<u32>()", timeout=60))
    assert "no engines" in text, text
    kernel.run("client.shutdown_cluster()?;").expect_ok()
    result = kernel.run("client.all().apply_sync(|x: u32| x, 1)?")
    assert "lost the connection" in said(result) and "Client::connect()" in said(result), said(result)


def test_an_engine_that_joins_takes_part_in_what_runs(fresh: Kernel, flag: Flag) -> None:
    kernel = fresh
    assert kernel.run("client.shutdown(0)?;\nclient.ids()?").expect_ok().text == "[1]"
    kernel.run(f"let shared_out = client.load_balanced_view().chunk_size(1).map(0..40u32, |x| {{ if x == 0 {{ {flag.wait()} }} std::env::var(\"CHORUS_ENGINE_ID\").unwrap() }});").expect_ok()
    kernel.run("%cluster scale 2").expect_ok()
    until(lambda: kernel.run("shared_out.progress()").expect_ok().text == "(39, 40)", otherwise=lambda: kernel.run("(shared_out.progress(), client.queue_status(..)?)").text)
    flag.raise_()
    by = json.loads(kernel.run("shared_out.get()?").expect_ok().text)
    [newcomer] = set(by[1:])
    assert by[0] == "1" and newcomer != "1", "the first engine was busy with the first task"


def test_the_first_client_starts_a_cluster_and_says_so(kernel_name: str, tmp_path: Path) -> None:
    with engines.started(kernel_name, tmp_path, None) as kernel:
        result = kernel.run(SETUP, timeout=300).expect_ok()
        assert "No cluster is running: starting one" in result.stdout and "is up" in result.stdout
        assert kernel.run("client.load_balanced_view().map_sync(0..3u8, |x| x + 1)?").expect_ok().text == "[1, 2, 3]"
        assert engines.results(kernel.run("%px 1").expect_ok()), "it is the one that magics use"
        carrier = kernel.run('std::env::var("CHORUS_CARRIER")?').expect_ok().text.strip('"')
        assert os.stat(carrier).st_mode & 0o777 == 0o600 and os.stat(Path(carrier).parent).st_mode & 0o777 == 0o700
    assert not Path(carrier).parent.exists()


def test_clusters_by_profile_and_id(fresh: Kernel, tmp_path: Path, chorus: Path) -> None:
    kernel = fresh
    data = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")}
    subprocess.run([chorus, "profile", "create", "big"], env=data, check=True, capture_output=True)
    subprocess.run([chorus, "cluster", "start", "-n", "1", "--profile", "big", "--cluster-id", "other", "--daemonize"], env=data, check=True, capture_output=True)
    try:
        kernel.run('let big = Client::connect_to("big", "other")?;').expect_ok()
        assert kernel.run("(big.ids()?.len(), client.ids()?.len())").expect_ok().text == "(1, 2)"
        assert kernel.run("big.all().apply_sync(|x: u32| x * 2, 4)?").expect_ok().text == "[8]"
        assert kernel.run("client.all().apply_sync(|x: u32| x * 2, 4)?").expect_ok().text == "[8, 8]"
        text = said(kernel.run('Client::connect_to("big", "nowhere")?'))
        assert "chorus cluster start --profile big --cluster-id nowhere" in text, text
    finally:
        subprocess.run([chorus, "cluster", "stop", "--profile", "big", "--cluster-id", "other"], env=data, capture_output=True)


@pytest.fixture
def small_memory(kernel_name: str, tmp_path: Path) -> Iterator[Kernel]:
    """A notebook whose processes have 8 MB of shared memory among them, and see none of the machine's."""
    script = 'mount -t tmpfs -o size=8m tmpfs /dev/shm && exec "$@"'
    spec = KernelSpecManager().get_kernel_spec(kernel_name).to_dict()
    spec["argv"] = [*in_private_mounts(), "sh", "-c", script, "sh", *spec["argv"]]
    folder = tmp_path / "jupyter" / "kernels" / "small-memory"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(spec))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"), prepend=os.pathsep)
        with engines.started("small-memory", tmp_path, 2) as kernel:
            open_notebook(kernel)
            yield kernel


def test_when_the_shared_memory_is_full(small_memory: Kernel) -> None:
    """Arguments and results that find no room go in the messages; nothing is lost, and what was half written is given back."""
    kernel = small_memory
    memory = Path(f"/proc/{kernel.pid}/root/dev/shm")
    size = os.statvfs(memory)
    assert size.f_blocks * size.f_frsize == 8 << 20
    kernel.run("fn half(x: f64) -> f64 { x / 2.0 }\nlet large: Vec<f64> = (0..4_000_000).map(f64::from).collect();\nlet halves: Vec<f64> = large.iter().map(|x| half(*x)).collect();").expect_ok()
    for _ in range(3):
        assert kernel.run("client.load_balanced_view().map_sync(&large, half)? == halves").expect_ok().text == "true"
    assert kernel.run("client.all().map_sync(&large, half)? == halves").expect_ok().text == "true"
    assert kernel.run("client.all().apply_sync(|v: Vec<f64>| v, large.clone())? == [large.clone(), large.clone()]").expect_ok().text == "true"
    assert kernel.run("client.load_balanced_view().map_with(&large, 0..640usize, |v, i| v[i]).get()?.len()").expect_ok().text == "640"
    kernel.run('client.all().push("large", &large).get()?;').expect_ok()
    assert engines.results(kernel.run("%px large.len()").expect_ok()) == {0: "4000000", 1: "4000000"}
    # A variable of one engine has no other way.
    for call in ('client.direct_view(0).push("large", &large).get()?', "%push -t 0 large", 'client.all().pull::<Vec<f64>>("large").get()?'):
        text = said(kernel.run(call))
        assert "shared memory of the engine's machine is full" in text and "--shm-size" in text and "`large`" in text, text
    assert engines.results(kernel.run("%px large.len()").expect_ok()) == {0: "4000000", 1: "4000000"}
    elsewhere = Path(tempfile.gettempdir())

    def left() -> list[Path]:
        return [path for path in [*memory.glob("chorus-piece-*"), *elsewhere.glob(f"chorus-piece-{kernel.pid}-*")] if not path.is_dir()]

    until(lambda: not left(), 10, lambda: f"left in memory: {left()}")
    assert kernel.run("client.all().map_sync(0..4u32, |x| x)?").expect_ok().text == "[0, 1, 2, 3]"


def in_private_mounts() -> list[str]:
    """What runs a command that may mount what no other process sees."""
    return ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]


def engine_elsewhere(chorus: Path, data: Path, *hidden: str) -> subprocess.Popen:
    """An engine that sees other files under these folders, as one on another machine does."""
    script = 'for folder in "$@"; do mount -t tmpfs tmpfs "$folder" || exit; done; exec "$CHORUS" engine --file "$ENGINES"'
    [file] = data.glob("chorus/profiles/default/security/ipcontroller*-engine.json")
    return subprocess.Popen([*in_private_mounts(), "sh", "-c", script, "sh", *hidden], stdin=subprocess.DEVNULL,
                            env={**os.environ, "XDG_DATA_HOME": str(data), "CHORUS": str(chorus), "ENGINES": str(file)})


def test_engines_on_other_machines(kernel_name: str, tmp_path: Path, chorus: Path) -> None:
    with engines.started(kernel_name, tmp_path, 1) as kernel:
        open_notebook(kernel)
        kernel.run("fn twice(x: u64) -> u64 { 2 * x }").expect_ok()
        there = [engine_elsewhere(chorus, tmp_path / "data", "/dev/shm")]
        try:
            assert kernel.run("client.wait_for_engines(2, Duration::from_secs(20))?.len()").expect_ok().text == "2"
            assert kernel.run("client.all().map_sync(0..4u64, twice)?").expect_ok().text == "[0, 2, 4, 6]"
            # What engines give comes by the sockets then.
            assert kernel.run("client.direct_view(1).apply_sync(|n: usize| vec![1.5f64; n], 1_000_000)?.iter().map(Vec::len).sum::<usize>()").expect_ok().text == "1000000"
            kernel.run("let bulk = vec![1.5f64; 1_000_000];").expect_ok()
            for call in ("client.all().apply_sync(|bulk: Vec<f64>| bulk.len(), bulk.clone())?", 'client.all().push("bulk", &bulk).get()?', "%push bulk"):
                text = said(kernel.run(call))
                assert "does not share the memory of the notebook's machine" in text and "8000" in text and "engine 1" in text, text
            assert engines.results(kernel.run("%px 1 + 1").expect_ok()) == {0: "2", 1: "2"}
            # Neither is the code of closures seen from there.
            notebook = kernel.run("std::process::id()").expect_ok().text
            [code] = {str(Path(line.split()[-1]).parent) for line in Path(f"/proc/{notebook}/maps").read_text().splitlines() if "/cache/" in line and line.endswith(".so")}
            there.append(engine_elsewhere(chorus, tmp_path / "data", "/dev/shm", code))
            kernel.run("client.wait_for_engines(3, Duration::from_secs(20))?;").expect_ok()
            text = said(kernel.run("client.all().map_sync(0..3u64, twice)?"))
            assert "where the code of the closure is not" in text and "%px" in text and "engine 2" in text, text
            assert engines.results(kernel.run("%px 1 + 2").expect_ok()) == {0: "3", 1: "3", 2: "3"}
        finally:
            for engine in there:
                engine.terminate()
                engine.wait(10)
