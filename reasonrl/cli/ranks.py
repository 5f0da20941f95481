"""Make ``accelerate launch`` start all processes on a CPU too, on one machine or on several.

Without a GPU accelerate silently starts a single process and leaves the others to MPI. It then sets the rendezvous
address but no rank; in that case this process replaces itself with torch's launcher.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from reasonrl.errors import RecipeError, one_line
from reasonrl.importing import module_command
from reasonrl.runs.launched import lacks_other_ranks

FROM_CONFIG = ("num_processes", "num_machines", "machine_rank", "main_process_ip", "main_process_port", "rdzv_conf")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What ``accelerate launch`` was asked for. ``processes``: on all machines together."""

    processes: int
    machines: int = 1
    machine: int | None = None
    address: str = "127.0.0.1"
    port: int = 29500
    conf: str = ""


def start_missing_ranks(environ: Mapping[str, str] = os.environ) -> None:
    """Replace this process with torch's launcher if accelerate was asked for several processes and started one.

    Raises:
        RecipeError: if it cannot be known what to start.
    """
    if not lacks_other_ranks(environ):
        return
    import psutil

    parent = psutil.Process().parent()
    asked = parse_launch(parent.cmdline() if parent else [])
    if asked is None:
        raise RecipeError(
            "accelerate launch starts only one process on a CPU, and how many were asked for is not known here; use "
            "`torchrun --nproc-per-node N -m reasonrl ...`, on several machines with --nnodes, --node-rank, "
            "--master-addr and --master-port"
        )
    command = [*module_command("reasonrl.cli.torch_launcher"), *launcher_arguments(asked, sys.argv[1:])]
    os.execve(sys.executable, command, ranks_environment(environ))


def parse_launch(command: Sequence[str]) -> Asked | None:
    """What a command line of ``accelerate launch`` asks for, with its config file; None for other commands.

    Raises:
        RecipeError: if that cannot be started.
    """
    words = _launch_words(command)
    if words is None:
        return None
    from accelerate.commands.launch import launch_command_parser

    try:
        args = launch_command_parser().parse_args(words)
        _add_config(args)
    except (SystemExit, OSError, ValueError, TypeError, AttributeError) as err:
        raise RecipeError(f"the command line of accelerate launch cannot be read: {one_line(err)}") from err
    if args.num_processes is None:
        return None
    return _check(
        Asked(
            processes=args.num_processes,
            machines=args.num_machines or 1,
            machine=args.machine_rank,
            address=args.main_process_ip or "127.0.0.1",
            port=args.main_process_port or 29500,
            conf=args.rdzv_conf or "",
        )
    )


def _launch_words(command: Sequence[str]) -> Sequence[str] | None:
    """The arguments of ``accelerate launch``, ``accelerate-launch`` or ``python -m accelerate.commands.launch``."""
    for position, word in enumerate(command):
        before = command[position - 1] if position else ""
        is_command = word == "launch" and PurePath(before).name.startswith("accelerate")
        if is_command or PurePath(word).name == "accelerate-launch" or word.endswith("accelerate.commands.launch"):
            return command[position + 1 :]
    return None


def _add_config(args: Any) -> None:
    """Fill what the command line does not say from accelerate's config file, as accelerate does."""
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    if args.config_file is None and (args.cpu or not os.path.isfile(default_config_file)):
        return
    config = load_config_from_file(args.config_file)
    for name in FROM_CONFIG:
        if getattr(args, name) in (None, "") and getattr(config, name, None) is not None:
            setattr(args, name, getattr(config, name))


def _check(asked: Asked) -> Asked:
    if asked.machines == 1:
        return asked
    if asked.machine not in range(asked.machines):
        raise RecipeError(
            f"accelerate launch --num_machines {asked.machines} needs --machine_rank on each machine, 0 to "
            f"{asked.machines - 1}, with 0 on that of --main_process_ip"
        )
    if asked.processes < asked.machines or asked.processes % asked.machines:
        raise RecipeError(
            f"accelerate launch --num_processes {asked.processes} counts the processes of all machines; expected a "
            f"multiple of --num_machines {asked.machines}"
        )
    return asked


def launcher_arguments(asked: Asked, arguments: Sequence[str]) -> list[str]:
    """The arguments of torch's launcher that start the same."""
    where = ["--standalone"]
    if asked.machines > 1:
        where = ["--nnodes", str(asked.machines), "--node-rank", str(asked.machine)]
        where += ["--master-addr", asked.address, "--master-port", str(asked.port)]
        where += ["--rdzv-conf", asked.conf] if asked.conf else []
    each = ["--nproc-per-node", str(asked.processes // asked.machines), "--no-python"]
    return [*where, *each, *module_command("reasonrl"), *arguments]


def ranks_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the ranks: one thread each by default, and torch's own rendezvous."""
    kept = {key: value for key, value in environ.items() if key not in ("MASTER_ADDR", "MASTER_PORT")}
    return {**kept, "OMP_NUM_THREADS": kept.get("OMP_NUM_THREADS", "1")}
