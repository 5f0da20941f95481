"""Files of a run folder are read and written in one place each, which holds what is promised of all of them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "reasonrl"
PACKAGES = ("rundir", "runs", "analysis", "export", "observability", "cli")
READS = re.compile(r"json\.loads?\((?!json\.dumps)|\.read_bytes\(\)|\.read_text\(|\.open\(\"rb\"")
ALLOWED = {
    "rundir/reading.py": "the place",
    "rundir/files.py": "hashes of files that are regular",
    "analysis/report/samples.py": "a line of transcripts",
    "analysis/report/page.py": "its own template",
    "runs/jobs.py": "the log of a command",
    "runs/meeting.py": "what processes tell each other in a store",
    "runs/idle.py": "the states of threads",
    "runs/identity.py": "a tokenizer's JSON",
    "export/gguf_tokenizer.py": "a tokenizer's JSON",
    "observability/trackers.py": "the source of accelerate",
    "cli/installation.py": "metadata of packages",
    "cli/plugins_check.py": "pyproject.toml",
    "cli/trial.py": "its own constraints",
}
PRINTS = re.compile(r"(?:echo|write|print)\(json\.dumps")


def found(pattern: re.Pattern[str], packages: tuple[str, ...]) -> set[str]:
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 30
    return {path.relative_to(ROOT).as_posix() for path in files if pattern.search(path.read_text(encoding="utf-8"))}


def test_files_of_a_run_are_read_in_one_place() -> None:
    assert found(READS, PACKAGES) <= set(ALLOWED)


def test_json_is_printed_in_one_place() -> None:
    assert found(PRINTS, ("cli", "runs")) == {"cli/streams.py"}
