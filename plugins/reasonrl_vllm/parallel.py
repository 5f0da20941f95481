"""Several trainer processes: each has an engine, or neighbors share one copy of the model."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import distributed

from reasonrl.errors import ReasonRLError, RolloutError
from reasonrl_vllm.requests import Answer

Prompts = Sequence[Sequence[int]]
Options = Sequence[dict[str, Any]]
T = TypeVar("T")


def process_count() -> int:
    """Processes of this run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


class Team:
    """The ``size`` neighboring processes whose devices hold one copy of the model: 0 to size - 1, and so on.

    Each of them must take part in every operation of the engine with the same input. Every process of the run
    makes its team at the same time.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._group: Any = None
        if size > 1:
            # By way of the host: these are small Python objects, wherever the model is.
            self._group, _ = distributed.new_subgroups(size, backend="gloo")
        self._place = distributed.get_rank() % size if size > 1 else 0
        self.name: str = self._gather(f"reasonrl-{secrets.token_hex(4)}")[0]
        """No other team on this machine has it."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """What can fail in one process alone: its team fails with it instead of waiting for it for ever.

        Raises:
            RolloutError: in processes that have no error of their own.
        """
        error: ReasonRLError | None = None
        try:
            yield
        except ReasonRLError as err:
            error = err
        failed = self._gather(error is not None)
        if error is not None:
            raise error
        if any(failed):
            raise RolloutError("vllm: another process of this engine cannot sample; its message says why")

    def ask(
        self, generate: Callable[[Prompts, Options], list[list[Answer]]], prompts: Prompts, options: Options
    ) -> list[list[Answer]]:
        """The answers to this process's prompts. A team asks for everybody's; without any, nobody asks."""
        shares = self._gather((prompts, options))
        everybody = [p for share in shares for p in share[0]], [o for share in shares for o in share[1]]
        answers = generate(*everybody) if everybody[0] else []
        start = sum(len(share[0]) for share in shares[: self._place])
        return answers[start : start + len(prompts)]

    def close(self) -> None:
        """Forget the team. A second time does nothing."""
        group, self._group = self._group, None
        if group is not None and distributed.is_initialized():
            distributed.destroy_process_group(group)

    def _gather(self, item: T) -> list[T]:
        if self._group is None:
            return [item]
        items: list[Any] = [None] * self.size
        distributed.all_gather_object(items, item, group=self._group)
        return items


def launched(device: torch.device) -> dict[str, str]:
    """What vLLM reads from the environment when it starts: which process this is, and which GPU is its."""
    if process_count() == 1:
        return {}
    rank = distributed.get_rank()
    if device.type != "cuda":
        return {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(torch.cuda.current_device() if device.index is None else device.index),
    }


@contextmanager
def memory_named(name: str) -> Iterator[None]:
    """On a CPU vLLM calls the memory that a team shares the same in every run: two runs would write into each other's.

    It takes the name from the end of an address, which it has no use for where processes are connected already.
    """
    from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher as Launcher

    arguments = Launcher._distributed_args

    def named(launcher: Any) -> tuple[str, int, int]:
        address, rank, local_rank = arguments(launcher)
        return f"{address}:{name}", rank, local_rank

    Launcher._distributed_args = named
    try:
        yield
    finally:
        Launcher._distributed_args = arguments


@contextmanager
def groups_kept(is_trainers: bool) -> Iterator[None]:
    """Around the end of an engine: vLLM's process groups end with it, and the default group, if it is vLLM's.

    By itself vLLM ends the default group too, whoever made it.
    """
    from vllm.distributed import parallel_state as state

    destroy = state.destroy_distributed_environment
    if is_trainers:
        state.destroy_distributed_environment = _leave_world
    try:
        yield
    finally:
        state.destroy_distributed_environment = destroy


def _leave_world() -> None:
    from vllm.distributed import parallel_state as state

    world, state._WORLD, state._NODE_COUNT = state._WORLD, None, None
    if world is not None:
        world.destroy()
