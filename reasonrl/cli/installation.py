"""``reasonrl doctor --self``: diagnose the installation. Never prints values of environment variables."""

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import cast

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from reasonrl.analysis.doctor.findings import Diagnosis, Finding, Severity, worst_first
from reasonrl.cli.trial import check_trial
from reasonrl.errors import RAISABLE, describe
from reasonrl.plugins import PluginRecord, load_plugins
from reasonrl.recipe.schema import Recipe
from reasonrl.version import find_version

SHOWN_PACKAGES = ("torch", "transformers", "accelerate", "pluggy", "omegaconf")
LITTLE_SPACE_BYTES = 2**30
"""Size of a checkpoint of a 0.1B model with its optimizer state; warn if less is free."""
TRUE = ("1", "on", "yes", "true")


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfCheck:
    """One check of the installation."""

    name: str
    looks_at: str
    find: Callable[[], Iterable[Finding]]


def examine_installation() -> Diagnosis:
    """Run every check of the installation; imports torch."""
    findings = [finding for check in SELF_CHECKS for finding in check.find()]
    worst = worst_first(findings)
    return Diagnosis(
        subject=f"reasonrl {find_version('reasonrl') or '(not installed)'}",
        state="not usable" if worst[0].severity == "error" else "usable",
        findings=worst,
    )


def check_python() -> Iterator[Finding]:
    wanted = _field("Requires-Python")
    running = platform.python_version()
    if wanted and not SpecifierSet(wanted).contains(running, prereleases=True):
        yield Finding(
            severity="error",
            check="python",
            message=f"Python {running} is running, reasonrl requires {wanted}",
            remedy="create an environment with a newer Python and install reasonrl there",
        )
    else:
        yield _ok("python", f"Python {running} on {platform.system()} {platform.machine()}")


def _field(name: str) -> str | None:
    try:
        known = metadata.metadata("reasonrl")
    except metadata.PackageNotFoundError:
        return None
    return next(iter(known.get_all(name) or ()), None)


def check_install() -> Iterator[Finding]:
    try:
        distribution = metadata.distribution("reasonrl")
    except metadata.PackageNotFoundError:
        yield Finding(
            severity="error",
            check="install",
            message="reasonrl is importable but not installed, so it has no plugins",
            remedy="run `pip install -e .` in its repository",
        )
        return
    url = _json_object(distribution.read_text("direct_url.json"))
    folder = url.get("dir_info")
    editable = isinstance(folder, dict) and bool(folder.get("editable"))
    source = Path(__file__).resolve().parents[2]
    yield _ok("install", f"editable, from {source}" if editable else f"installed in {source}")


def _json_object(text: str | None) -> Mapping[str, object]:
    try:
        data = json.loads(text or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def check_packages(requirements: Iterable[str] | None = None) -> Iterator[Finding]:
    """Check installed versions against the declared ranges, without extras."""
    declared = metadata.requires("reasonrl") if requirements is None and find_version("reasonrl") else requirements
    environment = cast(dict[str, str], {**default_environment(), "extra": ""})
    wrong = []
    for requirement in map(Requirement, declared or ()):
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        installed = find_version(requirement.name)
        if installed is None or not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed or 'is missing'} (needs {requirement.specifier})")
    if wrong:
        yield Finding(
            severity="error",
            check="packages",
            message="; ".join(wrong),
            remedy="reinstall reasonrl in a fresh environment; another package changed these versions",
        )
    else:
        yield _ok("packages", ", ".join(f"{name} {find_version(name)}" for name in SHOWN_PACKAGES))


def check_plugins(records: Iterable[PluginRecord] | None = None) -> Iterator[Finding]:
    known = list(load_plugins().records if records is None else records)
    active = [record.label for record in known if record.status == "active"]
    yield (
        _ok("plugins", f"active: {', '.join(active)}")
        if active
        else Finding(
            severity="error",
            check="plugins",
            message="no active plugin, so no task, algorithm or rollout backend",
            remedy="reinstall reasonrl and check REASONRL_PLUGINS; `reasonrl plugins list` lists all plugins",
        )
    )
    for record in known:
        if record.status != "active":
            yield _not_active(record)


def _not_active(record: PluginRecord) -> Finding:
    severities: dict[str, Severity] = {"broken": "warning", "incompatible": "warning"}
    is_own = record.distribution == "reasonrl" and record.status == "broken"
    return Finding(
        severity="error" if is_own else severities.get(record.status, "note"),
        check="plugins",
        message=f"{record.label} is {record.status}: {record.error or 'disabled by REASONRL_PLUGINS'}",
        remedy=f"see `reasonrl plugins show {record.name}`" if record.status == "broken" else "",
    )


def check_torch() -> Iterator[Finding]:
    try:
        import torch

        product = torch.ones(8, 8, dtype=torch.bfloat16) @ torch.ones(8, 8, dtype=torch.bfloat16)
    except RAISABLE as err:  # a broken build may raise anything
        yield Finding(
            severity="error",
            check="torch",
            message=f"torch cannot be used: {describe(err)}",
            remedy="reinstall torch, in the build for this machine",
        )
        return
    right = bool((product == 8).all())
    yield _ok(
        "torch",
        f"{torch.get_num_threads()} of {os.cpu_count()} CPU threads, {torch.backends.cpu.get_cpu_capability()}, "
        f"bfloat16 {'works' if right else 'gives wrong results'}",
    )


def check_device() -> Iterator[Finding]:
    try:
        import torch

        found = torch.accelerator.current_accelerator(check_available=True)
        kind = found.type if found else "cpu"
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if kind == "cuda" else []
    except RAISABLE as err:  # a driver mismatch may raise anything
        yield Finding(
            severity="warning",
            check="device",
            message=f"cannot query the GPU: {describe(err)}",
            remedy="check that the driver version matches the torch build",
        )
        return
    if kind != "cpu":
        yield _ok("device", f"device=auto selects {kind}: {', '.join(names) or platform.processor() or kind}")
    else:
        built = "" if torch.version.cuda else " (this is a CPU-only build of torch)"
        yield Finding(severity="note", check="device", message=f"no GPU found; runs use the CPU{built}")


def check_output(folder: str | None = None) -> Iterator[Finding]:
    """Check that runs can be written to the default folder."""
    root = Path(folder if folder is not None else _default_output_dir()).absolute()
    found = next(path for path in (root, *root.parents) if path.exists())
    if not found.is_dir() or not os.access(found, os.W_OK | os.X_OK):
        yield Finding(
            severity="error",
            check="output",
            message=f"cannot write runs to {root}: {found} is not writable",
            remedy="use another working directory, or set `output_dir`",
        )
        return
    free = shutil.disk_usage(found).free
    text = f"runs go to {root}, {free / 2**30:.1f} GiB free"
    if free < LITTLE_SPACE_BYTES:
        remedy = "free some space, set `output_dir`, or lower `checkpoint.keep`"
        yield Finding(severity="warning", check="output", message=text, remedy=remedy)
    else:
        yield _ok("output", text)


def _default_output_dir() -> str:
    return next(str(field.default) for field in fields(Recipe) if field.name == "output_dir")


def check_hub(environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Check whether models can be downloaded. Reports that a token is set, never its value."""
    token = "a token is set" if environ.get("HF_TOKEN") else "no token is set in HF_TOKEN"
    if environ.get("HF_HUB_OFFLINE", "").lower() in TRUE:
        yield Finding(
            severity="note",
            check="hub",
            message=f"HF_HUB_OFFLINE is set: only local models are available; {token}",
            remedy="unset it to download models from the hub",
        )
    else:
        yield _ok("hub", f"models can be downloaded from the hub; {token}")


def _ok(check: str, message: str) -> Finding:
    return Finding(severity="ok", check=check, message=message)


SELF_CHECKS: tuple[SelfCheck, ...] = (
    SelfCheck(name="python", looks_at="Python version", find=check_python),
    SelfCheck(name="install", looks_at="install location, editable or not", find=check_install),
    SelfCheck(name="packages", looks_at="installed versions against the required ranges", find=check_packages),
    SelfCheck(name="plugins", looks_at="active plugins, and why others are inactive", find=check_plugins),
    SelfCheck(name="torch", looks_at="threads, instruction set, bfloat16 support", find=check_torch),
    SelfCheck(name="device", looks_at="GPUs", find=check_device),
    SelfCheck(name="trial", looks_at="one small training step: load, sample, score, update, save", find=check_trial),
    SelfCheck(name="output", looks_at="write permission and free disk space", find=check_output),
    SelfCheck(name="hub", looks_at="whether models can be downloaded", find=check_hub),
)
