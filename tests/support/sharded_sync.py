"""A sharded policy whose weights go to a vLLM server that a test scripts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from support.tiny_policies import context_of, load_tiny
from torch.distributed.tensor import DTensor

from reasonrl import SamplingParams
from reasonrl.model.export import iter_hf_weights
from reasonrl.model.sharding import shard_policy
from reasonrl_vllm.config import VLLMConfig
from reasonrl_vllm.server import ServerEngine
from reasonrl_vllm.server_checks import ServerFacts


def send_shards(url: str, model: Path, folder: Path) -> None:
    """On each process: send the weights in bfloat16, and note what was gathered."""
    state = PartialState(cpu=True)
    loaded = load_tiny(model)
    context = context_of(loaded, SamplingParams(), model)
    policy = context.policy
    shard_policy(policy, state.device, torch.float32)
    facts = ServerFacts(
        max_model_len=64, max_num_seqs=8, dtype=torch.bfloat16, device="cpu", is_untied=False, transfer="folder"
    )
    config = VLLMConfig(mode="server", url=url, timeout_s=30, sync_dir=str(folder))
    engine = ServerEngine(config, context, [facts])
    gathered = watch_gathering()
    try:
        engine.load_weights(iter_hf_weights(policy, engine.weights_dtype), 1)
    finally:
        engine.close()
    (folder / f"gathered-{os.environ['RANK']}.json").write_text(json.dumps(gathered))


def watch_gathering() -> list[tuple[str, int]]:
    """Precision and size of each tensor that becomes whole on this process."""
    seen: list[tuple[str, int]] = []
    whole = DTensor.full_tensor

    def watched(self: Any, **options: Any) -> torch.Tensor:
        seen.append((str(self.dtype), self.numel()))
        return whole(self, **options)

    DTensor.full_tensor = watched  # type: ignore[method-assign]
    return seen
