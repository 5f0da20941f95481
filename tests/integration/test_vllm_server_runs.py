"""Training from a real `vllm serve`: it learns, and a server that dies costs nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.small_recipes import cli
from support.tiny_policies import context_of, load_tiny, request
from support.tiny_runs import REPOSITORY, metrics_of, sampled
from support.vllm_server import Served, free_url, serving

from reasonrl import SamplingParams
from reasonrl.errors import RolloutError
from reasonrl.model.export import iter_hf_weights
from reasonrl_vllm.backend import VLLMBackend
from reasonrl_vllm.config import VLLMConfig

pytestmark = pytest.mark.vllm
BASE = REPOSITORY / "plugins" / "reasonrl_countdown" / "models" / "countdown-base"
SMALL = (
    "trainer.steps=5",
    "trainer.prompts_per_step=16",
    "evaluation.every=0",
    "evaluation.suites.held_out.problems=8",
    "evaluation.suites.four_numbers.problems=8",
    "evaluation.suites.greedy.problems=8",
    "checkpoint.every=0",
    "logging.transcripts_per_step=128",
    "seed=0",
)


def overrides(url: str, *more: str) -> list[str]:
    return [
        "rollout_backend.name=vllm",
        "rollout_backend.mode=server",
        f"rollout_backend.url={url}",
        *SMALL,
        *more,
    ]


HIDDEN = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def train_on_two(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``reasonrl train`` in two processes."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    environ = {k: v for k, v in os.environ.items() if k not in HIDDEN and not k.startswith("ACCELERATE_")}
    return subprocess.run(
        [*launcher, "-m", "reasonrl", "train", "countdown_grpo", *arguments],
        env={**environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@contextmanager
def training(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``reasonrl train`` in a process of its own."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "reasonrl", "train", "countdown_grpo", *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def lines_of(run_dir: Path) -> int:
    path = run_dir / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def until(condition: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def assert_alike(one: Path, two: Path, steps: int = 5) -> None:
    """The same samples: requests carry their seeds. But what is in a batch depends on the server's timing, and a
    rounding may tip a token."""
    both = [sampled(run)[:steps] for run in (one, two)]
    assert [len(step) for step in both[0]] == [128] * steps
    for first, second in zip(*both, strict=True):
        assert second.keys() <= first.keys()  # of two processes the first one's
        same = sum(first[sample] == text for sample, text in second.items())
        assert same >= 0.9 * len(second) > 0


def start_command(url: str) -> str:
    """The command that the refusal of a server that is down names."""
    refused = cli("train", "countdown_grpo", *overrides(url))
    assert refused.exit_code == 1, refused.output
    found = re.search(r"error: (vllm: no answer from .*); start it: (VLLM_SERVER_DEV_MODE=1 .*)", refused.output)
    assert found, refused.output
    return found[2]


@pytest.fixture(scope="module")
def command() -> tuple[str, str]:
    """An address, and what starts a server there."""
    url = free_url()
    return url, start_command(url)


@pytest.fixture(scope="module")
def served(command: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    url, line = command
    with serving(line, url, tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def whole(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbs."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    result = cli("train", "countdown_grpo", *overrides(served.url), "--run-dir", str(run_dir))
    assert result.exit_code == 0, result.output
    return run_dir


def test_five_steps_learn_on_the_server_that_the_refusal_asks_for(whole: Path) -> None:
    lines = metrics_of(whole)
    assert len(lines) == 5
    assert all(line["rollout/logprob_gap_max"] < 1e-4 for line in lines)
    assert lines[-1]["train/reward"] > lines[0]["train/reward"] + 0.1


def test_a_signal_ends_a_long_generation_at_once_and_saves(served: Served, tmp_path: Path) -> None:
    long = ("sampling.temperature=2", "sampling.max_completion_tokens=800", "trainer.prompts_per_step=64")
    run_dir, log = tmp_path / "run", tmp_path / "log"
    with training(*overrides(served.url, *long), "--run-dir", str(run_dir), log=log) as process:
        until(lambda: served.running() > 64)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(60) == 143, log.read_text()
        assert time.monotonic() - began < 8
    assert (run_dir / "checkpoints" / "step_000000").is_dir(), log.read_text()
    until(lambda: served.running() == 0, 10)


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_sample_from_one_server(sharding: str, served: Served, whole: Path, tmp_path: Path) -> None:
    """Each asks for its share; both see the weights that the first one handed over."""
    own = ("trainer.steps=2", f"model.sharding={sharding}")
    done = train_on_two(*overrides(served.url, *own), "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = metrics_of(tmp_path / "run")
    assert len(lines) == 2
    assert all(line["rollout/logprob_gap_max"] < 1e-4 for line in lines)
    assert_alike(whole, tmp_path / "run", steps=2)


def test_weights_of_another_run_never_answer(served: Served) -> None:
    loaded = load_tiny(BASE)
    context = context_of(loaded, SamplingParams(max_completion_tokens=8), BASE)
    asked = [request(tuple(loaded.tokenizer.encode("Numbers: 3 4 5.")), context.sampling)]
    config = VLLMConfig(mode="server", url=served.url)
    with VLLMBackend(config, context) as one, VLLMBackend(config, context) as other:
        for engine in (one, other):
            engine.sync_weights(iter_hf_weights(context.policy), policy_version=0)
        assert len(other.generate(asked)) == 1
        with pytest.raises(RolloutError, match="it was restarted or is used by another run"):
            one.generate(asked)


def test_a_server_at_work_is_left_to_whom_it_works_for(served: Served, tmp_path: Path) -> None:
    long = ("sampling.temperature=2", "sampling.max_completion_tokens=800", "trainer.prompts_per_step=2048")
    run_dir, log = tmp_path / "run", tmp_path / "log"
    with training(*overrides(served.url, *long), "--run-dir", str(run_dir), log=log) as process:
        until(lambda: served.running() > 64)
        other = cli("train", "countdown_grpo", *overrides(served.url), "--run-dir", str(tmp_path / "other"))
        assert (other.exit_code, process.poll()) == (1, None), other.output + log.read_text()
        assert "is in use by another run; use a dedicated server per run" in other.output
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143, log.read_text()


def test_a_server_that_dies_in_a_step_costs_that_step_alone(
    served: Served, whole: Path, command: tuple[str, str], tmp_path: Path
) -> None:
    """The last test of this server: it is killed."""
    run_dir, log = tmp_path / "run", tmp_path / "log"
    arguments = [*overrides(served.url, "rollout_backend.retry_s=2"), "--run-dir", str(run_dir)]
    with training(*arguments, log=log) as process:
        until(lambda: lines_of(run_dir) >= 2 and served.running() > 0)
        served.kill()
        assert process.wait(60) == 1
    text = log.read_text()
    assert re.search(r"error: vllm: no answer from \S+ for 2 s \(.*\); restart it and resume the run: VLLM", text)
    assert "Traceback" not in text
    done = lines_of(run_dir)
    assert 2 <= done < 5
    assert [p.name for p in (run_dir / "checkpoints").glob("step_*")] == [f"step_{done:06d}"]

    with serving(command[1], served.url, tmp_path / "server.log"):
        resumed = cli("resume", str(run_dir))
        assert resumed.exit_code == 0, resumed.output
    assert_alike(whole, run_dir)
