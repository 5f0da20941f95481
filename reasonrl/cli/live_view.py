"""The live view of a training run: its state, and the lines that show it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from reasonrl.cli.live_pace import Pace
from reasonrl.cli.live_text import bars, fit, format_duration, last_lines
from reasonrl.cli.speakers import is_conversation, spoken_lines
from reasonrl.observability.reporter import EvaluationProgress, Past
from reasonrl.text import sanitize

HISTORY = 1000  # steps to keep; a curve shows as many as fit
METRICS = (  # metric, label, format of its figures
    ("train/reward", "reward", "{:.3f}"),
    ("train/accuracy", "accuracy", "{:.1%}"),
    ("train/length_tokens", "tokens", "{:.0f}"),
    ("policy/entropy", "entropy", "{:.3f}"),
    ("policy/kl_old_k3", "KL", "{:.1e}"),
    ("policy/clip_frac", "clipped", "{:.1%}"),
    ("loss/sft", "loss", "{:.4f}"),
    ("optim/learning_rate", "rate", "{:.1e}"),
    ("throughput/rollout_tokens_per_s", "sample t/s", "{:,.0f}"),
    ("throughput/train_tokens_per_s", "train t/s", "{:,.0f}"),
    ("memory/peak_gib", "peak GiB", "{:.1f}"),
)
ONLY_SFT = ("optim/learning_rate",)
LABEL, FIGURE, RANGE = 11, 9, 20  # columns, including the gap
MIN_RANGED = 80  # columns; below, the range is hidden
MAX_ROWS = 4  # lines per curve
SAMPLE = 12  # lines of the sample before curves grow
MIN_NAME, MAX_NAME = 10, 20  # columns of a suite
MAX_SUITES = 4
MIN_BAR = 6  # cells of a progress bar
MAX_TEXT = 4000  # characters of a prompt or completion to process


@dataclass
class LiveView:
    """The state of the live view. ``lines`` renders it; nothing here touches a terminal."""

    title: str
    pace: Pace
    ascii_only: bool = False
    phase: str = "starting"
    history: dict[str, deque[float]] = field(default_factory=dict)
    step: int = 0
    first: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    last: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    first_at: int = 0
    last_at: int = 0
    sample: Mapping[str, Any] | None = None
    sample_at: int = 0
    skipped: int = 0
    skipped_at: int = 0
    unscored: float = 0.0
    unscored_at: int = 0
    evaluation: EvaluationProgress | None = None

    def begin(self, phase: str, now: float) -> None:
        self.phase, self.evaluation = phase, None
        if phase == "evaluating":
            self.pace.begin_evaluation(now)

    def recall(self, past: Past) -> None:
        """Start from the past of a resumed run."""
        for metrics in past.metrics:
            self._keep(int(metrics["step"]), metrics)
        self.step = past.step
        self.first, self.first_at = past.first.get("suites", {}), past.first.get("step", 0)
        self.last, self.last_at = past.last.get("suites", {}), past.last.get("step", 0)
        self.pace.recall(past.step, _times(past, "time/step_s"), _times(past, "time/evaluation_s"))

    def stepped(
        self, step: int, metrics: Mapping[str, float | None], sample: Mapping[str, Any] | None, now: float
    ) -> None:
        """Record a finished step. ``sample`` is a transcript record."""
        self.step = step
        self.pace.stepped(step, now)
        self._keep(step, metrics)
        if sample is not None:
            self.sample, self.sample_at = sample, step

    def _keep(self, step: int, metrics: Mapping[str, float | None]) -> None:
        for key, _, _ in METRICS:
            if key in metrics and (key not in ONLY_SFT or "loss/sft" in metrics):
                value = metrics[key]
                figure = math.nan if value is None else float(value)
                self.history.setdefault(key, deque(maxlen=HISTORY)).append(figure)
        if skipped := metrics.get("optim/skipped_updates"):
            self.skipped, self.skipped_at = self.skipped + int(skipped), step
        if unscored := metrics.get("train/unscored_frac"):
            self.unscored, self.unscored_at = unscored, step

    def evaluated(self, step: int, suites: Mapping[str, Mapping[str, Any]], now: float) -> None:
        """Record an evaluation; ``suites`` as in its ``summary.json``."""
        self.pace.evaluated(now)
        self.evaluation = None
        if not self.first:
            self.first, self.first_at = dict(suites), step
        self.last, self.last_at = dict(suites), step

    def evaluating(self, progress: EvaluationProgress) -> None:
        self.evaluation = progress
        self.pace.update_evaluation(progress.done / max(1, progress.total))

    def lines(self, width: int, height: int, now: float) -> list[Text]:
        """Render at most ``height`` lines of at most ``width`` cells, least important parts dropped first."""
        drawn = [self._title(width), self._progress(width, now), *self._warnings(width)]
        sections = [self.curves(width), self._evaluations(width)]
        left = height - len(drawn) - sum(map(len, sections))
        roomy = left >= 10
        more = (left - SAMPLE - len(sections) - 1) // max(1, len(sections[0]))
        if more > 0:
            sections[0] = self.curves(width, rows=min(more, MAX_ROWS), gap=True)
        for section in sections:
            drawn += [Text(), *section] if roomy and section else section
        drawn += [Text()] if roomy and self.sample else []
        drawn += self._sample(width, height - len(drawn))
        for line in drawn:
            line.truncate(max(1, width))
        return drawn[: max(0, height)]

    def curves(self, width: int, *, rows: int = 1, gap: bool = False) -> list[Text]:
        """Render one curve per metric: recent steps, current value and the range shown."""
        cells = max(0, width - LABEL - FIGURE - (RANGE if width >= MIN_RANGED else 0))
        per_step = max(1, cells // max(1, self.pace.total_steps))
        drawn: list[Text] = []
        for key, label, form in METRICS:
            if values := self.history.get(key):
                recent = list(values)[-max(1, cells // per_step) :]
                wide = [value for value in recent for _ in range(per_step)]
                *above, base = bars(wide, cells, rows=rows, ascii_only=self.ascii_only)
                drawn += [Text()] if gap and drawn else []
                drawn += [Text(" " * LABEL + line, no_wrap=True) for line in above]
                line = Text(f"{label:<{LABEL}}{base:<{cells}}", no_wrap=True)
                line.append(f"{_figure(form, recent[-1]):>{FIGURE}}", style="bold")
                drawn.append(_with_range(line, form, recent) if width >= MIN_RANGED else line)
        return drawn

    def _title(self, width: int) -> Text:
        phase = f"{self.phase} {self._sanitize(self.evaluation.suite)}" if self.evaluation else self.phase
        phase = fit(phase, max(len(self.phase), width // 2))
        title = fit(self._sanitize(self.title), width - cell_len(phase) - 2)
        gap = " " * (width - cell_len(title) - cell_len(phase))
        return Text.assemble((title, "bold"), gap, phase, no_wrap=True)

    def _progress(self, width: int, now: float) -> Text:
        """Render the progress bar: steps or, during an evaluation, problems."""
        left = self.pace.left_s(now)
        times = f" {format_duration(now - self.pace.started)} elapsed, "
        times += "estimating time left" if left is None else f"about {format_duration(left)} left"
        done, total = self.step, max(1, self.pace.total_steps)
        head = f"step {self.step}/{self.pace.total_steps} "
        if self.evaluation is not None:
            done, total = self.evaluation.done, max(1, self.evaluation.total)
            of = f"{done:,}/{self.evaluation.total:,} problems"
            room = width - len(head) - len(of) - len(times) - 1 >= MIN_BAR + len("evaluated ")
            head += f"evaluated {of} " if room else f"{of} "
        cells = max(0, width - len(head) - len(times))
        full = min(cells, cells * done // total)
        on, off = ("#", "-") if self.ascii_only else ("█", "░")
        return Text(fit(head + on * full + off * (cells - full) + times, width), no_wrap=True)

    def _warnings(self, width: int) -> list[Text]:
        lines = []
        if self.skipped:
            lines.append(f"! {self.skipped} updates skipped (non-finite), last in step {self.skipped_at}")
        if self.unscored:
            lines.append(f"! {self.unscored:.1%} of completions unscored in step {self.unscored_at}")
        return [Text(fit(text, width), style="bold red", no_wrap=True) for text in lines]

    def _evaluations(self, width: int) -> list[Text]:
        if not self.last:
            return []
        is_first = self.first_at == self.last_at
        first = "" if is_first else f"at step {self.first_at}"
        suites = list(self.last.items())[:MAX_SUITES]
        longest = max(cell_len(self._sanitize(name)) for name, _ in suites)
        names = max(MIN_NAME, min(longest, MAX_NAME, width - 48))
        head = f"{'accuracy':<{names}}  {f'at step {self.last_at} (95%)':<24}{first}"
        drawn = [Text(fit(head, width), style="dim")]
        for name, figures in suites:
            line = Text(f"{fit(self._sanitize(name), names):<{names}}  ", no_wrap=True)
            line.append(f"{_interval(figures):<24}", style="bold")
            line.append(_interval(self.first[name]) if name in self.first and not is_first else "")
            drawn.append(line)
        more = len(self.last) - MAX_SUITES
        return [*drawn, Text(f"and {more} more", style="dim")] if more > 0 else drawn

    def _sample(self, width: int, room: int) -> list[Text]:
        if self.sample is None or room < 3:
            return []
        record = self.sample
        written = self._written(record, width - 4, room - 1)
        if len(written) > room - 2:
            written = [Text("..."), *written[-(room - 3) :]] if room > 3 else written[-1:]
        verdict, style = _verdict(record)
        reasons = ", ".join(f"{name}: {reason}" for name, reason in record["reasons"].items() if reason)
        rest = f"{f' ({reasons})' if reasons else ''}, {record['completion_tokens']} tokens"
        rest += f", finish reason {record['finish_reason']}"
        head = f"sample of step {self.sample_at}: "
        rest = fit(self._sanitize(rest), width - len(head) - len(verdict))
        drawn = [Text.assemble(head, (verdict, style), rest, no_wrap=True)]
        drawn.append(Text(f"> {self._prompt_end(record['prompt'], width - 4)}", style="dim", no_wrap=True))
        return drawn + [Text.assemble("  ", line, no_wrap=True) for line in written or [Text("(nothing)")]]

    def _written(self, record: Mapping[str, Any], width: int, count: int) -> list[Text]:
        """Return the last lines of a completion, or of both sides of a conversation."""
        messages = record.get("messages", ())
        if is_conversation(messages):
            cut = [{**message, "content": message["content"][-MAX_TEXT:]} for message in messages[-count:]]
            return spoken_lines(cut, width, count, ascii_only=self.ascii_only)
        return [Text(line) for line in last_lines(self._sanitize(record["completion"]), width, count)]

    def _prompt_end(self, prompt: str | Sequence[Mapping[str, str]], width: int) -> str:
        """Return the end of the prompt on one line; for a chat, of its last non-empty message."""
        if not isinstance(prompt, str):
            prompt = next((m["content"] for m in reversed(prompt) if m["content"].strip()), "")
        line = " ".join(self._sanitize(prompt).split())
        return line if cell_len(line) <= width else "..." + last_lines(line[3 - width :], width - 3, 1)[0]

    def _sanitize(self, text: str) -> str:
        return sanitize(text[-MAX_TEXT:], ascii_only=self.ascii_only)


def _with_range(line: Text, form: str, values: Sequence[float]) -> Text:
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        span = f"{_figure(form, min(finite))} to {_figure(form, max(finite))}"
        line.append(f"  {span:>{RANGE - 2}}", style="dim")
    return line


def _times(past: Past, key: str) -> list[float]:
    return [float(metrics[key]) for metrics in past.metrics if metrics.get(key) is not None]


def _verdict(record: Mapping[str, Any]) -> tuple[str, str]:
    if record["reward"] is None:
        return "unscored", "bold"
    return ("correct", "bold green") if record["correct"] else ("wrong", "bold red")


def _figure(form: str, value: float) -> str:
    if value == 0 and "e" in form:
        return "0"
    return form.format(value) if math.isfinite(value) else f"{value}"


def _interval(figures: Mapping[str, Any]) -> str:
    low, high = figures["ci95"]
    return f"{figures['accuracy']:.1%} ({100 * low:.1f} to {100 * high:.1f})"
