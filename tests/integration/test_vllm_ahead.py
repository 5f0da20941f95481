"""Training from real `vllm serve` processes that sample during the update: one alone, and two, one of which dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from support.small_recipes import cli
from support.tiny_runs import REPOSITORY, metrics_of, sampled
from support.vllm_server import Served, free_url, serve_command, serving

pytestmark = pytest.mark.vllm
BASE = REPOSITORY / "plugins" / "reasonrl_countdown" / "models" / "countdown-base"
UNTIED = ("--load-format", "dummy", "--hf-overrides", '{"tie_word_embeddings": false}')
SMALL = (
    "trainer.prompts_per_step=16",
    "trainer.max_staleness=1",
    "rollout_correction={}",
    "evaluation.every=0",
    "evaluation.suites.held_out.problems=8",
    "evaluation.suites.four_numbers.problems=8",
    "evaluation.suites.greedy.problems=8",
    "checkpoint.every=1",
    "checkpoint.keep=9",
    "logging.transcripts_per_step=128",
    "seed=0",
)


@contextmanager
def servers(folder: Path, count: int) -> Iterator[list[Served]]:
    with ExitStack() as stack:
        urls = [free_url() for _ in range(count)]
        yield [
            stack.enter_context(serving(serve_command(BASE, url, *UNTIED), url, folder / f"log-{number}"))
            for number, url in enumerate(urls)
        ]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Served]]:
    """Two servers; one test after the other uses them, and the last one kills the second."""
    with servers(tmp_path_factory.mktemp("servers"), 2) as found:
        yield found


@pytest.fixture(scope="module")
def whole(served: list[Served], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the first server alone that nothing disturbs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = cli("train", "countdown_grpo", *overrides(served[:1], 5), "--run-dir", str(run))
    assert done.exit_code == 0, done.output
    assert "at most 1 step" in done.output
    return run


def overrides(served: list[Served], steps: int, *more: str) -> list[str]:
    urls = ",".join(server.url for server in served)
    of_backend = ["rollout_backend.name=vllm", "rollout_backend.mode=server", f"rollout_backend.url=[{urls}]"]
    return [*of_backend, *SMALL, f"trainer.steps={steps}", *more]


@contextmanager
def training(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """``reasonrl train`` in a process of its own."""
    command = [sys.executable, "-m", "reasonrl", "train", "countdown_grpo", *arguments]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait while the process runs, for 10 minutes of its time."""
    for _ in range(12_000):
        if condition():
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def ended(process: subprocess.Popen[bytes], log: Path) -> int:
    """Its exit status."""
    for _ in range(600):
        with suppress(subprocess.TimeoutExpired):
            return process.wait(1)
    raise AssertionError(log.read_text())


def steps_of(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0


def assert_nearly_same(one: Path, other: Path) -> None:
    """Every step has all of its completions, nine of ten the same; a rounding may tip a token."""
    for mine, theirs in zip(sampled(one), sampled(other), strict=True):
        assert mine.keys() == theirs.keys()
        assert len(mine) == 128
        assert sum(mine[sample] == text for sample, text in theirs.items()) >= 0.9 * 128


def test_it_learns_a_step_behind_and_goes_on_after_a_kill(served: list[Served], whole: Path, tmp_path: Path) -> None:
    lines = metrics_of(whole)
    assert [line["rollout/staleness_max"] for line in lines] == [0, *[lines[0]["policy/version"]] * 4]
    assert lines[0]["rollout/logprob_gap_max"] < 1e-4
    assert all(0 < line["policy/kl_stale_k3"] < 0.05 for line in lines[1:])
    killed, log = tmp_path / "killed", tmp_path / "log"
    with training(log, *overrides(served[:1], 5), "--run-dir", str(killed)) as process:
        until(lambda: steps_of(killed) >= 2, process, log)
        process.send_signal(signal.SIGKILL)
        process.wait()
    resumed = cli("resume", str(killed))
    assert resumed.exit_code == 0, resumed.output
    assert_nearly_same(whole, killed)


def test_two_servers_share_the_prompts_and_one_may_die(served: list[Served], whole: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    before = [server.completions() for server in served]
    options = overrides(served, 5, "rollout_backend.retry_s=1")
    with training(log, *options, "--run-dir", str(run)) as process:
        until(lambda: steps_of(run) >= 2 and served[1].running() > 0, process, log)
        shared = [server.completions() - had for server, had in zip(served, before, strict=True)]
        served[1].kill()
        assert ended(process, log) == 0, log.read_text()
    text = log.read_text()
    assert text.count("left out until the run is resumed; 1 of 2 servers remain") == 1
    assert "Traceback" not in text
    assert json.loads((run / "summary.json").read_text())["outcome"] == "completed"
    alone = served[0].completions() - before[0] - shared[0]
    assert min(shared) > 0.35 * sum(shared)
    assert sum(shared) + alone > 0.9 * (5 * 128 + 2 * 24), "the other sampled the rest"
    assert_nearly_same(whole, run)
