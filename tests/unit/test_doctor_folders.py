"""`reasonrl doctor` on folders: whole, damaged, running, dead, and not runs at all."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from filelock import FileLock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from support.sick_runs import (
    STEPS,
    healthy_line,
    sick,
    write_checkpoint,
    write_run,
    write_summary,
)
from typer.testing import CliRunner

from reasonrl.analysis.doctor import CHECKS, Finding, examine
from reasonrl.analysis.doctor.findings import SEVERITIES
from reasonrl.cli.app import app
from reasonrl.cli.doctor import run_doctor
from reasonrl.cli.installation import SELF_CHECKS, check_hub, check_output, check_packages, check_plugins
from reasonrl.cli.trial import CONSTRAINTS, check_trial
from reasonrl.errors import RecipeError, RolloutError
from reasonrl.plugins import PluginRecord
from reasonrl_hf.cached import CachedModel

PAGE = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"


def cli(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["doctor", *map(str, arguments)], prog_name="reasonrl")
    assert result.exit_code == code, result.output
    return result.stderr if code == 2 else result.stdout


def only(folder: Path) -> Finding:
    found = examine(folder).findings
    assert len(found) == 1, found
    return found[0]


def test_how_a_run_ended(tmp_path: Path) -> None:
    died = only(write_run(tmp_path / "died", outcome=None))
    assert (died.check, died.severity, died.step) == ("state", "error", STEPS)
    assert "terminated without writing a summary" in died.message
    assert f"reasonrl resume {tmp_path / 'died'}" in died.remedy
    stopped = only(write_run(tmp_path / "stopped", outcome="interrupted"))
    assert (stopped.check, stopped.severity) == ("state", "note")
    failed = write_run(tmp_path / "failed", outcome="failed")
    assert "failed: see its terminal output" in only(failed).message
    write_summary(failed, "failed", STEPS, error="reward 'x' raised")
    assert "failed: reward 'x' raised, after step 40 of 40" in only(failed).message


def test_a_run_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", outcome=None)
    with FileLock(folder / ".lock"):
        diagnosis = examine(folder)
        assert (diagnosis.state, diagnosis.findings) == ("running", ())
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"step": 41, "rew')  # a line that is being written
        assert examine(folder).findings == ()
        long_ago = time.time() - 3600
        os.utime(folder / "metrics.jsonl", (long_ago, long_ago))
        stuck = only(folder)
        assert (stuck.check, stuck.severity) == ("state", "warning")
        assert "no step for 60 minutes" in stuck.message
    assert examine(folder).state == "died"
    assert not list(folder.glob("*.tmp")), "nothing is written by looking"


def rewrite(folder: Path, *order: int) -> Path:
    lines = [json.dumps(healthy_line(step)) for step in order]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_metrics_with_gaps_duplicates_disorder_and_damage(tmp_path: Path) -> None:
    whole = list(range(1, STEPS + 1))
    gap = only(rewrite(write_run(tmp_path / "gap"), *whole[:9], *whole[11:]))
    assert (gap.check, gap.severity, gap.step) == ("metrics", "error", 10)
    assert "missing steps: 10, 11" in gap.message
    swapped = only(rewrite(write_run(tmp_path / "swapped"), *whole[:9], 11, 10, *whole[11:]))
    assert "out of order: 10" in swapped.message
    twice = rewrite(write_run(tmp_path / "twice"), *whole[:9], 9, *whole[9:])
    assert "duplicate steps: 9" in only(twice).message
    late = only(rewrite(write_run(tmp_path / "late"), *whole[20:]))
    assert "missing steps: 1, 2, 3, 4, 5, ..." in late.message
    short = only(rewrite(write_run(tmp_path / "short"), *whole[:30]))
    assert "summary.json has 40 steps, metrics.jsonl ends at 30" in short.message


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe\x00garbage", b"{", b"[]", b'{"step": "3"}', b'{"step": true}', b"[" * 100_000]
)
def test_a_damaged_line_is_named_and_the_rest_is_read(damage: bytes, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", sick(lambda line: {"policy/clip_frac": 0.9}))
    text = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(damage + b"\n" + text)
    found = examine(folder).findings
    assert [f.check for f in found] == ["metrics", "clipping"]
    assert "corrupted lines: 1" in found[0].message


def test_a_huge_step_number_makes_no_huge_list(tmp_path: Path) -> None:
    found = only(write_run(tmp_path / "run", [healthy_line(1), {"step": 10**17}]))
    assert "missing steps: 2, 3, 4, 5, 6, ..." in found.message


ODD = (None, True, -1, 10**400, "x", [], [1, "x"], {}, {"a": []})


def each_replaced(data: object) -> Iterator[object]:
    """``data`` with one part after another replaced by every odd value."""
    yield from ODD
    if isinstance(data, dict):
        for key, value in data.items():
            yield from ({**data, key: odd} for odd in each_replaced(value))


def test_records_of_another_shape_never_stop_an_examination(tmp_path: Path) -> None:
    """Whatever JSON the files hold, there are findings or one refusal, and no traceback."""
    lines = sick(lambda line: {"group/zero_std_frac": 1.0, "train/truncated_frac": 0.9}, since=1)
    folder = write_run(tmp_path / "run", lines, outcome="failed")
    refused = set()
    for name in ("run.json", "summary.json", "evals/step_000000/summary.json"):
        content = (folder / name).read_text()
        for data in each_replaced(json.loads(content)):
            (folder / name).write_text(json.dumps(data))
            try:
                assert examine(folder).findings
            except RecipeError:
                refused.add(name)
        (folder / name).write_text(content)
    assert refused == {"run.json"}


def test_a_cut_last_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    text = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(text + b'{"step": 41, "rew')
    cut = only(folder)
    assert (cut.check, cut.severity) == ("metrics", "warning")
    assert "incomplete" in cut.message
    (folder / "metrics.jsonl").write_bytes(text[:-1])  # whole, only its line break is missing
    assert examine(folder).findings == ()


def test_damaged_checkpoints(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    broken = write_checkpoint(folder, 20)
    weights = bytearray((broken / "model.safetensors").read_bytes())
    weights[77] ^= 1
    (broken / "model.safetensors").write_bytes(weights)
    found = only(folder)
    assert (found.check, found.severity, found.step) == ("checkpoints", "error", 20)
    assert "model.safetensors" in found.message
    assert "from step 40, which is intact" in found.remedy
    (folder / "checkpoints" / "step_000040" / "manifest.json").unlink()
    both = examine(folder).findings
    assert [f.step for f in both] == [20, 40]
    assert all("no checkpoint of this run is intact" in f.remedy for f in both)


def test_no_checkpoint_and_left_overs(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", outcome="interrupted")
    (folder / "checkpoints" / ".tmp-step_000050").mkdir()
    assert [f.check for f in examine(folder).findings] == ["state", "checkpoints"]
    (folder / "checkpoints" / ".tmp-step_000050").rmdir()
    (folder / "checkpoints" / "step_000040").rename(tmp_path / "elsewhere")
    found = examine(folder).findings
    assert [(f.check, f.severity) for f in found] == [("checkpoints", "warning"), ("state", "note")]
    assert "checkpoint.every" in found[0].remedy


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "recipe.yaml").unlink()
    assert "recipe.yaml is missing" in only(folder).message
    folder = write_run(tmp_path / "garbage")
    (folder / "run.json").write_bytes(b"\x00\xff\x00")
    assert "run.json cannot be read" in only(folder).message
    folder = write_run(tmp_path / "cut")
    (folder / "summary.json").write_text('{"outcome": "comp')
    assert "summary.json cannot be read" in only(folder).message
    folder = write_run(tmp_path / "gone")
    (folder / "metrics.jsonl").unlink()
    assert "metrics.jsonl is missing although the run finished steps" in only(folder).message


def test_what_is_no_run_folder_is_one_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    (tmp_path / "empty").mkdir()
    for name, content in (("other", '{"name": "x"}'), ("list", "[1]"), ("binary", "\x00\x01")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    for name, text in (
        ("nowhere", "does not exist"),
        ("file", "it is a file"),
        ("empty", "no run.json"),
        ("other", "not written by reasonrl"),
        ("list", "not written by reasonrl"),
        ("binary", "not written by reasonrl"),
    ):
        message = cli(tmp_path / name, code=2)
        assert text in message, name
        assert message.count("\n") == 1
    for arguments in ([], ["--self", tmp_path]):
        assert "reasonrl doctor --self" in cli(*arguments, code=2)


def test_the_table_fits_80_columns_and_obeys_nobody(tmp_path: Path) -> None:
    """As text when it is no terminal; what the folder says cannot command one."""
    figures = {"group/zero_std_frac": 1.0, "train/accuracy": 0.0}
    folder = write_run(tmp_path / "run", sick(lambda line: figures), outcome="failed")
    write_summary(folder, "failed", STEPS, error="\x1b[2Jgone\u202e")
    text = cli(folder, code=1)
    lines = text.splitlines()
    assert lines[1] == "2 errors"
    assert lines[3].split() == ["SEVERITY", "CHECK", "FINDING"]
    assert all(len(line) <= 80 or str(folder) in line for line in lines[3:])  # a path stays whole
    assert "\x1b" not in text
    assert "\\x1b[2Jgone\\u202e" in text
    assert "not measured: sft-loss" in text


def test_a_secret_in_an_error_is_not_repeated(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", outcome="failed")
    write_summary(folder, "failed", STEPS, error="cannot fetch https://me:canary-7@host/x, api_key=canary-8")
    for arguments in ([folder], [folder, "--json"]):
        text = cli(*arguments, code=1)
        assert "cannot fetch" in text
        assert "canary" not in text


def test_looking_at_a_run_never_loads_torch(tmp_path: Path) -> None:
    code = "import sys; from reasonrl.cli.app import app; app(['doctor', sys.argv[1]], standalone_mode=False); "
    code += "print('heavy', {'torch', 'transformers', 'safetensors'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(write_run(tmp_path / "run"))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "heavy set()"


def test_a_terminal_gets_the_same_in_color(tmp_path: Path) -> None:
    from rich.console import Console

    from reasonrl.cli.doctor import show

    folder = write_run(tmp_path / "run", sick(lambda line: {"policy/clip_frac": 0.9}))
    console = Console(width=80, force_terminal=True, color_system="standard", highlight=False)
    with console.capture() as seen:
        show(examine(folder), console)
    assert "\x1b[" in seen.get()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", seen.get())
    assert "clipping" in plain
    assert "90% of the tokens are clipped" in plain
    assert max(map(len, plain.splitlines()[2:])) <= 80


def test_json_has_everything(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", sick(lambda line: {"policy/clip_frac": 0.9}))
    data = json.loads(cli(folder, "--json"))
    assert list(data) == ["subject", "state", "findings", "passed", "not_measured"]
    (finding,) = data["findings"]
    assert list(finding) == ["severity", "check", "message", "remedy", "step"]
    assert (finding["check"], finding["step"]) == ("clipping", 21)
    assert len(data["passed"]) == len(CHECKS) - 2


def test_the_installation_is_usable(capsys: pytest.CaptureFixture[str]) -> None:
    run_doctor(None, True, True)
    data = json.loads(capsys.readouterr().out)
    assert data["state"] == "usable"
    assert {f["check"] for f in data["findings"]} == {check.name for check in SELF_CHECKS}
    assert "HF_HUB_OFFLINE is set" in json.dumps(data)


def test_what_can_be_wrong_with_an_installation(tmp_path: Path) -> None:
    (wrong,) = check_packages(["torch<2", "nonexistent-package>=1", "peft>=99; extra == 'lora'"])
    assert wrong.severity == "error"
    assert "torch" in wrong.message
    assert "nonexistent-package is missing (needs >=1)" in wrong.message
    assert "peft" not in wrong.message
    record = PluginRecord(
        name="x", distribution="x-dist", version="1", status="broken", value="x", error="ImportError: y"
    )
    none, broken = check_plugins([record])
    assert (none.severity, broken.severity) == ("error", "warning")
    assert broken.message == "x (x-dist 1) is broken: ImportError: y"
    (tmp_path / "file").write_text("")
    (refused,) = check_output(str(tmp_path / "file" / "runs"))
    assert refused.severity == "error"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"], "nothing is created by looking"
    for environ in ({"HF_TOKEN": "hf_canary"}, {"HF_TOKEN": "hf_canary", "HF_HUB_OFFLINE": "1"}):
        (hub,) = check_hub(environ)
        assert "a token is set" in hub.message
        assert "canary" not in hub.message


def test_a_dependency_that_breaks_the_main_job_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers 5.24.0 did, which renamed an argument within the range that was declared."""

    def broken(*args: object, **kwargs: object) -> None:
        raise RolloutError("LlamaForCausalLM gives no key-value cache that this backend can use")

    real = metadata.version
    monkeypatch.setattr(CachedModel, "_find_argument", broken)
    monkeypatch.setattr(metadata, "version", lambda name: "5.24.9" if name == "transformers" else real(name))
    (finding,) = check_trial()
    tested = re.search(r"^transformers==(.*)$", CONSTRAINTS.read_text(), re.MULTILINE)
    assert tested is not None
    assert finding.severity == "error"
    assert "failed while loading the model: RolloutError: LlamaForCausalLM gives no" in finding.message
    assert "untested versions: " in finding.message
    assert f"transformers 5.24.9 ({tested[1]})" in finding.message
    assert str(CONSTRAINTS) in finding.remedy


def test_known_good_versions_lie_within_the_declared_ranges() -> None:
    lines = [line.split("==") for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    tested = {name: Version(version) for name, version in lines}
    required = [Requirement(text) for text in metadata.requires("reasonrl") or ()]
    untested = ("reasonrl", "vllm", "playwright", "tensorboard", "wandb", "trackio", "mlflow", "swanlab")
    direct = [r for r in required if r.name not in untested]
    assert len(direct) > 20
    wrong = [str(r) for r in direct if not r.specifier.contains(tested[canonicalize_name(r.name)])]
    assert not wrong


def test_the_page_lists_every_check() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for check in (*CHECKS, *SELF_CHECKS):
        assert f"| `{check.name}` | {check.looks_at} |" in page
    for severity in SEVERITIES:
        assert f"`{severity}`" in page
