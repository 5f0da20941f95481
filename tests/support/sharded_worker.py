"""Checkpoints that are written and read by any number of processes, replicated (DDP) or sharded (FSDP2)."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from support.processes import on_ranks
from support.savers import Subject

from reasonrl.recipe.schema import LoraConfig
from reasonrl.rundir import files
from reasonrl.runs import tensors


@dataclass(frozen=True)
class Save:
    """A checkpoint: of a policy that was updated, or that was loaded from the checkpoint ``source``."""

    run: Path
    model: Path
    source: Path | None = None
    processes: int = 2
    shards: bool = False
    critic: str | None = "shared"
    lora: bool = False
    optimizer: str = "adamw"
    is_watched: bool = True
    """No tensor may be gathered on all processes."""
    full_on: int = -1
    """The process whose disk is full when it writes the optimizer's states."""

    @property
    def folder(self) -> Path:
        return self.run / "checkpoints" / "step_000003"

    def held(self, rank: int) -> dict[str, Any]:
        """What a process held while it saved."""
        found: dict[str, Any] = json.loads((self.run / f"held-{rank}.json").read_text())
        return found

    def carry_out(self) -> Path:
        """In as many processes; returns the checkpoint."""
        done = on_ranks(self.processes, carry_out, self)
        assert done.returncode == 0, done.stderr[-3000:]
        return self.folder


def carry_out(save: Save) -> None:
    """On each process."""
    subject = Subject(
        save.model,
        save.run,
        critic=save.critic,
        lora=LoraConfig(rank=2) if save.lora else None,
        optimizer=save.optimizer,
        shards=save.shards,
    )
    if save.source is None:
        for seed in range(3):
            subject.learn(seed)
    else:
        subject.load(save.source)
    held = observe() if save.is_watched else {}
    if int(os.environ["RANK"]) == save.full_on:
        fill_disk()
    subject.save(3)
    held["here"], held["whole"] = local_bytes(subject), whole_bytes(subject)
    (save.run / f"held-{os.environ['RANK']}.json").write_text(json.dumps(held))
    if dist.is_initialized():
        dist.barrier()


def observe() -> dict[str, Any]:
    """Count the bytes that this process holds for each kind of file, and refuse to gather for all processes."""
    held: dict[str, Any] = {}
    plain = tensors.share_out

    def counted(kind: str, *args: Any) -> Any:
        share = plain(kind, *args)
        held[kind] = [sum(tensor.nbytes for tensor in share.own.values()), share.num_bytes]
        return share

    def refuse(_self: Any, **_: Any) -> Any:
        raise AssertionError("a save gathers a tensor on every process")

    tensors.share_out = counted
    torch.distributed.tensor.DTensor.full_tensor = refuse  # type: ignore[method-assign]
    return held


def fill_disk() -> None:
    """Let this process write no optimizer states."""
    plain = files.write_tensors

    def write(path: Path, *args: Any) -> None:
        if path.name.startswith("optimizer"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(path, *args)

    files.write_tensors = write


def local_bytes(subject: Subject) -> dict[str, int]:
    """Of this process's parameters, and of their moments."""
    return _bytes(subject, lambda tensor: getattr(tensor, "to_local", lambda: tensor)().nbytes)


def whole_bytes(subject: Subject) -> dict[str, int]:
    """Of all of them."""
    return _bytes(subject, lambda tensor: tensor.nbytes)


def _bytes(subject: Subject, size: Any) -> dict[str, int]:
    parameters = [p for group in subject.optimizer.param_groups for p in group["params"]]
    states = [subject.optimizer.state[p] for p in parameters]
    moments = ("exp_avg", "exp_avg_sq")
    return {
        "parameters": sum(map(size, parameters)),
        "moments": sum(size(state[key]) for state in states for key in moments),
    }
