"""The weights of a sharded policy go to a backend tensor by tensor, in the precision that it takes."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.processes import on_ranks
from support.scripted_vllm import scripted
from support.sharded_sync import send_shards
from support.tiny_policies import load_tiny

from reasonrl.data.rollouts import BackendCalls
from reasonrl.errors import PluginContractError
from reasonrl.model.export import iter_hf_weights
from reasonrl.model.policy import PolicyModule
from reasonrl_vllm.engine import common_dtype


@pytest.mark.slow
def test_a_server_gets_what_two_processes_hold_in_its_precision(tiny_model: Path, tmp_path: Path) -> None:
    """The first process sends; both gather one tensor at a time, in two bytes a weight."""
    found: list[dict[str, torch.Tensor]] = []

    def read(body: Any) -> tuple[int, Any]:
        if body["method"] == "reload_weights":
            found.extend(load_file(path) for path in sorted(Path(body["kwargs"]["weights_path"]).iterdir()))
        return 200, {"results": [None]}

    with scripted() as script:
        script.routes["/collective_rpc"] = read
        done = on_ranks(2, send_shards, script.url, tiny_model, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (sent,) = found
    expected = dict(iter_hf_weights(PolicyModule(load_tiny(tiny_model).model), torch.bfloat16))
    assert sent.keys() == expected.keys()
    assert all(torch.equal(sent[name], tensor) for name, tensor in expected.items())
    for rank in range(2):
        gathered = json.loads((tmp_path / f"gathered-{rank}.json").read_text())
        assert {dtype for dtype, _ in gathered} == {"torch.bfloat16"}
        assert sorted(size for _, size in gathered) == sorted(tensor.numel() for tensor in expected.values())


def test_weights_are_cast_to_what_a_backend_takes() -> None:
    for given, expected in ((torch.bfloat16, torch.bfloat16), (None, None)):
        backend: Any = SimpleNamespace(weights_dtype=given)
        assert BackendCalls(backend, "backend").weights_dtype is expected
    assert BackendCalls(SimpleNamespace(), "backend").weights_dtype is None  # type: ignore[arg-type]
    wrong: Any = SimpleNamespace(weights_dtype="bfloat16")
    with pytest.raises(PluginContractError, match="weights_dtype returned str, expected a torch dtype or None"):
        _ = BackendCalls(wrong, "backend 'mine'").weights_dtype


def test_an_engine_with_weights_in_two_precisions_gets_them_as_they_are() -> None:
    low, high = torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2)
    assert common_dtype([low, low]) is torch.bfloat16
    assert common_dtype([low, high]) is None
    assert common_dtype([torch.zeros(2, dtype=torch.int8)]) is None
