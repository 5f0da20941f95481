"""vLLM's log-probabilities are the trainer's, before and after every one of five weight syncs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_policies import context_of, load_tiny
from torch import Tensor

from reasonrl import RolloutGroup, RolloutRequest, SamplingParams, TaskContext
from reasonrl.model.export import iter_hf_weights
from reasonrl.model.policy import PolicyModule
from reasonrl_countdown.config import CountdownConfig
from reasonrl_countdown.task import CountdownTask
from reasonrl_vllm.backend import VLLMBackend
from reasonrl_vllm.config import VLLMConfig

pytestmark = pytest.mark.vllm
BASE = Path(__file__).resolve().parents[2] / "plugins" / "reasonrl_countdown" / "models" / "countdown-base"
SAMPLING = SamplingParams(temperature=1.0, max_completion_tokens=16)
SYNCS = 5


@pytest.fixture(scope="module")
def loaded() -> Any:
    return load_tiny(BASE)


@pytest.fixture(scope="module")
def backend(loaded: Any) -> Iterator[VLLMBackend]:
    context = context_of(loaded, SAMPLING, BASE)
    with VLLMBackend(VLLMConfig(), context) as engine:
        yield engine


def requests(tokenizer: Any, version: int) -> list[RolloutRequest]:
    """125 problems, 8 completions each."""
    config = CountdownConfig(template="compact", min_numbers=3, max_numbers=3, max_number=20)
    task = CountdownTask(config, TaskContext(seed=version))
    problems = [task.problem("train", index) for index in range(125)]
    return [
        RolloutRequest(
            problem=problem,
            prompt_ids=tuple(tokenizer.encode(str(problem.prompt))),
            group_size=8,
            sampling=SAMPLING,
            seed=1000 * version + i,
        )
        for i, problem in enumerate(problems)
    ]


def gaps(policy: PolicyModule, groups: list[RolloutGroup]) -> Tensor:
    """|trainer - sampler| of every sampled token."""
    rows = [(group.request.prompt_ids, c) for group in groups for c in group.completions]
    width = max(len(prompt) + len(c.token_ids) for prompt, c in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.int64)
    attention, response = torch.zeros(ids.shape, dtype=torch.bool), torch.zeros(ids.shape, dtype=torch.bool)
    sampler = torch.zeros(ids.shape)
    for row, (prompt, completion) in enumerate(rows):
        end = len(prompt) + len(completion.token_ids)
        ids[row, :end] = torch.tensor(prompt + completion.token_ids)
        attention[row, :end] = True
        response[row, len(prompt) : end] = True
        sampler[row, len(prompt) : end] = torch.tensor(completion.logprobs)
    with torch.no_grad():
        output = policy(ids, attention, response, temperature=SAMPLING.logprob_temperature)
    return (output.logprobs - sampler)[response].abs()


def disturb(policy: PolicyModule, seed: int) -> None:
    """As an update would, only more: every weight moves by a fiftieth of its matrix's spread."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.02 * parameter.std() * noise)


def test_a_thousand_completions_agree_before_and_after_each_sync(loaded: Any, backend: VLLMBackend) -> None:
    policy = PolicyModule(loaded.model)
    for version in range(SYNCS + 1):
        if version:
            disturb(policy, version)
            stale = gaps(policy, backend.generate(requests(loaded.tokenizer, version)[:10]))
            assert float(stale.mean()) > 1e-3, "the weights have not changed enough to be noticed"
        backend.sync_weights(iter_hf_weights(policy), policy_version=version)
        groups = backend.generate(requests(loaded.tokenizer, version))
        assert {c.policy_version for group in groups for c in group.completions} == {version}
        assert sum(len(group.completions) for group in groups) == 1000
        gap = gaps(policy, groups)
        assert float(gap.max()) < 1e-4, version
