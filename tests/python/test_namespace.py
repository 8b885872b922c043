"""What is known of the variables and what the runtime has never differ, whatever cells, interrupts and deaths come, in whatever order."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass, field

import psutil
import pytest

from chorus_client import Kernel
from live import Live, Request, error_text

STEPS = 25
LOST = "All variables are lost"


@dataclass
class Model:
    """The variables that there should be: name to type and value, as Rust writes them."""

    live: Live
    chance: random.Random
    variables: dict[str, tuple[str, str]] = field(default_factory=dict)
    names: int = 0

    def fresh(self) -> str:
        self.names += 1
        return f"v{self.names}"

    def some_name(self) -> str:
        """A new one, or now and then one that is taken."""
        taken = list(self.variables)
        return self.chance.choice(taken) if taken and self.chance.random() < 0.3 else self.fresh()

    def value(self) -> tuple[str, str, str]:
        """An expression, its type and its value."""
        number = self.chance.randrange(200)
        return self.chance.choice([
            (f"{number}i64", "i64", f"{number}"),
            (f"vec![{number}u8, 1]", "Vec<u8>", f"[{number}, 1]"),
            (f'String::from("s{number}")', "String", f'"s{number}"'),
            (f"(0..{number}).map(|n| n * 2).sum::<i32>()", "i32", f"{sum(n * 2 for n in range(number))}"),
        ])

    # What may happen.

    def define(self) -> None:
        name, (expression, kind, value) = self.some_name(), self.value()
        self.ends_well(self.live.run(f"let {name} = {expression};"))
        self.variables[name] = (kind, value)

    def define_and_interrupt(self) -> None:
        name, (expression, kind, value) = self.some_name(), self.value()
        request = self.live.submit(f"let {name} = {expression};")
        time.sleep(self.chance.random() * 0.4)
        self.live.interrupt().until_reply()
        request.done()
        if request.reply["status"] == "ok":
            self.variables[name] = (kind, value)
        else:
            assert error_text(request.of("error")[0].content).startswith(("The cell was interrupted", "interrupted")), error_text(request.of("error")[0].content)

    def move(self) -> None:
        if moved := self.one_to_move():
            self.ends_well(self.live.run(f"drop({moved});"))
            del self.variables[moved]

    def panic(self) -> None:
        moved = self.one_to_move()
        self.fails(self.live.run(f"let {self.fresh()} = 1u8;\n" + (f"drop({moved});\n" if moved else "") + 'panic!("on purpose");'))
        self.variables.pop(moved, None)

    def return_early(self) -> None:
        self.fails(self.live.run(f'let {self.fresh()} = "no".parse::<i32>()?;'))

    def die(self) -> None:
        self.fails(self.live.run(f"let {self.some_name()} = 1u8;\nstd::process::abort();"))

    def fail_to_compile(self) -> None:
        self.fails(self.live.run(f'let {self.some_name()}: i32 = "no";'))

    def redefine_a_type(self) -> None:
        name = self.fresh()
        self.ends_well(self.live.run(f"#[derive(Debug)]\nstruct T{name}(i32);\nlet {name} = T{name}(1);"))
        self.ends_well(self.live.run(f"#[derive(Debug)]\nstruct T{name}(i64);"))

    def kill_the_runtime(self) -> None:
        """Its supervisor, its worker, or the copy that a dead cell comes back from."""
        runtimes = self.processes("runtime")
        if runtimes:
            killed = self.chance.choice(runtimes)
            killed.kill()
            psutil.wait_procs([killed], timeout=10)
            # Which of two cells hears of it is a matter of moments.
            for _ in range(2):
                told = self.live.run("()")
                if LOST in told.stream("stderr") + "".join(error_text(event.content) for event in told.of("error")):
                    self.variables.clear()

    def kill_the_stub(self) -> None:
        for process in self.processes("stub"):
            process.kill()

    # What follows.

    def one_to_move(self) -> str | None:
        movable = [name for name, (kind, _) in self.variables.items() if kind in ("String", "Vec<u8>")]
        return self.chance.choice(movable) if movable else None

    def processes(self, role: str) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.live.kernel.pid).children(recursive=True):
            try:
                if process.cmdline()[1:2] == [role] and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def ends_well(self, request: Request) -> None:
        assert request.reply["status"] == "ok", error_text(request.of("error")[0].content)

    def fails(self, request: Request) -> None:
        assert request.reply["status"] == "error"

    def check(self) -> None:
        listed = self.live.run(":vars").text or ""
        pairs = re.findall(r"^(\w+): (.+)$", listed, re.MULTILINE)
        assert {name: re.sub(r"\w+::", "", kind) for name, kind in pairs} == {name: kind for name, (kind, _) in self.variables.items()}

    def check_values(self) -> None:
        parts = ", ".join(f'format!("{{{name}:?}}")' for name in self.variables)
        shown = self.live.run(f"println!(\"{{}}\", vec![String::new(), {parts}].join(\"\\n\"));")
        self.ends_well(shown)
        assert shown.stdout.split("\n")[1:-1] == [value for _, value in self.variables.values()]


@pytest.mark.parametrize("seed", range(4))
def test_the_compiler_and_the_runtime_agree(fresh_kernel: Kernel, seed: int) -> None:
    model = Model(Live(fresh_kernel), random.Random(seed))
    steps = [
        *[model.define, model.define_and_interrupt] * 3, model.move, model.panic, model.return_early, model.die, model.fail_to_compile,
        model.redefine_a_type, model.kill_the_runtime, model.kill_the_stub,
    ]
    for number in range(STEPS):
        step = model.chance.choice(steps)
        print(number, step.__name__)
        step()
        model.check()
        if number % 5 == 4:
            model.check_values()
    model.check_values()
