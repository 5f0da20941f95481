"""Options of the task countdown: problems as ``tasks preview`` shows them, demonstrations as SFT reads them."""

import json
from typing import Any

from stranger.keys.registry import effect
from stranger.lab import Lab

COUNTDOWN = ("task.countdown",)


@effect("min_numbers", "max_numbers", "min_number", "max_number", "min_target", "max_target", of=COUNTDOWN)
def ranges(lab: Lab, kind: str) -> None:
    """Every bound is reached and none is passed."""
    amounts = "min_numbers=2", "max_numbers=5"
    problems = _preview(lab, *amounts, "min_number=10", "max_number=14", "min_target=20", "max_target=26", n=120)
    assert {len(p["numbers"]) for p in problems} == {2, 3, 4, 5}
    assert {n for p in problems for n in p["numbers"]} == set(range(10, 15))
    assert {p["target"] for p in problems} == set(range(20, 27))


@effect("numbers_weights", of=COUNTDOWN)
def numbers_weights(lab: Lab, kind: str) -> None:
    problems = _preview(lab, "numbers_weights=[0.0, 1.0]", n=30)
    assert {len(p["numbers"]) for p in problems} == {4}


@effect("source", "dataset", of=COUNTDOWN)
def dataset(lab: Lab, kind: str) -> None:
    rows = [{"nums": [3, 5, n], "target": n + 8} for n in range(9, 60)]
    lab.file("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    problems = _preview(lab, "source=dataset", "dataset=rows.jsonl", n=20)
    assert all(sum(p["numbers"]) == p["target"] for p in problems)
    assert not all(sum(p["numbers"]) == p["target"] for p in _preview(lab, n=20))


@effect("nums_column", "target_column", of=COUNTDOWN)
def columns(lab: Lab, kind: str) -> None:
    rows = [{"given": [3, 5, n], "goal": {"value": n + 8}} for n in range(9, 60)]
    lab.file("columns.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    names = ("nums_column=given", "target_column=goal.value")
    problems = _preview(lab, "source=dataset", "dataset=columns.jsonl", *names, n=20)
    assert all(sum(p["numbers"]) == p["target"] for p in problems)


@effect("template", of=COUNTDOWN)
def template(lab: Lab, kind: str) -> None:
    base, chat, compact = (_records(lab, f"template={t}", n=1)[0]["prompt"] for t in ("base", "chat", "compact"))
    assert isinstance(base, str)
    assert "<think>" in base
    assert isinstance(chat, list)
    assert compact.startswith("Numbers: ")


@effect("mean_attempts", "patient_frac", "patient_attempts", "aimed_frac", of=COUNTDOWN)
def demonstrations(lab: Lab, kind: str) -> None:
    """Longer searches are longer demonstrations; aimed ones begin by repeating the target."""
    short = _lengths(lab, "mean_attempts: 1.0")
    assert sum(_lengths(lab, "mean_attempts: 8.0")) > 1.5 * sum(short)
    patient = _lengths(lab, "mean_attempts: 1.0, patient_frac: 1.0, patient_attempts: 8")
    assert sum(patient) > 1.5 * sum(short)
    assert sum(_lengths(lab, "mean_attempts: 1.0, patient_frac: 1.0, patient_attempts: 16")) > 1.2 * sum(patient)
    aimed = _lengths(lab, "mean_attempts: 1.0, aimed_frac: 1.0")
    assert sum(aimed) > sum(short)


@effect("calculator", of=COUNTDOWN)
def calculator(lab: Lab, kind: str) -> None:
    """Demonstrations with it have one call an attempt instead of the steps; the control writes the same text."""
    steps, *calls = (_lengths(lab, f"mean_attempts: 8.0, calculator: {value}") for value in ("none", "tool", "head"))
    assert calls[0] == calls[1]
    assert calls[0] != steps


def _lengths(lab: Lab, options: str) -> list[float]:
    """Tokens of 24 demonstrations, one a step."""
    task = f"task={{name: countdown, template: compact, {options}}}"
    one_by_one = ("sft.tokens_per_batch=1", "sft.max_tokens=24", "sampling.max_completion_tokens=1900")
    run = lab.run("sft", task, *one_by_one, "evaluation.suites=null", "checkpoint.every=0")
    lengths: list[float] = run.values("batch/train_tokens")
    return lengths


def _preview(lab: Lab, *options: str, n: int) -> list[dict[str, Any]]:
    return [record["info"] for record in _records(lab, *options, n=n)]


def _records(lab: Lab, *options: str, n: int) -> list[dict[str, Any]]:
    done = lab.ask("tasks", "preview", "countdown", "--json", "-n", str(n), *options)
    found: list[dict[str, Any]] = json.loads(done.out)
    return found
