"""What holds in every run: the schedule, the order of problems, and that trainer and sampler speak of one policy."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.small_recipes import cli, recipe, summary_of
from support.tiny_runs import RECIPES, metrics_of, tiny

import reasonrl
from reasonrl.rundir.jsonl import read_jsonl


def train(tmp_path: Path, model: Path, *overrides: str, **sections: Any) -> Path:
    done = cli("train", recipe(tmp_path, model, **sections), *overrides, "--run-dir", tmp_path / "run")
    assert done.exit_code == 0, done.output
    return tmp_path / "run"


def test_the_learning_rate_follows_its_schedule(tiny_model: Path, tmp_path: Path) -> None:
    optimizer = {"learning_rate": 0.01, "schedule": "linear", "warmup_steps": 1}
    run = train(tmp_path, tiny_model, "trainer.steps=3", optimizer=optimizer)
    assert [line["optim/learning_rate"] for line in metrics_of(run)] == pytest.approx([0.01, 0.01, 0.005])


def test_every_step_takes_the_next_problems(tiny_model: Path, tmp_path: Path) -> None:
    run = train(tmp_path, tiny_model, logging={"transcripts_per_step": 100})
    taken = [
        [record["info"]["n"] for record in read_jsonl(run / "transcripts" / f"step_{step:06d}.jsonl")]
        for step in (1, 2)
    ]
    assert taken == [[n for n in numbers for _ in range(8)] for numbers in (range(4), range(4, 8))]


@pytest.mark.parametrize("minibatches", [1, 2])
def test_trainer_and_sampler_agree_at_any_temperature(minibatches: int, tiny_model: Path, tmp_path: Path) -> None:
    run = train(tmp_path, tiny_model, f"trainer.minibatches={minibatches}", "sampling.temperature=0.6")
    assert all(line["rollout/logprob_gap_max"] < 1e-4 for line in metrics_of(run))


def test_an_algorithm_may_ask_for_further_prompts(tiny_model: Path, tmp_path: Path) -> None:
    run = train(
        tmp_path,
        tiny_model,
        algorithm={"name": "sabotage", "keep_every": 3},
        logging={"transcripts_per_step": 100},
    )
    taken = [
        sorted({r["info"]["n"] for r in read_jsonl(run / "transcripts" / f"step_{step:06d}.jsonl")}) for step in (1, 2)
    ]
    # Three rounds of four problems hold the four that are kept; the next step goes on after them.
    assert taken == [[0, 3, 6, 9], [12, 15, 18, 21]]
    assert [line["group/discarded_frac"] for line in metrics_of(run)] == pytest.approx([8 / 12] * 2)


def test_what_an_algorithm_discards_is_measured_and_counts_against_the_limit(tiny_model: Path, tmp_path: Path) -> None:
    """One group of 12 is unscored, and not kept; then five of 12."""
    algorithm = {"name": "sabotage", "keep_every": 3}
    lines = metrics_of(train(tmp_path, tiny_model, algorithm=algorithm, rewards={"flaky": {"silent_at": [1]}}))
    assert [line["train/unscored_frac"] for line in lines] == pytest.approx([1 / 12, 0.0])
    path = recipe(tmp_path, tiny_model, algorithm=algorithm, rewards={"flaky": {"silent_at": [1, 2, 4, 5, 7]}})
    done = cli("train", path, "--run-dir", tmp_path / "second")
    assert done.exit_code == 1
    assert "42% of the batch could not be scored" in done.output


def test_a_keep_that_raises_names_its_algorithm(tiny_model: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_model, algorithm={"name": "sabotage", "keep_every": -1})
    done = cli("train", path, "--run-dir", tmp_path / "run")
    assert done.exit_code == 2
    assert "): keep raised KeyError: 'lost'" in done.output
    assert summary_of(tmp_path / "run")["outcome"] == "failed"


FILTERED = {"name": "sabotage", "keep_every": 3}
"""Keeps problems 0, 3, 6, 9, ..."""


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((), "after 20 rounds of sampling (trainer.max_sampling_rounds) sabotage has kept 0 of the 4 groups"),
        (("trainer.max_sampling_rounds=2",), "after 2 rounds of sampling"),
        (("trainer.too_few_groups=train",), "has kept 0 of the 1 groups that the smallest step needs"),
        (("trainer.too_few_groups=train", "trainer.minibatches=2"), "has kept 0 of the 2 groups"),
    ],
)
def test_an_algorithm_that_keeps_nothing_stops_the_run(
    overrides: tuple[str, ...], said: str, tiny_model: Path, tmp_path: Path
) -> None:
    path = recipe(tmp_path, tiny_model, algorithm={"name": "sabotage", "keep_every": 0})
    done = cli("train", path, *overrides, "--run-dir", tmp_path / "run")
    assert done.exit_code == 1
    assert said in done.output
    assert "raise that limit" in done.output


def test_a_run_that_ran_out_of_rounds_goes_on_with_more(tiny_model: Path, tmp_path: Path) -> None:
    path, run = recipe(tmp_path, tiny_model, algorithm=FILTERED), tmp_path / "run"
    done = cli("train", path, "trainer.max_sampling_rounds=2", "--run-dir", run)
    assert (done.exit_code, "has kept 3 of the 4 groups" in done.output) == (1, True)
    assert "or set trainer.too_few_groups=train" in done.output
    done = cli("resume", run, "trainer.max_sampling_rounds=3")
    assert done.exit_code == 0, done.output
    assert [line["group/sampling_rounds"] for line in metrics_of(run)] == [3, 3]


def test_it_trains_on_the_groups_there_are(tiny_model: Path, tmp_path: Path) -> None:
    """Of problems 0 to 3 two are kept, of 4 to 7 one, which is too few for two minibatches."""
    options = ("trainer.too_few_groups=train", "trainer.max_sampling_rounds=1")
    lines = metrics_of(train(tmp_path, tiny_model, *options, algorithm=FILTERED))
    assert [line["group/trained"] for line in lines] == [2, 1]
    assert [line["group/discarded_frac"] for line in lines] == [0.5, 0.75]
    assert [line["policy/version"] for line in lines] == [1, 2]
    path = recipe(tmp_path, tiny_model, algorithm=FILTERED)
    done = cli("train", path, *options, "trainer.minibatches=2", "--run-dir", tmp_path / "second")
    assert done.exit_code == 1
    assert "step 2: after 1 rounds of sampling" in done.output
    assert "sabotage has kept 1 of the 2 groups that the smallest step needs" in done.output
    assert [line["policy/version"] for line in metrics_of(tmp_path / "second")] == [2]


def test_a_suite_is_no_larger_than_its_split(tiny_model: Path, tmp_path: Path) -> None:
    suites = {"held_out": {"problems": 50}}
    run = train(
        tmp_path,
        tiny_model,
        task={"name": "counting", "problems": 3},
        evaluation={"every": 1, "suites": suites},
    )
    assert summary_of(run)["eval"]["last"]["problems"] == 3
    folders = sorted(p.name for p in (run / "evals").iterdir())
    assert folders == ["step_000000", "step_000001", "step_000002"]
    asked = [record["info"]["n"] for record in read_jsonl(run / "evals" / folders[0] / "held_out.jsonl")]
    assert asked == [0, 1, 2]
    written = json.loads((run / "evals" / folders[-1] / "summary.json").read_text())
    assert written == summary_of(run)["eval"]["last"]["suites"]


def test_models_are_saved_when_due_and_at_the_end(tiny_model: Path, tmp_path: Path) -> None:
    run = train(tmp_path, tiny_model, "trainer.steps=5", checkpoint={"every": 2, "keep": 2})
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step_000004", "step_000005"]


def test_the_reference_computes_in_the_precision_of_the_policy(tiny_model: Path, tmp_path: Path) -> None:
    """At the first step policy and reference are one model: any difference would be one of precision."""
    reasonrl.run(
        RECIPES / "countdown_grpo.yaml",
        tiny(tiny_model, "trainer.steps=1", "model.dtype=bfloat16", "algorithm.kl.coef=0.1"),
        run_dir=tmp_path / "run",
    )
    assert metrics_of(tmp_path / "run")[0]["policy/kl_ref_k3"] == 0.0
