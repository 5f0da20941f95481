"""Overlong prompts through the real command: found before step 1, stopped at, dropped, gone on from."""

import json
import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.tiny_runs import REPOSITORY, metrics_of
from typer.testing import CliRunner, Result

from reasonrl.cli.app import app
from reasonrl.runs.identity import CHANGEABLE, is_changeable

PLUGIN = str(Path(__file__).parents[1] / "support" / "prompts_plugin.py")


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--plugin", PLUGIN])


def recipe(folder: Path, model: Path, task: dict[str, Any], **sections: Any) -> Path:
    data = {
        "name": "long",
        "output_dir": str(folder / "runs"),
        "model": {"path": str(model)},
        "task": {"name": "prompts", **task},
        "algorithm": {"name": "grpo"},
        "sampling": {"group_size": 2, "max_prompt_tokens": 50, "max_completion_tokens": 4},
        "trainer": {"steps": 3, "prompts_per_step": 4},
        "logging": {"transcripts_per_step": 99},
        "evaluation": {"every": 0, "suites": {"held_out": {"problems": 3}}},
        **sections,
    }
    path = folder / "long.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def asked(run: Path) -> list[list[str]]:
    """Problem ids of every step."""
    files = sorted((run / "transcripts").glob("step_*.jsonl"))
    rows = [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files]
    return [[row["problem_id"] for row in step if row["sample"] == 0] for step in rows]


def test_one_overlong_prompt_of_a_data_set_is_found_before_step_1(tmp_path: Path, tiny_model: Path) -> None:
    """The last of 3000, which a run of three steps might never see."""
    path = recipe(tmp_path, tiny_model, {"problems": 3000, "long": [2999], "long_tokens": 300})
    refused = cli("train", path)
    assert refused.exit_code == 2
    assert (
        "error: train: 1 of 3,000 prompts are over sampling.max_prompt_tokens=50; the longest, of problem "
        "'prompts/train/2999', has 310 tokens: set sampling.max_prompt_tokens=310; or skip such prompts "
        "with sampling.overlong_prompts=drop" in refused.output
    )
    assert not (tmp_path / "runs").exists()
    assert cli("train", path, "sampling.max_prompt_tokens=310", "trainer.steps=1").exit_code == 0


def test_a_split_is_checked_whole_against_the_models_context(tmp_path: Path, tiny_model: Path) -> None:
    task = {"problems": 100, "long": [77], "long_tokens": 500}
    sampling = {"group_size": 2, "max_prompt_tokens": 2000, "max_completion_tokens": 1600}
    refused = cli("train", recipe(tmp_path, tiny_model, task, sampling=sampling))
    assert refused.exit_code == 2
    assert (
        "1 of 100 prompts are over the 448 tokens that the model's context of 2048 leaves besides "
        "max_completion_tokens=1600; the longest, of problem 'prompts/train/77', has 508 tokens: "
        "set max_completion_tokens=1540" in refused.output
    )
    none_left = cli("train", recipe(tmp_path, tiny_model, task, sampling={**sampling, "max_completion_tokens": 2048}))
    assert none_left.exit_code == 2
    assert "max_completion_tokens=2048 leaves no room for a prompt" in none_left.output


@pytest.mark.parametrize(
    ("overrides", "at"),
    [
        (["sampling.max_completion_tokens=2048"], "sampling.max_completion_tokens"),
        (
            ["evaluation.suites.held_out.max_completion_tokens=4096"],
            "evaluation.suites.held_out.max_completion_tokens",
        ),
    ],
)
def test_completions_over_the_models_context_are_refused_before_it_is_loaded(
    overrides: list[str], at: str, tmp_path: Path, tiny_model: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors", "tokenizer*"))
    path = recipe(tmp_path, tmp_path / "model", {"problems": 100})
    for command in (("recipes", "check"), ("train",)):
        refused = cli(*command, path, *overrides)
        assert refused.exit_code == 2
        assert f"{at}: max_completion_tokens=" in refused.output
        assert "leaves no room for a prompt in the model's context of 2048 tokens; lower it" in refused.output


def test_dropped_problems_of_a_data_set_are_counted_and_never_asked(tmp_path: Path, tiny_model: Path) -> None:
    path = recipe(tmp_path, tiny_model, {"problems": 8, "held_out": 9, "long": [1, 2, 5]})
    done = cli("train", path, "sampling.overlong_prompts=drop")
    assert done.exit_code == 0, done.output
    assert "train: 8 checked, 3 over 50 tokens and dropped, 5 left; longest" in done.output
    assert "held_out: 5 checked, 2 over 50 tokens and dropped, 3 left; longest" in done.output
    assert "held_out: 3 problems x 1" in done.output
    run = tmp_path / "runs" / "long-1"
    first, second, third = asked(run)
    kept = {f"prompts/train/{i}" for i in (0, 3, 4, 6, 7)}
    assert set(first + second[:1]) == set(second[1:] + third[:2]) == kept  # epochs of five
    held_out = (run / "evals" / "step_000000" / "held_out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["problem_id"] for line in held_out] == [f"prompts/eval/{i}" for i in (0, 3, 4)]
    assert json.loads((run / "summary.json").read_text())["eval"]["last"]["problems"] == 3
    assert all("prompt/overlong_dropped" not in line for line in metrics_of(run))


def test_a_small_eval_split_has_the_problems_that_it_has(tmp_path: Path, tiny_model: Path) -> None:
    path = recipe(tmp_path, tiny_model, {"problems": 8, "held_out": 3, "long": [1]})
    done = cli("train", path, "sampling.overlong_prompts=drop", "trainer.steps=1")
    assert done.exit_code == 0, done.output
    assert "held_out: 3 checked, 1 over 50 tokens and dropped, 2 left" in done.output
    asked_again = cli("eval", tmp_path / "runs" / "long-1", "--json")
    assert json.loads(asked_again.stdout)["held_out"]["problems"] == 2


def test_an_endless_task_draws_another_problem_and_counts_it(tmp_path: Path, tiny_model: Path) -> None:
    path = recipe(tmp_path, tiny_model, {"long": [5, 6, 40]})
    refused = cli("train", path)
    assert refused.exit_code == 2
    assert "the prompt of problem 'prompts/train/5' has 107 tokens, over" in refused.output
    assert "; set sampling.max_prompt_tokens=107" in refused.output
    done = cli("train", path, "sampling.overlong_prompts=drop")
    assert done.exit_code == 0, done.output
    assert "train: endless, checked during training; a prompt over 50 tokens is replaced" in done.output
    assert "[2 overlong prompts dropped]" in done.output
    run = tmp_path / "runs" / "long-1"
    assert [line["prompt/overlong_dropped"] for line in metrics_of(run)] == [0.0, 2.0, 0.0]
    other = [f"prompts/train/{i + 2**32}" for i in (5, 6)]
    assert asked(run)[1] == ["prompts/train/4", *other, "prompts/train/7"]

    stuck = cli("train", recipe(tmp_path, tiny_model, {"long": [-1]}), "sampling.overlong_prompts=drop")
    assert stuck.exit_code == 2
    assert "task 'prompts': 100 consecutive prompts are over sampling.max_prompt_tokens=50" in stuck.output


@pytest.mark.parametrize(
    "changes",
    [["sampling.max_prompt_tokens=200"], ["sampling.overlong_prompts=drop"]],
    ids=["raised", "dropped"],
)
def test_a_run_that_an_overlong_prompt_ended_goes_on_with_another_limit(
    tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture, changes: list[str]
) -> None:
    path = recipe(
        tmp_path,
        tiny_model,
        {"long": [41]},
        trainer={"steps": 12, "prompts_per_step": 4},
        checkpoint={"every": 5},
    )
    ended = cli("train", path)
    assert ended.exit_code == 2
    run = tmp_path / "runs" / "long-1"
    again = cli("resume", run)
    assert again.exit_code == 2
    assert "'prompts/train/41' has 108 tokens, over" in again.output
    done = cli("resume", run, *changes)
    assert done.exit_code == 0, done.output
    key = changes[0].partition("=")[0]
    said = {
        "sampling.max_prompt_tokens": "50 -> 200",
        "sampling.overlong_prompts": '"stop" -> "drop"',
    }[key]
    assert f"resumed with {key} {said}: from here on, the results differ" in caplog.text
    assert len(metrics_of(run)) == 12
    assert json.loads((run / "run.json").read_text())["resumed"][-1]["changed"] == {key: said}
    assert yaml.safe_load((run / "recipe.yaml").read_text())["sampling"][key.partition(".")[2]] in (
        200,
        "drop",
    )


OTHER_VALUES = {
    "trainer.steps": "4",
    "sampling.max_prompt_tokens": "60",
    "sampling.overlong_prompts": "drop",
    "trainer.max_tokens_per_microbatch": "64",
    "trainer.offload": "[optimizer]",
    "trainer.max_sampling_rounds": "3",
    "trainer.too_few_groups": "train",
    "model.gradient_checkpointing": "true",
    "model.packing": "false",
    "model.attention": "eager",
    "rollout_backend.max_batch_rows": "2",
    "rewards.sees.isolation": "process",
    "rewards.sees.timeout_s": "9.0",
    "rewards.sees.memory_mb": "4000",
    "evaluation.every": "1",
    "checkpoint.every": "1",
    "checkpoint.keep": "3",
    "logging.transcripts_per_step": "1",
    "device": "cpu",
}


def test_the_page_of_resume_lists_them() -> None:
    page = (REPOSITORY / "docs" / "resume.md").read_text(encoding="utf-8")
    section = page.split("## What you can change")[1].split("\n## ")[0]
    assert [key for key in CHANGEABLE if f"`{key}`" not in section] == []
    assert [key for key in ("sft.max_tokens", *OTHER_VALUES) if not is_changeable(key)] == []


def test_a_run_of_imitation_changes_its_own(tmp_path: Path, tiny_model: Path) -> None:
    data = yaml.safe_load(recipe(tmp_path, tiny_model, {}).read_text(encoding="utf-8"))
    del data["algorithm"], data["trainer"], data["logging"], data["sampling"]["group_size"]
    data["sft"] = {"max_tokens": 200, "tokens_per_batch": 100}
    path = tmp_path / "sft.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    assert cli("sft", path).exit_code == 0
    run = tmp_path / "runs" / "long-1"
    done = cli("resume", run, "sft.max_tokens=400", "sft.max_tokens_per_microbatch=64")
    assert done.exit_code == 0, done.output
    assert len(metrics_of(run)) == 4
    assert json.loads((run / "run.json").read_text())["resumed"][-1]["changed"] == {
        "sft.max_tokens": "200 -> 400",
        "sft.max_tokens_per_microbatch": "8192 -> 64",
    }


def test_every_key_that_may_change_does(tmp_path: Path, tiny_model: Path) -> None:
    """All at once, on one run; those of imitation, template, sharding and staleness have tests of their own."""
    covered = {pattern for pattern in CHANGEABLE if any(fnmatchcase(key, pattern) for key in OTHER_VALUES)}
    assert CHANGEABLE.keys() - covered == {
        "sft.max_tokens",
        "sft.max_tokens_per_microbatch",
        "model.chat_template",
        "model.sharding",
        "trainer.max_staleness",
    }
    rewards = {"sees": {"weight": 1.0, "isolation": "process"}}
    path = recipe(tmp_path, tiny_model, {}, rewards=rewards)
    assert cli("train", path).exit_code == 0
    run = tmp_path / "runs" / "long-1"
    done = cli("resume", run, *(f"{key}={value}" for key, value in OTHER_VALUES.items()))
    assert done.exit_code == 0, done.output
    assert len(metrics_of(run)) == 4
    changed = json.loads((run / "run.json").read_text())["resumed"][-1]["changed"]
    assert changed.keys() == OTHER_VALUES.keys() - {"rewards.sees.isolation"}


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.learning_rate=1",
        "rollout_backend.name=vllm",
        "sampling.max_completion_tokens=9",
        "seed=3",
        "nonsense",
    ],
)
def test_any_other_key_is_kept(tmp_path: Path, tiny_model: Path, override: str) -> None:
    assert cli("train", recipe(tmp_path, tiny_model, {}), "trainer.steps=1").exit_code == 0
    refused = cli("resume", tmp_path / "runs" / "long-1", "trainer.steps=2", override)
    assert refused.exit_code == 2
    assert f"override '{override}': this key cannot change when resuming, only trainer.steps, " in refused.output
