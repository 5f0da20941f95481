"""The plugin door. Registration hooks return typed specs; observer hooks see and never change."""

from collections.abc import Iterable, Sequence

from pluggy import HookimplMarker, HookspecMarker

from reasonrl.contracts.data import RunInfo, ScoredGroup, StepRecord
from reasonrl.contracts.specs import AlgorithmSpec, ModelSpec, RecipeSpec, RewardSpec, RolloutBackendSpec, TaskSpec

ENTRY_POINT_GROUP = "reasonrl"

hookspec = HookspecMarker("reasonrl")
hookimpl = HookimplMarker("reasonrl")


class ReasonRLSpecs:
    """All hooks. Registration hooks are called once a process and must not import torch."""

    @hookspec
    def reasonrl_tasks(self) -> Iterable[TaskSpec]:  # type: ignore[empty-body]
        """Tasks this plugin offers.

        Example::

            @hookimpl
            def reasonrl_tasks():
                yield TaskSpec(name="reverse", summary="Reverse a word.", config=ReverseConfig,
                               factory="reasonrl_reverse.task:ReverseTask", default_rewards=("reverse",))
        """

    @hookspec
    def reasonrl_rewards(self) -> Iterable[RewardSpec]:  # type: ignore[empty-body]
        """Rewards this plugin offers.

        Example::

            @hookimpl
            def reasonrl_rewards():
                yield RewardSpec(name="reverse", summary="1.0 for the reversed word.",
                                 factory="reasonrl_reverse.task:ReverseReward")
        """

    @hookspec
    def reasonrl_algorithms(self) -> Iterable[AlgorithmSpec]:  # type: ignore[empty-body]
        """Algorithms this plugin offers.

        Example::

            @hookimpl
            def reasonrl_algorithms():
                yield AlgorithmSpec(name="reinforce", summary="Policy gradient without a baseline.",
                                    factory="reasonrl_reinforce.algorithm:Reinforce", needs=lambda config: Needs())
        """

    @hookspec
    def reasonrl_rollout_backends(self) -> Iterable[RolloutBackendSpec]:  # type: ignore[empty-body]
        """Rollout backends this plugin offers.

        Example::

            @hookimpl
            def reasonrl_rollout_backends():
                yield RolloutBackendSpec(name="mybackend", summary="Samples with mybackend.",
                                         factory="reasonrl_mybackend.backend:Backend", modules=("mybackend",),
                                         install="pip install mybackend")
        """

    @hookspec
    def reasonrl_models(self) -> Iterable[ModelSpec]:  # type: ignore[empty-body]
        """Model folders this plugin ships, usable as ``model: {name: ...}``.

        Example::

            @hookimpl
            def reasonrl_models():
                yield ModelSpec(name="my-base", summary="A tiny model.", path=Path(__file__).parent / "my-base")
        """

    @hookspec
    def reasonrl_recipes(self) -> Iterable[RecipeSpec]:  # type: ignore[empty-body]
        """Recipe files this plugin ships, shown by ``reasonrl recipes list``.

        Example::

            @hookimpl
            def reasonrl_recipes():
                yield RecipeSpec(name="reverse_grpo", summary="GRPO on reversed words.",
                                 path=Path(__file__).parent / "recipes" / "reverse_grpo.yaml")
        """

    @hookspec
    def reasonrl_run_started(self, run: RunInfo) -> None:
        """Observe that a run begins. An exception is logged, names the plugin and silences it for the run.

        Example::

            @hookimpl
            def reasonrl_run_started(run):
                log.info("run %s in %s", run.name, run.run_dir)
        """

    @hookspec
    def reasonrl_step_finished(self, run: RunInfo, record: StepRecord, groups: Sequence[ScoredGroup]) -> None:
        """Observe a finished step, its metrics and this process's scored groups.

        Example::

            @hookimpl
            def reasonrl_step_finished(run, record, groups):
                board.log(record.metrics, step=record.step)
        """

    @hookspec
    def reasonrl_run_finished(self, run: RunInfo, outcome: str, error: BaseException | None = None) -> None:
        """Observe the end of a run: ``completed``, ``interrupted`` or ``failed``.

        Example::

            @hookimpl
            def reasonrl_run_finished(run, outcome, error):
                notify(f"{run.name}: {outcome}")
        """
