"""Register the code components. Cheap: imports no torch, starts no process and reads no data."""

from collections.abc import Iterable
from pathlib import Path

from reasonrl import RecipeSpec, RewardSpec, TaskSpec, hookimpl
from reasonrl_code.config import CodeConfig, PassedTestsConfig

_FOLDER = Path(__file__).resolve().parent / "recipes"
_RECIPES = {
    "mbpp_grpo": "GRPO on MBPP with the fraction of tests passed; Qwen2.5-Coder-1.5B-Instruct, one 80 GB GPU.",
    "code_suites": "HumanEval and MBPP: `reasonrl eval RUN --recipe code_suites`.",
}


@hookimpl
def reasonrl_tasks() -> Iterable[TaskSpec]:
    """Programming problems with tests."""
    yield TaskSpec(
        name="code",
        summary="Python problems with tests from the hub or a file: HumanEval, MBPP, APPS.",
        config=CodeConfig,
        factory="reasonrl_code.dataset:CodeTask",
        default_rewards=("tests_passed",),
        reads=lambda config: {"path": config.path, "eval_path": config.eval_path or ""},
        papers=("arXiv:2107.03374", "arXiv:2108.07732", "arXiv:2105.09938"),
    )


@hookimpl
def reasonrl_rewards() -> Iterable[RewardSpec]:
    """The part of the tests that a program passes, in a sandbox."""
    yield RewardSpec(
        name="tests_passed",
        summary="Fraction of the problem's tests that the program passes, in a sandbox.",
        config=PassedTestsConfig,
        factory="reasonrl_code.rewards:PassedTestsReward",
        isolation="process",
        timeout_s=120.0,
        lost_value=0.0,
    )


@hookimpl
def reasonrl_recipes() -> Iterable[RecipeSpec]:
    """Training on a GPU, and benchmarks."""
    for name, summary in _RECIPES.items():
        yield RecipeSpec(name=name, summary=summary, path=_FOLDER / f"{name}.yaml")
