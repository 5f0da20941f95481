"""8-bit optimizer states and 4-bit base weights, with bitsandbytes: `pip install -e ".[low-memory]"`."""

import json
from pathlib import Path

import pytest
import torch
from support.savers import Subject, same, write_model
from support.small_recipes import cli, recipe, summary_of
from support.tiny_policies import load_tiny
from torch import Tensor, nn

from reasonrl.contracts.models import base_model
from reasonrl.model.critic import build_critic
from reasonrl.model.export import iter_hf_weights
from reasonrl.model.policy import PolicyModule
from reasonrl.recipe.schema import LoraConfig
from reasonrl.rundir.checkpoints import find_newest_valid
from reasonrl.testing.models import tiny_model_folder

pytestmark = pytest.mark.lowmem
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def test_8_bit_moments_come_back_bit_by_bit(tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "model", hidden=64)
    one, other = (Subject(model, tmp_path / name, optimizer="adamw_8bit") for name in ("one", "other"))
    for seed in range(3):
        one.learn(seed)
    one.save(3)
    folder = find_newest_valid(tmp_path / "one")
    assert folder is not None
    other.load(folder)
    assert same(one.tensors(), other.tensors())
    codes = {name: t for name, t in other.tensors().items() if "/state" in name and t.numel() >= 4096}
    assert len(codes) > 10
    assert {t.dtype for t in codes.values()} == {torch.uint8}
    for subject in (one, other):
        subject.learn(7)
    assert same(one.tensors(), other.tensors())


def test_8_bit_moments_learn_as_adamw_does() -> None:
    from reasonrl.trainer.adamw_8bit import AdamW8bit

    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(64, 64, generator=generator), torch.randint(5, (64,), generator=generator)
    curves = []
    for kind in (torch.optim.AdamW, AdamW8bit):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 5))
        optimizer = kind(model.parameters(), lr=0.003, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        curves.append([])
        for _ in range(40):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            curves[-1].append(loss.item())
    assert curves[0][-1] < 0.1 * curves[0][0]
    assert curves[1] == pytest.approx(curves[0], rel=0.1, abs=0.02)


def test_a_run_with_8_bit_moments_resumes_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "model", hidden=64)
    path = recipe(tmp_path, model, optimizer={"name": "adamw_8bit"})
    ends = []
    for folder, steps in (("whole", (2,)), ("parts", (1, 2))):
        run = tmp_path / folder
        for first, total in enumerate(steps):
            command = ("resume", run) if first else ("train", path, "--run-dir", run)
            done = cli(*command, f"trainer.steps={total}")
            assert done.exit_code == 0, done.output
        ends.append((run / "checkpoints" / "step_000002" / "optimizer.safetensors").read_bytes())
    assert ends[0] == ends[1]


def learn(policy: PolicyModule) -> list[Tensor]:
    """Log-probabilities before and after one step of the adapters, and the gradients of that step."""
    ids = torch.randint(0, 256, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids, dtype=torch.bool)
    found = []
    for _ in range(2):
        logprobs = policy(ids, mask, mask).logprobs
        logprobs.sum().backward()
        trained, _ = policy.parameter_groups()
        found += [logprobs.detach(), *(p.grad.clone() for p in trained)]
        with torch.no_grad():
            for parameter in trained:
                parameter -= 0.1 * parameter.grad.sign()
                parameter.grad = None
    return found


@pytest.mark.parametrize("checkpointing", [False, True])
def test_qlora_is_lora_on_the_dequantized_base(tmp_path: Path, checkpointing: bool) -> None:
    folder = tiny_model_folder(tmp_path / "model", hidden=64, tie=False)
    low = load_tiny(folder, lora=LoraConfig(rank=2, quantization="nf4"), gradient_checkpointing=checkpointing)
    policy = PolicyModule(low.model, path=low.logits_path).train()
    start, written = dict(iter_hf_weights(policy)), tmp_path / "dequantized"
    write_model(policy, low.tokenizer, written)
    plain = PolicyModule(load_tiny(written, lora=LoraConfig(rank=2)).model)
    layers = [name for name in start if name.endswith("proj.weight")]
    original = load_tiny(folder).model.state_dict()
    worst = max(float((start[name] - original[name]).abs().max() / original[name].abs().max()) for name in layers)
    assert 0.01 < worst < 0.2
    for mine, expected in zip(learn(policy), learn(plain), strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-4)
    for name, tensor in dict(iter_hf_weights(policy)).items():
        torch.testing.assert_close(tensor, dict(iter_hf_weights(plain))[name], atol=1e-6, rtol=1e-5)
    assert sum(map(stored, policy.modules())) < 0.6 * sum(start[name].numel() for name in layers)


def stored(module: nn.Module) -> int:
    """Bytes of a quantized layer's weight with its scales."""
    state = getattr(getattr(module, "weight", None), "quant_state", None)
    if state is None or hasattr(module, "base_layer"):
        return 0
    return module.weight.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes


def test_a_critic_of_adapters_shares_the_quantized_weights(tmp_path: Path) -> None:
    low = load_tiny(tiny_model_folder(tmp_path / "model", hidden=64), lora=LoraConfig(rank=2, quantization="nf4"))
    policy = PolicyModule(low.model, build_critic("adapter", low.model), path=low.logits_path)
    trunks = (base_model(low.model).base_model.modules(), policy.critic.decoder.modules())
    pairs = [pair for pair in zip(*trunks, strict=True) if stored(pair[0])]
    assert len(pairs) == 14
    assert all(one.weight is other.weight and one.quant_state is other.quant_state for one, other in pairs)


def test_a_qlora_run_resumes_and_its_model_needs_no_bitsandbytes(tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "model", hidden=64)
    path = recipe(tmp_path, model, evaluation={"every": 0, "suites": {"held_out": {"problems": 3, "temperature": 0.0}}})
    ends = []
    for folder, steps in (("whole", (2,)), ("parts", (1, 2))):
        run = tmp_path / folder
        for first, total in enumerate(steps):
            command = ("resume", run) if first else ("train", path, "--run-dir", run)
            done = cli(*command, f"trainer.steps={total}", *([] if first else ["model.lora={quantization: nf4}"]))
            assert done.exit_code == 0, done.output
        end = run / "checkpoints" / "step_000002"
        ends.append([(end / file).read_bytes() for file in ("model.safetensors", "trainable.safetensors")])
    assert ends[0] == ends[1]
    assert "quantization" not in json.loads((end / "config.json").read_text())
    done = cli("eval", end, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == summary_of(run)["eval"]["last"]["suites"]


SHIPPED = {
    "qwen2.5/0.5b_ppo": "qwen2",
    "qwen2.5/3b_ppo": "qwen2",
    "qwen3/0.6b_ppo": "qwen3",
    "qwen3/4b_grpo": "qwen3",
    "qwen3/8b_grpo": "qwen3",
}
"""Recipes that need bitsandbytes -> architecture of the model."""


def test_every_shipped_recipe_that_needs_bitsandbytes_is_listed() -> None:
    found = {
        path.relative_to(RECIPES).with_suffix("").as_posix()
        for path in RECIPES.rglob("*.yaml")
        if "bitsandbytes" in " ".join(path.read_text(encoding="utf-8").split())
    }
    assert found == SHIPPED.keys()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_trains_on_a_small_model(name: str, tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "model", architecture=SHIPPED[name], hidden=64)
    small = [
        "trainer.steps=2",
        "trainer.prompts_per_step=4",
        "trainer.minibatches=2",
        "sampling.max_completion_tokens=8",
    ]
    longer = ["sampling.max_prompt_tokens=1536", "rollout_backend={name: hf}", "evaluation.suites.held_out.problems=2"]
    done = cli("train", RECIPES / f"{name}.yaml", "--run-dir", tmp_path / "run", f"model.path={model}", *small, *longer)
    assert done.exit_code == 0, done.output
    assert summary_of(tmp_path / "run")["steps"] == 2
