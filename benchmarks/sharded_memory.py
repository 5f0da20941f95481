"""What each of two processes holds with and without `model.sharding: fsdp`: bytes of tensors, and resident memory.

    python benchmarks/sharded_memory.py [--model FOLDER] [--processes 2] [--steps 2]

GRPO on a CPU, with a random Llama of 48M parameters unless `--model` names a folder. Each way is a run that saves.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import ROOT, peak_of_process, record, show, table

HIDDEN, LAYERS = 768, 9
RECIPE = """
name: sharded_memory
model: {{path: {model}, dtype: float32, sharding: {sharding}}}
task: {{name: countdown, template: chat, min_numbers: 3, max_numbers: 3, min_number: 1, max_number: 20,
  min_target: 1, max_target: 100}}
algorithm: {{name: grpo}}
sampling: {{group_size: 2, max_prompt_tokens: 512, max_completion_tokens: 8}}
trainer: {{steps: {steps}, prompts_per_step: {processes}, max_tokens_per_microbatch: 256}}
evaluation: {{every: 0}}
checkpoint: {{every: 1, keep: 1, keep_best: false}}
device: cpu
"""
HELD = ("parameters", "gradients", "moments")
STAGES = ("start", "rollout", "update", "save")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        model = (arguments.model or _random_llama(Path(temporary))).resolve()
        found = {
            sharding: measure(Path(temporary), model, sharding, arguments.processes, arguments.steps)
            for sharding in ("none", "fsdp")
        }
    rows = [[name, *(f"{ranks[0][name]:.3f}" for ranks in found.values())] for name in (*HELD, *STAGES)]
    show(table(("GiB on the first process", *found), rows))
    record("sharded_memory", processes=arguments.processes, model=arguments.model and model.name, ranks=found)


def _random_llama(folder: Path) -> Path:
    from reasonrl.testing.models import tiny_model_folder

    return tiny_model_folder(folder / "model", hidden=HIDDEN, layers=LAYERS, heads=12, kv_heads=6)


def measure(folder: Path, model: Path, sharding: str, processes: int, steps: int) -> list[dict[str, float]]:
    """A run; what each process held."""
    recipe, out = folder / f"{sharding}.yaml", folder / sharding
    out.mkdir()
    recipe.write_text(RECIPE.format(model=model, sharding=sharding, processes=processes, steps=steps), encoding="utf-8")
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "plugins", ROOT / "benchmarks")))
    # Large tensors are given back one by one, so that the peak is what the work needs.
    own = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    subprocess.run([*command, __file__, "--worker", recipe, out], env={**os.environ, **own}, check=True)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(processes)]


def work(recipe: Path, out: Path) -> None:
    """One process of a run."""
    import torch

    import reasonrl
    from reasonrl.runs import assemble, save
    from reasonrl.trainer.memory import restart_peak

    held: dict[str, float] = {}
    prepare, write = assemble.prepare, save.Checkpointer.save
    cpu = torch.device("cpu")

    def prepare_and_watch(*args: Any, **options: Any) -> Any:
        prepared = prepare(*args, **options)
        held["start"] = peak_of_process()
        optimizer = prepared.optimizer.optimizer
        optimizer.register_step_post_hook(lambda *_: held.update(count(optimizer)))
        return prepared

    def write_and_watch(*args: Any, **options: Any) -> None:
        restart_peak(cpu)
        write(*args, **options)
        held["save"] = peak_of_process()

    assemble.prepare, save.Checkpointer.save = prepare_and_watch, write_and_watch  # type: ignore[method-assign]
    reasonrl.run(recipe, run_dir=out / "run")
    lines = (out / "run" / "metrics.jsonl").read_text().splitlines()
    metrics = json.loads(lines[-1])
    held |= {stage: metrics[f"memory/{stage}_gib"] for stage in ("rollout", "update")}
    (out / f"{os.environ['RANK']}.json").write_text(json.dumps(held))


def count(optimizer: Any) -> dict[str, float]:
    """GiB of this process's own shards."""
    size: Callable[[Any], float] = lambda t: getattr(t, "to_local", lambda: t)().nbytes / (1 << 30)  # noqa: E731
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states = [optimizer.state[p] for p in parameters]
    return {
        "parameters": sum(map(size, parameters)),
        "gradients": sum(size(p.grad) for p in parameters if p.grad is not None),
        "moments": sum(size(state[key]) for state in states for key in ("exp_avg", "exp_avg_sq") if key in state),
    }


if __name__ == "__main__":
    work(*map(Path, sys.argv[2:])) if "--worker" in sys.argv else main()
