"""``pytest -m gpu``: what only a GPU can show, in 9 minutes; docs/gpu.md describes it.

Without a GPU, ``REASONRL_GPU_TESTS=dry`` runs the same on the CPU with tiny sizes. ``REASONRL_GPU_REPORT`` names the
report, by default ``gpu-report.json``.
"""

import math
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from support.gpu_lab import MODE, REPORT, Lab

from reasonrl.contracts.metric_keys import GAP_ROUNDED

pytestmark = pytest.mark.gpu

PARTS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "checkpointing": {"model": {"gradient_checkpointing": True}},
    "ppo, separate critic": {"algorithm": {"name": "ppo", "kl": {"coef": 0.05}}, "critic": {"kind": "separate"}},
    "LoRA": {"model": {"lora": {"rank": 16}}},
    "QLoRA": {"model": {"lora": {"rank": 16, "quantization": "nf4"}}},
}
"""One process with the backend hf, on one GPU."""
PLANNED = (0.85, 1.15)
"""Measured over planned memory of the update."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    is_dry = os.environ.get(MODE) == "dry"
    if not is_dry and not torch.cuda.is_available():
        pytest.fail(f"torch {torch.__version__} sees no GPU; {MODE}=dry runs these tests on the CPU, with tiny models")
    return Lab(tmp_path_factory.mktemp("gpu"), is_dry, Path(os.environ.get(REPORT, "gpu-report.json")))


def check(lab: Lab, name: str, run: Path) -> dict[str, float]:
    """The last step has what a healthy one has."""
    last = lab.metrics(name, run)
    assert all(math.isfinite(last[key]) for key in ("loss/total", "optim/grad_norm"))
    assert last["optim/grad_norm"] > 0
    assert last["optim/skipped_updates"] == 0
    assert last.get("rollout/logprob_gap", 0.0) < GAP_ROUNDED
    assert last["memory/peak_gib"] > 0
    return last


@pytest.mark.parametrize("name", PARTS)
def test_one_gpu(name: str, lab: Lab) -> None:
    if name == "QLoRA" and not find_spec("bitsandbytes"):
        lab.skip(name, "bitsandbytes is not installed")
        pytest.skip("needs bitsandbytes")
    recipe, run = lab.recipe(name, PARTS[name])
    lab.run(name, "train", str(recipe), "--run-dir", str(run))
    last = check(lab, name, run)
    ratios = lab.compare(name, recipe, last)
    if not lab.is_dry:
        assert PLANNED[0] <= ratios["update"] <= PLANNED[1], ratios
    if name == "all weights":
        lab.run(name, "resume", str(run), "trainer.steps=3")
        assert check(lab, name, run)["step"] == 3


def test_checkpointing_saves_memory(lab: Lab) -> None:
    parts = [lab.parts.get(name, {}).get("metrics") for name in ("all weights", "checkpointing")]
    if lab.is_dry or None in parts:
        pytest.skip("needs both runs, on a GPU")
    with_all, recomputed = (part["memory/update_gib"] for part in parts if part)
    assert recomputed < 0.9 * with_all


@pytest.mark.skipif(not find_spec("vllm"), reason="needs vLLM")
def test_vllm_in_the_trainers_process(lab: Lab) -> None:
    backend = {"name": "vllm", "enforce_eager": True, "max_model_len": 256}
    backend |= {"kv_cache_gib": 0.1} if lab.is_dry else {"gpu_memory_utilization": 0.3, "sleep": True}
    model = {"dtype": "float32"} if lab.is_dry else {}
    recipe, run = lab.recipe("vllm", {"rollout_backend": backend, "model": model})
    lab.run("vllm", "train", str(recipe), "--run-dir", str(run))
    check(lab, "vllm", run)


def test_fsdp_on_all_gpus(lab: Lab) -> None:
    """vLLM samples, or in a dry run a script."""
    if not lab.is_dry and not find_spec("vllm"):
        lab.skip("fsdp", "vLLM is not installed")
        pytest.skip("needs vLLM")
    vllm = {"name": "vllm", "enforce_eager": True, "max_model_len": 256, "gpu_memory_utilization": 0.3}
    sections = {"algorithm": {"name": "grpo"}, "rollout_backend": {"name": "script"} if lab.is_dry else vllm}
    recipe, run = lab.recipe("fsdp", {**sections, "model": {"sharding": "fsdp"}})
    ranks = 2 if lab.is_dry else torch.cuda.device_count()
    lab.run("fsdp", "train", str(recipe), "--run-dir", str(run), ranks=ranks)
    last = lab.metrics("fsdp", run)
    assert math.isfinite(last["loss/total"])
    assert last["optim/grad_norm"] > 0
