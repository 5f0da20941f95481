"""A step's floating-point operations: those that its results need, and those that were executed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from reasonrl.contracts.data import Completion, ScoredGroup
from reasonrl.model.flops import Amount, Flops, Network, causal_pairs, networks
from reasonrl.model.packing import KEYWORD
from reasonrl.model.policy import PolicyModule
from reasonrl.trainer.peak import peak_flops
from reasonrl.trainer.ranks import Ranks


@dataclass(slots=True)
class SamplingWork:
    """What the rollout backend says it has computed. ``amount`` is None if it says nothing."""

    amount: Amount | None = None

    def computed(self, tokens: int, scored: int, pairs: float) -> None:
        """What a backend gets as ``RolloutContext.on_computed``."""
        self.amount = (self.amount or Amount()) + Amount(tokens, scored, pairs)

    def take(self) -> Amount | None:
        """What was computed since the last call."""
        amount, self.amount = self.amount, None
        return amount


@dataclass(frozen=True, slots=True)
class RowShape:
    """A row of a batch: its prompt (rows of one group share it), its tokens, and how many of them are scored."""

    group: int
    prompt: int
    total: int
    scored: int


def shapes_of(groups: Sequence[ScoredGroup]) -> list[RowShape]:
    """Rows in the order of the batch made of ``groups``."""
    return [
        _shape(number, len(scored.group.request.prompt_ids), completion)
        for number, scored in enumerate(groups)
        for completion in scored.group.completions
    ]


def _shape(group: int, prompt: int, completion: Completion) -> RowShape:
    length, mask = len(completion.token_ids), completion.sampled_mask
    return RowShape(group, prompt, prompt + length, length if mask is None else sum(mask))


def least_work(rows: Sequence[RowShape]) -> Amount:
    """The prompt of each group once, every other token once: except the last, whose successor nobody asks for."""
    prompts = {row.group: row.prompt for row in rows}
    behind = [(max(row.total - row.prompt - 1, 0), row.prompt) for row in rows]
    return Amount(
        tokens=sum(prompts.values()) + sum(new for new, _ in behind),
        scored=sum(row.scored for row in rows),
        pairs=sum(map(causal_pairs, prompts.values())) + sum(causal_pairs(new, past) for new, past in behind),
    )


@dataclass(slots=True)
class Work:
    """Counts on one rank; ``metrics`` adds the ranks up.

    ``useful`` is the least that the results need: sampling, the reference's and a separate critic's forward pass, and
    forward and backward of the rows that are trained on, each with a prompt's tokens once per group. ``executed``
    holds what was done instead: padding, repeated prompts, recomputed activations, log-probabilities before the update.
    """

    policy: PolicyModule
    sampling: SamplingWork
    peak: float
    reference: PolicyModule | None = None
    useful: float = 0.0
    executed: float = 0.0
    rows: Sequence[RowShape] = ()
    """Of the batch that is trained on."""
    _networks: list[Network] = field(default_factory=list)
    _reference: list[Network] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._networks = networks(self.policy)
        self._reference = networks(self.reference) if self.reference is not None else []

    def start(self) -> None:
        """Forget the last step."""
        self.useful = self.executed = 0.0
        self.rows = ()

    def sampled(self, groups: Sequence[ScoredGroup], amount: Amount | None) -> None:
        """Add sampling. ``amount``: what the backend says it has computed; None counts as the least possible."""
        least, flops = least_work(shapes_of(groups)), self._networks[0].flops
        self.useful += flops.forward(least)
        self.executed += flops.forward(amount or least)

    def evaluated(self, *, reference: bool, critic: bool) -> None:
        """Add the passes over the whole batch that the algorithm needs before the update.

        A shared critic's values and the policy's log-probabilities were within reach while sampling.
        """
        least = least_work(self.rows)
        if reference:
            self.useful += self._networks[0].flops.forward(least, adapters=False)
        if critic and self._networks[1].trunk is not None:
            self.useful += self._networks[1].flops.forward(least)

    def trained(self, rows: Sequence[int]) -> None:
        """Add an optimizer step that needs these rows' gradient."""
        if not self.rows:
            return
        least = least_work([self.rows[row] for row in rows])
        self.useful += sum(n.flops.forward(least) + n.flops.backward(least) for n in self._networks)

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Add every pass of the trainer's own networks to ``executed``."""
        with ExitStack() as stack:
            for network in [*self._networks, *self._reference]:
                for handle in self._hooks(network):
                    stack.callback(handle.remove)
            yield

    def metrics(self, ranks: Ranks, seconds: float) -> dict[str, float]:
        """``perf/*`` of a step that took ``seconds``; left out if nothing was counted."""
        useful, executed, peak = ranks.sums([self.useful, self.executed, self.peak])
        if not useful or not seconds:
            return {}
        return {"perf/mfu": useful / (seconds * peak), "perf/executed_over_useful": executed / useful}

    def _hooks(self, network: Network) -> Iterator[Any]:
        if network.trunk is not None:
            seen = _seen_by_trunk(network.trunk, network.flops, self._add)
            yield network.trunk.register_forward_pre_hook(seen, with_kwargs=True)
        if network.head is not None:
            yield network.head.register_forward_pre_hook(_seen_by_head(network.flops, self._add))

    def _add(self, flops: float) -> None:
        self.executed += flops


def _seen_by_trunk(trunk: nn.Module, flops: Flops, add: Callable[[float], None]) -> Callable[..., None]:
    adapter: Any = next((m for m in trunk.modules() if isinstance(_disabled(m), bool)), None)
    # The new name in transformers; the old one warns there.
    recomputes = getattr(trunk, "is_activation_checkpointing", None)
    if recomputes is None:
        recomputes = getattr(trunk, "is_gradient_checkpointing", False)

    def seen(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs.get("input_ids")
        rows, new = (ids if ids is not None else kwargs["inputs_embeds"]).shape[:2]
        cache = kwargs.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        layout = kwargs.get(KEYWORD)
        pairs = layout.pairs if layout is not None else rows * causal_pairs(new, past)
        amount = Amount(tokens=rows * new, pairs=pairs)
        once = flops.forward(amount, adapters=adapter is None or not _disabled(adapter))
        add(once)
        if torch.is_grad_enabled():
            add(flops.backward(amount) + once * bool(recomputes and trunk.training))

    return seen


def _disabled(module: nn.Module) -> Any:
    """A bool for an adapted layer of peft; a method of the same name for models."""
    return getattr(module, "disable_adapters", None)


def _seen_by_head(flops: Flops, add: Callable[[float], None]) -> Callable[..., None]:
    def seen(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        amount = Amount(scored=args[0].numel() // args[0].shape[-1])
        is_repeated = torch._C._current_graph_task_id() != -1  # a checkpoint's, within the backward pass
        gradient = torch.is_grad_enabled() and not is_repeated
        add(flops.forward(amount) + (flops.backward(amount) if gradient else 0.0))

    return seen


def work_of(
    policy: PolicyModule, sampling: SamplingWork, device: torch.device, precision: str, reference: nn.Module | None
) -> Work:
    """A run's counters, with the speed of its device."""
    frozen = reference if isinstance(reference, PolicyModule) else None
    return Work(policy, sampling, peak_flops(device, getattr(torch, precision)), frozen)
