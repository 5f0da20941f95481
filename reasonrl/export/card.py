"""The model card of an exported model, written from its run. Torch-free.

It names data, recipe, results with intervals, versions and license, and holds no secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from reasonrl.datafiles import is_local
from reasonrl.errors import CheckpointError, describe
from reasonrl.export.base import Base
from reasonrl.export.source import Source
from reasonrl.redact import redact_text
from reasonrl.rundir.evaluations import list_evaluations
from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.rundir.layout import METRICS, RECIPE, SUMMARY
from reasonrl.rundir.reading import read_bytes, read_object
from reasonrl.statistics.spacing import pick_evenly

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

MOST_ROWS = 12
LIBRARIES = {"merged": "transformers", "adapter": "peft", "gguf": "gguf"}
RELATIONS = {"merged": "finetune", "adapter": "adapter", "gguf": "quantized"}
Evaluations = Mapping[int, Mapping[str, Mapping[str, Any]]]
"""Step -> suite -> figures."""


def write_card(source: Source, base: Base, folder: Path, *, kind: str, precision: str, where: str) -> None:
    """Write ``README.md`` of ``folder``.

    Args:
        kind: ``merged``, ``adapter`` or ``gguf``.
        where: Repository or folder in which a reader will find it.
    """
    try:
        evals = read_evaluations(source)
        data = _front_matter(source, base, evals, kind)
        body = "\n".join(_body(source, base, evals, kind, precision, where))
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError, yaml.YAMLError) as err:
        raise CheckpointError(
            f"{source.run}: the card cannot be written, since records of the run are damaged: {describe(err)}; "
            f"`reasonrl doctor {source.run}` names them: restore them from a backup"
        ) from err
    text = f"---\n{data.to_yaml()}\n---\n\n{body}\n"
    (folder / "README.md").write_text(without_home(redact_text(text)), encoding="utf-8")


def read_evaluations(source: Source) -> dict[int, dict[str, dict[str, Any]]]:
    """Read every evaluation of the run up to the exported step."""
    found = list_evaluations(source.run)
    return {step: read_object(folder / SUMMARY) for step, folder in found if step <= source.step}


def without_home(text: str) -> str:
    """Replace the user's home folder in ``text`` with ``~``."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def _front_matter(source: Source, base: Base, evals: Evaluations, kind: str) -> ModelCardData:
    from huggingface_hub import ModelCardData

    recipe = source.manifest["recipe"]
    datasets = sorted({name for name in _data_names(source) if name.count("/") == 1 and not is_local(name)})
    return ModelCardData(
        base_model=base.hub,
        base_model_relation=RELATIONS[kind] if base.hub else None,
        datasets=datasets or None,
        library_name=LIBRARIES[kind],
        license=base.license,
        pipeline_tag="text-generation",
        tags=["reasonrl", *(["reinforcement-learning"] if "algorithm" in recipe else ["sft"]), _method(recipe)],
        model_name=source.manifest["name"],
        eval_results=[*_results(evals)] or None,
    )


def _results(evals: Evaluations) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    for suite, figures in evals[max(evals)].items() if evals else ():
        yield EvalResult(
            task_type="text-generation",
            dataset_type=suite,
            dataset_name=suite,
            metric_type="accuracy",
            metric_value=round(figures["accuracy"], 4),
        )


def _body(source: Source, base: Base, evals: Evaluations, kind: str, precision: str, where: str) -> Iterator[str]:
    manifest, recipe = source.manifest, source.manifest["recipe"]
    yield f"# {manifest['name']}"
    yield ""
    yield f"- Base model: {base.text}"
    yield f"- Method: {_method(recipe)}, {source.step} steps, with reasonrl {manifest['reasonrl']}"
    yield f"- Data: {', '.join(_data(source))}"
    yield f"- Content: {_content(kind)}, {precision}"
    unknown = "that of the base model, which was not found; look it up before you share this"
    yield f"- License: {base.license or unknown}"
    yield from ("", "## Load it", "", *_load(kind, where, base))
    yield from ("", "## Results", "", *_result_rows(evals), "")
    yield from ("## Training", "", *_curve_rows(source, evals), "")
    yield from ("## Recipe", "", *_fenced(read_bytes(source.run / RECIPE).decode("utf-8"), "yaml"), "")
    yield from ("## Versions", "", *_versions(manifest))


def _method(recipe: Mapping[str, Any]) -> str:
    return str(recipe["algorithm"]["name"]) if "algorithm" in recipe else "supervised fine-tuning"


def _data(source: Source) -> Iterator[str]:
    task = source.manifest["recipe"].get("task")
    if task:
        yield f"task `{task['name']}`"
    for name in _data_names(source):
        yield f"a local file, `{Path(name).name}`" if is_local(name) else f"`{name}`"


def _data_names(source: Source) -> Iterator[str]:
    """Data sets that the recipe names itself: the default of a task may be unused."""
    written = yaml.safe_load(read_bytes(source.run / RECIPE).decode("utf-8"))
    for section, key in (("task", "dataset"), ("data", "path")):
        slot = written.get(section)
        if isinstance(slot, Mapping) and isinstance(slot.get(key), str) and slot[key]:
            yield slot[key]


def _content(kind: str) -> str:
    return {"merged": "the whole model", "adapter": "a LoRA adapter", "gguf": "the whole model as a GGUF file"}[kind]


def _load(kind: str, where: str, base: Base) -> Iterator[str]:
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", "", f"path = {json.dumps(where)}"]
    if kind == "adapter":
        start = json.dumps(base.hub or "the base model's folder")
        lines = ["from peft import PeftModel", *lines, f"model = AutoModelForCausalLM.from_pretrained({start})"]
        lines += ["model = PeftModel.from_pretrained(model, path)"]
    elif kind == "gguf":
        lines += ['model = AutoModelForCausalLM.from_pretrained(path, gguf_file="model.gguf")']
    else:
        lines += ["model = AutoModelForCausalLM.from_pretrained(path)"]
    yield from _fenced("\n".join([*lines, "tokenizer = AutoTokenizer.from_pretrained(path)"]), "python")


def _result_rows(evals: Evaluations) -> Iterator[str]:
    if not evals:
        yield "The run did not evaluate the model."
        return
    first, last = min(evals), max(evals)
    yield f"Accuracy on held-out problems, with 95% intervals, at steps {first} and {last}:"
    yield ""
    yield f"| suite | problems x samples | step {first} | step {last} |"
    yield "|---|---|---|---|"
    for suite, figures in evals[last].items():
        before = evals[first].get(suite)
        size = f"{figures['problems']} x {figures['samples']}"
        yield f"| {suite} | {size} | {_accuracy(before)} | {_accuracy(figures)} |"


def _accuracy(figures: Mapping[str, Any] | None) -> str:
    if not figures:
        return ""
    low, high = figures["ci95"]
    return f"{figures['accuracy']:.1%} ({low:.1%} to {high:.1%})"


def _curve_rows(source: Source, evals: Evaluations) -> Iterator[str]:
    """Mean training reward since the row before, and the accuracy of every suite, at some steps."""
    metrics = source.run / METRICS
    lines = list(read_jsonl(metrics)) if metrics.exists() else []
    rewards = {line["step"]: line.get("train/reward") for line in lines if line["step"] <= source.step}
    suites = list(evals[max(evals)]) if evals else []
    known = sorted(evals) if len(evals) > 2 else sorted({0, *rewards})
    steps = [known[i] for i in pick_evenly(len(known), MOST_ROWS)]
    yield "Accuracy by step, and the mean training reward of the steps since the row before:"
    yield ""
    yield " | ".join(["| step", "reward", *suites]) + " |"
    yield "|---" * (2 + len(suites)) + "|"
    before = -1
    for step in steps:
        seen = [reward for at, reward in rewards.items() if before < at <= step and reward is not None]
        mean = f"{sum(seen) / len(seen):.3f}" if seen else ""
        cells = [_accuracy(evals.get(step, {}).get(suite)) for suite in suites]
        yield " | ".join([f"| {step}", mean, *cells]) + " |"
        before = step


def _versions(manifest: Mapping[str, Any]) -> Iterator[str]:
    machine = manifest["machine"]
    used = {"reasonrl": manifest["reasonrl"], "python": manifest["python"], **manifest["versions"]}
    yield ", ".join(f"{name} {version}" for name, version in used.items() if version)
    yield ""
    device = machine.get("gpu") or machine["device"]
    yield f"Trained on {machine['processes']} x {device} in {machine['precision']}, seed {manifest['seed']}."


def _fenced(text: str, language: str) -> Iterator[str]:
    fence = "```"
    while fence in text:
        fence += "`"
    yield from (f"{fence}{language}", text.rstrip("\n"), fence)
