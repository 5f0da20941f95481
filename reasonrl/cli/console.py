"""Plain terminal output of a run: what will happen, a line a step, the table at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reasonrl.cli.live_text import harmless
from reasonrl.observability.transcripts import plain_prompt

if TYPE_CHECKING:  # so that a wrong recipe is refused before numpy is loaded
    from pathlib import Path

    from reasonrl.contracts.data import ScoredGroup, StepRecord
    from reasonrl.evaluation.suites import SuiteResult
    from reasonrl.observability.reporter import Phase, Plan

COLUMNS = (  # metric, heading, format
    ("reward/mean", "reward", "{:.3f}"),
    ("train/accuracy", "acc", "{:.1%}"),
    ("completion/length_tokens/mean", "tokens", "{:.0f}"),
    ("completion/truncated_frac", "cut", "{:.0%}"),
    ("policy/entropy", "entropy", "{:.2f}"),
    ("loss/sft", "loss", "{:.4f}"),
    ("time/step_s", "s", "{:.1f}"),
)


class ConsoleReporter:
    """Writes to stdout, in lines that also read well in a log file."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)

    def planned(self, plan: Plan) -> None:
        self._console.print(Text(plan.title, style="bold"))
        for label, text in plan.lines:
            self._console.print(Text(f"  {label:<12}{text}"))
        self._console.print()

    def phase(self, phase: Phase) -> None:
        """Lines are for what is done, not for what begins."""

    def stepped(self, record: StepRecord, total_steps: int, groups: Sequence[ScoredGroup]) -> None:
        values = {**record.metrics, **record.timing_s}
        shown = [f"{heading} {form.format(values[key])}" for key, heading, form in COLUMNS if key in values]
        width = len(str(total_steps))
        line = f"step {record.step:>{width}}/{total_steps}  " + "  ".join(shown)
        self._console.print(Text(line + _warnings(values)))

    def evaluated(self, step: int, results: Sequence[SuiteResult]) -> None:
        for result in results:
            low, high = result.ci95
            text = (
                f"eval at {step}: {result.name} accuracy {result.metrics['accuracy']:.1%} "
                f"(95% {low:.1%} to {high:.1%}), format {result.metrics['format']:.1%}, "
                f"{result.metrics['length_tokens']:.0f} tokens, {result.problems} problems"
            )
            self._console.print(Text(text, style="bold"))

    def evaluated_model(self, model: str, results: Sequence[SuiteResult]) -> None:
        """The figures of ``reasonrl eval``."""
        self._console.print(Text(f"model: {model}"))
        for result in results:
            table = Table(
                title=f"{result.name}: {result.problems} problems x {result.samples}", title_justify="left"
            )
            table.add_column("figure")
            table.add_column("value", justify="right")
            table.add_row("accuracy", _with_interval(result.to_json()))
            for key, value in result.metrics.items():
                if key != "accuracy":
                    is_share = key.endswith(("_frac", "_at_k")) or key == "format"
                    table.add_row(key, f"{value:.1%}" if is_share else f"{value:.2f}")
            self._console.print(table)

    def generated(self, scored: ScoredGroup) -> None:
        """The completions of ``reasonrl generate``, each with its verdict."""
        prompt = plain_prompt(scored.group.request.problem)
        shown = prompt if isinstance(prompt, str) else json.dumps(prompt)
        self._console.print(Text(harmless(shown), style="dim"))
        for completion, reward in zip(scored.group.completions, scored.rewards, strict=True):
            self._console.print(Text(harmless(completion.text)))  # a terminal obeys control characters
            verdict = "correct" if reward.correct else "unscored" if reward.total is None else "wrong"
            reasons = ", ".join(f"{name}: {reason}" for name, reason in reward.reasons.items())
            end = f"{len(completion.token_ids)} tokens, ended by {completion.finish_reason.value}"
            self._console.print(
                Text(harmless(f"[{verdict}{' - ' + reasons if reasons else ''}; {end}]\n"), style="bold")
            )

    def finished(self, outcome: str, summary: Mapping[str, Any], model_path: Path | None) -> None:
        self._console.print()
        first, last = summary["eval"]["first"], summary["eval"]["last"]
        if outcome == "completed" and first and last:
            self._console.print(before_after(first, last))
        self._console.print(f"{outcome} after {summary['steps']} steps in {summary['wall_s']:.0f} s")
        if model_path is not None:
            self._console.print(Text(f"model: {model_path}"))
            if outcome != "completed":
                self._console.print(Text(f"to go on: reasonrl resume {model_path.parent.parent}"))


def before_after(first: Mapping[str, Any], last: Mapping[str, Any]) -> Table:
    """Every suite at the first and the last evaluation."""
    table = Table(
        title=f"before (step {first['step']}) and after (step {last['step']})", title_justify="left"
    )
    table.add_column("suite")
    for heading in ("figure", "before", "after"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
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
    if values.get("reward/unscored_frac"):
        text += f"  [{values['reward/unscored_frac']:.1%} unscored]"
    return text
