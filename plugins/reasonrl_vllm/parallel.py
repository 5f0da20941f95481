"""Multiple trainer processes: one engine each, or tensor parallelism over neighbors."""

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
    """Return the number of processes of the run."""
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
            # Through the host: these are small Python objects.
            self._group, _ = distributed.new_subgroups(size, backend="gloo")
        self._place = distributed.get_rank() % size if size > 1 else 0
        self.name: str = self._gather(f"reasonrl-{secrets.token_hex(4)}")[0]
        """Unique on this machine."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run code that may fail in one process: the whole team fails with it instead of hanging.

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
            raise RolloutError("vllm: another process of this engine failed; see its error message")

    def ask(
        self, generate: Callable[[Prompts, Options], list[list[Answer]]], prompts: Prompts, options: Options
    ) -> list[list[Answer]]:
        """Sample this process's prompts. A team samples all prompts together, and skips the call if there are none."""
        shares = self._gather((prompts, options))
        everybody = [p for share in shares for p in share[0]], [o for share in shares for o in share[1]]
        answers = generate(*everybody) if everybody[0] else []
        start = sum(len(share[0]) for share in shares[: self._place])
        return answers[start : start + len(prompts)]

    def close(self) -> None:
        """Leave the team. Idempotent."""
        group, self._group = self._group, None
        if group is not None and distributed.is_initialized():
            distributed.destroy_process_group(group)

    def _gather(self, item: T) -> list[T]:
        if self._group is None:
            return [item]
        items: list[Any] = [None] * self.size
        distributed.all_gather_object(items, item, group=self._group)
        return items


def launch_environment(device: torch.device) -> dict[str, str]:
    """Return the environment variables that tell vLLM its rank and GPU."""
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
def isolate_shared_memory(name: str) -> Iterator[None]:
    """Give the team's shared memory a unique name; on a CPU vLLM uses the same one in every run.

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
def preserve_process_groups(is_trainers: bool) -> Iterator[None]:
    """Wrap the shutdown of an engine: it ends vLLM's process groups, and the default group only if that is vLLM's.

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
