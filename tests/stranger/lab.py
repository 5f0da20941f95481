"""Small runs through the real command, kept by their recipe, and what they leave on disk."""

import contextlib
import copy
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors import numpy as safetensors
from stranger.commands import HERE, Commands, Done

PLUGIN = HERE / "probe_plugin.py"

COMMON: Mapping[str, Any] = {
    "model": {"path": "models/qwen2"},
    "task": {"name": "probe"},
    "sampling": {"group_size": 4, "max_prompt_tokens": 64, "max_completion_tokens": 8},
    "optimizer": {"learning_rate": 1e-3},
    "evaluation": {"every": 0, "suites": {"a": {"problems": 4}}},
    "checkpoint": {"every": 1, "keep": 9},
}
TRAINER: Mapping[str, Any] = {"steps": 3, "prompts_per_step": 4}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "train": {
        **COMMON,
        "algorithm": {"name": "grpo"},
        "trainer": TRAINER,
        "logging": {"transcripts_per_step": 16, "report": False},
    },
    "ppo": {
        **COMMON,
        "algorithm": {"name": "ppo"},
        "critic": {"kind": "shared"},
        "trainer": TRAINER,
        "logging": {"transcripts_per_step": 16, "report": False},
    },
    "sft": {
        **{key: value for key, value in COMMON.items() if key != "sampling"},
        "sampling": {"max_prompt_tokens": 64, "max_completion_tokens": 16},
        "sft": {"max_tokens": 300, "tokens_per_batch": 100},
    },
}
"""The recipes that are varied. GRPO where the algorithm does not matter."""


@dataclass(frozen=True)
class Run:
    """A run folder. Steps count from 1; ``step=-1`` is the last one."""

    path: Path
    done: Done

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        return _lines(self.path / "metrics.jsonl")

    def values(self, key: str) -> list[Any]:
        return [line.get(key) for line in self.metrics]

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return _json(self.path / "run.json")

    @cached_property
    def summary(self) -> dict[str, Any]:
        return _json(self.path / "summary.json")

    @cached_property
    def probe(self) -> dict[str, int]:
        """The plugin's counters."""
        return _json(self.path / "probe.json")

    def transcripts(self, step: int = 1) -> list[dict[str, Any]]:
        return _lines(self.path / "transcripts" / f"step_{step:06d}.jsonl")

    def evaluation(self, step: int = 0, suite: str = "a") -> list[dict[str, Any]]:
        return _lines(self.path / "evals" / f"step_{step:06d}" / f"{suite}.jsonl")

    @property
    def evaluated(self) -> list[int]:
        return _steps(self.path / "evals")

    @property
    def saved(self) -> list[int]:
        return _steps(self.path / "checkpoints")

    def checkpoint(self, step: int = -1) -> Path:
        return self.path / "checkpoints" / f"step_{self.saved[-1] if step < 0 else step:06d}"

    def weights(self, step: int = -1) -> dict[str, np.ndarray]:
        return safetensors.load_file(self.checkpoint(step) / "model.safetensors")

    def trained_beside(self, step: int = -1) -> dict[str, np.ndarray]:
        """Critic and adapters."""
        return safetensors.load_file(self.checkpoint(step) / "trainable.safetensors")

    def optimizer(self, step: int = -1) -> dict[str, np.ndarray]:
        return safetensors.load_file(self.checkpoint(step) / "optimizer.safetensors")


class Lab:
    """Runs recipes of ``RECIPES`` with overrides, each set of overrides once."""

    def __init__(self, commands: Commands, folder: Path) -> None:
        self.commands = commands
        self.folder = folder
        (folder / "models").symlink_to(commands.models)
        self.file(PLUGIN.name, PLUGIN.read_text(encoding="utf-8"))
        self.file("reward.py", "def score(problem, completion):\n    return float(len(completion.text) % 2)\n")
        judged = "    value = float(len(completion.text) % 2)\n    return Score(value=value, correct=value == 1.0)\n"
        self.file("judged.py", f"from reasonrl import Score\n\n\ndef score(problem, completion):\n{judged}")
        self._kept: dict[tuple[str, ...], Run] = {}
        self._numbers = itertools.count(1)
        for name, recipe in RECIPES.items():
            self.file(f"{name}.yaml", yaml.safe_dump({"name": name, **recipe}))

    @contextlib.contextmanager
    def fault(self, name: str) -> Iterator["Lab"]:
        """A laboratory in which every run has this fault, and none is kept."""
        faulty = copy.copy(self)
        faulty._kept = {}
        with self.commands.fault(name):
            yield faulty

    def file(self, name: str, text: str) -> Path:
        """A file that recipes may name."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def run(self, recipe: str, *overrides: str, **variables: str) -> Run:
        """The finished run of ``recipe`` with these overrides."""
        key = (recipe, *overrides, *map(str, variables.items()))
        if key not in self._kept:
            run = self.attempt(recipe, *overrides, **variables)
            assert run.done.code == 0, run.done
            self._kept[key] = run
        return self._kept[key]

    def attempt(self, recipe: str, *overrides: str, **variables: str) -> Run:
        """The same, however it ends, and not kept."""
        return self.attempt_in(self.new_folder(), recipe, *overrides, **variables)

    def new_folder(self) -> Path:
        """A folder for a run."""
        return self.folder / "runs" / str(next(self._numbers))

    def attempt_in(self, folder: Path, recipe: str, *overrides: str, **variables: str) -> Run:
        """The same in a folder that is given."""
        options = ["--run-dir", str(folder), "--plugin", PLUGIN.name]
        words = ["sft" if recipe == "sft" else "train", f"{recipe}.yaml", *overrides, *options]
        return Run(folder, self.commands.reasonrl(*words, cwd=self.folder, **variables))

    def refused(self, recipe: str, *overrides: str) -> str:
        """What the command says to wrong input."""
        done = self.attempt(recipe, *overrides).done
        assert done.code == 2, done
        return done.err

    def ask(self, *words: str) -> Done:
        """Another command, which must succeed."""
        done = self.commands.reasonrl(*words, cwd=self.folder)
        assert done.code == 0, done
        return done

    def start(self, model: str = "qwen2") -> dict[str, np.ndarray]:
        """The weights that a run starts from."""
        return safetensors.load_file(self.commands.models / model / "model.safetensors")


def distance(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """L2 distance over the tensors that both have."""
    names = one.keys() & other.keys()
    assert names
    return float(np.sqrt(sum(np.square(one[n].astype(np.float64) - other[n]).sum() for n in names)))


def norm(tensors: Mapping[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.square(t.astype(np.float64)).sum() for t in tensors.values())))


def _steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in folder.glob("step_*"))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
