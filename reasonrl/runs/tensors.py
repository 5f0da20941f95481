"""Write the tensors of a policy and its optimizer into a checkpoint, and read them back, bit-exactly.

One path serves one process, DDP and FSDP2, and the files do not tell how many processes wrote them: every tensor is
whole in one file, under the name that the unwrapped ``PolicyModule`` has. Rank 0 alone writes a replicated policy. Of a
sharded one every rank writes a share of the tensors, and reads its own rows of all of them.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from reasonrl.errors import CheckpointError
from reasonrl.model.divided import divide_like, gather_on, is_divided, own_rows
from reasonrl.model.export import iter_own_weights, model_names
from reasonrl.rundir import files
from reasonrl.rundir.checkpoints import explain_failure
from reasonrl.rundir.layout import MODEL, MODEL_INDEX, OPTIMIZER, TRAINABLE, find_tensor_files, tensor_file
from reasonrl.rundir.manifest import Entry, list_manifest_files, sync_entry
from reasonrl.trainer.ranks import Ranks

MODEL_PREFIX = "model."

Named = Iterable[tuple[str, Tensor]]


def list_tensors(policy: nn.Module, optimizer: Optimizer) -> list[tuple[str, Named]]:
    """The kinds of files of a checkpoint, each with its tensors as they are: divided, and on their devices."""
    return [
        (MODEL, iter_own_weights(policy)),
        (TRAINABLE, _iter_trainable(policy)),
        (OPTIMIZER, _iter_optimizer(policy, unwrap_optimizer(optimizer))),
    ]


def _iter_trainable(policy: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What is trained and what the model folder cannot give back."""
    known = {MODEL_PREFIX + name for name in model_names(policy)}
    parameters = _parameters(policy)
    yield from ((name, parameters[name].detach()) for name in sorted(_trainable_names(policy) - known))


def _iter_optimizer(policy: nn.Module, optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    """``<parameter>.<entry>``, in an order that a resume does not change."""
    names = _numbered_names(policy, optimizer)
    for number, entries in sorted(optimizer.state_dict()["state"].items()):
        for entry, value in sorted(entries.items()):
            yield f"{names[number]}.{entry}", torch.as_tensor(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What this process writes of a kind of file; ``parts``: the number of the file that each tensor is in."""

    kind: str
    own: Mapping[str, Tensor]
    parts: Mapping[str, int]
    num_bytes: int

    def write(self, folder: Path) -> dict[str, Entry]:
        """Write and sync the file; returns its entry in the manifest."""
        if not self.own:
            return {}
        name = self._file(next(iter(self.own)))
        files.write_tensors(folder / name, self.own)
        return {name: sync_entry(folder / name)}

    def write_index(self, folder: Path) -> None:
        """For transformers, if there are several files."""
        if len(set(self.parts.values())) > 1:
            places = {name: self._file(name) for name in sorted(self.parts)}
            index = {"metadata": {"total_size": self.num_bytes}, "weight_map": places}
            files.write_text(folder / MODEL_INDEX, json.dumps(index, indent=2) + "\n")

    def _file(self, tensor: str) -> str:
        return tensor_file(self.kind, self.parts[tensor], max(self.parts.values()) + 1)


def share_out(kind: str, tensors: Named, writers: Sequence[int], rank: int) -> Share:
    """Gather every tensor on the process that is to write it: the one with the fewest bytes so far. All call it.

    A process then holds its share of all tensors once more, in the host's memory, and never another one.
    """
    held = dict.fromkeys(writers, 0)
    places: dict[str, int] = {}
    own: dict[str, Tensor] = {}
    for name, tensor in tensors:
        writer = min(held, key=held.__getitem__)
        held[writer] += tensor.nbytes
        places[name] = writer
        whole = gather_on(tensor, writer)
        if whole is not None:
            own[name] = whole.cpu()
    used = sorted(set(places.values()))
    parts = {name: used.index(writer) for name, writer in places.items()}
    return Share(kind=kind, own=own, parts=parts, num_bytes=sum(held.values()))


@dataclass(kw_only=True, slots=True)
class TensorWriter:
    """Writes the tensors of a checkpoint. Every rank calls it, unless rank 0 saves a replicated policy alone.

    ``folder``: the checkpoint's temporary one; None on ranks that write nothing. ``is_shared``: all ranks write.
    ``meet``: what fails on one rank fails on all. ``entries``: what the manifest says of the files.
    """

    ranks: Ranks
    folder: Path | None
    is_shared: bool
    meet: Callable[[], AbstractContextManager[object]]
    entries: dict[str, Entry] = field(default_factory=dict)

    def write(self, policy: nn.Module, optimizer: Optimizer) -> None:
        """One kind of file after the other, so that no process holds its share of all kinds at once."""
        for kind, tensors in list_tensors(policy, optimizer):
            written = self._write(kind, tensors)
            for entries in self.ranks.gather([written]) if self.is_shared else [written]:
                self.entries.update(entries)

    def _write(self, kind: str, tensors: Named) -> dict[str, Entry]:
        writers = range(self.ranks.size) if self.is_shared else (0,)
        share = share_out(kind, tensors, writers, self.ranks.rank)
        written: dict[str, Entry] = {}
        with self.meet():
            if self.folder is not None:
                with explain_failure(self.folder):
                    written = share.write(self.folder)
                    if kind == MODEL and self.ranks.is_main:
                        share.write_index(self.folder)
        return written


class StoredTensors:
    """The tensors of a verified checkpoint by name, read from whichever file holds them, only the rows asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names = list_manifest_files(folder)
        self._stack = ExitStack()

    def __enter__(self) -> "StoredTensors":
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def find(self, kind: str) -> dict[str, Any]:
        """The open file of each tensor of a kind of file."""
        paths = [self.folder / name for name in find_tensor_files(self._names, kind)]
        opened = [self._stack.enter_context(safe_open(path, "pt")) for path in paths]
        return {name: file for file in opened for name in file.keys()}  # noqa: SIM118

    def read(self, file: Any, name: str, like: Tensor) -> Tensor:
        """This process's rows of a tensor that is divided as ``like`` if it has its shape; else the whole."""
        shape, rows = tuple(file.get_slice(name).get_shape()), own_rows(like)
        is_like = shape == tuple(like.shape)
        return file.get_slice(name)[rows] if rows is not None and is_like else file.get_tensor(name)


def read_adapters(folder: Path) -> dict[str, Tensor]:
    """The model's trained tensors that are not in its own files, under its names; ``folder`` has no manifest yet."""
    found: dict[str, Tensor] = {}
    for name in find_tensor_files((path.name for path in folder.iterdir()), TRAINABLE):
        with safe_open(folder / name, "pt") as file:
            keys = [key for key in file.keys() if key.startswith(MODEL_PREFIX)]  # noqa: SIM118
            found |= {key.removeprefix(MODEL_PREFIX): file.get_tensor(key) for key in keys}
    return found


def restore_tensors(policy: nn.Module, optimizer: Optimizer, folder: Path) -> None:
    """Put a verified checkpoint back into a policy and an optimizer that were made by the same recipe.

    Raises:
        CheckpointError: if the checkpoint lacks a trained parameter, or shapes differ.
    """
    with StoredTensors(folder) as stored:
        _restore_parameters(policy, stored)
        _restore_optimizer(policy, unwrap_optimizer(optimizer), stored)


def unwrap_optimizer(optimizer: Optimizer) -> Optimizer:
    """The torch optimizer inside what accelerate wrapped around it."""
    return getattr(optimizer, "optimizer", optimizer)


def needs_all_ranks(policy: nn.Module) -> bool:
    """Whether the weights are sharded over the ranks, so that none can save them alone."""
    return any(is_divided(parameter) for parameter in policy.parameters())


def _parameters(policy: nn.Module) -> dict[str, nn.Parameter]:
    return {name.removeprefix("module."): parameter for name, parameter in policy.named_parameters()}


def _trainable_names(policy: nn.Module) -> set[str]:
    return {name for name, parameter in _parameters(policy).items() if parameter.requires_grad}


def _numbered_names(policy: nn.Module, optimizer: Optimizer) -> list[str]:
    """The names of the optimizer's parameters, in the order that its state counts them."""
    names = {id(parameter): name for name, parameter in _parameters(policy).items()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


@torch.no_grad()
def _restore_parameters(policy: nn.Module, stored: StoredTensors) -> None:
    known = set(model_names(policy))
    sources = {MODEL_PREFIX + key: (file, key) for key, file in stored.find(MODEL).items() if key in known}
    sources |= {key: (file, key) for key, file in stored.find(TRAINABLE).items()}
    missing = sorted(_trainable_names(policy) - sources.keys())
    if missing:
        raise CheckpointError(
            f"{stored.folder} lacks {len(missing)} trained parameters, such as {missing[0]}; a different recipe wrote "
            "it: resume with the run's own recipe"
        )
    for name, parameter in _parameters(policy).items():
        if name in sources:
            file, key = sources[name]
            _check_shape(stored.folder, name, tuple(file.get_slice(key).get_shape()), tuple(parameter.shape))
            parameter.copy_(divide_like(stored.read(file, key, parameter), parameter))


def _check_shape(folder: Path, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise CheckpointError(
            f"{folder} does not fit the recipe's model: {name} has the shape {list(found)} there, expected "
            f"{list(expected)}; resume with the run's own recipe"
        )


def _restore_optimizer(policy: nn.Module, optimizer: Optimizer, stored: StoredTensors) -> None:
    """A parameter that had no state when it was saved (the policy during the critic's warm-up) has none after it."""
    entries: dict[str, dict[str, Any]] = {}
    for name, file in stored.find(OPTIMIZER).items():
        parameter, _, entry = name.rpartition(".")
        entries.setdefault(parameter, {})[entry] = file
    parameters = _parameters(policy)
    state: dict[int, dict[str, Tensor]] = {}
    for number, name in enumerate(_numbered_names(policy, optimizer)):
        for entry, file in entries.get(name, {}).items():
            like = parameters[name]
            found = stored.read(file, f"{name}.{entry}", like)
            is_part = is_divided(like) and found.ndim > 0
            state.setdefault(number, {})[entry] = divide_like(found, like) if is_part else found
    if state:
        # The groups' options follow from the recipe and the step.
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
