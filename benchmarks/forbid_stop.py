"""A rollout backend for one control: ``hf`` with the token that gives up forbidden.

Used as ``rollout_backend.name=hf_no_stop`` with ``--plugin benchmarks/forbid_stop.py``. Evaluation only: training with
it would compare log-probabilities of two different distributions.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from reasonrl import RolloutBackendSpec, RolloutContext, RolloutGroup, RolloutRequest, hookimpl

GIVES_UP = "stop\n"


class NoStopBackend:
    """``hf``, its model's logit of the give-up token at minus infinity while it samples."""

    def __init__(self, config: Any, context: RolloutContext) -> None:
        from reasonrl_hf.backend import HFBackend
        from reasonrl_hf.config import HFConfig

        self._inner = HFBackend(HFConfig(), context)
        (self._token_id,) = context.tokenizer(GIVES_UP, add_special_tokens=False)["input_ids"]
        self._head = context.policy.model.get_output_embeddings()

    def __enter__(self) -> "NoStopBackend":
        self._inner.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._inner.__exit__(*exc)

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        handle = self._head.register_forward_hook(self._forbid)
        try:
            return self._inner.generate(requests)
        finally:
            handle.remove()

    def sync_weights(self, weights: Iterable[Any], *, policy_version: int) -> None:
        self._inner.sync_weights(weights, policy_version=policy_version)

    def _forbid(self, module: Any, args: Any, logits: Any) -> Any:
        logits = logits.clone()
        logits[..., self._token_id] = float("-inf")
        return logits


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    yield RolloutBackendSpec(name="hf_no_stop", summary="hf without the token that gives up.", factory=NoStopBackend)
