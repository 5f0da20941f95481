"""Compare evaluations: of runs, or saved by ``reasonrl eval --output``. Torch-free."""

from reasonrl.analysis.compare.comparison import compare

__all__ = ["compare"]
