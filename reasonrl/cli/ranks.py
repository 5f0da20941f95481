"""Makes ``accelerate launch --num_processes N`` mean N processes on a CPU too.

Without a GPU accelerate starts a single process (it leaves the others to MPI) and says nothing. It gives itself
away by setting the rendezvous address but no rank; then this process is replaced by torch's launcher.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from reasonrl.errors import RecipeError


def start_missing_ranks(environ: Mapping[str, str] = os.environ) -> None:
    """Replace this process by N ranks if accelerate was asked for N > 1 and started one; else return.

    Raises:
        RecipeError: if the number cannot be found out.
    """
    if not was_left_alone(environ):
        return
    import psutil

    parent = psutil.Process().parent()
    count = asked_for(parent.cmdline() if parent else [])
    if count is None:
        raise RecipeError(
            "accelerate launch was asked for several processes but starts only one on a CPU; "
            "use `torchrun --nproc-per-node N -m reasonrl ...`"
        )
    os.execve(sys.executable, torchrun_command(count, sys.argv[1:]), ranks_environment(environ))


def was_left_alone(environ: Mapping[str, str]) -> bool:
    """Several processes were asked of accelerate, and this is the only one."""
    launched = "ACCELERATE_MIXED_PRECISION" in environ and "MASTER_ADDR" in environ
    ranked = any(key in environ for key in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"))
    return launched and not ranked


def asked_for(command: Sequence[str]) -> int | None:
    """``--num_processes N`` of an ``accelerate launch`` command line."""
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
    """Threads are shared out, the rendezvous is torch's own."""
    kept = {key: value for key, value in environ.items() if key not in ("MASTER_ADDR", "MASTER_PORT")}
    return {**kept, "OMP_NUM_THREADS": kept.get("OMP_NUM_THREADS", "1")}
