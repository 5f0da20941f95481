"""What the command line can ask for. Imports nothing, so that ``--help`` stays fast."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Precision = Literal["float32", "bfloat16", "float16"]
Format = Literal["merged", "adapter", "gguf"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is exported.

    ``to``: None = ``export/`` of the run, or nowhere if it is pushed; ``dtype``: None = the run's;
    ``strict``: refuse if the newest checkpoint is damaged.
    """

    run: Path
    to: Path | None = None
    format: Format = "merged"
    dtype: Precision | None = None
    step: int | None = None
    push: str | None = None
    private: bool = False
    license: str | None = None
    strict: bool = False
