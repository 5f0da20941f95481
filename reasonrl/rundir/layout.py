"""What lies where in a run folder: every name is written here and nowhere else."""

import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

RUN = "run.json"
"""Marks a run folder: versions, machine, and the recipe with every value in force."""
RECIPE = "recipe.yaml"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
"""Of a run, and of each evaluation in its own folder."""
RESULTS = "results.json"
"""Marks a saved evaluation, which holds one file of completions per suite too."""
TRACEBACK = "traceback.txt"
REPORT = "report.html"
LOCK = ".lock"
CHECKPOINTS, TRANSCRIPTS, EVALS, TRACKERS = "checkpoints", "transcripts", "evals", "trackers"
TRAINER_STATE = "trainer_state.json"
"""In each checkpoint."""
CARRIED, PENDING = "carried.jsonl", "pending.jsonl"
"""In a checkpoint, if there are such groups."""
MANIFEST = "manifest.json"
MODEL, TRAINABLE, OPTIMIZER = "model", "trainable", "optimizer"
"""Kinds of files with tensors in a checkpoint: see ``tensor_file``."""
MODEL_INDEX = "model.safetensors.index.json"
"""Which file holds which weight, if there are several."""
STATE_FILES = (f"{OPTIMIZER}*.safetensors", f"{TRAINABLE}*.safetensors", TRAINER_STATE, CARRIED, PENDING, MANIFEST)
"""Patterns of the names in a checkpoint that are not of the model folder."""
ADAPTER = "adapter"
"""In a checkpoint of a run with LoRA."""
EXPORT = "export"
TRACKERS_STATE = "state.json"
"""In ``trackers/``."""

FILES = (RUN, RECIPE, METRICS, SUMMARY, TRACEBACK)
FOLDERS = (CHECKPOINTS, TRANSCRIPTS, EVALS, TRACKERS)
"""What a resumed run writes again."""

_TENSORS = re.compile(r"([a-z]+)(-[0-9]{5}-of-[0-9]{5})?\.safetensors")
_STEP = re.compile(r"step_([0-9]{6,18})")
_NUMBERS = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)")
_LEFTOVER = re.compile(rf"\.(tmp|old|gone)-{_STEP.pattern}")


def is_run(folder: Path) -> bool:
    """Whether a run started in ``folder``."""
    return os.path.isfile(folder / RUN)  # a name that is too long is none


def is_data_of_run(path: Path) -> bool:
    """Whether a path lies where commands look for a run's own checkpoints, transcripts, evaluations or trackers."""
    try:
        whole = Path(os.path.realpath(path))  # Path.resolve raises for a link to itself
    except ValueError:  # a null character: who opens it says so
        return False
    places = (whole, *whole.parents)
    return any(place.name in FOLDERS and is_run(place.parent) for place in places)


def list_members(folder: Path) -> list[Path]:
    """The runs and saved evaluations in a folder of them, such as a sweep, in the order of their names and numbers."""
    if is_run(folder) or is_evaluation(folder) or not os.path.isdir(folder):
        return []
    return sorted((child for child in folder.iterdir() if is_run(child) or is_evaluation(child)), key=_natural)


def _natural(path: Path) -> list[tuple[float, str]]:
    """``seed=2`` before ``seed=10``, ``1e-5`` before ``3e-4``."""
    return [(float(part), "") if i % 2 else (0.0, part) for i, part in enumerate(_NUMBERS.split(path.name))]


def name_step(step: int) -> str:
    """``step_000030``: the name of a folder or file of one step."""
    return f"step_{step:06d}"


def tensor_file(kind: str, part: int, parts: int) -> str:
    """``model.safetensors``, or ``model-00001-of-00002.safetensors`` for part 0 of two."""
    return f"{kind}.safetensors" if parts == 1 else f"{kind}-{part + 1:05d}-of-{parts:05d}.safetensors"


def find_tensor_files(names: Iterable[str], kind: str) -> list[str]:
    """Those of ``names`` that are files with tensors of a kind."""
    found = ((_TENSORS.fullmatch(name), name) for name in names)
    return sorted(name for match, name in found if match and match.group(1) == kind)


def is_state_file(name: str) -> bool:
    """Whether a file of a checkpoint is not of the model folder."""
    return any(fnmatchcase(name, pattern) for pattern in STATE_FILES)


def step_dir(run_dir: Path, step: int) -> Path:
    """The checkpoint of a step."""
    return run_dir / CHECKPOINTS / name_step(step)


def is_evaluation(folder: Path) -> bool:
    """Whether ``reasonrl eval --output`` wrote ``folder``."""
    return os.path.isfile(folder / RESULTS)


def completions_file(folder: Path, suite: str) -> Path:
    """The completions of a suite, in the folder of an evaluation."""
    return folder / f"{suite}.jsonl"


def eval_dir(run_dir: Path, step: int) -> Path:
    """The evaluation after a step."""
    return run_dir / EVALS / name_step(step)


def transcript_file(run_dir: Path, step: int) -> Path:
    """The transcripts of a step's rollouts."""
    return run_dir / TRANSCRIPTS / f"{name_step(step)}.jsonl"


def find_steps(paths: Iterable[Path], suffix: str = "") -> list[tuple[int, Path]]:
    """Step and path of those that are named after a step, the first step first."""
    named = ((_STEP.fullmatch(path.name.removesuffix(suffix)), path) for path in paths if path.name.endswith(suffix))
    found = ((int(match.group(1)), path) for match, path in named if match)
    return sorted((step, path) for step, path in found if path.name == name_step(step) + suffix)  # not step_0000007


def find_leftovers(paths: Iterable[Path]) -> list[Path]:
    """What a save or a deletion that was cut off leaves among the checkpoints."""
    return [path for path in paths if _LEFTOVER.fullmatch(path.name)]
