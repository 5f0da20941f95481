"""`reasonrl chat`: answers stream, conversations go on, problems are judged."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.small_recipes import PLUGIN, recipe
from typer.testing import CliRunner, Result

from reasonrl.cli.app import app
from reasonrl.cli.chat import read_lines
from reasonrl.runs.chat import Streamer
from reasonrl.testing.models import byte_tokenizer

VERDICT = re.compile(r"\[(correct|wrong|unscored)( - [^;\]]*)?; \d+ tokens, finish reason \w+\]")


def chat(lines: str, *arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["chat", *map(str, arguments), "--plugin", PLUGIN], input=lines)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def counting(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recipe(tmp_path_factory.mktemp("chat"), tiny_model)


def test_a_line_is_a_turn_and_the_seed_fixes_the_answers(tiny_model: Path) -> None:
    lines = "hello\n\nagain\n/reset\nhello\n"
    first = chat(lines, tiny_model, "--max-tokens", 8, "--seed", 3)
    assert first.stdout == chat(lines, tiny_model, "--max-tokens", 8, "--seed", 3).stdout
    assert first.stdout != chat(lines, tiny_model, "--max-tokens", 8, "--seed", 4).stdout
    greedy = chat("hello\n/reset\nhello\n", tiny_model, "--max-tokens", 8, "--temperature", 0).stdout
    assert greedy[: len(greedy) // 2] == greedy[len(greedy) // 2 :] != ""


def test_the_conversation_is_part_of_the_prompt_unless_it_is_raw(tiny_model: Path) -> None:
    def last(lines: str, *more: object) -> str:
        return chat(lines, tiny_model, "--max-tokens", 12, *more).stdout[-24:]

    assert last("abc\nx\n", "--raw") == last("uvw\nx\n", "--raw")
    assert last("abc\nx\n") != last("uvw\nx\n")
    assert last("/system Be brief.\nx\n") != last("x\n") == last("/system y\n/reset\nx\n")
    assert "takes no system message" in chat("/system x\n", tiny_model, "--raw", code=2).stderr


def test_a_problem_is_drawn_shown_answered_and_judged(counting: Path, tiny_model: Path) -> None:
    done = chat("/problem\n/problem\n", tiny_model, "--recipe", counting)
    assert len(VERDICT.findall(done.stdout)) == 2
    first, second = done.stdout.splitlines()[0], VERDICT.split(done.stdout)[-3].strip().splitlines()[0]
    assert first != second, "the next problem is another one"
    assert "no task to draw a problem from" in chat("/problem\n", tiny_model, code=2).stderr
    assert "unknown command /probelm" in chat("/probelm\n", tiny_model, code=2).stderr
    assert "/reset" in chat("/help\n/exit\nnever read", tiny_model).stderr


def test_a_conversation_that_is_too_long_says_what_to_do(tiny_model: Path) -> None:
    done = chat("y" * 2100 + "\n", tiny_model, code=2)
    assert "but the model's context is 2048; start a new one with /reset" in done.stderr


def test_pieces_are_whole_characters_and_add_up() -> None:
    tokenizer, pieces = byte_tokenizer(), list[str]()
    text = "né 数学 🙂 end"
    streamer = Streamer(tokenizer, (256,), pieces.append)
    streamer.put(torch.tensor([[1, 2, 3]]))
    for token in [*tokenizer.encode(text), 256]:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert "".join(pieces) == streamer.text == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(pieces) == len(text)
    assert streamer.has_ended


def test_end_of_input_and_ctrl_c_end_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (EOFError, KeyboardInterrupt):
        told = iter(["one", " ", error])

        def ask(prompt: str, told: object = told) -> str:
            said = next(told)  # type: ignore[call-overload]
            if isinstance(said, str):
                return said
            raise said

        monkeypatch.setattr("builtins.input", ask)
        assert list(read_lines(is_terminal=True)) == ["one"]


@pytest.mark.slow
def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(tiny_model: Path) -> None:
    command = [sys.executable, "-u", "-m", "reasonrl", "chat", str(tiny_model), "--max-tokens", "2000"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("hello\n")
    process.stdin.flush()
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate("/reset\n", timeout=120)
    assert process.returncode == 0, out
