"""The settings of torch for a whole process or thread. What a run computes depends on them."""

import sys
from functools import lru_cache
from typing import Any

from reasonrl.restore.hooks_of_torch import function_modes, hook_settings
from reasonrl.restore.process import Setting

DEVICES = ("cpu", "cuda")


def torch_settings() -> tuple[Setting, ...]:
    """How to read and write them; none while torch is not loaded, which this does not do."""
    return _settings() if hasattr(sys.modules.get("torch"), "set_default_device") else ()


@lru_cache(maxsize=1)
def _torch() -> Any:
    """The module, also if a plugin's code has since put another one in its place."""
    import torch

    return torch


@lru_cache(maxsize=1)
def _settings() -> tuple[Setting, ...]:
    torch = _torch()
    from torch.backends import cuda, cudnn

    return (
        *hook_settings(),
        # Before the next: leaving it turns gradients on.
        Setting("torch.inference_mode", torch.is_inference_mode_enabled, _set_inference_mode, False),
        Setting("torch.set_grad_enabled", torch.is_grad_enabled, torch.set_grad_enabled, True),
        Setting("torch.set_default_dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        Setting("torch.set_default_device", torch.get_default_device, _set_default_device, torch.device("cpu")),
        function_modes(),
        Setting("torch.autocast", _read_autocast, _set_autocast),
        Setting(
            "torch.use_deterministic_algorithms",
            torch.get_deterministic_debug_mode,
            torch.set_deterministic_debug_mode,
            0,
        ),
        Setting("torch.set_detect_anomaly", torch.is_anomaly_enabled, torch.set_anomaly_enabled, False),
        Setting("the precision of float32", _read_precision, _set_precision),
        *(
            Setting(f"{kind}_sdp", getattr(cuda, f"{kind}_sdp_enabled"), getattr(cuda, f"enable_{kind}_sdp"), True)
            for kind in ("flash", "mem_efficient", "math", "cudnn")
        ),
        Setting("cudnn.deterministic", lambda: cudnn.deterministic, lambda on: setattr(cudnn, "deterministic", on)),
        Setting("cudnn.benchmark", lambda: cudnn.benchmark, lambda on: setattr(cudnn, "benchmark", on)),
        Setting("torch.set_num_threads", torch.get_num_threads, torch.set_num_threads),
    )


_modes_left: list[Any] = []
"""A mode ends when its object is deleted."""


def _set_inference_mode(is_on: bool) -> None:
    torch = _torch()
    mode = torch.inference_mode(is_on)
    mode.__enter__()
    _modes_left.append(mode)


def _set_default_device(device: Any) -> None:
    torch = _torch()
    torch.set_default_device(None if device == torch.device("cpu") else device)


@lru_cache(maxsize=1)
def _precise() -> dict[str, Any]:
    """What has a precision of its own, by name; fewer in older versions of torch. The parts come after the whole."""
    backends = _torch().backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    found = {"all": backends, "cuda": cudnn, "matmul": backends.cuda.matmul, "conv": cudnn.conv, "rnn": cudnn.rnn}
    found |= {"mkldnn": mkldnn} | {f"mkldnn.{name}": getattr(mkldnn, name, None) for name in ("matmul", "conv", "rnn")}
    return {name: backend for name, backend in found.items() if hasattr(backend, "fp32_precision")}


def _read_precision() -> dict[str, str]:
    try:
        legacy = _torch().get_float32_matmul_precision()
    except RuntimeError:  # set in both ways, old and new
        legacy = "highest"
    return {"": legacy, **{name: backend.fp32_precision for name, backend in _precise().items()}}


def _set_precision(values: dict[str, str]) -> None:
    _torch().set_float32_matmul_precision(values[""])
    for name, backend in _precise().items():
        if name == "mkldnn":
            backend.set_flags(_fp32_precision=values[name])  # its attribute would set that of all backends
        else:
            backend.fp32_precision = values[name]


def _read_autocast() -> tuple[Any, ...]:
    torch = _torch()
    of_devices = ((torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in DEVICES)
    return (*of_devices, torch.is_autocast_cache_enabled(), _autocast_depth())


def _set_autocast(values: tuple[Any, ...]) -> None:
    torch = _torch()
    *of_devices, caches, depth = values
    for device, (is_on, dtype) in zip(DEVICES, of_devices, strict=True):
        torch.set_autocast_enabled(device, is_on)
        torch.set_autocast_dtype(device, dtype)
    torch.set_autocast_cache_enabled(caches)
    while _autocast_depth() > depth:
        torch.autocast_decrement_nesting()
    while _autocast_depth() < depth:
        torch.autocast_increment_nesting()
    torch.clear_autocast_cache()  # else weights that were cast there would be used after they have changed


def _autocast_depth() -> int:
    torch = _torch()
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()
