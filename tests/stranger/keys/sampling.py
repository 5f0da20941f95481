"""How completions are drawn, seen in transcripts and evaluations."""

import re
import string

from stranger.keys.registry import BOTH, effect
from stranger.lab import Lab


@effect("sampling.group_size", of=("sft",))
def group_size_sft(lab: Lab, kind: str) -> None:
    """Imitation has no groups, and says so."""
    assert "sampling.group_size has no effect" in lab.refused(kind, "sampling.group_size=4")


@effect("sampling.temperature", of=("sft",))
def temperature_sft(lab: Lab, kind: str) -> None:
    """What ``generate`` takes if it is given no other: near 0 every sample is the same."""
    for temperature, distinct in ((1e-3, 1), (3.0, 4)):
        run = lab.run(kind, f"sampling.temperature={temperature}")
        said = lab.ask("generate", str(run.path), "-n", "4", "--plugin", "probe_plugin.py").out
        completions = re.findall(r"(.*)\n\[.* tokens", said)
        assert len(completions) == 4
        assert len(set(completions)) == distinct, said


@effect("sampling.group_size")
def group_size(lab: Lab, kind: str) -> None:
    for size in (2, 4):
        records = lab.run(kind, f"sampling.group_size={size}").transcripts()
        assert {record["sample"] for record in records} == set(range(size))


@effect("sampling.temperature")
def temperature(lab: Lab, kind: str) -> None:
    """Entropy is that of the distribution that was sampled from."""
    cold, hot = (lab.run(kind, f"sampling.temperature={t}") for t in (0.3, 2.0))
    assert cold.values("policy/entropy")[0] < lab.run(kind).values("policy/entropy")[0]
    assert lab.run(kind).values("policy/entropy")[0] < hot.values("policy/entropy")[0]


@effect("sampling.max_prompt_tokens", of=BOTH)
def max_prompt_tokens(lab: Lab, kind: str) -> None:
    """A prompt that is too long is named, before anything is written."""
    run = lab.attempt(kind, "sampling.max_prompt_tokens=4")
    assert run.done.code == 2
    assert "sampling.max_prompt_tokens=4" in run.done.err


@effect("sampling.overlong_prompts", of=BOTH)
def overlong_prompts(lab: Lab, kind: str) -> None:
    """Stops the run, or leaves such problems out."""
    long = ("task.some_long=true", "trainer.prompts_per_step=4")[: 1 if kind == "sft" else 2]
    assert "sampling.overlong_prompts=drop" in lab.refused(kind, *long)
    run = lab.run(kind, *long, "sampling.overlong_prompts=drop")
    assert all(record["prompt_tokens"] <= 64 for record in run.evaluation())
    if kind == "train":
        assert sum(run.values("prompt/overlong_dropped")) > 0


@effect("sampling.max_completion_tokens", of=BOTH)
def max_completion_tokens(lab: Lab, kind: str) -> None:
    for limit in (3, 6):
        run = lab.run(kind, f"sampling.max_completion_tokens={limit}", *(["task.words=1"] if kind == "sft" else []))
        assert max(record["completion_tokens"] for record in run.evaluation()) == limit
        assert {r["finish_reason"] for r in run.evaluation() if r["completion_tokens"] == limit} >= {"length"}


@effect("sampling.stop", of=BOTH)
def stop(lab: Lab, kind: str) -> None:
    """The completion ends after the string and keeps it."""
    letter = lab.run(kind).evaluation()[0]["completion"][2]
    assert letter.isprintable()
    ended = lab.run(kind, f"sampling.stop=[{letter!r}]").evaluation()[0]
    assert ended["finish_reason"] == "stop_string"
    assert ended["completion"].endswith(letter)
    assert letter not in ended["completion"][:-1]


STOPS = ", ".join(f"'{letter}'" for letter in string.ascii_letters)
TALK = ("task={name: talk}", f"sampling.stop=[{STOPS}]", "sampling.max_completion_tokens=60")
"""A task that replies to every message, and messages that end at a letter."""

FORGETS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content.split('</think>')[-1] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@effect("sampling.max_turns", of=BOTH)
def max_turns(lab: Lab, kind: str) -> None:
    for limit in (1, 3):
        records = lab.run(kind, *TALK, f"sampling.max_turns={limit}").evaluation()
        assert max(sum(m["role"] == "assistant" for m in record["messages"]) for record in records) == limit


@effect("sampling.rewritten_history", of=BOTH)
def rewritten_history(lab: Lab, kind: str) -> None:
    """A template that drops the model's thinking is refused, or taken as it is."""
    lab.file("forgets.jinja", FORGETS)
    chat = (*TALK, "task.chat=true", "model.chat_template=forgets.jinja")
    assert "sampling.rewritten_history=keep" in lab.refused(kind, *chat)
    assert lab.run(kind, *chat, "sampling.rewritten_history=keep").evaluation()


@effect("sampling.respond_timeout_s", of=BOTH)
def respond_timeout(lab: Lab, kind: str) -> None:
    """A reply that takes 0.3 s is waited for, or its completion is not scored."""
    slow = ("task={name: slow}", *TALK[1:], "sampling.max_turns=2", "evaluation.suites={held_out: {problems: 3}}")
    for limit, reasons in (("5", {"error"}), ("0.05", set())):
        found = {r["finish_reason"] for r in lab.run(kind, *slow, f"sampling.respond_timeout_s={limit}").evaluation()}
        assert not found & reasons
        assert reasons or "error" in found


@effect("sampling.tool_timeout_s", of=BOTH)
def tool_timeout(lab: Lab, kind: str) -> None:
    """A tool that takes 0.3 s is waited for, or not."""
    few = ("trainer.steps=1", "trainer.prompts_per_step=1") if kind == "train" else ()
    calling = ("task={name: nap}", "rollout_backend={name: caller}", "sampling.max_turns=1", *few)
    for limit, outcome in (("null", "ok"), ("0.05", "lost")):
        run = lab.run(kind, *calling, "sampling.max_completion_tokens=60", f"sampling.tool_timeout_s={limit}")
        assert all(record["tool_calls"] == {outcome: 1} for record in run.evaluation())
