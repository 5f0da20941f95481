"""What train mode switches on reaches the real commands: recomputed activations, adapter dropout."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_runs import RECIPES, metrics_of, tiny
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM, Qwen2MLP
from typer.testing import CliRunner

import reasonrl
from reasonrl.cli.app import app
from reasonrl.errors import RecipeError
from reasonrl.model.critic import enable_gradient_checkpointing
from reasonrl.model.load import load_model
from reasonrl.recipe.schema import ModelConfig
from reasonrl.runs.start import sft

LORA = "model.lora={rank: 4, target_modules: [q_proj, v_proj]}"
RUNS = {
    "ppo, separate critic": ("countdown_ppo", ("critic.kind=separate",)),
    "grpo, LoRA": ("countdown_grpo", (LORA,)),
    "sft": ("countdown_base_sft", ()),
}
SFT = (
    "sft.max_tokens=600",
    "sft.tokens_per_batch=200",
    "model.init=pretrained",
    "evaluation.every=0",
    "evaluation.suites.held_out.problems=2",
    "sampling.max_prompt_tokens=512",
    "sampling.max_completion_tokens=12",
    "optimizer.warmup_steps=0",
    "optimizer.schedule=constant",
)


@contextmanager
def counted_layers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Forward passes of decoder layers with a gradient, and the bytes that they keep for the backward pass."""
    counts = {"forwards": 0, "saved": 0}
    inner = Qwen2MLP.forward  # once a layer; transformers wraps the forward of the layer itself

    def forward(self: Qwen2MLP, *args: object, **kwargs: object) -> object:
        counts["forwards"] += torch.is_grad_enabled()
        return inner(self, *args, **kwargs)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        counts["saved"] += tensor.nbytes
        return tensor

    with (
        monkeypatch.context() as patch,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        patch.setattr(Qwen2MLP, "forward", forward)
        yield counts


def run(name: str, model: Path, run_dir: Path, *more: str) -> None:
    recipe, overrides = RUNS[name]
    if name == "sft":
        sft(RECIPES / f"{recipe}.yaml", [f"model.path={model}", *SFT, *more], run_dir=run_dir)
    else:
        reasonrl.run(RECIPES / f"{recipe}.yaml", tiny(model, *overrides, *more), run_dir=run_dir)


@pytest.mark.parametrize("name", RUNS)
def test_gradient_checkpointing_recomputes_every_layer_and_changes_nothing(
    name: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    for value in ("false", "true"):
        with counted_layers(monkeypatch) as seen[value]:
            run(name, tiny_model, tmp_path / value, f"model.gradient_checkpointing={value}")
    assert seen["true"]["forwards"] == 2 * seen["false"]["forwards"] > 0
    weights = [
        load_file(sorted((tmp_path / value / "checkpoints").iterdir())[-1] / "model.safetensors") for value in seen
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


def test_gradient_checkpointing_keeps_less_for_the_backward_pass(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(ModelConfig(path=str(tiny_model)), str(tiny_model), seed=0, device=torch.device("cpu")).model
    saved = []
    for on in (False, True):
        if on:
            enable_gradient_checkpointing(model)
        with counted_layers(monkeypatch) as seen:
            model.train()(input_ids=torch.arange(64)[None], use_cache=False)
            saved.append(seen["saved"])
    assert saved[1] < saved[0] / 2


@pytest.mark.parametrize("recipe", ["countdown_grpo", "countdown_ppo"])
def test_adapter_dropout_is_refused_where_the_sampler_would_disagree(recipe: str) -> None:
    done = CliRunner().invoke(app, ["recipes", "check", recipe, "model.lora={dropout: 0.1}"])
    assert done.exit_code == 2
    assert "model.lora.dropout must be 0 in reinforcement learning" in done.stderr


def test_adapter_dropout_of_sft_drops_and_resumes_bit_by_bit(tiny_model: Path, tmp_path: Path) -> None:
    def imitate(run_dir: Path, dropout: float, *more: str) -> list[float]:
        lora = f"model.lora={{rank: 4, dropout: {dropout}}}"
        run("sft", tiny_model, run_dir, lora, "optimizer.learning_rate=0.01", *more)
        return [line["loss/sft"] for line in metrics_of(run_dir)]

    before = torch.random.get_rng_state()
    whole = imitate(tmp_path / "whole", 0.5)
    assert torch.equal(before, torch.random.get_rng_state())
    assert whole == imitate(tmp_path / "again", 0.5)
    assert whole[1:] != imitate(tmp_path / "off", 0.0)[1:]
    part = imitate(tmp_path / "part", 0.5, "sft.max_tokens=400")
    assert part == whole[: len(part)]
    reasonrl.resume(tmp_path / "part", ["sft.max_tokens=600"])
    assert [line["loss/sft"] for line in metrics_of(tmp_path / "part")] == whole


def test_a_model_with_noise_in_train_mode_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Qwen2ForCausalLM.forward

    def noisy(self: Qwen2ForCausalLM, *args: object, **kwargs: object) -> object:
        output = inner(self, *args, **kwargs)
        if self.training:
            output.logits = output.logits + 1e-3 * torch.rand_like(output.logits)
        return output

    monkeypatch.setattr(Qwen2ForCausalLM, "forward", noisy)
    with pytest.raises(RecipeError, match="Qwen2ForCausalLM gives different outputs in train and eval mode"):
        load_model(ModelConfig(path=str(tiny_model)), str(tiny_model), seed=0, device=torch.device("cpu"))
