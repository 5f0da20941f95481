"""From recipe to run folder, with every algorithm and option that a recipe can combine."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_runs import RECIPES, SMALL, metrics_of, tiny

import reasonrl
from reasonrl.contracts.metric_keys import CORE_METRICS, find_metric
from reasonrl.plugins import load_plugins
from reasonrl.trainer import synced_backend

LAST_STEP_KEYS = [
    "step",
    "train/reward",
    "reward/component/countdown",
    "train/unscored_frac",
    "train/accuracy",
    "train/length_tokens",
    "train/truncated_frac",
    "policy/entropy",
    "policy/clip_frac",
    "policy/kl_rollout_k3",
    "group/zero_std_frac",
    "optim/grad_norm",
    "optim/learning_rate",
    "batch/padding_frac",
    "time/step_s",
    "time/other_s",
    "perf/mfu",
    "perf/executed_over_useful",
    "memory/peak_gib",
    "throughput/rollout_tokens_per_s",
    "throughput/train_tokens_per_s",
    "eval/held_out/accuracy",
    "eval/held_out/format",
    "eval/held_out/length_tokens",
]


@pytest.mark.parametrize("recipe", ["countdown_ppo", "countdown_grpo"])
def test_a_run_leaves_what_it_promises(recipe: str, tiny_model: Path, tmp_path: Path) -> None:
    result = reasonrl.run(RECIPES / f"{recipe}.yaml", tiny(tiny_model), run_dir=tmp_path / "run")

    assert result.outcome == "completed"
    assert result.run_dir == tmp_path / "run"
    lines = metrics_of(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2]
    assert not [key for key in LAST_STEP_KEYS if key not in lines[-1]]
    stages = ("sync", "rollout", "reward", "collate", "policy_eval", "advantage", "update", "other")
    assert sum(lines[-1][f"time/{stage}_s"] for stage in stages) == pytest.approx(lines[-1]["time/step_s"])
    assert lines[-1]["perf/executed_over_useful"] > 1.0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary == json.loads(json.dumps(result.summary))
    assert summary["outcome"] == "completed"
    assert summary["steps"] == 2
    for point in ("first", "last"):
        assert {"accuracy", "format", "length_tokens"} <= summary["eval"][point].keys()
    for name in (
        "recipe.yaml",
        "run.json",
        "transcripts/step_000001.jsonl",
        "evals/step_000002/held_out.jsonl",
    ):
        assert (tmp_path / "run" / name).is_file(), name


@pytest.mark.parametrize("recipe", ["countdown_ppo", "countdown_grpo"])
def test_every_metric_of_a_run_is_declared(recipe: str, tiny_model: Path, tmp_path: Path) -> None:
    reasonrl.run(RECIPES / f"{recipe}.yaml", tiny(tiny_model), run_dir=tmp_path / "run")
    plugins = load_plugins()
    of_plugins = [m for kind in ("algorithm", "reward", "task") for s in plugins.specs(kind) for m in s.metrics]
    declared = [*CORE_METRICS, *of_plugins]
    for line in metrics_of(tmp_path / "run"):
        unknown = [key for key in line if key != "step" and find_metric(key, declared) is None]
        assert not unknown


def test_the_saved_model_loads_as_it_is_and_is_the_trained_one(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = reasonrl.run(
        RECIPES / "countdown_ppo.yaml",
        tiny(tiny_model, "optimizer.learning_rate=0.01", "algorithm.entropy_coef=0.1"),
        run_dir=tmp_path / "run",
    )
    assert result.model_path == tmp_path / "run" / "checkpoints" / "step_000002"
    trained = AutoModelForCausalLM.from_pretrained(result.model_path)
    tokenizer = AutoTokenizer.from_pretrained(result.model_path)
    assert tokenizer.decode(tokenizer("8*5=40")["input_ids"]) == "8*5=40"
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    moved = [not torch.equal(a, b) for a, b in zip(trained.parameters(), base.parameters(), strict=True)]
    assert any(moved)


def test_the_same_recipe_gives_the_same_numbers_whatever_the_global_generators_hold(
    tiny_model: Path, tmp_path: Path
) -> None:
    def run(name: str) -> list[dict[str, float]]:
        reasonrl.run(
            RECIPES / "countdown_grpo.yaml",
            tiny(tiny_model, "trainer.minibatches=2", "algorithm.kl.coef=0.1"),
            run_dir=tmp_path / name,
        )
        timed = ("time/", "throughput/", "memory/", "perf/mfu")
        return [{k: v for k, v in line.items() if not k.startswith(timed)} for line in metrics_of(tmp_path / name)]

    first = run("a")
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert run("b") == first
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_another_seed_gives_other_problems_and_draws(tiny_model: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        reasonrl.run(RECIPES / "countdown_grpo.yaml", tiny(tiny_model, f"seed={seed}"), run_dir=tmp_path / str(seed))
    texts = [(tmp_path / str(seed) / "transcripts" / "step_000001.jsonl").read_text() for seed in (0, 1)]
    assert texts[0] != texts[1]


def test_tinyzeros_recipe_shrunk_trains(tiny_model: Path, tmp_path: Path) -> None:
    """Separate critic with its own rate, value clip, four minibatches, KL in the reward, raw prompt."""
    result = reasonrl.run(
        RECIPES / "qwen2.5" / "1.5b_ppo.yaml",
        [
            f"model.path={tiny_model}",
            "rollout_backend.name=hf",
            "sampling.max_prompt_tokens=1024",
            # A random model earns nothing; entropy moves it, and then the KL penalty gives the critic its work.
            "algorithm.entropy_coef=0.1",
            "optimizer.learning_rate=0.01",
            *SMALL,
        ],
        run_dir=tmp_path / "run",
    )
    assert result.outcome == "completed"
    last = metrics_of(tmp_path / "run")[-1]
    assert last["policy/version"] == 8
    assert last["policy/kl_ref_k3"] > 0
    assert last["critic/grad_norm"] > 0
    assert "reward/component/countdown_tinyzero" in last


def test_lora_trains_adapters_and_saves_a_plain_model(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    result = reasonrl.run(
        RECIPES / "countdown_grpo.yaml",
        tiny(
            tiny_model,
            "model.lora.rank=4",
            "model.lora.alpha=8",
            "algorithm.kl.coef=0.1",
            "algorithm.entropy_coef=0.1",
            "optimizer.learning_rate=0.01",
        ),
        run_dir=tmp_path / "run",
    )
    trained = AutoModelForCausalLM.from_pretrained(result.model_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert type(trained) is type(base)
    moved = [
        n for (n, a), b in zip(trained.named_parameters(), base.parameters(), strict=True) if not torch.equal(a, b)
    ]
    assert moved
    assert all("proj" in name for name in moved)


def test_critic_warm_up_leaves_the_policy_alone(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    result = reasonrl.run(
        RECIPES / "countdown_ppo.yaml",
        tiny(tiny_model, "critic.kind=separate", "critic.warmup_steps=2"),
        run_dir=tmp_path / "run",
    )
    trained = AutoModelForCausalLM.from_pretrained(result.model_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    for a, b in zip(trained.parameters(), base.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_critic_warm_up_syncs_no_weights(
    kind: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in the policy moves, so its version stays and the backend keeps the weights that it has."""
    taken: list[object] = []
    weights = synced_backend.iter_hf_weights
    monkeypatch.setattr(
        synced_backend, "iter_hf_weights", lambda policy, *how: taken.append(policy) or weights(policy, *how)
    )
    overrides = (f"critic.kind={kind}", "critic.warmup_steps=3", "trainer.steps=5", "trainer.minibatches=2")
    run = tmp_path / "run"
    reasonrl.run(RECIPES / "countdown_ppo.yaml", tiny(tiny_model, *overrides, "evaluation.suites=null"), run_dir=run)
    assert [line["policy/version"] for line in metrics_of(run)] == [0, 0, 0, 2, 4]
    assert ["critic/grad_norm" in line for line in metrics_of(run)] == [True] * 5
    assert len(taken) == 2, "before the first step, and before the fifth"


def test_runs_number_themselves(tiny_model: Path, tmp_path: Path) -> None:
    for expected in ("countdown_grpo-1", "countdown_grpo-2"):
        result = reasonrl.run(
            RECIPES / "countdown_grpo.yaml", tiny(tiny_model, "trainer.steps=1", f"output_dir={tmp_path}")
        )
        assert result.run_dir is not None
        assert result.run_dir.name == expected
