"""The notebook of the documentation runs from its first cell to its last; here with few steps."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebooks" / "first_run.ipynb"
SETTINGS = "STEPS, PROMPTS, PROBLEMS = 12, 48, 256"
SMALL = "STEPS, PROMPTS, PROBLEMS = 2, 8, 16"


def cells() -> list[dict[str, Any]]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def code_cells() -> list[str]:
    """The code cells, with lines for the shell as calls of ``shell``."""
    sources = ["".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code"]
    return [re.sub(r"^!(.*)$", r'shell(f"\1")', source, flags=re.MULTILINE) for source in sources]


def shell(command: str) -> None:
    words = command.split()
    assert words[0] == "reasonrl"
    subprocess.run([sys.executable, "-m", *words], check=True)


def test_it_holds_no_output_and_names_pages_that_exist() -> None:
    assert not [cell for cell in cells() if cell.get("outputs") or cell.get("execution_count")]
    text = " ".join("".join(cell["source"]) for cell in cells())
    pages = re.findall(r"`(docs/[\w./-]+)`", text)
    assert pages
    assert not [page for page in pages if not (NOTEBOOK.parents[2] / page).is_file()]


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    display = ModuleType("IPython.display")
    vars(display)["IFrame"] = lambda file, **size: shown.append(file)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(tmp_path)
    assert SETTINGS in code_cells()[0]
    names: dict[str, Any] = {"shell": shell}
    for source in code_cells():
        exec(compile(source.replace(SETTINGS, SMALL), "cell", "exec"), names)
    first, second = names["first"], names["second"]
    assert (first.outcome, second.outcome) == ("completed", "completed")
    assert [Path(file).read_bytes()[:15] for file in shown] == [b"<!doctype html>"]
    assert "reward/component/concise" in (second.run_dir / "metrics.jsonl").read_text()
    assert "step 2: " in capsys.readouterr().out
