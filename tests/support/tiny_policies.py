"""Tiny policies and requests for tests of the model and rollout parts."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from reasonrl import Problem, RolloutContext, RolloutRequest, SamplingParams
from reasonrl.model.load import LoadedModel, load_model
from reasonrl.model.policy import PolicyModule
from reasonrl.recipe.schema import ModelConfig
from reasonrl.testing.models import byte_tokenizer
from reasonrl_hf.backend import HFBackend
from reasonrl_hf.config import HFConfig

CPU = torch.device("cpu")


def experts_folder(path: Path) -> Path:
    """A random model with experts, which transformers stacks in memory and saves one by one."""
    shape = {"vocab_size": 258, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"eos_token_id": 256, "pad_token_id": 257, "intermediate_size": 64, "num_key_value_heads": 2}
    config = AutoConfig.for_model("mixtral", **shape, **special, num_local_experts=4)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        AutoModelForCausalLM.from_config(config).save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


def load_tiny(folder: Path, seed: int = 0, **options: object) -> LoadedModel:
    """``load_model`` with the recipe's defaults."""
    return load_model(ModelConfig(path=str(folder), **options), str(folder), seed=seed, device=CPU)


def context_of(loaded: LoadedModel, sampling: SamplingParams, path: Path | str = "tiny") -> RolloutContext:
    """What a backend gets for a policy of its own."""
    return RolloutContext(
        policy=PolicyModule(loaded.model),
        tokenizer=loaded.tokenizer,
        sampling=sampling,
        device=CPU,
        model_path=str(path),
        max_prompt_tokens=64,
    )


def backend_for(loaded: LoadedModel, sampling: SamplingParams, **options: object) -> HFBackend:
    """A backend on a policy of its own."""
    return HFBackend(HFConfig(**options), context_of(loaded, sampling))


def request(prompt: tuple[int, ...], sampling: SamplingParams, *, group_size: int = 1, seed: int = 0) -> RolloutRequest:
    """A request for a prompt given in tokens."""
    problem = Problem(id=f"seed-{seed}", prompt="")
    return RolloutRequest(problem=problem, prompt_ids=prompt, group_size=group_size, sampling=sampling, seed=seed)


def mixed_requests(sampling: SamplingParams, *, group_size: int = 3, count: int = 5) -> list[RolloutRequest]:
    """Prompts of different lengths, two of them equal."""
    prompts = [tuple(range(40, 43 + 4 * i)) for i in range(count)]
    prompts[-1] = prompts[0]
    return [request(p, sampling, group_size=group_size, seed=101 * i) for i, p in enumerate(prompts)]


def end_often(loaded: LoadedModel) -> LoadedModel:
    """Let 24 of the 258 tokens end a completion, so that rows finish at many different steps."""
    loaded.model.generation_config.eos_token_id = list(range(24))
    return loaded


def teacher_forced(
    model: nn.Module, prompt: tuple[int, ...], completion: tuple[int, ...], temperature: float
) -> Tensor:
    """ln p of every completion token ``[L]`` from one plain forward pass over one unpadded row."""
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        logits = model(ids).logits[0, len(prompt) - 1 : -1]
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return torch.log_softmax(wide / temperature, dim=-1).gather(-1, ids[0, len(prompt) :, None])[:, 0]
