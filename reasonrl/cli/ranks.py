"""Make ``accelerate launch --num_processes N`` start N processes on a CPU too.

Without a GPU accelerate silently starts a single process and leaves the others to MPI. It then sets the rendezvous
address but no rank; in that case this process replaces itself with torch's launcher.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from reasonrl.errors import RecipeError


def start_missing_ranks(environ: Mapping[str, str] = os.environ) -> None:
    """Replace this process with N ranks if accelerate was asked for N > 1 and started one; else return.

    Raises:
        RecipeError: If N cannot be determined.
    """
    if not lacks_other_ranks(environ):
        return
    import psutil

    parent = psutil.Process().parent()
    count = parse_num_processes(parent.cmdline() if parent else [])
    if count is None:
        raise RecipeError(
            "accelerate launch starts only one process on a CPU; use `torchrun --nproc-per-node N -m reasonrl ...`"
        )
    os.execve(sys.executable, torchrun_command(count, sys.argv[1:]), ranks_environment(environ))


def lacks_other_ranks(environ: Mapping[str, str]) -> bool:
    """Whether accelerate was asked for several processes and started only this one."""
    is_launched = "ACCELERATE_MIXED_PRECISION" in environ and "MASTER_ADDR" in environ
    has_rank = any(key in environ for key in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"))
    return is_launched and not has_rank


def parse_num_processes(command: Sequence[str]) -> int | None:
    """Parse ``--num_processes N`` from an ``accelerate launch`` command line."""
    for position, word in enumerate(command):
        name, equals, value = word.partition("=")
        if name in ("--num_processes", "--num-processes"):
            text = value if equals else "".join(command[position + 1 : position + 2])
            return int(text) if text.isdecimal() else None
    return None


def torchrun_command(count: int, arguments: Sequence[str]) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return [*launcher, "-m", "reasonrl", *arguments]


def ranks_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the ranks: one thread each by default, and torch's own rendezvous."""
    kept = {key: value for key, value in environ.items() if key not in ("MASTER_ADDR", "MASTER_PORT")}
    return {**kept, "OMP_NUM_THREADS": kept.get("OMP_NUM_THREADS", "1")}
