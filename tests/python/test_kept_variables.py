"""Variables that other notebooks of Rust can't keep: those that borrow from others, closures, iterators and futures."""

from __future__ import annotations

import pytest

from chorus_client import Kernel
from engines import page


@pytest.mark.parametrize("cells, told, read, value", [
    # The owner is of an earlier cell.
    (['let text = String::from("a b c");', "let words: Vec<&str> = text.split(' ').collect();"], ["`text` is now `&'static String`, because `words` borrows from it."], "(words.len(), text.len())", "(3, 5)"),
    (['let a = String::from("x"); let b = String::from("y");', "let pair = (a.as_str(), b.as_str());"], ["`a` is now", "`b` is now"], "pair", '("x", "y")'),
    (["let mut v = vec![1, 2];", "let first = &v[0];"], ["`v` is now `&'static Vec<i32>`"], "*first + v[1]", "3"),
    (['let mut m = std::collections::HashMap::new(); m.insert("k".to_string(), vec![1, 2]);', 'let r = m.get("k").unwrap();'], ["`m` is now"], "r.len() + m.len()", "3"),
    (['let mut s = vec![String::from("b"), String::from("a")];', "let mut refs: Vec<&String> = s.iter().collect(); refs.sort();"], ["`s` is now"], "refs", '["a", "b"]'),
    (["let text = String::from(\"a b\");", "let text: Vec<&str> = text.split(' ').collect();"], [], "text", '["a", "b"]'),
    # Both are of one cell.
    (["let t = String::from(\"x y\"); let w: Vec<&str> = t.split(' ').collect();"], ["`t` is now `&'static String`, because `w` borrows from it."], "(w, t)", '(["x", "y"], "x y")'),
    (["let n = 3u8; let r = &n;"], ["`n` is now `&'static u8`"], "*r + n", "6"),
    (["struct Doc { t: String }\nimpl Doc { fn words(&self) -> Vec<&str> { self.t.split(' ').collect() } }\nlet d = Doc { t: \"a b\".into() };\nlet dw = d.words();"], ["`d` is now `&'static Doc`"], "(dw.len(), d.t.len())", "(2, 3)"),
    (['let s = String::from("t u"); let mut parts = s.split_whitespace();'], ["`s` is now"], "(parts.next(), parts.next(), parts.next())", '(Some("t"), Some("u"), None)'),
    (['let q = &String::from("abc")[1..];'], ["a variable borrows from it"], "q", '"bc"'),
    # Closures.
    (["let g = |x: i32| x + 1;"], ["`g` is kept as `Box<dyn Fn(i32) -> i32>`."], "g(2)", "3"),
    (["let g = |x| x + 1; g(2)"], ["`g` is kept as"], "g(3)", "4"),
    (['let k = 5; let name = String::from("n");', "let h = |x: i32| x * k + name.len() as i32;"], ["`h` is kept as", "`name` is now"], "(h(3), k, name)", '(16, 5, "n")'),
    (["let k = 5;", "let is = |x: i32| x == k;"], ["`is` is kept as"], "(is(5), is(4), k)", "(true, false, 5)"),
    (["let at = 2usize; let get = |v: &[i32]| v[at];"], ["`get` is kept as"], "(get(&[1, 2, 3]), at)", "(3, 2)"),
    (["let mut n = 0; let mut inc = move || { n += 1; n };"], ["`inc` is kept as `Box<dyn FnMut() -> i32>`."], "(inc(), inc())", "(1, 2)"),
    (['let s = String::from("q"); let once = move || s;'], ["`once` is kept as `Box<dyn FnOnce() -> String>`."], "once()", '"q"'),
    # Iterators and futures.
    (["let it = (0..3).map(|x| x * 2);"], ["`it` is kept as `Box<dyn Iterator<Item = i32>>`."], "it.collect::<Vec<_>>()", "[0, 2, 4]"),
    (["fn evens() -> impl Iterator<Item = u8> + Send { (0..9).filter(|n| n % 2 == 0) }\nlet mut it = evens();"], ["Box<dyn Iterator<Item = u8> + Send>"], "(it.next(), it.next())", "(Some(0), Some(2))"),
    (["let f = async { 1u8 + 1 };"], ["`f` is kept as"], "f.await", "2"),
    # Types whose traits have no path.
    (["let joined = std::thread::spawn(|| 1).join();"], [], "joined.unwrap()", "1"),
    (["fn f() -> Result<i32, Box<dyn std::error::Error>> { Ok(1) }", "let r = f();"], [], "r.unwrap()", "1"),
    (["let caught = std::panic::catch_unwind(|| 1);"], [], "caught.unwrap()", "1"),
    (["mod m { pub trait Shape { fn area(&self) -> u8; } impl Shape for u8 { fn area(&self) -> u8 { *self } } pub fn make() -> Vec<Box<dyn Shape>> { vec![Box::new(3u8)] } }\nlet shapes = m::make();"], [], "m::Shape::area(&*shapes[0])", "3"),
])
@pytest.mark.parametrize("place", ["notebook", "engine"])
def test_a_variable_is_kept(kernel: Kernel, cluster: str, place: str, cells: list[str], told: list[str], read: str, value: str) -> None:
    prefix = "%%px\n" if place == "engine" else ""
    kernel.run(prefix + ":clear", timeout=60).expect_ok()
    texts = [page(kernel.run(prefix + cell, timeout=180).expect_ok()) for cell in cells]
    for words in told:
        assert words in texts[-1], texts
    text = page(kernel.run(prefix + read, timeout=120).expect_ok())
    assert value in text, text


@pytest.fixture(scope="module")
def cluster(module_kernel: Kernel) -> str:
    module_kernel.run("%cluster start -n 1", timeout=120).expect_ok()
    return "1"


@pytest.mark.parametrize("cells, tells", [
    # The owner is needed mutably.
    (["let mut v = vec![1, 2]; let f = &v[1];\nv.push(4);"], ["`f` borrows from `v`", "line 2"]),
    (["let mut v = vec![1, 2];", "let f = &v[1];", "v.push(4);"], ["let mut name = name.clone();"]),
    # What it changes is another's.
    (["let mut n = 0; let mut inc = || { n += 1; n };"], ["move"]),
])
def test_where_it_cannot_be_kept_the_error_says_what_to_do(kernel: Kernel, cluster: str, cells: list[str], tells: list[str]) -> None:
    kernel.run(":clear").expect_ok()
    for cell in cells[:-1]:
        kernel.run(cell, timeout=60).expect_ok()
    text = page(kernel.run(cells[-1], timeout=60))
    for words in tells:
        assert words in text, text


def test_what_is_borrowed_from_survives_a_panic(kernel: Kernel, cluster: str) -> None:
    kernel.run(":clear").expect_ok()
    kernel.run('let keep = String::from("z");').expect_ok()
    assert not kernel.run('let part = keep.as_str(); panic!("on purpose");').ok
    assert kernel.run("keep").expect_ok().text == '"z"'


def test_a_display_of_the_users_own_is_used(fresh_kernel: Kernel) -> None:
    """From a trait, as crates have it, for a type that can be shown with `{:?}` as well."""
    fresh_kernel.run("""
trait Show { fn evcxr_display(&self); }
#[derive(Debug)] struct D(u8);
impl Show for D { fn evcxr_display(&self) { println!("EVCXR_BEGIN_CONTENT text/plain\\nmine {}\\nEVCXR_END_CONTENT", self.0); } }
""", timeout=120).expect_ok()
    assert "mine 1" in page(fresh_kernel.run("D(1)", timeout=60).expect_ok())
    assert fresh_kernel.run("5", timeout=60).expect_ok().text == "5"
