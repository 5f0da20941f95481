"""Transcripts: prompts, completions, rewards and reasons as JSON records."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

from reasonrl.contracts.data import Completion, Problem, ScoredGroup
from reasonrl.redact import redact_text

SCHEMA_VERSION = 1


def transcript_records(
    groups: Sequence[ScoredGroup],
    limit: int | None = None,
    token_figures: Sequence[Mapping[str, Any] | None] = (),
) -> Iterator[dict[str, object]]:
    """Yield one record per completion, at most ``limit``; the first ones with their ``token_figures``."""
    figures = chain(token_figures, repeat(None))
    count = 0
    for group in groups:
        for sample, (completion, reward) in enumerate(zip(group.group.completions, group.rewards, strict=True)):
            if limit is not None and count >= limit:
                return
            count += 1
            problem = group.group.request.problem
            of_tokens = next(figures)
            if of_tokens is not None and redact_text(completion.text) != completion.text:
                of_tokens = None  # the tokens of a text that is stored otherwise have no place in it
            record = {
                "schema": SCHEMA_VERSION,
                "problem_id": problem.id,
                "sample": sample,
                "prompt": plain_prompt(problem),
                "prompt_text": group.group.request.prompt_text,
                "info": dict(problem.info),
                "completion": completion.text,
                "prompt_tokens": len(group.group.request.prompt_ids),
                "completion_tokens": completion.sampled_tokens,
                "finish_reason": completion.finish_reason.value,
                "policy_version": completion.policy_version,
                "reward": reward.total,
                "components": dict(reward.components),
                "correct": reward.correct,
                "answer": reward.answer,
                "reasons": dict(reward.reasons),
                **_conversation(completion),
            }
            yield record if of_tokens is None else {**record, "tokens": of_tokens}


def _conversation(completion: Completion) -> dict[str, object]:
    """What a conversation has besides: its messages, and how many tokens are the task's."""
    if not completion.messages:
        return {}
    calls = {"tool_calls": dict(completion.tool_calls)} if completion.tool_calls else {}
    return {
        "messages": [{"role": str(m.role), "content": m.content} for m in completion.messages],
        "environment_tokens": len(completion.token_ids) - completion.sampled_tokens,
        **calls,
    }


def plain_prompt(problem: Problem) -> str | list[dict[str, str]]:
    """Convert a prompt to JSON: raw text with its assistant prefix, or a list of messages."""
    if isinstance(problem.prompt, str):
        return problem.prompt + problem.assistant_prefix
    messages = [{"role": str(m.role), "content": m.content} for m in problem.prompt]
    if problem.assistant_prefix:
        messages.append({"role": "assistant", "content": problem.assistant_prefix})
    return messages


def as_turns(prompt: str | list[dict[str, str]]) -> str:
    """Format a plain prompt: raw text verbatim, a conversation as ``role: text`` separated by blank lines."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
