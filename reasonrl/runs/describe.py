"""Describe the model and the machine of a run, in its header and in ``run.json``."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from reasonrl.model.sharding import find_layers
from reasonrl.observability.reporter import Lines
from reasonrl.plugins import Plugins
from reasonrl.recipe.resolved import AnyResolved
from reasonrl.redact import FROM_ENVIRONMENT, redact_data, redact_text
from reasonrl.runs.outline import format_model
from reasonrl.runs.plugin_files import record_plugin
from reasonrl.runs.preflight import Preflight
from reasonrl.trainer.bundle import ModelBundle
from reasonrl.trainer.memory import gpu_name
from reasonrl.version import __version__, find_version

VERSIONED = ("torch", "transformers", "accelerate", "pluggy", "omegaconf", "datasets", "numpy", "tokenizers")


def describe_bundle(resolved: AnyResolved, bundle: ModelBundle, run_dir: Path | None, checked: Preflight) -> Lines:
    """What is known of a run once its model is loaded and its prompts are measured."""
    every = resolved.recipe.evaluation.every
    when = "; first, last" + (f" and every {every} steps" if every else "")
    lines = [
        ("model", _model_line(resolved, bundle)),
        *_template_lines(resolved, bundle),
        ("device", _device_line(bundle)),
        ("training", _rows_line(resolved, bundle)),
        *(("data", text) for text in checked.data),
        *checked.lines(),
        *(("evaluation", suite.line() + when) for suite in checked.suites),
        ("run folder", str(run_dir)),
    ]
    return [(label, redact_text(text)) for label, text in lines]


def _model_line(resolved: AnyResolved, bundle: ModelBundle) -> str:
    model = resolved.recipe.model
    policy, critic = bundle.policy.parameter_groups()
    count = sum(p.numel() for p in bundle.policy.model.parameters())
    trained = sum(p.numel() for p in policy)
    text = f"{format_model(resolved)}, {count:,} parameters"
    text += f", {trained:,} of them trained" if trained != count else ""
    text += ", randomly initialized" if model.init == "random" else ""
    return text + (f", critic {sum(p.numel() for p in critic):,}" if critic else "")


def _template_lines(resolved: AnyResolved, bundle: ModelBundle) -> Iterator[tuple[str, str]]:
    """Where the rendering of prompts differs from the tokenizer's default."""
    model = resolved.recipe.model
    said = [model.chat_template] if model.chat_template else []
    said += [f"{name} = {json.dumps(value)}" for name, value in model.chat_template_args.items()]
    if bundle.renderer.has_folded:
        said.append("no system role, so system messages are put at the start of the first user message")
    if said:
        yield "chat template", ", ".join(said)
    if bundle.renderer.has_own_bos:
        yield "prompts", f"already begin with {bundle.tokenizer.bos_token}, so the tokenizer does not add one"
    if bundle.renderer.takes_off_eos:
        yield "prompts", f"without the {bundle.tokenizer.eos_token} that the tokenizer appends to raw text"


def _device_line(bundle: ModelBundle) -> str:
    ranks = f"{bundle.ranks.size} process{'es' if bundle.ranks.size > 1 else ''}"
    threads = f" x {torch.get_num_threads()} threads" if bundle.accelerator.device.type == "cpu" else ""
    name = gpu_name(bundle.accelerator.device)
    how = f", {describe_sharding(bundle)}" if bundle.ranks.size > 1 else ""
    return f"{bundle.accelerator.device}{f' ({name})' if name else ''}, {bundle.precision}, {ranks}{threads}{how}"


def describe_sharding(bundle: ModelBundle) -> str:
    """What each of several processes holds of the model."""
    if not bundle.shards:
        return "whole weights in each (DDP)"
    return f"weights sharded (FSDP2, {len(find_layers(bundle.policy)) + 1} units)"


def _rows_line(resolved: AnyResolved, bundle: ModelBundle) -> str:
    longest = bundle.policy.packs_up_to
    if not longest:
        return "padded rows" + (", because the model's attention cannot pack them" * resolved.recipe.model.packing)
    limit = f" up to {longest:,} tokens" if longest < sys.maxsize else ""
    return f"packed rows{limit}: no padding, and the prompt of a group once"


def build_manifest(
    resolved: AnyResolved, plugins: Plugins, bundle: ModelBundle, plain: Mapping[str, object]
) -> dict[str, object]:
    """``run.json``: versions, plugins, machine, seed, git state. ``recipe`` has secrets redacted."""
    manifest = {
        "reasonrl": __version__,
        "name": resolved.recipe.name,
        "seed": resolved.recipe.seed,
        "recipe": plain,
        "model_path": _model_path(resolved),
        "python": platform.python_version(),
        "versions": {name: find_version(name) for name in VERSIONED},
        "plugins": [record_plugin(record) for record in plugins.records],
        "machine": {
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "processes": bundle.ranks.size,
            "sharding": "fsdp" if bundle.shards else "none",
            "device": str(bundle.accelerator.device),
            "gpu": gpu_name(bundle.accelerator.device),
            "precision": bundle.precision,
        },
        "git": _git_state(),
    }
    return redact_data(manifest)


def _model_path(resolved: AnyResolved) -> str:
    """A folder is named so that it is found from anywhere."""
    if ("model", "path") in resolved.interpolated:
        return FROM_ENVIRONMENT
    path = resolved.model_path
    return os.path.abspath(path) if Path(path).is_dir() else path


def _git_state() -> dict[str, object] | None:
    """Commit of the working folder's repository; None outside of one."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
