"""One engine after another in two processes that stay connected. Run by torch's launcher."""

import sys
from pathlib import Path

import torch
from support.tiny_policies import context_of, load_tiny, mixed_requests, teacher_forced

from reasonrl import RolloutContext, SamplingParams
from reasonrl.model.export import iter_hf_weights
from reasonrl.model.policy import PolicyModule
from reasonrl_vllm.backend import VLLMBackend
from reasonrl_vllm.config import VLLMConfig

SAMPLING = SamplingParams(max_completion_tokens=8)


def main(base: Path, out: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    loaded = load_tiny(base)
    context = context_of(loaded, SAMPLING, base)
    gaps = [gap(loaded.model, context, spread, rank) for spread in (2, 1, 2)]
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    (out / f"{rank}.txt").write_text(" ".join(str(value) for value in (*gaps, total.item())))
    torch.distributed.destroy_process_group()


def gap(model: torch.nn.Module, context: RolloutContext, spread: int, rank: int) -> float:
    """Largest |trainer - sampler|; the second process has one request, then none."""
    options = VLLMConfig(kv_cache_gib=0.1, tensor_parallel_size=spread)
    with VLLMBackend(options, context) as backend:
        backend.sync_weights(iter_hf_weights(PolicyModule(model)), policy_version=0)
        groups = backend.generate(mixed_requests(SAMPLING)[rank * 4 :])
        assert len(groups) == (1 if rank else 5)
        assert len(backend.generate([] if rank else mixed_requests(SAMPLING))) == (0 if rank else 5)
    pairs = [(group.request.prompt_ids, c) for group in groups for c in group.completions]
    return max(
        float((teacher_forced(model, p, c.token_ids, 1.0) - torch.tensor(c.logprobs)).abs().max()) for p, c in pairs
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
