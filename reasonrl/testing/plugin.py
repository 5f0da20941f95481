"""Checks of a whole plugin: its packaging and every component."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from reasonrl.contracts.specs import (
    AlgorithmSpec,
    AnySpec,
    ModelSpec,
    RecipeSpec,
    RewardSpec,
    RolloutBackendSpec,
    TaskSpec,
)
from reasonrl.plugins import PluginRecord, Plugins, find_records, missing_modules
from reasonrl.recipe.load import check_recipe
from reasonrl.testing.checks import CheckResult, Checks, NotApplicableError, require

HEAVY = ("torch", "transformers", "vllm", "datasets", "accelerate", "peft")
FILE = "--plugin"
PROBE = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[1]); importlib.import_module(sys.argv[2]); "
    "print('\\n' + json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
)


@dataclass(kw_only=True)
class PluginSubject:
    """A plugin, with its module and metadata."""

    record: PluginRecord
    plugins: Plugins
    requires: tuple[str, ...] | None = None
    """Dependencies of its project; None = those of the installed distribution."""

    @property
    def module(self) -> str:
        """Return the module that listing plugins imports."""
        value = self.record.value
        return Path(value).stem if value.endswith(".py") else value.partition(":")[0].strip()

    def specs(self) -> list[AnySpec]:
        return [p.spec for found in self.plugins.provided.values() for p in found if p.record == self.record]


checks: Checks[PluginSubject] = Checks()


@checks()
def loads(subject: PluginSubject) -> None:
    """It loads: active, or only missing an optional module."""
    status, error = subject.record.status, subject.record.error or ""
    require(status in ("active", "unavailable"), f"is {status}: {error}")
    require(not error.startswith("conflict"), error)


@checks("loads")
def offers_something(subject: PluginSubject) -> None:
    """It provides a component, model or recipe, or observes runs."""
    observes = any(o.plugin == subject.record.label for found in subject.plugins.observers.values() for o in found)
    require(observes or bool(subject.specs()), "its hooks return nothing")


@checks("loads")
def imports_nothing_heavy(subject: PluginSubject) -> None:
    """Importing it does not import torch or other heavy packages."""
    paths = json.dumps([p or "." for p in sys.path])
    command = [sys.executable, "-P", "-c", PROBE, paths, subject.module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    lines = done.stderr.strip().splitlines()
    require(done.returncode == 0, f"importing it alone failed: {lines[-1] if lines else 'no output'}")
    heavy = sorted(set(json.loads(done.stdout.splitlines()[-1])) & set(HEAVY))
    require(not heavy, f"importing {subject.module} imports {', '.join(heavy)}; use factories as 'pkg.mod:Class'")


@checks("loads")
def bounds_reasonrl(subject: PluginSubject) -> None:
    """Its distribution has an upper bound on reasonrl, because the interface may change."""
    requires = subject.requires if subject.requires is not None else _requirements(subject.record)
    declared = [Requirement(text) for text in requires]
    own = [requirement for requirement in declared if requirement.name.lower() == "reasonrl"]
    require(bool(own), "its dependencies lack reasonrl; add one such as 'reasonrl>=0.1,<0.2'")
    bounded = any(s.operator in ("<", "<=", "==", "~=") for r in own for s in r.specifier)
    require(bounded, f"{own[0]} has no upper bound; add one such as <0.2")


def _requirements(record: PluginRecord) -> Sequence[str]:
    if record.distribution in (FILE, "reasonrl"):
        raise NotApplicableError("not part of a separate distribution")
    return importlib.metadata.distribution(record.distribution).requires or ()


@checks("loads")
def is_typed(subject: PluginSubject) -> None:
    """Its package has ``py.typed``, so that type checkers read its annotations."""
    if subject.record.distribution == "reasonrl":
        raise NotApplicableError("bundled")
    package = subject.module.partition(".")[0]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise NotApplicableError("a single file")
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    require(any((folder / "py.typed").is_file() for folder in folders), f"{package} has no py.typed")


@checks("loads")
def models_are_there(subject: PluginSubject) -> None:
    """Every model it provides is a folder with a config and a tokenizer."""
    models = [spec for spec in subject.specs() if isinstance(spec, ModelSpec)]
    if not models:
        raise NotApplicableError("no models")
    for model in models:
        for name in ("config.json", "tokenizer_config.json"):
            require((model.path / name).is_file(), f"model {model.name!r}: {model.path} has no {name}")


@checks("loads")
def recipes_are_accepted(subject: PluginSubject) -> None:
    """Every recipe it provides passes ``recipes check``."""
    recipes = [spec for spec in subject.specs() if isinstance(spec, RecipeSpec)]
    if not recipes:
        raise NotApplicableError("no recipes")
    for recipe in recipes:
        require(recipe.path.is_file(), f"recipe {recipe.name!r}: no file {recipe.path}")
        check_recipe(recipe.path, [], subject.plugins)


def check_plugin(
    name: str,
    *,
    plugins: Plugins,
    options: Mapping[tuple[str, str], Mapping[str, object]] | None = None,
    task: str | None = None,
    requires: tuple[str, ...] | None = None,
) -> list[CheckResult]:
    """Check a plugin and each of its tasks, rewards, algorithms and backends.

    Args:
        name: Plugin name, as in ``plugins list``, or its distribution.
        options: Component options by (kind, name).
        task: Task to test the plugin's rewards on; default: as ``check_reward`` chooses.
        requires: Dependencies of its project, if it is not installed.

    Raises:
        PluginNotFoundError: If the plugin or the task does not exist.
    """
    if task is not None:
        plugins.get("task", task)
    results = []
    for record in find_records(plugins, name):
        subject = PluginSubject(record=record, plugins=plugins, requires=requires)
        results += checks.run(subject, f"plugin {record.name}")
        for spec in subject.specs():
            results += _component(spec, plugins, (options or {}).get((spec.kind, spec.name), {}), task)
    return results


def _component(spec: AnySpec, plugins: Plugins, options: Mapping[str, object], task: str | None) -> list[CheckResult]:
    """Check one component; only algorithms and backends import torch."""
    if missing := missing_modules(spec):
        reason = f"missing module {', '.join(missing)}"
        label = f"{spec.kind} {spec.name}"
        return [CheckResult(subject=label, check="starts", status="not applicable", reason=reason)]
    if isinstance(spec, TaskSpec):
        from reasonrl.testing.tasks import check_task

        return check_task(spec, options, plugins=plugins)
    if isinstance(spec, RewardSpec):
        from reasonrl.testing.rewards import check_reward

        return check_reward(spec, options, task=task, plugins=plugins)
    if isinstance(spec, AlgorithmSpec):
        from reasonrl.testing.algorithms import check_algorithm

        return check_algorithm(spec, options, plugins=plugins)
    if isinstance(spec, RolloutBackendSpec):
        from reasonrl.testing.rollouts import check_rollout

        return check_rollout(spec, options, plugins=plugins)
    return []
