"""One step of a recipe under fake tensors: the run's own model, loss and optimizer, without data."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.optim import Optimizer

from reasonrl.contracts.batch import PolicyEval, StepContext, TrainBatch
from reasonrl.model.critic import build_critic
from reasonrl.model.export import iter_hf_weights
from reasonrl.model.load import build_network, make_trainable
from reasonrl.model.packing import packs_up_to
from reasonrl.model.policy import PolicyModule, logits_per_chunk
from reasonrl.model.reference import Reference, build_reference
from reasonrl.planning.alone import Alone
from reasonrl.planning.decoding import dry_run_decoding
from reasonrl.planning.meter import Meter, Peak, unmetered
from reasonrl.planning.probe import find_path
from reasonrl.planning.substitutes import substitutes
from reasonrl.planning.workload import Workload
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe
from reasonrl.recipe.schema import Recipe
from reasonrl.runs.assemble import build_algorithm, build_update_settings
from reasonrl.runs.build import build_optimizer
from reasonrl.runs.tensors import list_tensors
from reasonrl.trainer.microbatch import Microbatch, accumulate_gradients
from reasonrl.trainer.optim import GuardedOptimizer
from reasonrl.trainer.policy_eval import evaluate_policy, policy_logprobs
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.update import Updater

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PretrainedConfig

    from reasonrl.plugins import Plugins

SAMPLING, EVALUATION, UPDATE, OPTIMIZER, SAVING = STAGES = "sampling", "evaluation", "update", "optimizer", "saving"
"""Of a step; ``evaluation`` is that of the policy on the batch, ``optimizer`` the optimizer's own step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRunResult:
    """What the meter saw. ``model``, ``model_trained``: parameters without the critic's; ``trained``: with them."""

    stages: dict[str, Peak]
    resting: dict[str, int]
    """Bytes by part between two steps."""
    model: int
    model_trained: int
    trained: int
    largest_layer: int
    """Bytes of the largest block of the model, which FSDP gathers at a time."""
    outside_layers: int
    """Bytes of what is in no block, such as embeddings and head."""


def dry_run(
    resolved: AnyResolved,
    plugins: Plugins,
    config: PretrainedConfig,
    workload: Workload,
    *,
    precision: torch.dtype,
    gpu_bytes: int | None,
) -> DryRunResult:
    """Build the model without data and take its step. ``gpu_bytes``: memory of the GPU; None: on a CPU."""
    vocabulary = config.get_text_config().vocab_size
    meter = Meter(vocabulary)
    with substitutes(on_gpu=gpu_bytes is not None), meter.fake():
        return _DryRun(resolved, plugins, config, workload, meter, precision, gpu_bytes).run()


class _DryRun:
    def __init__(
        self,
        resolved: AnyResolved,
        plugins: Plugins,
        config: PretrainedConfig,
        workload: Workload,
        meter: Meter,
        precision: torch.dtype,
        gpu_bytes: int | None,
    ) -> None:
        self._resolved, self._plugins, self._meter = resolved, plugins, meter
        self._on_gpu = gpu_bytes is not None
        self._work, self._alone = workload, Alone(precision)
        self._ranks = Ranks(cast("Accelerator", self._alone))
        self._module = self._build(config)
        self._module.max_logits_per_chunk = logits_per_chunk(gpu_bytes)
        self._policy = self._alone.prepare(self._module).eval()
        recipe = resolved.recipe
        critic = recipe.critic if isinstance(recipe, Recipe) else None
        self._optimizer = build_optimizer(self._module, recipe.optimizer, critic)
        self._reference = self._build_reference()
        self._tag_gradients()

    def run(self) -> DryRunResult:
        """Take a first step, so that the optimizer has its states; then every stage of the next one."""
        self._take_first_step()
        meter, work = self._meter, self._work
        resting = meter.live()
        if work.decoded_rows:
            dry_run_decoding(meter, self._module, self._alone, work)
        if isinstance(self._resolved, ResolvedRecipe):
            self._learn(self._resolved)
        else:
            self._imitate()
        with meter.stage(SAVING):
            if self._on_gpu:  # one tensor at a time goes to the host
                deque(iter_hf_weights(self._module), maxlen=0)
            else:
                for _, tensors in list_tensors(self._module, self._optimizer):
                    kept = list(tensors)
                    del kept
        model, trained = list(self._module.model.parameters()), self._trained()
        return DryRunResult(
            stages=meter.stages,
            resting=resting,
            model=sum(map(_count, model)),
            model_trained=sum(p.numel() for p in model if p.requires_grad),
            trained=sum(p.numel() for p in trained),
            **_layer_sizes(self._module),
        )

    def _build(self, config: PretrainedConfig) -> PolicyModule:
        recipe, path = self._resolved.recipe, self._resolved.model_path
        model = replace(recipe.model, init="random", attention=_attention(recipe.model.attention))
        network = build_network(model, path, config, recipe.seed, torch.float32, {})
        longest = packs_up_to(network) if recipe.model.packing else 0
        trained = make_trainable(network, model, path, seed=recipe.seed, frozen=self._alone.precision).eval()
        self._meter.tag("weights", [*trained.parameters(), *trained.buffers()])
        critic = None
        if isinstance(self._resolved, ResolvedRecipe) and self._resolved.recipe.critic is not None:
            critic = build_critic(self._resolved.recipe.critic.kind, trained)
            self._meter.tag("critic", [*critic.parameters(), *critic.buffers()])
        return PolicyModule(trained, critic, path=find_path(network), packs_up_to=longest)

    def _build_reference(self) -> Reference | None:
        if not (isinstance(self._resolved, ResolvedRecipe) and self._resolved.needs.reference):
            return None
        with self._meter.naming("reference"):
            return build_reference(self._module, self._policy, self._alone.precision)

    def _tag_gradients(self) -> None:
        for parameter in self._trained():
            parameter.register_post_accumulate_grad_hook(lambda p: self._meter.tag("gradients", [p.grad]))

    def _trained(self) -> list[nn.Parameter]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def _fill_gradients(self) -> None:
        """As after earlier micro-batches of the same optimizer step."""
        for parameter in self._trained():
            parameter.grad = torch.zeros_like(parameter)
            self._meter.tag("gradients", [parameter.grad])

    def _take_first_step(self) -> None:
        self._fill_gradients()
        with self._meter.stage(OPTIMIZER):
            GuardedOptimizer(self._optimizer, 1.0).step(is_finite=True)
        self._meter.tag("optimizer", _states(self._optimizer))

    def _evaluate(self, resolved: ResolvedRecipe, batch: TrainBatch) -> PolicyEval:
        """What a step computes before its losses, with old log-probabilities of all rows, the most it may need."""
        trainer, work = resolved.recipe.trainer, self._work
        used_once = trainer.minibatches == 1 and trainer.update_epochs == 1
        how: dict[str, Any] = {
            "temperature": resolved.recipe.sampling.temperature,
            "max_tokens": work.rows * work.length,
            "ranks": self._ranks,
        }
        evals = evaluate_policy(self._policy, self._reference, batch, needs=resolved.needs, used_once=used_once, **how)
        if evals.old_logprobs is None and not used_once:
            policy_logprobs(self._policy, batch, range(work.rows), **how)
        return evals

    def _learn(self, resolved: ResolvedRecipe) -> None:
        recipe, work, meter = resolved.recipe, self._work, self._meter
        batch = _batch(work, meter.vocabulary)
        algorithm = build_algorithm(resolved, self._plugins)
        with meter.stage(EVALUATION):
            evals = self._evaluate(resolved, batch)
        evals = _made_real(evals)
        ctx = StepContext(step=recipe.trainer.steps, total_steps=recipe.trainer.steps, policy_version=1)
        with unmetered():  # all of it is real and small
            advantages = replace(algorithm.compute_advantages(batch, evals, ctx), contributes=None)
        settings = replace(
            build_update_settings(resolved),
            minibatches=1,
            update_epochs=1,
            max_tokens_per_microbatch=work.rows * work.length,
        )
        updater = Updater(
            policy=self._policy,
            optimizer=self._optimizer,
            algorithm=algorithm,
            needs=resolved.needs,
            settings=settings,
            accelerator=cast("Accelerator", self._alone),
            ranks=self._ranks,
            reference=self._reference,
        )
        if work.accumulates:
            self._fill_gradients()
        with self._steps_apart(), meter.stage(UPDATE):
            updater.update(batch, evals, advantages, ctx)

    def _imitate(self) -> None:
        batch = _batch(self._work, self._meter.vocabulary)

        def compute_loss(_: Microbatch) -> torch.Tensor:
            out = self._policy(batch.input_ids, batch.attention_mask, batch.response_mask, temperature=1.0)
            return -out.logprobs.sum()

        if self._work.accumulates:
            self._fill_gradients()
        with self._steps_apart(), self._meter.stage(UPDATE):
            accumulate_gradients(
                self._policy,
                [range(self._work.rows)],
                compute_loss,
                spare_row=0,
                accelerator=cast("Accelerator", self._alone),
                ranks=self._ranks,
            )
            GuardedOptimizer(self._optimizer, self._resolved.recipe.optimizer.max_grad_norm).step(is_finite=True)

    @contextmanager
    def _steps_apart(self) -> Iterator[None]:
        """The optimizer's own step is a stage of its own."""
        entered: list[Any] = []

        def before(*_: object) -> None:
            entered.append(self._meter.stage(OPTIMIZER))
            entered[-1].__enter__()

        def after(*_: object) -> None:
            entered.pop().__exit__(None, None, None)

        hooks = self._optimizer.register_step_pre_hook(before), self._optimizer.register_step_post_hook(after)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _attention(name: str) -> Any:
    """Its package may be missing here; the fused kernel of torch saves the same tensors."""
    return "sdpa" if name == "flash_attention_2" else name


def _count(parameter: torch.Tensor) -> int:
    """Values of a parameter, which may be packed."""
    return math.prod(getattr(parameter, "quant_state", parameter.shape))


def _states(optimizer: Optimizer) -> Iterator[torch.Tensor]:
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def _layer_sizes(module: PolicyModule) -> dict[str, int]:
    blocks = [m for m in module.modules() if m.__class__.__name__.endswith(("Layer", "Block"))]
    sizes = [_bytes(block.parameters()) for block in blocks]
    inside = {id(p): p for block in blocks for p in block.parameters()}
    return {
        "largest_layer": max(sizes, default=0),
        "outside_layers": _bytes(p for p in module.parameters() if id(p) not in inside),
    }


def _bytes(parameters: Iterable[torch.Tensor]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def _batch(work: Workload, vocabulary: int) -> TrainBatch:
    """Rows at their limits, none with another's prompt, half of them rewarded. Its tensors are real."""
    rows, length = work.rows, work.length
    ids = torch.arange(rows, dtype=torch.int64)
    tokens = (ids % vocabulary)[:, None].repeat(1, length)
    columns = torch.arange(length)[None].expand(rows, length)
    return TrainBatch(
        input_ids=tokens,
        attention_mask=columns >= 0,
        response_mask=columns >= work.prompt,
        rollout_logprobs=tokens.to(torch.float32),
        rewards=(ids % 2).to(torch.float32),
        token_rewards=None,
        scored=ids >= 0,
        truncated=ids < 0,
        group_ids=torch.zeros_like(ids),
        policy_versions=torch.ones_like(ids),
    )


def _made_real(evals: Any) -> Any:
    """Zeros in place of fake numbers, so that everything computed of them alone is real."""
    zeros = {
        name: torch.zeros(value.shape, dtype=torch.int64).to(value.dtype)
        for name in ("old_logprobs", "ref_logprobs", "values")
        if (value := getattr(evals, name)) is not None
    }
    return replace(evals, **zeros)
