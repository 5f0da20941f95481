"""Weights from GPU to GPU, as far as that goes without a GPU: what the server is told, and what is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.scripted_vllm import Script, refuses, scripted
from torch import Tensor

from reasonrl.errors import RolloutError
from reasonrl_vllm.client import Client
from reasonrl_vllm.transfer import NCCLTransfer, free_port, own_address

pytestmark = pytest.mark.vllm
CPU = torch.device("cpu")
ROUND = ["/start_weight_update", "/update_weights", "/finish_weight_update"]


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted() as server:
        for path in ("/init_weight_transfer_engine", "/shutdown_weight_transfer_engine", *ROUND):
            server.routes[path] = lambda body: (200, {})
        yield server


@pytest.fixture
def client(script: Script) -> Iterator[Client]:
    with Client(script.url, timeout_s=10, retry_s=0, advice="start it") as made:
        yield made


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, Tensor]]]:
    """What vLLM's trainer side would broadcast, after its own comparison with what it announced."""
    from vllm.distributed.weight_transfer import nccl_engine

    rounds: list[list[tuple[str, Tensor]]] = []

    class Group:
        def destroy(self) -> None:
            rounds.append([])

    def broadcast(self: Any, source: Any, meta: Any) -> None:
        rounds.append(list(self._checked_iter(source, meta)))

    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: Group())
    monkeypatch.setattr(nccl_engine.NCCLTrainerWeightTransferEngine, "_broadcast", broadcast)
    return rounds


def weights(value: float) -> Iterator[tuple[str, Tensor]]:
    yield "a", torch.full((2, 3), value)
    yield "b", torch.full((4,), value)


def test_every_round_tells_and_sends_all_weights(
    script: Script, client: Client, sent: list[list[tuple[str, Tensor]]]
) -> None:
    transfer = NCCLTransfer(client, dtype=torch.bfloat16, device=CPU)
    for value in (1.0, 2.0):
        transfer.send(weights(value))
    transfer.close()
    transfer.close()
    assert script.paths() == [
        "/get_world_size",
        "/init_weight_transfer_engine",
        *ROUND,
        *ROUND,
        "/shutdown_weight_transfer_engine",
    ]
    said = dict(script.seen)
    assert said["/init_weight_transfer_engine"]["init_info"]["world_size"] == 3
    assert said["/init_weight_transfer_engine"]["init_info"]["master_address"] == "127.0.0.1"
    assert said["/update_weights"]["update_info"] == {
        "names": ["a", "b"],
        "dtype_names": ["bfloat16", "bfloat16"],
        "shapes": [[2, 3], [4]],
    }
    assert [[float(tensor.flatten()[0]) for _, tensor in pairs] for pairs in sent] == [[1, 1], [2, 2], []]


def test_other_weights_than_announced_are_an_error(
    script: Script, client: Client, sent: list[list[tuple[str, Tensor]]]
) -> None:
    transfer = NCCLTransfer(client, dtype=torch.float32, device=CPU)
    transfer.send(weights(1.0))
    with pytest.raises(RolloutError, match=r"weight sync to .* failed: ValueError.*; restart the server"):
        transfer.send([("a", torch.zeros(2, 3))])


def test_a_server_that_refuses_is_named(script: Script, client: Client, sent: list[list[tuple[str, Tensor]]]) -> None:
    script.routes["/start_weight_update"] = refuses(500, "already active")
    with pytest.raises(RolloutError, match="/start_weight_update refused: 500 already active"):
        NCCLTransfer(client, dtype=torch.float32, device=CPU).send(weights(1.0))


def test_the_server_is_told_where_the_trainer_is() -> None:
    assert own_address("http://127.0.0.1:8000") == "127.0.0.1"
    assert 1024 <= free_port("127.0.0.1") < 65536
