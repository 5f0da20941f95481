"""Options of the task guess_number, seen in its problems, conversations and demonstrations."""

import json
from typing import Any

from stranger.keys.registry import effect
from stranger.keys.sampling import STOPS
from stranger.lab import Lab

GUESS = ("task.guess_number",)


@effect("size", "max_low", of=GUESS)
def ranges(lab: Lab, kind: str) -> None:
    few = [record["info"] for record in _records(lab, "size=7", "max_low=10", n=60)]
    assert {info["high"] - info["low"] for info in few} == {6}
    assert {info["high"] - info["low"] for info in (r["info"] for r in _records(lab, n=9))} == {30}
    assert max(info["low"] for info in few) <= 10 < max(r["info"]["low"] for r in _records(lab, n=60))


@effect("template", of=GUESS)
def template(lab: Lab, kind: str) -> None:
    chat, compact = (_records(lab, f"template={t}", n=1)[0]["prompt"] for t in ("chat", "compact"))
    assert isinstance(chat, list)
    assert compact.startswith("Numbers: ")


@effect("hints", of=GUESS)
def hints(lab: Lab, kind: str) -> None:
    shown = [str(_records(lab, f"hints={value}", n=1)[0]["prompt"]) for value in ("range", "direction", "none")]
    assert ["higher or lower" in prompt for prompt in shown] == [True, True, False]


@effect("guesses", of=GUESS)
def guesses(lab: Lab, kind: str) -> None:
    """The model never finds the number, so every game has as many of its messages."""
    for count in (1, 3):
        task = f"task={{name: guess_number, template: compact, guesses: {count}}}"
        run = lab.run("train", task, f"sampling.stop=[{STOPS}]", "sampling.max_completion_tokens=200")
        said = [sum(m["role"] == "assistant" for m in record["messages"]) for record in run.evaluation()]
        assert max(said) == count


def _records(lab: Lab, *options: str, n: int) -> list[dict[str, Any]]:
    done = lab.ask("tasks", "preview", "guess_number", "--json", "-n", str(n), *options)
    found: list[dict[str, Any]] = json.loads(done.out)
    return found
