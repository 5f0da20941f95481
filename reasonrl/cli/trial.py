"""One small training step on the bundled model, for ``reasonrl doctor --self``."""

import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import reasonrl
from reasonrl.analysis.doctor.findings import Finding
from reasonrl.errors import RAISABLE, PluginError, UnexpectedError, describe
from reasonrl.observability.reporter import Phase, SilentReporter

RECIPE = "countdown_ppo"
SMALL = (
    "trainer.steps=1",
    "trainer.prompts_per_step=4",
    "trainer.minibatches=1",
    "sampling.max_completion_tokens=8",
    "evaluation.suites=null",
)
CONSTRAINTS = Path(reasonrl.__file__).parent / "constraints.txt"


class _Stage(SilentReporter):
    """Remembers the current phase of a run."""

    now = "loading the model"

    def phase(self, phase: Phase) -> None:
        self.now = phase


def check_trial() -> Iterator[Finding]:
    """Load, sample, score, update and save in a temporary folder, as ``reasonrl train`` does."""
    from reasonrl.runs.start import train

    stage, start = _Stage(), time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="reasonrl-doctor-") as folder:
            train(RECIPE, SMALL, run_dir=Path(folder) / "run", reporter=stage)
    except RAISABLE as err:
        # The wrapper of an unexpected error names a run folder that no longer exists.
        cause = err.__cause__ if isinstance(err, UnexpectedError) else None
        yield _failure(stage.now, cause or err)
        return
    seconds = time.monotonic() - start
    yield Finding(severity="ok", check="trial", message=f"one small training step of {RECIPE} took {seconds:.0f} s")


def _failure(stage: str, err: BaseException) -> Finding:
    untested = untested_versions()
    blame = f"; untested versions: {', '.join(untested)}" if untested else ""
    is_plugin = isinstance(err, PluginError)
    return Finding(
        severity="error",
        check="trial",
        message=f"a small training step of {RECIPE} failed while {stage}: {describe(err)}{blame}",
        remedy="see the plugin findings above"
        if is_plugin
        else f"`pip install -c {CONSTRAINTS} ...` installs the tested versions",
    )


def untested_versions() -> list[str]:
    """List ``name installed (tested)`` for every direct dependency that is not at its tested version."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    try:
        requirements = map(Requirement, metadata.requires("reasonrl") or ())
    except metadata.PackageNotFoundError:
        return []  # reported by another check
    names = {canonicalize_name(r.name) for r in requirements if r.marker is None}
    installed = {name: metadata.version(name).partition("+")[0] for name in sorted(names & tested.keys())}
    return [f"{name} {is_} ({tested[name]})" for name, is_ in installed.items() if is_ != tested[name]]
