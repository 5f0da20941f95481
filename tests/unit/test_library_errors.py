"""Which errors of a library are blamed on a variable of the environment, and which keep their traceback."""

from collections.abc import Mapping

import pytest
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.cli.libraries import explain_library

ASSERT = "CUDA error: device-side assert triggered; consider passing CUDA_LAUNCH_BLOCKING=1"
MEMORY = "CUDA out of memory; see documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF"


class OutOfMemoryError(RuntimeError):
    """torch's, by its name."""


def explain(error: Exception, environ: Mapping[str, str], *, is_imported: bool = False) -> tuple[str, int] | None:
    """As if a library raised it, in a function or while it is imported."""
    code = "raise error" if is_imported else "def call():\n    raise error\ncall()"
    module = {"__name__": "torch.part" if is_imported else "__main__", "error": error}
    try:
        exec(compile(code, "part.py", "exec"), module)
    except (ImportError, MemoryError, RuntimeError, ValueError) as err:
        return explain_library(err, environ)
    raise AssertionError


@pytest.mark.parametrize("is_imported", [True, False])
@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (ValueError("The value of TORCH_DISTRIBUTED_DEBUG must be OFF or INFO."), "TORCH_DISTRIBUTED_DEBUG", "garbage"),
        (ValueError("invalid truth value banana"), "ACCELERATE_USE_CPU", "banana"),
        (ValueError("'NONSENSE' is not a valid DynamoBackend"), "ACCELERATE_DYNAMO_BACKEND", "nonsense"),
        (ValueError("Invalid log settings: odd, try TORCH_LOGS=help"), "TORCH_LOGS", "odd"),
        (ImportError("HF_ENABLE_PARALLEL_LOADING needs another library"), "HF_ENABLE_PARALLEL_LOADING", "1"),
    ],
)
def test_a_refused_variable_is_blamed(error: Exception, name: str, value: str, is_imported: bool) -> None:
    explained = explain(error, {name: value, "HF_HOME": "/elsewhere"}, is_imported=is_imported)
    assert explained is not None
    assert explained[1] == 2
    assert explained[0].endswith(f"; correct or unset {name}={value!r} in the environment")


def test_what_a_library_calls_of_python_is_not_blamed() -> None:
    """An enumeration refuses the value in Python's own module."""
    module = {"__name__": "accelerate.state"}
    exec("import enum\ndef call():\n    enum.Enum('Backend', 'A B')('nonsense')", module)
    try:
        module["call"]()
    except ValueError as err:
        explained = explain_library(err, {"ACCELERATE_DYNAMO_BACKEND": "nonsense"})
    assert explained is not None
    assert explained[0].startswith("accelerate: ValueError: 'nonsense' is not a valid Backend; ")


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (RuntimeError(ASSERT), "CUDA_LAUNCH_BLOCKING", "0"),
        (ValueError(ASSERT.replace("=1", "")), "CUDA_LAUNCH_BLOCKING", "0"),
        (OutOfMemoryError(MEMORY), "PYTORCH_CUDA_ALLOC_CONF", "backend:native"),
        (ValueError("unhandled system error, run with NCCL_DEBUG=INFO for details"), "NCCL_DEBUG", "INFO"),
        (ValueError("no information on this model"), "NCCL_DEBUG", "INFO"),
        (ValueError("pass trust_remote_code=True"), "HF_HUB_OFFLINE", "true"),
        (ValueError("set TORCH_LOGS_FORMAT"), "TORCH_LOGS", "odd"),
        (ValueError("the oddity"), "TORCH_LOGS", "odd"),
        (RuntimeError("shape of banana"), "ACCELERATE_USE_CPU", "banana"),
    ],
)
def test_advice_and_chance_blame_nothing(error: Exception, name: str, value: str) -> None:
    assert explain(error, {name: value}) is None


def test_an_import_that_finds_no_memory_blames_no_variable() -> None:
    explained = explain(MemoryError("PYTORCH_ALLOC_CONF"), {"PYTORCH_ALLOC_CONF": "odd"}, is_imported=True)
    assert explained is not None
    assert explained[0].startswith("cannot import torch: MemoryError")
    assert explained[0].endswith("; reinstall it, and check memory limits and the environment variables that it reads")
    assert explained[1] == 1


def test_a_panic_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer panics where it may start no threads; which is not an ``Exception``."""
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    monkeypatch.setattr("reasonrl.plugins.load_plugins", lambda **_: raise_it(panic("no thread pool")))
    done = CliRunner().invoke(app, ["tasks", "list"])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: a library in Rust has panicked: PanicException: no thread pool; ")
    assert done.stderr.count("\n") == 1


def raise_it(error: BaseException) -> None:
    raise error
