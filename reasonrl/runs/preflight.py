"""Render and measure all prompts known before step 1, before anything is written."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from reasonrl.contracts.models import base_model
from reasonrl.conversations.loop import Dialogue
from reasonrl.data.prompts import PromptCheck, PromptLimit, PromptSource, check_lines, fitting, judge, measure
from reasonrl.data.stream import ProblemStream, fetch_problem, fetch_size
from reasonrl.data.turns import refuse_rewriting
from reasonrl.evaluation.suites import Suite
from reasonrl.recipe.sampling import SamplingConfig
from reasonrl.runs.sources import describe_shortage
from reasonrl.trainer.bundle import ModelBundle

log = logging.getLogger(__name__)

FIRST_PROMPTS = 32
"""Of an endless task, as many prompts are tried before step 1."""
MAX_PASSED_OVER = 1000
"""Overlong prompts of an endless eval split that a suite passes over to find its problems."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """Training prompts and suites that hold no overlong prompt, and what was found on the way.

    ``data``: how the rows that were read are used, for the header.
    """

    source: PromptSource | None
    suites: Sequence[Suite]
    checks: Sequence[PromptCheck]
    data: Sequence[str] = ()

    def lines(self) -> Iterator[tuple[str, str]]:
        """For the header of a run."""
        if self.source is not None and self.source.stream.size is None:
            over = "is replaced" if self.source.redraws else "stops the run"
            limit = self.source.limit.tokens
            yield "prompts", f"train: endless, checked during training; a prompt over {limit:,} tokens {over}"
        for line in check_lines(self.checks):
            yield "prompts", line


def preflight(
    bundle: ModelBundle,
    sampling: SamplingConfig,
    suites: Sequence[Suite],
    stream: ProblemStream | None = None,
    data: Sequence[str] = (),
    *,
    dialogue: Dialogue | None = None,
) -> Preflight:
    """Check every prompt of the suites and of ``stream``, the training problems.

    Overlong prompts that do not stop the run are left out of a finite split; a suite takes the next problem instead,
    if there is one. Of an endless task the first prompts are tried.

    Args:
        dialogue: how the training task replies.

    Raises:
        RecipeError: if a prompt is overlong and stops the run, or cannot be rendered, or if the chat template would
            change what the model has written before.
    """
    checks: list[PromptCheck] = []
    source = None
    if stream is not None:
        source = PromptSource(stream, bundle.renderer, prompt_limit(bundle, sampling, sampling.max_completion_tokens))
        checks += _check_training(source, bundle)
    with bundle.ranks.together():
        if source is not None and dialogue is not None:
            refuse_rewriting(bundle.renderer, sampling.rewritten_history, source.draw(0).problem, dialogue.role)
        checked = [_check_suite(suite, bundle, sampling) for suite in suites]
        for suite, _ in checked:
            if suite.indices and suite.dialogue is not None:
                problem = fetch_problem(suite.task, suite.task_name, "eval", suite.indices[0])
                refuse_rewriting(bundle.renderer, sampling.rewritten_history, problem, suite.dialogue.role)
    for suite, _ in checked:
        if suite.problems < suite.asked and bundle.ranks.is_main:
            log.warning("suite %s", describe_shortage(suite.name, suite.asked, suite.problems))
    return Preflight(
        source=source,
        suites=[suite for suite, _ in checked],
        checks=[*checks, *(check for _, check in checked)],
        data=data,
    )


def prompt_limit(bundle: ModelBundle, sampling: SamplingConfig, completion_tokens: int) -> PromptLimit:
    """The limit of prompts beside completions of ``completion_tokens``."""
    config = base_model(bundle.policy.model).config.get_text_config()
    return PromptLimit(
        max_prompt_tokens=sampling.max_prompt_tokens,
        completion_tokens=completion_tokens,
        context=getattr(config, "max_position_embeddings", None),
        overlong=sampling.overlong_prompts,
    )


def _check_training(source: PromptSource, bundle: ModelBundle) -> list[PromptCheck]:
    stream, ranks, limit = source.stream, bundle.ranks, source.limit
    if stream.size is None:
        with ranks.together():
            for position in range(FIRST_PROMPTS):
                source.draw(position)
        return []
    with ranks.together():
        mine = list(measure(stream.fetch, range(ranks.rank, stream.size, ranks.size), bundle.renderer))
    measured = sorted(ranks.gather(mine))
    with ranks.together():
        check = judge("train", stream.fetch, measured, limit)
        stream.leave_out([index for index, tokens in measured if tokens > limit.tokens])
    return [check]


def _check_suite(suite: Suite, bundle: ModelBundle, sampling: SamplingConfig) -> tuple[Suite, PromptCheck]:
    limit = prompt_limit(bundle, sampling, suite.sampling.max_completion_tokens)
    fetch = partial(fetch_problem, suite.task, suite.task_name, "eval")
    wanted = len(suite.indices)
    if limit.overlong == "stop":
        measured = list(measure(fetch, suite.indices, bundle.renderer))
    else:
        size = fetch_size(suite.task, suite.task_name, "eval")
        candidates = range(wanted + MAX_PASSED_OVER if size is None else size)
        measured = fitting(fetch, candidates, wanted, bundle.renderer, limit)
    check = judge(suite.name, fetch, measured, limit)
    kept = [index for index, tokens in measured if tokens <= limit.tokens]
    return replace(suite, indices=kept), check
