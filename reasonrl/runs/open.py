"""Open a run: its folder, its records, the checkpoint it resumes from, and what drives and saves it."""

import json
import logging
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from reasonrl.contracts.data import RunInfo
from reasonrl.errors import CheckpointError, RecipeError
from reasonrl.observability.reporter import Lines, Past, Plan, Reporter, SilentReporter
from reasonrl.observability.trackers import Trackers
from reasonrl.plugins import Plugins
from reasonrl.recipe.render import render_plain
from reasonrl.recipe.resolved import AnyResolved
from reasonrl.rundir.checkpoints import clear_leftovers, find_newest_valid, set_aside_later
from reasonrl.rundir.differences import differences, format_value
from reasonrl.rundir.folder import RunDir
from reasonrl.rundir.jsonl import read_intact
from reasonrl.rundir.layout import METRICS, RECIPE, RUN, SUMMARY
from reasonrl.runs.describe import build_manifest, describe_bundle
from reasonrl.runs.foreign import refuse_foreign
from reasonrl.runs.identity import (
    SAME,
    build_identity,
    explain_changes,
    find_allowed_changes,
    refuse_changes,
    total_steps,
    with_new_keys,
)
from reasonrl.runs.outline import format_title
from reasonrl.runs.preflight import Preflight
from reasonrl.runs.record import RunWriter, format_error
from reasonrl.runs.resume import Manifest, read_manifest
from reasonrl.runs.save import Checkpointer, ResumePoint, machine
from reasonrl.runs.state import Identity, Records, TrainState, explained_content, read_state
from reasonrl.signals import StopSignals
from reasonrl.trainer.bundle import ModelBundle
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.schedule import Schedule, describe_replan, open_schedule

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """How a run is started, beside its recipe. ``resume``: continue the run in ``run_dir``."""

    run_dir: str | Path | None = None
    resume: bool = False
    strict: bool = False
    """Refuse to resume if the newest checkpoint is damaged."""
    reporter: Reporter = field(default_factory=SilentReporter)
    stop: StopSignals = field(default_factory=StopSignals)
    forecast: Lines = ()
    """For the header: what the run is expected to need."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cadence:
    """When what is due. 0 = only at the end; the last step is evaluated and saved anyway."""

    total_steps: int
    evaluation_every: int
    checkpoint_every: int

    def is_evaluated(self, step: int) -> bool:
        """Whether the policy is evaluated after ``step``; 0 = before the first."""
        return step in (0, self.total_steps) or _due(step, self.evaluation_every)

    def is_saved(self, step: int) -> bool:
        """Whether a checkpoint is saved after ``step``."""
        return step == self.total_steps or (step > 0 and _due(step, self.checkpoint_every))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenRun:
    """``path``: the run folder, None on ranks other than 0. ``point``: the checkpoint that the run resumes from."""

    path: Path | None
    writer: RunWriter
    checkpointer: Checkpointer
    point: ResumePoint | None
    cadence: Cadence
    schedule: Schedule
    reporter: Reporter
    stop: StopSignals

    def finish(self, outcome: str, error: BaseException | None = None) -> dict[str, object]:
        """Write the summary and release the folder."""
        saved = self.checkpointer
        return self.writer.finish(outcome, error, best=saved.best, model_path=saved.model_path)


def open_run(
    resolved: AnyResolved, plugins: Plugins, bundle: ModelBundle, options: RunOptions, checked: Preflight
) -> OpenRun:
    """Create or reopen the run folder, write what is known at the start, say it, and tell observers.

    A failure leaves a free folder and a summary, or nothing if it comes before the records. A resume that is refused
    changes nothing.

    Raises:
        RecipeError: if the recipe or an argument is wrong.
        RunDirInUseError: if another process uses the folder.
        CheckpointError: if no checkpoint can be read.
    """
    identity = build_identity(resolved, plugins, bundle.tokenizer)
    point, is_changed = None, not options.resume
    options.stop.hold()
    folder = _open_folder(resolved, bundle.ranks, options)
    try:
        options.stop.allow()
        _refuse_unshared(folder, bundle)
        point = _find_point(folder, bundle, options, identity, resolved)
        is_changed = True
        _forget_later(folder, point, options)
        with bundle.ranks.together():
            writer = _open_writer(resolved, plugins, bundle, folder, options, point, checked)
        checkpointer = _open_checkpointer(resolved, bundle, folder, identity, writer, point)
        schedule = _open_schedule(resolved, bundle.ranks, point)
        options.stop.hold()  # until ``carry_out``, which writes the summary from then on
    except BaseException as err:
        options.stop.hold()
        if folder is not None and not options.resume and not (folder.path / RUN).exists():
            folder.discard()  # nothing has begun, and no command could use it
        elif folder is not None:
            outcome = "interrupted" if isinstance(err, KeyboardInterrupt) else "failed"
            with suppress(OSError, CheckpointError):  # on a full disk; the first error is the one to report
                if is_changed:
                    folder.write_json(SUMMARY, _early_summary(outcome, err, point.state if point else None))
            folder.close()
        raise
    recipe = resolved.recipe
    return OpenRun(
        path=checkpointer.run_dir,
        writer=writer,
        checkpointer=checkpointer,
        point=point,
        cadence=Cadence(
            total_steps=total_steps(resolved),
            evaluation_every=recipe.evaluation.every,
            checkpoint_every=recipe.checkpoint.every,
        ),
        schedule=schedule,
        reporter=options.reporter if folder is not None else SilentReporter(),
        stop=options.stop,
    )


def _open_checkpointer(
    resolved: AnyResolved,
    bundle: ModelBundle,
    folder: RunDir | None,
    identity: Identity,
    writer: RunWriter,
    point: ResumePoint | None,
) -> Checkpointer:
    checkpointer = Checkpointer(
        run_dir=folder.path if folder else None,
        ranks=bundle.ranks,
        tokenizer=bundle.tokenizer,
        config=resolved.recipe.checkpoint,
        identity=identity,
        writer=writer,
    )
    if point is not None:
        with explained_content(point.folder):
            writer.restore(point.state)
            checkpointer.start_from(point)
    return checkpointer


def _open_schedule(resolved: AnyResolved, ranks: Ranks, point: ResumePoint | None) -> Schedule:
    config, total = resolved.recipe.optimizer, total_steps(resolved)
    if point is None:
        return open_schedule(config, total)
    step = point.state.step
    with explained_content(point.folder):
        schedule = open_schedule(config, total, after=step, progress=point.state.progress)
    if ranks.is_main and (text := describe_replan(schedule, step)):
        log.warning("%s", text)
    return schedule


def _early_summary(outcome: str, error: BaseException, state: TrainState | None) -> dict[str, object]:
    """The summary of a run that ended before it took a step of its own; what it did before stays in it."""
    before = state.records if state is not None else Records()
    return {
        "outcome": outcome,
        "steps": state.step if state is not None else 0,
        "wall_s": before.get("wall_s", 0.0),
        "eval": {"first": before.get("first", {}), "last": before.get("last", {})},
        "best": before.get("best"),
        "error": format_error(error),
    }


def _open_folder(resolved: AnyResolved, ranks: Ranks, options: RunOptions) -> RunDir | None:
    """Rank 0 holds the folder; the others write nothing."""
    with ranks.together():
        if not ranks.is_main:
            return None
        if options.resume:
            assert options.run_dir is not None
            return RunDir.reopen(Path(options.run_dir))
        recipe = resolved.recipe
        return RunDir.create(output_dir=recipe.output_dir, name=recipe.name, explicit=options.run_dir)


def _refuse_unshared(folder: RunDir | None, bundle: ModelBundle) -> None:
    """Every process writes its share of a sharded policy's checkpoints.

    Raises:
        RecipeError: on a process that does not see the run folder.
    """
    if not bundle.shards:
        return
    path = bundle.ranks.broadcast(folder.path.absolute() if folder is not None else None)
    with bundle.ranks.together():
        if path is not None and not path.is_dir():
            raise RecipeError(
                f"model.sharding: every process saves its share of the model in {path}, which does not exist on "
                f"{socket.gethostname()}; put the run folder on a disk that all machines share"
            )


def _find_point(
    folder: RunDir | None, bundle: ModelBundle, options: RunOptions, identity: Identity, resolved: AnyResolved
) -> ResumePoint | None:
    """The newest checkpoint that verifies, on all ranks. Leftovers of a killed save are removed."""
    if not options.resume:
        return None
    newest: Path | None = None
    ranks = bundle.ranks
    with ranks.together():
        if folder is not None:
            options.reporter.waiting("verifying the checkpoint")
            clear_leftovers(folder.path)
            newest = find_newest_valid(folder.path, strict=options.strict)
    newest = ranks.broadcast(newest)
    with ranks.together():
        point = ResumePoint(newest, read_state(newest)) if newest else None
        if point is not None:
            with explained_content(point.folder):
                then = point.state.identity
                whole = with_new_keys(then.get("recipe", {}), identity["recipe"], resolved.source.data)
                refuse_changes(Path(options.run_dir or ""), {**then, "recipe": whole}, identity)
            if point.state.step > (total := total_steps(resolved)):
                done = point.state.step
                raise RecipeError(f"{options.run_dir} has already finished {done} steps, cannot shorten it to {total}")
            with explained_content(point.folder):
                refuse_foreign(point.state, resolved, bundle)
    return point


def _forget_later(folder: RunDir | None, point: ResumePoint | None, options: RunOptions) -> None:
    """Remove from a run folder what came after the checkpoint that it resumes from."""
    if folder is None or not options.resume:
        return
    step = point.state.step if point else -1
    set_aside_later(folder.path, step)
    folder.rewind(step, point.state.records["metrics_bytes"] if point else 0)


def _open_writer(
    resolved: AnyResolved,
    plugins: Plugins,
    bundle: ModelBundle,
    folder: RunDir | None,
    options: RunOptions,
    point: ResumePoint | None,
    checked: Preflight,
) -> RunWriter:
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
        manifest = build_manifest(resolved, plugins, bundle, plain)
        if options.resume:
            before = read_manifest(folder.path)
            manifest["resumed"] = _list_resumes(before, bundle.ranks, point, resolved)
            if folder.path in Path(resolved.model_path).parents:  # a checkpoint stands in for what is gone
                manifest["model_path"] = before["model_path"]
        folder.write_text(RECIPE, resolved.source_yaml)
        folder.write_json(RUN, {"resumed": [], **manifest})
        options.reporter.planned(_plan(resolved, bundle, folder, options, point, checked))
    plugins.observe("reasonrl_run_started", run=info)
    settings = recipe.logging
    trackers = Trackers(bundle.accelerator, settings.trackers, settings.tracker_options)
    trackers.start(settings.project or recipe.name, folder.path if folder else None, plain)
    bundle.watch.tell = options.reporter.evaluating if folder is not None else None
    return RunWriter(
        run_dir=folder,
        info=info,
        reporter=options.reporter,
        plugins=plugins,
        transcripts_per_step=recipe.logging.transcripts_per_step,
        has_report=recipe.logging.report,
        trackers=trackers,
    )


def _list_resumes(
    before: Manifest, ranks: Ranks, point: ResumePoint | None, resolved: AnyResolved
) -> list[Mapping[str, object]]:
    """Every time that the run was resumed: after which step, on what, with which keys changed.

    The rest of ``run.json`` describes the last start.
    """
    then, now = before["recipe"], json.loads(json.dumps(render_plain(resolved)))
    whole = with_new_keys(then, now, resolved.source.data)
    if added := ", ".join(f"{key}={format_value(value)}" for key, _, value in differences(then, whole)):
        log.warning("the run was started by a version without these keys, which take their defaults: %s", added)
    changed = find_allowed_changes(whole, now)
    if changed:
        text = ", ".join(f"{key} {change}" for key, change in changed.items())
        meaning = explain_changes(changed)
        log.log(logging.INFO if meaning == SAME else logging.WARNING, "resumed with %s: %s", text, meaning)
    entry = {"after_step": point.state.step if point else 0, **machine(ranks), "changed": changed}
    return [*before.get("resumed", []), entry]


def _plan(
    resolved: AnyResolved,
    bundle: ModelBundle,
    folder: RunDir,
    options: RunOptions,
    point: ResumePoint | None,
    checked: Preflight,
) -> Plan:
    lines = [*describe_bundle(resolved, bundle, folder.path, checked), *options.forecast]
    if options.resume:
        how = f"after step {point.state.step}, from {point.folder}" if point else "from the start (no checkpoint)"
        lines.append(("resumes", how))
    return Plan(
        title=format_title(resolved),
        total_steps=total_steps(resolved),
        lines=lines,
        evaluation_every=resolved.recipe.evaluation.every,
        past=_past(folder, point.state) if point else None,
    )


def _past(folder: RunDir, state: TrainState) -> Past:
    return Past(
        step=state.step,
        metrics=read_intact(folder.path / METRICS),
        first=state.records["first"],
        last=state.records["last"],
    )
