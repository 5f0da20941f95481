"""`eval` and `generate` on everything they can be pointed at."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from support.small_recipes import cli, recipe, summary_of
from typer.testing import CliRunner

from reasonrl.cli.app import app

FIGURES = {"accuracy", "ci95", "problems", "samples", "format", "reward", "length_tokens", "truncated_frac"}
SUITES = {"held_out": {"problems": 3}, "votes": {"problems": 2, "samples": 4, "temperature": 0.5}}


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    path = recipe(folder, tiny_model, evaluation={"every": 0, "suites": SUITES})
    done = cli("train", path, "trainer.steps=1", "--run-dir", folder / "run")
    assert done.exit_code == 0, done.output
    return folder / "run"


def figures(*arguments: object) -> dict[str, dict[str, object]]:
    done = cli("eval", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_run_is_measured_as_it_measured_itself(run: Path) -> None:
    out = figures(run)
    assert list(out) == ["held_out", "votes"]
    assert out == summary_of(run)["eval"]["last"]["suites"]
    assert out["held_out"].keys() >= FIGURES
    assert out["votes"].keys() >= FIGURES | {"pass@4", "maj@4"}
    low, high = out["held_out"]["ci95"]  # type: ignore[misc]
    assert 0 <= low <= out["held_out"]["accuracy"] <= high <= 1
    assert (out["held_out"]["problems"], out["votes"]["samples"]) == (3, 4)


@pytest.mark.parametrize("lora", ["null", "{rank: 2}"], ids=["full", "lora"])
def test_bfloat16_is_measured_under_the_autocast_of_training(tiny_model: Path, tmp_path: Path, lora: str) -> None:
    path = recipe(tmp_path, tiny_model, evaluation={"every": 0, "suites": SUITES})
    low = (f"model.lora={lora}", "model.dtype=bfloat16")
    done = cli("train", path, *low, "trainer.steps=1", "--run-dir", tmp_path / "run")
    assert done.exit_code == 0, done.output
    end = figures(tmp_path / "run")
    if lora == "null":  # merged adapters round differently
        assert end == summary_of(tmp_path / "run")["eval"]["last"]["suites"]


def test_a_saved_evaluation_has_the_fields_of_lm_eval_and_can_be_compared(run: Path, tmp_path: Path) -> None:
    """Overrides count, and the completions are those of the figures."""
    asked = ("evaluation.suites.votes.pass_at=[1,2,4]", "evaluation.suites.votes.top_p=0.9")
    done = cli("eval", run, *asked, "--output", tmp_path / "saved", "--json")
    assert done.exit_code == 0, done.output
    figures, saved = json.loads(done.stdout), json.loads((tmp_path / "saved" / "results.json").read_text())
    assert saved["reasonrl"] == figures
    votes = saved["results"]["votes"]
    assert votes["exact_match,none"] == figures["votes"]["accuracy"]
    assert votes["exact_match_stderr,none"] >= 0
    assert {
        f"{name}@{k}{end}" for name in ("pass", "maj") for k in (1, 2, 4) for end in (",none", "_stderr,none")
    } <= set(votes)
    assert saved["n-samples"]["votes"] == {"original": 2, "effective": 2}
    assert saved["configs"]["votes"]["repeats"] == 4
    assert saved["configs"]["votes"]["generation_kwargs"]["top_p"] == 0.9
    assert saved["higher_is_better"]["votes"]["exact_match"] is True
    assert saved["config"]["trained"]["seed"] == 0
    lines = [json.loads(line) for line in (tmp_path / "saved" / "votes.jsonl").read_text().splitlines()]
    assert sum(line["correct"] for line in lines) / 8 == figures["votes"]["accuracy"]
    again = cli("eval", run, "--output", tmp_path / "saved")
    assert (again.exit_code, "is not empty; name a new folder" in again.output) == (2, True)
    compared = CliRunner().invoke(app, ["compare", str(run), str(tmp_path / "saved"), "--json"])
    assert compared.exit_code == 0, compared.output
    found = json.loads(compared.stdout)
    assert list(found["suites"]) == ["held_out", "votes"]
    assert found["suites"]["held_out"][0]["p_value"] == 1.0
    assert {c["key"] for c in found["recipes"]["B"]} == {
        "evaluation.suites.votes.pass_at",
        "evaluation.suites.votes.top_p",
    }


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("is_there", [False, True])
def test_an_interrupted_evaluation_leaves_nothing(
    sent: signal.Signals, is_there: bool, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reasonrl.runs.ask.evaluate_model", lambda *_: signal.raise_signal(sent))
    target = tmp_path / "new" / "saved"
    if is_there:
        target.mkdir(parents=True)
    before = list(tmp_path.rglob("*"))
    handler = signal.signal(sent, signal.default_int_handler if sent == signal.SIGINT else signal.SIG_DFL)
    try:
        done = cli("eval", run, "--output", target)
    finally:
        signal.signal(sent, handler)
    assert done.exit_code == 128 + sent
    assert list(tmp_path.rglob("*")) == before


def test_a_model_in_a_run_brings_the_runs_recipe(run: Path) -> None:
    assert figures(run / "checkpoints" / "step_000001") == figures(run)


def test_a_model_folder_needs_a_recipe(run: Path, tiny_model: Path) -> None:
    done = cli("eval", tiny_model)
    assert done.exit_code == 2
    assert "a model folder does not come with a recipe; pass --recipe RECIPE" in done.output
    out = figures(tiny_model, "--recipe", run / "recipe.yaml")
    assert out == summary_of(run)["eval"]["first"]["suites"]


def test_a_named_model_brings_the_recipe_it_was_made_for(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "named_model_plugin.py"
    plugin.write_text(
        "from pathlib import Path\nfrom reasonrl import ModelSpec, hookimpl\n"
        "@hookimpl\ndef reasonrl_models():\n"
        f"    yield ModelSpec(name='tiny-one', summary='', path=Path({str(tiny_model)!r}),\n"
        f"                    recipe={str(run / 'recipe.yaml')!r})\n"
    )
    assert figures("tiny-one", "--plugin", plugin) == summary_of(run)["eval"]["first"]["suites"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nonsense", "no run folder, model folder or model 'nonsense'; models that plugins ship:"),
        ("./nowhere/at-all", "no run folder, model folder or model"),
        (".", "is neither a run folder (run.json) nor a model folder (config.json)"),
    ],
)
def test_an_unknown_target_is_refused(
    target: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("eval", "generate"):
        done = cli(command, target)
        assert done.exit_code == 2
        assert message in done.output
        assert len(done.output.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["eval", "generate"])
def test_a_run_that_is_not_there_is_not_taken_for_a_hub_name(
    command: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(command, "runs/none")
    assert done.exit_code == 2
    assert "runs/none: no such folder, and a hub model does not come with a recipe" in done.output
    (tmp_path / "runs" / "other").mkdir(parents=True)
    (tmp_path / "runs" / "other" / "run.json").write_text("{}")
    for more in ([], ["--recipe", run / "recipe.yaml"]):
        done = cli(command, "runs/none", *more)
        assert done.exit_code == 2
        assert "no run folder, model folder or model 'runs/none'" in done.output


def test_a_run_without_a_model_says_so(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints")
    done = cli("eval", copy)
    assert done.exit_code == 2
    assert "has saved no model yet" in done.output


def test_a_recipe_without_suites_has_nothing_to_measure(tiny_model: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_model, evaluation={"every": 0})
    done = cli("eval", tiny_model, "--recipe", path)
    assert done.exit_code == 2
    assert "has no evaluation.suites" in done.output


@pytest.mark.parametrize("override", ["evaluation.suites=null", "evaluation.suites={}"])
def test_a_run_without_suites_trains_and_says_so(override: str, tiny_model: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_model, evaluation={"every": 1, "suites": SUITES})
    checked = cli("recipes", "check", path, override)
    done = cli("train", path, override, "--run-dir", tmp_path / "run")
    for shown in (checked, done):
        assert shown.exit_code == 0, shown.output
        assert "no evaluation: the recipe has no suites; checkpoint.keep_best has no effect" in (
            " ".join(shown.output.split())
        )
    summary = summary_of(tmp_path / "run")
    assert (summary["steps"], summary["best"], summary["eval"]) == (2, None, {"first": {}, "last": {}})
    assert not (tmp_path / "run" / "evals").exists()
    assert cli("resume", tmp_path / "run", "trainer.steps=3").exit_code == 0
    for command, said in (("behaviors", "has no evaluations"), ("doctor", "completed")):
        assert said in CliRunner().invoke(app, [command, str(tmp_path / "run")]).output


def test_figures_for_people(run: Path) -> None:
    done = cli("eval", run)
    assert done.exit_code == 0, done.output
    assert "held_out: 3 problems x 1" in done.output
    assert "votes: 2 problems x 4" in done.output
    assert "maj@4" in done.output


def test_generate_shows_the_first_held_out_problem(run: Path) -> None:
    first, second = (cli("generate", run, "-n", 3) for _ in range(2))
    assert first.exit_code == 0, first.output
    assert first.stdout == second.stdout
    assert first.stdout.startswith("0+1=\n")
    assert first.output.count("tokens, finish reason") == 3


def test_greedy_completions_are_alike(run: Path) -> None:
    done = cli("generate", run, "-n", 2, "--temperature", 0)
    assert done.exit_code == 0, done.output
    verdicts = [line for line in done.output.splitlines() if "tokens, finish reason" in line]
    assert len(verdicts) == 2
    assert verdicts[0] == verdicts[1]


def test_fields_make_a_problem_if_the_task_can(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = cli("generate", run, "--numbers", "3,5")
    assert done.exit_code == 2
    assert "task 'counting' cannot make a problem from --numbers" in done.output
    countdown = recipe(
        tmp_path,
        tiny_model,
        task={"name": "countdown", "template": "compact"},
        sampling={"max_prompt_tokens": 64, "max_completion_tokens": 4},
    )
    done = cli("generate", tiny_model, "--recipe", countdown, "--numbers", "3,5,8", "--target", "16")
    assert done.exit_code == 0, done.output
    assert "3" in done.stdout.splitlines()[0]
    assert "16" in done.stdout.splitlines()[0]
    done = cli("generate", tiny_model, "--recipe", countdown, "--numbers", "3,x", "--target", "16")
    assert done.exit_code == 2
    assert "task 'countdown': numbers must be whole numbers" in done.output
