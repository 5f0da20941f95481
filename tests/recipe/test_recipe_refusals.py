"""Wrong recipes: exit status 2 and one line that says where and what, the same by ``recipes check`` and by the
command that would run them; no torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.observability.trackers import PACKAGES

ABSENT = next(name for name, (modules, _) in PACKAGES.items() if not any(map(find_spec, modules)))
GOOD = {
    "name": "name: wrong",
    "model": "model: {name: countdown-base}",
    "task": "task: {name: countdown}",
    "algorithm": "algorithm: {name: grpo}",
    "sampling": "sampling: {group_size: 8, max_completion_tokens: 64}",
    "trainer": "trainer: {steps: 2, prompts_per_step: 8}",
}
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in ("ab", "bc", "cd", "de", "ef", "fg", "gh")
)
RECURSIVE = "task: &t {name: countdown, deeper: *t}"


def good_with(*lines: str) -> str:
    """The good recipe with its lines for the same keys replaced, others appended."""
    given = {line.partition(":")[0]: line for line in lines}
    return "\n".join({**GOOD, **given}.values()) + "\n"


OTHER_DATA = ("name=countdown", "source=dataset", "dataset=no.csv")
DIGITS, LONG = "9" * 5000, "x" * 5000
# (what is wrong, lines that make it so, overrides, what the line must hold)
LINES: list[tuple[str, list[str], list[str], str]] = [
    ("unknown section", ["trainr: {steps: 3}"], [], "trainr: unknown key; did you mean 'trainer'?"),
    ("unknown key", ["trainer: {stps: 3}"], [], "trainer.stps: unknown key; did you mean 'steps'?"),
    ("key of another section", ["trainer: {learning_rate: 3}"], [], "belongs in critic or optimizer"),
    ("key of the algorithm", ["trainer: {clip_eps: 3}"], [], "'clip_eps' belongs in algorithm"),
    ("missing section", ["trainer: null"], [], "trainer must be"),
    ("missing key", ["trainer: {steps: 3}"], [], "trainer.prompts_per_step is missing"),
    ("text for an integer", ["trainer: {steps: many, prompts_per_step: 8}"], [], "must be an integer, got 'many'"),
    ("fraction for an integer", [], ["trainer.steps=1.5"], "must be an integer, got 1.5"),
    ("text for a number", [], ["optimizer.learning_rate=small"], "optimizer.learning_rate must be a number"),
    ("number for text", ["name: 7"], [], "name must be text (quote it), got 7"),
    ("number for a switch", [], ["model.gradient_checkpointing=1"], "must be true or false, got 1"),
    ("text for a list", [], ["sampling.stop=end"], "sampling.stop must be a list"),
    ("list for a section", ["sampling: [8]"], [], "sampling must be a mapping of keys"),
    ("text for a slot", ["task: countdown"], [], "task must be a mapping"),
    ("null for an integer", [], ["trainer.steps=null"], "trainer.steps must be an integer, got null"),
    ("negative steps", [], ["trainer.steps=-1"], "trainer.steps must be >= 1, got -1"),
    ("negative seed", ["seed: -5"], [], "seed must be in [0, 2**63), got -5"),
    ("negative learning rate", [], ["optimizer.learning_rate=-1e-3"], "must be > 0, got -0.001"),
    ("negative temperature", [], ["sampling.temperature=-1"], "sampling.temperature must be in [0.001, 1000], got -1"),
    ("temperature that is not a number", [], ["sampling.temperature=.nan"], "must be in [0.001, 1000], got nan"),
    ("no completion tokens", [], ["sampling.max_completion_tokens=0"], "must be >= 1, got 0"),
    ("no prompt tokens", [], ["sampling.max_prompt_tokens=0"], "max_prompt_tokens must be >= 1, got 0"),
    ("negative weight decay", [], ["optimizer.weight_decay=-1"], "weight_decay must be >= 0, got -1"),
    ("prompts that fit nowhere", [], ["trainer.prompts_per_step=1000000000000"], "must be <= 10000000, got"),
    ("a group that fits nowhere", [], ["sampling.group_size=1000000000000"], "must be <= 65536, got"),
    ("groups that fit nowhere", [], ["trainer.prompts_per_step=8000000"], "group_size must be <= 10000000, got 64"),
    ("completions that fit nowhere", [], ["sampling.max_completion_tokens=1000000000000"], "must be <= 10000000"),
    ("problems that fit nowhere", [], ["evaluation.suites.a.problems=1000000000000"], "must be <= 10000000, got"),
    ("samples that fit nowhere", [], ["evaluation.suites.a={problems: 10, samples: 1000001}"], "must be <= 1000000,"),
    ("adapters that fit nowhere", [], ["model.lora={rank: 1000000000000}"], "model.lora.rank must be <= 65536"),
    ("memory that is nowhere", [], ["rewards.countdown.memory_mb=99999999999999999999"], "at most 1073741824, or"),
    ("keeps no checkpoint", [], ["checkpoint.keep=0"], "checkpoint.keep must be >= 1, got 0"),
    ("another optimizer", [], ["optimizer.name=sgd"], "must be one of adamw, adamw_8bit, adamw_bf16, got 'sgd'"),
    ("another dtype", [], ["model.dtype=fp8"], "model.dtype must be one of"),
    ("minibatches that do not divide", [], ["trainer.minibatches=3"], "a multiple of minibatches (3), got 8"),
    ("a group of one for GRPO", [], ["sampling.group_size=1"], "grpo needs sampling.group_size >= 2, got 1"),
    ("a critic for GRPO", ["critic: {kind: shared}"], [], "critic: grpo needs none; remove it"),
    ("no critic for PPO", ["algorithm: {name: ppo}"], [], "critic: ppo needs one, such as critic: {kind"),
    ("unknown task", ["task: {name: countdwn}"], [], "no task 'countdwn'; did you mean 'countdown'?"),
    ("unknown algorithm", ["algorithm: {name: gpro}"], [], "did you mean 'grpo'?"),
    ("unknown backend", ["rollout_backend: {name: hff}"], [], "no rollout_backend 'hff'"),
    ("unknown reward", ["rewards: {countdwn: {}}"], [], "no reward 'countdwn'; did you mean 'countdown'?"),
    ("unknown model", ["model: {name: countdown-bas}"], [], "did you mean 'countdown-base'?"),
    ("a reward as task", ["task: {name: countdown_tinyzero}"], [], "is a reward, not a task"),
    ("an algorithm as reward", ["rewards: {grpo: {}}"], [], "'grpo' is an algorithm, not a reward"),
    ("unknown option", ["task: {name: countdown, min_number_: 3}"], [], "unknown key for task 'countdown'"),
    ("a weight that is no number", ["rewards: {countdown: {weight: big}}"], [], "weight must be a number"),
    ("two models", ["model: {name: countdown-base, path: x}"], [], "model.path or name must be set, but not both"),
    ("no such model folder", ["model: {path: ./no/such/folder}"], [], "no such folder, and not a hub name"),
    ("foreign code unpinned", ["model: {path: a/b, trust_remote_code: true}"], [], "unless path and revision"),
    ("backend option in sampling", ["sampling: {max_batch_rows: 3}"], [], "sampling.max_batch_rows: unknown key"),
    ("suite without problems", [], ["evaluation.suites.s.problems=0"], "evaluation.suites.s.problems must be >="),
    ("suite with a folder's name", ["evaluation: {suites: {../up: {}}}"], [], "suites must be named like"),
    ("name of a parent folder", ["name: ../../up"], [], "name must be a name like"),
    ("absolute name", ["name: /etc/passwd"], [], "name must be a name like"),
    ("hidden name", ["name: .git"], [], "name must be a name like"),
    ("name of 200 characters", ["name: " + "n" * 200], [], "name must be a name like"),
    ("control characters", ['name: "a\\e[2Jb\\nc"'], [], "name must be a name like"),
    ("half a line break", ['name: "a\\u2028b"'], [], "name must be a name like"),
    ("unknown variable", ["name: '${oc.env:REASONRL_NOBODY}'"], [], "an environment variable is not set"),
    ("another interpolation", ["name: '${task.name}'"], [], "only ${oc.env:NAME} can be interpolated"),
    ("interpolation in a circle", ["name: '${name}'"], [], "only ${oc.env:NAME} can be interpolated"),
    ("unknown resolver", ["name: '${oc.create:x}'"], [], "only ${oc.env:NAME} can be interpolated"),
    ("half an interpolation", ["name: '${oc.env:'"], [], "wrong.yaml"),
    ("value missing", ["name: '???'"], [], "name has no value"),
    ("secret in the recipe", ["logging: {wandb_api_key: sk-123}"], [], "must not be written into a recipe"),
    ("key given twice", ["name: a\nname: b"], [], "wrong.yaml:2: duplicate key 'name', first on line 1"),
    ("unsafe tag", ["name: !!python/object/apply:os.system ['true']"], [], "wrong.yaml:1: not valid YAML"),
    ("exploding aliases", [BOMB], [], "wrong.yaml"),
    ("recursive alias", [RECURSIVE], [], "wrong.yaml"),
    ("unclosed bracket", ["name: [a"], [], "not valid YAML"),
    ("tab", ["name: a\n\tseed: 3"], [], "not valid YAML"),
    ("parent that is missing", ["extends: nowhere.yaml"], [], "extends: no such file"),
    ("parent that is itself", ["extends: wrong.yaml"], [], "wrong.yaml: extends itself"),
    ("parent in a circle", ["extends: other.yaml"], [], "extends itself, through"),
    ("two parents", ["extends: [a.yaml, b.yaml]"], [], "extends must be the path of one recipe file"),
    ("parent that is a folder", ["extends: ."], [], "extends: no such file"),
    ("override without a value", [], ["trainer.steps="], "override 'trainer.steps=': no value"),
    ("override without a key", [], ["=3"], "expected section.key=value"),
    ("override that is no YAML", [], ["trainer.steps=[1"], "the value is not valid YAML"),
    ("sft recipe", ["sft: {max_tokens: 5}"], [], "unknown key"),
    ("octal number", [], ["seed=010"], "seed: 010 is 8 in YAML; write 8 or 10"),
    ("switch of YAML 1.1", ["model: {name: countdown-base, gradient_checkpointing: on}"], [], "write true"),
    ("number in words", [], ["optimizer.learning_rate=nan"], "must be a number, got 'nan'; write .nan"),
    ("too small for float32", [], ["optimizer.eps=1e-320"], "optimizer.eps must be 0 or from 1.2e-38 to 3.4e+38"),
    ("too large for float32", [], ["optimizer.eps=-1e308"], "3.4e+38 in size, got -1e+308"),
    ("literal line break", ["sampling: {stop: ['\\n']}"], [], 'sampling.stop must be written ["\\n"]'),
    ("half precision", [], ["model.dtype=float16"], "model.dtype must be one of auto, float32, bfloat16"),
    ("suite that is not there", [], ["evaluation.suites.gredy=null"], "no such suite to disable"),
    ("unknown tracker", [], ["logging.trackers=[wandbb]"], "no tracker 'wandbb'; did you mean 'wandb'?"),
    ("absent tracker", [], [f"logging.trackers=[{ABSENT}]"], f"'{ABSENT}' is not installed: pip install"),
    ("folder that takes no run", [], ["output_dir=/proc/runs"], "cannot create a run folder in /proc/runs"),
    ("model folder without a model", [], ["model.path=model"], "model.path: model is not a model folder: it has no"),
    ("run for a model", [], ["model.path=run"], "run is a run folder, expected a model folder; its newest model: run/"),
    ("run that is not there", [], ["model.path=several/run-7"], "no such folder, and not a hub name"),
    ("data that is not there", ["task: {name: countdown, source: dataset, dataset: ./no.jsonl}"], [],
     "wrong.yaml:3: task.dataset: no.jsonl: no such file"),
    ("data that is not used", [], ["task.dataset=./no.jsonl"], "task.dataset must come with source: dataset"),
    ("data of a suite", [], [f"evaluation.suites.s.task.{option}" for option in OTHER_DATA],
     "evaluation.suites.s.task.dataset: no.csv: no such file"),
    ("data that is a pointer", [], ["task.source=dataset", "task.dataset=lfs.jsonl"],
     "task.dataset: lfs.jsonl: a Git LFS pointer"),
    ("empty data", [], ["task.source=dataset", "task.dataset=empty.jsonl"], "task.dataset: empty.jsonl: empty file"),
    ("template that is not there", [], ["model.chat_template=no.jinja"], "model.chat_template: no such file"),
    ("empty template", [], ["model.chat_template=empty.jsonl"], "empty.jsonl is empty, expected a Jinja template"),
    ("variable that no template reads", [], ["model.chat_template=r.py", "model.chat_template_args.deep=true"],
     "model.chat_template_args: the chat template does not use 'deep'"),
    ("reward file that is not there", ["rewards: {mine: {path: no.py}}"], [], "wrong.yaml:7: rewards.mine.path "),
    ("reward file that is no Python", ["rewards: {mine: {path: torn.py}}"], [], "torn.py:1: "),
    ("reward of another name", ["rewards: {mine: {path: r.py:scor}}"], [], "has no 'scor'; did you mean 'score'?"),
    ("tag of a switch", ["name: !!bool abc"], [], "wrong.yaml:1: not valid YAML for a recipe: the tag !!bool"),
    ("tag of a date", [], ["name=!!timestamp abc"], "not valid YAML for a recipe: the tag !!timestamp"),
    ("tag of an empty number", ["seed: !!int ''"], [], "the tag !!int; remove it"),
    ("tag of a key", ["task: {name: countdown, !!bool abc: 2}"], [], "the tag !!bool"),
    ("number of 5,000 digits", [f"seed: {DIGITS}"], [], "wrong.yaml:7: a number of 5000 characters"),
    ("override of 5,000 digits", [], [f"seed={DIGITS}"], "a number of 5000 characters, expected at most 64"),
    ("hexadecimal number of 5,000 digits", [], ["trainer.steps=0x" + "f" * 5000], "a number of 5002 characters"),
    ("sexagesimal number", [], ["trainer.steps=1:59:59"], "1:59:59 is 7199 in YAML; write 7199"),
    ("sexagesimal number of 400 parts", [], ["trainer.steps=1" + ":59" * 400], "a number of 1201 characters"),
    ("number over 64 bits", [], ["trainer.steps=9223372036854775808"], "trainer.steps must be an integer in [-2**63"),
    ("zero byte", ['model: {path: "a\\0b"}'], [], "model.path: a zero byte or half a character"),
    ("half a character", ['model: {name: "\\ud800"}'], [], "wrong.yaml"),
    ("name of 5,000 characters", [f"model: {{path: {LONG}}}"], [], "File name too long"),
    ("reward's file of 5,000 characters", [f"rewards: {{mine: {{path: {LONG}.py}}}}"], [], "File name too long"),
    ("template of 5,000 characters", [], [f"model.chat_template={LONG}"], "too long"),
    ("folder of 5,000 characters", [f"output_dir: {LONG}"], [], "cannot create a run folder in"),
    ("folder of a long name below one that is not there", [f"output_dir: new/{'y' * 300}"], [], "name too long"),
    ("data of 5,000 characters", [], ["task.source=dataset", f"task.dataset=./{LONG}.jsonl"], "File name too long"),
    ("folder of nobody", ["output_dir: ~nobody-here/runs"], [], "output_dir must be a path; ~ is followed by"),
    ("key of 1,000 characters", [f"{LONG[:1000]}: 1"], [], "unknown key"),
    ("interpolations in interpolations", ["name: '" + "${" * 900 + "'"], [], "more than 16 interpolations"),
    ("reward of another form", ["rewards: {mine: {path: r.py:one}}"], [], "has one(completion)"),
    ("reward that imports what is not there", ["rewards: {mine: {path: far.py}}"], [], "imports 'no_such_module'"),
]  # fmt: skip
SFT = """name: wrong
model: {name: countdown-base}
data: {path: %s}
sft: {max_tokens: 100}
"""
SFT_LINES: list[tuple[str, str, list[str], str]] = [
    ("no demonstrations", "nothing.jsonl", [], "wrong.yaml:3: data.path: nothing.jsonl: no such file"),
    ("empty demonstrations", "empty.jsonl", [], "data.path: empty.jsonl: empty file"),
    ("demonstrations that are a pointer", "lfs.jsonl", [], "a Git LFS pointer"),
    ("tracker of an sft", "good.jsonl", ["logging.trackers=[wandbb]"], "no tracker 'wandbb'"),
]
BESIDE = {  # files in the folder of every wrong recipe, where the commands start
    "r.py": b"def score(problem, completion): return 1.0\ndef one(completion): return 1.0\n",
    "torn.py": b"def score(problem\n",
    "far.py": b"import no_such_module\n",
    "lfs.jsonl": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    "empty.jsonl": b"",
    "good.jsonl": b'{"prompt": "a", "completion": "b"}\n',
    "model/weights.bin": b"?",
    "run/run.json": b"{}",
    "run/checkpoints/step_000003/config.json": b"{}",
    "several/run-1/run.json": b"{}",
}
FILES: list[tuple[str, bytes, str]] = [
    ("empty file", b"", "is empty"),
    ("binary file", bytes(range(256)), "not a text file (UTF-8 expected)"),
    ("zero bytes", b"name: \0\n", "not valid YAML"),
    ("a list", b"- name: x\n", "a recipe must be a mapping of keys, got a list"),
    ("prose", b"train my model please\n", "a recipe must be a mapping of keys"),
    ("megabyte of keys", "".join(f"k{i}: {i}\n" for i in range(70_000)).encode(), "a recipe has at most 100,000"),
    ("many keys", "".join(f"k{i}: {i}\n" for i in range(7000)).encode(), "more than 2,000 keys and values"),
    ("two documents", b"name: a\n---\nname: b\n", "not valid YAML"),
    ("ten megabytes", b"# " + b"x" * 10_000_000, "a recipe has at most"),
    ("deep nesting", b"a: " + b"[" * 5000, "wrong.yaml"),
]


def cases(folder: Path) -> list[tuple[str, list[str], str]]:
    """(what is wrong, the command that runs it, what the line holds); each recipe in a folder of its own."""
    made = []
    for number, (what, lines, overrides, said) in enumerate(LINES):
        path = folder / f"{number}" / "wrong.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(good_with(*lines), encoding="utf-8")
        (path.parent / "other.yaml").write_text("extends: wrong.yaml\n")
        made.append((what, ["train", str(path), *overrides], said))
    for what, data, overrides, said in SFT_LINES:
        path = folder / what / "wrong.yaml"
        path.parent.mkdir()
        path.write_text(SFT % data)
        made.append((what, ["sft", str(path), *overrides], said))
    for what, content, said in FILES:
        path = folder / what / "wrong.yaml"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        made.append((what, ["train", str(path)], said))
    made.append(("a folder", ["train", str(folder)], "is a folder, expected a recipe file"))
    made.append(("no such file", ["train", str(folder / "nowhere.yaml")], "no such recipe file"))
    for name, content in BESIDE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return made


PROBE = """
import json, sys, time
from typer.testing import CliRunner
from reasonrl.cli.app import app

for arguments in json.load(sys.stdin):
    started = time.process_time()
    done = CliRunner().invoke(app, arguments)
    loaded = {name.split(".")[0] for name in sys.modules} & {"torch", "transformers", "accelerate", "datasets"}
    seconds = time.process_time() - started
    print(json.dumps([done.exit_code, done.output, sorted(loaded), seconds]))
"""


@pytest.mark.slow
def test_every_wrong_recipe_is_refused_in_one_line_without_torch_by_check_and_run_alike(
    tmp_path: Path,
) -> None:
    wrong = cases(tmp_path)
    assert len(wrong) >= 50
    before = sorted(p for p in tmp_path.rglob("*"))
    answers = asked(tmp_path, [arguments for _, arguments, _ in wrong])
    checked = asked(tmp_path, [["recipes", "check", *arguments] for _, (_, *arguments), _ in wrong])
    for (what, _, said), (code, output, loaded, _), other in zip(wrong, answers, checked, strict=True):
        lines = output.splitlines()
        assert (code, len(lines), loaded) == (2, 1, []), (what, code, output, loaded)
        assert lines[0].startswith("error: "), (what, output)
        assert len(lines[0]) <= 1010, (what, len(lines[0]))
        assert said in lines[0], (what, output)
        assert output.removesuffix("\n").isprintable(), (what, output)
        assert other[:3] == [code, output, loaded], (what, other)
    # Processor time, since the tests share the machine; reading and refusing, without Python's own start.
    slow = {what: round(a[3], 2) for (what, _, _), a in zip(wrong, answers, strict=True) if a[3] > 1.0}
    assert not slow
    assert sorted(p for p in tmp_path.rglob("*") if "__pycache__" not in p.parts) == before


def asked(folder: Path, commands: list[list[str]]) -> list[list[object]]:
    """Exit code, output, heavy modules and seconds of each command, all in one process."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "REASONRL_PLUGINS": "reasonrl"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("number", [0, 1])
def test_the_same_in_this_process(number: int, tmp_path: Path) -> None:
    _, arguments, said = cases(tmp_path)[number]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, said in done.output) == (2, True)


@pytest.mark.parametrize(
    ("command", "text", "rows", "said"),
    [
        (
            "train",
            good_with("task: {name: countdown, source: dataset, dataset: rows.jsonl}"),
            '{"nums": [3, 5], "target": 15}\n{"nums": "three", "target": 15}\n',
            "rows.jsonl:2: ",
        ),
        (
            "train",
            good_with("task: {name: countdown, source: dataset, dataset: rows.jsonl}"),
            '{"nums": [3, 5]}\n',
            "rows.jsonl:1: ",
        ),
        ("sft", SFT % "rows.jsonl", '{"prompt": "a", "completion": "b"}\n{"prompt": \n', "rows.jsonl:2: "),
    ],
)
def test_bad_rows_of_small_files_are_told_alike(
    command: str, text: str, rows: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text(text)
    (tmp_path / "rows.jsonl").write_text(rows)
    run, checked = (CliRunner().invoke(app, [*c, "wrong.yaml"]) for c in ([command], ["recipes", "check"]))
    assert (run.exit_code, run.stderr) == (checked.exit_code, checked.stderr)
    assert (run.exit_code, checked.stdout) == (2, "")
    assert said in run.stderr
    assert not (tmp_path / "runs").exists()
