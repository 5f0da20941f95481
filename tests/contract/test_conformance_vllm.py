"""The engine ``vllm`` keeps the contract that ``hf`` keeps."""

from typing import Any, ClassVar

import pytest

from reasonrl.testing import RolloutConformance


@pytest.mark.vllm
class TestVLLM(RolloutConformance):
    spec = "vllm"
    # Heads of 32 are the smallest that it knows.
    shape: ClassVar[dict[str, Any]] = {"hidden": 128, "heads": 4, "kv_heads": 2}
