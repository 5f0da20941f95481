"""Batch arithmetic, seen in metrics, transcripts and counted forward passes."""

import numpy as np
from stranger.keys.registry import effect
from stranger.lab import Lab, distance


@effect("trainer.steps")
def steps(lab: Lab, kind: str) -> None:
    run = lab.run(kind, "trainer.steps=2")
    assert [line["step"] for line in run.metrics] == [1, 2]
    assert run.saved == [1, 2]


@effect("trainer.prompts_per_step")
def prompts_per_step(lab: Lab, kind: str) -> None:
    run = lab.run(kind, "trainer.prompts_per_step=2")
    assert len({record["problem_id"] for record in run.transcripts()}) == 2
    assert len({record["problem_id"] for record in lab.run(kind).transcripts()}) == 4


@effect("trainer.minibatches")
def minibatches(lab: Lab, kind: str) -> None:
    """Optimizer steps of a step."""
    assert lab.run(kind).values("policy/version") == [1, 2, 3]
    assert lab.run(kind, "trainer.minibatches=2").values("policy/version") == [2, 4, 6]


@effect("trainer.update_epochs")
def update_epochs(lab: Lab, kind: str) -> None:
    """Passes over the same batch: from the second one on the policy is not the one that sampled."""
    run = lab.run(kind, "trainer.update_epochs=3")
    assert run.values("policy/version") == [3, 6, 9]
    assert run.values("policy/kl_old_k3")[0] > lab.run(kind).values("policy/kl_old_k3")[0]


@effect("trainer.max_tokens_per_microbatch")
def max_tokens_per_microbatch(lab: Lab, kind: str) -> None:
    """More forward passes with fewer rows each, and the same training."""
    whole, cut = lab.run(kind), lab.run(kind, "trainer.max_tokens_per_microbatch=64")
    assert cut.probe["layer_calls"] > 2 * whole.probe["layer_calls"]
    assert cut.probe["layer_rows"] == whole.probe["layer_rows"]
    assert distance(whole.weights(), cut.weights()) < 1e-2 * distance(whole.weights(), lab.start())
    assert np.allclose(whole.values("train/reward"), cut.values("train/reward"), atol=0.05)


@effect("algorithm")
def algorithm(lab: Lab, kind: str) -> None:
    assert "critic/values" in lab.run("ppo").metrics[0]
    assert "critic/values" not in lab.run(kind).metrics[0]
    assert lab.run("ppo").manifest["recipe"]["algorithm"]["name"] == "ppo"


@effect("rollout_backend", of=("train", "sft"))
def rollout(lab: Lab, kind: str) -> None:
    """The backend that is named samples; one that is not installed is named with what to install."""
    run = lab.run(kind, "rollout_backend.max_batch_rows=1")
    assert run.probe["sampling_calls"] > lab.run(kind).probe["sampling_calls"]
    assert "vllm" in lab.refused(kind, "rollout_backend={name: vllm}")
