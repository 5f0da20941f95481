"""The line that explains lack of memory: where, how much, which keys."""

from typing import Any

import pytest
import torch

from reasonrl.errors import TrainingError, note_stage
from reasonrl.runs.identity import is_changeable
from reasonrl.runs.out_of_memory import WHERE, explain_out_of_memory, explained

CPU = torch.device("cpu")
ON_CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.25 GiB of which 512.00 MiB is "
    "free. Process 1 has 78.70 GiB memory in use."
)
ON_CPU = (
    "[enforce fail at alloc_cpu.cpp:129] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
)


def recipe(**changes: Any) -> dict[str, Any]:
    return {
        "model": {"gradient_checkpointing": False, "lora": None},
        "optimizer": {"name": "adamw"},
        "critic": {"kind": "separate"},
        "rollout_backend": {"name": "hf", "max_batch_rows": 512},
        "trainer": {"max_tokens_per_microbatch": 16384},
        **changes,
    }


def explain(stage: str | None, error: Exception | None = None, **changes: Any) -> tuple[str, str]:
    error = error or torch.OutOfMemoryError(ON_CUDA)
    if stage is not None:
        note_stage(error, stage)
    return explain_out_of_memory(error, recipe(**changes), CPU)


UPDATE = "lower trainer.max_tokens_per_microbatch (now 16384)"
CHECKPOINTED = {"model": {"gradient_checkpointing": True, "lora": None}}
ADAPTED = {"model": {"gradient_checkpointing": False, "lora": {"quantization": None}}, "critic": None}


@pytest.mark.parametrize(
    ("stage", "changes", "advice", "override"),
    [
        ("rollout_s", {}, "lower rollout_backend.max_batch_rows (now 512)", "rollout_backend.max_batch_rows=256"),
        (
            "evaluation_s",
            {"rollout_backend": {"name": "vllm", "max_num_seqs": 64}},
            "lower rollout_backend.max_num_seqs (now 64)",
            "rollout_backend.max_num_seqs=32",
        ),
        ("rollout_s", {"rollout_backend": {"name": "own"}}, "let the rollout backend sample fewer", ""),
        ("policy_eval_s", {}, UPDATE, "trainer.max_tokens_per_microbatch=8192"),
        (
            "update_s",
            {},
            f"{UPDATE} or set model.gradient_checkpointing to true",
            "trainer.max_tokens_per_microbatch=8192",
        ),
        ("update_s", CHECKPOINTED, UPDATE, "trainer.max_tokens_per_microbatch=8192"),
        (
            "step_s",
            {"sft": {"max_tokens_per_microbatch": 9}},
            "lower sft.max_tokens_per_microbatch (now 9)",
            "sft.max_tokens_per_microbatch=4",
        ),
        (
            "optimizer",
            {},
            "start a new run with optimizer.name: adamw_8bit or critic.kind: shared or adapters (model.lora)",
            "",
        ),
        (None, ADAPTED, "start a new run with optimizer.name: adamw_8bit or model.lora.quantization: nf4", ""),
        ("checkpoint_s", {}, "free memory on this machine", ""),
    ],
)
def test_every_stage_has_its_advice(stage: str | None, changes: dict[str, Any], advice: str, override: str) -> None:
    line, found = explain(stage, **changes)
    assert line.startswith(
        f"out of memory {WHERE.get('update_s' if stage == 'step_s' else stage or '', 'at the start')}"
    )
    assert "asked for 2.50 GiB, 0.50 GiB were free; " in line
    assert line.partition("; ")[2].startswith(advice)
    assert found == override
    assert not found or is_changeable(found.partition("=")[0])


def test_on_a_gpu_the_host_may_hold_what_a_stage_does_not_need() -> None:
    trainer = {"max_tokens_per_microbatch": 16384, "offload": []}
    error = torch.OutOfMemoryError(ON_CUDA)
    note_stage(error, "rollout_s")
    line, _ = explain_out_of_memory(error, recipe(trainer=trainer), torch.device("cuda"))
    assert line.endswith("(now 512) or set trainer.offload to [reference, optimizer]")
    line, _ = explain_out_of_memory(error, recipe(trainer=trainer), CPU)
    assert line.endswith("(now 512)")
    assert is_changeable("trainer.offload")


def test_what_a_cpu_says() -> None:
    line, _ = explain("update_s", RuntimeError(ON_CPU))
    assert "in the update: asked for 0.00 GiB, " in line
    assert "GiB are free now; " in line
    line, _ = explain("update_s", MemoryError())
    assert "asked for" not in line


def test_outside_of_a_run_it_is_one_line_too() -> None:
    with (
        pytest.raises(TrainingError, match=r"^out of memory while loading the model: .* or a smaller model$"),
        explained("load", recipe(), CPU),
    ):
        raise torch.OutOfMemoryError(ON_CUDA)
    with pytest.raises(KeyError), explained("load", recipe(), CPU):
        raise KeyError("x")
