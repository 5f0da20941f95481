"""Register the countdown components. Cheap and torch-free; everything else is loaded on use."""

from collections.abc import Iterable
from pathlib import Path

from reasonrl import MetricDef, ModelSpec, RecipeSpec, RewardSpec, TaskSpec, hookimpl
from reasonrl_countdown.config import CountdownConfig
from reasonrl_countdown.guess import GuessConfig

_HERE = Path(__file__).resolve().parent

_RECIPES = (
    ("countdown_ppo", "countdown_ppo.yaml", "PPO on Countdown with the bundled tiny model, on a CPU."),
    ("countdown_grpo", "countdown_grpo.yaml", "GRPO on Countdown with the bundled tiny model, on a CPU."),
    (
        "countdown_suites",
        "countdown_suites.yaml",
        "Countdown with three and with four numbers: `reasonrl eval RUN --recipe countdown_suites`.",
    ),
    ("countdown_base_sft", "countdown_base_sft.yaml", "SFT that produced the bundled tiny model countdown-base."),
    (
        "countdown_calculator_sft",
        "conversations/countdown_calculator_sft.yaml",
        "SFT that makes the base of countdown_calculator_grpo, on a CPU.",
    ),
    (
        "countdown_calculator_grpo",
        "conversations/countdown_calculator_grpo.yaml",
        "GRPO on Countdown with a calculator, on a CPU.",
    ),
    ("guess_number_sft", "conversations/guess_number_sft.yaml", "SFT that makes the base of guess_number_grpo."),
    ("guess_number_grpo", "conversations/guess_number_grpo.yaml", "GRPO on a guessing game with hints, on a CPU."),
    ("qwen2.5_0.5b_ppo", "qwen2.5/0.5b_ppo.yaml", "PPO on Countdown; Qwen2.5-0.5B, one 24 GB GPU."),
    ("qwen2.5_0.5b_grpo", "qwen2.5/0.5b_grpo.yaml", "GRPO on Countdown; Qwen2.5-0.5B, one 24 GB GPU."),
    ("qwen2.5_1.5b_ppo", "qwen2.5/1.5b_ppo.yaml", "TinyZero's Countdown run: PPO, Qwen2.5-1.5B, one 80 GB GPU."),
    ("qwen2.5_1.5b_grpo", "qwen2.5/1.5b_grpo.yaml", "GRPO on Countdown; Qwen2.5-1.5B, LoRA, one 24 GB GPU."),
    ("qwen2.5_3b_ppo", "qwen2.5/3b_ppo.yaml", "PPO on Countdown; Qwen2.5-3B, one 80 GB GPU."),
    ("qwen2.5_3b_grpo", "qwen2.5/3b_grpo.yaml", "GRPO on Countdown; Qwen2.5-3B, LoRA, one 24 GB GPU."),
    ("qwen2.5_7b_ppo", "qwen2.5/7b_ppo.yaml", "PPO on Countdown; Qwen2.5-7B, eight 80 GB GPUs."),
    ("qwen2.5_7b_grpo", "qwen2.5/7b_grpo.yaml", "GRPO on Countdown; Qwen2.5-7B, eight 80 GB GPUs."),
    ("qwen3_0.6b_ppo", "qwen3/0.6b_ppo.yaml", "PPO on Countdown; Qwen3-0.6B-Base, one 24 GB GPU."),
    ("qwen3_0.6b_grpo", "qwen3/0.6b_grpo.yaml", "GRPO on Countdown; Qwen3-0.6B-Base, one 24 GB GPU."),
    ("qwen3_1.7b_ppo", "qwen3/1.7b_ppo.yaml", "PPO on Countdown; Qwen3-1.7B-Base, one 80 GB GPU."),
    ("qwen3_1.7b_grpo", "qwen3/1.7b_grpo.yaml", "GRPO on Countdown; Qwen3-1.7B-Base, LoRA, one 24 GB GPU."),
    ("qwen3_4b_ppo", "qwen3/4b_ppo.yaml", "PPO on Countdown; Qwen3-4B-Base, LoRA, one 80 GB GPU."),
    ("qwen3_4b_grpo", "qwen3/4b_grpo.yaml", "GRPO on Countdown; Qwen3-4B-Base, QLoRA, one 24 GB GPU."),
    ("qwen3_8b_ppo", "qwen3/8b_ppo.yaml", "PPO on Countdown; Qwen3-8B-Base, eight 80 GB GPUs."),
    ("qwen3_8b_grpo", "qwen3/8b_grpo.yaml", "GRPO on Countdown; Qwen3-8B-Base, QLoRA, one 24 GB GPU."),
    *(
        (f"countdown_{name}", f"algorithms/countdown_{name}.yaml", f"{title} on Countdown with the shipped tiny model.")
        for name, title in (
            ("dr_grpo", "Dr. GRPO"),
            ("dapo", "DAPO"),
            ("rloo", "RLOO"),
            ("reinforce_pp", "REINFORCE++"),
            ("reinforce_pp_baseline", "REINFORCE++-baseline"),
            ("gspo", "GSPO"),
            ("cispo", "CISPO"),
            ("max_rl", "MaxRL"),
            ("gdpo", "GDPO"),
            ("sapo", "SAPO"),
            ("dppo", "DPPO"),
        )
    ),
)

_BEHAVIORS = (
    ("attempts", "count", "Attempts of a completion: groups of connected steps."),
    ("repeated_attempts", "count", "Attempts that repeat an earlier one of the same completion."),
    ("true_arithmetic", "fraction", "Steps whose two sides are exactly equal."),
    (
        "verification",
        "fraction",
        "Attempts followed by a verdict that is yes exactly if their value is the target.",
    ),
    ("backtracking", "fraction", "Attempts that miss the target and are followed by another attempt."),
    ("distinct_strategies", "fraction", "Different attempts, up to the order of operands of + and *."),
    (
        "aimed",
        "fraction",
        "Attempts whose last operation gets as close to the target as its two numbers allow.",
    ),
    (
        "number_use_legal",
        "fraction",
        "Attempts that use each given number exactly once and combine them all.",
    ),
    ("false_yes", "fraction", "Attempts declared right that miss the target or contain a false step."),
    ("answer_checked", "fraction", "Answers whose expression an attempt tried and declared right."),
    (
        "gave_up",
        "fraction",
        "Searches that end after an attempt that misses the target and was not declared right.",
    ),
)


@hookimpl
def reasonrl_tasks() -> Iterable[TaskSpec]:
    """Countdown, and a guessing game of several turns."""
    return [
        TaskSpec(
            name="countdown",
            summary="Reach a target with given numbers, each used exactly once, and + - * /.",
            config=CountdownConfig,
            factory="reasonrl_countdown.task:CountdownTask",
            default_rewards=("countdown",),
            marks="reasonrl_countdown.behaviors:mark_attempts",
            reads=lambda config: {"dataset": config.dataset if config.source == "dataset" else ""},
            metrics=tuple(
                MetricDef(key=f"behavior/<suite>/{name}", unit=unit, meaning=meaning)
                for name, unit, meaning in _BEHAVIORS
            ),
        ),
        TaskSpec(
            name="guess_number",
            summary="Guess a number in a few turns; the task says higher or lower.",
            config=GuessConfig,
            factory="reasonrl_countdown.guess:GuessTask",
            default_rewards=("guess_number",),
        ),
    ]


@hookimpl
def reasonrl_rewards() -> Iterable[RewardSpec]:
    """The strict reward, TinyZero's scale, and that of the guessing game."""
    return [
        RewardSpec(
            name="countdown",
            summary="1.0 for a right answer, else 0.0; exact arithmetic, every number exactly once.",
            factory="reasonrl_countdown.rewards:CountdownReward",
        ),
        RewardSpec(
            name="countdown_tinyzero",
            summary="TinyZero's scale: 1.0 for a right answer, 0.1 for any answer, 0.0 without one.",
            factory="reasonrl_countdown.rewards:TinyZeroReward",
        ),
        RewardSpec(
            name="guess_number",
            summary="1.0 if the number was guessed within the turns, else 0.0.",
            factory="reasonrl_countdown.guess:GuessReward",
        ),
    ]


@hookimpl
def reasonrl_models() -> Iterable[ModelSpec]:
    """The tiny base model."""
    return [
        ModelSpec(
            name="countdown-base",
            summary="0.85M-parameter Llama that is good at arithmetic, searches Countdown poorly and gives up early.",
            path=_HERE / "models" / "countdown-base",
            recipe="countdown_ppo",
        )
    ]


@hookimpl
def reasonrl_recipes() -> Iterable[RecipeSpec]:
    """The Countdown recipes."""
    folder = _recipe_folder()
    return [RecipeSpec(name=name, summary=text, path=folder / file) for name, file, text in _RECIPES]


def _recipe_folder() -> Path:
    """Return ``recipes`` of the installed package, or of the repository for an editable install."""
    packaged = _HERE / "recipes"
    return packaged if packaged.is_dir() else _HERE.parents[1] / "recipes"
