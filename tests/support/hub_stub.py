"""A Hugging Face hub on this machine, which knows what an upload needs and keeps what it gets."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Hub:
    """``files``: path -> content of the last commit. ``refuses``: status of the answer to a commit, 0 = accepts."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.repos: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.refuses = 0
        self.address = ""

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if path == "/api/whoami-v2":
            return 200, {"name": "me", "type": "user"}
        if path == "/api/repos/create":
            self.repos.append(json.loads(body))
            made = self.repos[-1]
            return 200, {"url": f"{self.address}/{made.get('organization', 'me')}/{made['name']}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            return 200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
        if path.endswith("/commit/main"):
            return self._commit(path, body)
        return 404, {"error": f"the stub does not know {path}"}

    def _commit(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if self.refuses:
            return self.refuses, {"error": "You have no write access, token hf_" + "s" * 30}
        repo = path.removeprefix("/api/models/").removesuffix("/commit/main")
        lines = [json.loads(line)["value"] for line in body.splitlines() if json.loads(line)["key"] == "file"]
        self.files = {value["path"]: base64.b64decode(value["content"]) for value in lines}
        return 200, {"commitUrl": f"{self.address}/{repo}/commit/abc", "commitOid": "abc", "success": True}


@contextmanager
def hub() -> Iterator[Hub]:
    """Serve a hub on a free port."""
    served = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._reply(self.rfile.read(int(self.headers.get("content-length") or 0)))

        def do_GET(self) -> None:
            self._reply(b"")

        def _reply(self, body: bytes) -> None:
            served.tokens.add(self.headers.get("authorization"))
            status, answer = served.answer(urlsplit(self.path).path, body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
