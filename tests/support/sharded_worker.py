"""A checkpoint of sharded (FSDP version 2) or replicated (DDP) modules, read back on as many ranks."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from support.tiny_policies import load_tiny
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from reasonrl.model.critic import build_critic
from reasonrl.model.export import gather_model, write_model
from reasonrl.model.policy import PolicyModule
from reasonrl.recipe.schema import CriticConfig, OptimizerConfig
from reasonrl.rundir.manifest import write_manifest
from reasonrl.runs.build import build_optimizer
from reasonrl.runs.tensors import gather, scatter


def build(model: Path, kind: str, optimizer_name: Any) -> tuple[torch.nn.Module, torch.optim.Optimizer, object]:
    loaded = load_tiny(model)
    policy = PolicyModule(loaded.model, build_critic("shared", loaded.model))
    if kind == "fsdp":
        fully_shard(policy, mesh=torch.distributed.init_device_mesh("cpu", (dist.get_world_size(),)))
    config = OptimizerConfig(name=optimizer_name, learning_rate=0.01)
    optimizer = build_optimizer(policy, config, CriticConfig(kind="shared"))
    return (DistributedDataParallel(policy) if kind == "ddp" else policy), optimizer, loaded.tokenizer


def learn(policy: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for parameter in policy.parameters():
            parameter.grad = parameter.detach() * 0.1 + step
        optimizer.step()
        optimizer.zero_grad()


def everything(policy: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = gather(policy, optimizer)
    weights = {name: tensor.cpu().clone() for name, tensor in gather_model(policy).items()}
    return {**weights, **state.trainable, **state.optimizer}


def save_and_read_back(kind: str, model: Path, folder: Path, name: str = "adamw") -> None:
    dist.init_process_group("gloo")
    policy, optimizer, tokenizer = build(model, kind, name)
    learn(policy, optimizer, range(3))
    weights, state = gather_model(policy, keep=dist.get_rank() == 0), gather(policy, optimizer)
    if dist.get_rank() == 0:
        folder.mkdir()
        write_model(policy, tokenizer, folder, weights)
        state.write(folder)
        write_manifest(folder)
    dist.barrier()
    other, other_optimizer, _ = build(model, kind, name)
    scatter(other, other_optimizer, folder)
    for subject in ((policy, optimizer), (other, other_optimizer)):
        learn(*subject, range(3, 5))
    one, two = everything(policy, optimizer), everything(other, other_optimizer)
    if dist.get_rank() == 0:
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert any(name.endswith("exp_avg") for name in one)
        torch.save(one, folder / "after.pt")
    dist.barrier()
    dist.destroy_process_group()
