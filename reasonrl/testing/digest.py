"""Fingerprints of problems, to compare them with another process; run there by ``tasks.py``."""

import hashlib
import json
import pickle
import sys

from reasonrl.contracts.data import Problem
from reasonrl.contracts.protocols import TaskContext
from reasonrl.importing import resolve


def digest(problem: Problem) -> str:
    """Compute the fingerprint of a problem."""
    prompt = problem.prompt
    shown = prompt if isinstance(prompt, str) else [[m.role, m.content] for m in prompt]
    whole = [problem.id, shown, problem.assistant_prefix, dict(problem.info)]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=repr).encode()).hexdigest()


def main() -> None:
    """Read a pickled request from standard input; write the fingerprints of its problems as JSON."""
    factory, config, seed, counts, _ = pickle.load(sys.stdin.buffer)
    out = sys.stdout
    sys.stdout = sys.stderr  # a task may print
    build = resolve(factory) if isinstance(factory, str) else factory
    task = build(config, TaskContext(seed=seed))
    made = {split: [digest(task.problem(split, i)) for i in range(count)] for split, count in counts.items()}
    out.write("\n" + json.dumps(made) + "\n")
