"""Time, memory and file size of `reasonrl report` on a made-up run.

python benchmarks/report_size.py [--steps 10000] [--transcripts 20] [--words 60] [--keep DIR]

The default is a run of 10,000 steps with 200,000 transcripts, and an evaluation of 1,000 problems every 500 steps. The
first four completions of a step have figures per token, as in a real run. It
has to be reported in under 60 s and 1 GB, in a file under 5 MB; else the exit status is 1.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

MAX_S, MAX_MB, MAX_FILE_MB = 60.0, 1000.0, 5.0
EVERY, PROBLEMS, COLORED = 500, 1000, 4


def main() -> int:
    """Write a run, report it in a process of its own, print what it took."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=10_000)
    options.add_argument("--transcripts", type=int, default=20, help="per step")
    options.add_argument("--words", type=int, default=60, help="equations in a completion")
    options.add_argument("--keep", type=Path, help="write the run and its report here")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run = (chosen.keep or Path(temporary)) / "run"
        write_run(run, chosen.steps, chosen.transcripts, chosen.words)
        begin = time.monotonic()
        subprocess.run([sys.executable, "-m", "reasonrl", "report", str(run)], check=True)
        seconds = time.monotonic() - begin
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        file_mb = (run / "report.html").stat().st_size / 1e6
    memory_mb = usage.ru_maxrss / 1e3
    cpu_s = usage.ru_utime + usage.ru_stime
    print(f"{seconds:.1f} s ({cpu_s:.1f} s of CPU), {memory_mb:.0f} MB of memory, a file of {file_mb:.2f} MB")  # noqa: T201
    return int(cpu_s > MAX_S or memory_mb > MAX_MB or file_mb > MAX_FILE_MB)


def write_run(run: Path, steps: int, transcripts: int, words: int) -> None:
    rng = random.Random(0)
    (run / "transcripts").mkdir(parents=True)
    recipe = {"name": "made_up", "trainer": {"steps": steps, "prompts_per_step": 64}, "sampling": {"group_size": 8}}
    write(run / "run.json", [{"reasonrl": "0.1.0", "recipe": recipe | {"task": {"name": "countdown"}}}])
    write(run / "recipe.yaml", [{"name": "made_up"}])
    write(run / "metrics.jsonl", (metrics(step, rng) for step in range(1, steps + 1)))
    for step in range(1, steps + 1):
        records = (with_tokens(completion(place, words, rng), place, words) for place in range(transcripts))
        write(run / "transcripts" / f"step_{step:06d}.jsonl", records)
    for step in range(0, steps + 1, EVERY):
        folder = run / "evals" / f"step_{step:06d}"
        folder.mkdir(parents=True)
        write(folder / "held_out.jsonl", (completion(place, words, rng) for place in range(PROBLEMS)))
        suite = {"accuracy": 0.5, "ci95": [0.47, 0.53], "problems": PROBLEMS, "samples": 1}
        suite |= {"behavior": {"attempts": 3.0}}
        write(folder / "summary.json", [{"held_out": suite}])


def metrics(step: int, rng: random.Random) -> dict[str, float]:
    keys = ("train/reward", "train/accuracy", "train/length_tokens", "policy/entropy", "policy/kl_old_k3")
    stages = [f"time/{stage}_s" for stage in ("rollout", "reward", "collate", "policy_eval", "update", "step")]
    more = [f"numerics/made_up_{place}" for place in range(40)]
    return {"step": step} | {key: rng.random() for key in (*keys, *stages, *more)}


@cache
def traces(words: int) -> list[str]:
    """A pool, since random numbers are slow. Each is text that compresses no better than that of a model."""
    rng = random.Random(0)
    pairs = [[(rng.randrange(99), rng.randrange(99)) for _ in range(words)] for _ in range(5000)]
    return [" no\n".join(f"{a}+{b}={a + b}" for a, b in steps) for steps in pairs]


def completion(place: int, words: int, rng: random.Random) -> dict[str, object]:
    correct = rng.random() < 0.5
    prompt = f"Numbers: {rng.randrange(99)} {rng.randrange(99)} {rng.randrange(99)}. Target: 24.\n<think>\n"
    return {
        "schema": 1,
        "problem_id": f"countdown/train/{place}",
        "sample": place,
        "prompt": prompt,
        "prompt_text": prompt,
        "info": {"numbers": [1, 2, 3], "target": 24},
        "completion": rng.choice(traces(words)) + "</think>\n<answer>1+2+3</answer>",
        "completion_tokens": 5 * words,
        "finish_reason": "eos",
        "policy_version": 1,
        "reward": float(correct),
        "components": {"countdown": float(correct)},
        "correct": correct,
        "answer": "1+2+3",
        "reasons": {"countdown": "ok" if correct else "wrong_value"},
    }


@cache
def figures(place: int, words: int) -> dict[str, object]:
    """One of a pool, since random numbers are slow."""
    rng = random.Random(place)
    count = 5 * words
    return {
        "lengths": [2] * count,
        "logprob_gap": [round(rng.gauss(0, 0.02), 4) for _ in range(count)],
        "advantage": round(rng.gauss(0, 1), 4),
        "entropy": [round(rng.expovariate(2), 4) for _ in range(count)],
    }


def with_tokens(record: dict[str, object], place: int, words: int) -> dict[str, object]:
    """A transcript of training, with figures per token if it is one of the first of its step."""
    if place >= COLORED:
        return record
    return record | {"tokens": figures(len(str(record["completion"])) % 200, words)}


def write(path: Path, records: object) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
