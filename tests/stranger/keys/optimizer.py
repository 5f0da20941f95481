"""AdamW, its schedule and its limits, seen in the checkpoints' weights."""

import math

import numpy as np
from stranger.keys.registry import BOTH, effect
from stranger.lab import Lab, Run, distance, norm

STEPS = {"train": ("trainer.steps=4",), "sft": ("sft.max_tokens=400",)}
RATE = 1e-3


@effect("optimizer.name", of=BOTH)
def name(lab: Lab, kind: str) -> None:
    """Two moments are saved, in half the size with bfloat16; 8 bits need a package. Others are refused."""
    plain, half = lab.run(kind), lab.run(kind, "optimizer.name=adamw_bf16")
    assert {n.rpartition(".")[2] for n in plain.optimizer()} == {"exp_avg", "exp_avg_sq", "step"}
    sizes = [(run.checkpoint() / "optimizer.safetensors").stat().st_size for run in (plain, half)]
    assert 0.4 * sizes[0] < sizes[1] < 0.7 * sizes[0]
    assert 0.0 < distance(plain.weights(), half.weights()) < 0.1 * distance(plain.weights(), lab.start())
    assert "low-memory" in lab.refused(kind, "optimizer.name=adamw_8bit")
    assert "adamw" in lab.refused(kind, "optimizer.name=sgd")


@effect("optimizer.learning_rate", of=BOTH)
def learning_rate(lab: Lab, kind: str) -> None:
    """Adam's first step is as long as the rate."""
    moved = [
        distance(lab.run(kind, f"optimizer.learning_rate={rate}").weights(1), lab.start()) for rate in (1e-4, 1e-3)
    ]
    assert np.isclose(moved[1], 10 * moved[0], rtol=0.05)


@effect("optimizer.beta1", "optimizer.beta2", of=BOTH)
def betas(lab: Lab, kind: str) -> None:
    """Bias correction hides them in the first step; from the second one on they show."""
    plain = lab.run(kind)
    for override in ("optimizer.beta1=0.1", "optimizer.beta2=0.5"):
        other = lab.run(kind, override)
        assert distance(plain.weights(1), other.weights(1)) < 1e-5
        assert distance(plain.weights(2), other.weights(2)) > 1e-3


@effect("optimizer.eps", of=BOTH)
def eps(lab: Lab, kind: str) -> None:
    """Against a large denominator the gradient is small."""
    plain, damped = lab.run(kind), lab.run(kind, "optimizer.eps=10.0")
    assert distance(damped.weights(1), lab.start()) < 0.1 * distance(plain.weights(1), lab.start())


@effect("optimizer.weight_decay", of=BOTH)
def weight_decay(lab: Lab, kind: str) -> None:
    """AdamW: every weight shrinks by rate x decay in each step, beside the gradient's part."""
    plain, decayed = lab.run(kind), lab.run(kind, "optimizer.weight_decay=50.0")
    gone = distance(plain.weights(1), decayed.weights(1))
    assert np.isclose(gone, RATE * 50.0 * norm(lab.start()), rtol=0.01)


@effect("optimizer.max_grad_norm", of=BOTH)
def max_grad_norm(lab: Lab, kind: str) -> None:
    """The gradient that Adam sees is no longer than that, which its first moment shows."""
    for limit in (1e-3, 2e-3):
        run = lab.run(kind, f"optimizer.max_grad_norm={limit}")
        assert run.values("optim/grad_norm")[0] > limit
        first = {n: t for n, t in run.optimizer(1).items() if n.endswith(".exp_avg")}
        assert np.isclose(norm(first), (1 - 0.9) * limit, rtol=1e-3)


@effect("optimizer.schedule", of=BOTH)
def schedule(lab: Lab, kind: str) -> None:
    for shape in ("constant", "linear", "cosine"):
        run = lab.run(kind, *STEPS[kind], f"optimizer.schedule={shape}")
        steps = len(run.metrics)
        expected = {
            "constant": [1.0] * steps,
            "linear": [1 - i / steps for i in range(steps)],
            "cosine": [(1 + math.cos(math.pi * i / steps)) / 2 for i in range(steps)],
        }[shape]
        assert _rates(run) == [round(RATE * factor, 9) for factor in expected]
        assert _is_applied(run)


@effect("optimizer.warmup_steps", of=BOTH)
def warmup_steps(lab: Lab, kind: str) -> None:
    run = lab.run(kind, *STEPS[kind], "optimizer.warmup_steps=3")
    assert _rates(run)[:3] == [round(RATE * i / 3, 9) for i in (1, 2, 3)]
    assert _is_applied(run)
    moved = [distance(r.weights(1), lab.start()) for r in (run, lab.run(kind, *STEPS[kind]))]
    assert np.isclose(moved[0], moved[1] / 3, rtol=0.05)


def _rates(run: Run) -> list[float]:
    return [round(rate, 9) for rate in run.values("optim/learning_rate")]


def _is_applied(run: Run) -> bool:
    """The longest change of a weight in a step follows the rate: the figure is not only written down."""
    steps = range(1, len(run.metrics))
    longest = [_longest(run.weights(step), run.weights(step + 1)) for step in steps]
    return all(
        change <= 4 * rate + 1e-9 and (change > 0.2 * rate or rate < 1e-6)
        for change, rate in zip(longest, run.values("optim/learning_rate")[1:], strict=True)
    )


def _longest(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)
