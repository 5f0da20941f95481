"""Scripted rollouts through the real update: what the trainer does with given completions, and nothing else."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from accelerate import Accelerator

from reasonrl import (
    AlgorithmContext,
    Completion,
    FinishReason,
    Needs,
    Problem,
    RewardOutput,
    RolloutGroup,
    RolloutRequest,
    SamplingParams,
    ScoredGroup,
)
from reasonrl.contracts.batch import StepContext, TrainBatch, UpdateOutput
from reasonrl.data.collate import collate
from reasonrl.model.critic import build_critic
from reasonrl.model.load import make_trainable
from reasonrl.model.lora import is_lora
from reasonrl.model.policy import PolicyModule
from reasonrl.model.reference import build_reference
from reasonrl.model.sharding import shard_policy
from reasonrl.recipe.schema import ModelConfig, RolloutCorrectionConfig
from reasonrl.testing.models import tiny_config
from reasonrl.trainer.algorithm import AlgorithmCalls
from reasonrl.trainer.policy_eval import evaluate_policy
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.update import Updater, UpdateSettings
from reasonrl_critic_free.algorithm import GRPO
from reasonrl_critic_free.config import GRPOConfig
from reasonrl_critic_free.config import KLConfig as GroupKL
from reasonrl_critic_free.plugin import reasonrl_algorithms as grpo_specs
from reasonrl_ppo.algorithm import PPO
from reasonrl_ppo.config import KLConfig, PPOConfig
from reasonrl_ppo.plugin import reasonrl_algorithms as ppo_specs

PAD = 257
PLAIN = ModelConfig(path="tiny")


@dataclass(frozen=True)
class Case:
    """An algorithm with its config; ``kl`` brings in a reference."""

    name: str
    config: Any

    @property
    def needs(self) -> Needs:
        spec = next(spec for spec in (*ppo_specs(), *grpo_specs()) if spec.name == self.name)
        return spec.needs(self.config)

    def algorithm(self, group_size: int) -> Any:
        context = AlgorithmContext(sampling=SamplingParams(), group_size=group_size, total_steps=10)
        return PPO(self.config, context) if self.name == "ppo" else GRPO(self.config, context)


CASES = {
    "ppo": Case("ppo", PPOConfig(entropy_coef=0.01)),
    "ppo_kl_reward": Case("ppo", PPOConfig(kl=KLConfig(coef=0.1, estimator="k1", placement="reward"))),
    "ppo_kl_loss": Case("ppo", PPOConfig(lam=0.9, kl=KLConfig(coef=0.1, estimator="k3", placement="loss"))),
    "grpo": Case("grpo", GRPOConfig()),
    "grpo_sequence_kl": Case("grpo", GRPOConfig(normalization="sequence", kl=GroupKL(coef=0.1))),
}


def scripted_groups(prompts: int, group_size: int, *, seed: int = 0, unscored: bool = True) -> list[ScoredGroup]:
    """Random prompts, completions and rewards; one completion unscored, one empty-handed group."""
    rng = random.Random(seed)
    groups = []
    for p in range(prompts):
        request = RolloutRequest(
            problem=Problem(id=f"p{p}", prompt="x"),
            prompt_ids=tuple(rng.randrange(256) for _ in range(rng.randint(1, 6))),
            group_size=group_size,
            sampling=SamplingParams(),
            seed=p,
        )
        completions, rewards = [], []
        for _ in range(group_size):
            ids = tuple(rng.randrange(256) for _ in range(rng.randint(1, 9)))
            completions.append(
                Completion(
                    token_ids=ids,
                    logprobs=tuple(-rng.random() for _ in ids),
                    text="",
                    finish_reason=rng.choice([FinishReason.EOS, FinishReason.LENGTH]),
                )
            )
            value = rng.choice([0.0, 0.1, 1.0])
            rewards.append(RewardOutput(total=value, components={"r": value}, correct=value == 1.0))
        groups.append(
            ScoredGroup(group=RolloutGroup(request=request, completions=tuple(completions)), rewards=tuple(rewards))
        )
    if unscored:
        first = groups[0].rewards
        gone = replace(first[0], total=None, components={"r": None})
        groups[0] = replace(groups[0], rewards=(gone, *first[1:]))
    return groups


def tiny_policy(
    case: Case,
    *,
    dtype: torch.dtype = torch.float64,
    critic: Literal["shared", "separate"] = "shared",
    model: ModelConfig = PLAIN,
    seed: int = 3,
) -> PolicyModule:
    """A two-layer model, set up as ``model`` says, and, for PPO, a critic that is not zero."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = tiny_config("qwen2", hidden=16, heads=2, kv_heads=1, vocab_size=258)
        network = make_trainable(AutoModelForCausalLM.from_config(config).to(torch.float64), model, "tiny", seed=seed)
        module = build_critic(critic, network).to(torch.float64) if case.needs.critic else None
        policy = PolicyModule(network, module)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return policy.to(dtype).eval()


@dataclass(frozen=True)
class Outcome:
    parameters: dict[str, torch.Tensor]
    metrics: dict[str, float]
    output: UpdateOutput


def run_update(  # noqa: PLR0913 - every argument is a thing that must not matter, or does
    case: Case,
    policy: PolicyModule,
    groups: list[ScoredGroup],
    *,
    group_size: int,
    max_tokens: int = 10_000,
    minibatches: int = 1,
    update_epochs: int = 1,
    learning_rate: float = 0.1,
    batch: TrainBatch | None = None,
    correction: RolloutCorrectionConfig | None = None,
    see: Any = None,
    sharded: bool = False,
) -> Outcome:
    """One whole update by plain gradient descent: the parameters then tell the gradient.

    ``sharded``: over the processes of the run, instead of a copy on each.
    """
    accelerator = Accelerator(cpu=True)
    ranks = Ranks(accelerator)
    batch = batch or collate(groups, pad_id=PAD, device=torch.device("cpu"))
    wrapped, optimizer, reference = _prepare(case, policy, accelerator, learning_rate, sharded=sharded)
    algorithm = AlgorithmCalls(case.algorithm(group_size), "algorithm 'scripted'")
    ctx = StepContext(step=1, total_steps=10, policy_version=0, reduce=ranks.reduce)
    evals = evaluate_policy(
        wrapped,
        reference,
        batch,
        needs=case.needs,
        used_once=minibatches == 1 and update_epochs == 1,
        temperature=1.0,
        max_tokens=max_tokens,
        ranks=ranks,
    )
    updater = Updater(
        policy=wrapped,
        optimizer=optimizer,
        algorithm=algorithm,
        needs=case.needs,
        settings=UpdateSettings(
            minibatches=minibatches,
            update_epochs=update_epochs,
            max_tokens_per_microbatch=max_tokens,
            max_grad_norm=1e9,
            temperature=1.0,
            correction=correction,
        ),
        accelerator=accelerator,
        ranks=ranks,
    )
    updater.see = see
    output = updater.update(batch, evals, algorithm.compute_advantages(batch, evals, ctx), ctx)
    whole = accelerator.unwrap_model(wrapped).named_parameters()
    parameters = {n: getattr(p, "full_tensor", p.clone)().detach() for n, p in whole}
    return Outcome(parameters, dict(output.metrics), output)


def _prepare(
    case: Case, policy: PolicyModule, accelerator: Accelerator, learning_rate: float, *, sharded: bool
) -> tuple[Any, Any, Any]:
    """The policy as the update calls it, its optimizer, and the reference if the case needs one."""
    has_own = case.needs.reference and not is_lora(policy.model)
    reference: Any = PolicyModule(_shifted_copy(policy)) if has_own else None
    for module in (policy, reference) if sharded else ():
        if module is not None:
            shard_policy(module, torch.device("cpu"), torch.float64)
    optimizer = torch.optim.SGD(
        [
            {"params": parameters, "role": role, "lr": learning_rate}
            for role, parameters in zip(("policy", "critic"), policy.parameter_groups(), strict=True)
            if parameters
        ]
    )
    wrapped = accelerator.prepare_model(policy, evaluation_mode=sharded)
    if case.needs.reference and reference is None:
        reference = build_reference(policy, wrapped)
    return wrapped, accelerator.prepare_optimizer(optimizer), reference


def _shifted_copy(policy: PolicyModule) -> torch.nn.Module:
    """A reference that differs from the policy, so that KL terms are not zero."""
    import copy

    model = copy.deepcopy(policy.model).requires_grad_(False)
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.mul_(1.0 + 0.05 * (-1) ** index)
    return model
