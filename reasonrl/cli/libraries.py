"""Say in one line that a library does not work here, such as for a variable of the environment that it reads."""

import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence

from reasonrl.errors import describe, is_out_of_memory

PREFIXES = ("ACCELERATE_", "CUDA_", "HF_", "NCCL_", "PYTORCH_", "TORCH", "TRANSFORMERS_", "TRITON_", "VLLM_")
"""Variables that the libraries read."""
SHORTEST = 3
"""A shorter value is found in any text."""
COMMON = ("auto", "debug", "error", "false", "info", "none", "true", "warning", "yes")
"""Values that a text about something else holds, too."""


def is_panic(error: BaseException) -> bool:
    """Whether code in Rust, such as a tokenizer's, has panicked. Its error is not an ``Exception``."""
    return type(error).__name__ == "PanicException" and type(error).__module__.startswith("pyo3")


def explain_library(error: BaseException, environ: Mapping[str, str] = os.environ) -> tuple[str, int] | None:
    """The line and the exit code for an error of a library that cannot be imported, or refuses a variable.

    None for any other error, which is our own mistake.
    """
    if is_panic(error):
        return f"a library in Rust has panicked: {describe(error)}; check memory limits and the number of processes", 1
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not modules or _is_ours(modules[-1]):
        return None
    library = next(_imported(error), "")
    may_refuse = library or isinstance(error, ImportError | ValueError)
    blamed = [f"{name}={environ[name]!r}" for name in _named(error, environ)] if may_refuse else []
    if blamed:
        where = library or _raised_in(modules)
        return f"{where}: {describe(error)}; correct or unset {', '.join(blamed)} in the environment", 2
    if not library:
        return None
    return (
        f"cannot import {library}: {describe(error)}; reinstall it, and check memory limits and the environment "
        "variables that it reads"
    ), 1


def _raised_in(modules: Sequence[str]) -> str:
    """The innermost package of a traceback that does not come with Python."""
    packages = [module.partition(".")[0] for module in modules]
    return next((name for name in reversed(packages) if name not in sys.stdlib_module_names), packages[-1])


def _imported(error: BaseException) -> Iterator[str]:
    """The libraries that were being imported, outermost first."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if frame.f_code.co_name == "<module>" and module != "__main__" and not _is_ours(module):
            yield module.partition(".")[0]


def _is_ours(module: str) -> bool:
    return module.startswith("reasonrl")


def _named(error: BaseException, environ: Mapping[str, str]) -> list[str]:
    """The variables that the error's text names, or whose value it quotes; ``NAME=value`` in it is only advice."""
    text = describe(error).casefold()
    if is_out_of_memory(error) or "cuda error" in text:
        return []
    ours = {name: value.casefold() for name, value in environ.items() if name.startswith(PREFIXES)}
    quoted = [
        name
        for name, value in ours.items()
        if len(value) >= SHORTEST and value not in COMMON and _has_word(text, value, after=r"(?!\w)")
    ]
    return [name for name in ours if _has_word(text, name.casefold(), after=r"(?!\w|\s*=)")] or quoted


def _has_word(text: str, word: str, *, after: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}{after}", text) is not None
