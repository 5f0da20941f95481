"""The rollout backend ``vllm``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from reasonrl import RolloutContext, RolloutGroup, RolloutRequest
from reasonrl.contracts.models import eos_token_ids
from reasonrl.errors import RolloutError
from reasonrl_vllm.checks import check_options, model_context
from reasonrl_vllm.config import VLLMConfig
from reasonrl_vllm.engine import LocalEngine, check_version
from reasonrl_vllm.parallel import Team, process_count
from reasonrl_vllm.requests import Answer, Limits, Reader, check_request, sampling_options
from reasonrl_vllm.server import ServerEngine
from reasonrl_vllm.server_checks import inspect_servers


class Engine(Protocol):
    """A vLLM engine, in process or remote.

    ``max_model_len``: maximum prompt and completion length in tokens. ``weights_dtype``: what it takes weights in.
    """

    max_model_len: int
    weights_dtype: torch.dtype | None

    def generate(self, prompts: Sequence[Sequence[int]], options: Sequence[dict[str, Any]]) -> list[list[Answer]]: ...

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None: ...

    def release(self) -> bool: ...

    def close(self) -> None: ...


class VLLMBackend:
    """Samples with vLLM. A group is one request, so its prompt is prefilled once.

    The engine has its own copy of the weights, renewed after each update.

    Raises:
        RolloutError: if the installation, the options or the machine do not allow it.
    """

    def __init__(self, config: VLLMConfig, context: RolloutContext) -> None:
        check_version()
        self._servers = inspect_servers(config, context) if config.mode == "server" else []
        if not self._servers:
            check_options(config, context, process_count())
        self._config = config
        self._context = context
        self._engine: Engine | None = None
        self._team: Team | None = None
        self._policy_version: int | None = None
        self._reader = Reader(context.tokenizer)
        self._eos_ids = eos_token_ids(context.policy.model, context.tokenizer)

    def __enter__(self) -> VLLMBackend:
        """Start the engine, or connect to it.

        Raises:
            RolloutError: if it does not start.
        """
        team = Team(self._config.tensor_parallel_size)
        try:
            self._engine = self._start(team)
        except RolloutError:
            team.close()
            raise
        self._team = team
        return self

    def _start(self, team: Team) -> Engine:
        if self._servers:
            return ServerEngine(self._config, self._context, self._servers)
        return LocalEngine(self._config, self._context, team)

    def __exit__(self, *exc: object) -> None:
        engine, team, self._engine, self._team = self._engine, self._team, None, None
        if engine is not None:
            engine.close()
        if team is not None:
            team.close()

    @property
    def weights_dtype(self) -> torch.dtype | None:
        """The precision of the engine's weights, if they all have the same."""
        engine, _ = self._running()
        return engine.weights_dtype

    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], *, policy_version: int) -> None:
        """Load ``weights`` into the engine and reset its prefix cache.

        Raises:
            RolloutError: if the engine's model does not take them.
        """
        engine, _ = self._running()
        self._policy_version = None  # after a failure the engine's weights are undefined
        engine.load_weights(weights, policy_version)
        self._policy_version = policy_version

    def release(self) -> bool:
        """Free the engine's memory until the next ``sync_weights``, as ``sleep`` says."""
        engine, _ = self._running()
        if engine.release():
            self._policy_version = None
            return True
        return False

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Sample every request's group, in order.

        Raises:
            RolloutError: if there are no weights yet, a request does not fit the engine, or the engine fails.
        """
        engine, team = self._running()
        if self._policy_version is None:
            raise RolloutError("vllm: no weights yet; call sync_weights before generate")
        limits = self._limits(engine)
        with team.together():
            for request in requests:
                check_request(request, limits)
        answers = team.ask(
            engine.generate,
            [request.prompt_ids for request in requests],
            [sampling_options(request, self._eos_ids) for request in requests],
        )
        return [self._group(*pair) for pair in zip(requests, answers, strict=True)]

    def _group(self, request: RolloutRequest, answers: Sequence[Answer]) -> RolloutGroup:
        version = self._policy_version or 0
        completions = tuple(self._reader.completion(answer, version) for answer in answers)
        if request.sampling.is_greedy:
            completions *= request.group_size
        if len(completions) != request.group_size:
            raise RolloutError(f"vllm: expected {request.group_size} completions, got {len(completions)}")
        return RolloutGroup(request=request, completions=completions)

    def _limits(self, engine: Engine) -> Limits:
        context = model_context(self._context)
        is_model = context is not None and engine.max_model_len >= context
        option = "rollout_backend.max_model_len" if not self._servers else "the server's --max-model-len"
        return Limits(context=engine.max_model_len, option="the model's context" if is_model else option)

    def _running(self) -> tuple[Engine, Team]:
        if self._engine is None or self._team is None:
            raise RolloutError("vllm: the engine is not running; use the backend in a with statement")
        return self._engine, self._team
