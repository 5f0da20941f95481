"""Training from real `vllm serve` processes that sample during the update: alone, and two of which one dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

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


def until(condition: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def steps_of(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0


def test_it_learns_a_step_behind_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    with servers(tmp_path, 1) as served:
        whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
        done = cli("train", "countdown_grpo", *overrides(served, 5), "--run-dir", str(whole))
        assert done.exit_code == 0, done.output
        assert "at most 1 step" in done.output
        lines = metrics_of(whole)
        assert [line["rollout/staleness_max"] for line in lines] == [0, *[lines[0]["policy/version"]] * 4]
        assert lines[0]["rollout/logprob_gap_max"] < 1e-4
        assert all(0 < line["policy/kl_stale_k3"] < 0.05 for line in lines[1:])
        with training(log, *overrides(served, 5), "--run-dir", str(killed)) as process:
            until(lambda: steps_of(killed) >= 2, process, log)
            process.send_signal(signal.SIGKILL)
            process.wait()
        resumed = cli("resume", str(killed))
        assert resumed.exit_code == 0, resumed.output
    for one, other in zip(sampled(whole), sampled(killed), strict=True):
        same = sum(one[sample] == text for sample, text in other.items())
        assert same >= 0.9 * len(one) > 0, "a rounding may tip a token"


def test_two_servers_share_the_prompts_and_one_may_die(tmp_path: Path) -> None:
    with servers(tmp_path, 2) as served:
        run, log = tmp_path / "run", tmp_path / "log"
        options = overrides(served, 5, "rollout_backend.retry_s=1")
        with training(log, *options, "--run-dir", str(run)) as process:
            until(lambda: steps_of(run) >= 2 and served[1].running() > 0, process, log)
            served[1].kill()
            assert process.wait(200) == 0, log.read_text()
        text = log.read_text()
        assert text.count("left out until the run is resumed; 1 of 2 servers remain") == 1
        assert len(metrics_of(run)) == 5
        assert json.loads((run / "summary.json").read_text())["outcome"] == "completed"
        asked = [finished(tmp_path / f"log-{number}") for number in (0, 1)]
        assert min(asked) > 20, "both were asked"


def finished(log: Path) -> int:
    """Requests that a server has answered, by its log."""
    return sum("/inference/v1/generate" in line for line in log.read_text().splitlines())
