"""A KL coefficient that is led toward a target: in runs, over resumes, and what a recipe may not say about it."""

from pathlib import Path
from typing import Any

import pytest
from reference.kl import adapted
from support.resume_runs import assert_same_run, cut_back, go, metrics_without_times, state_of, whole_run
from support.small_recipes import cli, recipe

STEPS, TARGET, HORIZON = 5, 1e-3, 2.0
KL = {"coef": 0.3, "target": TARGET, "horizon": HORIZON}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo, in the reward": (
        "policy/kl_ref_k1",
        {"algorithm": {"name": "ppo", "kl": KL}, "critic": {"kind": "shared"}},
    ),
    "grpo, in the loss": ("policy/kl_ref_k3", {"algorithm": {"name": "grpo", "kl": KL}, "critic": None}),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_coefficient_follows_the_measured_kl_and_is_resumed(way: str, tiny_model: Path, tmp_path: Path) -> None:
    measured_by, sections = WAYS[way]
    trainer = {"steps": STEPS, "prompts_per_step": 4, "minibatches": 2}
    run = whole_run(tmp_path, tiny_model, trainer=trainer, **sections)
    lines = metrics_without_times(run)
    wanted = adapted(0.3, [line[measured_by] for line in lines], TARGET, 1 / HORIZON)
    assert [line["policy/kl_coef"] for line in lines] == pytest.approx(wanted[:-1], rel=1e-12)
    assert len(set(wanted)) == STEPS + 1
    saved = state_of(run / "checkpoints" / f"step_{STEPS:06d}")["progress"]["algorithm"]
    assert saved == {"kl_coef": pytest.approx(wanted[-1], rel=1e-12)}
    for step in (1, STEPS - 1):
        copy = cut_back(run, tmp_path / f"from-{step}", step)
        go(None, copy)
        assert_same_run(run, copy)


def test_a_constant_coefficient_has_no_state(tiny_model: Path, tmp_path: Path) -> None:
    algorithm = {"name": "grpo", "kl": {"coef": 0.3}}
    run = whole_run(tmp_path, tiny_model, trainer={"steps": 1, "prompts_per_step": 4}, algorithm=algorithm, critic=None)
    assert state_of(run / "checkpoints" / "step_000001")["progress"]["algorithm"] == {}
    assert "policy/kl_coef" not in metrics_without_times(run)[0]


@pytest.mark.parametrize("name", ["ppo", "grpo", "rloo"])
@pytest.mark.parametrize(
    ("kl", "said"),
    [
        ({"target": 0.1}, "kl.coef must be > 0 with a kl.target"),
        ({"coef": 0.1, "target": 0.0}, "kl.target must be > 0, or null"),
        ({"coef": 0.1, "target": -1.0}, "kl.target must be > 0, or null"),
        ({"coef": 0.1, "target": 0.1, "horizon": 0}, "kl.horizon must be >= 1"),
        ({"coef": 0.1, "target": 0.1, "horizon": -5}, "kl.horizon must be >= 1"),
    ],
)
def test_contradictions_are_refused_when_the_recipe_is_resolved(
    name: str, kl: dict[str, Any], said: str, tiny_model: Path, tmp_path: Path
) -> None:
    critic = {"kind": "shared"} if name == "ppo" else None
    path = recipe(tmp_path, tiny_model, algorithm={"name": name, "kl": kl}, critic=critic)
    done = cli("recipes", "check", path)
    assert done.exit_code == 2
    assert said in done.output
    assert f"{path.name}:" in done.output
    done = cli("train", path, "--run-dir", tmp_path / "run")
    assert (done.exit_code, (tmp_path / "run").exists()) == (2, False)
