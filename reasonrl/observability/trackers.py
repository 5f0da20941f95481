"""Experiment trackers (tensorboard, wandb, ...) through accelerate. A tracker error never stops a run."""

import ast
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasonrl.importing import is_installed
from reasonrl.observability.tracker_kinds import (
    Rows,
    Session,
    Values,
    options_of,
    show_samples,
    show_summary,
    takes_config_again,
)
from reasonrl.observability.transcripts import as_turns
from reasonrl.redact import redact_data, redacting_logger
from reasonrl.rundir import files
from reasonrl.rundir.differences import flatten
from reasonrl.rundir.layout import TRACKERS, TRACKERS_STATE
from reasonrl.rundir.reading import read_object
from reasonrl.text import sanitize, suggest

if TYPE_CHECKING:
    from accelerate import Accelerator

log = redacting_logger(__name__)

SAMPLES = 16
"""Completions of a suite in the table of an evaluation."""

PACKAGES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "aim": (("aim",), "aim"),
    "clearml": (("clearml",), "clearml"),
    "comet_ml": (("comet_ml",), "comet-ml"),
    "dvclive": (("dvclive",), "dvclive"),
    "mlflow": (("mlflow",), "mlflow"),
    "swanlab": (("swanlab",), "swanlab"),
    "tensorboard": (("tensorboard", "tensorboardX"), "tensorboard"),
    "trackio": (("trackio",), "trackio"),
    "wandb": (("wandb",), "wandb"),
}
"""Tracker -> modules, one of which it needs, and the package to install."""


def tracker_problem(names: Sequence[str]) -> str:
    """Say which tracker is unknown or not installed; empty if all are fine.

    Imports neither accelerate nor torch.
    """
    known = _known() if names else []
    for name in names:
        if name not in known:
            return f"no tracker '{name}'{suggest(name, known)}; available: {', '.join(known)}"
        modules, package = PACKAGES.get(name, ((), ""))
        if modules and not any(is_installed(module) for module in modules):
            return f"'{name}' is not installed: pip install {package}, or remove it"
    return ""


def _known() -> list[str]:
    """List accelerate's trackers, including those a plugin registered."""
    loaded = sys.modules.get("accelerate.tracking")
    if loaded is not None:
        return sorted(loaded.LOGGER_TYPE_TO_CLASS)
    spec = importlib.util.find_spec("accelerate")  # of a top-level package: imports nothing
    source = Path(str(spec.origin)).with_name("tracking.py") if spec is not None else Path()
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError):
        return sorted(PACKAGES)
    for node in [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]:
        is_wanted = ast.unparse(node).startswith(("LOGGER_TYPE_TO_CLASS = ", "LOGGER_TYPE_TO_CLASS: "))
        if is_wanted and isinstance(node.value, ast.Dict):
            return sorted(ast.literal_eval(key) for key in node.value.keys if isinstance(key, ast.Constant))
    return sorted(PACKAGES)


def as_parameters(config: Mapping[str, object]) -> dict[str, object]:
    """Flatten a recipe to dotted keys; other values than numbers, strings and booleans become JSON text."""
    plain = (bool, int, float, str)
    return {key: value if isinstance(value, plain) else json.dumps(value) for key, value in flatten(config).items()}


class Trackers:
    """All trackers of a run. The first error is logged and disables them; metrics.jsonl stays complete.

    A resumed run continues its tracker runs; steps that were sent before are not sent again.
    """

    def __init__(
        self,
        accelerator: "Accelerator",
        names: Sequence[str],
        options: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        self._accelerator = accelerator
        self._names = tuple(names)
        self._options = options or {}
        self._on = bool(names)
        self._session: Session | None = None
        self._sent_before = -1

    def start(self, project: str, run_dir: Path | None = None, config: Mapping[str, object] | None = None) -> None:
        """Start, or continue, with ``config`` as the run's parameters."""
        if self._on:
            self._try_call(lambda: self._init(project, run_dir, as_parameters(config or {})))

    def _init(self, project: str, run_dir: Path | None, config: Mapping[str, object]) -> None:
        options: dict[str, dict[str, object]] = {}
        if run_dir is not None:
            # The accelerator was created before the run folder, with another folder.
            places = self._accelerator.project_configuration
            places.project_dir, places.logging_dir = str(run_dir), str(run_dir / TRACKERS)
            self._session = _open_session(run_dir)
            self._sent_before = self._session.last_step
            options = {name: options_of(name, self._session) for name in self._names}
        options = {name: {**options.get(name, {}), **self._options.get(name, {})} for name in self._names}
        given = {name: found for name, found in options.items() if found}
        is_new = self._session is None or not self._session.is_resumed
        self._accelerator.init_trackers(project, config=dict(config) if is_new else None, init_kwargs=given)
        for tracker in self._accelerator.trackers if not is_new else ():
            if takes_config_again(tracker.name):
                tracker.store_init_configuration(dict(config))
        self._keep_ids()

    def _keep_ids(self) -> None:
        if self._session is None:
            return
        for tracker in self._accelerator.trackers:
            if tracker.name == "mlflow":
                self._session.ids["mlflow"] = tracker.tracker.info.run_id
        self._save()

    def _save(self) -> None:
        if self._session is not None:
            session = self._session
            state = {"id": session.id, "last_step": session.last_step, "ids": session.ids}
            path = session.run_dir / TRACKERS / TRACKERS_STATE
            path.parent.mkdir(exist_ok=True)
            files.write_atomic(path, json.dumps(state) + "\n")

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self._on and step > self._sent_before:
            self._try_call(lambda: self._log(values, step))

    def _log(self, values: Mapping[str, float], step: int) -> None:
        # MLflow rejects "@" in a metric name and would drop every figure of the step.
        named = {key.replace("@", "_at_"): value for key, value in values.items()}
        self._accelerator.log(named if "mlflow" in self._names else dict(values), step=step)
        if self._session is not None:
            self._session.last_step = step
            self._save()

    def samples(self, step: int, suite: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Send the first ``SAMPLES`` completions of an evaluation as a table, to trackers that have tables."""
        if self._on and step > self._sent_before:
            self._try_call(lambda: self._show(step, f"samples/{suite}", islice(records, SAMPLES)))

    def _show(self, step: int, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        rows: Rows = redact_data([_as_row(record) for record in records])  # they may leave this machine
        for tracker in self._accelerator.trackers:
            show_samples(tracker, step, name, rows)

    def close(self, summary: Mapping[str, Any] | None = None) -> None:
        """Send how the run ended, and end."""
        if self._on:
            self._try_call(lambda: self._close(summary))
        self._on = False

    def _close(self, summary: Mapping[str, Any] | None) -> None:
        values: Values = summarize(summary) if summary is not None else {}
        for tracker in self._accelerator.trackers:
            if values:
                show_summary(tracker, int(values["steps"]), values)
            tracker.finish()

    def _try_call(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:
            log.warning("a tracker failed; disabling trackers for this run", exc_info=True)
            self._on = False


def summarize(summary: Mapping[str, Any]) -> dict[str, float | str]:
    """Flatten ``summary.json``: how the run ended, and the accuracy of every suite with its interval."""
    found: dict[str, float | str] = {key: summary[key] for key in ("outcome", "steps", "wall_s")}
    for suite, figures in summary["eval"]["last"].get("suites", {}).items():
        low, high = figures["ci95"]
        found |= {f"{suite}/accuracy": figures["accuracy"], f"{suite}/ci95_low": low, f"{suite}/ci95_high": high}
    if summary.get("best"):
        found["best_step"] = summary["best"]["step"]
    return found


def _open_session(run_dir: Path) -> Session:
    path = run_dir / TRACKERS / TRACKERS_STATE
    try:
        state = read_object(path)
        return Session(
            run_dir=run_dir, id=state["id"], last_step=state["last_step"], ids=dict(state["ids"]), is_resumed=True
        )
    except (OSError, ValueError, KeyError, TypeError):  # a new run, or one from before there was such a file
        return Session(run_dir=run_dir)


def _as_row(record: Mapping[str, Any]) -> list[float | str]:
    correct, reward = record["correct"], record["reward"]
    verdict = "unscored" if reward is None else "correct" if correct else "wrong"
    texts = [as_turns(record["prompt"]), record["completion"]]
    return [record["problem_id"], *map(sanitize, texts), float("nan") if reward is None else reward, verdict]
