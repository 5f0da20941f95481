"""The client of a vLLM server: limits, repeats, interruptions, and what it says when it gives up."""

from __future__ import annotations

import asyncio
import gzip
import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from support.scripted_vllm import Script, refuses, scripted
from support.vllm_server import free_url

from reasonrl.errors import RolloutError
from reasonrl_vllm import client as client_module
from reasonrl_vllm.client import Client
from reasonrl_vllm.fleet import Fleet

PATH = "/thing"


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted() as server:
        yield server


def client(url: str, *, timeout_s: float = 10.0, retry_s: float = 0.0) -> Client:
    return Client(url, timeout_s=timeout_s, retry_s=retry_s, advice="start it: like this")


@dataclass
class One:
    """A fleet's only server."""

    client: Client
    max_num_seqs: int


def post_all(asked: Client, path: str, bodies: list[Any], *, max_num_seqs: int = 256) -> list[Any]:
    """Every body, at the same time as far as the server takes them."""
    return Fleet([One(asked, max_num_seqs)], asked.loop).spread(bodies, lambda one, body: one.client.fetch(path, body))


def test_answers_come_in_the_order_of_the_questions(script: Script) -> None:
    def slower_first(body: Any) -> tuple[int, Any]:
        time.sleep(0.002 * (40 - body))
        return 200, body

    script.routes[PATH] = slower_first
    with client(script.url) as asked:
        assert post_all(asked, PATH, list(range(40))) == list(range(40))
        assert post_all(asked, PATH, []) == []


def test_it_works_inside_a_running_event_loop(script: Script) -> None:
    script.routes[PATH] = lambda body: (200, body)

    async def main() -> Any:
        with client(script.url) as asked:
            return asked.post(PATH, 5)

    assert asyncio.run(main()) == 5


def test_a_connection_that_the_server_may_be_closing_is_not_used_again(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client_module.IDLE_S < 5, "after which vLLM closes it"
    monkeypatch.setattr(client_module, "IDLE_S", 0.05)
    script.routes[PATH] = lambda body: (200, body)
    with client(script.url) as asked:
        for _ in range(3):
            asked.get(PATH)
            time.sleep(0.2)
    assert len(script.connections) == 3


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_comes_back_is_asked_again(script: Script, status: int, caplog: pytest.LogCaptureFixture) -> None:
    """Soon, and every time that it goes away is told once."""
    busy, well = refuses(status, "busy"), lambda body: (200, "well")
    replies = [busy, busy, well, busy, well]
    script.routes[PATH] = lambda body: replies.pop(0)(body)
    began = time.monotonic()
    with client(script.url, retry_s=20) as asked, caplog.at_level(logging.WARNING):
        for times in (1, 2):
            assert asked.get(PATH) == "well"
            assert caplog.text.count("is unreachable") == times
    assert time.monotonic() - began < 5


def test_a_server_that_hangs_with_a_dead_engine_is_given_up(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the connection open and answers nothing, but what asks for its health."""
    monkeypatch.setattr(client_module, "WATCH_S", 0.02)
    over = threading.Event()
    script.routes[PATH] = lambda body: (200, over.wait(30))
    script.routes["/health"] = refuses(503)
    with (
        client(script.url, retry_s=0.2) as asked,
        pytest.raises(RolloutError, match=r"no answer from .* 503"),
    ):
        post_all(asked, PATH, [1, 2])
    over.set()


@pytest.mark.parametrize("status", [204, 307, 404])
def test_only_success_is_good(script: Script, status: int) -> None:
    script.routes[PATH] = lambda body: (status, None)
    with client(script.url) as asked:
        assert asked.ask("POST", PATH).is_good == (status == 204)


def test_no_more_are_asked_at_once_than_told(script: Script) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def count(body: Any) -> tuple[int, Any]:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return 200, body

    script.routes[PATH] = count
    with client(script.url) as asked:
        assert post_all(asked, PATH, list(range(12)), max_num_seqs=2) == list(range(12))
    assert 1 < most[0] <= 4, "as many again wait for those that it runs"


def test_a_healthy_server_may_take_its_time(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "WATCH_S", 0.02)
    script.routes["/health"] = lambda body: (200, None)
    script.routes[PATH] = lambda body: (200, time.sleep(0.3) or body)
    with client(script.url) as asked:
        assert post_all(asked, PATH, [1, 2]) == [1, 2]
    assert script.paths().count("/health") > 1


def test_an_engine_that_died_inside_the_server_counts_as_away(script: Script) -> None:
    text = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    replies = [refuses(500, text), lambda body: (200, "well")]
    script.routes[PATH] = lambda body: replies.pop(0)(body)
    with client(script.url, retry_s=5) as asked:
        assert asked.get(PATH) == "well"


def test_it_gives_up_after_the_time_that_it_was_given() -> None:
    url = free_url()
    began = time.monotonic()
    with client(url, retry_s=0.6) as asked, pytest.raises(RolloutError) as gone:
        post_all(asked, PATH, [1, 2, 3])
    assert 0.5 < time.monotonic() - began < 3
    text = str(gone.value)
    assert text.startswith(f"vllm: no answer from {url} for 0.6 s (ConnectError")
    assert text.endswith("; start it: like this")
    assert "\n" not in text


def test_what_must_not_come_twice_is_not_repeated(script: Script) -> None:
    script.routes[PATH] = refuses(503)
    with client(script.url, retry_s=5) as asked, pytest.raises(RolloutError, match="no answer from"):
        asked.post(PATH, 1, again=False)
    assert script.paths() == [PATH]


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500])
def test_a_refusal_is_final_and_told_in_one_line(script: Script, status: int) -> None:
    script.routes[PATH] = refuses(status, "no\n such   thing")
    with client(script.url, retry_s=5) as asked, pytest.raises(RolloutError) as refused:
        post_all(asked, PATH, [1])
    assert str(refused.value) == f"vllm: {script.url}{PATH} refused: {status} no such thing"
    assert script.paths() == [PATH]


def test_an_answer_that_takes_too_long_ends_the_waiting(script: Script) -> None:
    ended = threading.Event()
    script.routes[PATH] = lambda body: (200, ended.wait(20))
    with client(script.url, timeout_s=0.3, retry_s=5) as asked:
        with pytest.raises(RolloutError, match=r"no answer .* within 0.3 s; .* rollout_backend.timeout_s"):
            asked.post(PATH)
        ended.set()


class Stopped(BaseException):
    """What a signal's handler raises."""


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """A signal that comes while the main thread waits."""

    def stop(*args: Any) -> None:
        raise Stopped

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(Stopped):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_exception_in_the_one_that_waits_breaks_everything_off(script: Script) -> None:
    ended = threading.Event()
    script.routes[PATH] = lambda body: (200, ended.wait(20))

    began = time.monotonic()
    try:
        with client(script.url) as asked, stopped_after(0.3):
            post_all(asked, PATH, list(range(30)))
    finally:
        ended.set()
    assert time.monotonic() - began < 3


def test_what_is_broken_off_is_hung_up_at_once() -> None:
    """The server learns by it that nobody waits any more."""
    heard: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            while said := connection.recv(4096):
                heard.append(said)
            heard.append(b"hung up")

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as other:
        serving = other.submit(serve, listener)
        with client(f"http://127.0.0.1:{listener.getsockname()[1]}") as asked:
            with stopped_after(0.3):
                asked.post(PATH)
            serving.result(timeout=3)
    assert heard[-1] == b"hung up"


def test_the_key_is_sent_and_never_told(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "open-sesame")
    script.routes[PATH] = lambda body: (401, {"error": "Unauthorized"})
    with client(script.url) as asked, pytest.raises(RolloutError) as refused:
        asked.get(PATH)
    assert script.keys == {"Bearer open-sesame"}
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("key", ["open\nsesame", "öpen-sesame", "open-sesame\r"])
def test_a_key_that_cannot_be_sent_is_not_told_either(
    key: str, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", key)
    with pytest.raises(RolloutError, match="VLLM_API_KEY contains a line break") as refused, client(script.url):
        pass
    assert "sesame" not in str(refused.value)


def test_no_proxy_stands_before_this_machine(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, free_url())
    script.routes[PATH] = lambda body: (200, "direct")
    with client(script.url) as asked:
        assert asked.get(PATH) == "direct"


def test_it_closes_twice(script: Script) -> None:
    asked = client(script.url).__enter__()
    asked.__exit__()
    asked.__exit__()


def raw(*parts: bytes, pause_s: float = 0.0) -> Any:
    """A server that takes one request and sends ``parts``, whatever they are."""

    @contextmanager
    def serve() -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    connection.recv(1 << 16)
                    for part in parts:
                        connection.sendall(part)
                        time.sleep(pause_s)

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            yield f"http://127.0.0.1:{server.getsockname()[1]}"

    return serve()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def sized(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (lambda: raw(HEAD + b"Content-Length: 900\r\n\r\n", *[b" "] * 800, pause_s=0.02), "within 0.4 s"),
        (lambda: raw(*[b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 500], pause_s=0.02), "within 0.4 s"),
        (lambda: raw(HEAD + b"Content-Length: 99999999999\r\n\r\n", *[b" " * 2**16] * 200), "over 4,194,304 bytes"),
        (lambda: raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"10000\r\n" + b" " * 2**16 + b"\r\n"] * 200),
         "over 4,194,304 bytes"),
        (lambda: raw(sized(gzip.compress(b" " * 2**24), b"Content-Encoding: gzip")), "compressed"),
        (lambda: raw(b"HTTP/1.1 307 M\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), "refused: 307"),
        (lambda: raw(b"SSH-2.0-OpenSSH\r\n\r\n"), "no answer from"),
        (lambda: raw(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 2**20), "no answer from"),
        (lambda: raw(sized(b'{"detail": "\\u001b[2J\\n' + b"x" * 9000 + b'"}').replace(b"200", b"400")), "used: 400"),
    ],
)  # fmt: skip
def test_a_hostile_answer_is_one_short_line_in_bounded_time(server: Any, said: str) -> None:
    began = time.monotonic()
    with server() as url, client(url, timeout_s=0.4) as asked, pytest.raises(RolloutError, match=said) as error:
        asked.get(PATH)
    assert time.monotonic() - began < 5
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 700


@pytest.mark.parametrize("body", [b"[" * 100_000, b"9" * 5000, b"", b"\xff\xfe", b'{"a": NaN', b"\x00"])
def test_what_is_not_json_is_no_answer(body: bytes) -> None:
    with raw(sized(body)) as url, client(url) as asked:
        assert asked.get(PATH) is None
