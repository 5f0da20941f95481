"""Plain output of a run: the header, one line per step, the table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reasonrl.cli.speakers import TASK, is_conversation, speaker
from reasonrl.cli.table import wrap
from reasonrl.observability.reporter import Reporter
from reasonrl.observability.transcripts import as_turns, plain_prompt
from reasonrl.text import sanitize

if TYPE_CHECKING:  # do not load numpy before the recipe is checked
    from pathlib import Path

    from reasonrl.contracts.data import Completion, Message, RewardOutput, ScoredGroup, StepRecord
    from reasonrl.evaluation.suites import SuiteResult
    from reasonrl.observability.reporter import EvaluationProgress, Lines, Outline, Phase, Plan

PROGRESS_S = 30.0
COLUMNS = (  # metric, heading, format
    ("train/reward", "reward", "{:.3f}"),
    ("train/accuracy", "acc", "{:.1%}"),
    ("train/length_tokens", "tokens", "{:.0f}"),
    ("train/truncated_frac", "cut", "{:.0%}"),
    ("policy/entropy", "entropy", "{:.2f}"),
    ("loss/sft", "loss", "{:.4f}"),
    ("time/step_s", "s", "{:.1f}"),
)


class ConsoleReporter(Reporter):
    """Writes plain lines to stdout, for a terminal or a log file."""

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._clock = clock
        self._printed_at: float | None = None

    def starting(self, outline: Outline) -> None:
        self._print("", outline.title, style="bold")
        self._print_lines(outline.lines)

    def waiting(self, what: str) -> None:
        self._print("", f"{what} ...", style="dim")

    def planned(self, plan: Plan) -> None:
        self._print_lines(plan.lines)
        self._console.print()

    def _print_lines(self, lines: Lines) -> None:
        for label, text in lines:
            self._print(f"  {label:<12}", text)

    def _print(self, lead: str, text: str, *, style: str = "", hanging: int | None = None) -> None:
        """Print one line; in a terminal it is wrapped at words and indented below the end of ``lead``."""
        text = sanitize(text)  # it may quote a plugin or a data set
        if self._console.is_terminal:
            indent = " " * (len(lead) if hanging is None else hanging)
            text = wrap(text, lead=lead, indent=indent, width=max(20, self._console.width))
        else:
            text = lead + text
        self._console.print(Text(text, style=style))

    def phase(self, phase: Phase) -> None:
        """Print nothing: plain output reports results, not phases."""
        self._printed_at = None

    def stepped(self, record: StepRecord, total_steps: int, groups: Sequence[ScoredGroup]) -> None:
        values = {**record.metrics, **record.timing_s}
        shown = [f"{heading} {form.format(values[key])}" for key, heading, form in COLUMNS if key in values]
        width = len(str(total_steps))
        self._print(f"step {record.step:>{width}}/{total_steps}  ", "  ".join(shown) + _warnings(values))

    def evaluating(self, progress: EvaluationProgress) -> None:
        """Print the number of problems, then the progress every ``PROGRESS_S`` seconds."""
        now = self._clock()
        if self._printed_at is None:
            self._print("", f"evaluating {progress.total:,} problems ...", style="dim")
        elif now - self._printed_at >= PROGRESS_S:
            self._print("", f"evaluated {progress.done:,} of {progress.total:,} problems", style="dim")
        else:
            return
        self._printed_at = now

    def evaluated(self, step: int, results: Sequence[SuiteResult]) -> None:
        for result in results:
            low, high = result.ci95
            text = (
                f"eval at {step}: {result.name} accuracy {result.metrics['accuracy']:.1%} "
                f"(95% {low:.1%} to {high:.1%}), format {result.metrics['format']:.1%}, "
                f"{result.metrics['length_tokens']:.0f} tokens, {result.problems} problems"
            )
            if unscored := result.metrics["unscored_frac"]:
                text += f", {unscored:.1%} could not be scored"
            self._print("", text, style="bold", hanging=2)

    def evaluated_model(self, model: str, results: Sequence[SuiteResult]) -> None:
        """Print the results of ``reasonrl eval``."""
        self._console.print(Text(f"model: {model}"))
        for result in results:
            self._console.print(_metrics_table(result))
            if result.levels:
                self._console.print(_levels_table(result))

    def generated(self, scored: ScoredGroup, other: str = TASK) -> None:
        """Print the completions of ``reasonrl generate`` with their verdicts; ``other``: who replied to the model."""
        prompt = plain_prompt(scored.group.request.problem)
        self._text(as_turns(prompt), style="dim")
        for completion, reward in zip(scored.group.completions, scored.rewards, strict=True):
            if not is_conversation(completion.messages):
                self._text(completion.text)
            else:
                self._conversation(completion.messages, other)
            self._text(f"{format_verdict(completion, reward)}\n", style="bold")

    def _conversation(self, messages: Sequence[Message], other: str) -> None:
        for message in messages:
            style = "" if message.role == "assistant" else "dim"
            self._text(f"{speaker(message.role, other)}: {message.content.rstrip()}", style=style)

    def _text(self, text: str, *, style: str = "") -> None:
        """Print text from a model or a data set, with control characters escaped."""
        self._console.print(Text(sanitize(text), style=style), soft_wrap=not self._console.is_terminal)

    def finished(self, outcome: str, summary: Mapping[str, Any], model_path: Path | None) -> None:
        self._console.print()
        first, last = summary["eval"]["first"], summary["eval"]["last"]
        if outcome == "completed" and first and last:
            self._console.print(before_after(first, last))
        steps = summary["steps"]
        self._print("", f"{outcome} after {steps} step{'s' * (steps != 1)} in {summary['wall_s']:.0f} s")
        if model_path is not None:
            self._print("", f"model: {model_path}")
            if outcome != "completed":
                self._print("", f"to continue: reasonrl resume {model_path.parent.parent}")


def format_verdict(completion: Completion, reward: RewardOutput) -> str:
    """``[correct; 101 tokens, finish reason eos]``."""
    verdict = "correct" if reward.correct else "unscored" if reward.total is None else "wrong"
    reasons = ", ".join(f"{name}: {reason}" for name, reason in reward.reasons.items())
    end = f"{completion.sampled_tokens} tokens, finish reason {completion.finish_reason.value}"
    if len(completion.replies) > 1:
        end = f"{len(completion.replies)} messages, {end}"
    return f"[{verdict}{' - ' + reasons if reasons else ''}; {end}]"


def _metrics_table(result: SuiteResult) -> Table:
    table = Table(title=f"{result.name}: {result.problems} problems x {result.samples}", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    intervals = {"accuracy": result.ci95, **result.intervals}
    for key, value in result.metrics.items():
        is_share = key.endswith("_frac") or key in ("accuracy", "format") or "@" in key
        text = f"{value:.1%}" if is_share else f"{value:.2f}"
        table.add_row(key, text + (" ({:.1%} to {:.1%})".format(*intervals[key]) if key in intervals else ""))
    return table


def _levels_table(result: SuiteResult) -> Table:
    table = Table(title=f"{result.name} by difficulty", title_justify="left")
    table.add_column("difficulty")
    for heading in ("problems", "accuracy"):
        table.add_column(heading, justify="right")
    for level in result.levels:
        low, high = level.ci95
        table.add_row(
            sanitize(level.difficulty), str(level.problems), f"{level.accuracy:.1%} ({low:.1%} to {high:.1%})"
        )
    return table


def before_after(first: Mapping[str, Any], last: Mapping[str, Any]) -> Table:
    """Build the table of every suite at the first and the last evaluation."""
    table = Table(title=f"before (step {first['step']}) and after (step {last['step']})", title_justify="left")
    table.add_column("suite")
    for heading in ("metric", "before", "after"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, before in first["suites"].items():
        after = last["suites"][name]
        table.add_row(name, "accuracy", _with_interval(before), _with_interval(after))
        table.add_row("", "format", f"{before['format']:.1%}", f"{after['format']:.1%}")
        table.add_row("", "tokens", f"{before['length_tokens']:.0f}", f"{after['length_tokens']:.0f}")
    return table


def _with_interval(figures: Mapping[str, Any]) -> str:
    low, high = figures["ci95"]
    return f"{figures['accuracy']:.1%} ({low:.1%} to {high:.1%})"


def _warnings(values: Mapping[str, float]) -> str:
    text = ""
    if values.get("optim/skipped_updates"):
        text += f"  [{values['optim/skipped_updates']:.0f} non-finite updates skipped]"
    if values.get("prompt/overlong_dropped"):
        text += f"  [{values['prompt/overlong_dropped']:.0f} overlong prompts dropped]"
    if values.get("train/unscored_frac"):
        text += f"  [{values['train/unscored_frac']:.1%} unscored]"
    return text
