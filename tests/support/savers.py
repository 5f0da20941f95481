"""A checkpointer around a tiny policy, and a way to change the policy: checkpoints without runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from support.tiny_policies import load_tiny

from reasonrl.contracts.data import RunInfo
from reasonrl.model.critic import build_critic
from reasonrl.model.divided import divide_like, own_rows
from reasonrl.model.export import iter_own_weights, write_description
from reasonrl.model.policy import PolicyModule
from reasonrl.model.sharding import shard_policy
from reasonrl.observability.reporter import SilentReporter
from reasonrl.recipe.schema import CheckpointConfig, CriticConfig, LoraConfig, OptimizerConfig
from reasonrl.rundir.folder import RunDir
from reasonrl.rundir.layout import MODEL
from reasonrl.runs.build import build_optimizer
from reasonrl.runs.record import RunWriter
from reasonrl.runs.save import Checkpointer, ResumePoint
from reasonrl.runs.state import TrainState, read_state
from reasonrl.runs.tensors import share_out
from reasonrl.trainer.ranks import Ranks


class Unplugged:
    """No observers."""

    def observe(self, *args: Any, **options: Any) -> None: ...


class Subject:
    """A policy with optimizer and checkpointer in a run folder of its own."""

    def __init__(
        self,
        model: Path,
        run_dir: Path,
        *,
        critic: Any = "shared",
        lora: LoraConfig | None = None,
        keep: int = 1,
        keep_best: bool = False,
        optimizer: Any = "adamw",
        shards: bool = False,
    ) -> None:
        loaded = load_tiny(model, lora=lora)
        policy = PolicyModule(loaded.model, build_critic(critic, loaded.model) if critic else None)
        config = OptimizerConfig(name=optimizer, learning_rate=0.01, weight_decay=0.1)
        accelerator = Accelerator(cpu=True)
        if shards:
            shard_policy(policy, accelerator.device, torch.float32)
        built = build_optimizer(policy, config, CriticConfig(kind=critic) if critic else None)
        self.policy = accelerator.prepare_model(policy, evaluation_mode=shards)
        self.optimizer = accelerator.prepare_optimizer(built)
        self.folder = _open_folder(run_dir) if accelerator.is_main_process else None
        info = RunInfo(name="r", run_dir=run_dir, seed=0, total_steps=9, recipe={})
        writer = RunWriter(
            run_dir=self.folder,
            info=info,
            reporter=SilentReporter(),
            plugins=Unplugged(),
            transcripts_per_step=0,
        )
        self.checkpointer = Checkpointer(
            run_dir=self.folder and self.folder.path,
            ranks=Ranks(accelerator),
            tokenizer=loaded.tokenizer,
            config=CheckpointConfig(keep=keep, keep_best=keep_best),
            identity={},
            writer=writer,
        )
        self.restored: Any = None

    def learn(self, seed: int, only: str | None = None) -> None:
        """One optimizer step along random gradients; ``only`` one role's."""
        generator = torch.Generator().manual_seed(seed)
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                gradient = torch.randn(parameter.shape, generator=generator)
                if (rows := own_rows(parameter)) is not None:
                    gradient = divide_like(gradient[rows], parameter)
                parameter.grad = gradient if only in (None, group["role"]) else None
        self.optimizer.step()
        self.optimizer.zero_grad()

    def save(self, step: int, **options: Any) -> None:
        state = TrainState(step=step, progress={"position": step})
        self.checkpointer.save(self, state, **options)  # type: ignore[arg-type]

    def load(self, folder: Path, state: TrainState | None = None) -> None:
        point = ResumePoint(folder, state or read_state(folder))
        self.checkpointer.restore(self, point)  # type: ignore[arg-type]

    def restore(self, progress: Any, carried: Any = (), pending: Any = ()) -> None:
        """As a trainer does."""
        self.restored = progress

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every parameter and every entry of the optimizer's state, by name."""
        found = {name: p.detach().clone() for name, p in self.policy.named_parameters()}
        for name, parameter in self.policy.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                found[f"{name}/{key}"] = torch.as_tensor(value).clone()
        return found


def _open_folder(run_dir: Path) -> RunDir:
    return RunDir.reopen(run_dir) if run_dir.exists() else RunDir.create(output_dir=".", name="r", explicit=run_dir)


def write_model(policy: torch.nn.Module, tokenizer: Any, folder: Path) -> None:
    """The model folder of a checkpoint alone."""
    write_description(policy, tokenizer, folder)
    share_out(MODEL, iter_own_weights(policy), (0,), 0).write(folder)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """The same names, types and bits."""
    return one.keys() == other.keys() and all(
        a.dtype == other[name].dtype and torch.equal(a, other[name]) for name, a in one.items()
    )
