"""``model.attention: flash_attention_2`` without a GPU: a kernel that refuses what FlashAttention refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.resume_runs import go, resumable_recipe
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.flash_attention import get_target_dtype
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from reasonrl.errors import RecipeError

FLASH = "model.attention=flash_attention_2"
SECTIONS: dict[str, Any] = {
    "algorithm": {"name": "grpo", "kl": {"coef": 0.1}},
    "critic": None,
    "trainer": {"steps": 1, "prompts_per_step": 4},
    "checkpoint": {"every": 0},
}


def kernel_dtype(query: Tensor, module: Any) -> torch.dtype:
    """As transformers chooses it, whose older versions ask for the autocast of CUDA by name."""
    if query.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return get_target_dtype(query, module) or query.dtype


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Types that the kernel was given."""
    seen: list[torch.dtype] = []

    def flash(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **given: Any) -> Any:
        seen.append(kernel_dtype(query, module))
        if seen[-1] not in (torch.float16, torch.bfloat16):
            raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
        mask = None
        if attention_mask is not None:
            rows, columns = query.shape[2], key.shape[2]
            causal = torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows)
            mask = causal & attention_mask[:, None, None, :columns].bool()
        return sdpa_attention_forward(module, query, key, value, mask, **given)

    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_attention_2", flash)
    monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", lambda *_, **__: True)
    monkeypatch.setattr("transformers.modeling_utils.lazy_import_flash_attention", lambda *_, **__: None)
    monkeypatch.setattr("transformers.utils.import_utils.is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr("transformers.modeling_utils.is_flash_attn_2_available", lambda: True, raising=False)
    return seen


def test_a_run_gives_the_kernel_16_bits_only(calls: list[torch.dtype], tiny_model: Path, tmp_path: Path) -> None:
    recipe = resumable_recipe(tmp_path, tiny_model, **SECTIONS)
    assert go(recipe, tmp_path / "run", FLASH, "model.dtype=bfloat16").outcome == "completed"
    assert set(calls) == {torch.bfloat16}


def test_float32_is_refused_before_the_run(calls: list[torch.dtype], tiny_model: Path, tmp_path: Path) -> None:
    recipe = resumable_recipe(tmp_path, tiny_model, **SECTIONS)
    with pytest.raises(RecipeError, match=r"flash_attention_2 computes in 16 bits, but model.dtype is float32"):
        go(recipe, tmp_path / "run", FLASH)
    assert not (tmp_path / "run").exists()
