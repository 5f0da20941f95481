"""Whole runs of a task that replies: what is stored, what is refused, and a resume."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.chat_templates import chat_model
from support.resume_runs import TALKING, assert_same_run, cut_back, go, whole_run
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.errors import RecipeError

TRAINER = {"steps": 3, "prompts_per_step": 4, "minibatches": 2}
SAMPLING = {"group_size": 2, "max_prompt_tokens": 20, "max_completion_tokens": 30, "stop": [*"aeiou"]}
TEMPLATES = Path(__file__).parents[1] / "support" / "templates"
TALK: dict[str, Any] = {"task": {"name": "talk"}, "sampling": SAMPLING, "trainer": TRAINER}


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(tmp_path_factory.mktemp("talk"), tiny_model, **TALK)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_both_sides_are_stored_and_counted_apart(run: Path) -> None:
    records = [record for path in sorted(run.glob("transcripts/**/*.jsonl")) for record in lines(path)]
    spoken = [record for record in records if len(record["messages"]) > 1]
    assert spoken
    for record in spoken:
        assert [m["role"] for m in record["messages"]] == (["assistant", "user"] * 9)[: len(record["messages"])]
        assert (
            record["environment_tokens"] == sum(len(m["content"]) for m in record["messages"] if m["role"] == "user")
            or "<|endoftext|>" in record["completion"]
        )
        assert all(m["content"] in record["completion"] for m in record["messages"])
    for line in lines(run / "metrics.jsonl"):
        assert 1 <= line["conversation/turns"] <= line["conversation/turns_max"] <= 4
        assert line["conversation/environment_tokens"] >= 0
        assert line["train/length_tokens"] + line["conversation/environment_tokens"] <= 30
        assert line["rollout/logprob_gap"] < 1e-4, "trainer and sampler agree on every sampled token"


def test_a_resumed_run_is_the_same(run: Path, tmp_path: Path) -> None:
    copy = cut_back(run, tmp_path / "from-1", 1)
    go(None, copy)
    assert_same_run(run, copy)


def test_a_conversation_can_be_generated(run: Path) -> None:
    done = CliRunner().invoke(app, ["generate", str(run), "-n", "3", "--plugin", TALKING])
    assert done.exit_code == 0, done.output
    assert "messages," in done.stdout
    assert done.stdout.count("\nmodel: ") > done.stdout.count("\ntask: [") > 0


def test_a_problem_of_a_chat_is_a_conversation(run: Path) -> None:
    """The model of the run says anything, and the task replies with its length."""
    asked = ["chat", str(run), "--plugin", TALKING, "--seed", "1"]
    done = CliRunner().invoke(app, asked, input="/problem\n/problem\n/problem\n/problem\n")
    assert done.exit_code == 0, done.output
    replies = re.findall(r"\ntask: \[\d+\]\nmodel: ", done.stdout)
    assert replies
    assert done.stdout.count("model: ") == len(replies) + 4
    assert len(re.findall(r"\[(?:correct|wrong)[^\n]* tokens, finish reason", done.stdout)) == 4


def test_a_person_can_play_the_task(run: Path) -> None:
    asked = ["generate", str(run), "--play", "--plugin", TALKING]
    done = CliRunner().invoke(app, asked, input="say more\nand more\n\n")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("model: ") >= 1
    assert "you: say more" in done.stdout
    assert "task: " not in done.stdout
    assert " messages, " in done.stdout
    refused = CliRunner().invoke(app, [*asked, "-n", "2"])
    assert refused.exit_code == 2
    assert "--play is for one completion" in refused.output


@pytest.mark.parametrize("template", ["qwen3", "qwen2_5"])
def test_a_template_that_rewrites_the_past_is_refused_with_the_ways_out(template: str, tmp_path: Path) -> None:
    model = chat_model(tmp_path / "model", (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8"))
    sections: dict[str, Any] = {"task": {"name": "chat"}, "trainer": {"steps": 1, "prompts_per_step": 2}}
    roomy = {**SAMPLING, "max_prompt_tokens": 200, "max_completion_tokens": 99, "group_size": 1}
    if template == "qwen2_5":
        whole_run(tmp_path, model, sampling=roomy, **sections)
        return
    with pytest.raises(RecipeError, match="drops the thinking of earlier messages") as refused:
        whole_run(tmp_path, model, sampling=roomy, **sections)
    assert not (tmp_path / "whole").exists()
    for way_out in ("model.chat_template=FILE.jinja", "sampling.rewritten_history=keep"):
        assert way_out in str(refused.value)
    whole_run(tmp_path, model, sampling={**roomy, "rewritten_history": "keep"}, **sections)
