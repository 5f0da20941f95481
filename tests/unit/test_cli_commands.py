"""The commands that need no model: what they print, and how they end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.distributions import write_distribution
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.cli.fields import parse_fields
from reasonrl.cli.table import table
from reasonrl.errors import RecipeError

TOY = ["--plugin", "support.toy_plugin"]
RECIPE = """\
name: mine
model: {name: toy-base}
task: {name: toy}
algorithm: {name: plain}
rollout_backend: {name: backend}
trainer: {steps: 3, prompts_per_step: 4}
"""


def run(*arguments: str, code: int = 0) -> str:
    """Standard output of a command that ends with ``code``."""
    result = CliRunner().invoke(app, arguments, prog_name="reasonrl", env={"COLUMNS": "80"})
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def run_process(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "COLUMNS": "80"}
    if path is not None:
        environ["PYTHONPATH"] = str(path)
    command = [sys.executable, "-m", "reasonrl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, check=False)


def test_plugins_list_json_has_the_agreed_keys() -> None:
    records = json.loads(run("plugins", "list", "--json"))
    assert set(records[0]) == {"name", "distribution", "version", "status", "provides", "error"}
    by_name = {r["name"]: r for r in records if r["distribution"] == "reasonrl"}
    assert by_name["ppo"]["status"] == "active"
    assert by_name["ppo"]["provides"] == ["algorithm ppo"]
    assert by_name["ppo"]["error"] is None


def test_plugins_list_shows_an_unavailable_backend_with_its_cure() -> None:
    text = run("plugins", "list", *TOY)
    assert "unavailable" in text
    assert "pip install no-such-backend" in " ".join(text.split())


def test_plugins_show_has_every_option_with_default_and_help() -> None:
    text = run("plugins", "show", "support.toy_plugin", *TOY)
    assert "task toy" in text
    assert "default rewards: toy_reward" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["high", "9", "largest", "number"] in lines
    assert ["nested.coef", "0.0", "a", "nested", "option"] in lines
    assert ["words", "[]"] in lines


def test_plugins_show_unknown() -> None:
    assert "error: no plugin 'pppo'; did you mean 'ppo'?" in run("plugins", "show", "pppo", code=2)


def test_recipes_check(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    text = run("recipes", "check", str(tmp_path / "r.yaml"), "sampling.group_size=2", *TOY)
    assert "r.yaml: ok" in text
    assert "plain on toy, sampled with backend" in text
    assert "rewards toy_reward x 1" in text
    assert "3 steps of 4 prompts x 2 = 8 completions" in text


def test_recipes_check_of_an_backend_that_is_missing_here(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    text = run("recipes", "check", str(tmp_path / "r.yaml"), "rollout_backend.name=absent", *TOY)
    assert "note: rollout_backend 'absent' is unavailable here" in text


NEEDY = """
from reasonrl import TaskSpec, hookimpl

@hookimpl
def reasonrl_tasks():
    yield TaskSpec(name="needy", summary="Lacks a library.", factory="nowhere:Needy",
                   default_rewards=("toy_reward",), modules=("no_such_library",), install="pip install no-such")
"""


def test_a_task_may_lack_a_library(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "needy.py").write_text(NEEDY)
    arguments = (str(tmp_path / "r.yaml"), "task.name=needy", *TOY, "--plugin", str(tmp_path / "needy.py"))
    reason = "task 'needy' is unavailable here: no module no_such_library; pip install no-such"
    assert f"note: {reason}" in " ".join(run("recipes", "check", *arguments).split())
    assert reason in " ".join(run("train", *arguments, code=2).split())


def test_recipes_check_ends_with_one_line_and_code_2(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE + "optimizer: {learning_rat: 1}\n")
    text = run("recipes", "check", str(tmp_path / "r.yaml"), *TOY, code=2)
    assert text.count("\n") == 1
    assert text.startswith("error: ")
    assert "r.yaml:7: optimizer.learning_rat: unknown key; did you mean 'learning_rate'?" in text


def test_recipes_list_show_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "countdown_ppo" in run("recipes", "list")
    assert run("recipes", "show", "countdown_ppo").startswith("# PPO")
    run("recipes", "copy", "countdown_grpo")
    copied = (tmp_path / "countdown_grpo.yaml").read_text()
    assert copied.startswith("# GRPO")
    assert "algorithm: {name: grpo, clip_eps: 0.2" in copied, "as it is written in the recipe"
    assert "extends" not in copied
    assert "prompts_per_step" in copied
    assert "countdown_grpo.yaml: ok" in run("recipes", "check", "countdown_grpo.yaml")
    assert "already exists; choose another name" in run("recipes", "copy", "countdown_grpo", code=2)
    assert "cannot write no/folder.yaml" in run("recipes", "copy", "countdown_grpo", "no/folder.yaml", code=2)


def test_tasks_preview_json() -> None:
    arguments = ("tasks", "preview", "toy", "--split", "eval", "-n", "9", "--json", "low=3", "high=3", *TOY)
    entries = json.loads(run(*arguments))
    assert len(entries) == 5, "the split ends there"
    assert entries[0] == {
        "id": "toy/eval/0",
        "prompt": "Say 3.>",
        "info": {"n": 3},
        "reference": "3",
        "reference_reward": 1.0,
    }


def test_tasks_preview_of_countdown() -> None:
    entries = json.loads(run("tasks", "preview", "countdown", "-n", "20", "--json", "template=chat"))
    assert [e["reference_reward"] for e in entries] == [1.0] * 20
    assert set(entries[0]["info"]) == {"numbers", "target"}
    assert {turn["role"] for turn in entries[0]["prompt"]} <= {"system", "user", "assistant"}


def test_tasks_preview_says_what_became_of_the_rows(tmp_path: Path) -> None:
    rows = [{"nums": [11, 12, n], "target": 23 + n} for n in (13, 14, 15, 15)]
    (tmp_path / "n.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = (
        "countdown",
        "source=dataset",
        f"dataset={tmp_path}/n.jsonl",
        "min_numbers=3",
        "max_numbers=3",
    )
    text = run("tasks", "preview", *arguments, "-n", "1")
    assert f"{tmp_path}/n.jsonl: 4 rows read, " in text
    assert json.loads(run("tasks", "preview", *arguments, "-n", "1", "--json"))


def test_tasks_preview_for_people() -> None:
    text = run("tasks", "preview", "toy", "-n", "1", "low=3", "high=3", *TOY)
    assert "  | Say 3.>" in text
    assert "reward of the reference: 1\n" in text


def test_tasks_preview_without_a_reward_shows_none(tmp_path: Path) -> None:
    (tmp_path / "unpaid_task.py").write_text(
        "from reasonrl import Problem, TaskSpec, hookimpl\n"
        "class Unpaid:\n"
        "    def __init__(self, config, context): ...\n"
        "    def size(self, split): return 3\n"
        "    def problem(self, split, index): return Problem(id=f'{split}/{index}', prompt=f'{split} {index}')\n"
        "    def reference(self, problem): return 'x'\n"
        "@hookimpl\n"
        "def reasonrl_tasks(): return [TaskSpec(name='unpaid', summary='No reward.', factory=Unpaid)]\n"
    )
    plugin = ["--plugin", str(tmp_path / "unpaid_task.py")]
    assert "reward of the reference: none" in run("tasks", "preview", "unpaid", "-n", "1", *plugin)
    (entry,) = json.loads(run("tasks", "preview", "unpaid", "-n", "1", "--json", *plugin))
    assert entry["reference_reward"] is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tyo"], "error: command line: task.name: no task 'tyo'; did you mean 'toy'?"),
        (["toy", "hihg=3"], "option 'hihg=3': task.hihg: unknown key for task 'toy'; did you mean 'high'?"),
        (["toy", "high=x"], "option 'high=x': task.high must be an integer, got 'x'"),
        (["toy", "low=9", "high=3"], "task.low must be <= high, got 9 and 3"),
        (["toy", "high"], "expected section.key=value"),
    ],
)
def test_tasks_preview_of_nonsense(arguments: list[str], expected: str) -> None:
    text = run("tasks", "preview", *arguments, *TOY, code=2)
    assert expected in text
    assert text.count("\n") == 1


def test_version() -> None:
    assert "reasonrl 0.1" in run("--version")


@pytest.mark.parametrize("name", ["multiplication_grpo", "multiplication_grpo.yaml"])
def test_a_recipe_of_a_distribution_that_is_not_here_says_which(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASONRL_PLUGINS", "reasonrl")
    said = run("train", name, code=2)
    home = "it comes with reasonrl-math: `pip install -e plugins/reasonrl-math` in the clone"
    assert f"{name}: no such recipe file; {home}; `reasonrl recipes list`" in said
    preview = run("tasks", "preview", "math", code=2)
    assert f"no task 'math'; {home}; installed: countdown" in preview


def test_bad_recipe_ends_training_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE.replace("plain", "grouped"))
    assert "grouped needs sampling.group_size >= 2, got 1" in run("train", "r.yaml", *TOY, code=2)
    assert "no such recipe file" in run("train", "nowhere.yaml", code=2)
    assert [p.name for p in tmp_path.iterdir()] == ["r.yaml"]


def test_generate_fields() -> None:
    assert parse_fields(["--numbers", "3,5,8", "--target=16"]) == {"numbers": "3,5,8", "target": "16"}
    assert parse_fields(["--target", "-3"]) == {"target": "-3"}
    assert parse_fields(["--min-value", "1"]) == {"min_value": "1"}
    for wrong in (["stray"], ["--target"], ["--", "x"], ["-t", "3"]):
        with pytest.raises(RecipeError):
            parse_fields(wrong)


def test_table_wraps_its_last_column() -> None:
    lines = list(table(("A", "B"), [("x", "word " * 40)], width=40))
    assert lines[0] == "A  B"
    assert max(map(len, lines)) <= 40
    assert all(line.startswith("   word") for line in lines[2:])


def test_broken_plugin_leaves_every_other_command_working(tmp_path: Path) -> None:
    write_distribution(tmp_path, "raises", "raise RuntimeError('no luck today')")
    write_distribution(tmp_path, "exits", "import sys; sys.exit(7)")
    assert run_process("--help", path=tmp_path).returncode == 0
    listed = run_process("plugins", "list", "--json", path=tmp_path)
    assert listed.returncode == 0
    broken = {r["name"]: r for r in json.loads(listed.stdout) if r["status"] == "broken"}
    assert broken["raises"]["error"] == "RuntimeError: no luck today"
    assert broken["exits"]["error"] == "SystemExit: 7"
    assert run_process("recipes", "check", "countdown_ppo", path=tmp_path).returncode == 0
    used = run_process("recipes", "check", "countdown_ppo", "task.name=lucky", path=tmp_path)
    assert used.returncode == 2
    assert "plugin raises (reasonrl-raises 1.0) is broken: RuntimeError: no luck today" in used.stderr


def preview_of(tmp_path: Path, **methods: str) -> subprocess.CompletedProcess[str]:
    """``tasks preview`` of a task whose methods are the given expressions."""
    bodies = {"size": "None", "problem": "Problem(id='p', prompt='say')", "reference": "'ok'", **methods}
    written = "".join(f"    def {name}(self, *_):\n        return {body}\n" for name, body in bodies.items())
    (tmp_path / "odd_task.py").write_text(
        "from reasonrl import Problem, RewardSpec, TaskSpec, hookimpl\n\n"
        f"class Task:\n{written}\n"
        "class Judge:\n    def score(self, problem, completion):\n        return 1.0\n\n"
        "@hookimpl\ndef reasonrl_tasks():\n"
        "    yield TaskSpec(name='odd', summary='', factory=lambda *_: Task(), default_rewards=('odd',))\n\n"
        "@hookimpl\ndef reasonrl_rewards():\n"
        "    yield RewardSpec(name='odd', summary='', factory=lambda *_: Judge())\n"
    )
    return run_process("tasks", "preview", "odd", "-n", "1", "--plugin", str(tmp_path / "odd_task.py"))


@pytest.mark.parametrize(
    ("method", "body", "expected"),
    [
        ("size", "1 // 0", "size('train') raised ZeroDivisionError"),
        ("problem", "{}['nums']", "problem('train', 0) raised KeyError: 'nums'"),
        ("problem", "'2 + 2'", "problem('train', 0) returned str, expected a Problem"),
        ("reference", "int('x\\ny')", "reference of problem 'p' raised ValueError: invalid literal"),
        ("reference", "42", "reference of problem 'p' returned int, expected text or None"),
    ],
)
def test_a_tasks_mistake_in_the_preview_is_one_line(method: str, body: str, expected: str, tmp_path: Path) -> None:
    done = preview_of(tmp_path, **{method: body})
    assert done.returncode == 2
    assert done.stderr.startswith("error: task 'odd'")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_a_preview_shows_cannot_command_the_terminal(tmp_path: Path) -> None:
    problem = "Problem(id='p\\x1b[2J', prompt='a\\x1b[31m\\nb\\r', info={'k': '\\x9b\\x1b'})"
    done = preview_of(tmp_path, problem=problem, reference="'c\\x1b]0;title\\x07\\nd'")
    assert done.returncode == 0, done.stderr
    assert "  | a\\x1b[31m\n  | b\\r\n" in done.stdout
    assert "  > c\\x1b]0;title\\x07\n  > d\n" in done.stdout
    assert not set(done.stdout) & {"\x1b", "\r", "\x07", "\x9b"}


def test_a_bug_in_a_command_shows_its_traceback_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "buggy.py").write_text(
        "from reasonrl import hookimpl\nimport reasonrl.cli.tasks\n\n"
        "def table(*_):\n    raise ZeroDivisionError('a bug')\n\n"
        "reasonrl.cli.tasks.table = table\n\n"
        "@hookimpl\ndef reasonrl_tasks():\n    return []\n"
    )
    done = run_process("tasks", "list", "--plugin", str(tmp_path / "buggy.py"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: a bug" in done.stderr


def test_keyboard_interrupt_ends_with_130(tmp_path: Path) -> None:
    (tmp_path / "stopped_task.py").write_text(
        "from reasonrl import TaskSpec, hookimpl\n\n"
        "import signal\ndef build(config, context):\n    signal.raise_signal(signal.SIGINT)\n\n"
        "@hookimpl\ndef reasonrl_tasks():\n    yield TaskSpec(name='stopped', summary='', factory=build)\n"
    )
    done = run_process("tasks", "preview", "stopped", "--plugin", str(tmp_path / "stopped_task.py"))
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
