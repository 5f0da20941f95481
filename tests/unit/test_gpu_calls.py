"""The order of calls that only a GPU or several of them would notice, with fakes that record them."""

from contextlib import suppress
from typing import Any

import pytest
import torch
from accelerate import PartialState

from reasonrl.recipe.schema import ModelConfig
from reasonrl.runs import build
from reasonrl_vllm.config import VLLMConfig
from reasonrl_vllm.engine import LocalEngine
from reasonrl_vllm.failures import Failures


class Engine:
    """vLLM's side of a ``LocalEngine``."""

    def __init__(self, calls: list[Any]) -> None:
        self._calls = calls

    def sleep(self, level: int) -> None:
        self._calls.append(("sleep", level))

    def wake_up(self, tags: list[str]) -> None:
        self._calls.append(("wake", tuple(tags)))


def test_torch_gives_its_cache_back_before_the_engine_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty cache"))
    engine = LocalEngine.__new__(LocalEngine)
    engine._llm, engine._sleeps, engine._asleep = Engine(calls), True, set()
    engine._failures = Failures(config=VLLMConfig(), on_gpu=True)
    engine._wake("weights", "kv_cache")  # awake already
    engine._sleep()
    engine._wake("weights")
    engine._wake("weights", "kv_cache")
    assert calls == [("sleep", 1), "empty cache", ("wake", ("weights",)), "empty cache", ("wake", ("kv_cache",))]


def test_processes_wait_for_a_checkpoint_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL's own limit is ten minutes."""
    seen: list[Any] = []

    class Asked(Exception):
        pass

    def state(**given: Any) -> PartialState:
        seen.append(given["timeout"].total_seconds())
        raise Asked

    monkeypatch.setattr(build, "PartialState", state)
    monkeypatch.setattr(build, "choose_cpu", lambda device: True)
    resolved: Any = type(
        "Resolved", (), {"recipe": type("Recipe", (), {"device": "cpu", "model": ModelConfig(path="x")})}
    )
    with suppress(Asked):
        build._load_bundle(resolved, ())
    assert seen == [3600.0]
