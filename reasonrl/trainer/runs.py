"""What every run needs, whatever it trains: its folder, the checkpoint it goes on from, its logbook and its end."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasonrl.contracts.data import RunInfo
from reasonrl.errors import RecipeError
from reasonrl.observability.reporter import Past, Reporter, SilentReporter
from reasonrl.observability.reporter import Plan as Announcement
from reasonrl.observability.trackers import Trackers
from reasonrl.plugins import Plugins
from reasonrl.recipe.render import render_plain
from reasonrl.recipe.resolved import AnyResolved
from reasonrl.rundir.checkpoints import clear_leftovers, newest_valid, set_aside_later
from reasonrl.rundir.folder import RunDir
from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.rundir.layout import RECIPE, RUN, SUMMARY
from reasonrl.trainer.describe import describe_bench, run_manifest
from reasonrl.trainer.driver import Driver, Job, Plan
from reasonrl.trainer.identity import (
    SAME,
    allowed_changes,
    identity_of,
    meaning_of,
    refuse_changes,
    total_steps,
)
from reasonrl.trainer.logbook import METRICS, Logbook, said
from reasonrl.trainer.outline import title_of
from reasonrl.trainer.preflight import Preflight
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.resume import read_manifest
from reasonrl.trainer.saving import Saver, machine
from reasonrl.trainer.schedule import Schedule, open_schedule, replanned
from reasonrl.trainer.signals import StopSignals
from reasonrl.trainer.state import TrainState, read_state
from reasonrl.trainer.workbench import Workbench

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """How a run is started, beside its recipe. ``resume``: ``run_dir`` exists and is gone on with."""

    run_dir: str | Path | None = None
    resume: bool = False
    strict: bool = False
    """Refuse to resume if the newest checkpoint is damaged."""
    reporter: Reporter = field(default_factory=SilentReporter)
    stop: StopSignals = field(default_factory=StopSignals)


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A verified checkpoint and the state in it."""

    folder: Path
    state: TrainState


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenRun:
    """``folder`` is None on ranks other than 0; ``point`` is None for a run from its beginning."""

    folder: RunDir | None
    logbook: Logbook
    identity: Mapping[str, Any]
    point: ResumePoint | None
    schedule: Schedule
    stop: StopSignals

    @property
    def path(self) -> Path | None:
        return self.folder.path if self.folder else None


def open_run(
    resolved: AnyResolved, plugins: Plugins, bench: Workbench, options: RunOptions, checked: Preflight
) -> OpenRun:
    """Create or reopen the run folder, write what is known at the start, say it, and tell observers.

    A failure leaves a free folder and a summary.

    Raises:
        RecipeError: if the recipe or an argument is wrong.
        RunDirInUseError: if another process uses the folder.
        CheckpointError: if no checkpoint can be read.
    """
    identity = identity_of(resolved, plugins, bench.tokenizer)
    folder = _open_folder(resolved, bench.ranks, options)
    point: ResumePoint | None = None
    try:
        point = _find_point(folder, bench.ranks, options, identity, total_steps(resolved))
        logbook = _open_logbook(resolved, plugins, bench, folder, options, point, checked)
    except BaseException as err:
        if folder is not None:
            outcome = "interrupted" if isinstance(err, KeyboardInterrupt) else "failed"
            with suppress(OSError):  # on a full disk; the first error is the one to report
                if not (folder.path / SUMMARY).exists():  # a refused resume has changed nothing
                    folder.write_json(SUMMARY, nothing_done(outcome, err, point.state.step if point else 0))
            folder.close()
        raise
    return OpenRun(
        folder=folder,
        logbook=logbook,
        identity=identity,
        point=point,
        schedule=_open_schedule(resolved, bench.ranks, point),
        stop=options.stop,
    )


def _open_schedule(resolved: AnyResolved, ranks: Ranks, point: ResumePoint | None) -> Schedule:
    config, total = resolved.recipe.optimizer, total_steps(resolved)
    if point is None:
        return open_schedule(config, total)
    step = point.state.step
    schedule = open_schedule(config, total, after=step, progress=point.state.progress)
    if ranks.is_main and (text := replanned(schedule, step)):
        log.warning("%s", text)
    return schedule


def make_driver(job: Job, run: OpenRun, bench: Workbench, resolved: AnyResolved, policy: Any, optimizer: Any) -> Driver:
    """The driver of ``job``, with the tensors and the job's progress put back if the run is resumed."""
    recipe = resolved.recipe
    saver = Saver(
        policy=policy,
        optimizer=optimizer,
        tokenizer=bench.tokenizer,
        ranks=bench.ranks,
        logbook=run.logbook,
        config=recipe.checkpoint,
        identity=run.identity,
    )
    if run.point is not None:
        saver.restore(run.point.folder, run.point.state)
        job.restore(run.point.state.progress)
    return Driver(
        job,
        Plan(
            total_steps=total_steps(resolved),
            evaluation_every=recipe.evaluation.every,
            checkpoint_every=recipe.checkpoint.every,
        ),
        saver=saver,
        logbook=run.logbook,
        ranks=bench.ranks,
        stop=run.stop,
        state=run.point.state if run.point else None,
    )


def nothing_done(outcome: str, error: BaseException, steps: int = 0) -> dict[str, Any]:
    """The summary of a run that ended before it took a step of its own."""
    return {
        "outcome": outcome,
        "steps": steps,
        "wall_s": 0.0,
        "eval": {"first": {}, "last": {}},
        "best": None,
        "error": said(error),
    }


def _open_folder(resolved: AnyResolved, ranks: Ranks, options: RunOptions) -> RunDir | None:
    """Rank 0 holds the folder; the others write nothing."""
    if not ranks.is_main:
        return None
    if options.resume:
        assert options.run_dir is not None
        return RunDir.reopen(Path(options.run_dir))
    recipe = resolved.recipe
    return RunDir.create(output_dir=recipe.output_dir, name=recipe.name, explicit=options.run_dir)


def _find_point(
    folder: RunDir | None, ranks: Ranks, options: RunOptions, identity: Mapping[str, Any], total: int
) -> ResumePoint | None:
    """The newest checkpoint that verifies, on all ranks; the run folder forgets what came after it."""
    if not options.resume:
        return None
    found: str | None = None
    if folder is not None:
        clear_leftovers(folder.path)
        newest = newest_valid(folder.path, strict=options.strict)
        found = str(newest) if newest else None
    found = ranks.broadcast(found)
    point = ResumePoint(Path(found), read_state(Path(found))) if found else None
    if point is not None:
        refuse_changes(Path(options.run_dir or ""), point.state.identity, identity)
        if point.state.step > total:
            raise RecipeError(f"{options.run_dir} has done {point.state.step} steps already, got a length of {total}")
    if folder is not None:
        step = point.state.step if point else -1
        set_aside_later(folder.path, step)
        folder.rewind(step, point.state.logbook["metrics_bytes"] if point else 0)
    return point


def _open_logbook(
    resolved: AnyResolved,
    plugins: Plugins,
    bench: Workbench,
    folder: RunDir | None,
    options: RunOptions,
    point: ResumePoint | None,
    checked: Preflight,
) -> Logbook:
    recipe = resolved.recipe
    plain = render_plain(resolved)
    info = RunInfo(
        name=recipe.name,
        run_dir=folder.path if folder else Path(recipe.output_dir),
        seed=recipe.seed,
        total_steps=total_steps(resolved),
        recipe=plain,
    )
    if folder is not None:
        manifest = run_manifest(resolved, plugins, bench, plain)
        if options.resume:
            before = read_manifest(folder.path)
            manifest["resumed"] = _resumed(before, bench.ranks, point, plain)
            if folder.path in Path(resolved.model_path).parents:  # a checkpoint stands in for what is gone
                manifest["model_path"] = before["model_path"]
        folder.write_text(RECIPE, resolved.source_yaml)
        folder.write_json(RUN, {"resumed": [], **manifest})
        options.reporter.planned(_announcement(resolved, bench, folder, options, point, checked))
    plugins.observe("reasonrl_run_started", run=info)
    trackers = Trackers(bench.accelerator, recipe.logging.trackers)
    trackers.start(recipe.name, folder.path if folder else None, plain)
    logbook = Logbook(
        run_dir=folder,
        info=info,
        reporter=options.reporter,
        plugins=plugins,
        total_steps=info.total_steps,
        transcripts_per_step=recipe.logging.transcripts_per_step,
        trackers=trackers,
    )
    bench.watch.tell = logbook.evaluating
    if point is not None:
        logbook.resume(point.state, point.folder)
    return logbook


def _resumed(
    before: Mapping[str, Any], ranks: Ranks, point: ResumePoint | None, plain: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Every time that the run was resumed: after which step, on what, with which keys changed.

    ``run.json`` else tells of the last start.
    """
    changed = allowed_changes(before["recipe"], json.loads(json.dumps(plain)))
    if changed:
        said = ", ".join(f"{key} {change}" for key, change in changed.items())
        meaning = meaning_of(changed)
        log.log(logging.INFO if meaning == SAME else logging.WARNING, "resumed with %s: %s", said, meaning)
    now = {"after_step": point.state.step if point else 0, **machine(ranks), "changed": changed}
    return [*before.get("resumed", []), now]


def _announcement(
    resolved: AnyResolved,
    bench: Workbench,
    folder: RunDir,
    options: RunOptions,
    point: ResumePoint | None,
    checked: Preflight,
) -> Announcement:
    lines = list(describe_bench(resolved, bench, folder.path, checked))
    if options.resume:
        how = f"after step {point.state.step}, from {point.folder}" if point else "from the start: no checkpoint"
        lines.append(("resumes", how))
    return Announcement(
        title=title_of(resolved),
        total_steps=total_steps(resolved),
        lines=lines,
        evaluation_every=resolved.recipe.evaluation.every,
        past=_past(folder, point.state) if point else None,
    )


def _past(folder: RunDir, state: TrainState) -> Past:
    metrics = folder.path / METRICS
    return Past(
        step=state.step,
        metrics=list(read_jsonl(metrics)) if metrics.exists() else [],
        first=state.logbook["first"],
        last=state.logbook["last"],
    )
