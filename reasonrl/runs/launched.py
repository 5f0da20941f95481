"""Which of a run's processes this one is, as its launcher says. Torch-free."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reasonrl.errors import RecipeError

RANK_KEYS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
SIZE_KEYS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
LOCAL_KEYS = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
TIMEOUT_KEY = "REASONRL_PROCESS_TIMEOUT_S"
TIMEOUT_S = 3600.0
"""Processes wait this long for each other: NCCL's ten minutes are over before a large checkpoint is written."""
JOIN_S = 600.0
"""And at most this long for the others to start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One of several processes. ``address`` and ``port``: where they meet."""

    rank: int
    size: int
    address: str
    port: int
    attempt: str = "0"
    """How often the launcher has started them before."""
    has_store: bool = False
    """Whether the launcher itself serves torch's store at that address."""


def find_place(environ: Mapping[str, str] = os.environ, *, least: int = 2) -> Place | None:
    """This process among several; None if there are not ``least`` of them.

    Raises:
        RecipeError: if the launcher's variables are incomplete or not numbers.
    """
    size = _number(environ, SIZE_KEYS, 1)
    if size < least:
        return None
    rank = _number(environ, RANK_KEYS)
    if not 0 <= rank < size:
        raise RecipeError(f"the launcher's rank is {rank}, expected 0 to {size - 1} of {size} processes; {_WAY}")
    port = _number(environ, ("MASTER_PORT",), 29500)
    if not 0 < port < 1 << 16:
        raise RecipeError(f"the variable MASTER_PORT is {port}, expected 1 to 65535; {_WAY}")
    return Place(
        rank=rank,
        size=size,
        address=environ.get("MASTER_ADDR") or "127.0.0.1",
        port=port,
        attempt=environ.get("TORCHELASTIC_RESTART_COUNT", "0"),
        has_store=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def find_lone_place(environ: Mapping[str, str] = os.environ) -> Place | None:
    """The place of a process that is the only one, but was given an address where torch meets itself."""
    is_placed = all(environ.get(key) for key in ("MASTER_ADDR", "LOCAL_RANK", "RANK"))
    place = find_place(environ, least=1) if is_placed else None
    return place if place is not None and place.size == 1 else None


_WAY = "start the processes with `torchrun --nproc-per-node N -m reasonrl ...`"


def _number(environ: Mapping[str, str], keys: Sequence[str], default: int | None = None) -> int:
    """The first of these variables that is set."""
    key = next((key for key in keys if environ.get(key)), None)
    if key is None:
        if default is None:
            raise RecipeError(f"WORLD_SIZE is {environ.get('WORLD_SIZE')}, but {keys[0]} is not set; {_WAY}")
        return default
    try:
        return int(environ[key])
    except ValueError as err:
        raise RecipeError(f"the variable {key} is {environ[key]!r}, expected a number; {_WAY}") from err


def is_first_process(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is rank 0, as the launcher says, before torch could say so; a single one is.

    A rank without a number of processes may be left from another program.
    """
    size = next((environ[key] for key in SIZE_KEYS if environ.get(key)), "1")
    return size in ("0", "1") or next((environ[key] for key in RANK_KEYS if environ.get(key)), "0") == "0"


def is_first_on_machine(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process speaks for its machine where rank 0 may be gone."""
    return next((environ[key] for key in LOCAL_KEYS if environ.get(key)), "0") == "0"


def lacks_other_ranks(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether accelerate was asked for several processes and started only this one, as it does without a GPU."""
    is_launched = "ACCELERATE_MIXED_PRECISION" in environ and "MASTER_ADDR" in environ
    return is_launched and not any(key in environ for key in (*RANK_KEYS, *SIZE_KEYS, *LOCAL_KEYS))


def process_timeout(environ: Mapping[str, str] = os.environ) -> float:
    """Seconds that a process waits for the others during a run.

    Raises:
        RecipeError: if the variable does not hold one.
    """
    text = environ.get(TIMEOUT_KEY) or str(TIMEOUT_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e7:
        raise RecipeError(f"the variable {TIMEOUT_KEY} is {text!r}, expected a number of seconds > 0")
    return seconds


def join_timeout(environ: Mapping[str, str] = os.environ) -> float:
    """Seconds that a process waits for the others to start."""
    return min(JOIN_S, process_timeout(environ))
