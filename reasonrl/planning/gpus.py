"""Known GPUs, with the figures of their vendor's datasheets. Torch-free."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from reasonrl.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Gpu:
    """``gib``: memory as the driver reports it. Dense TFLOPS, without sparsity; 0: it has no bfloat16, or unknown."""

    name: str
    gib: float
    bfloat16: float = 0.0
    float32: float = 0.0
    gb_per_s: float = 0.0
    has_bfloat16: bool = True

    def tflops(self, precision: str) -> float:
        """Peak arithmetic of matrix products in a precision."""
        return self.bfloat16 if precision == "bfloat16" else self.float32


KNOWN = (
    Gpu("T4", 15.0, 0.0, 8.1, 320, has_bfloat16=False),
    Gpu("L4", 22.5, 121, 30.3, 300),
    Gpu("A10", 22.5, 125, 31.2, 600),
    Gpu("RTX 3090", 24.0, 71, 35.6, 936),
    Gpu("RTX 4090", 24.0, 165, 82.6, 1008),
    Gpu("RTX 5090", 31.8, 209, 104.8, 1792),
    Gpu("RTX A6000", 48.0, 155, 38.7, 768),
    Gpu("L40S", 45.0, 362, 91.6, 864),
    Gpu("A100-40", 40.0, 312, 19.5, 1555),
    Gpu("A100-80", 80.0, 312, 19.5, 2039),
    Gpu("H100", 79.6, 989, 67, 3350),
    Gpu("H200", 140.4, 989, 67, 4800),
    Gpu("B200", 179.0, 2250, 80, 8000),
)


def find_gpu(text: str) -> Gpu:
    """A GPU by name, in any spelling (``4090``, ``rtx4090``), or one of ``text`` GiB of which nothing else is known.

    Raises:
        RecipeError: naming the known ones.
    """
    wanted = _plain(text)
    found = [gpu for gpu in KNOWN if wanted in (_plain(gpu.name), _plain(gpu.name).removeprefix("rtx"))]
    if found:
        return found[0]
    size = re.fullmatch(r"([0-9.]+)\s*(gib|gb|g)?", text.strip().lower())
    try:
        gib = float(size[1]) if size else math.nan
    except ValueError:
        gib = math.nan
    if not 0 < gib <= 1000:
        names = ", ".join(gpu.name for gpu in KNOWN)
        raise RecipeError(f"--gpu: expected a memory in GiB such as 24, or one of {names}; got {text!r}")
    return Gpu("a GPU", gib)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower().removeprefix("nvidia"))
