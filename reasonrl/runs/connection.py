"""Say in one line that the connection to another process of the run is lost. Torch-free until that happens."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from reasonrl.errors import ProcessError, leave_to_first, one_line
from reasonrl.runs.launched import TIMEOUT_KEY, is_first_on_machine, process_timeout

MARKS = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL error")
LATE = re.compile(r"timed? ?out|timeout", re.IGNORECASE)
PLACE = re.compile(r"^\[?[^ ]*\.(?:cc|cpp|h):\d+\]?:? *")
FRAMES = re.compile(r" (?:Exception raised from|This may indicate|frame #0:).*")


@contextmanager
def explained_connection() -> Iterator[None]:
    """Explain a connection to another process that is lost inside.

    Raises:
        ProcessError: instead of torch's errors.
    """
    try:
        yield
    except RuntimeError as err:
        if not is_lost(err):
            raise
        raise explain_lost(err) from err


def is_lost(error: BaseException) -> bool:
    """Whether torch says with this error that another process or its machine does not answer."""
    torch = sys.modules.get("torch.distributed")
    if torch is None or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.DistError) or any(mark in str(error) for mark in MARKS)


def explain_lost(error: BaseException) -> ProcessError:
    """The same in one line. One process on each machine says it, since the first one may be gone."""
    reason = lost_reason(error)
    if LATE.search(reason):
        return left_to_one(
            f"no answer from another process of this run within {process_timeout():g} s ({TIMEOUT_KEY}): {reason}; "
            "its own output may say why"
        )
    return left_to_one(
        f"lost the connection to another process of this run: {reason}; it has ended or its machine is gone, its own "
        "output may say why"
    )


def lost_reason(error: BaseException) -> str:
    """What torch says, without places in its source."""
    return FRAMES.sub("", PLACE.sub("", one_line(error))).rstrip(". ")


def left_to_one(text: str) -> ProcessError:
    """An error that one process on each machine reports."""
    error = ProcessError(text)
    if not is_first_on_machine():
        leave_to_first(error)
    return error
