"""What is refused before a model is loaded because parts do not fit, and a task's mistake with a user's fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.toy_plugin import ToyConfig, ToyTask

from reasonrl import Needs, Problem, RolloutBackendSpec, TaskContext
from reasonrl.errors import PluginContractError, RecipeError
from reasonrl.plugins import Plugins, Provided, load_plugins
from reasonrl.plugins.specs import _check_types
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.notes import notes
from reasonrl.rundir.folder import refuse_unwritable
from reasonrl.runs.ask import find_problem

RECIPE = """\
name: r
model: {name: toy-base}
task: {name: toy}
algorithm: {name: plain}
rollout_backend: {name: backend}
trainer: {steps: 1, prompts_per_step: 1}
"""


def changed(plugins: Plugins, kind: str, name: str, **fields: Any) -> None:
    """Let the only provider of a component give another spec."""
    (one,) = plugins.provided[kind, name]
    spec: Any = replace(one.spec, **fields)  # type: ignore[arg-type]
    plugins.provided = {**plugins.provided, (kind, name): [Provided(spec=spec, record=one.record)]}


@pytest.mark.parametrize("needed", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_an_algorithm_that_needs_the_samplers_log_probabilities(needed: bool, given: bool, tmp_path: Path) -> None:
    plugins = load_plugins(files=["support.toy_plugin"], environ={"REASONRL_PLUGINS": ""})
    changed(plugins, "algorithm", "plain", needs=lambda config: Needs(rollout_logprobs=needed))
    changed(plugins, "rollout_backend", "backend", provides_logprobs=given)
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    if given or not needed:
        load_recipe(path, [], plugins)
        return
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, [], plugins)
    assert str(caught.value) == (
        f"{path}:5: rollout_backend.name: plain needs the sampler's log-probabilities, which backend does not return; "
        "choose another backend"
    )


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (
            {},
            "rollout backend backend cannot sample during the update with these options; set it to 0, or sample from a "
            "server (vllm with mode: server)",
        ),
        ({"samples_during_update": lambda config: False}, "rollout backend backend cannot sample during the update"),
        (
            {"samples_during_update": lambda config: True, "provides_logprobs": False},
            "backend does not return log-probabilities, without which stale samples are not corrected; set it to 0 or",
        ),
    ],
)
def test_a_backend_that_cannot_sample_during_the_update(fields: dict[str, Any], why: str, tmp_path: Path) -> None:
    plugins = load_plugins(files=["support.toy_plugin"], environ={"REASONRL_PLUGINS": ""})
    changed(plugins, "rollout_backend", "backend", **fields)
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.replace("prompts_per_step: 1}", "prompts_per_step: 1, max_staleness: 1}"))
    with pytest.raises(RecipeError) as refused:
        load_recipe(path, [], plugins)
    assert str(refused.value).startswith(f"{path}:6: trainer.max_staleness: {why}")
    changed(plugins, "rollout_backend", "backend", samples_during_update=lambda config: True, provides_logprobs=True)
    resolved = load_recipe(path, [], plugins)
    assert [text for text in notes(resolved) if "trainer.max_staleness is 1 without rollout_correction" in text]
    corrected = load_recipe(path, ["rollout_correction={}"], plugins)
    assert not [text for text in notes(corrected) if "max_staleness" in text]


def test_what_the_spec_says_of_sampling_during_the_update_is_checked() -> None:
    given: Any = True
    spec = RolloutBackendSpec(name="odd", summary="", factory="a:b", samples_during_update=given)
    with pytest.raises(
        PluginContractError, match="samples_during_update of 'odd' is of type bool, expected a function"
    ):
        _check_types("hook", spec)


def test_a_place_that_takes_no_folder_is_refused_and_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output_dir, explicit in ((tmp_path / "file" / "runs", None), (tmp_path, tmp_path / "file" / "run")):
        with pytest.raises(RecipeError, match=r"cannot create a run folder in .*: .*file is not a folder"):
            refuse_unwritable(output_dir, explicit)
    with pytest.raises(RecipeError, match="cannot create a run folder in /proc"):
        refuse_unwritable("/proc/runs", None)
    refuse_unwritable(tmp_path / "new" / "runs", None)
    refuse_unwritable("/proc/runs", tmp_path / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


class Asked(ToyTask):
    """A task that makes a problem from fields, in its own way."""

    def __init__(self, answer: Any) -> None:
        super().__init__(ToyConfig(), TaskContext(seed=0))
        self.answer = answer

    def problem_from_fields(self, fields: Mapping[str, str]) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (ValueError("n must be\na number"), RecipeError, "task 'toy': n must be a number"),
        (KeyError("n"), PluginContractError, "task 'toy': problem_from_fields raised KeyError: 'n'"),
        (SystemExit(3), PluginContractError, "task 'toy': problem_from_fields raised SystemExit: 3"),
        (RecipeError("ours"), RecipeError, "ours"),
        ({"n": 1}, PluginContractError, "problem_from_fields returned dict, expected a Problem"),
        (None, PluginContractError, "problem_from_fields returned NoneType, expected a Problem"),
    ],
    ids=str,
)
def test_a_task_that_fails_to_make_a_problem_is_named(answer: Any, error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        find_problem(Asked(answer), "toy", {"n": "1"})
    assert message in str(caught.value)


def test_a_problem_from_fields() -> None:
    problem = Problem(id="p", prompt="x")
    assert find_problem(Asked(problem), "toy", {"n": "1"}) is problem
