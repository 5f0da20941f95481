"""Weight transfer from the trainer to a `vllm serve`: through shared files, or from GPU to GPU."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import torch
from torch import Tensor

from reasonrl.errors import RAISABLE, RolloutError
from reasonrl_vllm.client import Client
from reasonrl_vllm.failures import first_cause
from reasonrl_vllm.fleet import Fleet

SHARD_BYTES = 1 << 30
MAX_WORKERS = 10_000


class Transfer(Protocol):
    """A weight transfer. If ``send`` raises RolloutError, the server's weights are undefined.

    ``survives_restart``: the next ``send`` works after a restart of the server.
    """

    survives_restart: bool

    def send(self, weights: Iterable[tuple[str, Tensor]]) -> None: ...

    def close(self) -> None: ...


class FolderTransfer:
    """Writes safetensors into a temporary folder, lets all servers load them, and removes the folder."""

    survives_restart = True

    def __init__(self, fleet: Fleet[Any], *, dtype: torch.dtype, sync_dir: str | None) -> None:
        self._fleet, self._dtype, self._sync_dir = fleet, dtype, sync_dir

    def send(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        from safetensors import SafetensorError

        try:
            with tempfile.TemporaryDirectory(prefix="reasonrl-weights-", dir=self._sync_dir) as folder:
                write_shards(weights, Path(folder), self._dtype)
                self._fleet.each(lambda server: read_folder(server.client, folder))
        except (OSError, SafetensorError) as error:
            where = self._sync_dir or tempfile.gettempdir()
            raise RolloutError(
                f"vllm: cannot write the weights to {where}: {error}; set rollout_backend.sync_dir to another folder"
            ) from error

    def close(self) -> None:
        """Do nothing."""


def read_folder(client: Client, folder: str) -> None:
    """Let a server load the weights of a folder.

    Raises:
        RolloutError: if it does not.
    """
    # A server started with dummy weights would not read files.
    overrides = {"load_config": {"load_format": "safetensors"}}
    call(client, "update_config", {"overrides": overrides})
    call(client, "reload_weights", {"weights_path": folder})


def call(client: Client, method: str, arguments: dict[str, Any]) -> None:
    """Call a method of the server's workers.

    Raises:
        RolloutError: if it fails there.
    """
    reply = client.ask("POST", "/collective_rpc", {"method": method, "kwargs": arguments})
    if not reply.is_good:
        raise RolloutError(
            f"vllm: weight sync to {client.url} failed: {reply.message}; check its log, that it can read the trainer's "
            "files (same machine and user, or rollout_backend.sync_dir), and that it serves the recipe's model"
        )


def write_shards(weights: Iterable[tuple[str, Tensor]], folder: Path, dtype: torch.dtype) -> None:
    """Write weights as ``dtype`` in shards of about a GiB, so that they need not all fit into memory."""
    from safetensors.torch import save_file

    shard: dict[str, Tensor] = {}
    size = count = 0
    for name, tensor in weights:
        # Copy: a file may not hold one tensor under two names.
        shard[name] = tensor.detach().to("cpu", dtype, copy=True).contiguous()
        size += shard[name].nbytes
        if size >= SHARD_BYTES:
            save_file(shard, folder / f"{count:05d}.safetensors")
            shard, size, count = {}, 0, count + 1
    if shard:
        save_file(shard, folder / f"{count:05d}.safetensors")


class NCCLTransfer:
    """vLLM's NCCL transfer: broadcasts from this GPU to the server's workers. Untested: it needs two GPUs.

    What is sent must be told before it is sent. The first time the weights wait in the host's memory, which has room
    for all of a sharded model; later they pass.
    """

    survives_restart = False

    def __init__(self, client: Client, *, dtype: torch.dtype, device: torch.device) -> None:
        self._client, self._control, self._dtype = client, ControlClient(client), dtype
        self._device = device
        self._meta: list[Any] | None = None
        self._engine: Any = None

    def send(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        if self._meta is None:
            weights = [(name, tensor.detach().to("cpu", self._dtype)) for name, tensor in weights]
            self._meta = [(name, self._dtype, tuple(tensor.shape)) for name, tensor in weights]
        try:
            if self._engine is None:
                self._engine = self._connect()
            self._engine.source = source(weights, self._meta, self._device)
            if self._device.type == "cuda":  # wait for the optimizer: NCCL reads on its own stream
                torch.cuda.current_stream(self._device).synchronize()
            self._engine.send_weights()
        except RolloutError as error:
            raise RolloutError(f"{error}; restart the server") from error
        except RAISABLE as error:  # NCCL and vLLM may raise anything
            raise RolloutError(
                f"vllm: weight sync to {self._client.url} failed: {first_cause(error)}; restart the server"
            ) from error

    def _connect(self) -> Any:
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        address = own_address(self._client.url)
        found = self._client.get("/get_world_size")
        workers = found.get("world_size") if isinstance(found, dict) else None
        if not isinstance(workers, int) or isinstance(workers, bool) or not 1 <= workers <= MAX_WORKERS:
            raise RolloutError(f"vllm: {self._client.url} reports a world size of {workers!r:.60}; restart the server")
        info = NCCLTrainerInitInfo(
            rank=0, master_address=address, master_port=free_port(address), world_size=workers + 1
        )
        return WeightTransferTrainerFactory.trainer_init(
            info, client=self._control, source=source((), [], self._device)
        )

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            with suppress(RolloutError):  # a server that is gone needs no shutdown
                self._control.shutdown_weight_transfer_engine()
            engine.shutdown()


class ControlClient:
    """Control requests of vLLM's trainer side, over our connections. None may be retried."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._client.post("/init_weight_transfer_engine", {"init_info": init_info}, again=False)

    def shutdown_weight_transfer_engine(self) -> None:
        self._client.post("/shutdown_weight_transfer_engine", again=False)

    def start_weight_update(self) -> None:
        self._client.post("/start_weight_update", again=False)

    def update_weights(self, update_info: Any) -> None:
        self._client.post("/update_weights", {"update_info": update_info}, again=False)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        body = None if weight_version is None else {"weight_version": weight_version}
        self._client.post("/finish_weight_update", body, again=False)


def source(
    weights: Iterable[tuple[str, Tensor]],
    meta: list[tuple[str, torch.dtype, tuple[int, ...]]],
    device: torch.device,
) -> Any:
    """Wrap one round of weights as vLLM's ``WeightSource``, with names, dtypes and shapes."""
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    class Source(WeightSource):
        def metadata(self) -> list[ParamMeta]:
            return [ParamMeta(*entry) for entry in meta]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            for (name, tensor), (_, dtype, _) in zip(weights, meta, strict=True):
                yield name, tensor.detach().to(device, dtype)

    return Source()


def own_address(url: str) -> str:
    """Return the address of this machine as seen from the server at ``url``."""
    parts = urlsplit(url)
    family = socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((parts.hostname or "", parts.port or 80))  # sends nothing
        return str(probe.getsockname()[0])


def free_port(address: str) -> int:
    """Return a free port of this machine."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
