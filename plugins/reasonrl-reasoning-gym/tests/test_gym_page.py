"""What the documentation page shows is accepted by the command line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "plugins" / "reasoning-gym.md"
BLOCK = re.compile(r"^```yaml title=\"([^\"]+)\"\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REST = """
name: page
model: {name: countdown-base}
algorithm: {name: grpo}
sampling: {group_size: 2, max_completion_tokens: 64}
trainer: {steps: 1, prompts_per_step: 2}
"""
BLOCKS = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))


def test_the_page_shows_recipes() -> None:
    assert set(BLOCKS) == {"one dataset", "a mixture"}


@pytest.mark.parametrize("title", sorted(BLOCKS))
def test_a_shown_recipe_is_accepted(title: str, tmp_path: Path) -> None:
    (tmp_path / "page.yaml").write_text(REST + BLOCKS[title], encoding="utf-8")
    command = [sys.executable, "-m", "reasonrl", "recipes", "check", "page.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
