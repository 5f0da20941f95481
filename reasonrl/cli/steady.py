"""Standard streams that outlive their terminal or pipe: what is printed after it is gone is lost, and nothing else."""

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET, errno.ENXIO)
"""The reader has ended, or the terminal was closed. A full disk is an error."""
SMALLEST = {"COLUMNS": 10, "LINES": 1}
LONGEST = 6
"""Digits of a size; Python reads no number of several thousand."""
_NAMES = {1: "standard output", 2: "standard error"}


class SteadyFile(io.FileIO):
    """A standard stream that turns into the null device once it cannot be written.

    That it is gone is written to standard error as ``notice``; not by logging, which may be what is writing. Any other
    error is raised, once: what is left in a buffer must not end the interpreter with another one.
    """

    notice = ""

    def write(self, data: Any) -> int:
        """Write, or drop ``data`` if the other end is gone."""
        try:
            return super().write(data) or 0
        except OSError as err:
            if err.errno in (errno.EAGAIN, errno.EINTR):
                raise
            _point_at_null(self.fileno())
            if err.errno not in GONE:
                raise OSError(err.errno, err.strerror, _NAMES.get(self.fileno())) from err
            with suppress(OSError):
                os.write(2, self.notice.encode())
            return len(data)


@contextmanager
def notice_if_gone(text: str) -> Iterator[None]:
    """While the block runs, a stream that goes away is told on standard error; otherwise nothing is said."""
    SteadyFile.notice = f"{text}\n"
    try:
        yield
    finally:
        SteadyFile.notice = ""


def plausible_size() -> None:
    """Ignore an impossible terminal size, such as 0 columns, at which nothing would be shown."""
    for name, least in SMALLEST.items():
        size = os.environ.get(name, "")
        if not size.isdecimal() or len(size) > LONGEST or int(size) < least:
            os.environ.pop(name, None)


def steady_streams() -> None:
    """Make standard output and error steady, for ``print`` and for logging.

    Streams that are closed are opened, standard input too, so that no file of the run gets their descriptor.

    A character that the terminal cannot encode is escaped, one that it sends and cannot be decoded is replaced.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _point_at_null(descriptor)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    logging.raiseExceptions = False  # a warning that cannot be printed ends nothing
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or (isinstance(stream, io.TextIOWrapper) and stream.fileno() == descriptor):
            setattr(sys, name, _steady(stream, descriptor))


def _steady(stream: io.TextIOWrapper | None, descriptor: int) -> io.TextIOWrapper:
    if stream is not None:
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(SteadyFile(descriptor, "w", closefd=False)),
        encoding=stream.encoding if stream is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or (stream is not None and stream.line_buffering),
        write_through=stream is not None and stream.write_through,
    )


def _point_at_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
