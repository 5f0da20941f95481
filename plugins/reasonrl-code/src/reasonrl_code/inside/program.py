"""The process that runs a program, from its limits to its end."""

import atexit
import builtins
import os
import socket
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from reasonrl_code.inside import codec, wire

MAX_CUTS = 60
FAILED, BROKEN = 1, 70
Found = dict[int, Any]


def run_script(source: str) -> NoReturn:
    """Run a program from its first line to its last, as ``python program.py`` does, and end this process."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = ["program.py"]
    status = 0
    try:
        exec(compile(source, "program.py", "exec", dont_inherit=True), module.__dict__)
    except SystemExit as end:
        status = _status_of(end)
    except BaseException as err:  # noqa: BLE001 - whatever a program raises is its end
        _print_error(err)
        status = FAILED
    _finish(status)


def serve_calls(sources: list[str], channel: socket.socket, *, trim: bool) -> NoReturn:
    """Run definitions, then do what the other side of ``channel`` asks, until it closes."""
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        for source in sources[:-1]:
            exec(compile(source, "given.py", "exec", dont_inherit=True), module.__dict__)
        exec(_compile(sources[-1], trim=trim), module.__dict__)
    except BaseException as err:  # noqa: BLE001 - SystemExit too: it did not get to the end
        wire.send(channel, {"raised": type(err).__name__, "text": _text_of(err)})
        os._exit(FAILED)
    wire.send(channel, {"value": None})
    held: Found = {}
    while True:
        try:
            request = wire.receive(channel)
        except wire.WireError:
            os._exit(0)
        wire.send(channel, _answer(request, module, held))


def _compile(source: str, *, trim: bool) -> types.CodeType:
    """Compile; ``trim`` drops what follows the last top-level line until the rest is Python."""
    lines = source.split("\n")
    for _ in range(MAX_CUTS):
        try:
            return compile("\n".join(lines), "program.py", "exec", dont_inherit=True)
        except SyntaxError:
            cut = max((i for i, line in enumerate(lines) if i and line and not line[0].isspace()), default=0)
            if not trim or not cut:
                raise
            del lines[cut:]
    raise SyntaxError("no Python in the completion")


def _answer(request: dict[str, Any], module: types.ModuleType, held: Found) -> dict[str, Any]:
    try:
        arguments = [codec.decode(data, lambda key, _: held[key]) for data in request["arguments"]]
        named = {name: codec.decode(data, lambda key, _: held[key]) for name, data in request["named"].items()}
        value = _OPERATIONS[request["do"]](module, held, request, arguments, named)
        answer = {"value": codec.encode(value, _refer_in(held))}
        if value is None and arguments:  # a function that changes its arguments in place
            answer["arguments"] = [codec.encode(argument, _refer_in(held)) for argument in arguments]
        return answer
    except BaseException as err:  # noqa: BLE001 - SystemExit must not pass a test
        return {"raised": type(err).__name__, "text": _text_of(err)}


def _refer_in(held: Found) -> Callable[[Any], list[Any]]:
    def refer(value: Any) -> list[Any]:
        key = len(held)
        held[key] = value
        return ["h", key, type(value).__name__[:100]]

    return refer


def _call(module: types.ModuleType, held: Found, request: dict[str, Any], arguments: list[Any], named: Any) -> Any:
    target = held[request["on"]] if "on" in request else _find(module, request["name"])
    return target(*arguments, **named)


def _find(module: types.ModuleType, name: str) -> Any:
    """Find a name of the program, or a method of its class ``Solution``."""
    if name in module.__dict__:
        return module.__dict__[name]
    if "Solution" in module.__dict__ and hasattr(module.__dict__["Solution"], name):
        return getattr(module.__dict__["Solution"](), name)
    raise NameError(f"name {name!r} is not defined")


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": _call,
    "get": lambda module, held, request, *_: getattr(held[request["on"]], request["name"]),
    "list": lambda module, held, request, *_: list(held[request["on"]]),
    "len": lambda module, held, request, *_: len(held[request["on"]]),
    "item": lambda module, held, request, arguments, _: held[request["on"]][arguments[0]],
}


def _text_of(err: BaseException) -> str:
    try:
        return str(err)[:1000]
    except BaseException:  # noqa: BLE001 - the program's own class
        return ""


def _status_of(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    try:
        sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001 - the program's own object
        return FAILED
    return FAILED


def _print_error(err: BaseException) -> None:
    try:
        shown = err.__traceback__.tb_next if err.__traceback__ else None
        text = "".join(traceback.format_exception(type(err), err, shown, limit=-10))
        sys.stderr.write(text)
    except BaseException:  # noqa: BLE001 - memory is short, or sys.stderr is not what it was
        os.write(2, builtins.type(err).__name__.encode(errors="replace") + b"\n")


def _finish(status: int) -> NoReturn:
    """Wait for threads, write out what is buffered, and end."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - such as a full or closed stdout
        status = status or FAILED
    os._exit(status)
