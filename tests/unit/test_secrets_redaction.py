"""What counts as a secret, and how it stays out of texts, errors and logs."""

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.builders import scored

from reasonrl import Problem
from reasonrl.cli.streams import redacted_output
from reasonrl.errors import PluginContractError, RecipeError
from reasonrl.redact import (
    REDACTED,
    hide_values,
    holds_secret,
    is_secret_name,
    looks_secret,
    redact_data,
    redact_text,
    redacting_logger,
    remember,
)
from reasonrl.rundir.files import write_json
from reasonrl.rundir.jsonl import append_jsonl, write_jsonl
from reasonrl.runs.carried import read_groups, write_groups

SECRET_NAMES = [
    "api_key", "apiKey", "API-KEY", "openai_api_key", "HF_TOKEN", "hf_token", "token", "accessToken", "access_tokens",
    "secret", "client_secret", "AWS_SECRET_ACCESS_KEY", "password", "db_password", "passwd", "credentials",
    "private_key",
]  # fmt: skip
PLAIN_NAMES = [
    "max_tokens", "max_completion_tokens", "tokens_per_batch", "max_tokens_per_microbatch", "stop_token", "eos_token",
    "pad_token", "tokenizer", "tokens", "password_file", "token_count", "key", "keyboard", "learning_rate", "monkey",
    "",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)
    assert holds_secret(name, "x")
    assert not any(holds_secret(name, value) for value in (None, "", True))


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)
    assert not holds_secret(name, "x")


def test_a_number_is_a_secret_unless_it_counts_tokens() -> None:
    assert holds_secret("password", 1234)
    assert not holds_secret("token", 3)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("task.token=abc no", "task.token=[redacted] no"),
        ("Config(api_key='a b', high=3, max_tokens=7)", "Config(api_key=[redacted], high=3, max_tokens=7)"),
        ("{name: toy, password: abc}", "{name: toy, password: [redacted]}"),
        ("{'hf_token': 'abc', 'n': 1}", "{'hf_token': [redacted], 'n': 1}"),
        ("at https://me:pa@ss@hub/x?token=abc&y=1", "at https://[redacted]@hub/x?token=[redacted]&y=1"),
        ("git@github.com:a/b and a@b.c", "git@github.com:a/b and a@b.c"),
        ("got hf_abcdefghijklmnop", "got [redacted]"),
        ("logging.hf_token: unknown key", "logging.hf_token: unknown key"),
        ("token=3 and token=${oc.env:X}", "token=3 and token=${oc.env:X}"),
        ("write password=null or password=''", "write password=null or password=''"),
    ],
)
def test_texts(text: str, shown: str) -> None:
    assert redact_text(text) == shown
    assert redact_text(redact_text(text)) == redact_text(text)


def test_what_was_remembered_and_what_the_environment_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    remember("canary-one")
    remember("abc")
    monkeypatch.setenv("SOME_API_KEY", "canary-two-of-the-environment")
    assert redact_text("canary-one, canary-two-of-the-environment, abc") == "[redacted], [redacted], abc"


def test_every_error_of_ours_is_clean() -> None:
    for error in (RecipeError, PluginContractError):
        raised = error("cannot reach https://me:canary@hub/x with token='canary'")
        assert "canary" not in f"{raised} {raised!r} {raised.args}"


def test_a_logger_redacts_message_arguments_and_traceback(caplog: pytest.LogCaptureFixture) -> None:
    log = redacting_logger("reasonrl.test_secrets")
    assert redacting_logger("reasonrl.test_secrets").filters == log.filters
    try:
        try:
            raise ValueError("password='canary'")
        except ValueError as err:
            raise KeyError("https://canary@hub") from err
    except KeyError:
        log.exception("plugin %r said %s", "p", "api_key=canary")
    assert "canary" not in caplog.text
    assert "Traceback" in caplog.text
    assert "plugin 'p' said api_key=[redacted]" in caplog.text
    with caplog.at_level(logging.WARNING):
        log.warning("100%% of %d", 3)
    assert "100% of 3" in caplog.text


def test_data() -> None:
    data = {"token": "x", "n": [1, "https://a:b@c/d"], "deep": {"password": 3, "max_tokens": 3, "ok": None}}
    assert redact_data(data) == {
        "token": REDACTED,
        "n": [1, f"https://{REDACTED}@c/d"],
        "deep": {"password": REDACTED, "max_tokens": 3, "ok": None},
    }


def test_values_are_told_as_they_were_written() -> None:
    assert hide_values("got abc, abcd", {"abc": "${oc.env:A}", "": "x"}) == "got ${oc.env:A}, ${oc.env:A}d"
    assert looks_secret("https://x@y/")
    assert not looks_secret("https://y/x@z")


TOLD = "canary-of-the-environment-01"
PLACES = ({"a": TOLD}, {TOLD: 1}, {"a": [{"b": ("x", TOLD)}]}, {"a": {"b": {f"x {TOLD}": None}}}, {"a": f"key={TOLD}."})


@pytest.mark.parametrize("record", PLACES)
def test_whatever_is_written_holds_no_secret(
    record: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_TOKEN", TOLD)
    write_jsonl(tmp_path / "lines", [record])
    append_jsonl(tmp_path / "lines", {f"metric/{TOLD}": 1.0, "api_key": 2.0})
    write_json(tmp_path / "document", record)
    problem = Problem(id="1", prompt=f"see {TOLD}", info=record)
    group = scored([0.0, 1.0])
    group = replace(group, group=replace(group.group, request=replace(group.group.request, problem=problem)))
    write_groups(tmp_path / "carried", [group])
    for path in tmp_path.iterdir():
        assert TOLD not in path.read_text()
        assert REDACTED in path.read_text()
    assert '"api_key": 2.0' in (tmp_path / "lines").read_text(), "a measured number is no secret"
    assert [g.group.request.prompt_ids for g in read_groups(tmp_path / "carried")] == [group.group.request.prompt_ids]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_whatever_is_printed_in_a_command_holds_no_secret(
    stream: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CANARY_TOKEN", TOLD)
    with redacted_output(), redacted_output():
        print(json.dumps({"a": [TOLD], "b": "token=x"}), file=getattr(sys, stream))
        getattr(sys, stream).writelines([TOLD, "\n"])
    assert getattr(capsys.readouterr(), stream[3:]) == '{"a": ["[redacted]"], "b": "token=x"}\n[redacted]\n'
