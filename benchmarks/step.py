"""Where a training step's time goes, how fast the machine is used, and how much work is wasted.

    python benchmarks/step.py [--recipe countdown_grpo | --model FOLDER] [--threads 1] [--repeats 5] [--check]

Takes real steps of a recipe, or GRPO steps of a model folder with every row trained. Prints each stage's median seconds
and its speed as a share of a matrix product timed before every step, and appends a line to the results. With `--check`
torch counts the operations of one more step, to compare with the metric.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from measure import peak_of_process, record, show, summary, table
from subjects import Bench, Subject, figures, open_subject, use_threads

from reasonrl.trainer.work import least_work, shapes_of

STAGES = ("prefill", "decode", "reward", "log-probs", "forward", "backward", "optimizer", "other")


class Clock:
    """Seconds inside functions that a step calls; ``patch`` replaces them by timed ones."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.training_flops = 0.0

    def patch(self, owner: Any, name: str, stage: str) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return plain(*args, **kwargs)
            finally:
                self.seconds[stage] += time.perf_counter() - started

        setattr(owner, name, timed)


def instrument(bench: Bench) -> Clock:
    """Time what the trainer's own stages do not tell apart, and count the operations that training needs."""
    from reasonrl_hf.cached import CachedModel

    clock, work, count = Clock(), bench.trainer._work, bench.trainer._work.trained

    def counted(rows: Sequence[int]) -> None:
        before = work.useful
        count(rows)
        clock.training_flops += work.useful - before

    bench.trainer._updater.trained = counted
    clock.patch(CachedModel, "prefill", "prefill")
    clock.patch(bench.bundle.accelerator, "backward", "backward")
    clock.patch(bench.trainer._updater.guard, "step", "optimizer")
    clock.patch(bench.trainer._updater, "_with_old", "old")
    return clock


def stages(clock: Clock, metrics: dict[str, float]) -> dict[str, float]:
    """Seconds of each stage; they add up to the step."""
    inner, time_of = clock.seconds, {key[5:-2]: s for key, s in metrics.items() if key.startswith("time/")}
    found = {
        "prefill": inner["prefill"],
        "decode": time_of["rollout"] - inner["prefill"],
        "reward": time_of["reward"],
        "log-probs": time_of["policy_eval"] + inner["old"],
        "forward": time_of["update"] - inner["old"] - inner["backward"] - inner["optimizer"],
        "backward": inner["backward"],
        "optimizer": inner["optimizer"],
    }
    return {**found, "other": time_of["step"] - sum(found.values())}


def measure(bench: Bench, repeats: int) -> list[dict[str, Any]]:
    """Steps after one to warm up, each with the machine's speed before it."""
    clock = instrument(bench)
    bench.step()
    found = []
    for number in range(repeats):
        gflops = bench.gflops()
        clock.clear()
        seconds, metrics = bench.step()
        # The run's own probe was taken once; here the machine's speed right before the step counts.
        work = bench.trainer._work
        mfu = work.useful / (metrics["time/step_s"] * gflops * 1e9)
        step = {**figures(bench, seconds, metrics), "stages": stages(clock, metrics), "gflops": gflops, "mfu": mfu}
        step["sampling_mfu"] = sampling_flops(bench) / (metrics["time/rollout_s"] * gflops * 1e9)
        trained_s = metrics["time/update_s"] - clock.seconds["old"]
        step["training_mfu"] = clock.training_flops / (trained_s * gflops * 1e9)
        found.append(step)
        show(f"  step {number + 1}: {seconds:.2f} s, {step['tokens']} tokens, {gflops:.1f} GFLOP/s")
    return found


def sampling_flops(bench: Bench) -> float:
    """The least that the step's completions need."""
    return float(bench.trainer._work._networks[0].flops.forward(least_work(shapes_of(bench.groups))))


def check(bench: Bench) -> float:
    """Operations that the metric counts over those that torch counts, without attention, which torch leaves out."""
    from torch.utils.flop_counter import FlopCounterMode

    work = bench.trainer._work
    work._networks = [replace(n, flops=replace(n.flops, pair=0.0, pair_back=0.0)) for n in work._networks]
    with FlopCounterMode(display=False) as counter:
        bench.step()
    return float(work.executed / counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", help="name or file of a recipe, with its own rewards; default countdown_grpo")
    parser.add_argument("--model", help="folder of a model, for chat prompts of Countdown")
    parser.add_argument("--prompts", type=int, default=4, help="with --model")
    parser.add_argument("--group", type=int, default=4, help="with --model")
    parser.add_argument("--tokens", type=int, default=32, help="with --model")
    parser.add_argument("--threads", type=int, default=None, help="default: what reasonrl chooses")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    if arguments.model:
        subject = Subject(
            model=arguments.model, prompts=arguments.prompts, group=arguments.group, tokens=arguments.tokens
        )
        name, bench = subject.name, open_subject(subject)
    else:
        name = arguments.recipe or "countdown_grpo"
        # The weights stay what they are, and with them the lengths.
        bench = Bench(name, ["optimizer.learning_rate=1e-12"], every_row=False, fixed=False)
    threads = use_threads(None)
    before = peak_of_process()
    show(f"{name}, {threads} threads")
    report(name, threads, before, measure(bench, arguments.repeats), check(bench) if arguments.check else None)


def report(name: str, threads: int, before: float, steps: list[dict[str, Any]], counted: float | None) -> None:
    """Print the table and append the result."""

    def of(key: str) -> float:
        return median(step["metrics"].get(key, 0.0) for step in steps)

    seconds = median(step["seconds"] for step in steps)
    parts = {stage: median(step["stages"][stage] for step in steps) for stage in STAGES}
    shares = [sum(step["stages"].values()) / step["seconds"] for step in steps]
    result = {
        "subject": name,
        "threads": threads,
        "steps": len(steps),
        "seconds": summary([step["seconds"] for step in steps]),
        "stages": parts,
        "sum_over_wall": median(shares),
        "gflops": median(step["gflops"] for step in steps),
        "mfu": summary([step["mfu"] for step in steps]),
        "sampling_mfu": summary([step["sampling_mfu"] for step in steps]),
        "training_mfu": summary([step["training_mfu"] for step in steps]),
        "executed_over_useful": of("perf/executed_over_useful"),
        "padding": of("batch/padding_frac"),
        "dropped_rows": of("batch/dropped_frac"),
        "dead_groups": of("group/zero_std_frac"),
        "tokens_per_s": median(step["tokens"] / step["seconds"] for step in steps),
        "peak_gib": max([before, *(step["metrics"]["memory/peak_gib"] for step in steps)]),
        "counted_over_torch": counted,
    }
    show(table(("stage", "seconds", "share"), [[s, f"{t:.3f}", f"{t / seconds:.1%}"] for s, t in parts.items()]))
    for key, value in result.items():
        if key not in ("stages", "subject"):
            show(f"{key:>22}: {value}")
    record("step", **result)


if __name__ == "__main__":
    main()
