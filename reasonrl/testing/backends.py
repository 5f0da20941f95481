"""Subjects of rollout backend checks: a tiny policy, a backend for it, and the expected outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from reasonrl.contracts.data import (
    Completion,
    FinishReason,
    Problem,
    RolloutGroup,
    RolloutRequest,
    SamplingParams,
    Transcript,
    Turn,
)
from reasonrl.contracts.protocols import RolloutBackend, RolloutContext
from reasonrl.contracts.specs import RolloutBackendSpec
from reasonrl.conversations.loop import Dialogue, converse
from reasonrl.conversations.replies import Reply
from reasonrl.data.render import PromptRenderer
from reasonrl.model.export import iter_hf_weights
from reasonrl.testing.checks import require
from reasonrl.testing.policies import TinyPolicy, forward_logprobs, steer, tiny_policy
from reasonrl.testing.subjects import Subject
from reasonrl.trainer.ranks import Ranks

LETTERS = tuple(range(65, 91))
"""Symbols of the byte tokenizer whose text is a letter; ``BackendSubject.letters`` has their ids."""
MAX_PROMPT_TOKENS = 64
REPLY = "?"
"""What the other side of a conversation says; no letter."""
SHAPE = {"hidden": 128, "heads": 4, "kv_heads": 2}
"""Shape of the tiny model: some backends need a head size of at least 32."""


class _Asks:
    def respond(self, transcripts: Sequence[Transcript]) -> list[Reply]:
        return [Reply(turn=Turn(content=REPLY), state={}) for _ in transcripts]


@dataclass(kw_only=True)
class BackendSubject(Subject):
    """A rollout backend on a tiny policy. One backend serves all checks, because some take minutes to start."""

    spec: RolloutBackendSpec
    device: str = "cpu"
    tolerance: float = 1e-3
    """Tolerance of log-probabilities against the forward pass, in nats."""
    shape: Mapping[str, object] = field(default_factory=dict)
    entered: list[RolloutBackend] = field(default_factory=list)
    version: int = 0

    @cached_property
    def folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="reasonrl-check-")

    @cached_property
    def tiny(self) -> TinyPolicy:
        path = Path(self.folder.name) / "model"
        return tiny_policy(path, seed=7, device=torch.device(self.device), tie=False, **{**SHAPE, **self.shape})

    @cached_property
    def original(self) -> dict[str, Tensor]:
        """Return the initial weights."""
        return {name: p.detach().clone() for name, p in self.tiny.policy.named_parameters()}

    def new(self) -> RolloutBackend:
        context = RolloutContext(
            policy=self.tiny.policy,
            tokenizer=self.tiny.tokenizer,
            sampling=SamplingParams(max_completion_tokens=32),
            device=torch.device(self.device),
            model_path=str(self.tiny.path),
            max_prompt_tokens=MAX_PROMPT_TOKENS,
        )
        return self.make(context)

    @cached_property
    def backend(self) -> RolloutBackend:
        made = self.new()
        self.entered.append(made)
        return made.__enter__()

    def close(self) -> None:
        """Stop the backend, if started, and delete the model."""
        for backend in self.entered:
            backend.__exit__(None, None, None)
        self.entered.clear()
        self.folder.cleanup()

    def sync(self) -> None:
        """Sync the policy's current weights to the backend."""
        self.version += 1
        self.backend.sync_weights(iter_hf_weights(self.tiny.policy), policy_version=self.version)

    def token(self, letter: str) -> int:
        return self.tiny.tokenizer.encode(letter)[0]

    @property
    def eos(self) -> int:
        return self.tiny.tokenizer.eos_token_id

    def say(self, logits: Mapping[int, float], *, flat: bool = False) -> None:
        """Set weights that prefer some tokens, in policy and backend."""
        with torch.no_grad():
            for name, parameter in self.tiny.policy.named_parameters():
                parameter.copy_(self.original[name])
        steer(self.tiny, logits, flat=flat)
        self.sync()

    def say_letters(self, eos: float = -30.0) -> None:
        """Set weights that generate letters depending on the context; EOS has this logit."""
        self.say({**{self.token(chr(code)): 0.0 for code in LETTERS}, self.eos: eos})

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Sample, and check type and number of the groups."""
        groups = self.backend.generate(requests)
        kinds = isinstance(groups, list) and all(isinstance(group, RolloutGroup) for group in groups)
        require(kinds, f"generate returned {type(groups).__name__}, expected a list of RolloutGroup")
        require(len(groups) == len(requests), f"got {len(groups)} groups for {len(requests)} requests")
        return groups

    def converse(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Sample conversations with someone who always says ``REPLY``."""
        dialogue = Dialogue(responder=_Asks(), max_turns=9)
        ranks = Ranks(Accelerator(cpu=True))
        return converse(self.backend, requests, PromptRenderer(self.tiny.tokenizer), ranks, dialogue)

    def complete(self, request: RolloutRequest) -> list[Completion]:
        return list(self.generate([request])[0].completions)

    def request(
        self, text: str = "AB", *, size: int = 1, seed: int = 0, sampling: SamplingParams | None = None
    ) -> RolloutRequest:
        return RolloutRequest(
            problem=Problem(id=f"check/{text}/{seed}", prompt=text),
            prompt_ids=tuple(self.tiny.tokenizer.encode(text)),
            group_size=size,
            sampling=sampling or SamplingParams(max_completion_tokens=12),
            seed=seed,
        )

    def expected(self, request: RolloutRequest, completion: Completion) -> Tensor:
        """Compute ``[L, V]``: ln p of the vocabulary before each completion token, at the request's temperature."""
        logits = forward_logprobs(self.tiny, request.prompt_ids, completion.token_ids)
        return torch.log_softmax(logits / request.sampling.logprob_temperature, dim=-1)

    def visible(self, completion: Completion) -> tuple[int, ...]:
        """Return the tokens without the final EOS."""
        ended = completion.finish_reason is FinishReason.EOS
        return completion.token_ids[:-1] if ended else completion.token_ids

    def text_of(self, tokens: Sequence[int]) -> str:
        return self.tiny.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
