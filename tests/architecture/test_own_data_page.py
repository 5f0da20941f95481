"""The page "Your own data": its files are what it says, and its recipes are accepted."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasonrl.cli.app import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-own-data.md"
BLOCK = re.compile(r"^```\w+ title=\"([^\"]+)\"\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAID = (
    "nums.jsonl: 7 rows read, 5 kept (4 train, 1 eval), 2 dropped (1 repeated, 1 without a solution)",
    "suite held_out: 4 problems requested, 1 available",
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for title, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        (tmp_path / title).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_check_says_what_the_page_shows(files: Path) -> None:
    done = CliRunner().invoke(app, ["recipes", "check", "nums.yaml"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    for line in SAID:
        assert line in said
        assert line in PAGE.read_text(encoding="utf-8")
    assert "pairs.jsonl: 2 examples" in CliRunner().invoke(app, ["recipes", "check", "pairs.yaml"]).output


def test_the_empty_split_reads_as_shown(files: Path) -> None:
    rows = (files / "nums.jsonl").read_text().splitlines(keepends=True)
    (files / "nums.jsonl").write_text("".join(rows[:2]))
    done = CliRunner().invoke(app, ["recipes", "check", "nums.yaml"])
    assert done.exit_code == 2
    assert done.stderr.strip() in PAGE.read_text(encoding="utf-8")
