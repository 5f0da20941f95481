"""Models with chat templates of many shapes, trained through the real command."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.chat_templates import CHATML, FOLDS_SYSTEM, OPENS_THINKING, QWEN3, R1, SHAPES, chat_model
from transformers import AutoTokenizer
from typer.testing import CliRunner, Result

from reasonrl.cli.app import app

PLUGIN = str(Path(__file__).parents[1] / "support" / "prompts_plugin.py")


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--plugin", PLUGIN])


def recipe(folder: Path, model: dict[str, Any], **sections: Any) -> Path:
    data = {
        "name": "chat",
        "output_dir": str(folder / "runs"),
        "model": model,
        "task": {"name": "prompts", "form": "chat"},
        "rewards": {"sees": {"weight": 1.0}, "sees_isolated": {"weight": 1.0}},
        "algorithm": {"name": "grpo"},
        "sampling": {"group_size": 2, "max_prompt_tokens": 200, "max_completion_tokens": 4},
        "trainer": {"steps": 1, "prompts_per_step": 2},
        "evaluation": {"every": 0, "suites": {"held_out": {"problems": 2}}},
        **sections,
    }
    path = folder / "chat.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}), encoding="utf-8")
    return path


def rows(run: Path) -> list[dict[str, Any]]:
    lines = (run / "transcripts" / "step_000001.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["chat", "prefix"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_with_every_shape_of_template(tmp_path: Path, shape: str, form: str) -> None:
    """Rewards, isolated or not, see the prompt's end, and ``<think>`` is opened once."""
    model = chat_model(tmp_path / "model", SHAPES[shape])
    done = cli("train", recipe(tmp_path, {"path": str(model)}, task={"name": "prompts", "form": form}))
    assert done.exit_code == 0, done.output
    assert ("no system role, so" in done.output) == (shape in FOLDS_SYSTEM)
    is_open = form == "prefix" or shape in OPENS_THINKING
    for row in rows(tmp_path / "runs" / "chat-1"):
        assert row["components"] == {"sees": float(is_open), "sees_isolated": float(is_open)}
        text = row["prompt_text"]
        assert row["reasons"] == {"sees": text[-40:], "sees_isolated": text[-40:]}
        assert text.count("<think>") == int(is_open)
        assert "Think first." in text
        assert ("Step by step." in text) == (form == "prefix" and shape not in OPENS_THINKING)


def test_countdowns_chat_prompt_opens_the_reasoning_once_with_a_template_that_opens_it(
    tmp_path: Path,
) -> None:
    model = chat_model(tmp_path / "model", R1)
    path = recipe(
        tmp_path,
        {"path": str(model)},
        task={"name": "countdown", "template": "chat"},
        rewards=None,
        sampling={"group_size": 2, "max_prompt_tokens": 600, "max_completion_tokens": 4},
    )
    done = cli("train", path)
    assert done.exit_code == 0, done.output
    for row in rows(tmp_path / "runs" / "chat-1"):
        assert row["prompt_text"].endswith("<｜Assistant｜><think>\n")
        assert row["prompt_text"].count("<think>") == 2  # the question names the tags


def test_arguments_reach_the_template_and_stay_with_the_saved_model(tmp_path: Path) -> None:
    model = chat_model(tmp_path / "model", QWEN3)
    path = recipe(tmp_path, {"path": str(model), "chat_template_args": {"enable_thinking": False}})
    done = cli("train", path)
    assert done.exit_code == 0, done.output
    assert "enable_thinking = false" in done.output
    run = tmp_path / "runs" / "chat-1"
    (text, *_) = {row["prompt_text"] for row in rows(run)}
    assert text.endswith("<think>\n\n</think>\n\n")
    saved = AutoTokenizer.from_pretrained(run / "checkpoints" / "step_000001")
    talk = [{"role": "user", "content": "hi"}]
    assert saved.apply_chat_template(talk, tokenize=False, add_generation_prompt=True).endswith("</think>\n\n")
    refused = cli("resume", run, "trainer.steps=2", "model.chat_template_args.enable_thinking=true")
    assert refused.exit_code == 2
    assert cli("resume", run, "trainer.steps=2").exit_code == 0


def test_another_template_stays_with_the_saved_model_and_is_part_of_the_runs_identity(tmp_path: Path) -> None:
    model = chat_model(tmp_path / "model", "{{ raise_exception('tools are required') }}")
    file = tmp_path / "mine.jinja"
    file.write_text(R1, encoding="utf-8")
    path = recipe(tmp_path, {"path": str(model)})
    refused = cli("train", path)
    assert refused.exit_code == 2
    assert "error: problem 'prompts/train/0': the model's chat template cannot render it: " in refused.output
    assert "tools are required; set its variables with model.chat_template_args" in refused.output
    assert not (tmp_path / "runs").exists()

    done = cli("train", path, f"model.chat_template={file}")
    assert done.exit_code == 0, done.output
    run = tmp_path / "runs" / "chat-1"
    saved = run / "checkpoints" / "step_000001" / "chat_template.jinja"
    assert saved.read_text(encoding="utf-8") == R1
    moved = tmp_path / "moved.jinja"
    file.rename(moved)
    asked = cli("generate", run)  # the saved tokenizer has it
    assert asked.exit_code == 0, asked.output
    assert "system: Think first.\n\nuser: eval 0\n" in asked.output
    lost = cli("resume", run, "trainer.steps=2")
    assert lost.exit_code == 2
    assert "model.chat_template: no such file" in lost.output
    assert cli("resume", run, "trainer.steps=2", f"model.chat_template={moved}").exit_code == 0
    moved.write_text(R1 + " ", encoding="utf-8")
    changed = cli("resume", run, "trainer.steps=3")
    assert changed.exit_code == 2
    assert "tokenizer.sha256" in changed.output


def test_a_preview_shows_turns(tmp_path: Path) -> None:
    shown = cli("tasks", "preview", "prompts", "-n", "1", "form=prefix")
    assert shown.exit_code == 0, shown.output
    lines = [line.removeprefix("  | ") for line in shown.output.splitlines()]
    turns = ["system: Think first.", "user: train 0", "assistant: Step by step."]
    assert [line for line in lines if line.partition(":")[0] in ("system", "user", "assistant")] == turns
    as_json = json.loads(cli("tasks", "preview", "prompts", "-n", "1", "form=prefix", "--json").stdout)
    assert [turn["role"] for turn in as_json[0]["prompt"]] == ["system", "user", "assistant"]


TOOL = CHATML + "{% if add_generation_prompt %}<tool>{% endif %}"


@pytest.mark.parametrize(
    ("template", "task", "holds"),
    [
        (CHATML, {"say": "<tool>", "problems": 40}, "the prompt of problem 'prompts/train/0'"),
        (CHATML, {"say": "<tool>"}, "the prompt of problem 'prompts/train/0'"),
        (TOOL, {"form": "chat"}, "the prompt of problem 'prompts/train/0'"),
        (CHATML, {"form": "chat"}, ""),
    ],
    ids=["data set", "endless", "template", "never"],
)
def test_an_added_token_that_the_model_lacks_is_refused_only_where_it_occurs(
    tmp_path: Path, template: str, task: dict[str, Any], holds: str
) -> None:
    model = chat_model(tmp_path / "model", template)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<tool>"], special_tokens=True)
    tokenizer.save_pretrained(model)
    done = cli("train", recipe(tmp_path, {"path": str(model)}, task={"name": "prompts", **task}))
    assert (done.exit_code == 0) == (not holds), done.output
    if holds:
        assert done.exit_code == 2
        assert f"error: {holds} contains token '<tool>' (id 258), but the model has 258 embeddings; " in done.output
        assert not (tmp_path / "runs").exists()
