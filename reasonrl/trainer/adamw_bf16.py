"""AdamW with both moments in bfloat16: 4 bytes of state per parameter instead of 8. Weights stay in float32."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from reasonrl.functional.randomness import derive_seed

MOMENTS = ("exp_avg", "exp_avg_sq")
CHUNK = 1 << 22
"""Values updated at a time: the temporaries are in float32."""


class AdamWBf16(Optimizer):
    """torch's AdamW up to the rounding of its moments.

    With beta2 = 0.999 the second moment changes by at most a thousandth of the new value per step, less than half a
    unit in the last place of bfloat16, so rounding to nearest would freeze it. Stochastic rounding is right on average.
    Its random bits depend on the step and the parameter alone: equal on all ranks, and after a resume.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step."""
        assert closure is None
        everything = ((group, parameter) for group in self.param_groups for parameter in group["params"])
        for position, (group, parameter) in enumerate(everything):
            if parameter.grad is not None:
                self._update(parameter, group, position)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state. torch casts it to the parameters' type, so cast it back: nothing is lost either way."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state.update({key: state[key].to(torch.bfloat16) for key in MOMENTS})

    def _update(self, parameter: Tensor, group: dict[str, Any], position: int) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state.update({key: torch.zeros_like(parameter, dtype=torch.bfloat16) for key in MOMENTS})
        state["step"] += 1
        step = int(state["step"])
        assert parameter.grad is not None
        wholes = [_local(tensor) for tensor in (parameter, parameter.grad, *(state[key] for key in MOMENTS))]
        generator = torch.Generator(wholes[0].device).manual_seed(derive_seed("adamw_bf16", step, position) >> 1)
        for parts in zip(*map(_chunks, wholes), strict=True):
            _update_chunk(*parts, group=group, step=step, generator=generator)


def _update_chunk(
    weight: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    *,
    group: dict[str, Any],
    step: int,
    generator: torch.Generator,
) -> None:
    (beta1, beta2), rate = group["betas"], group["lr"]
    first = mean.float().lerp_(gradient.float(), 1 - beta1)
    second = square.float().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    mean.copy_(round_stochastically(first, generator))
    square.copy_(round_stochastically(second, generator))
    denominator = second.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
    weight.mul_(1 - rate * group["weight_decay"]).addcdiv_(first, denominator, value=-rate / (1 - beta1**step))


def round_stochastically(values: Tensor, generator: torch.Generator) -> Tensor:
    """Round float32 to a neighbor in bfloat16, the nearer one with the higher probability: exact on average."""
    bits = values.view(torch.int32)
    noise = torch.randint(1 << 16, bits.shape, dtype=torch.int32, device=bits.device, generator=generator)
    return (noise.add_(bits) & -(1 << 16)).view(torch.float32).bfloat16()


def _local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that FSDP shards."""
    to_local = getattr(tensor, "to_local", None)
    return to_local() if to_local else tensor


def _chunks(tensor: Tensor) -> Iterator[Tensor]:
    if tensor.ndim == 0 or tensor.numel() <= CHUNK:
        return iter((tensor,))
    return iter(tensor.split(max(1, CHUNK * tensor.shape[0] // tensor.numel())))
