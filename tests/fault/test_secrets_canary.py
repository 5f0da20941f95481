"""Five secrets go into runs that work and runs that fail; none comes out in a file, a line or an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

import reasonrl
from reasonrl.cli.app import app
from reasonrl.errors import ReasonRLError

PLUGIN = str(Path(__file__).parents[1] / "support" / "secrets_plugin.py")
CANARIES = {
    "HF_TOKEN": "hf_canaryOfTheEnvironment01",
    "CANARY_KEY": "canary-of-an-override-02",
    "CANARY_PASSWORD": "canary-of-the-recipe-03",
    "CANARY_NOTE": "canary-of-a-plugin-04",
    "CANARY_URL": "https://someone:canary-of-a-url-05@hub.example/model",
}
SECRETS = [*list(CANARIES.values())[:4], "canary-of-a-url-05", "canary"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)


def recipe(folder: Path, tiny: Path, **sections: Any) -> Path:
    data: dict[str, Any] = {
        "name": "kept",
        "output_dir": str(folder / "runs"),
        "model": {"path": str(tiny)},
        "task": {"name": "vault", "endpoint": "${oc.env:CANARY_URL}", "note": "${oc.env:CANARY_NOTE}"},
        "rewards": {"guard": {"password": "${oc.env:CANARY_PASSWORD}"}},
        "algorithm": {"name": "open", "license_key": "${oc.env:CANARY_KEY}"},
        "sampling": {"group_size": 8, "max_prompt_tokens": 20, "max_completion_tokens": 4},
        "trainer": {"steps": 2, "prompts_per_step": 4},
        "evaluation": {"every": 0, "suites": {"held_out": {"problems": 3}}},
    }
    path = folder / "kept.yaml"
    path.write_text(yaml.safe_dump({**data, **sections}), encoding="utf-8")
    return path


def train(folder: Path, tiny: Path, *overrides: str, **sections: Any) -> Result:
    arguments = ["train", str(recipe(folder, tiny, **sections)), *overrides, "--plugin", PLUGIN]
    return CliRunner().invoke(app, arguments)


def leaks(folder: Path, *texts: str) -> list[str]:
    """Where a secret stands: any file below ``folder``, its name included, or one of the texts."""
    files = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = [where for where, content in files.items() for s in SECRETS if s.encode() in content]
    found += [str(path) for path in folder.rglob("*") for s in SECRETS if s in path.name]
    return found + [f"text {n}: {text}" for n, text in enumerate(texts) for s in SECRETS if s in text]


def check(done: Result, folder: Path, caplog: pytest.LogCaptureFixture, code: int) -> None:
    assert done.exit_code == code, done.output
    assert not leaks(folder, done.output, done.stderr, caplog.text, str(done.exception))


def test_a_run_that_works_keeps_them(tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = ("task.tells=info", "rewards.guard.scores=true", "algorithm.measures=true")
    done = train(tmp_path, tiny_model, "task.api_key=${oc.env:CANARY_KEY}", *told)
    check(done, tmp_path / "runs", caplog, 0)
    run = tmp_path / "runs" / "kept-1"
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert line["reward/detail/guard/[redacted]"] == line["open/[redacted]"] == 1.0
    record = json.loads((run / "transcripts" / "step_000001.jsonl").read_text().splitlines()[0])
    assert record["reasons"] == {"guard": "because of [redacted]"}
    assert record["info"]["[redacted]"] == [{"at": "[redacted]"}]
    for command in (["generate", "--plugin", PLUGIN], ["eval", "--json", "--plugin", PLUGIN], ["report"]):
        shown = CliRunner().invoke(app, [command[0], str(run), *command[1:]])
        check(shown, tmp_path / "runs", caplog, 0)
    assert "${oc.env:CANARY_KEY}" in (run / "recipe.yaml").read_text()
    assert "set from the environment" in (run / "run.json").read_text()
    assert len(list(run.rglob("*"))) > 10
    assert "an observer shows all it was told" in caplog.text


@pytest.mark.fault
@pytest.mark.parametrize(
    ("overrides", "code", "said"),
    [
        (["task.tells=factory"], 2, "cannot log in with"),
        (["task.tells=check"], 2, "must be shorter than ${oc.env:CANARY_NOTE}"),
        (["task.tells=problem"], 2, "refused"),
        (["rewards.guard.tells=true"], 0, "PermissionError"),
        (["algorithm.tells=true"], 2, "RuntimeError: the key [redacted] has expired"),
        (["task.api_key=canary-of-an-override-02"], 2, "must not be written into a recipe"),
        (["task.api_kee=canary-of-an-override-02", "task.api_key=canary 02"], 2, "api_k"),
        (["task={name: vault, api_key: canary-of-an-override-02}"], 2, "must not be written into a recipe"),
        (["rewards.guard.password=3", "rewards.guard.password=canary-of-an-override-02"], 2, "must not be"),
        (["task.api_key=${oc.env:NOBODY,canary-of-an-override-02}"], 2, "must not be written into a recipe"),
        (["model.path=https://someone:canary-of-a-url-05@hub.example/m"], 2, "must not be written"),
        (["model.path=${oc.env:CANARY_URL}"], 2, "not a hub name: '${oc.env:CANARY_URL}'"),
        (["model.path=${oc.env:HF_TOKEN}/x/y"], 2, "not a hub name"),
        (["task.note=hf_canaryOfTheEnvironment01"], 2, "must not be written into a recipe"),
        (["sampling.group_size=${oc.env:CANARY_KEY}"], 2, "its value is invalid"),
        (["name=x${oc.env:CANARY_URL}"], 2, "name must be a name like"),
        (["checkpoint.every=${oc.env:CANARY_NOTE}"], 2, "checkpoint.every"),
    ],
    ids=lambda value: value[0].partition("canary")[0][:40] if isinstance(value, list) else None,
)
def test_a_run_that_fails_keeps_them(
    overrides: list[str],
    code: int,
    said: str,
    tiny_model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    done = train(tmp_path, tiny_model, "task.api_key=${oc.env:CANARY_KEY}", *overrides)
    check(done, tmp_path / "runs", caplog, code)
    assert said in done.output + caplog.text


@pytest.mark.parametrize("key", ["task", "rewards", "model"])
def test_a_secret_written_into_a_recipe_file_is_refused_before_anything_is_written(
    key: str, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sections: dict[str, Any] = {
        "task": {"name": "vault", "api_key": "canary-of-the-recipe-03"},
        "rewards": {"guard": {"password": 31415926}},
        "model": {"path": "https://someone:canary-of-a-url-05@hub.example/model"},
    }
    done = train(tmp_path, tiny_model, **{key: sections[key]})
    check(done, tmp_path / "runs", caplog, 2)
    assert "kept.yaml:" in done.output
    assert "31415926" not in done.output
    assert not (tmp_path / "runs").exists()


def test_an_error_in_python_keeps_them(tiny_model: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_model)
    with pytest.raises(ReasonRLError) as caught:
        reasonrl.run(path, ["task.tells=problem"], plugins=[PLUGIN])
    assert not leaks(tmp_path / "runs", str(caught.value), repr(caught.value), str(caught.value.args))
