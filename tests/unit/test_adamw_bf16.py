"""AdamW with moments in bfloat16: unbiased rounding, and the steps of torch's AdamW."""

import pytest
import torch
from torch import Tensor, nn

from reasonrl.trainer import adamw_bf16
from reasonrl.trainer.adamw_bf16 import AdamWBf16, round_stochastically

OPTIONS = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}


def test_rounding_is_unbiased_and_gives_neighbors() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(500, generator=generator) * torch.logspace(-20, 20, 500)
    draws = torch.stack([round_stochastically(values, generator).double() for _ in range(400)])
    toward_zero = (values.view(torch.int32) & -(1 << 16)).view(torch.float32)
    unit = (toward_zero.bfloat16().double() * 2**-7).abs()  # at least one in the last place
    assert ((draws - values.double()).abs() <= unit).all()
    assert ((draws.mean(0) - values.double()).abs() <= 5 * unit / 400**0.5).all()
    exact = values.bfloat16().float()
    assert torch.equal(round_stochastically(exact, generator).float(), exact)


def test_a_second_moment_moves_where_rounding_to_nearest_would_freeze_it() -> None:
    weight = nn.Parameter(torch.zeros(1000))
    optimizer = AdamWBf16([weight], **OPTIONS)
    for gradient, steps in ((1.0, 50), (4.0, 150)):
        for _ in range(steps):
            weight.grad = torch.full((1000,), gradient)
            optimizer.step()
    expected = 16 - (16 - (1 - 0.999**50)) * 0.999**150
    assert optimizer.state[weight]["exp_avg_sq"].dtype == torch.bfloat16
    assert float(optimizer.state[weight]["exp_avg_sq"].float().mean()) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("chunk", [1 << 22, 40])
def test_steps_are_adamws_within_the_rounding(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 30 steps, with a matrix whose gradient is laid out the other way, a scalar, and one without gradient."""
    monkeypatch.setattr(adamw_bf16, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(shape, generator=generator) for shape in ((12, 9), (30,), (), (5,))]
    ours, theirs = ([nn.Parameter(t.clone()) for t in start] for _ in range(2))
    optimizers = (AdamWBf16(ours, **OPTIONS), torch.optim.AdamW(theirs, **OPTIONS))
    for _ in range(30):
        gradients = [
            torch.randn(t.T.shape, generator=generator).T if t.ndim == 2 else torch.randn(t.shape, generator=generator)
            for t in start
        ]
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in list(zip(parameters, gradients, strict=True))[:3]:
                parameter.grad = gradient
            optimizer.step()
    for mine, other, first in list(zip(ours, theirs, start, strict=True))[:3]:
        assert (mine - other).abs().max() < 0.02 * (other - first).abs().max()
    assert torch.equal(ours[3], start[3])
    assert not optimizers[0].state.get(ours[3])


def loss_after(optimizer: torch.optim.Optimizer, model: nn.Module, x: Tensor, y: Tensor, steps: int) -> float:
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return loss.item()


def test_it_learns_as_adamw_does() -> None:
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(64, 16, generator=generator), torch.randint(5, (64,), generator=generator)
    losses = []
    for kind in (torch.optim.AdamW, AdamWBf16):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 5))
        losses.append(loss_after(kind(model.parameters(), **OPTIONS), model, x, y, 120))
    assert losses[0] < 0.1
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
