"""Stands for the programs that the documentation calls; found first on the PATH of a page's commands.

``reasonrl`` and Python run in a fork of a process that has the libraries; the commands that STRANGER_REAL lists and
those that start fast are processes of their own. Overrides make them cheap (``shrink.py``). What would change the
machine is checked in its place: ``pip install -e .`` is what made the environment, and ``pytest`` is what runs this.
Standard library only, starts in 20 ms.
"""

import json
import os
import socket
import subprocess
import sys
import tomllib

NAME = os.path.basename(sys.argv[0]).rstrip("3")
WORDS = sys.argv[1:]
BIN = os.environ["STRANGER_BIN"]
CLONE = os.environ["STRANGER_CLONE"]
TORCH_FREE = ("recipes", "tasks", "behaviors")
"""Commands that start in under a second."""


def main() -> int:
    if NAME == "reasonrl":
        return reasonrl(WORDS)
    if NAME == "pip":
        return pip(WORDS)
    if NAME == "python":
        return python(WORDS)
    if NAME == "pytest":
        return pytest(WORDS)
    at = WORDS.index("reasonrl")  # a launcher: what follows is the command
    return real(
        [
            os.path.join(os.path.dirname(sys.argv[0]), "real", NAME),
            *WORDS[:at],
            *ask("shrink", ["reasonrl", *WORDS[at + 1 :]]),
        ]
    )


def reasonrl(words: list[str]) -> int:
    if words[:1] == ["--version"] or words[0] in TORCH_FREE or words[0] in os.environ.get("STRANGER_REAL", "").split():
        return real(ask("shrink", ["reasonrl", *words]))
    return ask("run", ["reasonrl", *words])


def python(words: list[str]) -> int:
    if words[:2] == ["-m", "reasonrl"]:
        return reasonrl(words[2:])
    if words[:2] == ["-m", "pip"]:
        return pip(words[2:])
    if words[:2] == ["-m", "venv"]:
        os.makedirs(os.path.join(words[2], "bin"), exist_ok=True)
        with open(os.path.join(words[2], "bin", "activate"), "w") as file:
            file.write("# the environment is there already\n")
        return 0
    if words and words[0].endswith(".py"):
        return ask("run", ["python", *words])
    return real(["python", *words])


def pip(words: list[str]) -> int:
    """``pip install -e PROJECT[EXTRAS]``: this repository is there; another project goes to the page's own folder."""
    if words[:1] != ["install"]:
        return fail(f"pip {words} cannot be tried here; mark the block 'not run: installs packages'")
    for word in words[1:]:
        if word == "-e":
            continue
        folder, _, extras = word.rstrip("]").partition("[")
        try:
            with open(os.path.join(folder, "pyproject.toml"), "rb") as file:
                project = tomllib.load(file)["project"]
        except OSError:
            return fail(f"pip install {word}: {folder} is no project; mark the block 'not run: installs packages'")
        if missing := set(filter(None, extras.split(","))) - set(project.get("optional-dependencies", {})):
            return fail(f"pip install {word}: no extra {missing} in {folder}/pyproject.toml")
        if project["name"] != "reasonrl" and (code := install(folder)):
            return code
    return 0


def install(folder: str) -> int:
    """Build and install, without its requirements, where only this page's commands look."""
    site = os.environ["STRANGER_SITE"]
    command = [
        os.environ["STRANGER_PIP"],
        "-m",
        "pip",
        "--python",
        os.path.join(BIN, "python"),
        "install",
        "--quiet",
    ]
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--upgrade", "--target", site, folder]
    return subprocess.run([*command, *options], stderr=subprocess.STDOUT).returncode


def pytest(words: list[str]) -> int:
    """Of this repository's own tests only the names are checked."""
    with open("pyproject.toml", "rb") as file:
        name = tomllib.load(file)["project"]["name"]
    if name == "reasonrl":
        missing = [word for word in words if "/" in word and not os.path.exists(os.path.join(CLONE, word))]
        return fail(f"pytest: no {missing} in the repository") if missing else 0
    return real(["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *words])


def real(words: list[str]) -> int:
    return subprocess.run([os.path.join(BIN, words[0]), *words[1:]]).returncode


def ask(what: str, argv: list[str]):
    """The server's answer: an exit status for ``run``, words for ``shrink``."""
    request = {"argv": argv, "cwd": os.getcwd(), "env": dict(os.environ), "shrink": True, "what": what}
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ["STRANGER_SOCKET"])
        socket.send_fds(server, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
        answer = b""
        while part := server.recv(1 << 16):
            answer += part
    return json.loads(answer)


def fail(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1


sys.exit(main())
