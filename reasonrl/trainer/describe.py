"""What will happen, in words and as the manifest ``run.json``."""

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import reasonrl
from reasonrl.observability.reporter import Plan
from reasonrl.plugins import Plugins
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe, ResolvedSft, RewardComponent
from reasonrl.recipe.reward_files import RewardFileConfig
from reasonrl.redact import FROM_ENVIRONMENT, redact_data, redact_text
from reasonrl.trainer.identity import total_steps, used_plugins
from reasonrl.trainer.run_plugins import plugin_record
from reasonrl.trainer.workbench import Workbench

VERSIONED = ("torch", "transformers", "accelerate", "pluggy", "omegaconf", "datasets", "numpy", "tokenizers")


def describe_run(resolved: AnyResolved, plugins: Plugins, bench: Workbench, run_dir: Path | None) -> Plan:
    """The plan shown at the start: model, batch arithmetic, plugins with versions, evaluation, folder."""
    total = total_steps(resolved)
    lines = [
        ("model", _model_line(resolved, bench)),
        ("device", _device_line(bench)),
        *(_rl_lines(resolved) if isinstance(resolved, ResolvedRecipe) else _sft_lines(resolved, total)),
        *_suite_lines(resolved),
        ("plugins", ", ".join(used_plugins(resolved, plugins))),
        ("run folder", str(run_dir)),
    ]
    return Plan(
        title=f"reasonrl {reasonrl.__version__}: {resolved.recipe.name}",
        total_steps=total,
        lines=[(label, redact_text(text)) for label, text in lines],
        evaluation_every=resolved.recipe.evaluation.every,
    )


def _model_line(resolved: AnyResolved, bench: Workbench) -> str:
    model = resolved.recipe.model
    policy, critic = bench.policy.parameter_groups()
    count = sum(p.numel() for p in bench.policy.model.parameters())
    trained = sum(p.numel() for p in policy)
    text = f"{model.name or model.path}, {count:,} parameters"
    text += f", {trained:,} of them trained" if trained != count else ""
    text += ", fresh random weights" if model.init == "random" else ""
    return text + (f", critic {sum(p.numel() for p in critic):,}" if critic else "")


def _device_line(bench: Workbench) -> str:
    ranks = f"{bench.ranks.size} process{'es' if bench.ranks.size > 1 else ''}"
    threads = f" x {torch.get_num_threads()} threads" if bench.accelerator.device.type == "cpu" else ""
    return f"{bench.accelerator.device}, {bench.precision}, {ranks}{threads}"


def _rl_lines(resolved: ResolvedRecipe) -> Iterator[tuple[str, str]]:
    recipe = resolved.recipe
    trainer, sampling = recipe.trainer, recipe.sampling
    completions = trainer.prompts_per_step * sampling.group_size
    updates = trainer.minibatches * trainer.update_epochs
    yield (
        "task",
        f"{resolved.task.name}, rewards "
        + ", ".join(_reward_text(name, reward) for name, reward in resolved.rewards.items()),
    )
    yield "algorithm", f"{resolved.algorithm.name}, rollouts by {resolved.rollout.name}"
    yield (
        "a step",
        f"{trainer.prompts_per_step} prompts x {sampling.group_size} = {completions} completions of at most "
        f"{sampling.max_completion_tokens} tokens; {updates} optimizer step{'s' if updates > 1 else ''} "
        f"of {completions // trainer.minibatches} completions",
    )
    yield "steps", f"{trainer.steps} ({trainer.steps * completions:,} completions in all)"


def _reward_text(name: str, reward: RewardComponent) -> str:
    where = f" ({reward.config.path})" if isinstance(reward.config, RewardFileConfig) else ""
    return f"{name} x {reward.weight:g}{where}"


def _sft_lines(resolved: ResolvedSft, total: int) -> Iterator[tuple[str, str]]:
    recipe = resolved.recipe
    source = (
        f"demonstrations of {resolved.task.name}" if resolved.task else f"{recipe.data and recipe.data.path}"
    )
    yield "imitates", source
    yield (
        "steps",
        f"{total} x {recipe.sft.tokens_per_batch:,} tokens = {recipe.sft.max_tokens:,} tokens in all",
    )


def _suite_lines(resolved: AnyResolved) -> Iterator[tuple[str, str]]:
    every = resolved.recipe.evaluation.every
    for name, suite in resolved.suites.items():
        how = "greedy" if suite.config.temperature == 0 else f"T = {suite.config.temperature:g}"
        yield (
            "evaluation",
            f"{name}: {suite.config.problems} problems x {suite.config.samples} at {how}, first and last"
            + (f" and every {every} steps" if every else ""),
        )


def run_manifest(
    resolved: AnyResolved, plugins: Plugins, bench: Workbench, plain: Mapping[str, Any]
) -> dict[str, Any]:
    """``run.json``: versions, plugins, machine, seed, git state. ``recipe`` has secrets redacted."""
    manifest = {
        "reasonrl": reasonrl.__version__,
        "name": resolved.recipe.name,
        "seed": resolved.recipe.seed,
        "recipe": plain,
        "model_path": FROM_ENVIRONMENT if ("model", "path") in resolved.interpolated else resolved.model_path,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in VERSIONED},
        "plugins": [plugin_record(record) for record in plugins.records],
        "machine": {
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "processes": bench.ranks.size,
            "device": str(bench.accelerator.device),
            "precision": bench.precision,
        },
        "git": _git_state(),
    }
    return redact_data(manifest)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit of the working folder's repository; None outside of one."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
