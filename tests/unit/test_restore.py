"""What a plugin's code changes of the process by the way is as before after the call."""

import builtins
import gc
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from reasonrl.errors import plugin_call, plugin_code
from reasonrl.restore.of_torch import torch_settings


def moves() -> None:
    os.chdir("/")


def handles() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, lambda *_: None)


def patches() -> None:
    builtins.len = lambda _: 7  # type: ignore[assignment]
    del builtins.sorted


def redirects() -> None:
    sys.stdout = sys.stderr


def closes() -> None:
    sys.stdout.close()


def alarms() -> None:
    signal.setitimer(signal.ITIMER_REAL, 600)


def times() -> None:
    """Its signal would end the process without a word."""
    signal.setitimer(signal.ITIMER_VIRTUAL, 600)
    signal.setitimer(signal.ITIMER_PROF, 600)


def traces() -> None:
    sys.settrace(lambda *_: None)
    sys.setprofile(lambda *_: None)


def counts_digits() -> None:
    sys.set_int_max_str_digits(0)


def flattens() -> None:
    sys.setrecursionlimit(sys.getrecursionlimit() - 1)


def blocks() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def silences() -> None:
    logging.disable(logging.CRITICAL)


def hoards() -> None:
    gc.disable()


def fails() -> None:
    moves()
    patches()
    raise ValueError


@pytest.mark.parametrize(
    "change",
    [
        moves, handles, blocks, patches, redirects, alarms, times, traces, counts_digits, flattens, silences, hoards,
        fails,
    ],
)  # fmt: skip
def test_it_is_restored(change: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = (os.getcwd(), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP), sys.stdout)
    functions, depth = dict(vars(builtins)), sys.getrecursionlimit()
    watching, digits = (sys.gettrace(), sys.getprofile()), sys.get_int_max_str_digits()
    try:
        with plugin_code("plugin x"):
            change()
    except ValueError:
        assert change is fails
    assert (os.getcwd(), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP), sys.stdout) == before
    assert dict(vars(builtins)) == functions
    assert sys.getrecursionlimit() == depth
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        assert signal.getitimer(timer) == (0.0, 0.0)
    assert ((sys.gettrace(), sys.getprofile()), sys.get_int_max_str_digits()) == (watching, digits)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    assert (logging.root.manager.disable, gc.isenabled()) == (logging.NOTSET, True)


def test_a_closed_stream_is_opened_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdout", (tmp_path / "out").open("w"))
    with plugin_code("plugin x"):
        closes()
    assert not sys.stdout.closed


KEPT: list[object] = []
"""torch ends a mode when its object is deleted."""


def enters(mode: object) -> None:
    mode.__enter__()  # type: ignore[attr-defined]
    KEPT.append(mode)


def sets_deterministic() -> None:
    torch.backends.cudnn.deterministic = not torch.backends.cudnn.deterministic
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark


def refuses(*_: object, **__: object) -> None:
    raise RuntimeError("left behind")


class Refuses(TorchDispatchMode):
    def __torch_dispatch__(self, *_: object, **__: object) -> None:
        refuses()


def hooks_modules() -> None:
    """Of each kind; one of them also switches how others may be registered."""
    module = torch.nn.modules.module
    for kind in ("forward", "forward_pre", "full_backward", "full_backward_pre"):
        getattr(module, f"register_module_{kind}_hook")(refuses)
    for kind in ("parameter", "buffer", "module"):
        getattr(module, f"register_module_{kind}_registration_hook")(refuses)


def hooks_optimizers() -> None:
    register_optimizer_step_pre_hook(refuses)
    register_optimizer_step_post_hook(refuses)


TORCH: dict[str, Callable[[], object]] = {
    "the stack of torch dispatch modes": lambda: enters(Refuses()),
    "saved_tensors_hooks": lambda: [enters(torch.autograd.graph.saved_tensors_hooks(refuses, refuses)) for _ in "ab"],
    "hooks of torch.nn.modules.module": hooks_modules,
    "hooks of torch.optim.optimizer": hooks_optimizers,
    "torch.set_detect_anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "the precision of float32": lambda: torch.set_float32_matmul_precision("medium"),
    "torch.set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "torch.set_default_dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch.set_default_device": lambda: torch.set_default_device("meta"),
    "the stack of torch function modes": lambda: enters(torch.device("meta")),
    "torch.use_deterministic_algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "torch.inference_mode": lambda: enters(torch.inference_mode()),
    "torch.autocast": lambda: enters(torch.autocast("cpu", torch.bfloat16)),
    "torch.set_num_threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "math_sdp": lambda: torch.backends.cuda.enable_math_sdp(False),
    "flash_sdp": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "cudnn.deterministic": sets_deterministic,
    "cudnn.benchmark": sets_deterministic,
}


@pytest.mark.parametrize("part", ["", "cudnn", "mkldnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn"])
def test_the_precision_of_each_backend_is_restored(part: str) -> None:
    backend: Any = attrgetter(part)(torch.backends) if part else torch.backends
    changed = "tf32" if part == "cudnn" else "bf16"
    before = [setting.read() for setting in torch_settings()], torch.get_float32_matmul_precision()
    assert backend.fp32_precision != changed
    with plugin_code("plugin y"):
        backend.fp32_precision = changed
    assert backend.fp32_precision != changed
    assert ([setting.read() for setting in torch_settings()], torch.get_float32_matmul_precision()) == before


def test_the_precision_of_all_of_mkldnn_is_restored() -> None:
    before = [setting.read() for setting in torch_settings()]
    with plugin_code("plugin y"):
        torch.backends.mkldnn.set_flags(_fp32_precision="bf16")
    assert [setting.read() for setting in torch_settings()] == before


@pytest.mark.parametrize("name", TORCH)
def test_a_setting_of_torch_is_restored_and_its_owner_named(name: str, caplog: pytest.LogCaptureFixture) -> None:
    before = [setting.read() for setting in torch_settings()]
    for _ in range(2):
        with plugin_call(f"task {name!r}: respond to problem 'a'"):
            TORCH[name]()
    assert [setting.read() for setting in torch_settings()] == before
    layer = torch.nn.Linear(2, 1)
    layer(torch.ones(2)).tanh().sum().backward()
    torch.optim.SGD(layer.parameters()).step()
    assert layer.weight.grad is not None
    assert (layer.weight.dtype, layer.weight.device.type) == (torch.float32, "cpu")
    found = [line for line in caplog.messages if f" left {name} changed" in line]
    assert len(found) == 1, "once, not at every call"
    assert found[0].startswith(f"task {name!r}: respond to problem 'a' left")


def test_hooks_of_a_caller_stay() -> None:
    def keep(tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, keep):
        before = [setting.read() for setting in torch_settings()]
        with plugin_code("plugin y"):
            TORCH["saved_tensors_hooks"]()
        assert [setting.read() for setting in torch_settings()] == before
        with plugin_code("plugin y"):
            torch._C._autograd._pop_saved_tensors_default_hooks()
        assert [setting.read() for setting in torch_settings()] == before


def test_settings_of_torch_inside_of_a_callers_are_those_of_the_caller() -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        with plugin_code("plugin y"):
            torch.set_grad_enabled(True)
            torch.set_autocast_enabled("cpu", False)
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


FIRST = """
import sys
from reasonrl.errors import plugin_code
assert "torch" not in sys.modules
with plugin_code("plugin z"):
    import torch
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
"""


def test_a_plugin_that_loads_torch_leaves_it_as_it_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


FORKS = """
import os
from reasonrl.errors import plugin_code
try:
    with plugin_code("plugin z"):
        if os.fork() == 0 and {raises}:
            raise ValueError
except ValueError:
    pass
print("after the call", flush=True)
os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("raises", [False, True])
def test_a_copy_of_the_process_that_a_plugin_forks_ends_with_its_call(raises: bool) -> None:
    code = FORKS.format(raises=raises)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("after the call\n", "")
