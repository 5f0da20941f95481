"""GPU code on a device that refuses what a GPU refuses: whole runs, and faults that it must find."""

import importlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.resume_runs import go, metrics_without_times, resumable_recipe
from support.scripted import CASES, PAD, Outcome, run_update, scripted_groups, tiny_policy
from support.tiny_policies import backend_for, end_often, load_tiny, mixed_requests
from torch import Tensor

import reasonrl.trainer.update as update_module
from reasonrl import SamplingParams
from reasonrl.data.collate import collate
from reasonrl.errors import ReasonRLError
from reasonrl.functional.precision import widest_float
from reasonrl.testing.devices import DEVICE, FakeGPU, HiddenSyncError, fake_gpu

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gpu.md"
ROW = re.compile(r"^\| `([\w.]+:[\w.<>]+)` \| ([\w -]+) \|", re.MULTILINE)
WAITS = dict(ROW.findall(PAGE.read_text(encoding="utf-8")))
"""Where the host may wait for the GPU, and how often: the table of docs/gpu.md."""
SIZES: dict[str, Any] = {
    "trainer": {"steps": 2, "prompts_per_step": 4, "minibatches": 2, "max_tokens_per_microbatch": 64},
    "evaluation": None,
    "checkpoint": {"every": 0},
}
RUNS: dict[str, dict[str, Any]] = {
    "ppo": {
        "algorithm": {"name": "ppo", "entropy_coef": 0.01, "kl": {"coef": 0.1}},
        "critic": {"kind": "separate", "warmup_steps": 1},
        "sampling": {"group_size": 2, "max_prompt_tokens": 20, "max_completion_tokens": 4, "stop": ["a"]},
    },
    "grpo, LoRA": {
        "algorithm": {"name": "grpo", "kl": {"coef": 0.05}},
        "critic": None,
        "lora": {"rank": 4},
        "rollout_correction": {"level": "token", "mode": "truncate"},
    },
    "sft": {"sft": {"max_tokens": 200, "tokens_per_batch": 100}, "algorithm": None, "critic": None, "trainer": None},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run_on_a_gpu(name: str, tiny_model: Path, tmp_path: Path) -> None:
    recipe = resumable_recipe(tmp_path, tiny_model, **{**SIZES, **RUNS[name]})
    with fake_gpu(WAITS) as gpu:
        assert widest_float(DEVICE) == torch.float32
        assert go(recipe, tmp_path / "run").outcome == "completed"
    assert gpu.waits.keys() <= WAITS.keys()
    assert len(metrics_without_times(tmp_path / "run")) >= 2


@pytest.mark.parametrize("name", CASES)
def test_an_update_on_a_gpu_is_that_on_a_cpu(name: str) -> None:
    groups = scripted_groups(4, 3)
    on_cpu = run_update(CASES[name], tiny_policy(CASES[name], dtype=torch.float32), groups, group_size=3, minibatches=2)
    with fake_gpu({*WAITS, "elsewhere"}):  # the test's own copies
        on_gpu = update(name)
        for key, value in on_cpu.parameters.items():
            assert on_gpu.parameters[key].device == DEVICE
            torch.testing.assert_close(on_gpu.parameters[key].cpu(), value, rtol=1e-4, atol=1e-6)
    assert on_gpu.metrics == pytest.approx(on_cpu.metrics, rel=1e-4, abs=1e-6)


def update(name: str) -> Outcome:
    """An update of two optimizer steps on the device."""
    case, groups = CASES[name], scripted_groups(4, 3)
    policy = tiny_policy(case, dtype=torch.float32).to(DEVICE)
    batch = collate(groups, pad_id=PAD, device=DEVICE)
    return run_update(case, policy, groups, group_size=3, minibatches=2, batch=batch)


PER_TOKEN = {"once a token": 1, "three times a token": 3, "once an eighth of the rows has ended": 1}


def decode(limit: int, stop: tuple[str, ...], folder: Path) -> Counter[str]:
    """Waits of the host while 5 prompts x 3 are decoded to ``limit`` tokens."""
    sampling = SamplingParams(max_completion_tokens=limit, stop=stop)
    with FakeGPU() as gpu:
        loaded = end_often(load_tiny(folder))
        loaded.model.to(DEVICE)
        with backend_for(loaded, sampling) as backend:
            gpu.waits.clear()
            backend.generate(mixed_requests(sampling))
    return gpu.waits


@pytest.mark.parametrize("stop", [(), ("@",)])
def test_waits_while_sampling_are_those_of_the_table(stop: tuple[str, ...], tiny_model: Path) -> None:
    few, many = decode(4, stop, tiny_model), decode(12, stop, tiny_model)
    assert few.keys() <= WAITS.keys()
    for place in many:
        most = PER_TOKEN.get(WAITS[place], 0) * 8
        assert many[place] - few[place] <= most, place
    assert many["reasonrl_hf.decoding:BatchDecoder.run"] == 12


def test_waits_in_an_update_do_not_grow_with_its_tokens() -> None:
    """They are per optimizer step and per micro-batch, of which both updates have as many."""
    found = []
    for size in (3, 6):
        with fake_gpu() as gpu:
            case, groups = CASES["ppo"], scripted_groups(4, size)
            policy = tiny_policy(case, dtype=torch.float32).to(DEVICE)
            batch = collate(groups, pad_id=PAD, device=DEVICE)
            gpu.waits.clear()
            run_update(case, policy, groups, group_size=size, batch=batch)
        found.append(dict(gpu.waits))
    assert found[0] == found[1]


def mixed(old: Tensor, batch: Any, version: int) -> dict[str, Any]:
    return {"x": (old * torch.arange(old.shape[1])).sum()}


def wide(old: Tensor, batch: Any, version: int) -> dict[str, Any]:
    return {"x": old.double().sum()}


def waiting(old: Tensor, batch: Any, version: int) -> dict[str, Any]:
    return {"x": 0.0 if old.isnan().any() else 1.0}


def picking(old: Tensor, batch: Any, version: int) -> dict[str, Any]:
    return {"x": old[old > 0].sum()}


FAULTS = {
    mixed: "Expected all tensors to be on the same device, but aten.mul.Tensor found meta .*, cpu",
    wide: "MPS framework doesn't support float64",
    waiting: r"reasonrl\.trainer\.update:Updater\._loss makes the host wait .*aten\._local_scalar_dense.*test_fake_gpu",
    picking: r"makes the host wait for the GPU: aten\.index\.Tensor at .*test_fake_gpu\.py:\d+",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_update_is_found(fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_module, "measure_rollout_gap", fault)
    with fake_gpu({*WAITS, "elsewhere"}), pytest.raises((RuntimeError, TypeError), match=FAULTS[fault]):
        update("ppo")


def test_a_fault_ends_a_run_in_one_line(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_module, "measure_rollout_gap", picking)
    recipe = resumable_recipe(tmp_path, tiny_model, **SIZES)
    with fake_gpu(WAITS), pytest.raises(ReasonRLError, match=r"HiddenSyncError: .* makes the host wait for the GPU"):
        go(recipe, tmp_path / "run")


@pytest.mark.parametrize("place", WAITS)
def test_every_place_of_the_table_exists(place: str) -> None:
    module, _, name = place.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.partition(".<locals>")[0].split("."):
        found = getattr(found, part)


# The device itself


def ones() -> Tensor:
    return torch.ones(2, device=DEVICE)


@pytest.mark.parametrize(
    "mix",
    [
        lambda: ones() + torch.ones(2),
        lambda: torch.ones(2) * ones(),
        lambda: torch.cat([ones(), torch.ones(2)]),
        lambda: ones()[torch.tensor([0])],
        lambda: torch.where(torch.tensor([True, False]), ones(), 0.0),
        lambda: ones().add_(torch.ones(2)),
        lambda: torch.nn.functional.linear(ones(), torch.ones(2, 2)),
        lambda: torch.add(ones(), 1.0, out=torch.ones(2)),
    ],
)
def test_devices_cannot_be_mixed(mix: Callable[[], Tensor]) -> None:
    with FakeGPU(), pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        mix()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ones().double(),
        lambda: torch.tensor([1.0], dtype=torch.float64, device=DEVICE),
        lambda: torch.zeros(2, dtype=torch.float64).to(DEVICE),
        lambda: ones().cumsum(0, dtype=torch.float64),
        lambda: torch.zeros((), dtype=torch.float64, device=DEVICE),
    ],
)
def test_the_device_has_no_float64(make: Callable[[], Tensor]) -> None:
    with FakeGPU(), pytest.raises(TypeError, match="MPS framework doesn't support float64"):
        make()


@pytest.mark.parametrize(
    ("count", "work"),
    [
        (1, lambda x: float(x.sum())),
        (1, lambda x: x.tolist()),
        (1, lambda x: x.cpu()),
        (1, lambda x: bool((x > 0).all())),
        (1, lambda x: x[x > 0]),
        (1, lambda x: (x > 0).nonzero()),
        (1, lambda x: torch.unique(x)),
        (1, lambda x: torch.equal(x, x)),
        (1, lambda x: torch.tensor([1, 0], device=DEVICE)),
        (1, lambda x: x.copy_(torch.zeros(2))),
        (0, lambda x: x.masked_fill_(x > 0, 0.0)),
        (0, lambda x: x.index_fill_(0, (x > 5).long(), 2.0)),
        (0, lambda x: torch.where(x > 0, x, 0.0) + 1.0 + torch.tensor(2.0)),
        (0, lambda x: x.to(DEVICE, torch.bfloat16)),
        (0, lambda x: torch.tensor([], device=DEVICE)),
    ],
)
def test_what_makes_the_host_wait(count: int, work: Callable[[Tensor], object]) -> None:
    with FakeGPU() as gpu:
        work(ones())
    assert gpu.waits.total() == count


def test_a_wait_is_refused_at_its_place() -> None:
    with FakeGPU(allowed=()), pytest.raises(HiddenSyncError, match=rf"elsewhere makes .* at {__file__}"):
        ones().sum().item()


def test_numbers_and_gradients_are_real() -> None:
    weight = torch.nn.Linear(2, 2, bias=False)
    inputs = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    (weight(inputs) ** 2).sum().backward()
    expected = weight.weight.grad
    weight.zero_grad()
    with FakeGPU():
        weight.to(DEVICE)
        (weight(inputs.to(DEVICE)) ** 2).sum().backward()
        assert weight.weight.grad is not None
        torch.testing.assert_close(weight.weight.grad.cpu(), expected)


def test_tied_parameters_stay_tied() -> None:
    one, two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    two.weight = one.weight
    with FakeGPU():
        both = torch.nn.Sequential(one, two).to(DEVICE)
        assert both[0].weight is both[1].weight
