"""The workbench that training, SFT, evaluation and generation share: processes, model, backend, suites."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState

from reasonrl.contracts.data import SamplingParams
from reasonrl.contracts.protocols import RewardContext, RolloutContext, Task
from reasonrl.data.render import PromptRenderer
from reasonrl.data.rollouts import BackendCalls
from reasonrl.errors import RecipeError
from reasonrl.evaluation.suites import Suite
from reasonrl.model.critic import build_critic
from reasonrl.model.load import LoadedModel, find_source, load_model, resolve_dtype
from reasonrl.model.policy import PolicyModule
from reasonrl.plugins import Component, Plugins, RewardComponent
from reasonrl.recipe.resolved import ResolvedSuite
from reasonrl.recipe.schema import CriticConfig, Device, ModelConfig, OptimizerConfig, SamplingConfig
from reasonrl.rewards.runner import RewardRunner
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.sources import Tasks, held_out
from reasonrl.trainer.suite_runner import EvaluationWatch

AUTOCAST = {torch.bfloat16: "bf16", torch.float32: "no"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Workbench:
    """A loaded model on this process's device. ``policy`` is not wrapped yet."""

    accelerator: Accelerator
    ranks: Ranks
    policy: PolicyModule
    tokenizer: Any
    renderer: PromptRenderer
    model_path: str
    precision: str
    watch: EvaluationWatch = field(default_factory=EvaluationWatch)


def open_workbench(
    model: ModelConfig,
    model_path: str,
    *,
    seed: int,
    device: Device = "auto",
    critic: CriticConfig | None = None,
    trackers: Sequence[str] = (),
    logging_dir: str | None = None,
) -> Workbench:
    """Start (or join) the processes and load the model.

    Weights are kept in float32; a lower ``model.dtype`` is the autocast precision of forward passes, so that small
    updates are not rounded away.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    on_cpu = choose_cpu(device)
    dtype = resolve_dtype(model.dtype, PartialState(cpu=on_cpu).device)
    # accelerate keeps the first precision of a process for good; a second run may ask for another one.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=AUTOCAST[dtype],
        log_with=list(trackers) or None,
        project_dir=logging_dir,
    )
    master = replace(model, dtype="float32")
    loaded = load_model(master, model_path, seed=seed, device=accelerator.device)
    critic_module = build_critic(critic.kind, loaded.model) if critic is not None else None
    return Workbench(
        accelerator=accelerator,
        ranks=Ranks(accelerator),
        policy=PolicyModule(loaded.model, critic_module),
        tokenizer=loaded.tokenizer,
        renderer=_renderer(model, loaded),
        model_path=find_source(model_path, model.revision).base,
        precision=str(dtype).removeprefix("torch."),
    )


def _renderer(model: ModelConfig, loaded: LoadedModel) -> PromptRenderer:
    given = f"the chat template {model.chat_template}" if model.chat_template else "the model's chat template"
    rows = loaded.model.get_input_embeddings().weight.shape[0]
    return PromptRenderer(loaded.tokenizer, template_name=given, rows=rows)


def choose_cpu(device: Device) -> bool:
    """Whether to compute on the CPU; else accelerate takes the GPU that torch sees.

    Without this accelerate takes several ranks on a machine without a GPU for GPU ranks.

    Raises:
        RecipeError: if torch sees no device of the kind that was asked for.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    there = "cpu" if found is None else found.type
    if device not in ("auto", "cpu", there):
        raise RecipeError(
            f"device: {device} was asked for, but torch {torch.__version__} sees {there} only; install a build of "
            "torch for this machine's GPU, or use device=auto; `reasonrl doctor --self` shows what torch sees"
        )
    on_cpu = "cpu" in (device, there)
    if PartialState._shared_state and (PartialState().device.type == "cpu") != on_cpu:
        PartialState._reset_state()  # of an earlier run in this process
    return on_cpu


def build_optimizer(policy: PolicyModule, config: OptimizerConfig, critic: CriticConfig | None) -> Any:
    """AdamW with one group for the policy and one for the critic; ``role`` and ``base_lr`` ride along."""
    policy_parameters, critic_parameters = policy.parameter_groups()
    groups = [{"params": policy_parameters, "role": "policy", "base_lr": config.learning_rate}]
    if critic_parameters and critic is not None:
        rate = config.learning_rate if critic.learning_rate is None else critic.learning_rate
        groups.append({"params": critic_parameters, "role": "critic", "base_lr": rate})
    return torch.optim.AdamW(
        [{**group, "lr": group["base_lr"]} for group in groups],
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


def build_suites(
    suites: Mapping[str, ResolvedSuite],
    *,
    tasks: Tasks,
    plugins: Plugins,
    seed: int,
    sampling: SamplingConfig,
    logged: set[tuple[str, str]],
) -> list[Suite]:
    """Every suite of a recipe, bounded by the size of its task's eval split.

    Raises:
        RecipeError: if that is empty.
    """
    return [
        _build_suite(name, suite, tasks.get(suite.task), plugins, seed, sampling, logged)
        for name, suite in suites.items()
    ]


def _build_suite(
    name: str,
    suite: ResolvedSuite,
    task: Task,
    plugins: Plugins,
    seed: int,
    sampling: SamplingConfig,
    logged: set[tuple[str, str]],
) -> Suite:
    limit = suite.config.max_completion_tokens or sampling.max_completion_tokens
    return Suite(
        name=name,
        task=task,
        task_name=suite.task.spec.name,
        rewards=build_rewards(suite.rewards, plugins, seed, limit, logged),
        indices=range(held_out(suite, task)),
        asked=suite.config.problems,
        samples=suite.config.samples,
        sampling=SamplingParams(
            temperature=suite.config.temperature, max_completion_tokens=limit, stop=tuple(sampling.stop)
        ),
        seed=seed,
    )


def build_rewards(
    rewards: Mapping[str, RewardComponent],
    plugins: Plugins,
    seed: int,
    max_completion_tokens: int,
    logged: set[tuple[str, str]] | None = None,
) -> RewardRunner:
    context = RewardContext(seed=seed, max_completion_tokens=max_completion_tokens)
    return RewardRunner.build(rewards, plugins, context, logged)


def build_backend(component: Component, plugins: Plugins, bench: Workbench, sampling: SamplingConfig) -> BackendCalls:
    """The rollout backend, not entered yet. Options that it cannot work with it refuses here."""
    context = RolloutContext(
        policy=bench.policy,
        tokenizer=bench.tokenizer,
        sampling=SamplingParams(
            temperature=sampling.temperature,
            max_completion_tokens=sampling.max_completion_tokens,
            stop=tuple(sampling.stop),
        ),
        device=bench.accelerator.device,
        model_path=bench.model_path,
        precision=bench.precision,
        max_prompt_tokens=sampling.max_prompt_tokens,
        on_finished=bench.watch.finished,
    )
    backend = plugins.build(component.spec, component.config, context)
    return BackendCalls(backend, plugins.label(component.spec))


def quiet_libraries() -> None:
    """Only warnings of ours reach the log; third parties keep to errors."""
    for name in ("transformers", "accelerate", "datasets", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
