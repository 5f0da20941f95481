"""Bare values: one table of what is a number, a switch or text, for files and for overrides alike."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.errors import RecipeError
from reasonrl.recipe.source import Source, read_source, to_yaml
from reasonrl.recipe.typed import build

READ: list[tuple[str, Any]] = [
    ("40", 40),
    ("-3", -3),
    ("+5", 5),
    ("0", 0),
    ("007", 7),
    ("1_000", 1000),
    ("0x1F", 31),
    ("0b101", 5),
    ("1.5", 1.5),
    (".5", 0.5),
    ("5.", 5.0),
    ("+1.5", 1.5),
    ("010.5", 10.5),
    ("1_000.5", 1000.5),
    ("1e-4", 1e-4),
    ("1E5", 1e5),
    ("1e5", 1e5),
    (".5e-3", 5e-4),
    (".inf", math.inf),
    ("-.inf", -math.inf),
    ("true", True),
    ("False", False),
    ("TRUE", True),
    ("null", None),
    ("~", None),
    ("2024-01-01", "2024-01-01"),
    ("2024-01-01T10:00:00", "2024-01-01T10:00:00"),
    ("1.5.2", "1.5.2"),
    ("3-4", "3-4"),
    ("y", "y"),
    ("none", "none"),
    ("0x", "0x"),
    ("1e", "1e"),
    ("12abc", "12abc"),
    ("'010'", "010"),
    ('"on"', "on"),
    ("'1:30'", "1:30"),
    ("!!str 010", "010"),
    ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
]
TEXT = {  # to Python a number, and how YAML has it
    "08": "8",
    "0o17": "15",
    "0X1f": "31",
    "-.5": "-0.5",
    "+.5": "0.5",
    ".5e3": "500.0",
    "nan": ".nan",
    "NaN": ".nan",
    "inf": ".inf",
    "-inf": "-.inf",
    "Infinity": ".inf",
    "١٢": "12",
}
REFUSED: list[tuple[str, str]] = [
    ("010", "010 is 8 in YAML; write 8 or 10, or '010' in quotes for text"),
    ("-010", "-010 is -8 in YAML; write -8 or -10, or"),
    ("0_17", "0_17 is 15 in YAML; write 15 or 17, or"),
    ("1__0", "1__0 is 10 in YAML; write 10, or"),
    ("1_", "1_ is 1 in YAML; write 1, or"),
    ("1:30", "1:30 is 90 in YAML; write 90, or '1:30' in quotes for text"),
    ("190:20:30", "is 685230 in YAML"),
    ("1:30.5", "is 90.5 in YAML"),
    ("on", "on is true in YAML; write true, or 'on' in quotes for text"),
    ("Off", "Off is false in YAML; write false, or"),
    ("yes", "yes is true in YAML; write true"),
    ("NO", "NO is false in YAML; write false"),
    ("1e400", "1e400 is too large for a number; write .inf, or '1e400' in quotes for text"),
    ("12e45678", "is too large for a number"),
    ("=", "= is a special value in YAML; write '=' in quotes"),
]


def in_file(folder: Path, text: str) -> Any:
    (folder / "r.yaml").write_text(f"name: x\ntask:\n  key: {text}\n", encoding="utf-8")
    return read_source(folder / "r.yaml", []).data["task"]["key"]


def in_override(folder: Path, text: str) -> Any:
    (folder / "r.yaml").write_text("name: x\n")
    return read_source(folder / "r.yaml", [f"task.key={text}"]).data["task"]["key"]


def in_lists(folder: Path, text: str) -> Any:
    (folder / "r.yaml").write_text(f"task: {{key: [[{text}]]}}\n", encoding="utf-8")
    (first,) = read_source(folder / "r.yaml", []).data["task"]["key"]
    (second,) = read_source(folder / "r.yaml", [f"task.key=[[{text}]]"]).data["task"]["key"]
    assert repr(first) == repr(second)
    return first[0]


READERS = [in_file, in_override, in_lists]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("text", "value"), READ)
def test_what_is_read(text: str, value: Any, reader: Any, tmp_path: Path) -> None:
    found = reader(tmp_path, text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("reader", READERS)
def test_no_number_is_a_number_if_it_is_asked_for(reader: Any, tmp_path: Path) -> None:
    assert math.isnan(reader(tmp_path, ".nan"))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", TEXT)
def test_what_is_text_in_yaml_is_text(text: str, reader: Any, tmp_path: Path) -> None:
    assert reader(tmp_path, text) == text


@dataclass(frozen=True)
class Wanted:
    text: str = ""
    number: float | None = None
    numbers: list[float] = field(default_factory=list)


@pytest.mark.parametrize(("text", "spelled"), TEXT.items())
def test_a_key_that_wants_a_number_says_how_to_write_it(text: str, spelled: str) -> None:
    source = Source(path=Path("r.yaml"), data={})
    assert build(Wanted, {"text": text}, source, ("task",)) == Wanted(text=text)
    for key, value in (("number", text), ("numbers", [1.0, text])):
        with pytest.raises(RecipeError) as caught:
            build(Wanted, {key: value}, source, ("task",))
        assert str(caught.value).endswith(f"; write {spelled}")
        assert isinstance(yaml.safe_load(spelled), int | float)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_what_is_refused_with_the_spelling_to_use(text: str, said: str, reader: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        reader(tmp_path, text)
    assert said in str(caught.value)
    assert "task.key: " in str(caught.value)
    assert "\n" not in str(caught.value)
    where = "override 'task.key=" if reader is in_override else "r.yaml:"
    assert where in str(caught.value)


def test_the_line_is_the_values_own(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("a: &x\n  - 1\n  - 010\nb: *x\n")
    with pytest.raises(RecipeError, match=r"r\.yaml:3: a: 010 is 8"):
        read_source(tmp_path / "r.yaml", [])


def test_a_secret_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("task: {api_key: 0x1234_5678_}\n")
    for overrides in ([], ["task.password=0123456"]):
        with pytest.raises(RecipeError) as caught:
            read_source(tmp_path / "r.yaml", overrides)
        assert "must not be written into a recipe" in str(caught.value)
        assert "1234" not in str(caught.value)


patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NUMBERLIKE = st.from_regex(r"[-+]?[0-9._:eExob]{1,6}|[-+]?\.?(inf|nan|NaN)|on|off|yes|no|true|False", fullmatch=True)


@patient
@given(text=NUMBERLIKE)
def test_what_is_accepted_is_what_python_reads(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        value = in_file(folder, text)
    except RecipeError:
        return
    if isinstance(value, bool | None):
        assert text.lower() in ("true", "false")
    elif isinstance(value, int | float):
        own = text.replace(".inf", "inf").replace(".nan", "nan").replace(".NaN", "nan")
        python = float(own) if isinstance(value, float) else int(own, 0 if own.strip("+-")[1:2] in "xb" else 10)
        assert value == python or (math.isnan(value) and math.isnan(python))


@patient
@given(text=NUMBERLIKE | st.text("0123456789.eE+-_:xonaif ", min_size=1))
def test_what_is_kept_of_a_text_is_the_text(text: str) -> None:
    kept = to_yaml({"key": text})
    assert OmegaConf.to_container(OmegaConf.create(kept)) == {"key": text}
    assert yaml.safe_load(kept) == {"key": text}


def test_a_kept_text_is_read_again(tmp_path: Path) -> None:
    for text in [*dict(REFUSED), *TEXT, "1e-4", "40"]:
        quoted = in_file(tmp_path, f"'{text}'")
        (tmp_path / "kept.yaml").write_text(to_yaml({"task": {"key": quoted}}), encoding="utf-8")
        assert read_source(tmp_path / "kept.yaml", []).data["task"]["key"] == text


def test_by_the_command() -> None:
    for override, said in (("seed=010", "write 8 or 10"), ("model.gradient_checkpointing=on", "write true")):
        done = CliRunner().invoke(app, ["recipes", "check", "countdown_ppo", override])
        assert (done.exit_code, len(done.output.splitlines())) == (2, 1)
        assert said in done.output
