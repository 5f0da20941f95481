"""The code of the page "Your own conversation" works as it is printed."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from reasonrl.contracts.data import Message, Transcript
from reasonrl.contracts.protocols import TaskContext
from reasonrl.conversations.build import open_dialogue
from reasonrl.plugins import Component, load_plugins
from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.runs.start import train
from reasonrl.testing import check_task
from reasonrl.testing.checks import assert_all_hold

PAGE = Path(__file__).parents[2] / "docs" / "own-conversation.md"
TITLED = re.compile(r"^```\w+ title=\"([^\"]+)\"\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    titled = dict(TITLED.findall(PAGE.read_text(encoding="utf-8")))
    assert sorted(titled) == ["reasonrl_secret.py", "reasonrl_sums.py", "secret.yaml"]
    for title, text in titled.items():
        (tmp_path / title).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    for module in ("reasonrl_secret", "reasonrl_sums"):  # not the copy of another test
        monkeypatch.delitem(sys.modules, module, raising=False)
    importlib.invalidate_caches()
    return tmp_path


def test_the_task_that_replies_holds_and_trains(files: Path, tiny_model: Path) -> None:
    assert_all_hold(check_task("secret", files=["reasonrl_secret.py"], count=12))
    small = ("trainer.steps=2", "trainer.prompts_per_step=4", "evaluation.suites.held_out.problems=4")
    overrides = ["model.name=null", f"model.path={tiny_model}", "sampling.stop=[a,e,i,o]", *small]
    result = train("secret.yaml", overrides, plugin_files=["reasonrl_secret.py"])
    assert result.run_dir is not None
    for step in read_jsonl(result.run_dir / "metrics.jsonl"):
        assert step["train/unscored_frac"] == 0
        assert 1 <= step["conversation/turns_max"] <= 4


def test_the_task_with_tools_holds_and_answers_a_call(files: Path) -> None:
    assert_all_hold(check_task("sums", files=["reasonrl_sums.py"], count=12))
    plugins = load_plugins(files=["reasonrl_sums.py"])
    spec = plugins.get("task", "sums")
    component = Component(spec=spec, config=spec.config())
    task = plugins.build(spec, component.config, TaskContext(seed=0))
    dialogue = open_dialogue(task, component, max_turns=2)
    assert dialogue is not None
    call = '<tool_call>{"name": "add", "arguments": {"a": 7000001, "b": 1}}</tool_call>'
    problem = task.problem("train", 0)
    messages = (*problem.prompt, Message(role="assistant", content=call))
    (reply,) = dialogue.responder.respond([Transcript(problem=problem, messages=messages)])
    dialogue.close()
    assert reply.turn is not None
    assert reply.turn.content == (Message(role="tool", content="7000002"),)
