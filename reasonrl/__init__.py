"""reasonrl: teach a language model to reason by reinforcement learning.

This module is the plugin author's surface and imports no torch. Tensor types live in ``reasonrl.contracts.batch``,
shared maths in ``reasonrl.functional``.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# Read once, when huggingface_hub is imported, by it and by what builds on it: transformers, datasets.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Read once, when torch loads OpenMP. Its threads wait for each other after every operation. If they spin long meanwhile
# and another process runs, they take the core from the one they wait for: a step then takes many times longer. If they
# sleep at once, two are hardly faster than one. GNU's OpenMP spins for some microseconds; others sleep.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}

from reasonrl.contracts.data import (
    Completion,
    ContinueRequest,
    DataSummary,
    FinishReason,
    Message,
    Problem,
    RewardOutput,
    RolloutGroup,
    RolloutRequest,
    RunInfo,
    SamplingParams,
    Score,
    ScoredGroup,
    Split,
    StepRecord,
    Transcript,
    Turn,
)
from reasonrl.contracts.hookspecs import hookimpl
from reasonrl.contracts.metrics import Metric, MetricDef
from reasonrl.contracts.protocols import (
    Algorithm,
    AlgorithmContext,
    GroupReward,
    Reward,
    RewardContext,
    RolloutBackend,
    RolloutContext,
    Task,
    TaskContext,
)
from reasonrl.contracts.specs import (
    AlgorithmSpec,
    ModelSpec,
    Needs,
    NoConfig,
    RecipeSpec,
    RewardSpec,
    RolloutBackendSpec,
    TaskSpec,
)
from reasonrl.contracts.tools import Tools
from reasonrl.datafiles import DataRow, hold_out, read_rows
from reasonrl.version import API_VERSION, __version__

if TYPE_CHECKING:
    from reasonrl.runs.result import RunResult


def run(
    recipe: str | Path, overrides: Sequence[str] = (), *, run_dir: str | Path | None = None, plugins: Sequence[str] = ()
) -> "RunResult":
    """Train as ``reasonrl train RECIPE key=value ...`` does.

    Args:
        recipe: path of a recipe file, or the name of a packaged recipe.
        overrides: ``"section.key=value"`` strings, applied over the recipe.
        run_dir: folder to create for this run; default ``runs/<name>-<n>``.
        plugins: files or modules to load beside the installed plugins, as ``--plugin`` does.

    Returns:
        Outcome, folder, summary and path of the trained model.

    Raises:
        RecipeError: for wrong input, RunDirInUseError, PluginError, CheckpointError, TrainingError. SIGINT and SIGTERM
            save the state and raise a KeyboardInterrupt; a second one ends the process.
    """
    from reasonrl.runs.start import train

    return train(recipe, overrides, run_dir=run_dir, plugin_files=plugins)


def resume(
    run_dir: str | Path, overrides: Sequence[str] = (), *, strict: bool = False, plugins: Sequence[str] = ()
) -> "RunResult":
    """Resume a run as ``reasonrl resume RUN`` does, bit-exact as if it had not stopped.

    Args:
        run_dir: folder of a run that was stopped, killed or has failed; one without a checkpoint starts again.
        overrides: ``"trainer.steps=N"`` to train longer; limits, memory, logging and checkpoints may change too.
        strict: refuse if the newest checkpoint is damaged, instead of using the one before.
        plugins: files or modules to load beside the installed plugins.

    Returns:
        As ``run``; the outcome is ``already completed`` if there was nothing left to do.

    Raises:
        RecipeError: if recipe, tokenizer or plugins are not what they were, RunDirInUseError, CheckpointError.
    """
    from reasonrl.runs.start import resume as resume_run

    return resume_run(run_dir, overrides, strict=strict, plugin_files=plugins)


__all__ = [
    "API_VERSION",
    "Algorithm",
    "AlgorithmContext",
    "AlgorithmSpec",
    "Completion",
    "ContinueRequest",
    "DataRow",
    "DataSummary",
    "FinishReason",
    "GroupReward",
    "Message",
    "Metric",
    "MetricDef",
    "ModelSpec",
    "Needs",
    "NoConfig",
    "Problem",
    "RecipeSpec",
    "Reward",
    "RewardContext",
    "RewardOutput",
    "RewardSpec",
    "RolloutBackend",
    "RolloutBackendSpec",
    "RolloutContext",
    "RolloutGroup",
    "RolloutRequest",
    "RunInfo",
    "SamplingParams",
    "Score",
    "ScoredGroup",
    "Split",
    "StepRecord",
    "Task",
    "TaskContext",
    "TaskSpec",
    "Tools",
    "Transcript",
    "Turn",
    "__version__",
    "hold_out",
    "hookimpl",
    "read_rows",
    "resume",
    "run",
]
