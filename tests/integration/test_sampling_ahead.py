"""``trainer.max_staleness: 1``: the next step's prompts are sampled during the update, by weights that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.ahead_runs import OPTIMIZER_STEPS, STEPS, events, sections
from support.resume_runs import assert_same_run, cut_back, go, metrics_without_times, resumable_recipe, whole_run

from reasonrl.errors import CheckpointError
from reasonrl.rundir.layout import MANIFEST, PENDING, step_dir
from reasonrl.rundir.manifest import write_manifest


def test_every_step_trains_on_samples_of_the_weights_before_the_last_update(tiny_model: Path, tmp_path: Path) -> None:
    run = whole_run(tmp_path, tiny_model, **sections(tmp_path, evaluation={"every": 0}))
    metrics = metrics_without_times(run)
    assert [line["policy/version"] for line in metrics] == [OPTIMIZER_STEPS * step for step in range(1, STEPS + 1)]
    behind = [0, *[OPTIMIZER_STEPS] * (STEPS - 1)]
    assert [line["rollout/staleness"] for line in metrics] == behind
    assert [line["rollout/staleness_max"] for line in metrics] == behind
    assert metrics[0]["rollout/logprob_gap_max"] < 1e-4
    for line in metrics[1:]:
        assert "rollout/logprob_gap" not in line
        assert line["policy/kl_stale_k3"] > 1e-4
    rounds = [(line["version"], set(line["problems"])) for line in events(tmp_path, "began")]
    problems = [f"numbers/train/{i}" for i in range(4 * STEPS)]
    assert rounds == [
        (max(0, OPTIMIZER_STEPS * (step - 1)), set(problems[4 * step : 4 * step + 4])) for step in range(STEPS)
    ]


def test_sampling_goes_on_during_the_update_and_ends_before_the_weights_change(
    tiny_model: Path, tmp_path: Path
) -> None:
    """By the order of events, whatever the machine's speed: the engine takes longer than the update."""
    slow = sections(tmp_path, stub={"latency_s": 0.6}, evaluation={"every": 0}, checkpoint={"every": 0})
    go(resumable_recipe(tmp_path, tiny_model, **slow), tmp_path / "run")
    order = [line.get("step", line["event"]) for line in events(tmp_path) if line["event"] != "stepped" or line["step"]]
    beginning = ["synced", "began", "ended", "began", 1, "ended"]
    between = [event for step in range(2, STEPS) for event in ("synced", "began", step, "ended")]
    assert order == [*beginning, *between, "synced", STEPS, "closed"]


def evaluations(run: Path) -> dict[str, list[str]]:
    return {path.parent.name: path.read_text().splitlines() for path in run.glob("evals/*/held_out.jsonl")}


def test_an_evaluation_waits_for_the_round_and_uses_the_newest_weights(tiny_model: Path, tmp_path: Path) -> None:
    often = {"every": 1, "suites": {"held_out": {"problems": 2}}}
    slow = sections(tmp_path, stub={"latency_s": 0.2}, evaluation=often)
    run = whole_run(tmp_path, tiny_model, **slow)
    busy = 0
    for line in events(tmp_path, "began", "ended"):
        busy += {"began": 1, "ended": -1}[line["event"]]
        assert busy in (0, 1), "the engine samples one thing at a time"
    evaluated = [line["version"] for line in events(tmp_path, "began") if "/eval/" in line["problems"][0]]
    assert evaluated == [OPTIMIZER_STEPS * step for step in range(STEPS + 1)]
    assert len(evaluations(run)) == STEPS + 1
    without = whole_run(tmp_path / "other", tiny_model, **sections(tmp_path / "other", evaluation={"every": 0}))
    keys = ("train/reward", "loss/total", "optim/grad_norm")
    both = [[[line[key] for key in keys] for line in metrics_without_times(one)] for one in (run, without)]
    assert both[0] == both[1], "evaluating changes nothing"


@pytest.mark.slow
def test_an_evaluation_finds_what_a_synchronous_run_finds_with_these_weights(tiny_model: Path, tmp_path: Path) -> None:
    """Before the first step, and after it: both runs have made the same update by then."""
    often = {"every": 1, "suites": {"held_out": {"problems": 4, "temperature": 1.0}}}
    found = []
    for staleness in (0, 1):
        folder = tmp_path / str(staleness)
        options = sections(folder, trainer={"steps": 2, "max_staleness": staleness}, evaluation=often)
        found.append(evaluations(whole_run(folder, tiny_model, **options)))
    for step in ("step_000000", "step_000001"):
        assert found[0][step] == found[1][step]
    assert found[0]["step_000000"] != found[0]["step_000001"]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param({}, id="plain"),
        pytest.param({"algorithm": {"name": "ppo"}, "critic": {"kind": "shared"}}, id="ppo", marks=pytest.mark.slow),
        pytest.param(
            {
                "task": {"name": "talk"},
                "sampling": {
                    "group_size": 2,
                    "max_prompt_tokens": 20,
                    "max_completion_tokens": 24,
                    "stop": ["a", "b", "c", "d"],
                },
            },
            id="conversations",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"algorithm": {"name": "picky"}, "trainer": {"carry_groups": False}}, id="filtered", marks=pytest.mark.slow
        ),
    ],
)
def test_a_run_resumed_after_any_step_is_bit_exact(kind: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    run = whole_run(tmp_path, tiny_model, **sections(tmp_path, **kind))
    for step in range(1, STEPS):
        copy = cut_back(run, tmp_path / f"from-{step}", step)
        assert len((copy / "checkpoints" / f"step_{step:06d}" / "pending.jsonl").read_text().splitlines()) == 4
        go(None, copy)
        assert_same_run(run, copy)
    assert not (run / "checkpoints" / f"step_{STEPS:06d}" / "pending.jsonl").exists()


def test_a_round_with_tokens_that_the_model_does_not_have_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    run = whole_run(tmp_path, tiny_model, **sections(tmp_path, evaluation={"every": 0}))
    copy = cut_back(run, tmp_path / "copy", 2)
    checkpoint = step_dir(copy, 2)
    lines = [json.loads(line) for line in (checkpoint / PENDING).read_text().splitlines()]
    lines[-1]["group"]["completions"][0]["token_ids"][0] = 1 << 20
    (checkpoint / PENDING).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint)
    with pytest.raises(CheckpointError, match=r"step_000002: .*problem '.*' has token id 1048576, but the model has"):
        go(None, copy)
