"""What the documentation page shows is accepted by the command line, and its tables name what there is."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

from reasonrl_code.config import CodeConfig, PassedTestsConfig

PAGE = Path(__file__).resolve().parents[3] / "docs" / "plugins" / "code.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```\w+ title=\"([^\"]+)\"\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
REST = """
name: page
model: {name: countdown-base}
algorithm: {name: grpo}
sampling: {group_size: 2, max_completion_tokens: 64}
trainer: {steps: 1, prompts_per_step: 2}
"""


CHECK = (
    "import sys; from reasonrl.cli.app import app\n"
    "sys.exit(sum(app(['recipes', 'check', name], standalone_mode=False) or 0 for name in sys.argv[1:]))"
)


def test_the_shown_recipes_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "my_problems.jsonl").write_text(BLOCKS["my_problems.jsonl"], encoding="utf-8")
    files = [f"{title}.yaml" for title in ("a file", "all tests or nothing")]
    for file in files:
        (tmp_path / file).write_text(REST + BLOCKS[file.removesuffix(".yaml")], encoding="utf-8")
    command = [sys.executable, "-c", CHECK, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_option_is_in_a_table() -> None:
    tables = "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))
    names = {field.name for kind in (CodeConfig, PassedTestsConfig) for field in dataclasses.fields(kind)}
    assert {name for name in names - {"shape", "partial_credit"} if f"`{name}`" not in tables} == set()
