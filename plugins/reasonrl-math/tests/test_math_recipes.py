"""The packaged recipes are accepted, and one of them trains."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import reasonrl_math
from reasonrl import Completion, FinishReason, NoConfig, RewardContext, TaskContext
from reasonrl.testing.models import tiny_model_folder
from reasonrl_math import plugin
from reasonrl_math.config import MathConfig
from reasonrl_math.dataset import MathTask
from reasonrl_math.rewards import BoxedReward, is_equal

RECIPE_FOLDER = Path(reasonrl_math.__file__).parent / "recipes"
RECIPES = [spec.name for spec in plugin.reasonrl_recipes()]
BENCHMARKS = ("gsm8k", "math500", "aime24", "aime25", "amc", "olympiadbench")
ROWS = {
    # The columns of the data sets on the hub, with problems of our own.
    "gsm8k": [{"question": "What is 6 times 7?", "answer": "6 * 7 = <<6*7=42>>42\n#### 42"}],
    "math500": [
        {
            "problem": "What is half of 3?",
            "solution": "...",
            "answer": "\\frac{3}{2}",
            "subject": "Algebra",
            "level": 1,
        },
        {"problem": "Solve.", "solution": "...", "answer": "x \\in [-2,7]", "subject": "Algebra", "level": 5},
    ],
    "aime24": [{"id": 60, "problem": "Find it.", "solution": "...", "answer": "033", "url": "", "year": "2024"}],
    "aime25": [{"problem": "Find it.", "answer": "588", "id": "0"}],
    "amc": [{"id": 0, "problem": "Find it.", "answer": 142.0, "url": ""}],
    "olympiadbench": [
        {"id": 1606, "question": "Find T.", "solution": ["..."], "final_answer": ["$-\\frac{2}{3}$"], "unit": None},
        {"id": 1607, "question": "Find all x.", "solution": ["..."], "final_answer": ["$1$", "$2$"], "unit": None},
    ],
}
KNOWN = {
    "gsm8k": ["42"],
    "math500": ["\\frac{3}{2}", "x \\in [-2,7]"],
    "aime24": ["033"],
    "aime25": ["588"],
    "amc": ["142.0"],
    "olympiadbench": ["$-\\frac{2}{3}$", "$1$, $2$"],
}
RIGHT = {
    "gsm8k": "42",
    "math500": "1.5",
    "aime24": "33",
    "aime25": "588",
    "amc": "142",
    "olympiadbench": "\\frac{-2}{3}",
}


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "reasonrl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("model") / "tiny")


def benchmark(name: str, data: Path) -> MathTask:
    """The task of the suite, on a local file with its columns."""
    file = data / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]), encoding="utf-8")
    suites = yaml.safe_load((RECIPE_FOLDER / "math_suites.yaml").read_text(encoding="utf-8"))["evaluation"]["suites"]
    assert tuple(suites) == BENCHMARKS
    options = {**suites[name]["task"], "path": str(file)}
    assert options.pop("name") == "math"
    return MathTask(MathConfig(**options), TaskContext(seed=0))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_reads_a_local_file_with_the_columns_of_the_hub(name: str, tmp_path: Path) -> None:
    task = benchmark(name, tmp_path)
    problems = [task.problem("eval", i) for i in range(len(ROWS[name]))]
    assert (task.size("train"), task.size("eval")) == (0, len(problems))
    assert [p.info["answer"] for p in problems] == KNOWN[name]
    assert [p.info.get("difficulty") for p in problems] == ([1, 5] if name == "math500" else [None] * len(problems))
    reward = BoxedReward(NoConfig(), RewardContext())

    def judged(answer: str) -> bool | None:
        text = f"so </think> \\boxed{{{answer}}}"
        said = Completion(token_ids=(), logprobs=None, text=text, finish_reason=FinishReason.EOS)
        return reward.score(problems[0], said).correct

    assert (judged(RIGHT[name]), judged("17")) == (True, False)


def test_the_answers_of_a_list_count_in_any_order(tmp_path: Path) -> None:
    known = benchmark("olympiadbench", tmp_path).problem("eval", 1).info["answer"]
    assert is_equal(known, "2, 1")
    assert not is_equal(known, "1")


def test_a_benchmark_is_evaluated_by_the_command(tmp_path: Path, tiny_model: Path) -> None:
    """On a local file, with difficulties, from the recipe's name to the saved results."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS["math500"]), encoding="utf-8")
    small = ["sampling.max_completion_tokens=4", "sampling.max_prompt_tokens=1536", "device=cpu"]
    command = ["eval", str(tiny_model), "--recipe", "math500", f"evaluation.suites.math500.task.path={file}", *small]
    done = run_command(*command, "--output", str(tmp_path / "out"), "--json")
    found = json.loads(done.stdout)["math500"]
    assert (found["problems"], found["samples"], found["accuracy"]) == (2, 4, 0.0)
    assert found["intervals"].keys() == {"pass@1", "pass@4", "maj@1", "maj@4"}
    assert [level["difficulty"] for level in found["by_difficulty"]] == ["1", "5"]
    saved = json.loads((tmp_path / "out" / "results.json").read_text())
    assert saved["configs"]["math500"]["dataset_path"] == str(file)


def test_the_packaged_recipes_are_accepted() -> None:
    check = (
        "import sys; from reasonrl.cli.app import app\n"
        "codes = {name: app(['recipes', 'check', name], standalone_mode=False) for name in sys.argv[1:]}\n"
        "sys.exit(str({name: code for name, code in codes.items() if code}) if any(codes.values()) else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", check, *RECIPES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_has_a_recipe_of_its_own(name: str) -> None:
    own = yaml.safe_load((RECIPE_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    assert (own["extends"], own["name"]) == ("math_suites.yaml", name)
    assert own["evaluation"]["suites"] == {other: None for other in BENCHMARKS if other != name}


def test_a_recipe_fits_as_its_header_says() -> None:
    command = [sys.executable, "-m", "reasonrl", "plan", "gsm8k_grpo", "--gpu", "4090", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    plan = json.loads(done.stdout)
    assert plan["fits"]
    (recipe,) = [spec.path for spec in plugin.reasonrl_recipes() if spec.name == "gsm8k_grpo"]
    need = (plan["peak"]["bytes"] + plan["peak"]["reserve"]) / 2**30
    assert f"# Plan for RTX 4090: {need:.1f} of 24.0 GiB" in recipe.read_text(encoding="utf-8")


def test_a_wrong_option_has_a_place() -> None:
    command = [sys.executable, "-m", "reasonrl", "tasks", "preview", "multiplication", "max_factr=9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean 'max_factor'?" in done.stderr


def test_two_steps_of_the_smoke_recipe(run_recipe: Callable[..., Any]) -> None:
    """Word problems with both rewards, the boxed one in its own process."""
    recipe = {
        "name": "math_smoke",
        "model": {"name": "countdown-base"},
        "task": {"name": "math", "template": "base"},
        "rewards": {"math_boxed": {}, "think_format": {"weight": 0.2}},
        "algorithm": {"name": "grpo"},
        "sampling": {"group_size": 2, "max_prompt_tokens": 1000, "max_completion_tokens": 8},
        "trainer": {"steps": 2, "prompts_per_step": 2},
    }
    result = run_recipe(recipe)
    assert result.outcome == "completed"
    assert result.summary["steps"] == 2
