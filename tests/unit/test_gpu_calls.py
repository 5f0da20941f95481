"""The order of calls that only a GPU or several of them would notice, with fakes that record them."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from support.resume_runs import go, resumable_recipe

import reasonrl.trainer.loop as loop
from reasonrl.runs import processes
from reasonrl.trainer.optim import GuardedOptimizer
from reasonrl_hf.backend import HFBackend
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
    assert engine.release()
    assert engine.release()  # asleep already
    engine._wake("weights")
    engine._wake("weights", "kv_cache")
    assert calls == [("sleep", 2), "empty cache", ("wake", ("weights",)), "empty cache", ("wake", ("kv_cache",))]


def test_processes_wait_for_a_checkpoint_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL's own limit is ten minutes."""
    seen: list[Any] = []

    class Asked(Exception):
        pass

    def state(**given: Any) -> PartialState:
        seen.append(given["timeout"].total_seconds())
        raise Asked

    monkeypatch.setattr(processes, "PartialState", state)
    monkeypatch.setattr(processes, "choose_cpu", lambda device: True)
    with suppress(Asked):
        processes.connect("cpu")
    monkeypatch.setenv("REASONRL_PROCESS_TIMEOUT_S", "30")
    with suppress(Asked):
        processes.connect("cpu")
    assert seen == [3600.0, 30.0]


def test_a_backend_that_dropped_its_weights_gets_them_before_it_samples_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after an evaluation and a skipped update, when they are the same."""
    calls: list[str] = []

    def record(owner: Any, name: str, called: str) -> None:
        original = getattr(owner, name, lambda self: True)
        monkeypatch.setattr(owner, name, lambda *a, **k: calls.append(called) or original(*a, **k), raising=False)

    record(HFBackend, "sync_weights", "sync")
    record(HFBackend, "generate", "sample")
    record(HFBackend, "release", "release")
    record(loop, "evaluate_policy", "score")
    monkeypatch.setattr(GuardedOptimizer, "_take", lambda self: None)
    sections = {"trainer": {"steps": 2, "prompts_per_step": 2}, "checkpoint": {"every": 0}}
    evaluation = {"every": 1, "suites": {"a": {"problems": 1}, "b": {"problems": 2}}}
    go(resumable_recipe(tmp_path, tiny_model, **sections, evaluation=evaluation), tmp_path / "run")
    evaluated, step = ["sync", "sample", "sample", "release"], ["sync", "sample", "release", "score"]
    assert calls == [*evaluated, *step, *evaluated, *step, *evaluated]
