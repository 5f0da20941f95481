"""Read the settings of the process before a call of a plugin's code, and put them back after it."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from reasonrl.redact import WarnOnce, redacting_logger
from reasonrl.restore.of_torch import torch_settings
from reasonrl.restore.process import PROCESS_SETTINGS, UNKNOWN, Setting

_warn_once = WarnOnce(redacting_logger(__name__))
_local = threading.local()


def run_beside() -> None:
    """Restore nothing in this thread from now on: it runs beside another one, which may itself change all that."""
    _local.is_beside = True


@contextlib.contextmanager
def restored(owner: str) -> Iterator[None]:
    """Restore standard streams and the settings of the process and of torch after the block.

    A changed setting of torch is logged once for ``owner``, such as ``task 'x': respond``. A copy of this process that
    the block has forked ends there: two would write one run.
    """
    if getattr(_local, "is_beside", False):
        yield
        return
    born = os.getpid()
    streams, before = (sys.stdout, sys.stderr), [(setting, setting.read()) for setting in PROCESS_SETTINGS]
    of_torch = [(setting, setting.read()) for setting in torch_settings()]
    try:
        yield
    finally:
        if os.getpid() != born:
            os._exit(0)
        _restore_streams(*streams)
        for setting, value in before:
            _put_back(setting, value)
        # Without torch before, the block has loaded it.
        for setting, value in of_torch or [(setting, setting.fresh) for setting in torch_settings()]:
            if value is not UNKNOWN and (found := _put_back(setting, value)) is not UNKNOWN:
                _tell(owner, setting, value, found)


def _put_back(setting: Setting, value: Any) -> Any:
    """Give a setting its ``value`` again; returns what it was instead, UNKNOWN if it was not changed."""
    found = setting.read()
    if found == value:
        return UNKNOWN
    setting.write(value)
    return found


def _tell(owner: str, setting: Setting, value: Any, found: Any) -> None:
    key = (owner.partition(":")[0], setting.name)
    _warn_once(key, "%s left %s changed from %s to %s; it is restored", owner, setting.name, value, found)


def _restore_streams(out: Any, err: Any) -> None:
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # the next file that is opened would take its place
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
    for name, stream in (("stdout", out), ("stderr", err)):
        is_closed = getattr(stream, "closed", False)
        setattr(sys, name, open(os.devnull, "w", encoding="utf-8") if is_closed else stream)  # noqa: SIM115
