"""The outsider: a new plugin, from the command that writes it to the wheel's removal, for every kind."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hatchling.build
import pytest
from support import processes

from reasonrl.scaffold.project import KINDS_OFFERED as KINDS


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def command(*arguments: object, site: Path | None = None, cwd: Path) -> subprocess.CompletedProcess[str]:
    """One command of a process that finds packages in ``site`` too."""
    if arguments[0] == "reasonrl":
        return processes.command(*arguments[1:], cwd=cwd, site=site)
    environ = {**os.environ, "COLUMNS": "80", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(site or "")}
    environ.pop("REASONRL_PLUGINS", None)
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=900,
        env=environ,
        cwd=cwd,
        check=False,
    )


def done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def records(site: Path, cwd: Path) -> dict[str, dict[str, object]]:
    listed = json.loads(done(command("reasonrl", "plugins", "list", "--json", site=site, cwd=cwd)))
    return {record["distribution"]: record for record in listed}


def built(project: Path, dist: Path) -> Path:
    """The wheel, built in this process: what ``pip wheel`` would do without an index."""
    dist.mkdir()
    with working_in(project):
        return dist / hatchling.build.build_wheel(str(dist))


def installed(wheel: Path, site: Path, cwd: Path) -> None:
    options = ("--no-deps", "--no-index", "--no-compile", "--quiet", "--disable-pip-version-check")
    done(command("pip", "install", *options, "--target", site, wheel, cwd=cwd))


def play(kind: str, folder: Path) -> None:
    kind, *flags = kind.split()
    name, site = f"outside-{kind.replace('_', '-')}", folder / "site"
    told = done(command("reasonrl", "plugins", "new", name, "--kind", kind, *flags, "--dir", folder, cwd=folder))
    project = folder / f"reasonrl-{name}"
    assert str(project) in told
    installed(built(project, folder / "dist"), site, folder)
    record = records(site, folder)[f"reasonrl-{name}"]
    assert (record["status"], record["error"]) == ("active", None)
    recipe = f"outside_{kind}_smoke"
    components = {f"{kind} {name}"} - {f"observer {name}", f"recipes {name}"}
    assert {f"recipe {recipe}", *components} <= set(record["provides"])  # type: ignore[call-overload]

    checked = done(command("reasonrl", "plugins", "check", name, "--json", site=site, cwd=folder))
    results = json.loads(checked)
    assert {r["status"] for r in results} <= {"ok", "not applicable"}
    subjects = {f"plugin {name}", *(components - {f"model {name}"})}
    assert subjects <= {r["subject"] for r in results}
    accepted = [r for r in results if r["check"] == "recipes_are_accepted"]
    assert [r["status"] for r in accepted] == ["ok"], "the recipe is packaged"

    run_dir = folder / "run"
    done(command("reasonrl", "train", recipe, "--run-dir", run_dir, "--plain", site=site, cwd=folder))
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 2
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["outcome"] == "completed"
    if kind == "task" and not flags:
        assert summary["eval"]["last"]["format"] >= summary["eval"]["last"]["accuracy"] > 0, "answers are in form"

    own = done(processes.run_pytest("-q", "-p", "no:cacheprovider", cwd=project, site=site))
    assert " passed" in own
    assert "failed" not in own

    shutil.rmtree(site)
    site.mkdir()
    assert f"reasonrl-{name}" not in records(site, folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["task", "task --multi-turn"])
def test_an_outsiders_task_from_new_to_uninstall(kind: str, tmp_path: Path) -> None:
    play(kind, tmp_path)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.slow if i % 3 == 0 else pytest.mark.long) for i, k in enumerate(KINDS[1:])],
)
def test_an_outsiders_plugin_of_any_kind(kind: str, tmp_path: Path) -> None:
    play(kind, tmp_path)
