"""The environment under test: a wheel of this repository, installed where the repository cannot be seen."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from stranger.markdown import ROOT

VARIABLE = "STRANGER_BIN"
"""Names the ``bin`` folder of an environment that is there already."""

EXTRA = ("tensorboard",)
"""Packages that the documented keys name and nothing requires."""

PLUGINS = ("reasonrl-code", "reasonrl-math", "reasonrl-reasoning-gym")
"""Separate distributions whose documentation is run too, so their requirements must be there."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A virtual environment's ``bin`` folder."""

    bin: Path

    @property
    def python(self) -> Path:
        return self.bin / "python"


def installation(folder: Path) -> Installation:
    """The environment that ``STRANGER_BIN`` names, else one made in ``folder``, by whichever worker comes first."""
    if VARIABLE in os.environ:
        found = Installation(Path(os.environ[VARIABLE]).absolute())
    else:
        with FileLock(folder / "lock"):
            found = Installation(folder / "env" / "bin")
            if not found.python.exists():
                _make(folder, found)
    refuse_the_repository(found)
    return found


def refuse_the_repository(found: Installation) -> None:
    """Raises: AssertionError if reasonrl would come from anywhere but the environment."""
    code = "import json, sys, reasonrl; print(json.dumps([reasonrl.__file__, sys.prefix]))"
    file, prefix = json.loads(_output([found.python, "-P", "-c", code], cwd=found.bin))
    assert Path(file).is_relative_to(prefix), f"{found.python} takes reasonrl from {file}, not from a wheel"


def _make(folder: Path, env: Installation) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheel = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "wheel"]
    _output([*pip, *wheel, ROOT], cwd=folder)
    (file,) = (folder / "wheel").glob("*.whl")
    _output([sys.executable, "-m", "venv", "--without-pip", env.bin.parent], cwd=folder)
    install = [*pip, "--python", env.python, "install", "--quiet"]
    _output([*install, "--no-deps", "--no-index", file], cwd=folder)
    # Only a folder on the path: .pth files in it, such as that of an editable reasonrl, are not read.
    (site,) = env.bin.parent.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    if missing := _missing(env):
        _output([*install, *missing], cwd=folder)


def _missing(env: Installation) -> list[str]:
    """What of ``EXTRA`` and the requirements of the separate distributions the environment lacks."""
    wanted = list(EXTRA)
    for name in PLUGINS:
        table = tomllib.loads((ROOT / "plugins" / name / "pyproject.toml").read_text(encoding="utf-8"))
        wanted += [r for r in table["project"]["dependencies"] if not r.startswith("reasonrl")]
    code = (
        "import sys; from importlib.metadata import distributions; from packaging.requirements import Requirement\n"
        "there = {d.name.lower().replace('_', '-') for d in distributions()}\n"
        "print(*[r for r in sys.argv[1:] if Requirement(r).name.lower() not in there], sep='\\n')"
    )
    return _output([env.python, "-c", code, *wanted], cwd=env.bin).split()


def _output(command: list[object], cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout
