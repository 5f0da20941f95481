"""What a tracker shows of completions holds no secret: it may be on another machine."""

from typing import Any

import pytest

from reasonrl.observability import trackers
from reasonrl.observability.trackers import Trackers

TOKEN = "hf_" + "abcdefghijklmnopqrstuvwxyz012345"


def test_samples_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    subject: Any = object.__new__(Trackers)
    subject._on, subject._sent_before = True, -1
    subject._try_call = lambda call: call()
    subject._show = lambda step, name, rows: sent.append((step, name, rows))
    monkeypatch.setattr(trackers, "_as_row", lambda record: ["p", "prompt", record["completion"], 1.0, "correct"])
    subject.samples(3, "held_out", [{"completion": f"the key is {TOKEN}"}])
    assert sent == [(3, "samples/held_out", [["p", "prompt", "the key is [redacted]", 1.0, "correct"]])]
