"""Runs commands as a stranger would, in a folder of their own, and keeps what they say."""

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stranger.installation import Installation
from stranger.markdown import ROOT

HERE = Path(__file__).resolve().parent
SHIMS = ("reasonrl", "pip", "pip3", "python", "python3", "pytest", "accelerate", "torchrun")
LAUNCHERS = {
    "accelerate": "accelerate.commands.accelerate_cli:main",
    "torchrun": "torch.distributed.run:main",
}
"""Console scripts that an environment lacks if its packages come from another one."""

TIMEOUT_S = 240
KEPT = ("LANG", "LC_ALL", "TMPDIR", "PIP_INDEX_URL", "PIP_CONFIG_FILE")
"""Variables of this process that a command sees too."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    words: str
    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"$ {self.words}\n{self.out}{self.err}\nexit status {self.code}"


class Commands:
    """The commands of an installation. ``shrink``: documented commands are made cheap on the way."""

    def __init__(
        self,
        installed: Installation,
        folder: Path,
        models: Path,
        *,
        path: Sequence[Path] = (),
        modules: Sequence[str] = (),
    ) -> None:
        """``folder``: for what is needed in between. ``path``: folders for ``PYTHONPATH``, before everything else.

        ``modules``: what forked commands have imported already, beside the libraries.
        """
        self.installed = installed
        self.models = models
        self.hub = folder / "hub"
        self._path = path
        self._fault: dict[str, str] = {}
        self._socket = folder / "socket"
        self._bin = folder / "bin"
        self._bin.mkdir()
        for name in SHIMS:
            text = f"#!{sys.executable} -SEs\n" + (HERE / "shim.py").read_text(encoding="utf-8")
            (self._bin / name).write_text(text, encoding="utf-8")
            (self._bin / name).chmod(0o755)
        (self._bin / "real").mkdir()
        for name, function in LAUNCHERS.items():
            module, _, called = function.partition(":")
            text = f"#!{installed.python}\nfrom {module} import {called}\n\n{called}()\n"
            (self._bin / "real" / name).write_text(text, encoding="utf-8")
            (self._bin / "real" / name).chmod(0o755)
        self._log = (folder / "server.log").open("w")
        self._server = subprocess.Popen(
            [installed.python, "-P", HERE / "forked.py", self._socket, *modules],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self.environment(folder),
            cwd=folder,
        )

    def ready(self) -> "Commands":
        """Wait until the libraries are imported."""
        assert self._server.stdout is not None
        said = self._server.stdout.readline()
        assert said == b"ready\n", Path(self._log.name).read_text(encoding="utf-8")
        return self

    def close(self) -> None:
        self._server.kill()
        self._server.wait()
        self._log.close()

    @contextlib.contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Commands that are forked meanwhile begin with this fault of ``faults.py``."""
        self._fault = {"STRANGER_FAULT": name}
        try:
            yield
        finally:
            self._fault = {}

    def environment(self, folder: Path, more: Mapping[str, str] = {}) -> dict[str, str]:
        """What a stranger's shell has, and no more: no variable of the test run leaks in."""
        site = folder / ".site"
        return {
            "PATH": f"{self._bin}:{self.installed.bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "HF_HOME": str(self.hub),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TERM": "dumb",
            "PYTHONPATH": ":".join(map(str, [*self._path, site])),
            "STRANGER_CLONE": str(ROOT),
            "STRANGER_PIP": sys.executable,
            "STRANGER_BIN": str(self.installed.bin),
            "STRANGER_SITE": str(site),
            "STRANGER_SOCKET": str(self._socket),
            "STRANGER_MODELS": str(self.models),
            **self._fault,
            **{name: os.environ[name] for name in KEPT if name in os.environ},
            **more,
        }

    def reasonrl(self, *words: str, cwd: Path, shrink: bool = False, **more: str) -> Done:
        """``reasonrl WORDS``, forked from a process that has the libraries. ``more``: variables."""
        return self._forked(["reasonrl", *words], cwd, shrink, more)

    def script(self, file: Path, *words: str, cwd: Path, shrink: bool = False) -> Done:
        """``python FILE WORDS``, forked likewise."""
        return self._forked(["python", str(file), *words], cwd, shrink, {})

    def process(self, *words: str, cwd: Path, **more: str) -> Done:
        """A program of the environment as a process of its own."""
        command = [str(self.installed.bin / words[0]), *words[1:]]
        return self._run(command, " ".join(words), cwd, self.environment(cwd, more))

    def shell(self, text: str, *, cwd: Path, **more: str) -> Done:
        """Lines for bash, which stops at the first that fails. Programs are those of the environment, shrunk."""
        return self._run(["bash", "-euo", "pipefail", "-c", text], text, cwd, self.environment(cwd, more))

    def _run(self, command: list[str], words: str, cwd: Path, env: Mapping[str, str]) -> Done:
        with _files() as (out, err):
            try:
                code = subprocess.run(
                    command,
                    cwd=cwd,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    timeout=TIMEOUT_S,
                ).returncode
            except subprocess.TimeoutExpired:
                code = 124
            return _done(words, code, out, err)

    def _forked(self, argv: list[str], cwd: Path, shrink: bool, more: Mapping[str, str]) -> Done:
        request = {
            "argv": argv,
            "cwd": str(cwd),
            "env": self.environment(cwd, more),
            "shrink": shrink,
            "what": "run",
        }
        with _files() as (out, err), open(os.devnull) as nothing, socket.socket(socket.AF_UNIX) as server:
            server.settimeout(TIMEOUT_S)
            server.connect(str(self._socket))
            streams = [nothing.fileno(), out.fileno(), err.fileno()]
            socket.send_fds(server, [json.dumps(request).encode() + b"\n"], streams)
            try:
                code = int(server.recv(64) or b"125")
            except TimeoutError:
                code = 124
            return _done(shlex.join(argv), code, out, err)


@contextlib.contextmanager
def _files() -> Iterator[tuple["tempfile._TemporaryFileWrapper[bytes]", "tempfile._TemporaryFileWrapper[bytes]"]]:
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        yield out, err


def _done(words: str, code: int, *streams: "tempfile._TemporaryFileWrapper[bytes]") -> Done:
    out, err = (Path(stream.name).read_text(encoding="utf-8", errors="replace") for stream in streams)
    return Done(words, code, out, err)
