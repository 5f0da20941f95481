"""Groups that a step keeps beyond its need are trained on in the next one: none is lost, and resume is exact."""

import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.resume_runs import assert_same_run, cut_back, go, metrics_without_times, resumable_recipe, whole_run
from support.scripted_plugin import is_picked

from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.runs.carried import read_groups
from reasonrl.runs.state import read_state

STEPS, PROMPTS = 6, 4
TRAINER = {"steps": STEPS, "prompts_per_step": PROMPTS, "minibatches": 2}
PICKY: dict[str, Any] = {"algorithm": {"name": "picky"}, "critic": None, "trainer": TRAINER}


@pytest.fixture(scope="module")
def filtered(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose completions come from the policy, with all its checkpoints."""
    return whole_run(tmp_path_factory.mktemp("filtered"), tiny_model, **PICKY)


def trained(run: Path) -> list[list[int]]:
    """The problems of every step."""
    return [line["trained"] for line in read_jsonl(run / "trained.jsonl")]


def carried(run: Path, step: int) -> list[int]:
    groups = read_groups(run / "checkpoints" / f"step_{step:06d}" / "carried.jsonl")
    return [group.group.request.problem.info["n"] for group in groups]


def position(run: Path, step: int) -> int:
    found: Any = read_state(run / "checkpoints" / f"step_{step:06d}").progress["position"]
    return found


def test_every_kept_group_is_trained_on_once_and_in_order(filtered: Path) -> None:
    kept = [n for n in range(position(filtered, STEPS)) if is_picked(n)]
    assert [*itertools.chain(*trained(filtered)), *carried(filtered, STEPS)] == kept
    assert [len(step) for step in trained(filtered)] == [PROMPTS] * STEPS


def test_the_metrics_count_every_group_once(filtered: Path) -> None:
    waiting = 0.0
    for step, line in enumerate(metrics_without_times(filtered), 1):
        sampled = PROMPTS * line["group/sampling_rounds"]
        assert line["group/carried_frac"] == waiting / PROMPTS
        kept = sampled * (1 - line["group/discarded_frac"])
        waiting += kept - line["group/trained"]
        assert waiting == pytest.approx(len(carried(filtered, step)))
        assert 0 <= waiting < PROMPTS
    sampled = sum(PROMPTS * line["group/sampling_rounds"] for line in metrics_without_times(filtered))
    assert sampled == position(filtered, STEPS)


@pytest.mark.parametrize("step", [1, 3, STEPS - 1])
def test_a_resumed_run_is_the_same_to_the_last_bit(step: int, filtered: Path, tmp_path: Path) -> None:
    copy = cut_back(filtered, tmp_path / "run", step)
    go(None, copy)
    assert_same_run(filtered, copy)


def test_some_checkpoint_had_groups_to_carry(filtered: Path) -> None:
    assert any(carried(filtered, step) for step in range(1, STEPS))
    saved = [(folder / "carried.jsonl").exists() for folder in sorted((filtered / "checkpoints").glob("step_*"))]
    assert saved == [bool(carried(filtered, step)) for step in range(1, STEPS + 1)]


def test_carried_groups_raise_no_false_alarm(tiny_model: Path, tmp_path: Path, caplog: Any) -> None:
    """The policy moves far in a step, so their log-probabilities are not those of the present policy."""
    optimizer = {"learning_rate": 0.1}
    with caplog.at_level(logging.WARNING):
        run = whole_run(tmp_path, tiny_model, **PICKY, optimizer=optimizer, logging={"transcripts_per_step": 99})
    lines = metrics_without_times(run)
    stale = [line["step"] for line in lines if line["group/carried_frac"] > 0]
    assert stale
    for step in stale:
        rows = list(read_jsonl(run / "transcripts" / f"step_{step:06d}.jsonl"))
        assert {row["policy_version"] for row in rows} == {2 * step - 4, 2 * step - 2}
    assert all(line["rollout/logprob_gap_max"] < 1e-3 for line in lines if "rollout/logprob_gap_max" in line)
    assert "sampler and trainer differ" not in caplog.text


def test_without_carrying_every_step_trains_on_fresh_groups(filtered: Path, tiny_model: Path, tmp_path: Path) -> None:
    sections = {**PICKY, "trainer": {**TRAINER, "carry_groups": False}}
    run = whole_run(tmp_path, tiny_model, **sections)
    assert not list(run.glob("checkpoints/*/carried.jsonl"))
    lines = metrics_without_times(run)
    assert [line["group/carried_frac"] for line in lines] == [0.0] * STEPS
    sampled = sum(PROMPTS * line["group/sampling_rounds"] for line in lines)
    lost = sum(PROMPTS * line["group/sampling_rounds"] * line["group/discarded_frac"] for line in lines)
    assert sampled - lost == pytest.approx(STEPS * PROMPTS)
    assert position(run, STEPS) > position(filtered, STEPS)


def test_groups_that_no_minibatch_has_room_for_wait(tiny_model: Path, tmp_path: Path) -> None:
    """Of a round's groups two minibatches take an even number; the odd one is trained on in the next step."""
    trainer = {**TRAINER, "prompts_per_step": 8, "max_sampling_rounds": 1, "too_few_groups": "train"}
    run = whole_run(tmp_path, tiny_model, **{**PICKY, "trainer": trainer}, rollout_backend={"name": "script"})
    kept = [n for n in range(8 * STEPS) if is_picked(n)]
    assert [*itertools.chain(*trained(run)), *carried(run, STEPS)] == kept
    sizes = [len(step) for step in trained(run)]
    assert all(size in (2, 4, 6) for size in sizes)
    assert any(carried(run, step) for step in range(1, STEPS))
    for step in (1, 3):
        copy = cut_back(run, tmp_path / f"from-{step}", step)
        go(None, copy)
        assert_same_run(run, copy)


def test_dapo_samples_fewer_groups_for_the_same_training(tiny_model: Path, tmp_path: Path) -> None:
    """The scripted completions do not depend on the policy: both runs see the same stream of groups."""
    positions, trained_on = {}, {}
    for carry in (True, False):
        folder = tmp_path / str(carry)
        folder.mkdir()
        trainer = {"steps": 8, "prompts_per_step": 4, "carry_groups": carry}
        sections = {"algorithm": {"name": "dapo"}, "critic": None, "rollout_backend": {"name": "script"}}
        run = whole_run(folder, tiny_model, trainer=trainer, **sections)
        positions[carry] = position(run, 8)
        trained_on[carry] = sum(line["group/trained"] for line in metrics_without_times(run))
    assert trained_on == {True: 32, False: 32}
    assert positions[True] < positions[False]


def test_an_algorithm_that_keeps_all_carries_nothing(tiny_model: Path, tmp_path: Path) -> None:
    recipe = resumable_recipe(tmp_path, tiny_model, trainer={"steps": 2, "prompts_per_step": 4})
    assert "carry_groups" not in yaml.safe_load(recipe.read_text())["trainer"]
    go(recipe, tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/*/carried.jsonl"))
    assert not [key for key in metrics_without_times(tmp_path / "run")[0] if key.startswith("group/carried")]
