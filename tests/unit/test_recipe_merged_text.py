"""``recipes show`` and ``copy``: what a recipe says survives the merge with its parents."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.plugins import load_plugins
from reasonrl.recipe import merged_text as module
from reasonrl.recipe.merged_text import merged_text
from reasonrl.recipe.source import parse_text, read_source

PARENT = """\
# The parent's header.
# Measured: 1%

# about the name
name: parent  # a name
seed: 0
# the model
model:
  name: countdown-base # small
  # precision
  dtype: float32
task: {name: countdown, template: compact, min_numbers: 3}  # a task
algorithm: {name: ppo, clip_eps: 0.2, value_clip: 0.5}
critic:
  kind: shared  # one
  learning_rate: 5.0e-3
sampling: {group_size: 1, max_prompt_tokens: 64}  # sampled
trainer:
  # how long
  steps: 30  # 4 minutes
  prompts_per_step: 384
evaluation:
  every: 10
  suites:
    held_out: {problems: 16}
    greedy: {problems: 4, temperature: 0.0}
"""
CHILD = """\
# The child's header.
extends: parent.yaml
name: child
model:
  path: some/model   # another one
critic: null
algorithm:
  name: grpo
  # why so
  clip_eps: 3.0e-1
sampling:
  group_size: 8
trainer: {steps: 300, minibatches: 2}
# a new section
checkpoint:
  every: 5 # often
evaluation:
  suites:
    greedy: null
    more:
      problems: 3
"""
MERGED = """\
# The child's header.
name: child
seed: 0
# the model
model:
  # precision
  dtype: float32
  path: some/model   # another one
task: {name: countdown, template: compact, min_numbers: 3}  # a task
algorithm:
  name: grpo
  # why so
  clip_eps: 3.0e-1
critic: null
sampling: {group_size: 8, max_prompt_tokens: 64}  # sampled
trainer:
  # how long
  steps: 300
  prompts_per_step: 384
  minibatches: 2
evaluation:
  every: 10
  suites:
    held_out: {problems: 16}
    more:
      problems: 3
# a new section
checkpoint:
  every: 5 # often
"""


def write(folder: Path, **texts: str) -> Path:
    """The files; the path of the last one."""
    for name, text in texts.items():
        path = folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
    return path


def test_comments_order_and_style_are_kept(tmp_path: Path) -> None:
    assert merged_text(write(tmp_path, parent=PARENT, child=CHILD)) == MERGED


def test_a_grandchild_and_a_recipe_without_parents(tmp_path: Path) -> None:
    last = "# Last.\nextends: child.yaml\nname: last\ntrainer: {steps: 7} # few\n"
    path = write(tmp_path, parent=PARENT, child=CHILD, last=last)
    text = merged_text(path)
    assert text.startswith("# Last.\nname: last\nseed: 0\n# the model\n")
    assert "  # how long\n  steps: 7\n" in text
    assert "header" not in text
    assert merged_text(tmp_path / "parent.yaml") == PARENT


def test_what_the_edits_do_not_know_is_right_all_the_same(tmp_path: Path) -> None:
    parent = "# P\nname: &n a\nmodel: {name: *n}\ntrainer: &t {steps: 1}\n"
    path = write(tmp_path, parent=parent, child="# C\nextends: parent.yaml\nname: b\n")
    text = merged_text(path)
    assert text.startswith("# C\n")
    assert parse_text(path, text).data == read_source(path, []).data


@pytest.mark.slow
@pytest.mark.parametrize("name", [spec.name for spec in load_plugins().specs("recipe")])
def test_every_packaged_recipe_keeps_its_comments(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(load_plugins().get("recipe", name).path)
    monkeypatch.setattr(module, "to_yaml", lambda data: pytest.fail("the comments would be lost"))
    shown = CliRunner().invoke(app, ["recipes", "show", name])
    assert shown.exit_code == 0, shown.output
    copied = CliRunner().invoke(app, ["recipes", "copy", name, "mine.yaml"])
    assert copied.exit_code == 0, copied.output
    text = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert text == shown.stdout
    own = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert [line for line in text.splitlines() if line.startswith("#")][: len(own)] == own
    assert read_source(tmp_path / "mine.yaml", []).data == read_source(path, []).data
    assert "extends" not in text
    checked = CliRunner().invoke(app, ["recipes", "check", "mine.yaml"])
    assert checked.exit_code == 0, checked.output


def made(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """A mapping of a few keys, some of them mappings again."""
    names = rng.sample("abcdef", rng.randint(1, 4))
    return {
        name: made(rng, depth + 1)
        if depth < 3 and rng.random() < 0.5
        else rng.choice([1, -2.5, "x y", "1e-4", True, None, [1, 2], []])
        for name in names
    }


def styled(rng: random.Random, data: dict[str, Any], indent: str = "") -> str:
    """The mapping as somebody might write it: blocks, braces and comments."""
    lines = []
    for key, value in data.items():
        comment = f"  # on {key}" if rng.random() < 0.3 else ""
        if rng.random() < 0.3:
            lines.append(f"{indent}# above {key}")
        if isinstance(value, dict) and value and rng.random() < 0.6:
            lines += [f"{indent}{key}:{comment}", styled(rng, value, indent + "  ")]
        else:
            flow = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
            bare = flow.removesuffix("...\n").strip()
            lines.append(f"{indent}{key}: {bare}{comment}")
    return "\n".join(lines)


def test_any_two_files_merge_to_the_right_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "to_yaml", lambda data: pytest.fail("the comments would be lost"))
    for seed in range(10):
        rng = random.Random(seed)
        parent, child = ({"top": made(rng), **made(rng)} for _ in range(2))
        path = write(
            tmp_path,
            parent="# p\n" + styled(rng, parent) + "\n" * rng.randint(0, 2),
            child="# c\nextends: parent.yaml\n" + styled(rng, child) + "\n" * rng.randint(0, 2),
        )
        text = merged_text(path)
        assert parse_text(path, text).data == read_source(path, []).data, seed
        assert text.startswith("# c\n")
        assert "extends" not in text
