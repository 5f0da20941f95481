"""Say in one line where memory ran out, how much was asked for, and which recipe keys lower the need."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from reasonrl.errors import RAISABLE, TrainingError, is_out_of_memory, note_stage, one_line, stage_of, with_notes
from reasonrl.trainer.memory import free_gib

AT_START = "at the start of training"
WHERE = {
    "load": "while loading the model",
    "rollout_s": "while sampling",
    "evaluation_s": "while sampling for an evaluation",
    "sync_s": "while handing the weights to the rollout backend",
    "reward_s": "in the rewards",
    "collate_s": "while making the batch",
    "policy_eval_s": "before the update, in log-probabilities or values",
    "advantage_s": "in the advantages",
    "update_s": "in the update",
    "optimizer": "in the optimizer's step",
    "checkpoint_s": "while saving",
}
"""Stage of a step, as ``errors.stage_of`` gives it -> where that is."""
SAMPLING = ("rollout_s", "evaluation_s", "sync_s")
SIZES = {"GiB": 1.0, "MiB": 2.0**-10, "KiB": 2.0**-20, "bytes": 2.0**-30}
ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+) (GiB|MiB|KiB|bytes)")
FREE = re.compile(r"of which ([\d.]+) (GiB|MiB|KiB|bytes) is free")


@dataclass(frozen=True, slots=True)
class WayOut:
    """Something that lowers the need. ``override``: what a resumed run is given; empty: only a new run may have it."""

    text: str
    override: str = ""


@contextmanager
def explained(stage: str, recipe: Mapping[str, Any], device: torch.device) -> Iterator[None]:
    """Turn lack of memory outside of a run's steps into one line.

    Raises:
        TrainingError: with that line.
    """
    try:
        yield
    except RAISABLE as error:
        if not is_out_of_memory(error):
            raise
        note_stage(error, stage)
        text, _ = explain_out_of_memory(error, recipe, device)
        raise TrainingError(with_notes(text, error)) from error


def explain_out_of_memory(error: BaseException, recipe: Mapping[str, Any], device: torch.device) -> tuple[str, str]:
    """The line, and overrides for ``reasonrl resume``; empty if no key that a resumed run may change would help."""
    stage = stage_of(error) or ""
    if stage == "step_s" and "sft" in recipe:
        stage = "update_s"
    ways = [*_ways_out(stage, recipe), *_offload(stage, recipe, device)]
    override = next((way.override for way in ways if way.override), "")
    advice = " or ".join(way.text for way in ways)
    return f"out of memory {WHERE.get(stage, AT_START)}: {_sizes(error, device)}; {advice}", override


def _sizes(error: BaseException, device: torch.device) -> str:
    text = one_line(error)
    asked, free = ASKED.search(text), FREE.search(text)
    wanted = f"asked for {_gib(*asked.groups())}, " if asked else ""
    left = f"{_gib(*free.groups())} were free" if free else f"{free_gib(device):.2f} GiB are free now"
    return wanted + left


def _gib(number: str, unit: str) -> str:
    return f"{float(number) * SIZES[unit]:.2f} GiB"


def _ways_out(stage: str, recipe: Mapping[str, Any]) -> Iterator[WayOut]:
    if stage in SAMPLING:
        yield _sample_less(recipe["rollout_backend"])
    elif stage == "checkpoint_s":
        yield WayOut("free memory on this machine, which holds a copy of the weights meanwhile")
    elif stage in ("", "load", "optimizer"):
        yield WayOut(f"start a new run with {_smaller(stage, recipe)}")
    else:
        section = "sft" if "sft" in recipe else "trainer"
        yield _lower(f"{section}.max_tokens_per_microbatch", recipe[section]["max_tokens_per_microbatch"])
        if stage == "update_s" and not recipe["model"]["gradient_checkpointing"]:
            yield WayOut("set model.gradient_checkpointing to true", "model.gradient_checkpointing=true")


def _offload(stage: str, recipe: Mapping[str, Any], device: torch.device) -> Iterator[WayOut]:
    """Host memory, for what the stage does not need; on a CPU it has no effect."""
    if device.type == "cuda" and stage in (*SAMPLING, "update_s") and recipe.get("trainer", {}).get("offload") == []:
        yield WayOut("set trainer.offload to [reference, optimizer]", "trainer.offload=[reference,optimizer]")


def _lower(key: str, value: object) -> WayOut:
    """``value`` is a text, not a number, where the recipe takes it from the environment."""
    if not isinstance(value, int):
        return WayOut(f"lower {key}")
    return WayOut(f"lower {key} (now {value})", f"{key}={max(1, value // 2)}")


def _sample_less(backend: Mapping[str, Any]) -> WayOut:
    for name in ("max_batch_rows", "max_num_seqs"):
        if (rows := backend.get(name)) is not None:
            return _lower(f"rollout_backend.{name}", rows)
    return WayOut("let the rollout backend sample fewer completions at once")


def _smaller(stage: str, recipe: Mapping[str, Any]) -> str:
    """What lowers the memory that weights and optimizer states need."""
    lora, critic = recipe["model"]["lora"], recipe.get("critic") or {}
    found = []
    if stage != "load" and recipe["optimizer"]["name"] == "adamw":
        found.append("optimizer.name: adamw_8bit")
    if critic.get("kind") == "separate":
        found.append("critic.kind: shared")
    if lora is None:
        found.append("adapters (model.lora)")
    elif lora["quantization"] is None:
        found.append("model.lora.quantization: nf4")
    return " or ".join([*found, "a smaller model"])
