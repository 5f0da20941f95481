"""What the documentation page shows is accepted by the command line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reasonrl_math.rewards import is_equal

PAGE = Path(__file__).resolve().parents[3] / "docs" / "plugins" / "math.md"
BLOCK = re.compile(r"^```yaml title=\"([^\"]+)\"\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REST = """
name: page
model: {name: countdown-base}
algorithm: {name: grpo}
sampling: {group_size: 2, max_completion_tokens: 64}
trainer: {steps: 1, prompts_per_step: 2}
"""
CODE = re.compile(r"`([^`]+)`")
BLOCKS = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))


def test_the_page_shows_recipes() -> None:
    assert set(BLOCKS) == {"multiplication", "a file", "GSM8K"}


@pytest.mark.parametrize("title", sorted(BLOCKS))
def test_a_shown_recipe_is_accepted(title: str, tmp_path: Path) -> None:
    (tmp_path / "page.yaml").write_text(REST + BLOCKS[title], encoding="utf-8")
    rows = [json.dumps({"question": f"What is {i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(40)]
    (tmp_path / "my_problems.jsonl").write_text("".join(rows), encoding="utf-8")
    command = [sys.executable, "-m", "reasonrl", "recipes", "check", "page.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def compared() -> list[tuple[str, str, bool]]:
    """(known answer, answer, right) of every cell of the table that explains how answers are compared."""
    section = PAGE.read_text(encoding="utf-8").partition("## How answers are compared")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:4] for line in section.splitlines() if line.startswith("| `")]
    return [
        (CODE.findall(known)[0], answer, is_right)
        for known, right, wrong in rows
        for cell, is_right in ((right, True), (wrong, False))
        for answer in CODE.findall(cell)
    ]


def test_the_page_says_how_answers_are_compared() -> None:
    examples = compared()
    assert len(examples) > 60
    assert [e for e in examples if is_equal(e[0], e[1]) is not e[2]] == []
