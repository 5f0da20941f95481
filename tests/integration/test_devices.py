"""The key and the flag that choose a device."""

from pathlib import Path

import pytest
import torch
from support.tiny_runs import RECIPES, tiny
from typer.testing import CliRunner

import reasonrl
from reasonrl.cli.app import app
from reasonrl.errors import RecipeError
from reasonrl.runs import processes

SMALL = ("sampling.max_completion_tokens=4", "trainer.prompts_per_step=2", "trainer.minibatches=1")


def seen(monkeypatch: pytest.MonkeyPatch, kind: str | None) -> None:
    """Let torch see a GPU of that kind, or none."""
    device = torch.device(kind) if kind else None
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: device)


@pytest.mark.parametrize(
    ("asked", "there", "on_cpu"),
    [
        ("auto", None, True),
        ("cpu", None, True),
        ("auto", "cuda", False),
        ("cuda", "cuda", False),
        ("cpu", "cuda", True),
        ("auto", "mps", False),
        ("mps", "mps", False),
        ("cpu", "mps", True),
    ],
)
def test_what_is_asked_for_is_taken(
    asked: str, there: str | None, on_cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(monkeypatch, there)
    monkeypatch.setattr(processes.PartialState, "_shared_state", {})
    assert processes.choose_cpu(asked) is on_cpu


@pytest.mark.parametrize(("asked", "there"), [("cuda", None), ("mps", None), ("mps", "cuda"), ("cuda", "mps")])
def test_what_is_not_there_is_refused(asked: str, there: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, there)
    with pytest.raises(RecipeError, match=f"{asked} is not available: torch .* sees only {there or 'cpu'}"):
        processes.choose_cpu(asked)


@pytest.mark.parametrize(
    "command", [["train", "countdown_ppo"], ["eval", "countdown-base"], ["generate", "countdown-base"]]
)
def test_the_flag_reaches_the_commands(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*command, "--device", "mps"])
    assert done.exit_code == 2
    assert "device: mps is not available" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_may_be_resumed_on_another_device(tiny_model: Path, tmp_path: Path) -> None:
    reasonrl.run(RECIPES / "countdown_grpo.yaml", tiny(tiny_model, *SMALL, "trainer.steps=1"), run_dir=tmp_path / "run")
    done = CliRunner().invoke(app, ["resume", str(tmp_path / "run"), "trainer.steps=2", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["resume", str(tmp_path / "run"), "trainer.steps=3", "--device", "cuda"])
    assert "device: cuda is not available" in done.stderr
