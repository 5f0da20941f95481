"""What the documentation page shows is accepted by the command line, and its tables name what there is."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reasonrl_code.config import CodeConfig, PassedTestsConfig

PAGE = Path(__file__).resolve().parents[3] / "docs" / "plugins" / "code.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```\w+ title=\"([^\"]+)\"\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
REST = """
name: page
model: {name: countdown-base}
algorithm: {name: grpo}
sampling: {group_size: 2}
trainer: {steps: 1, prompts_per_step: 2}
"""


def reasonrl(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reasonrl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.parametrize("title", ["a file", "all tests or nothing"])
def test_a_shown_recipe_is_accepted(title: str, tmp_path: Path) -> None:
    (tmp_path / "page.yaml").write_text(REST + BLOCKS[title], encoding="utf-8")
    (tmp_path / "my_problems.jsonl").write_text(BLOCKS["my_problems.jsonl"], encoding="utf-8")
    done = reasonrl("recipes", "check", "page.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_option_is_in_a_table() -> None:
    tables = "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))
    names = {field.name for kind in (CodeConfig, PassedTestsConfig) for field in dataclasses.fields(kind)}
    assert {name for name in names - {"shape", "partial_credit"} if f"`{name}`" not in tables} == set()
