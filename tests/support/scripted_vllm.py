"""An HTTP server on this machine that says what a test wants, otherwise what a `vllm serve` would."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Route = Callable[[Any], tuple[int, Any]]


@dataclass
class Script:
    """``routes``: path -> what answers there, (status, JSON) of the request's JSON. ``seen``: (path, JSON) as asked.

    ``weights`` is what the server calls its weights. ``keys``: the Authorization headers that came;
    ``connections``: the addresses that they came from.
    """

    url: str = ""
    routes: dict[str, Route] = field(default_factory=dict)
    seen: list[tuple[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    connections: set[tuple[str, int]] = field(default_factory=set)
    weights: str = "default"
    config: dict[str, Any] = field(default_factory=dict)
    """What it says of itself; see ``server_config``."""

    def paths(self) -> list[str]:
        return [path for path, _ in self.seen]

    def reply(self, path: str, body: Any) -> tuple[int, Any]:
        if path in self.routes:
            return self.routes[path](body)
        return DEFAULTS[path](self, body) if path in DEFAULTS else (404, {"detail": "Not Found"})


def refuses(status: int, message: str = "") -> Route:
    """A route that says no, in vLLM's words."""
    return lambda body: (status, {"error": {"message": message, "code": status}})


def choice(
    index: int, tokens: list[int], weights: str, logprob: float = -0.5, finished: str = "length"
) -> dict[str, Any]:
    """One completion as the server writes it."""
    return {
        "index": index,
        "token_ids": tokens,
        "logprobs": {"content": [{"token_id": token, "logprob": logprob} for token in tokens]},
        "finish_reason": finished,
        "stop_reason": None,
        "weight_versions": [{"version": weights, "start": 0, "end": len(tokens)}],
    }


def server_config(model: str, **changes: Any) -> dict[str, Any]:
    """The parts of vLLM's description of itself that matter; ``changes`` are of its model_config."""
    described = {
        "model": model,
        "max_model_len": 256,
        "dtype": "torch.float32",
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "hf_overrides": {"tie_word_embeddings": False},
    }
    return {
        "model_config": {**described, **changes},
        "scheduler_config": {"max_num_seqs": 8},
        "device_config": {"device": "cpu"},
        "weight_transfer_config": None,
    }


def _generate(script: Script, body: Any) -> tuple[int, Any]:
    """Every sample repeats the prompt's last token, so many times as its number and one."""
    if "token_ids" not in body:
        return refuses(400, "Field required")(body)
    last, count = body["token_ids"][-1], body["sampling_params"].get("n", 1)
    choices = [choice(i, [last] * (i + 1), script.weights) for i in range(count)]
    return 200, {"choices": choices[::-1]}


def _rename(script: Script, body: Any) -> tuple[int, Any]:
    script.weights = body["new_version"]
    return 200, {"success": True}


DEFAULTS: dict[str, Callable[[Script, Any], tuple[int, Any]]] = {
    "/version": lambda script, body: (200, {"version": "0.32.0"}),
    "/v1/models": lambda script, body: (200, {"data": []}),
    "/server_info": lambda script, body: (200, {"vllm_config": script.config}),
    "/get_world_size": lambda script, body: (200, {"world_size": 2}),
    "/inference/v1/generate": _generate,
    "/update_weight_version": _rename,
    "/weight_info": lambda script, body: (200, {"weight_version": script.weights}),
    "/collective_rpc": lambda script, body: (200, {"results": [None]}),
    "/reset_prefix_cache": lambda script, body: (200, {"success": True}),
}


@contextmanager
def scripted() -> Iterator[Script]:
    """A server that runs in threads of this process."""
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            path = self.path.split("?")[0]
            script.seen.append((path, body))
            script.keys.add(self.headers.get("Authorization"))
            script.connections.add(self.client_address)
            status, said = script.reply(path, body)
            text = said if isinstance(said, bytes) else json.dumps(said).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except OSError:  # the client has gone
                self.close_connection = True

        do_GET = do_POST = answer

        def log_message(self, *args: Any) -> None:
            """Tests are silent."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
