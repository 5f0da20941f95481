"""``tasks preview --recipe``: the prompts of a recipe, as its model is asked them."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny_runs import tiny
from typer.testing import CliRunner

from reasonrl.cli.app import app

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}<assistant>"


def preview(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["tasks", "preview", *arguments], env={"COLUMNS": "200"})


def test_a_packaged_recipe_shows_its_own_prompts() -> None:
    done = preview("--recipe", "countdown_ppo", "-n", "2", "--split", "eval", "--json")
    assert done.exit_code == 0, done.output
    entries = json.loads(done.stdout)
    assert len(entries) == 2
    for entry in entries:
        assert entry["prompt_text"] == entry["prompt"]
        assert entry["prompt_text"].startswith("Numbers: "), "the recipe's template is compact"
        assert max(entry["info"]["numbers"]) <= 20, "and its numbers are small"
        assert 5 < entry["prompt_tokens"] <= 64
        assert 5 < entry["reference_tokens"] <= 220
        assert entry["reference_reward"] == 1.0
    assert "loading the tokenizer" in done.stderr


def test_overrides_and_what_people_see(tiny_model: Path) -> None:
    arguments = tiny(tiny_model, "task.template=compact", "task.max_numbers=4")
    done = preview("--recipe", "countdown_ppo", *arguments, "-n", "1")
    assert done.exit_code == 0, done.output
    head = done.stdout.splitlines()
    assert head[0].startswith("recipe  ")
    assert head[0].endswith("countdown_ppo.yaml")
    assert head[1].startswith("task    countdown: min_numbers=3, ")
    assert "template=compact" in head[1]
    assert "max_numbers=4" in head[1]
    assert head[2] == f"model   {tiny_model}"
    assert "  tokens: " in done.stdout
    assert " of 512" in done.stdout
    assert " of 12" in done.stdout


def test_a_chat_template_renders_the_prompt(tiny_model: Path, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text(CHAT)
    more = (f"model.chat_template={template}", "task.template=chat")
    arguments = (*tiny(tiny_model, *more), "-n", "1", "--json")
    done = preview("--recipe", "countdown_ppo", *arguments)
    assert done.exit_code == 0, done.output
    (entry,) = json.loads(done.stdout)
    assert entry["prompt_text"].startswith("<system>You are a helpful assistant.")
    assert "<assistant>" in entry["prompt_text"]
    assert isinstance(entry["prompt"], list)
    assert entry["reference_reward"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "missing TASK; expected a name from `reasonrl tasks list`, or --recipe RECIPE"),
        (
            ["countdown", "--recipe", "countdown_ppo"],
            "expected overrides such as task.template=chat, got 'countdown'",
        ),
        (["--recipe", "countdwn_ppo"], "did you mean 'countdown_ppo'?"),
        (["--recipe", "countdown_ppo", "task.max_number=x"], "task.max_number must be an integer, got 'x'"),
        (["--recipe", "countdown_ppo", "model.path=nowhere/at-all", "model.name=null"], "nowhere/at-all"),
    ],
)
def test_what_cannot_be_previewed_is_refused_in_one_line(arguments: list[str], said: str) -> None:
    done = preview(*arguments)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.stdout == ""
    assert error == done.stderr.splitlines()[-1]
