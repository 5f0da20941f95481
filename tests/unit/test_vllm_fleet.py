"""Several vLLM servers behind one run: load, weights, and servers that die or come back as others."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from support.scripted_vllm import DEFAULTS, Script, refuses, scripted, server_config
from torch import Tensor

from reasonrl import RolloutContext, SamplingParams
from reasonrl.errors import RolloutError
from reasonrl.testing import tiny_policy
from reasonrl_vllm import client as client_module
from reasonrl_vllm.config import VLLMConfig
from reasonrl_vllm.server import GENERATE, ServerEngine
from reasonrl_vllm.server_checks import inspect_servers

RELOAD = "/collective_rpc"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> RolloutContext:
    tiny = tiny_policy(tmp_path_factory.mktemp("policy") / "model", tie=False)
    return RolloutContext(
        policy=tiny.policy,
        tokenizer=tiny.tokenizer,
        sampling=SamplingParams(max_completion_tokens=10),
        device=torch.device("cpu"),
        model_path=str(tiny.path),
        max_prompt_tokens=50,
    )


@pytest.fixture
def scripts(context: RolloutContext) -> Iterator[list[Script]]:
    """Three servers."""
    with ExitStack() as stack:
        servers = [stack.enter_context(scripted()) for _ in range(3)]
        for server in servers:
            server.config = server_config(context.model_path, hf_overrides={})
        yield servers


def config(scripts: list[Script], **options: Any) -> VLLMConfig:
    return VLLMConfig(mode="server", url=[script.url for script in scripts], **{"retry_s": 0.2, **options})


@pytest.fixture
def engine(scripts: list[Script], context: RolloutContext) -> Iterator[ServerEngine]:
    options = config(scripts)
    made = ServerEngine(options, context, inspect_servers(options, context))
    yield made
    made.close()
    made.close()


def weights() -> list[tuple[str, Tensor]]:
    return [("a", torch.arange(6.0))]


def asked(script: Script) -> list[int]:
    """First tokens of the prompts that a server was asked."""
    return [body["token_ids"][0] for path, body in script.seen if path == GENERATE and "token_ids" in body]


def generate(engine: ServerEngine, count: int) -> list[list[tuple[int, ...]]]:
    """Prompts 1 to ``count`` with two samples each; the scripted servers repeat the prompt."""
    answers = engine.generate([(n,) for n in range(1, count + 1)], [{"n": 2, "seed": n} for n in range(1, count + 1)])
    return [[answer.token_ids for answer in group] for group in answers]


def expected(count: int) -> list[list[tuple[int, ...]]]:
    return [[(n,), (n, n)] for n in range(1, count + 1)]


def test_all_servers_get_the_weights_and_an_equal_share(engine: ServerEngine, scripts: list[Script]) -> None:
    engine.load_weights(weights(), 1)
    assert len({script.weights for script in scripts}) == 1
    assert scripts[0].weights.endswith("-1")
    folders = [body["kwargs"]["weights_path"] for script in scripts for path, body in script.seen
               if path == RELOAD and body["method"] == "reload_weights"]  # fmt: skip
    assert len(folders) == 3
    assert len(set(folders)) == 1, "they are written once"
    assert generate(engine, 12) == expected(12)
    assert sorted(n for script in scripts for n in asked(script)) == list(range(1, 13))
    assert [len(asked(script)) for script in scripts] == [4, 4, 4]


def test_a_slower_server_gets_less(engine: ServerEngine, scripts: list[Script]) -> None:
    """One that answers nothing until the others have answered all else: it has what it takes at once, 8 requests."""
    engine.load_weights(weights(), 1)
    lock, left, over = threading.Lock(), [90 - 8], threading.Event()

    def quickly(script: Script, body: Any) -> tuple[int, Any]:
        with lock:
            left[0] -= 1
            if left[0] <= 0:
                over.set()
        return DEFAULTS[GENERATE](script, body)

    for script in scripts[:2]:
        script.routes[GENERATE] = lambda body, script=script: quickly(script, body)  # type: ignore[misc]
    scripts[2].routes[GENERATE] = lambda body: DEFAULTS[GENERATE](scripts[2], body) if over.wait(30) else (500, None)
    assert generate(engine, 90) == expected(90)
    assert len(asked(scripts[2])) == 8


def dies_at(script: Script, call: int) -> None:
    """From that request on the server answers 503 to everything."""
    calls, lock = [0], threading.Lock()

    def reply(body: Any) -> tuple[int, Any]:
        with lock:
            calls[0] += 1
            if calls[0] >= call:
                for path in DEFAULTS:
                    script.routes[path] = refuses(503)
                return 503, None
        return DEFAULTS[GENERATE](script, body)

    script.routes[GENERATE] = reply


@pytest.mark.parametrize("call", [1, 3])
def test_a_server_that_dies_is_left_out_and_the_others_sample_its_prompts(
    call: int, engine: ServerEngine, scripts: list[Script], caplog: pytest.LogCaptureFixture
) -> None:
    engine.load_weights(weights(), 1)
    dies_at(scripts[1], call)
    with caplog.at_level(logging.WARNING):
        assert generate(engine, 30) == expected(30)
    out = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(out) == 1
    assert out[0].startswith(f"vllm: no answer from {scripts[1].url} for 0.2 s (status 503")
    assert out[0].endswith("): left out until the run is resumed; 2 of 3 servers remain")
    before = len(scripts[1].seen)
    engine.load_weights(weights(), 2)
    assert generate(engine, 6) == expected(6)
    assert len(scripts[1].seen) == before


def test_one_that_hangs_is_left_out_by_its_health(
    engine: ServerEngine, scripts: list[Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "WATCH_S", 0.05)
    engine.load_weights(weights(), 1)
    for script in scripts:
        script.routes["/health"] = lambda body: (200, None)
    over = threading.Event()
    scripts[0].routes[GENERATE] = lambda body: (200, over.wait(30))
    scripts[0].routes["/health"] = refuses(503)
    assert generate(engine, 9) == expected(9)
    over.set()


def test_when_all_are_dead_there_is_one_error(engine: ServerEngine, scripts: list[Script]) -> None:
    engine.load_weights(weights(), 1)
    for script in scripts:
        dies_at(script, 2)
    with pytest.raises(RolloutError) as ended:
        generate(engine, 30)
    text = str(ended.value)
    assert text.startswith("vllm: none of the 3 servers is left; the last one: no answer from http")
    assert text.endswith("; restart them and resume the run")
    assert "\n" not in text


def test_one_that_comes_back_with_other_weights_is_left_out(
    engine: ServerEngine, scripts: list[Script], caplog: pytest.LogCaptureFixture
) -> None:
    engine.load_weights(weights(), 1)
    scripts[2].weights = "default"
    with caplog.at_level(logging.WARNING):
        assert generate(engine, 12) == expected(12)
    assert f"{scripts[2].url} samples with weights 'default', expected" in caplog.text
    assert "2 of 3 servers remain" in caplog.text


def test_one_that_does_not_take_the_weights_is_left_out(engine: ServerEngine, scripts: list[Script]) -> None:
    scripts[0].routes[RELOAD] = refuses(503)
    engine.load_weights(weights(), 1)
    assert generate(engine, 4) == expected(4)
    assert [len(asked(script)) for script in scripts] == [0, 2, 2]


def test_a_refusal_of_one_is_an_error_of_the_run(engine: ServerEngine, scripts: list[Script]) -> None:
    """The others would refuse the request, too."""
    engine.load_weights(weights(), 1)
    scripts[1].routes[GENERATE] = refuses(400, "too long")
    with pytest.raises(RolloutError, match=r"refused: 400 too long"):
        generate(engine, 6)


def test_a_restart_between_two_steps_is_told_and_its_model_looked_at(
    engine: ServerEngine, scripts: list[Script], caplog: pytest.LogCaptureFixture
) -> None:
    engine.load_weights(weights(), 1)
    scripts[0].weights = "default"
    with caplog.at_level(logging.WARNING):
        engine.load_weights(weights(), 2)
    assert f"{scripts[0].url} was restarted since the last step; it gets the weights again" in caplog.text
    assert Counter(script.weights for script in scripts) == {scripts[1].weights: 3}
    scripts[0].weights = "default"
    scripts[0].config = {**scripts[0].config, "scheduler_config": {"max_num_seqs": 4}}
    with pytest.raises(RolloutError, match=r"was restarted with other options: max_num_seqs 4, not 8; restart it as"):
        engine.load_weights(weights(), 3)


def test_servers_must_be_alike(scripts: list[Script], context: RolloutContext) -> None:
    scripts[1].config = {**scripts[1].config, "scheduler_config": {"max_num_seqs": 4}}
    scripts[1].config["model_config"] = {**scripts[1].config["model_config"], "max_model_len": 100}
    facts = inspect_servers(config(scripts), context)
    assert [(one.max_num_seqs, one.max_model_len) for one in facts] == [(8, 256), (4, 100), (8, 256)]
    scripts[2].config = server_config(context.model_path, dtype="torch.bfloat16", hf_overrides={})
    with pytest.raises(RolloutError) as refused:
        inspect_servers(config(scripts), context)
    assert str(refused.value) == (
        f"vllm: {scripts[2].url} differs from {scripts[0].url}: dtype torch.bfloat16, not torch.float32; start all "
        "servers with the same options"
    )


def test_closing_the_engine_ends_what_another_thread_waits_for(engine: ServerEngine, scripts: list[Script]) -> None:
    engine.load_weights(weights(), 1)
    over, ended = threading.Event(), threading.Event()
    for script in scripts:
        script.routes[GENERATE] = lambda body: (200, over.wait(30))

    def wait() -> None:
        with pytest.raises(CancelledError):
            generate(engine, 3)
        ended.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while sum(len(asked(script)) for script in scripts) < 3:
        time.sleep(0.01)
    engine.close()
    assert ended.wait(5)
    over.set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": []}, "mode server needs url"),
        ({"url": ["http://127.0.0.1:1", "http://127.0.0.1:1/"]}, "url must name each server once"),
        ({"url": ["http://127.0.0.1:1", "127.0.0.1:2"]}, "url must be like http://127.0.0.1:8000, got '127.0.0.1:2'"),
        ({"url": ["http://127.0.0.1:1", "http://10.0.0.7:2"]}, "is not on this machine"),
        (
            {"url": ["http://127.0.0.1:1", "http://127.0.0.1:2"], "weight_transfer": "nccl"},
            "weight_transfer must be folder or auto with 2 servers, got nccl",
        ),
    ],
)
def test_lists_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VLLMConfig(mode="server", **options)


def test_large_groups_are_cut_for_the_smallest_server(
    scripts: list[Script], context: RolloutContext, tmp_path: Path
) -> None:
    scripts[1].config = {**scripts[1].config, "scheduler_config": {"max_num_seqs": 4}}
    options = config(scripts, sync_dir=str(tmp_path))
    engine = ServerEngine(options, context, inspect_servers(options, context))
    try:
        engine.load_weights(weights(), 1)
        (group,) = engine.generate([(7,)], [{"n": 10, "seed": 50}])
    finally:
        engine.close()
    assert [len(answer.token_ids) for answer in group] == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
