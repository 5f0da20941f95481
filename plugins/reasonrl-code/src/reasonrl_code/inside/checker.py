"""The process that runs the tests of a function. The function is in another sandbox: only plain values come over.

So a program can neither read the tests nor change what they call, compare with or report. Whatever it sends is decoded
into fresh values of built-in types.
"""

import builtins
import json
import os
import socket
import time
from typing import Any

from reasonrl_code.inside import codec, wire

_ERRORS = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, StopIteration | UnicodeError)
}


class ProgramError(Exception):
    """The program raised an exception that is not built in."""


class ProgramEnded(BaseException):
    """The program ended, or did not answer in time."""


class Program:
    """The other side of the channel."""

    def __init__(self, channel: socket.socket, deadline: float) -> None:
        self._channel, self._deadline = channel, deadline
        self._has_ended = False

    def wait(self) -> Any:
        """Return the value of the next answer, or raise what it raised."""
        return self._read(self._receive(), ())

    def ask(self, do: str, *arguments: Any, of: dict[str, Any], named: dict[str, Any] | None = None) -> Any:
        """Have the program do something."""
        encoded = [codec.encode(argument, _refer) for argument in arguments]
        options = {name: codec.encode(value, _refer) for name, value in (named or {}).items()}
        try:
            wire.send(self._channel, {"do": do, **of, "arguments": encoded, "named": options})
        except wire.WireError as err:
            self._end(err)
        return self._read(self._receive(), arguments)

    def _receive(self) -> dict[str, Any]:
        if self._has_ended:
            raise ProgramEnded("the program ended")
        try:
            answer = wire.receive(self._channel, self._deadline)
        except wire.WireError as err:
            self._end(err)
        if not isinstance(answer, dict):
            self._end(wire.WireError("not an answer"))
        return answer

    def _end(self, err: wire.WireError) -> Any:
        self._has_ended = True
        raise ProgramEnded(str(err)) from None

    def _read(self, answer: dict[str, Any], arguments: tuple[Any, ...]) -> Any:
        if "raised" in answer:
            kind = _ERRORS.get(str(answer["raised"]), ProgramError)
            raise kind(f"{str(answer['raised'])[:100]}: {str(answer.get('text', ''))[:1000]}")
        value = codec.decode(answer.get("value"), self._resolve)
        changed = answer.get("arguments", [])
        if value is None and isinstance(changed, list):
            for own, data in zip(arguments, changed, strict=False):
                _change(own, codec.decode(data, self._resolve))
        return value

    def _resolve(self, key: int, kind: str) -> "Remote":
        return Remote(self, {"on": key}, kind)


class Remote:
    """A function, class or object of the program. It can be called and read, and compares with nothing."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, program: Program, of: dict[str, Any], kind: str) -> None:
        vars(self).update(_program=program, _of=of, _kind=kind)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._program.ask("call", *arguments, of=self._of, named=named)

    def __getattr__(self, name: str) -> Any:
        if "on" not in self._of or name.startswith("__"):
            raise AttributeError(name)
        return self._program.ask("get", of={**self._of, "name": name})

    def __iter__(self) -> Any:
        return iter(self._program.ask("list", of=self._of))

    def __len__(self) -> int:
        return int(self._program.ask("len", of=self._of))

    def __getitem__(self, key: Any) -> Any:
        return self._program.ask("item", key, of=self._of)

    def _refuse(self, *_: Any) -> Any:
        raise TypeError(f"the program returned a {self._kind}, which a test cannot compare")

    __eq__ = __ne__ = __bool__ = _refuse


def _refer(value: Any) -> list[Any]:
    if isinstance(value, Remote) and "on" in value._of:
        return ["h", value._of["on"], ""]
    raise TypeError(f"a test cannot pass a {type(value).__name__} to the program")


def _change(own: Any, new: Any) -> None:
    """Give a container the content that the program's copy has."""
    if type(own) is not type(new):
        return
    if isinstance(own, list | bytearray):
        own[:] = new
    elif isinstance(own, dict | set):
        own.clear()
        own.update(new)


def check(request: dict[str, Any], channel: socket.socket, verdicts: int) -> None:
    """Run the tests; write a line of JSON for each to ``verdicts``: null = passed, else why not."""
    program = Program(channel, time.monotonic() + request["seconds"])
    namespace: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(request["setup"], "setup.py", "exec", dont_inherit=True), namespace)
    except BaseException as err:  # noqa: BLE001 - the data's fault, not the program's
        _write(verdicts, {"setup": f"{type(err).__name__}: {err}"[:500]})
        return
    namespace.update({name: Remote(program, {"name": name}, "function") for name in request["names"]})
    namespace.update({own: namespace[name] for own, name in request["aliases"].items()})
    failed = _fault(program.wait)
    for test in request["tests"]:
        if failed:
            _write(verdicts, failed)
            continue
        code = compile(test, "test.py", "exec", dont_inherit=True)
        _write(verdicts, _fault(lambda code=code: exec(code, namespace)))


def _fault(action: Any) -> str | None:
    """Why something fails; None if it does not."""
    try:
        action()
    except ProgramEnded as err:
        return "too_slow" if "in time" in str(err) else "ended"
    except AssertionError:
        return "wrong"
    except BaseException as err:  # noqa: BLE001 - SystemExit too: the program may have sent its name
        return f"raised {type(err).__name__}"
    return None


def _write(descriptor: int, line: Any) -> None:
    os.write(descriptor, json.dumps(line).encode() + b"\n")
