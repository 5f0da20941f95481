"""Dtypes of a run with ``model.dtype: bfloat16``: products in bfloat16, what is learned from in float32."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from support.resume_runs import go, resumable_recipe
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reasonrl.model.policy import PolicyModule
from reasonrl.trainer.algorithm import AlgorithmCalls
from reasonrl.trainer.loop import Trainer
from reasonrl.trainer.update import Updater
from reasonrl_hf.cached import CachedModel

aten = torch.ops.aten
LINEAR = {aten.mm.default, aten.addmm.default}
ATTENTION = {aten._scaled_dot_product_flash_attention_for_cpu.default, aten._scaled_dot_product_attention_math.default}
RUNS: dict[str, dict[str, Any]] = {
    "ppo": {"algorithm": {"name": "ppo", "entropy_coef": 0.01, "kl": {"coef": 0.1}}, "critic": {"kind": "separate"}},
    "grpo, LoRA": {"algorithm": {"name": "grpo", "kl": {"coef": 0.1}}, "critic": None, "lora": {"rank": 4}},
}


class Products(TorchDispatchMode):
    """The dtypes of matrix products, but those with the critic's head, which has one column."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple[str, torch.dtype]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LINEAR | ATTENTION:
            factors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
            if all(1 not in factor.shape for factor in factors):
                self.seen.update(("linear" if func in LINEAR else "attention", factor.dtype) for factor in factors)
        return func(*args, **(kwargs or {}))


class Records:
    """Dtypes by what has them, noted by wrappers around the parts of a run."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.dtypes: dict[str, set[torch.dtype]] = {}
        self.products = Products()

    def note(self, **tensors: Tensor | None) -> None:
        for name, tensor in tensors.items():
            if tensor is not None and tensor.is_floating_point():
                self.dtypes.setdefault(name, set()).add(tensor.dtype)

    def wrap(self, owner: Any, name: str, look: Any) -> None:
        real = getattr(owner, name)

        def wrapper(this: Any, *args: Any, **given: Any) -> Any:
            out = real(this, *args, **given)
            look(this, args, out)
            return out

        self._patch.setattr(owner, name, wrapper)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Records:
    found = Records(monkeypatch)
    note = found.note
    step, apply = Trainer.step, Updater._apply

    def stepped(this: Any, number: int) -> Any:
        with found.products:
            return step(this, number)

    def outputs(_: Any, __: Any, out: Any) -> None:
        note(logprobs=out.logprobs, entropy=out.entropy, values=out.values)

    def cache(_: Any, __: Any, out: Any) -> None:
        for layer in out[1].layers:
            note(keys=layer.keys, cached_values=layer.values)

    def before_step(this: Updater) -> None:
        for group in this.optimizer.param_groups:
            for parameter in group["params"]:
                note(trained=parameter, gradients=parameter.grad)

    def after_update(this: Updater, _: Any, __: Any) -> None:
        for state in this.optimizer.state.values():
            note(**{f"optimizer {key}": value for key, value in state.items() if isinstance(value, Tensor)})

    found.wrap(PolicyModule, "forward", outputs)
    found.wrap(AlgorithmCalls, "compute_loss", lambda _, __, out: note(loss=out.loss))
    found.wrap(AlgorithmCalls, "compute_advantages", lambda _, __, out: note(advantages=out.advantages))
    found.wrap(CachedModel, "prefill", cache)
    found.wrap(Updater, "update", after_update)

    def applied(this: Updater, *args: Any, **given: Any) -> Any:
        before_step(this)
        return apply(this, *args, **given)

    monkeypatch.setattr(Updater, "_apply", applied)
    monkeypatch.setattr(Trainer, "step", stepped)
    return found


@pytest.mark.parametrize("name", RUNS)
def test_products_are_bfloat16_and_the_rest_float32(
    name: str, records: Records, tiny_model: Path, tmp_path: Path
) -> None:
    sections = {
        "trainer": {"steps": 2, "prompts_per_step": 4, "minibatches": 2},
        "evaluation": None,
        "checkpoint": {"every": 0},
        **RUNS[name],
    }
    recipe = resumable_recipe(tmp_path, tiny_model, **sections)
    assert go(recipe, tmp_path / "run", "model.dtype=bfloat16").outcome == "completed"
    of_critic = {"values"} if name == "ppo" else set()
    in_float32 = {"logprobs", "loss", "advantages", "trained", "gradients", "optimizer exp_avg", "optimizer exp_avg_sq"}
    for key in in_float32 | of_critic:
        assert records.dtypes[key] == {torch.float32}, key
    assert records.dtypes["keys"] == records.dtypes["cached_values"] == {torch.bfloat16}
    assert {dtype for _, dtype in records.products.seen} == {torch.bfloat16}
    assert {kind for kind, _ in records.products.seen} == {"linear", "attention"}
