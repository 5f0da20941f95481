"""Whatever an isolated reward does, it costs its own completion, within the limit, and leaves nothing behind."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import misbehaving as m
from support.isolated import FINE, is_alive, isolated, reasons, strays, texts, zombies
from support.small_recipes import PLUGIN, recipe, summary_of
from support.tiny_runs import metrics_of

from reasonrl.runs.start import train

pytestmark = pytest.mark.fault

LIMIT_S = 2.0
SLACK_S = 1.0
MEMORY_MB = 96
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    files = len(os.listdir("/proc/self/fd"))
    yield
    assert strays() == []
    assert zombies() == []
    assert len(os.listdir("/proc/self/fd")) <= files + 2  # caches of the interpreter


CASES: list[tuple[Callable[..., Any], float | None, str]] = [
    (m.raises, None, "raised ValueError"),
    (m.hangs, None, "timed out after 2 s"),
    (m.spins, None, "timed out after 2 s"),
    (m.exits, None, "raised SystemExit"),
    (m.exits_at_once, None, "worker died (exit 3)"),
    (m.kills_itself, None, "worker killed by signal 9"),
    (m.interrupts, None, "raised KeyboardInterrupt"),
    (m.leaves_a_child, 0.5, ""),
    (m.leaves_a_hidden_grandchild, 0.5, ""),
    (m.hangs_with_children, None, "timed out after 2 s"),
    (m.dies_with_children, None, "worker died (exit 4)"),
    (m.comes_back_twice, 0.5, ""),
    (m.leaves_zombies, 0.5, ""),
    (m.prints, 0.5, ""),
    (m.nan, None, "returned a value of nan, expected a finite number"),
    (m.text, None, "returned str, expected a Score, a number or None"),
    (m.huge, None, "returned 1e+308, outside its declared range [0.0, 1.0]"),
    (m.mutates, 0.5, ""),
    (m.allocates, None, "raised MemoryError"),
    (m.talks_too_much, None, "over the limit of 1048576"),
    (m.forges, None, "worker answered with no score"),
    (m.announces_terabytes, None, "over the limit of 1048576"),
    (m.bytewise, None, "timed out after 2 s"),
    (m.closes_everything, None, "worker closed its connection"),
]


@pytest.mark.parametrize(("behavior", "value", "reason"), CASES, ids=lambda v: getattr(v, "__name__", None))
def test_only_its_own_completion_is_lost_within_the_limit(
    behavior: Callable[..., Any], value: float | None, reason: str
) -> None:
    with isolated(behavior, timeout_s=LIMIT_S, memory_mb=MEMORY_MB) as runner:
        started = time.monotonic()
        first = runner.score(texts("bad", numbers=[1, 2])).rewards
        took_s = time.monotonic() - started
        assert (strays(), zombies()) == ([], [])
        later = runner.score(texts(FINE, "bad", FINE, numbers=[1, 2])).rewards
    assert took_s < LIMIT_S + SLACK_S
    assert first[0].total == value
    assert reason in reasons(first)[0]
    assert bool(reason) == (value is None)
    assert [output.total for output in later] == [0.4, value, 0.4]
    assert [output.total for output in first].count(0.0) == 0


def test_a_group_reward_of_the_wrong_length_is_unscored_as_a_group() -> None:
    with isolated(factory=m.WrongLength) as runner:
        outputs = runner.score(texts("a", "b")).rewards
    assert reasons(outputs) == ["returned 1 scores for 2 completions"] * 2
    assert [output.total for output in outputs] == [None, None]


def test_what_is_judged_cannot_be_changed() -> None:
    asked = texts("ab", "ab", numbers=[1, 2])
    with isolated(m.mutates) as runner:
        for _ in range(2):
            assert [output.total for output in runner.score(asked).rewards] == [0.5, 0.5]
    assert asked.request.problem.info == {"numbers": [1, 2]}
    assert [c.text for c in asked.completions] == ["ab", "ab"]


def test_memory_is_bounded_and_the_trainer_keeps_its_own() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with isolated(m.allocates, memory_mb=128, timeout_s=10) as runner:
        outputs = runner.score(texts("bad", "bad", FINE)).rewards
    assert reasons(outputs)[:2] == ["raised MemoryError"] * 2
    assert outputs[2].total == 0.4
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 50_000  # KiB


def test_the_log_shows_one_traceback_that_cannot_command_the_terminal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING), isolated(m.commands_the_terminal) as runner:
        for _ in range(3):
            runner.score(texts("bad", "bad"))
    assert len(caplog.records) == 1
    assert "RuntimeError: \\x1b[2J\\x07 wiped" in caplog.text
    assert "\x1b" not in caplog.text


def test_what_a_reward_leaves_running_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), isolated(m.leaves_a_child) as runner:
        runner.score(texts("bad", "bad"))
        runner.score(texts("bad"))
    assert [record.getMessage() for record in caplog.records] == [
        "reward 'r' left 1 processes running; its worker was replaced, its score kept"
    ]


@pytest.mark.parametrize("behavior", [m.hangs, m.spins])
def test_the_log_says_where_the_first_late_one_was(
    behavior: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), isolated(behavior, timeout_s=0.5) as runner:
        runner.score(texts("bad", "bad"))
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith("reward 'r' timed out after 0.5 s; the completion stays unscored\n")
    assert f"in {behavior.__name__}\n" in said


def test_a_helper_that_the_factory_started_may_stay_until_the_end() -> None:
    with isolated(factory=m.Helped) as runner:
        answers = {output.answer for output in runner.score(texts("a")).rewards for _ in range(3)}
        assert len(answers) == 1
        worker, helper = map(int, (answers.pop() or "").split())
        assert is_alive(helper)
    assert not is_alive(worker)
    assert not is_alive(helper)


def test_a_ctrl_c_while_a_reward_hangs_ends_its_workers_at_once() -> None:
    def press(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, press)
    with isolated(m.hangs, timeout_s=60) as runner:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            started = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                runner.score(texts("bad", "bad"))
            assert time.monotonic() - started < 0.5 + SLACK_S
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert runner.score(texts(FINE)).rewards[0].total == 0.4


SCRIPT = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
from support import misbehaving as m
from support.isolated import isolated, texts

runner = isolated(m.{behavior}, timeout_s=600)
pool = runner._entries[0].judge._pool
if {is_watched}:
    threading.Timer(1.0, lambda: print(*pool.pids, flush=True)).start()
runner.score(texts("bad", "bad"))
print(*pool.pids, flush=True)
{then}
"""


def trainer(behavior: str, then: str = "", *, is_watched: bool = False) -> subprocess.Popen[str]:
    """A process with a pool that judges two texts, says its workers and then does ``then``."""
    script = SCRIPT.format(behavior=behavior, then=then, is_watched=is_watched)
    command = [sys.executable, "-c", script, str(TESTS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def wait_until(condition: Callable[[], bool], limit_s: float = 5.0) -> bool:
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_workers_end_with_a_trainer_that_was_killed_while_they_hang() -> None:
    with trainer("hangs", is_watched=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert pids
        assert all(map(is_alive, pids))
        process.kill()
    assert wait_until(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize("then", ["pass", "sys.exit(3)", "raise ValueError", "del runner, pool", "os._exit(0)"])
def test_workers_end_with_a_trainer_that_never_closed_them(then: str) -> None:
    with trainer("raises", then) as process:
        output, _ = process.communicate(timeout=60)
    pids = [int(word) for word in output.split()]
    assert pids
    assert wait_until(lambda: not any(map(is_alive, pids)))


def test_a_reward_hanging_on_a_tenth_of_the_completions_leaves_training_alive(tmp_path: Path, tiny_model: Path) -> None:
    """Two steps of 10 prompts x 2; in each step the problem 3 of 10 hangs both times."""
    path = recipe(
        tmp_path,
        tiny_model,
        rewards={"misbehaving": {"does": "hangs_on_one_in_ten", "timeout_s": 1.0}},
        sampling={"group_size": 2, "max_prompt_tokens": 20, "max_completion_tokens": 4},
        trainer={"steps": 2, "prompts_per_step": 10},
        evaluation={"every": 0, "suites": {}},
    )
    result = train(path, plugin_files=[PLUGIN, "support.misbehaving"])
    assert result.outcome == "completed"
    assert result.run_dir is not None
    records = metrics_of(result.run_dir)
    assert [r["train/unscored_frac"] for r in records] == [0.1, 0.1]
    assert all(r["optim/skipped_updates"] == 0 and r["optim/grad_norm"] > 0 for r in records)
    assert summary_of(result.run_dir)["outcome"] == "completed"


def start_and_stop(times: int) -> None:
    """Start a pool, judge, and end it, while threads of torch and of Python are busy."""
    import torch

    done = threading.Event()

    def compute() -> None:
        left = torch.ones(64, 64)
        while not done.is_set():
            left = (left @ left).clamp(max=1.0)

    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(times):
            with isolated(m.length) as runner:
                assert runner.score(texts("abc")).rewards[0].total == 0.3
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_20_starts_beside_busy_threads_never_lock_up() -> None:
    start_and_stop(20)


@pytest.mark.long
def test_500_starts_beside_busy_threads_never_lock_up() -> None:
    start_and_stop(500)


def test_a_reward_whose_workers_cannot_be_replaced_is_unscored_not_endless(tmp_path: Path) -> None:
    with isolated(factory=m.builds_once_only, config=m.Behavior(str(tmp_path / "built"))) as runner:
        outputs = runner.score(texts("bad", "bad", "bad")).rewards
    why = reasons(outputs)
    assert why.count("worker died (exit 3)") == 1
    assert sum(reason.startswith("worker did not start: reward 'r'") for reason in why) == 2
    assert "FileExistsError" in why[-1]
