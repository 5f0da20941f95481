"""What is offloaded is on the device while something computes with it, and in host memory otherwise."""

from pathlib import Path
from typing import Any

import pytest
from support.resume_runs import SCRIPTED, go, metrics_without_times, resumable_recipe
from support.small_recipes import cli

import reasonrl.trainer.loop as loop
from reasonrl.testing.devices import DEVICE, fake_gpu
from reasonrl.trainer.synced_backend import SyncedBackend
from reasonrl.trainer.update import Updater

SIZES: dict[str, Any] = {
    "trainer": {"steps": 2, "prompts_per_step": 2, "minibatches": 2},
    "algorithm": {"name": "grpo", "kl": {"coef": 0.1}},
    "critic": None,
    "evaluation": None,
    "checkpoint": {"every": 0},
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """(stage, where the reference is, where the optimizer's states are), in order."""
    found: list[tuple[str, str, str]] = []
    updaters: list[Updater] = []

    def look(owner: Any, name: str, stage: str) -> None:
        original = getattr(owner, name)

        def looking(*args: Any, **given: Any) -> Any:
            updater = updaters[-1]
            assert updater.reference is not None
            states = (value for state in updater.optimizer.state.values() for value in state.values() if value.ndim)
            places = [{t.device for t in tensors} for tensors in (updater.reference.weights.parameters(), states)]
            named = ["".join(sorted("device" if d == DEVICE else "host" for d in place)) for place in places]
            found.append((stage, *named))
            return original(*args, **given)

        monkeypatch.setattr(owner, name, looking)

    start = Updater.__init__
    monkeypatch.setattr(Updater, "__init__", lambda self, **given: updaters.append(self) or start(self, **given))
    look(SyncedBackend, "sync", "sampling")
    look(loop, "evaluate_policy", "scoring")
    look(Updater, "_apply", "update")
    return found


def run(tmp_path: Path, model: Path, name: str, **changed: Any) -> list[dict[str, object]]:
    sizes = {**SIZES, "trainer": {**SIZES["trainer"], **changed}}
    recipe = resumable_recipe(tmp_path, model, **sizes)
    with fake_gpu():
        assert go(recipe, tmp_path / name).outcome == "completed"
    return metrics_without_times(tmp_path / name)


def test_each_part_is_on_the_device_for_its_stage_alone(
    tiny_model: Path, tmp_path: Path, seen: list[tuple[str, str, str]]
) -> None:
    plain = run(tmp_path, tiny_model, "plain")
    everywhere = set(seen)
    assert {stage for stage, *_ in everywhere} == {"sampling", "scoring", "update"}
    assert all("host" not in places for _, *places in everywhere)
    seen.clear()
    assert run(tmp_path, tiny_model, "offloaded", offload=["reference", "optimizer"]) == plain
    first = [("sampling", "host", ""), ("scoring", "device", ""), ("update", "host", ""), ("update", "host", "device")]
    later = [("sampling", "host", "host"), ("scoring", "device", "host"), *[("update", "host", "device")] * 2]
    assert seen == [*first, *later]
    for name in ("model.safetensors", "optimizer.safetensors"):
        saved = [(tmp_path / run / "checkpoints" / "step_000002" / name).read_bytes() for run in ("plain", "offloaded")]
        assert saved[0] == saved[1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"algorithm": {"name": "grpo"}}, "since grpo computes no KL term; remove reference"),
        ({"lora": {"rank": 2}}, "since with model.lora it shares the policy's weights; remove reference"),
    ],
)
def test_a_reference_without_weights_is_refused(
    changed: dict[str, Any], message: str, tiny_model: Path, tmp_path: Path
) -> None:
    path = resumable_recipe(tmp_path, tiny_model, **{**SIZES, **changed})
    done = cli("train", path, "trainer.offload=[reference]", "--plugin", SCRIPTED)
    assert done.exit_code == 2
    assert f"trainer.offload: there is no reference model to offload, {message}" in " ".join(done.output.split())


def test_on_a_cpu_nothing_moves_and_the_log_says_so(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends = []
    caplog.set_level("WARNING")
    for name, offload in (("plain", []), ("offloaded", ["reference", "optimizer"])):
        recipe = resumable_recipe(
            tmp_path, tiny_model, **{**SIZES, "trainer": {**SIZES["trainer"], "offload": offload}}
        )
        assert go(recipe, tmp_path / name).outcome == "completed"
        ends.append(metrics_without_times(tmp_path / name))
    assert ends[0] == ends[1]
    assert caplog.text.count("trainer.offload has no effect on a CPU") == 1
