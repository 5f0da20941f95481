"""What the plugin offers. Cheap: neither torch nor reasoning-gym is imported before a recipe asks for it."""

from collections.abc import Iterable
from pathlib import Path

from reasonrl import RecipeSpec, RewardSpec, TaskSpec, hookimpl
from reasonrl_reasoning_gym.config import ReasoningGymConfig, ReasoningGymRewardConfig

_RECIPES = Path(__file__).resolve().parent / "recipes"


@hookimpl
def reasonrl_tasks() -> Iterable[TaskSpec]:
    """All datasets of reasoning-gym behind one name."""
    yield TaskSpec(
        name="reasoning_gym",
        summary="The generated tasks of reasoning-gym, one or a weighted mixture of them.",
        config=ReasoningGymConfig,
        factory="reasonrl_reasoning_gym.task:ReasoningGymTask",
        default_rewards=("reasoning_gym",),
    )


@hookimpl
def reasonrl_rewards() -> Iterable[RewardSpec]:
    """The dataset's own scorer, in a separate process: some scorers calculate what an answer says."""
    yield RewardSpec(
        name="reasoning_gym",
        summary="What the dataset's own scorer gives the answer, 0 to 1.",
        config=ReasoningGymRewardConfig,
        factory="reasonrl_reasoning_gym.rewards:ReasoningGymReward",
        isolation="process",
        timeout_s=10.0,
        lost_value=0.0,
    )


@hookimpl
def reasonrl_recipes() -> Iterable[RecipeSpec]:
    """A recipe for training, and one whose suites measure a model on other tasks."""
    yield RecipeSpec(
        name="reasoning_gym_grpo",
        summary="GRPO on a mixture of reasoning-gym tasks; a small instruct model and a GPU.",
        path=_RECIPES / "reasoning_gym_grpo.yaml",
    )
    yield RecipeSpec(
        name="reasoning_gym_suites",
        summary="Suites of ten kinds of tasks, for `reasonrl eval RUN --recipe reasoning_gym_suites`.",
        path=_RECIPES / "reasoning_gym_suites.yaml",
    )
