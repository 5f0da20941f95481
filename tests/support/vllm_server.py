"""A real `vllm serve` for tests: started, waited for, and ended with all of its processes."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_S = 600.0
FLAGS = "--enable-scale-out --logprobs-mode processed_logprobs --generation-config vllm --dtype float32 --enforce-eager"
SETTINGS = {
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
}
BIN = Path(sys.executable).parent


@dataclass
class Served:
    """A server. ``log`` is what it wrote."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End all of its processes at once, as if the machine had died."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait(30)

    def running(self) -> float:
        """Completions that it is making at this moment."""
        return self._sum("vllm:num_requests_running")

    def completions(self) -> float:
        """Completions that it has made."""
        return self._sum("vllm:request_success_total")

    def _sum(self, metric: str) -> float:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{metric}{{"))


@contextmanager
def serving(command: str, url: str, log: Path) -> Iterator[Served]:
    """Run a shell's ``command``, which must make a server answer at ``url``."""
    search = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    settings = {**os.environ, **search, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("ab") as out:
        process = subprocess.Popen(
            ["bash", "-c", command], env=settings, stdout=out, stderr=out, start_new_session=True
        )
    served = Served(url=url, log=log, process=process)
    try:
        wait_for(served)
        yield served
    finally:
        served.kill()


def wait_for(served: Served) -> None:
    for _ in range(int(START_S / 0.5)):  # of waiting: a machine that is paused starts nothing meanwhile
        if _is_healthy(served.url):
            return
        assert served.process.poll() is None, f"the server ended:\n{served.log.read_text()[-3000:]}"
        time.sleep(0.5)
    raise AssertionError(f"no server in {START_S:g} s:\n{served.log.read_text()[-3000:]}")


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def free_url() -> str:
    """An address of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def serve_command(model: Path, url: str, *more: str, without: Sequence[str] = ()) -> str:
    """The command of the documentation; ``without`` names flags and settings to leave out."""
    settings = [f"{name}={value}" for name, value in SETTINGS.items() if name not in without]
    flags = FLAGS.split()
    for flag in without:
        if flag in flags:
            at = flags.index(flag)
            is_pair = at + 1 < len(flags) and not flags[at + 1].startswith("--")
            del flags[at : at + 1 + is_pair]
    host, port = url.removeprefix("http://").split(":")
    words = ["python", "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    words += ["--host", host, "--port", port, *flags, *more]
    return " ".join(["exec env", *settings, shlex.join(words)])
