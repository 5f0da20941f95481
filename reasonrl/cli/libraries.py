"""Say in one line that a library does not work here, such as for a variable of the environment that it reads."""

import os
import traceback
from collections.abc import Iterator, Mapping

from reasonrl.errors import describe

PREFIXES = ("ACCELERATE_", "CUDA_", "HF_", "NCCL_", "PYTORCH_", "TORCH", "TRANSFORMERS_", "TRITON_", "VLLM_")
"""Variables that the libraries read."""
SHORTEST = 3
"""A shorter value is found in any text."""


def explain_library(error: BaseException, environ: Mapping[str, str] = os.environ) -> tuple[str, int] | None:
    """The line and the exit code for an error of a library that cannot be imported, or refuses a variable.

    None for any other error, which is our own mistake.
    """
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not modules or _is_ours(modules[-1]):
        return None
    library = next(_imported(error), "")
    blamed = [f"{name}={environ[name]!r}" for name in _named(error, environ)]
    if blamed:
        where = library or modules[-1].partition(".")[0]
        return f"{where}: {describe(error)}; correct or unset {', '.join(blamed)} in the environment", 2
    if not library:
        return None
    return (
        f"cannot import {library}: {describe(error)}; install it again, and check limits of memory and the variables "
        "of the environment that it reads"
    ), 1


def _imported(error: BaseException) -> Iterator[str]:
    """The libraries that were being imported, outermost first."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if frame.f_code.co_name == "<module>" and module != "__main__" and not _is_ours(module):
            yield module.partition(".")[0]


def _is_ours(module: str) -> bool:
    return module.startswith("reasonrl")


def _named(error: BaseException, environ: Mapping[str, str]) -> list[str]:
    """The variables that the error's text names, or whose value it quotes."""
    text = describe(error).casefold()
    ours = {name: value for name, value in environ.items() if name.startswith(PREFIXES)}
    quoted = [name for name, value in ours.items() if len(value) >= SHORTEST and value.casefold() in text]
    return [name for name in ours if name.casefold() in text] or quoted
