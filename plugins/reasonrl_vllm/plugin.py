"""Registers the rollout backend ``vllm``. Imports neither torch nor vLLM: listing plugins must stay fast."""

from collections.abc import Iterable

from reasonrl import RolloutBackendSpec, hookimpl
from reasonrl.contracts.install import install_extra
from reasonrl_vllm.config import VLLMConfig


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    """Sampling with vLLM."""
    yield RolloutBackendSpec(
        name="vllm",
        summary="Samples with vLLM, in the trainer's process or on a server; fast, with a second copy of the weights.",
        factory="reasonrl_vllm.backend:VLLMBackend",
        config=VLLMConfig,
        truncates=True,
        samples_during_update=lambda config: config.mode == "server",
        modules=("vllm",),
        install=f"{install_extra('vllm')} (without a GPU: docs/vllm.md)",
        papers=("arXiv:2309.06180",),
    )
