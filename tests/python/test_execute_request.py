"""Every option of execute_request: silent, store_history, user_expressions, allow_stdin, stop_on_error; and the counter."""

from __future__ import annotations

import pytest

from chorus_client import Kernel
from engines import Flag
from live import Live, check_states, error_text


def test_execute_input_comes_first_with_code_and_count(kernel: Kernel) -> None:
    result = kernel.run("40 + 2").expect_ok()
    kinds = [m["msg_type"] for m in result.messages]
    assert kinds == ["status", "execute_input", "execute_result", "status"]
    [given] = result.of_type("execute_input")
    assert given["content"]["code"] == "40 + 2"
    assert given["content"]["execution_count"] == result.content["execution_count"]
    [value] = result.of_type("execute_result")
    assert value["content"]["execution_count"] == result.content["execution_count"]
    assert value["content"]["data"]["text/plain"].strip() == "42"
    assert value["content"]["metadata"] == {}
    assert result.content["user_expressions"] == {}
    assert result.content["payload"] == []


def test_count_goes_up_by_one_also_after_an_error(kernel: Kernel) -> None:
    first = kernel.run("let counted = 1;").content["execution_count"]
    assert kernel.run('panic!("counted too")').content["execution_count"] == first + 1
    assert kernel.run("counted + nonsense").content["execution_count"] == first + 2
    assert kernel.run("counted").content["execution_count"] == first + 3


@pytest.mark.parametrize("code", ["", "   ", "\n\n"])
def test_an_empty_cell_is_fine(kernel: Kernel, code: str) -> None:
    result = kernel.run(code).expect_ok()
    assert not result.of_type("execute_result", "stream", "error")


def test_silent_shows_and_counts_nothing_but_acts(kernel: Kernel) -> None:
    before = kernel.run("let loud = 1;").content["execution_count"]
    quiet = kernel.run("let hushed = 5;", silent=True).expect_ok()
    value = kernel.run("hushed * 100", silent=True).expect_ok()
    for result in (quiet, value):
        assert not result.of_type("execute_input", "execute_result"), "silent must not broadcast"
    after = kernel.run("hushed + loud").expect_ok()
    assert after.text.strip() == "6"
    assert after.content["execution_count"] == before + 1


def test_store_history_false_neither_counts_nor_is_kept(kernel: Kernel) -> None:
    before = kernel.run("let remembered = 1;").content["execution_count"]
    unstored = kernel.run("remembered + 70001", store_history=False).expect_ok()
    assert unstored.text.strip() == "70002", "only history is off, not output"
    after = kernel.run("remembered + 70002").expect_ok()
    assert after.content["execution_count"] == before + 1
    tail = kernel.request("history_request", {"hist_access_type": "tail", "n": 5, "output": False, "raw": True}).content["history"]
    sources = [entry[2] for entry in tail]
    assert "remembered + 70002" in sources
    assert "remembered + 70001" not in sources


def test_user_expressions_are_evaluated_after_the_cell(kernel: Kernel) -> None:
    result = kernel.run("let base = 20;", user_expressions={"twice": "base * 2", "text": 'format!("<{base}>")', "bad": "no_such_name", "boom": 'panic!("in an expression")'}).expect_ok()
    values = result.content["user_expressions"]
    assert set(values) == {"twice", "text", "bad", "boom"}
    assert values["twice"]["status"] == "ok"
    assert values["twice"]["data"]["text/plain"].strip() == "40"
    assert values["twice"]["metadata"] == {}
    assert values["text"]["data"]["text/plain"].strip() == '"<20>"'
    assert values["bad"]["status"] == "error"
    assert "no_such_name" in error_text(values["bad"])
    assert values["boom"]["status"] == "error"
    assert values["boom"]["ename"] == "panic"
    assert values["boom"]["evalue"] == "in an expression"
    assert not result.of_type("execute_result", "error"), "expressions answer in the reply only"
    assert kernel.run("base").expect_ok().text.strip() == "20"


def test_user_expressions_are_left_out_when_the_cell_fails(kernel: Kernel) -> None:
    result = kernel.run('panic!("first")', user_expressions={"one": "1"})
    assert result.status == "error"
    assert not result.content.get("user_expressions")


@pytest.fixture(scope="module")
def with_input(module_kernel: Kernel) -> None:
    module_kernel.run(':dep evcxr_input = "1.0.0"\nfn ask(prompt: &str) -> String { evcxr_input::get_string(prompt) }', timeout=180).expect_ok()


def test_stdin_asks_with_prompt_and_password_flag(kernel: Kernel, with_input: None) -> None:
    live = Live(kernel)
    cell = live.submit('let name = evcxr_input::get_string("Name? "); let secret = evcxr_input::get_password("Password? "); println!("{name}/{secret}");', allow_stdin=True)
    asked = cell.until_input()
    assert asked == {"prompt": "Name? ", "password": False} or asked == {"prompt": "Name?", "password": False}
    live.answer("Ada Lovelace")
    asked = cell.until(lambda e: e.channel == "stdin" and e.content["password"]).content
    assert asked["prompt"].strip() == "Password?"
    live.answer("çà🦀")
    cell.done()
    assert cell.reply["status"] == "ok"
    assert cell.stdout == "Ada Lovelace/çà🦀\n"


def test_stdin_many_questions(kernel: Kernel, with_input: None) -> None:
    answers = [f"answer {n}" for n in range(20)]
    result = kernel.run('for n in 0..20 { println!("{}", ask(&format!("{n}?"))); }', answers=answers).expect_ok()
    assert result.stdout == "".join(f"{answer}\n" for answer in answers)


def test_stdin_not_allowed_does_not_ask_and_does_not_hang(kernel: Kernel, with_input: None) -> None:
    live = Live(kernel)
    cell = live.submit('println!("[{}]", ask("Anyone?"));', allow_stdin=False).done(timeout=20)
    assert not [e for e in cell.events if e.channel == "stdin"], "asked although the client forbids it"
    assert cell.reply["status"] in ("ok", "error")
    assert kernel.run("1 + 1").expect_ok().text.strip() == "2"


def test_plain_stdin_never_hangs(kernel: Kernel) -> None:
    """std::io::stdin() without a client that answers reads the end of the file."""
    live = Live(kernel)
    cell = live.submit("let mut line = String::new(); let n = std::io::stdin().read_line(&mut line).unwrap(); println!(\"{n}\");", allow_stdin=False).done(timeout=20)
    assert cell.stdout == "0\n"


def test_interrupt_while_asking(kernel: Kernel, with_input: None) -> None:
    live = Live(kernel)
    cell = live.submit('ask("Never answered? ");', allow_stdin=True)
    cell.until_input()
    live.interrupt().done()
    assert cell.done(timeout=10).reply["status"] == "error"
    assert kernel.run('ask("Again?")', answers=["yes"]).expect_ok().text.strip() == '"yes"'


def test_stop_on_error_aborts_what_is_queued(kernel: Kernel, flag: Flag) -> None:
    live = Live(kernel)
    failing = live.submit(f'{flag.wait()} panic!("stop here")')
    queued = [live.submit(f'println!("must not run {n}");') for n in range(3)]
    between = live.send("kernel_info_request")
    live.settle_queue()
    flag.raise_()
    live.settle()
    assert failing.reply["status"] == "error"
    for cell in queued:
        assert cell.reply["status"] == "aborted"
        assert not cell.of("stream", "execute_result", "error")
        check_states(cell)
    assert between.reply["status"] == "ok", "only execute requests are aborted"
    assert live.run('println!("on we go");').stdout == "on we go\n"


def test_without_stop_on_error_what_is_queued_runs(kernel: Kernel, flag: Flag) -> None:
    live = Live(kernel)
    failing = live.submit(f'{flag.wait()} panic!("go on")', stop_on_error=False)
    queued = [live.submit(f"{n} + 1") for n in range(3)]
    live.settle_queue()
    flag.raise_()
    live.settle()
    assert failing.reply["status"] == "error"
    assert [cell.text.strip() for cell in queued] == ["1", "2", "3"]


@pytest.mark.parametrize("code", ['let x: i32 = "no";', "std::process::exit(3)", "no_such_thing()", ":no_such_command"])
def test_every_kind_of_error_stops(kernel: Kernel, flag: Flag, code: str) -> None:
    live = Live(kernel)
    # The first cell holds the shell until the other two are queued.
    holding = live.submit(f'println!("held"); {flag.wait()}')
    failing, queued = live.submit(code), live.submit('println!("must not run");')
    holding.until_output("held")
    live.settle_queue()
    flag.raise_()
    live.settle()
    assert failing.reply["status"] == "error"
    assert queued.reply["status"] == "aborted"


def test_many_cells_queued_at_once_run_in_order(kernel: Kernel) -> None:
    live = Live(kernel)
    live.run("let mut order: Vec<i32> = Vec::new();")
    cells = [live.submit(f"order.push({n});") for n in range(10)]
    live.settle()
    assert {cell.reply["status"] for cell in cells} == {"ok"}
    counts = [cell.reply["execution_count"] for cell in cells]
    assert counts == list(range(counts[0], counts[0] + 10))
    for cell in cells:
        check_states(cell)
    assert live.run("order").text.strip() == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"
