"""Run the tools of a task in worker processes: in parallel, killed when late, replaced when lost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reasonrl.contracts.protocols import RewardContext, TaskContext
from reasonrl.contracts.specs import RewardSpec
from reasonrl.contracts.tools import Tools
from reasonrl.conversations.calls import Call
from reasonrl.errors import PluginContractError
from reasonrl.importing import resolve
from reasonrl.rewards.judging import CUT, Verdict
from reasonrl.rewards.pool import Request, WorkerPool

Factory = str | Callable[[Any, Any], object]
Outcome = Literal["ok", "cut", "malformed", "raised", "lost"]


@dataclass(frozen=True, slots=True)
class Result:
    """What the model sees of a call: its result, or what went wrong with it."""

    text: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class BoxConfig:
    """How a worker builds its task."""

    factory: Factory
    config: object
    seed: int


class ToolBox:
    """A task in a worker process, asked for its tools only."""

    def __init__(self, box: BoxConfig, context: RewardContext) -> None:
        del context
        build: Callable[[Any, Any], Any] = resolve(box.factory) if isinstance(box.factory, str) else box.factory
        self._tools: Tools = build(box.config, TaskContext(seed=box.seed)).tools()

    def call_tool(self, name: str, arguments: Mapping[str, Any]) -> tuple[str, bool]:
        """Return the result of a call as text of at most ``max_chars`` characters, and whether it was longer."""
        result = self._tools.names[name](**arguments)
        text = result if isinstance(result, str) else str(result)
        shown = text[: self._tools.max_chars].encode(errors="replace").decode()  # a lone surrogate has no tokens
        return shown, len(text) > self._tools.max_chars


class ToolPool:
    """Runs calls, each in a worker, and says what became of them. Its processes end with this one."""

    def __init__(
        self, name: str, factory: Factory, config: object, tools: Tools, *, seed: int, timeout_s: float | None
    ) -> None:
        self._tools = tools
        limits = RewardSpec(
            name=name,
            summary="Tools.",
            factory="reasonrl.conversations.toolbox:ToolBox",
            isolation="process",
            timeout_s=timeout_s or tools.timeout_s,
            memory_mb=tools.memory_mb,
        )
        box = BoxConfig(factory, config, seed)
        label = f"task {name!r}: tools"
        self._pool = WorkerPool(limits, box, RewardContext(seed=seed), name=name, label=label)
        if (kind := self._pool.open()) != "call":
            raise PluginContractError(f"{label}: a worker is ready for {kind!r}, expected tool calls")

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the living workers."""
        return self._pool.pids

    def close(self) -> None:
        """End the workers."""
        self._pool.close()

    def run(self, calls: Sequence[Call]) -> list[Result]:
        """Run every call that can be run, all at the same time, and return the results in order."""
        good = [call for call in calls if not call.problem]
        answers = iter(self._pool.ask([Request((call.name, dict(call.arguments))) for call in good]))
        self._pool.retired.clear()
        return [
            Result(f"error: {call.problem}", "malformed") if call.problem else self._result(next(answers)[0])
            for call in calls
        ]

    def _result(self, verdict: Verdict) -> Result:
        if verdict.trouble:
            return Result(f"error: {verdict.score.reason}", "raised" if verdict.trouble == "raised" else "lost")
        text = verdict.score.answer or ""
        if verdict.score.reason == CUT:
            return Result(f"{text}... (cut after {self._tools.max_chars} characters)", "cut")
        return Result(text, "ok")
