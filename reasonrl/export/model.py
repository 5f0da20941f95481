"""Export the model of a run to a folder, and from there to the hub."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from reasonrl.errors import RecipeError
from reasonrl.export import hub
from reasonrl.export.base import Base, find_base
from reasonrl.export.card import write_card
from reasonrl.export.folders import write_adapter, write_merged
from reasonrl.export.gguf_file import check_gguf, write_gguf
from reasonrl.export.request import Format, Precision, Request
from reasonrl.export.source import Source, open_source
from reasonrl.redact import redacting_logger
from reasonrl.rundir import files
from reasonrl.rundir.holds import holding
from reasonrl.rundir.layout import EXPORT, is_data_of_run
from reasonrl.rundir.new_folder import explain_failure, new_folder

log = redacting_logger(__name__)

Tell = Callable[[str], None]
"""Told what begins, such as ``writing model.gguf``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """``folder``: None if the model was only pushed. ``url``: of the commit on the hub."""

    source: Source
    folder: Path | None
    precision: str
    size: int
    url: str | None = None


@holding()
def export(request: Request, tell: Tell = lambda what: None) -> Exported:
    """Verify a checkpoint, write it as ``request`` says with a model card, and push it if asked.

    Raises:
        RecipeError: If the request cannot be met.
        CheckpointError: If the checkpoint is corrupted, the disk refuses or the hub does.
    """
    target = request.to
    if target is None and request.push is None:
        target = request.run / EXPORT / request.format
    _refuse_taken(target)
    if request.push is not None:
        hub.check_repo(request.push)
    tell("verifying the checkpoint")
    source = open_source(request.run, request.step, strict=request.strict)
    base = find_base(source.manifest, online=request.push is not None)
    base = replace(base, license=request.license) if request.license else base
    _refuse_early(source, base, request)
    repo = hub.full_name(request.push) if request.push is not None else ""
    with explain_failure(target, what="export", flag="--to"), new_folder(target) as folder:
        precision = _write(source, base, folder, request, repo, tell)
        files.follow_umask(folder)
        size = sum(path.stat().st_size for path in files.list_files(folder))
        url = None
        if repo:
            tell(f"uploading {size / 1e6:,.1f} MB to {repo}")
            message = f"Step {source.step} of {source.manifest['name']}"
            url = hub.push(folder, repo, private=request.private, message=message)
    return Exported(source=source, folder=target, precision=precision, size=size, url=url)


def _write(source: Source, base: Base, folder: Path, request: Request, repo: str, tell: Tell) -> Precision:
    precision: Precision = request.dtype or _usual_precision(source, request.format)
    tell(f"writing {request.format} in {precision}")
    if request.format == "merged":
        write_merged(source, folder, precision)
    elif request.format == "adapter":
        write_adapter(source, folder, precision)
    elif warning := write_gguf(source, folder, precision):
        log.warning("%s", warning)
    where = repo or (request.to or request.run / EXPORT / request.format).name
    write_card(source, base, folder, kind=request.format, precision=precision, where=where)
    return precision


def _usual_precision(source: Source, kind: Format) -> Precision:
    """What the run computed in; float16 in GGUF, which every build of llama.cpp reads; float32 for small adapters."""
    if kind == "adapter":
        return "float32"
    if kind == "gguf":
        return "float16"
    return "bfloat16" if source.precision == "bfloat16" else "float32"


def _refuse_early(source: Source, base: Base, request: Request) -> None:
    if request.format == "gguf":
        check_gguf(source)
    if request.format == "adapter" and request.push is not None and base.hub is None:
        raise RecipeError(
            f"--push: the adapter needs its base model, {base.text}, which is not on the hub; push with --format merged"
        )


def _refuse_taken(target: Path | None) -> None:
    if target is not None and is_data_of_run(target):
        raise RecipeError(
            f"--to {target} lies among a run's own files, where it would count as one of them; choose another folder"
        )
    if target is not None and os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
        raise RecipeError(f"{target} already exists; remove it, or choose another folder with --to")
