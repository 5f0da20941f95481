"""The engine of a vLLM server, against a scripted one: what is asked, what is believed, how weights go over."""

from __future__ import annotations

import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.scripted_vllm import DEFAULTS, Script, choice, refuses, scripted
from torch import Tensor

from reasonrl import RolloutContext, SamplingParams
from reasonrl.errors import RolloutError
from reasonrl.testing import tiny_policy
from reasonrl_vllm import member, transfer
from reasonrl_vllm.config import VLLMConfig
from reasonrl_vllm.requests import Reader
from reasonrl_vllm.server import ServerEngine
from reasonrl_vllm.server_checks import ServerFacts

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
SYNC = [
    "/reset_prefix_cache",
    "/weight_info",
    "/update_weight_version",
    "/collective_rpc",
    "/collective_rpc",
    "/reset_prefix_cache",
    "/weight_info",
    "/update_weight_version",
]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> RolloutContext:
    tiny = tiny_policy(tmp_path_factory.mktemp("policy") / "model", tie=True)
    return RolloutContext(
        policy=tiny.policy,
        tokenizer=tiny.tokenizer,
        sampling=SamplingParams(),
        device=torch.device("cpu"),
        model_path=str(tiny.path),
        max_prompt_tokens=50,
    )


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted() as server:
        yield server


@pytest.fixture
def opened() -> Iterator[list[ServerEngine]]:
    engines: list[ServerEngine] = []
    yield engines
    for engine in engines:
        engine.close()
        engine.close()


@pytest.fixture
def engine(script: Script, context: RolloutContext, opened: list[ServerEngine], tmp_path: Path) -> ServerEngine:
    return make(script, context, opened, tmp_path)


def make(
    script: Script,
    context: RolloutContext,
    opened: list[ServerEngine],
    sync_dir: Path,
    *,
    dtype: torch.dtype = torch.float32,
    is_untied: bool = False,
) -> ServerEngine:
    config = VLLMConfig(mode="server", url=script.url, retry_s=0.3, timeout_s=10, sync_dir=str(sync_dir))
    facts = ServerFacts(
        max_model_len=64, max_num_seqs=8, dtype=dtype, device="cpu", is_untied=is_untied, transfer="folder"
    )
    opened.append(ServerEngine(config, context, [facts]))
    return opened[-1]


def weights(*names: str) -> list[tuple[str, Tensor]]:
    return [(name, torch.arange(6.0).reshape(2, 3) + i) for i, name in enumerate(names)]


def received(script: Script) -> list[dict[str, Tensor]]:
    """What the server finds in the folder at the moment when it is told to read it."""
    found: list[dict[str, Tensor]] = []

    def read(body: Any) -> tuple[int, Any]:
        if body["method"] == "reload_weights":
            folder = Path(body["kwargs"]["weights_path"])
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            found.extend(load_file(path) for path in sorted(folder.iterdir()))
        return 200, {"results": [None]}

    script.routes["/collective_rpc"] = read
    return found


def test_a_group_is_one_request_and_its_samples_are_sorted(script: Script, engine: ServerEngine) -> None:
    engine.load_weights(weights("a"), 1)
    answers = engine.generate([(3, 4), (5,)], [{"n": 2, "seed": 7}, {"n": 1}])
    assert [[answer.token_ids for answer in group] for group in answers] == [[(4,), (4, 4)], [(5,)]]
    asked = [body for path, body in script.seen if path == "/inference/v1/generate"]
    assert {"token_ids": [3, 4], "sampling_params": {"n": 2, "seed": 7}} in asked
    assert answers[0][1].logprobs == (-0.5, -0.5)


def test_a_group_larger_than_the_server_takes_comes_in_parts(script: Script, engine: ServerEngine) -> None:
    """Sample i has the seed + i, so these are the samples of one request."""
    engine.load_weights(weights("a"), 1)
    first, second = engine.generate([(3, 4), (5,)], [{"n": 19, "seed": 100}, {"n": 8, "seed": None}])
    assert (len(first), len(second)) == (19, 8)
    assert [len(answer.token_ids) for answer in first] == [*range(1, 9), *range(1, 9), 1, 2, 3]
    given = [body["sampling_params"] for path, body in script.seen if path == "/inference/v1/generate"]
    parts = sorted((part["seed"], part["n"]) for part in given if part["seed"] is not None)
    assert parts == [(100, 8), (108, 8), (116, 3)]


def test_what_the_server_says_in_place_of_nan_ends_the_run(script: Script, engine: ServerEngine) -> None:
    engine.load_weights(weights("a"), 1)
    script.routes["/inference/v1/generate"] = lambda body: (
        200,
        {"choices": [choice(0, [4], script.weights, logprob=-9999.0)]},
    )
    answer = engine.generate([(3,)], [{}])[0][0]
    with pytest.raises(RolloutError, match="the weights have diverged"):
        Reader(tokenizer=None).completion(answer, 1)


@pytest.mark.parametrize(
    "choices",
    [
        lambda own: [choice(0, [4, 5], "default")],
        lambda own: [choice(0, [4], own), choice(1, [4], "of-another-run-3")],
        lambda own: [
            {
                **choice(0, [4, 5], own),
                "weight_versions": [
                    {"version": own, "start": 0, "end": 1},
                    {"version": f"{own}-not-yet-1", "start": 1, "end": 2},
                ],
            }
        ],
    ],
)
def test_answers_by_other_weights_are_never_taken(choices: Any, script: Script, engine: ServerEngine) -> None:
    engine.load_weights(weights("a"), 1)
    script.routes["/inference/v1/generate"] = lambda body: (200, {"choices": choices(script.weights)})
    with pytest.raises(RolloutError, match=r"it was restarted or is used by another run; .* resume"):
        engine.generate([(3,)], [{}])


def test_tokens_that_do_not_say_their_weights_are_not_taken(script: Script, engine: ServerEngine) -> None:
    engine.load_weights(weights("a"), 1)
    unsaid = {**choice(0, [4], ""), "weight_versions": None}
    script.routes["/inference/v1/generate"] = lambda body: (200, {"choices": [unsaid]})
    with pytest.raises(RolloutError, match="it was restarted"):
        engine.generate([(3,)], [{}])


def test_a_completion_that_was_broken_off_before_its_first_token_is_read(script: Script, engine: ServerEngine) -> None:
    engine.load_weights(weights("a"), 1)
    nothing = {**choice(0, [], "", finished="abort"), "weight_versions": None}
    script.routes["/inference/v1/generate"] = lambda body: (200, {"choices": [nothing]})
    assert engine.generate([(3,)], [{}])[0][0].finished == "abort"


@pytest.mark.parametrize("body", [None, {}, {"choices": [{}]}, {"choices": "x"}, [], {"choices": [{"index": 0}]}])
def test_an_answer_in_another_form_is_one_line(body: Any, script: Script, engine: ServerEngine) -> None:
    engine.load_weights(weights("a"), 1)
    script.routes["/inference/v1/generate"] = lambda _: (200, body)
    with pytest.raises(RolloutError, match="unexpected response from"):
        engine.generate([(3,)], [{}])


def test_weights_go_by_way_of_a_folder_that_is_gone_afterwards(
    script: Script, engine: ServerEngine, tmp_path: Path
) -> None:
    found = received(script)
    engine.load_weights(weights("a", "b"), 3)
    assert script.paths() == SYNC
    assert [set(shard) for shard in found] == [{"a", "b"}]
    assert torch.equal(found[0]["b"], weights("a", "b")[1][1])
    assert list(tmp_path.iterdir()) == []
    names = [body["new_version"] for path, body in script.seen if path == "/update_weight_version"]
    assert names[1].endswith("-3")
    assert names[0].startswith(f"{names[1]}-not-yet-")
    engine.load_weights(weights("a"), 4)
    assert script.weights == names[1][:-1] + "4"


def restart_at(script: Script, path: str, call: int) -> None:
    """At that call of ``path`` the server goes away and comes back, with the weights that it was started with."""
    calls, answer = [0], DEFAULTS[path]

    def reply(body: Any) -> tuple[int, Any]:
        calls[0] += 1
        if calls[0] == call:
            script.weights = "default"
            return 503, None
        return answer(script, body)

    script.routes[path] = reply


@pytest.mark.parametrize(
    ("path", "call", "message"),
    [
        ("/reset_prefix_cache", 2, "has lost the run's weights: it was restarted"),
        ("/weight_info", 2, "has lost the run's weights: it was restarted"),
        ("/update_weight_version", 2, "no answer from"),
    ],
)
def test_a_server_that_restarts_after_it_took_the_weights_does_not_get_their_name(
    path: str, call: int, message: str, script: Script, engine: ServerEngine
) -> None:
    restart_at(script, path, call)
    with pytest.raises(RolloutError, match=message):
        engine.load_weights(weights("a"), 1)
    assert not script.weights.endswith("-1")


def test_one_that_restarts_before_gets_them(script: Script, engine: ServerEngine) -> None:
    restart_at(script, "/reset_prefix_cache", 1)
    found = received(script)
    engine.load_weights(weights("a"), 1)
    assert len(found) == 1
    assert script.weights.endswith("-1")


@pytest.mark.parametrize("busy_at", [1, 2, member.LOOKS + 1])
def test_a_server_that_is_busy_at_any_look_stays_with_its_run(
    busy_at: int, script: Script, engine: ServerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run's server may be idle for a moment, while that run reads its answers."""
    monkeypatch.setattr(member, "LOOK_S", 0.0)
    monkeypatch.setattr(member, "PAUSES_S", (0.0,))
    script.weights = "of-another-run-3"
    looks = iter(range(1, member.LOOKS + 2))
    script.routes["/reset_prefix_cache"] = lambda body: (200, {"success": next(looks) != busy_at})
    with pytest.raises(RolloutError, match="is in use by another run"):
        engine.load_weights(weights("a"), 1)
    assert script.weights == "of-another-run-3"
    assert "/collective_rpc" not in script.paths()


def test_a_server_that_another_run_has_left_is_taken(
    script: Script, engine: ServerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "LOOK_S", 0.0)
    script.weights = "of-another-run-3"
    engine.load_weights(weights("a"), 1)
    assert script.weights.endswith("-1")
    assert script.paths().count("/reset_prefix_cache") == member.LOOKS + 2


def test_a_server_that_another_run_has_taken_is_not_taken_back(script: Script, engine: ServerEngine) -> None:
    engine.load_weights(weights("a"), 1)
    script.weights = "of-another-run-3"
    with pytest.raises(RolloutError, match="is used by another run; use a dedicated server and resume"):
        engine.load_weights(weights("a"), 2)
    assert script.weights == "of-another-run-3"


def test_a_transfer_that_is_bound_to_a_server_does_not_meet_another_one(
    script: Script, engine: ServerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.FolderTransfer, "survives_restart", False)
    for version in (1, 2):
        engine.load_weights(weights("a"), version)
    script.weights = "default"
    asked = len(script.seen)
    with pytest.raises(RolloutError, match="has lost the run's weights"):
        engine.load_weights(weights("a"), 3)
    assert script.paths()[asked:] == ["/weight_info"]


def test_they_have_the_precision_of_the_server(
    script: Script, context: RolloutContext, opened: list[ServerEngine], tmp_path: Path
) -> None:
    found = received(script)
    make(script, context, opened, tmp_path, dtype=torch.bfloat16).load_weights(weights("a"), 1)
    assert found[0]["a"].dtype is torch.bfloat16


@pytest.mark.parametrize(("is_untied", "names"), [(True, {EMBEDDING, HEAD}), (False, {EMBEDDING})])
def test_a_server_with_a_head_of_its_own_gets_a_tied_one_under_both_names(
    is_untied: bool,
    names: set[str],
    script: Script,
    context: RolloutContext,
    opened: list[ServerEngine],
    tmp_path: Path,
) -> None:
    found = received(script)
    make(script, context, opened, tmp_path, is_untied=is_untied).load_weights(weights(EMBEDDING), 1)
    assert set(found[0]) == names


def test_large_models_go_in_several_files(
    script: Script, engine: ServerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "SHARD_BYTES", 40)
    found = received(script)
    engine.load_weights(weights("a", "b", "c"), 1)
    assert [sorted(shard) for shard in found] == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    ("path", "route", "message"),
    [
        (
            "/collective_rpc",
            refuses(500, "Worker failed: no such file"),
            "weight sync to .* failed: 500 Worker failed",
        ),
        ("/reset_prefix_cache", lambda body: (200, {"success": False}), "is in use by another run"),
        ("/reset_prefix_cache", refuses(500), "refused: 500"),
        (
            "/update_weight_version",
            refuses(503),
            "no answer from .* for 0.3 s .*; restart it and resume the run",
        ),
    ],
)
def test_a_handover_that_fails_reads_the_weights_to_their_end(
    path: str, route: Any, message: str, script: Script, engine: ServerEngine, tmp_path: Path
) -> None:
    """Other processes would wait for ever for one that stops gathering."""
    script.routes[path] = route
    left = iter(weights("a", "b", "c"))
    with pytest.raises(RolloutError, match=message):
        engine.load_weights(left, 1)
    assert list(left) == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(
    script: Script, context: RolloutContext, opened: list[ServerEngine], tmp_path: Path
) -> None:
    left = iter(weights("a"))
    with pytest.raises(RolloutError, match=r"cannot write the weights to .*missing.*; set rollout_backend.sync_dir"):
        make(script, context, opened, tmp_path / "missing").load_weights(left, 1)
    assert list(left) == []


def test_a_folder_without_room_is_named(script: Script, engine: ServerEngine, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        with pytest.raises(RolloutError, match=r"cannot write the weights to .*; set rollout_backend.sync_dir"):
            engine.load_weights(weights("a"), 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_runs_name_their_weights_apart(
    script: Script,
    context: RolloutContext,
    opened: list[ServerEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(member, "LOOK_S", 0.0)
    one, other = (make(script, context, opened, tmp_path) for _ in range(2))
    one.load_weights(weights("a"), 1)
    other.load_weights(weights("a"), 1)
    other.generate([(3,)], [{}])
    with pytest.raises(RolloutError, match="is used by another run"):
        one.generate([(3,)], [{}])
