"""HTTP client for `vllm serve`: concurrent requests, timeouts, retries and one-line errors."""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2 as httpx

from reasonrl.errors import RolloutError, one_line
from reasonrl_vllm.event_loop import EventLoop

log = logging.getLogger(__name__)

CONNECT_S = 5.0
CONNECTIONS = 256
IDLE_S = 2.0
"""Seconds for which an idle connection is reused. vLLM closes one after 5 s, possibly just as a request is being
sent."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
WATCH_S = 5.0
"""Interval of the health checks while requests are pending."""
AWAY = (502, 503, 504)
"""Statuses of a proxy, or of a server whose engine is dead."""
ENGINE_DEAD = "EngineCore encountered"
MAX_BYTES = 4 * 2**20
"""Of a reply to a control request."""
KEY = "VLLM_API_KEY"


class ServerLostError(RolloutError):
    """A server that can sample no more for this run, while others may. ``reason``: without what to do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"vllm: {reason}; {advice}")
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A response. ``body`` is its JSON; None if it sent none."""

    status: int
    body: Any

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def message(self) -> str:
        """Return the reason of a refusal, in one line."""
        body = self.body if isinstance(self.body, dict) else {}
        error = body.get("error", body.get("detail", ""))
        text = error.get("message", "") if isinstance(error, dict) else error
        return f"{self.status} {one_line(text)[:400]}".strip()


class Client:
    """A server and the connections to it.

    An exception in the waiting thread, such as a signal's, closes its connections, so that the server cancels
    the requests. ``retry_s``: how long to retry an unreachable server. ``advice``: the end of that error message.
    ``loop``: an event loop that is shared with other clients; by default its own.
    """

    def __init__(
        self, url: str, *, timeout_s: float, retry_s: float, advice: str, loop: EventLoop | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout_s, self._retry_s, self._advice = timeout_s, retry_s, advice
        self._is_away = False
        self._given = loop
        self._stack = ExitStack()

    def __enter__(self) -> Client:
        key = _key()
        self.loop = self._given or EventLoop()
        if self._given is None:
            self._stack.callback(self.loop.close)
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})},
            timeout=httpx.Timeout(self._timeout_s, connect=min(CONNECT_S, self._timeout_s), pool=None),
            limits=httpx.Limits(
                max_connections=CONNECTIONS + 1, max_keepalive_connections=CONNECTIONS, keepalive_expiry=IDLE_S
            ),
            verify=self.url.startswith("https:"),  # loading certificates takes longer than most requests
            trust_env=False,  # never send control requests and the key through a proxy
        )
        self._stack.callback(self.loop.wait, self._http.aclose)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def ask(self, method: str, path: str, body: Any = None, *, again: bool = True) -> Reply:
        """Send one request. ``again``: it may be retried.

        Raises:
            RolloutError: if the server is away, or takes too long.
        """
        return self.loop.wait(lambda: self._ask(method, path, body, again))

    def get(self, path: str) -> Any:
        """Get the JSON at ``path``.

        Raises:
            RolloutError: if the server is away or refuses.
        """
        return self._good(path, self.ask("GET", path))

    def post(self, path: str, body: Any = None, *, again: bool = True) -> Any:
        """Post and return the JSON response.

        Raises:
            RolloutError: if the server is away or refuses.
        """
        return self._good(path, self.ask("POST", path, body, again=again))

    async def fetch(self, path: str, body: Any, *, max_bytes: int = MAX_BYTES) -> Any:
        """Post from the event loop and return the JSON response. A reply of more than ``max_bytes`` is an error."""
        return self._good(path, await self._ask("POST", path, body, True, max_bytes))

    async def watch(self) -> None:
        """Raise ServerLostError once the server is gone; one with a dead engine may keep connections open."""
        while True:
            await anyio.sleep(WATCH_S)
            await self._ask("GET", "/health", None, True)

    async def _ask(self, method: str, path: str, body: Any, again: bool, max_bytes: int = MAX_BYTES) -> Reply:
        """Request with retries for ``retry_s`` since the first failure, with growing pauses."""
        began, pause = 0.0, FIRST_PAUSE_S
        while isinstance(found := await self._once(method, path, body, max_bytes), str):
            began = began or time.monotonic()
            left = self._retry_s - (time.monotonic() - began) if again else 0.0
            if left <= 0.0:
                raise self._gone(found)
            if not self._is_away:
                self._is_away = True
                log.warning("vllm: %s is unreachable (%s); retrying for %g s", self.url, found, self._retry_s)
            await anyio.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_S)
        self._is_away = False
        return found

    async def _once(self, method: str, path: str, body: Any, max_bytes: int) -> Reply | str:
        """Return the reply, or why there is none if that may be temporary."""
        try:
            with anyio.fail_after(self._timeout_s + 0.1):  # for the whole reply; the timeouts of httpx are per read
                reply = await self._exchange(method, path, body, max_bytes)
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise ServerLostError(
                f"no answer from {self.url}{path} within {self._timeout_s:g} s",
                "check the server's log, or raise rollout_backend.timeout_s",
            ) from error
        except httpx.TransportError as error:
            return _format_error(error)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise RolloutError(f"vllm: {self.url}{path}: {_format_error(error)}") from error
        is_dead = reply.status == 500 and ENGINE_DEAD in reply.message
        return f"status {reply.message}" if reply.status in AWAY or is_dead else reply

    async def _exchange(self, method: str, path: str, body: Any, max_bytes: int) -> Reply:
        """Send the request and read the reply, which is refused as soon as it is too large."""
        content = bytearray()
        async with self._http.stream(method, path, json=body) as response:
            encoding = response.headers.get("content-encoding", "identity")
            if encoding != "identity":
                raise ValueError(f"the reply is compressed ({encoding[:20]}), although none was asked for")
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > max_bytes:
                    raise ValueError(f"the reply has over {max_bytes:,} bytes; expected fewer")
        return Reply(status=response.status_code, body=_json(content))

    def _gone(self, why: str) -> ServerLostError:
        tried = f" for {self._retry_s:g} s" if self._retry_s and self._is_away else ""
        return ServerLostError(f"no answer from {self.url}{tried} ({why})", self._advice)

    def _good(self, path: str, reply: Reply) -> Any:
        if not reply.is_good:
            raise RolloutError(f"vllm: {self.url}{path} refused: {reply.message}")
        return reply.body


def _key() -> str:
    """Return the key to send; empty if none is set.

    Raises:
        RolloutError: for one that would be told in an error.
    """
    key = os.environ.get(KEY, "")
    if not (key.isascii() and key.isprintable()):
        raise RolloutError(f"vllm: {KEY} contains a line break or another invalid character; set it again")
    return key


def _json(content: bytearray) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):  # an integer of thousands of digits; nested too deeply
        return None


def _format_error(error: Exception) -> str:
    text = one_line(error)[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
