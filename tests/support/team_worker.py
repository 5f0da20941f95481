"""Four processes in teams of two ask a backend that answers with what it was asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reasonrl.errors import RolloutError
from reasonrl_vllm.parallel import Team
from reasonrl_vllm.requests import Answer

PROMPTS = {0: 2, 1: 1, 2: 0, 3: 3}
"""Rank -> how many it has."""


def ask_together(folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    team = Team(2)
    report = [f"asked {ask(team, rank)}", *(f"nobody asked {ask(team, rank, without=True)}",)]
    try:
        with team.together():
            if rank == 1:
                raise RolloutError("the prompt has no tokens")
    except RolloutError as error:
        report.append(str(error))
    report.append(team.name)
    team.close()
    team.close()
    torch.distributed.barrier()
    (folder / f"{rank}.txt").write_text("\n".join(report))


def ask(team: Team, rank: int, *, without: bool = False) -> tuple[list[list[int]], list[tuple[int, ...]]]:
    """What the backend saw, and what came back."""
    seen: list[list[int]] = []

    def generate(prompts: Sequence[Sequence[int]], options: Sequence[dict[str, Any]]) -> list[list[Answer]]:
        seen.extend([*prompt, option["seed"]] for prompt, option in zip(prompts, options, strict=True))
        return [[Answer(token_ids=tuple(prompt), logprobs=(), finished=None, stopped_by=None)] for prompt in prompts]

    mine = [] if without else [(rank, i) for i in range(PROMPTS[rank])]
    answers = team.ask(generate, mine, [{"seed": 7 + i} for _, i in mine])
    return seen, [answer.token_ids for (answer,) in answers]
