"""Types, modules, traits, aliases, imports and crates that are defined anew while values of the old ones are alive: a value stays what it was or is
given up and told, and the runtime never dies of it."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chorus_client import Kernel, Result
from engines import page

STEPS = 28
LOST = "redefined, so"


@pytest.mark.parametrize("first, second, variable, read, expected", [
    # In modules.
    ("mod g { pub struct P { pub x: i32 } }\nlet v = g::P { x: 1 };", "mod g { pub struct P { pub x: String } }", "v", "v.x.len()", None),
    ("mod g { pub mod h { pub enum E { A(u8), B } } }\nlet v = vec![g::h::E::B];", "mod g { pub mod h { pub enum E { A(String) } } }", "v", "match &v[0] { g::h::E::A(s) => s.len() }", None),
    ("mod g { pub fn f() {} pub struct P { pub x: i32 } }\nlet v = g::P { x: 1 };", "mod g { pub fn f() { print!(\"\") } pub struct P { pub x: i32 } }", "v", "v.x", "1"),
    # By other names.
    ("mod g { pub struct P(pub u8); }\nuse g::P as Num;\nlet v: Num = g::P(3);", "struct B(String, String);\nuse B as Num;", "v", "v.1.len()", None),
    ("struct P(u8);\ntype Num = P;\nlet v: Vec<Num> = vec![P(1)];", "struct P(String);", "v", "v[0].0.len()", None),
    ("mod g { mod i { pub struct P(pub u8); } pub use i::P; }\nlet v = g::P(1);", "mod g { mod i { pub struct P(pub String); } pub use i::P; }", "v", "v.0.len()", None),
    ("struct W<T: A>(T::Out);\ntrait A { type Out; }\nimpl A for u8 { type Out = u8; }\nlet v: W<u8> = W(1);", "impl A for u8 { type Out = String; }", "v", "v.0.len()", None),
    # Tables of methods.
    ("mod t { pub trait T { fn a(&self) -> usize; } impl T for u8 { fn a(&self) -> usize { 1 } } }\nlet v: Box<dyn t::T> = Box::new(3u8);",
     "mod t { pub trait T { fn y(&self) -> String; fn a(&self) -> usize; } impl T for u8 { fn y(&self) -> String { String::new() } fn a(&self) -> usize { 2 } } }\nuse t::T;",
     "v", "v.y().len()", None),
    # Values of any type.
    ("struct Q { x: i64 }\nlet v: Box<dyn std::any::Any> = Box::new(Q { x: 5 });", "struct Q { x: String }", "v", "v.downcast_ref::<Q>().map(|q| q.x.len())", None),
    # Sizes.
    ("struct M;\nimpl M { const N: usize = 2; }\nstruct A { d: [u64; M::N], s: Box<u8> }\nlet v = A { d: [1; M::N], s: Box::new(1) };", "impl M { const N: usize = 9; }", "v", "*v.s + v.d[8] as u8", None),
    ("const fn n() -> usize { 2 }\nlet v: ([u64; n()], Box<u8>) = ([1; n()], Box::new(4));", "const fn n() -> usize { 7 }", "v", "*v.1 + v.0[6] as u8", None),
    # What changes no value.
    ("/// A point.\nstruct P { x: i32 }\nlet v = P { x: 1 };", "/// A pair.\n#[derive(Debug)]\nstruct P {\n    x: i32 // across\n}", "v", "v.x", "1"),
])
def test_a_value_of_an_old_definition_is_given_up(fresh_kernel: Kernel, first: str, second: str, variable: str, read: str, expected: str | None) -> None:
    fresh_kernel.run(first, timeout=120).expect_ok()
    told = page(fresh_kernel.run(second, timeout=60).expect_ok())
    result = fresh_kernel.run(read, timeout=60)
    if expected is None:
        told += page(result)
        assert f"`{variable}`" in told and LOST in told
        assert "cannot find value" in page(result)
    else:
        assert LOST not in told
        assert result.expect_ok().text.strip() == expected
    assert fresh_kernel.run("1 + 1").expect_ok().text == "2"


def test_a_crate_that_was_changed_takes_its_values(fresh_kernel: Kernel, tmp_path: Path) -> None:
    crate = tmp_path / "mine"
    (crate / "src").mkdir(parents=True)
    (crate / "Cargo.toml").write_text('[package]\nname = "mine"\nversion = "0.1.0"\nedition = "2024"\n')
    source = "pub struct P {{ pub x: {} }}\n"
    (crate / "src/lib.rs").write_text(source.format("i64"))
    fresh_kernel.run(f':dep mine = {{ path = "{crate}" }}\nuse mine::P;\nlet v = P {{ x: 1 }};\nlet w: Vec<mine::P> = Vec::new();\nlet n = 5i64;', timeout=180).expect_ok()
    assert fresh_kernel.run("v.x + n", timeout=60).expect_ok().text == "6"
    (crate / "src/lib.rs").write_text(source.format("String"))
    told = page(fresh_kernel.run("v.x.len()", timeout=120))
    assert LOST in told and "v" in told and "w" in told, told
    assert fresh_kernel.run("n + 1", timeout=60).expect_ok().text == "6"
    assert fresh_kernel.run("P { x: String::from(\"ab\") }.x.len()", timeout=60).expect_ok().text == "2"


@dataclass
class Notebook:
    """Cells of random definitions and variables, and what each variable was when it was made."""

    kernel: Kernel
    chance: random.Random
    prefix: str
    values: dict[str, tuple[str, str]] = field(default_factory=dict)
    defined: dict[str, str] = field(default_factory=dict)
    size: int = 3
    names: int = 0
    told: str = ""
    lost: int = 0
    kept: int = 0

    # Those on the right may contain those on the left.
    ORDER = ("B", "A", "g::P", "g::E", "h::P")

    def run(self, cell: str) -> Result:
        result = self.kernel.run(self.prefix + cell, timeout=120)
        self.told += page(result)
        return result

    def value(self, owner: str) -> tuple[str, str]:
        """A field's type, and an expression of it."""
        number = self.chance.randrange(1000)
        path = "super::" if "::" in owner else ""
        inner = [one for one in self.ORDER[:self.ORDER.index(owner)] if one in self.defined]
        choices = [
            ("i64", f"{number}"), ("u8", f"{number % 256}"), ("String", f'String::from("text {number}")'), ("Vec<u8>", f"vec![{number % 256}, 1]"),
            ("Box<u32>", f"Box::new({number})"), ("(u8, String)", f'({number % 256}, String::from("t"))'), (f"[u16; {path}N]", f"[{number}; {path}N]"),
        ] + [(f"{path}{one}", f"{path}{one}::make()") for one in inner] * 3
        return self.chance.choice(choices)

    def struct(self, owner: str) -> str:
        fields = [self.value(owner) for _ in range(self.chance.randrange(1, 4))]
        name = owner.split("::")[-1]
        if name == "E":
            variants = ", ".join(f"V{at}({kind})" for at, (kind, _) in enumerate(fields))
            at = self.chance.randrange(len(fields))
            body = f"pub enum {name} {{ {variants} }}"
            made = f"{name}::V{at}({fields[at][1]})"
        else:
            body = f"pub struct {name} {{ " + ", ".join(f"pub f{at}: {kind}" for at, (kind, _) in enumerate(fields)) + " }"
            made = f"{name} {{ " + ", ".join(f"f{at}: {made}" for at, (_, made) in enumerate(fields)) + " }"
        return f"#[derive(Debug)] {body} impl {name} {{ pub fn make() -> {name} {{ {made} }} }}"

    # What may happen.

    def define(self) -> None:
        name = self.chance.choice(self.ORDER)
        self.defined[name] = self.struct(name)
        if "::" in name:
            module = name.split("::")[0]
            items = [text for path, text in self.defined.items() if path.startswith(module + "::")]
            self.chance.shuffle(items)
            self.run(f"mod {module} {{ " + " ".join(items) + " }").expect_ok()
        else:
            # An `impl` of its own: that of a struct belongs to it.
            self.run(self.defined[name]).expect_ok()

    def resize(self) -> None:
        self.size = self.chance.randrange(1, 9)
        self.run(f"const N: usize = {self.size};").expect_ok()

    def rename(self) -> None:
        if types := [name for name in self.ORDER if name in self.defined]:
            name = self.chance.choice(types)
            self.run(self.chance.choice([f"use {name} as Num;", f"type Num = {name};"])).expect_ok()
            self.defined["Num"] = ""

    def define_trait(self) -> None:
        methods = [("m", "String", '"m".to_owned()'), ("n", "u64", "7"), ("o", "[u64; 3]", "[1, 2, 3]"), ("p", "Vec<u8>", "vec![1]")]
        chosen = [methods[0], *self.chance.sample(methods[1:], self.chance.randrange(4))]
        self.chance.shuffle(chosen)
        heads = " ".join(f"fn {name}(&self) -> {kind};" for name, kind, _ in chosen)
        bodies = " ".join(f"fn {name}(&self) -> {kind} {{ {made} }}" for name, kind, made in chosen)
        self.run(f"mod t {{ pub trait T {{ {heads} }} impl T for u8 {{ {bodies} }} }}").expect_ok()
        self.defined["t"] = ""

    def make(self) -> None:
        paths = [name for name in self.defined if name != "t"]
        if not paths:
            return
        name = f"v{self.names}"
        self.names += 1
        path = self.chance.choice(paths)
        kind, made, read = self.chance.choice([
            (path, f"{path}::make()", f"{name}"),
            (f"Vec<{path}>", f"vec![{path}::make(), {path}::make()]", f"{name}"),
            (f"Option<Box<{path}>>", f"Some(Box::new({path}::make()))", f"{name}"),
            ("_", f"{path}::make()", f"{name}"),
            ("Box<dyn std::any::Any>", f"Box::new({path}::make())", f"{name}.downcast_ref::<{path}>()"),
            *([("Box<dyn t::T>", "Box::new(1u8)", f"t::T::m(&*{name})")] if "t" in self.defined else []),
        ])
        result = self.run(f'let {name}: {kind} = {made};\nprintln!("<<{{:?}}>>", {read});')
        result.expect_ok()
        self.values[name] = (read, self.line(result))

    def read(self) -> None:
        for name, (read, value) in list(self.values.items()):
            if self.chance.random() < 0.4:
                self.read_one(name, read, value)

    def read_one(self, name: str, read: str, value: str) -> None:
        result = self.run(f'println!("<<{{:?}}>>", {read});')
        if result.ok:
            # What a name stands for now may be another type than that of the value.
            assert self.line(result) in (value, "None"), (name, value, page(result))
            self.kept += 1
        else:
            text = page(result)
            assert f"cannot find value `{name}`" in text, text
            assert re.search(rf"of [^.]*`?{name}`?[^.]* (was|were) redefined", self.told), self.told
            del self.values[name]
            self.lost += 1

    def line(self, result: Result) -> str:
        found = re.search("<<(.*)>>", page(result))
        assert found, page(result)
        return found[1]

    def play(self) -> None:
        self.resize()
        self.define()
        for _ in range(STEPS):
            self.chance.choices([self.define, self.resize, self.rename, self.define_trait, self.make, self.read], [5, 1, 2, 2, 8, 4])[0]()
        for name, (read, value) in list(self.values.items()):
            self.read_one(name, read, value)
        assert self.run('println!("<<{}>>", 1 + 1);').expect_ok()


@pytest.mark.parametrize("place", ["notebook", "engine"])
@pytest.mark.parametrize("seed", [1, 2, None])
def test_no_redefinition_is_felt_by_a_value(fresh_kernel: Kernel, place: str, seed: int | None) -> None:
    seed = random.randrange(10**6) if seed is None else seed
    print(f"seed {seed}")
    prefix = ""
    if place == "engine":
        fresh_kernel.run("%cluster start -n 1", timeout=120).expect_ok()
        prefix = "%%px\n"
    notebook = Notebook(fresh_kernel, random.Random(seed), prefix)
    notebook.play()
    assert notebook.lost + notebook.kept
