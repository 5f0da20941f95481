"""Messages of the sandbox: JSON behind its length, over a socket."""

import json
import socket
import struct
import time
from typing import Any

MAX_BYTES = 16 * 2**20


class WireError(Exception):
    """The other side closed, sent too much, something else than JSON, or nothing in time."""


def send(channel: socket.socket, message: Any) -> None:
    """Send one message.

    Raises:
        WireError: if it is too long or the other side is gone.
    """
    data = json.dumps(message).encode()
    if len(data) > MAX_BYTES:
        raise WireError(f"a message of {len(data)} bytes")
    try:
        channel.sendall(struct.pack("<I", len(data)) + data)
    except OSError as err:
        raise WireError(f"closed: {err}") from None


def receive(channel: socket.socket, deadline: float | None = None) -> Any:
    """Receive one message, until ``deadline`` of ``time.monotonic`` if there is one.

    Raises:
        WireError: if none comes, or it is none.
    """
    (size,) = struct.unpack("<I", _exactly(channel, 4, deadline))
    if size > MAX_BYTES:
        raise WireError(f"a message of {size} bytes")
    data = _exactly(channel, size, deadline)
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise WireError("not JSON") from None


def _exactly(channel: socket.socket, size: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise WireError("nothing in time")
            channel.settimeout(left)
        try:
            part = channel.recv(min(size - len(data), 2**20))
        except OSError as err:
            raise WireError(f"closed: {err}") from None
        if not part:
            raise WireError("closed")
        data += part
    return bytes(data)
