"""Connect the processes of a run, once they agree on the kind of device."""

from datetime import timedelta

import torch
from accelerate import PartialState

from reasonrl.errors import RecipeError
from reasonrl.recipe.schema import Device
from reasonrl.runs.connection import is_lost, left_to_one, lost_reason
from reasonrl.runs.idle import idle_at_exit
from reasonrl.runs.launched import find_lone_place, lacks_other_ranks, process_timeout
from reasonrl.runs.meeting import meeting, open_store


def connect(device: Device) -> PartialState:
    """Start or join the processes; accelerate keeps them for this process.

    Raises:
        RecipeError: if torch sees no device of the kind that was asked for, or accelerate left out processes.
        ProcessError: if they cannot reach each other.
    """
    state = _join(device)
    if state.num_processes > 1:
        idle_at_exit()
    return state


def _join(device: Device) -> PartialState:
    if torch.distributed.is_initialized():
        return PartialState(cpu=choose_cpu(device))
    if lacks_other_ranks():
        raise RecipeError(
            "accelerate launch starts only one process on a CPU; start the script with torchrun, or the recipe with "
            "`accelerate launch ... -m reasonrl train RECIPE`, which starts the others"
        )
    with meeting() as mine:
        on_cpu = choose_cpu(device)
        mine.facts = {"device": "cpu" if on_cpu else "gpu"}
    if (place := find_lone_place()) is not None:
        open_store(place)  # torch would say why it cannot with C++ frames
    try:
        return PartialState(cpu=on_cpu, timeout=timedelta(seconds=process_timeout()))
    except RuntimeError as err:
        if not is_lost(err):
            raise
        raise left_to_one(
            f"the processes met, but cannot connect to each other: {lost_reason(err)}; name the network interface that "
            "leads to the other machines in GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME, and let firewalls pass all "
            "ports between them"
        ) from err


def choose_cpu(device: Device) -> bool:
    """Whether to compute on the CPU; else accelerate takes the GPU that torch sees.

    Without this accelerate takes several ranks on a machine without a GPU for GPU ranks.

    Raises:
        RecipeError: if torch sees no device of the kind that was asked for.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    there = "cpu" if found is None else found.type
    if device not in ("auto", "cpu", there):
        raise RecipeError(
            f"device: {device} is not available: torch {torch.__version__} sees only {there}; install a build of "
            "torch for this machine's GPU, or use device=auto; `reasonrl doctor --self` shows what torch sees"
        )
    on_cpu = "cpu" in (device, there)
    if PartialState._shared_state and (PartialState().device.type == "cpu") != on_cpu:
        PartialState._reset_state()  # of an earlier run in this process
    return on_cpu
