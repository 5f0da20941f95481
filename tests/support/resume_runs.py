"""Runs that are interrupted and resumed, and how two of them are compared."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from support.fault_points import POINTS, kill_at

from reasonrl.signals import end_by, raise_signals

SCRIPTED = str(Path(__file__).with_name("scripted_plugin.py"))
TALKING = str(Path(__file__).with_name("talking_plugin.py"))
STUB = str(Path(__file__).with_name("stub_plugin.py"))
PLUGIN_FILES = [SCRIPTED, TALKING, STUB]
UNTIMED = ("time/", "throughput/", "perf/", "memory/")
ALGORITHMS: dict[str, dict[str, Any]] = {
    "ppo": {"algorithm": {"name": "ppo", "entropy_coef": 0.01}, "critic": {"kind": "shared"}},
    "grpo": {"algorithm": {"name": "grpo", "kl": {"coef": 0.05}}, "critic": None},
}
COMPARED = ("*.safetensors", "carried.jsonl", "pending.jsonl")


def resumable_recipe(folder: Path, model: Path, **sections: Any) -> Path:
    """A PPO run of 30 small steps with everything that a checkpoint can hold; ``sections`` replace whole ones.

    ``lora`` is a section of the model's.
    """
    lora = sections.pop("lora", None)
    data: dict[str, Any] = {
        "name": "broken",
        "output_dir": str(folder / "runs"),
        "model": {"path": str(model), "lora": lora},
        "task": {"name": "numbers"},
        "algorithm": {"name": "ppo", "entropy_coef": 0.01},
        "critic": {"kind": "shared"},
        "sampling": {"group_size": 2, "max_prompt_tokens": 20, "max_completion_tokens": 4},
        "optimizer": {"learning_rate": 0.01, "schedule": "cosine", "warmup_steps": 2},
        "trainer": {"steps": 30, "prompts_per_step": 4, "minibatches": 2},
        "evaluation": {"every": 10, "suites": {"held_out": {"problems": 2}}},
        "checkpoint": {"every": 3, "keep": 2},
        **sections,
    }
    if "sft" in data:  # where it has no effect, and is refused
        data["sampling"].pop("group_size", None)
    path = folder / "broken.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}), encoding="utf-8")
    return path


def whole_run(folder: Path, model: Path, **sections: Any) -> Path:
    """An uninterrupted run that keeps all its checkpoints."""
    frequent = {
        "checkpoint": {"every": 1, "keep": 99},
        "evaluation": {"every": 4, "suites": {"held_out": {"problems": 2}}},
    }
    recipe = resumable_recipe(folder, model, **{**frequent, **sections})
    go(recipe, folder / "whole")
    return folder / "whole"


def go(recipe: Path | None, run_dir: Path, *overrides: str, **options: Any) -> Any:
    """Start a run, or resume it if ``recipe`` is None."""
    from reasonrl.runs import start

    if recipe is None:
        return start.resume(run_dir, overrides, plugin_files=PLUGIN_FILES, **options)
    begin = start.sft if "sft:" in recipe.read_text() else start.train
    return begin(recipe, overrides, run_dir=run_dir, plugin_files=PLUGIN_FILES, **options)


def metrics_without_times(run_dir: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(UNTIMED)} for line in lines]


def state_of(checkpoint: Path) -> dict[str, Any]:
    """``trainer_state.json`` without what depends on the clock."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    for key in ("wall_s", "metrics_bytes"):
        state["records"].pop(key)
    return state


def assert_same_run(one: Path, other: Path) -> None:
    """Bit by bit: parameters, optimizer, state, metrics, transcripts, evaluations."""
    steps = [max((run / "checkpoints").glob("step_*")).name for run in (one, other)]
    assert steps[0] == steps[1]
    first, second = (run / "checkpoints" / steps[0] for run in (one, other))
    for pattern in COMPARED:
        contents = [{path.name: path.read_bytes() for path in folder.glob(pattern)} for folder in (first, second)]
        assert contents[0].keys() == contents[1].keys()
        assert all(content == contents[1][name] for name, content in contents[0].items()), pattern
    assert state_of(first) == state_of(second)
    assert metrics_without_times(one) == metrics_without_times(other)
    for folder in ("transcripts", "evals"):
        texts = [{p.relative_to(run): p.read_bytes() for p in run.glob(f"{folder}/**/*.json*")} for run in (one, other)]
        assert texts[0] == texts[1], folder


def cut_back(run: Path, copy: Path, step: int) -> Path:
    """A copy of a run as it was when it died some time after its checkpoint of ``step``."""
    shutil.copytree(run, copy)
    (copy / "summary.json").unlink(missing_ok=True)
    for folder in (copy / "checkpoints").glob("step_*"):
        if int(folder.name.removeprefix("step_")) > step:
            shutil.rmtree(folder)
    return copy


def run_in_child(recipe: Path | None, run_dir: Path, dies_at: int = 0) -> None:
    """A run, silent; exit code as the command line has it. ``dies_at``: a file-system call of its checkpoints."""
    quiet()
    with raise_signals(), POINTS.acting(f"{run_dir}/checkpoints/", kill_at(dies_at)):  # as a command handles signals
        try:
            go(recipe, run_dir)
            os._exit(0)
        except BaseException as err:  # noqa: BLE001 - whatever it is, it becomes an exit code
            code = end_by(err, 130) if isinstance(err, KeyboardInterrupt) else getattr(err, "exit_code", 1)
            (run_dir.parent / f"{run_dir.name}.error").write_text(repr(err))
            os._exit(code)


def race(recipe: Path | None, run_dir: Path, barrier: Any, ends: Any) -> None:
    """Start or resume at the same moment as another process; the winner stays until the other one is gone."""
    quiet()
    from reasonrl.errors import RunDirInUseError
    from reasonrl.runs import assemble
    from reasonrl.runs.end import carry_out

    def stay(*args: Any) -> Any:
        ends.wait(60)
        return carry_out(*args)

    assemble.carry_out = stay
    code = 1
    try:
        barrier.wait(60)
        go(recipe, run_dir, *(() if recipe is None else ("trainer.steps=1",)))
        code = 0
    except RunDirInUseError as err:
        code = err.exit_code
        ends.wait(60)
    except BaseException as err:  # noqa: BLE001 - whatever it is, it becomes an exit code
        (run_dir.parent / f"{run_dir.name}.error").write_text(repr(err))
        ends.abort()
    finally:
        os._exit(code)


def soak_run(recipe: Path, run_dir: Path, samples: Any) -> None:
    """A run that puts (step, resident bytes, open files) of itself into a queue."""
    quiet()
    import psutil

    from reasonrl.observability.reporter import SilentReporter

    me = psutil.Process()

    class Watch(SilentReporter):
        def stepped(self, record: Any, total_steps: int, groups: Any) -> None:
            if record.step % 20 == 0:
                samples.put((record.step, me.memory_info().rss, me.num_fds()))

    go(recipe, run_dir, reporter=Watch())
    samples.put(None)


def run_on_full_disk(recipe: Path | None, run_dir: Path, largest_file: int) -> None:
    """A run on a disk that takes no file beyond a size; 0 = of any size."""
    import resource

    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    run_in_child(recipe, run_dir)


def hang_in_the_save(recipe: Path, run_dir: Path) -> None:
    """A run whose disk does not answer."""
    quiet()
    from reasonrl.rundir import files

    def never(path: Path) -> None:
        (run_dir / "hangs").touch()
        time.sleep(600)

    files.sync_folder = never
    try:
        go(recipe, run_dir)
    finally:
        os._exit(1)


def quiet() -> None:
    """Children share the terminal of the tests, and run as if in its foreground.

    What runs in the background inherits that Ctrl-C is ignored, and a run would respect that.
    """
    import torch

    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def wait_until(holds: Callable[[], bool], process: Any, seconds: float = 60.0) -> None:
    """Until it holds, or the process has ended."""
    end = time.monotonic() + seconds
    while not holds() and process.is_alive():
        assert time.monotonic() < end, "a child takes too long"
        time.sleep(0.002)


def seconds_of(run: Callable[[], None]) -> float:
    started = time.monotonic()
    run()
    return time.monotonic() - started
