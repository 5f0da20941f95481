"""Build what training, evaluation and generation share: processes, model, optimizer, suites, rewards, backend."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.optim import Optimizer

from reasonrl.contracts.protocols import RewardContext, RolloutContext
from reasonrl.conversations.build import open_dialogue
from reasonrl.conversations.loop import Dialogue
from reasonrl.data.render import PromptRenderer
from reasonrl.data.rollouts import BackendCalls
from reasonrl.errors import RecipeError
from reasonrl.evaluation.suites import Suite
from reasonrl.model.critic import build_critic
from reasonrl.model.load import LoadedModel, find_source, load_model, resolve_dtype
from reasonrl.model.lora import embeddings, is_lora
from reasonrl.model.policy import PolicyModule, logits_per_chunk
from reasonrl.model.reference import Reference, build_reference
from reasonrl.model.sharding import find_layers, shard_policy
from reasonrl.plugins import Component, Plugins, RewardComponent
from reasonrl.recipe.render import render_plain
from reasonrl.recipe.resolved import AnyResolved, ResolvedSuite
from reasonrl.recipe.schema import (
    AnyRecipe,
    CriticConfig,
    ModelConfig,
    OptimizerConfig,
    Recipe,
)
from reasonrl.redact import WarnOnce, redacting_logger
from reasonrl.rewards.runner import RewardRunner, Workers
from reasonrl.runs.out_of_memory import explained
from reasonrl.runs.processes import connect
from reasonrl.runs.sources import Tasks, count_problems
from reasonrl.trainer.adamw_bf16 import AdamWBf16
from reasonrl.trainer.bundle import ModelBundle
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.rounds import sampling_params

log = redacting_logger(__name__)

AUTOCAST = {torch.bfloat16: "bf16", torch.float32: "no"}


def load_bundle(resolved: AnyResolved, *, trackers: Sequence[str] = (), trains: bool = False) -> ModelBundle:
    """``_load_bundle``, where lack of memory is explained in one line."""
    with explained("load", render_plain(resolved), torch.device("cpu")):
        return _load_bundle(resolved, trackers, trains=trains)


def _load_bundle(resolved: AnyResolved, trackers: Sequence[str], *, trains: bool) -> ModelBundle:
    """Start (or join) the processes and load the model.

    Trained weights are kept in float32; a lower ``model.dtype`` is the autocast precision of forward passes, so that
    small updates are not rounded away. Frozen linear layers are stored in that precision. What training shards stays in
    the host's memory until then, since a GPU may not hold it whole.
    """
    recipe, model = resolved.recipe, resolved.recipe.model
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    state = connect(recipe.device)
    dtype = resolve_dtype(model.dtype, state.device)
    # accelerate keeps the first precision of a process for good; a second run may ask for another one.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=state.device.type == "cpu",
        mixed_precision=AUTOCAST[dtype],
        log_with=list(trackers) or None,
        project_dir=str(recipe.output_dir),
    )
    _check_device(recipe, accelerator)
    shards = trains and model.sharding == "fsdp" and accelerator.num_processes > 1
    if model.attention == "flash_attention_2" and dtype == torch.float32:
        raise RecipeError(
            "model.attention: flash_attention_2 computes in 16 bits, but model.dtype is float32 here; set model.dtype "
            "to bfloat16, or model.attention to auto"
        )
    master = replace(model, dtype="float32")
    device = torch.device("cpu") if shards else accelerator.device
    loaded = load_model(master, resolved.model_path, seed=recipe.seed, device=device, frozen=dtype)
    critic = recipe.critic if isinstance(recipe, Recipe) else None
    critic_module = build_critic(critic.kind, loaded.model) if critic is not None else None
    policy = PolicyModule(loaded.model, critic_module, path=loaded.logits_path, packs_up_to=loaded.packs_up_to)
    policy.max_logits_per_chunk = logits_per_chunk(_gpu_bytes(accelerator.device))
    return ModelBundle(
        accelerator=accelerator,
        ranks=Ranks(accelerator),
        policy=policy,
        tokenizer=loaded.tokenizer,
        renderer=_renderer(model, loaded),
        model_path=find_source(resolved.model_path, model.revision).base,
        precision=str(dtype).removeprefix("torch."),
        shards=shards and bool(find_layers(policy)),
        gathers=shards and getattr(resolved.rollout_backend.spec, "shares_policy", False),
    )


def _check_device(recipe: AnyRecipe, accelerator: Accelerator) -> None:
    """Refuse what needs whole weights with model.sharding, and the kernels of bitsandbytes where they do not run."""
    lora, device = recipe.model.lora, accelerator.device.type
    critic, offload = (recipe.critic, recipe.trainer.offload) if isinstance(recipe, Recipe) else (None, [])
    anywhere, kernels = (device,), ("cpu", "cuda")
    for wanted, key, runs_on, instead in (
        (recipe.optimizer.name == "adamw_8bit", "optimizer.name: adamw_8bit", kernels, "use adamw_bf16 or adamw"),
        (lora is not None and lora.quantization, "model.lora.quantization: nf4", kernels, "set it to null"),
        (critic is not None and critic.kind == "adapter", "critic.kind: adapter", anywhere, "use shared or separate"),
        (offload, "trainer.offload", anywhere, "remove it"),
    ):
        if wanted and recipe.model.sharding == "fsdp":
            raise RecipeError(f"{key} needs whole weights, but model.sharding: fsdp divides them; {instead}")
        if wanted and device not in runs_on:
            raise RecipeError(f"{key} runs on {' and '.join(runs_on)}, not on {device}; {instead}")


def _gpu_bytes(device: torch.device) -> int | None:
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def _renderer(model: ModelConfig, loaded: LoadedModel) -> PromptRenderer:
    given = f"the chat template {model.chat_template}" if model.chat_template else "the model's chat template"
    return PromptRenderer(loaded.tokenizer, template_name=given, rows=embeddings(loaded.model).shape[0])


@dataclass(frozen=True, slots=True)
class Prepared:
    """The policy as training calls it (wrapped, or sharded), its optimizer, and the reference if there is one."""

    policy: nn.Module
    optimizer: Optimizer
    reference: Reference | None


def prepare(
    bundle: ModelBundle, config: OptimizerConfig, critic: CriticConfig | None = None, *, has_reference: bool = False
) -> Prepared:
    """Copy the reference, then wrap or shard policy and optimizer. Train mode is the update's alone."""
    policy, accelerator, dtype = bundle.policy, bundle.accelerator, getattr(torch, bundle.precision)
    reference = build_reference(policy, dtype=dtype) if has_reference and not is_lora(policy.model) else None
    if bundle.shards:
        for module in (policy, reference.weights if reference else None):
            if module is not None:
                shard_policy(module, accelerator.device, dtype)
    optimizer = build_optimizer(policy, config, critic)
    # In evaluation mode accelerate adds the autocast alone.
    wrapped = accelerator.prepare_model(policy, evaluation_mode=bundle.shards)
    wrapped.eval()
    if has_reference and reference is None:
        reference = build_reference(policy, wrapped)
    return Prepared(wrapped, accelerator.prepare_optimizer(optimizer), reference)


def build_optimizer(policy: PolicyModule, config: OptimizerConfig, critic: CriticConfig | None) -> Optimizer:
    """One group for the policy and one for the critic; ``role`` and ``base_lr`` ride along."""
    policy_parameters, critic_parameters = policy.parameter_groups()
    groups = [{"params": policy_parameters, "role": "policy", "base_lr": config.learning_rate}]
    if critic_parameters and critic is not None:
        rate = config.learning_rate if critic.learning_rate is None else critic.learning_rate
        groups.append({"params": critic_parameters, "role": "critic", "base_lr": rate})
    return optimizer_class(config.name)(
        [{**group, "lr": group["base_lr"]} for group in groups],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
    )


def optimizer_class(name: str) -> Callable[..., Optimizer]:
    """Of ``optimizer.name``."""
    if name == "adamw_8bit":
        from reasonrl.trainer.adamw_8bit import AdamW8bit  # its package is optional

        return AdamW8bit
    return AdamWBf16 if name == "adamw_bf16" else partial(torch.optim.AdamW, fused=True)


class Builder:
    """Builds what a recipe names from its plugins. Rewards share warnings and worker processes, suites share tasks."""

    def __init__(self, resolved: AnyResolved, plugins: Plugins) -> None:
        self._resolved, self._recipe, self._plugins = resolved, resolved.recipe, plugins
        self._warn_once, self._workers = WarnOnce(log), Workers()
        self.tasks = Tasks(plugins, resolved.recipe.seed)
        self._dialogues: dict[int, Dialogue | None] = {}

    def build_suites(self) -> list[Suite]:
        """Every suite of the recipe, bounded by the size of its task's eval split.

        Raises:
            RecipeError: if that is empty.
        """
        return [self._build_suite(name, suite) for name, suite in self._resolved.suites.items()]

    def _build_suite(self, name: str, suite: ResolvedSuite) -> Suite:
        task, sampling = self.tasks.get(suite.task), self._recipe.sampling
        limit = suite.config.max_completion_tokens or sampling.max_completion_tokens
        return Suite(
            name=name,
            task=task,
            task_name=suite.task.spec.name,
            rewards=self.build_rewards(suite.rewards, limit),
            indices=range(count_problems(suite, task)),
            asked=suite.config.problems,
            samples=suite.config.samples,
            ks=suite.config.ks,
            sampling=replace(
                sampling_params(sampling),
                temperature=suite.config.temperature,
                top_p=suite.config.top_p,
                top_k=suite.config.top_k,
                max_completion_tokens=limit,
            ),
            seed=self._recipe.seed,
            dialogue=self.build_dialogue(suite.task),
        )

    def build_dialogue(self, component: Component) -> Dialogue | None:
        """How the task of that slot replies to the model; None if it never does. Slots with one task share it."""
        task, sampling = self.tasks.get(component), self._recipe.sampling
        if id(task) not in self._dialogues:
            self._dialogues[id(task)] = open_dialogue(
                task,
                component,
                seed=self._recipe.seed,
                max_turns=sampling.max_turns,
                respond_timeout_s=sampling.respond_timeout_s,
                tool_timeout_s=sampling.tool_timeout_s,
            )
        return self._dialogues[id(task)]

    def build_rewards(self, rewards: Mapping[str, RewardComponent], max_completion_tokens: int) -> RewardRunner:
        """Rewards of the recipe or of a suite."""
        context = RewardContext(seed=self._recipe.seed, max_completion_tokens=max_completion_tokens)
        return RewardRunner.build(rewards, self._plugins, context, self._warn_once, self._workers)

    def build_backend(self, bundle: ModelBundle) -> BackendCalls:
        """The rollout backend, not entered yet. It refuses options that it cannot work with."""
        component, sampling = self._resolved.rollout_backend, self._recipe.sampling
        context = RolloutContext(
            policy=bundle.policy,
            tokenizer=bundle.tokenizer,
            sampling=sampling_params(sampling),
            device=bundle.accelerator.device,
            model_path=bundle.model_path,
            precision=bundle.precision,
            max_prompt_tokens=sampling.max_prompt_tokens,
            on_finished=bundle.watch.finished,
            on_computed=bundle.sampling_work.computed,
        )
        backend = self._plugins.build(component.spec, component.config, context)
        return BackendCalls(backend, self._plugins.label(component.spec), bundle.renderer.rows)


def quiet_libraries() -> None:
    """Only warnings of ours reach the log; third parties keep to errors."""
    for name in ("transformers", "accelerate", "datasets", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
