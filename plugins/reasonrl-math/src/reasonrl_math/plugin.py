"""Register the math components. Cheap: imports no torch or mpmath and reads no data."""

from collections.abc import Iterable
from pathlib import Path

from reasonrl import RecipeSpec, RewardSpec, TaskSpec, hookimpl
from reasonrl_math.config import MathConfig, MultiplicationConfig, MultiplicationRewardConfig

_FOLDER = Path(__file__).resolve().parent / "recipes"
_RECIPES = {
    "multiplication_grpo": "GRPO on products with the bundled tiny model, on a CPU in minutes.",
    "gsm8k_grpo": "GRPO on GSM8K with R1's two rewards; Qwen2.5-0.5B, one 24 GB GPU.",
    "gsm8k_qwen3_grpo": "GRPO on GSM8K; Qwen3-1.7B-Base, LoRA, one 24 GB GPU.",
    "math_grpo": "GRPO on MATH; Qwen2.5-1.5B, one 80 GB GPU.",
    "math_qwen3_grpo": "GRPO on MATH; Qwen3-4B-Base, LoRA, one 80 GB GPU.",
    "other_tasks": "Suites of other tasks for a Countdown-trained model: `reasonrl eval RUN --recipe other_tasks`.",
    "math_suites": "Six benchmarks of mathematics: `reasonrl eval RUN --recipe math_suites`.",
    "gsm8k": "The benchmark GSM8K, 1,319 problems: `reasonrl eval RUN --recipe gsm8k`.",
    "math500": "The benchmark MATH-500: `reasonrl eval RUN --recipe math500`.",
    "aime24": "The benchmark AIME 2024, 30 problems: `reasonrl eval RUN --recipe aime24`.",
    "aime25": "The benchmark AIME 2025, 30 problems: `reasonrl eval RUN --recipe aime25`.",
    "amc": "The benchmark AMC 12 of 2022 and 2023, 83 problems: `reasonrl eval RUN --recipe amc`.",
    "olympiadbench": "OlympiadBench, 674 competition problems in English: `reasonrl eval RUN --recipe olympiadbench`.",
}


@hookimpl
def reasonrl_tasks() -> Iterable[TaskSpec]:
    """Word problems with known answers, and multiplication."""
    yield TaskSpec(
        name="math",
        summary="Problems and answers from the hub or a file, in the manner of GSM8K and MATH.",
        config=MathConfig,
        factory="reasonrl_math.dataset:MathTask",
        default_rewards=("math_boxed",),
        reads=lambda config: {"path": config.path, "eval_path": config.eval_path or ""},
    )
    yield TaskSpec(
        name="multiplication",
        summary="Multiply two whole numbers; generated.",
        config=MultiplicationConfig,
        factory="reasonrl_math.multiplication:MultiplicationTask",
        default_rewards=("multiplication",),
    )


@hookimpl
def reasonrl_rewards() -> Iterable[RewardSpec]:
    """Accuracy and format, as DeepSeek-R1-Zero has them, and TinyZero's scale for products."""
    yield RewardSpec(
        name="math_boxed",
        summary="1.0 if the last \\boxed{...} has the value of the known answer, exactly, else 0.0.",
        factory="reasonrl_math.rewards:BoxedReward",
        isolation="process",
        timeout_s=10.0,
        lost_value=0.0,
    )
    yield RewardSpec(
        name="think_format",
        summary="1.0 for reasoning in one <think> ... </think> and something after it, else 0.0.",
        factory="reasonrl_math.rewards:ThinkFormatReward",
    )
    yield RewardSpec(
        name="multiplication",
        summary="1.0 for the product, 0.1 for another number, 0.0 without one.",
        config=MultiplicationRewardConfig,
        factory="reasonrl_math.multiplication:MultiplicationReward",
    )


@hookimpl
def reasonrl_recipes() -> Iterable[RecipeSpec]:
    """Multiplication on a CPU, word problems on a GPU, benchmarks."""
    for name, summary in _RECIPES.items():
        yield RecipeSpec(name=name, summary=summary, path=_FOLDER / f"{name}.yaml")
