"""The value function, on PPO."""

import numpy as np
from stranger.keys.registry import effect
from stranger.lab import Lab, Run, distance


@effect("critic", "critic.kind")
def kind_of_critic(lab: Lab, kind: str) -> None:
    """A head alone, or a trunk with it, or adapters beside the policy's own."""
    shared, separate = lab.run("ppo"), lab.run("ppo", "critic.kind=separate")
    assert _critic(shared).keys() == {"critic.head.weight", "critic.head.bias"}
    assert any("layers.0" in name for name in _critic(separate))
    adapter = lab.run("ppo", "critic.kind=adapter", "model.lora={rank: 2}")
    heads = {"critic.head.weight", "critic.head.bias"}
    assert all("lora" in name for name in _critic(adapter).keys() - heads)
    assert len(_critic(adapter)) - len(heads) == len(adapter.trained_beside()) - len(_critic(adapter))
    assert "model.lora" in lab.refused("ppo", "critic.kind=adapter")
    assert "critic" in lab.refused("train", "critic={kind: shared}")


@effect("critic.learning_rate")
def learning_rate(lab: Lab, kind: str) -> None:
    """Adam's first step is as long as the rate, whatever the gradient; the policy's stays."""
    one, ten = lab.run("ppo", "critic.learning_rate=1e-3"), lab.run("ppo", "critic.learning_rate=1e-2")
    bias = [abs(_critic(run, 1)["critic.head.bias"][0]) for run in (one, ten)]
    assert np.allclose(bias, [1e-3, 1e-2], rtol=1e-3)
    assert distance(lab.run("ppo").weights(1), one.weights(1)) < 1e-6


@effect("critic.warmup_steps")
def warmup_steps(lab: Lab, kind: str) -> None:
    """The critic alone learns at first."""
    run = lab.run("ppo", "critic.warmup_steps=2")
    assert distance(run.weights(2), lab.start()) == 0.0
    assert distance(run.weights(3), lab.start()) > 0.0
    assert abs(_critic(run, 1)["critic.head.bias"][0]) > 0.0


def _critic(run: Run, step: int = -1) -> dict[str, np.ndarray]:
    return {name: t for name, t in run.trained_beside(step).items() if name.startswith("critic.")}
