"""Collective operations between ranks; with one process they return their input."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from reasonrl.contracts.batch import Reduce
from reasonrl.contracts.metrics import Metric, combine, resolve
from reasonrl.errors import RAISABLE, ProcessError, leave_to_first, tell
from reasonrl.functional.precision import widest_float

T = TypeVar("T")


class Ranks:
    """Sums, maxima and gathers over the processes of the run."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.size: int = accelerator.num_processes
        self.rank: int = accelerator.process_index
        self.device: torch.device = accelerator.device
        self.is_main: bool = accelerator.is_main_process
        self.reduce = Reduce(sum=self.sum_tensor)
        self._shared: BaseException | None = None

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of forward passes, for modules that accelerate has not wrapped."""
        return self._accelerator.autocast()

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """Elementwise sum over ranks."""
        if self.size == 1:
            return tensor
        return self._accelerator.reduce(tensor, reduction="sum")

    def sums(self, values: Sequence[float]) -> list[float]:
        """Sums of host numbers, exact to float64."""
        if self.size == 1:
            return [float(v) for v in values]
        # Token counts exceed float32's integers.
        tensor = torch.tensor(list(values), dtype=widest_float(self.device), device=self.device)
        return [float(v) for v in self._accelerator.reduce(tensor, reduction="sum")]

    def max(self, value: int) -> int:
        """The largest value of all ranks, on every rank."""
        return max(self.gather([value]))

    def gather(self, items: Sequence[T]) -> list[T]:
        """All ranks' items, in rank order, on every rank."""
        if self.size == 1:
            return list(items)
        return list(gather_object(list(items)))

    def resolve(self, parts: Iterable[Mapping[str, Metric]]) -> dict[str, float]:
        """Metrics of all micro-batches and ranks as numbers."""
        return resolve(combine(self.gather([combine(_to_host(list(parts)))])))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work that can fail on one rank alone: the others fail with it instead of waiting for it for ever.

        It holds no collective operation of the trainer's own. Rank 0 reports the error.

        Raises:
            ProcessError: on the ranks that had no error of their own.
        """
        error: BaseException | None = None
        try:
            yield
        except RAISABLE as err:
            error = err
        if self.size > 1:
            error = self._share(error)
        if error is not None:
            self._shared = error
            raise error

    def _share(self, error: BaseException | None) -> BaseException | None:
        """The error of this rank, or else one made from the first rank's that has one."""
        told = self.gather([None if error is None else tell(error)])
        failed = next((rank for rank, text in enumerate(told) if text is not None), None)
        if failed is None:
            return None
        if error is None:
            text, code = told[failed]  # type: ignore[misc]
            error = ProcessError(f"process {failed}: {text}" if failed else text, code)
        if not self.is_main:
            leave_to_first(error)
        return error

    def shares(self, error: BaseException) -> bool:
        """Whether all ranks have come to an end at the same place with this error, and may meet once more."""
        return self.size == 1 or error is self._shared

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        return self.gather([value])[0]


def _to_host(parts: Sequence[Mapping[str, Metric]]) -> Iterator[dict[str, Metric]]:
    """Metrics as numbers. Tensors come over together: for each copy the host waits for a GPU."""
    flat: list[Any] = [x for part in parts for metric in part.values() for x in (metric.value, metric.weight)]
    alike: dict[object, list[int]] = {}
    for place, number in enumerate(flat):
        if isinstance(number, Tensor):
            alike.setdefault((number.dtype, number.device), []).append(place)
    for places in alike.values():
        stacked = torch.stack([flat[place].detach().reshape(()) for place in places])
        for place, number in zip(places, stacked.tolist(), strict=True):
            flat[place] = number
    numbers = map(float, flat)
    for part in parts:
        yield {key: Metric(next(numbers), next(numbers), metric.reduction) for key, metric in part.items()}
