"""Batch arithmetic, seen in metrics, transcripts and counted forward passes."""

import numpy as np
from stranger.keys.registry import effect
from stranger.lab import Lab, Run, distance


@effect("trainer.steps")
def steps(lab: Lab, kind: str) -> None:
    run = lab.run(kind, "trainer.steps=2")
    assert [line["step"] for line in run.metrics] == [1, 2]
    assert run.saved == [1, 2]


@effect("trainer.offload")
def offload(lab: Lab, kind: str) -> None:
    """On a CPU nothing changes, and the log says so. A reference that does not exist is refused."""
    run = lab.run(kind, "trainer.offload=[optimizer]")
    assert "trainer.offload has no effect on a CPU" in run.done.out + run.done.err
    assert distance(run.weights(), lab.run(kind).weights()) == 0.0
    assert "computes no KL term" in lab.refused(kind, "trainer.offload=[reference]")


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
    padded = "model.packing=false"
    whole, cut = lab.run(kind, padded), lab.run(kind, padded, "trainer.max_tokens_per_microbatch=64")
    assert cut.probe["layer_calls"] > 2 * whole.probe["layer_calls"]
    assert cut.probe["layer_rows"] == whole.probe["layer_rows"]
    assert distance(whole.weights(), cut.weights()) < 1e-2 * distance(whole.weights(), lab.start())
    assert np.allclose(whole.values("train/reward"), cut.values("train/reward"), atol=0.05)


def filtered(lab: Lab, *options: str) -> Run:
    """DAPO with rewards of which about half are 1, however it ends."""
    dapo = ("algorithm={name: dapo, min_accuracy: 0.3, max_accuracy: 0.6}", "rewards={mine: {path: judged.py:score}}")
    return lab.attempt("train", *dapo, *options)


@effect("trainer.max_sampling_rounds", "trainer.too_few_groups")
def max_sampling_rounds(lab: Lab, kind: str) -> None:
    """DAPO drops groups in the first round; then a step is short of them, and the recipe says what follows."""
    enough = filtered(lab)
    assert max(enough.values("group/sampling_rounds")) > 1
    assert enough.values("group/trained") == [4, 4, 4]
    stopped = filtered(lab, "trainer.max_sampling_rounds=1")
    assert stopped.done.code == 1
    assert "after 1 rounds of sampling" in stopped.done.err
    fewer = filtered(lab, "trainer.max_sampling_rounds=1", "trainer.too_few_groups=train")
    assert fewer.values("group/sampling_rounds")[0] == 1
    assert 0 < fewer.values("group/trained")[0] < 4


@effect("trainer.carry_groups")
def carry_groups(lab: Lab, kind: str) -> None:
    """What one step has too much, the next one trains on; or it is dropped, and every step begins with none."""
    carries, drops = filtered(lab), filtered(lab, "trainer.carry_groups=false")
    assert max(carries.values("group/carried_frac")) > 0
    assert drops.values("group/carried_frac") == [0, 0, 0]
    assert min(drops.values("group/discarded_frac")) > 0


@effect("trainer.max_staleness")
def max_staleness(lab: Lab, kind: str) -> None:
    """From the second step on, samples are one optimizer step old; the trainer's own model cannot do that."""
    probe = "rollout_backend={name: beside}"
    assert "rollout/staleness" not in lab.run(kind, probe).metrics[0]
    ahead = lab.run(kind, probe, "trainer.max_staleness=1")
    assert ahead.values("rollout/staleness") == [0, 1, 1]
    assert "without rollout_correction" in ahead.done.out
    assert "cannot sample during the update" in lab.refused(kind, "trainer.max_staleness=1")


@effect("algorithm")
def algorithm(lab: Lab, kind: str) -> None:
    assert "critic/values" in lab.run("ppo").metrics[0]
    assert "critic/values" not in lab.run(kind).metrics[0]
    assert lab.run("ppo").manifest["recipe"]["algorithm"]["name"] == "ppo"


def corrected(lab: Lab, kind: str, options: str) -> tuple[float, float]:
    """Share of tokens corrected in the first step, and mean weight. Ratios differ from 1 by rounding only."""
    run = lab.run(kind, f"rollout_correction={{{options}}}")
    return run.values("rollout/corrected_frac")[0], run.values("rollout/weight")[0]


@effect("rollout_correction", "rollout_correction.threshold", "rollout_correction.mode")
def rollout_correction(lab: Lab, kind: str) -> None:
    """With a threshold of 1, about half of all ratios are over it: truncated they weigh 1, masked nothing."""
    assert "rollout/weight" not in lab.run(kind).metrics[0]
    assert corrected(lab, kind, "threshold: 2.0")[0] == 0.0
    truncated, masked = (corrected(lab, kind, f"threshold: 1.0, mode: {mode}") for mode in ("truncate", "mask"))
    assert 0.05 < truncated[0] <= masked[0]
    assert truncated[1] > 0.99 > masked[1]


@effect("rollout_correction.threshold_low")
def threshold_low(lab: Lab, kind: str) -> None:
    loose, tight = (corrected(lab, kind, f"mode: mask, threshold_low: {low}") for low in ("null", 1.0))
    assert loose[0] == 0.0 < tight[0]


@effect("rollout_correction.level")
def correction_level(lab: Lab, kind: str) -> None:
    """Of a token, or of whole completions: other shares are over the threshold."""
    token, sequence, geometric = (
        corrected(lab, kind, f"level: {level}, mode: mask, threshold: 1.0, threshold_low: 0.0")
        for level in ("token", "sequence", "geometric")
    )
    assert token[0] != sequence[0]
    assert geometric[1] == 1.0 - geometric[0]


@effect("rollout_backend", of=("train", "sft"))
def rollout(lab: Lab, kind: str) -> None:
    """The backend that is named samples; one that is not installed is named with what to install."""
    run = lab.run(kind, "rollout_backend.max_batch_rows=1")
    assert run.probe["sampling_calls"] > lab.run(kind).probe["sampling_calls"]
    assert "vllm" in lab.refused(kind, "rollout_backend={name: vllm}")
