"""Whatever a plugin raises, prints or registers, other commands work, JSON stays JSON and exit codes stay true."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.builders import Judge, completion, group, runner
from support.distributions import write_distribution
from support.odd_errors import ODD
from typer.testing import CliRunner

import reasonrl
from reasonrl import RewardSpec, TaskSpec, hookimpl
from reasonrl.cli.app import app
from reasonrl.contracts.batch import AdvantageOutput, LossOutput
from reasonrl.contracts.metrics import mean
from reasonrl.errors import (
    PluginContractError,
    RecipeError,
    describe,
    is_out_of_memory,
    note_stage,
    plugin_call,
    with_notes,
)
from reasonrl.plugins import load_plugins
from reasonrl.signals import CtrlC, raise_signals
from reasonrl.trainer.algorithm import AlgorithmCalls


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_error_becomes_one_line(kind: str) -> None:
    expected = (PluginContractError, RecipeError, MemoryError)
    with raise_signals(), pytest.raises(expected) as caught, plugin_call("task 'x'"):
        raise ODD[kind]()
    error = caught.value
    note_stage(error, "rollout_s")
    assert is_out_of_memory(error) == (kind == "memory")
    text = with_notes(describe(error), error)
    assert "task 'x'" in text
    assert text.isprintable()
    assert len(text) < 5000


@pytest.mark.parametrize("kind", ODD)
def test_a_reward_that_raises_it_leaves_the_completion_unscored(kind: str) -> None:
    def score(problem: object, done: object) -> float:
        raise ODD[kind]()

    with raise_signals():
        (output,) = runner(Judge(score)).score(group([completion((1,))])).rewards
    assert (output.total, len(output.reasons)) == (None, 1)


@pytest.mark.parametrize("where", ["import", "registration"])
@pytest.mark.parametrize("kind", ["no text", "exit", "interrupt", "other base", "escapes", "megabytes"])
def test_a_plugin_that_raises_it_is_refused_in_one_line(kind: str, where: str, tmp_path: Path) -> None:
    name = f"odd_{kind.replace(' ', '_')}_{where}"
    at_import = "explode()" if where == "import" else ""
    (tmp_path / f"{name}.py").write_text(
        "import sys\nfrom reasonrl import hookimpl\nfrom support.odd_errors import ODD\n"
        f"def explode():\n    print('noise')\n    raise ODD[{kind!r}]()\n{at_import}\n"
        "@hookimpl\ndef reasonrl_tasks():\n    explode()\n"
    )
    done = CliRunner().invoke(app, ["plugins", "list", "--json", "--plugin", str(tmp_path / f"{name}.py")])
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr


WRONG: dict[str, dict[str, Any]] = {
    "summary": {"summary": 3},
    "no summary": {"summary": None},
    "papers": {"papers": "arXiv"},
    "modules": {"modules": (1,)},
    "install": {"install": b"x"},
    "default_rewards": {"default_rewards": 5},
    "reads": {"reads": "x"},
    "marks": {"marks": 1},
    "metrics": {"metrics": None},
    "range": {"range": (1.0, 0.0)},
    "range of texts": {"range": "ab"},
    "range without end": {"range": (0.0, float("inf"))},
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_spec_of_a_wrong_type_is_refused_where_it_is_registered(kind: str) -> None:
    class Plugin:
        @hookimpl
        def reasonrl_tasks(self) -> Iterable[TaskSpec]:
            fields = {"summary": "A task.", **WRONG[kind]} if "range" not in kind else {"summary": "A task."}
            yield TaskSpec(name="odd", factory="a:b", **fields)

        @hookimpl
        def reasonrl_rewards(self) -> Iterable[RewardSpec]:
            fields = WRONG[kind] if "range" in kind else {}
            yield RewardSpec(name="odd", summary="A reward.", factory="a:b", **fields)

    with pytest.raises(PluginContractError, match="of 'odd' is of type"):
        load_plugins(objects=[Plugin()], environ={"REASONRL_PLUGINS": ""})


NOISY = """
import os, sys
from reasonrl import Problem, TaskSpec, hookimpl

class Task:
    def __init__(self, config, context):
        print("built")
    def size(self, split):
        print("size")
        return 3
    def problem(self, split, index):
        print("asked")
        return Problem(id=str(index), prompt="p")

@hookimpl
def reasonrl_tasks():
    print("registered")
    yield TaskSpec(name="noisy", summary="\\x1b[31mred\\x07", factory=Task)
"""


def test_what_a_plugin_prints_stays_out_of_json_and_its_escapes_out_of_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "noisy_of_this_test.py").write_text(NOISY)
    plugin = ["--plugin", str(tmp_path / "noisy_of_this_test.py")]
    for command in (["plugins", "list"], ["tasks", "preview", "noisy", "-n", "2"]):
        done = CliRunner().invoke(app, [*command, "--json", *plugin])
        assert (done.exit_code, len(json.loads(done.stdout)) > 0) == (0, True), done.output
    shown = CliRunner().invoke(app, ["plugins", "show", "noisy_of_this_test", *plugin])
    assert shown.exit_code == 0, shown.output
    assert "\x1b" not in shown.stdout
    assert "red" in shown.stdout


def test_names_of_any_length_are_cut_where_they_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * 100_000
    code = f"""
        from reasonrl import TaskSpec, hookimpl
        @hookimpl
        def reasonrl_tasks():
            yield TaskSpec(name={long!r}, summary="A task.", factory="a:b")
    """
    write_distribution(tmp_path, "lengthy", code, entry=f"e{long}")
    write_distribution(tmp_path, "failing", "raise ValueError", entry=f"f{long}")
    for info in tmp_path.glob("*.dist-info"):
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {info.name[:12]}{long}\nVersion: 1.{'0' * 9999}\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    listed = CliRunner().invoke(app, ["plugins", "list"])
    assert (listed.exit_code, f"({100_000 + 12:,} characters)" in listed.output) == (0, True)
    shown = [CliRunner().invoke(app, ["plugins", "show", f"{first}{long}"]) for first in "ef"]
    assert [done.exit_code for done in shown] == [0, 0]
    for done in (listed, *shown, CliRunner().invoke(app, ["tasks", "preview", "x"])):
        assert len(done.output) < 10_000


def test_an_error_of_a_plugin_cannot_choose_the_exit_code(tmp_path: Path) -> None:
    code = "from reasonrl.errors import ReasonRLError\nclass Mine(ReasonRLError):\n    exit_code = 0\nraise Mine('x')\n"
    (tmp_path / "exits_of_this_test.py").write_text(code)
    done = CliRunner().invoke(app, ["plugins", "list", "--plugin", str(tmp_path / "exits_of_this_test.py")])
    assert done.exit_code == 2, done.output


def test_a_generator_that_is_closed_is_no_error_of_a_plugin() -> None:
    def steps() -> Iterator[int]:
        with plugin_call("task 'x'"):
            yield 1

    begun = steps()
    next(begun)
    begun.close()
    with pytest.raises(PluginContractError, match="task 'x' raised GeneratorExit"), plugin_call("task 'x'"):
        _close()


def _close() -> None:
    raise GeneratorExit


def test_ctrl_c_still_ends_a_command() -> None:
    with raise_signals(), pytest.raises(CtrlC), plugin_call("task 'x'"):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt), plugin_call("task 'x'"):  # in Python, where the cause is unknown
        raise KeyboardInterrupt
    assert reasonrl.__version__


SCALAR = torch.ones(())


@pytest.mark.parametrize(
    "metrics",
    [
        {"a": 1.0},
        None,
        3,
        {"a": mean(1.0, 1.0), "b": "x"},
        {None: mean(1.0, 1.0)},
        {"a": mean("x", 1.0)},  # type: ignore[arg-type]
        {"a": mean(torch.ones(3), 1.0)},
        {"a": mean(SCALAR.to("meta"), 1.0)},
        {"a": mean(SCALAR + 0j, 1.0)},
    ],
)
def test_metrics_of_an_algorithm_of_a_wrong_type_are_refused(metrics: Any) -> None:
    class Careless:
        def compute_advantages(self, batch: Any, evals: Any, ctx: Any) -> AdvantageOutput:
            return AdvantageOutput(advantages=torch.zeros(1, 2), metrics=metrics)

    calls = AlgorithmCalls(Careless(), "algorithm 'careless'")  # type: ignore[arg-type]
    batch: Any = SimpleNamespace(input_ids=torch.zeros(1, 2))
    with pytest.raises(
        PluginContractError, match="algorithm 'careless': compute_advantages returned metrics of a wrong"
    ):
        calls.compute_advantages(batch, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"advantages": [[0.0, 0.0]]}, "advantages returned list"),
        ({"advantages": torch.zeros(1, 2) + 0j}, "advantages returned Tensor, expected a dense real tensor on cpu"),
        ({"advantages": torch.zeros(1, 2, device="meta")}, "advantages returned Tensor"),
        ({"advantages": torch.zeros(1, 2).to_sparse()}, "advantages returned Tensor"),
        ({"advantages": torch.zeros(1, 2), "returns": 5}, "returns returned int"),
        ({"advantages": torch.zeros(2)}, "compute_advantages returned advantages of shape"),
    ],
)
def test_tensors_of_an_algorithm_that_cannot_be_used_are_refused(returned: Any, message: str) -> None:
    class Careless:
        def compute_advantages(self, batch: Any, evals: Any, ctx: Any) -> AdvantageOutput:
            return AdvantageOutput(**returned)

        def compute_loss(self, inputs: Any, normalizer: Any, ctx: Any) -> LossOutput:
            return LossOutput(loss=torch.ones((), requires_grad=True) + 1j)

    calls = AlgorithmCalls(Careless(), "algorithm 'careless'")  # type: ignore[arg-type]
    batch: Any = SimpleNamespace(input_ids=torch.zeros(1, 2), logprobs=torch.zeros(1, 2))
    with pytest.raises(PluginContractError, match=message):
        calls.compute_advantages(batch, None, None)  # type: ignore[arg-type]
    with pytest.raises(PluginContractError, match="a loss that is not a real scalar"):
        calls.compute_loss(batch, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ODD)
def test_an_observer_that_raises_it_is_silenced(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    class Watcher:
        calls = 0

        @hookimpl
        def reasonrl_run_finished(self) -> None:
            self.calls += 1
            raise ODD[kind]()

    watcher = Watcher()
    plugins = load_plugins(objects=[watcher], environ={"REASONRL_PLUGINS": ""})
    with raise_signals():
        for _ in range(2):
            plugins.observe("reasonrl_run_finished")
    assert watcher.calls == 1
    assert "it observes nothing more in this run" in caplog.text
    assert "\x1b" not in caplog.text
