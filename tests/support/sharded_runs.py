"""Runs that shard the policy, one after the other in the same processes, and what each process then holds of it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from support.resume_runs import go

Job = tuple[Path | None, Path, tuple[str, ...]]
"""A recipe (None: resume), the folder of the run, overrides."""


def carry_out_all(jobs: Sequence[Job], shares: Path) -> None:
    """Run every job; ``shares`` is the folder for what each process holds when training begins."""
    from reasonrl.runs import assemble, start

    plain, rank = assemble.prepare, os.environ["RANK"]
    current = Path()
    seen: list[tuple[Path, dict[str, Any]]] = []

    def prepare(*args: Any, **options: Any) -> Any:
        prepared = plain(*args, **options)
        found = describe(prepared)
        optimizer = prepared.optimizer.optimizer
        optimizer.register_step_post_hook(lambda *_: found["policy"].update(learning_bytes(optimizer)))
        prepared.policy.register_forward_hook(lambda *call: found["outputs"].append(dtypes(call[-1])))
        seen.append((shares / f"{current.name}-{rank}.json", found))
        return prepared

    assemble.prepare = prepare
    start._carry_out = _meeting(start._carry_out)
    for recipe, current, overrides in jobs:
        outcome = go(recipe, current, *overrides).outcome
        assert outcome == "completed", outcome
    for path, found in seen:
        path.write_text(json.dumps(found))


def _meeting(carry_out: Any) -> Any:
    """After the first run no process waits for the other: one would find the folder that the other has just made."""

    def met(*args: Any, **options: Any) -> Any:
        if dist.is_initialized():
            dist.barrier()
        return carry_out(*args, **options)

    return met


def carry_out_unseen(recipe: Path, run_dir: Path) -> None:
    """A run whose folder the second process does not see, as if it were another machine's."""
    is_dir = Path.is_dir
    if os.environ["RANK"] == "1":
        Path.is_dir = lambda self: self != run_dir and is_dir(self)  # type: ignore[method-assign]
    go(recipe, run_dir, "model.sharding=fsdp")


def dtypes(output: Any) -> list[str]:
    """Of log-probabilities and values."""
    return [str(tensor.dtype) for tensor in (output.logprobs, output.values) if tensor is not None]


def learning_bytes(optimizer: Any) -> dict[str, list[int]]:
    """Of gradients and of moments: here, and in all."""

    def both(tensors: list[Any]) -> list[int]:
        return [sum(getattr(t, "to_local", lambda t=t: t)().nbytes for t in tensors), sum(t.nbytes for t in tensors)]

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = [optimizer.state[p][key] for p in parameters for key in ("exp_avg", "exp_avg_sq")]  # all were updated
    return {"gradients": both([p.grad for p in parameters]), "moments": both(moments)}


def describe(prepared: Any) -> dict[str, Any]:
    """Units of FSDP, and the sizes of parameters here and in all."""
    from torch.distributed.fsdp import FSDPModule

    def sizes(module: Any) -> dict[str, Any]:
        parameters = dict(module.named_parameters())
        local = {name: getattr(p, "to_local", lambda p=p: p)() for name, p in parameters.items()}
        return {
            "units": sum(isinstance(part, FSDPModule) for part in module.modules()),
            "whole": sum(p.numel() for p in parameters.values()),
            "here": sum(p.numel() for p in local.values()),
            "names": sorted(parameters),
        }

    reference = prepared.reference.weights if prepared.reference else None
    shares = {"policy": sizes(prepared.policy), "reference": sizes(reference) if reference is not None else None}
    return {**shares, "outputs": []}
