"""What a conformance check is, how a list of them runs, and how pytest sees it.

A check is a function of a subject (a component and what is needed to try it) that raises ``CheckError`` when the
contract is broken. It is written once and used three ways: by ``check_task`` and its like, by the pytest classes, and
by ``reasonrl plugins check``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

from reasonrl.errors import RAISABLE, describe, one_line

S = TypeVar("S")
Status = Literal["ok", "failed", "not applicable", "not run"]


Teller = Callable[[str, str], None]
"""Told of a component and a check that begins."""


def _silent(subject: str, check: str) -> None:
    """Nobody watches."""


_tell: ContextVar[Teller] = ContextVar("tell", default=_silent)


@contextmanager
def telling(tell: Teller) -> Iterator[None]:
    """Within, ``tell`` hears of every check before it runs: some take a minute."""
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


class CheckError(AssertionError):
    """The component breaks its contract; the message says how."""


class NotApplicableError(Exception):
    """The check has nothing to look at; the message says why."""


def require(holds: bool, message: str) -> None:
    """Raise ``CheckError(message)`` unless ``holds``."""
    if not holds:
        raise CheckError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """What one check said of one component.

    ``not applicable``: nothing to check (the reason says what is absent). ``not run``: a check that it builds on
    did not hold. ``error`` is what was raised.
    """

    subject: str
    check: str
    status: Status
    reason: str = ""
    error: BaseException | None = None

    @property
    def has_failed(self) -> bool:
        return self.status == "failed"


@dataclass(frozen=True, slots=True)
class Check(Generic[S]):
    """A named check. It runs only if all checks in ``after`` held."""

    name: str
    meaning: str
    function: Callable[[S], None]
    after: tuple[str, ...]


@dataclass
class Checks(Generic[S]):
    """The checks of one kind of component, in order. Calling it with names makes a decorator that adds one."""

    all: list[Check[S]] = field(default_factory=list)

    def __call__(self, *after: str) -> Callable[[Callable[[S], None]], Callable[[S], None]]:
        def add(function: Callable[[S], None]) -> Callable[[S], None]:
            known = [check.name for check in self.all]
            assert set(after) <= set(known), (after, known)
            self.all.append(Check(function.__name__, inspect.getdoc(function) or function.__name__, function, after))
            return function

        return add

    @property
    def names(self) -> list[str]:
        return [check.name for check in self.all]

    def run(self, subject: S, label: str) -> list[CheckResult]:
        """Every check's result, in order. Nothing that a component raises passes, except Ctrl-C."""
        results: dict[str, CheckResult] = {}
        for check in self.all:
            _tell.get()(label, check.name)
            if missing := [name for name in check.after if results[name].status != "ok"]:
                reason = f"needs {', '.join(missing)}"
                results[check.name] = CheckResult(subject=label, check=check.name, status="not run", reason=reason)
            else:
                results[check.name] = _run(check, subject, label)
        return list(results.values())


def _run(check: Check[S], subject: S, label: str) -> CheckResult:
    status: Status = "failed"
    error: BaseException | None = None
    try:
        check.function(subject)
        return CheckResult(subject=label, check=check.name, status="ok")
    except NotApplicableError as err:
        status, reason = "not applicable", one_line(err)
    except CheckError as err:
        reason, error = one_line(err), err
    except RAISABLE as err:  # a component may raise anything; it is the result of the check
        reason, error = f"raised {describe(err)}", err
    return CheckResult(subject=label, check=check.name, status=status, reason=reason[:500], error=error)


def assert_all_hold(results: Sequence[CheckResult]) -> None:
    """Raise one AssertionError that names every failed check, if there is one."""
    failed = [f"{r.subject}: {r.check}: {r.reason}" for r in results if r.has_failed]
    assert not failed, "; ".join(failed)


class Conformance:
    """Base of the pytest classes. A subclass names a component; each check is one test method.

    ``spec``: name of an installed component, or a spec. ``config``: its options, as in a recipe. ``plugins``: files
    or modules to load beside what is installed, as ``--plugin`` does.
    """

    spec: ClassVar[Any] = None
    config: ClassVar[dict[str, Any]] = {}
    plugins: ClassVar[tuple[str, ...]] = ()
    _results: ClassVar[dict[str, CheckResult] | None] = None

    @classmethod
    def run_checks(cls) -> list[CheckResult]:
        """All results; what a kind's own class says."""
        raise NotImplementedError

    @classmethod
    def result_of(cls, check: str) -> CheckResult:
        """One result. The checks run once a class: some of them build on others."""
        if cls.__dict__.get("_results") is None:
            if cls.spec is None:
                raise CheckError(f"{cls.__name__}.spec must name a component, or be a spec")
            cls._results = {result.check: result for result in cls.run_checks()}
        assert cls._results is not None
        return cls._results[check]


def add_tests(cls: type[Conformance], checks: Checks[Any]) -> None:
    """Give ``cls`` one test method for each check."""
    for check in checks.all:
        setattr(cls, f"test_{check.name}", _method(check))


def _method(check: Check[Any]) -> Callable[[Conformance], None]:
    def test(self: Conformance) -> None:
        result = type(self).result_of(check.name)
        if result.status in ("not applicable", "not run"):
            import pytest

            pytest.skip(f"{result.status}: {result.reason}")
        if result.has_failed:
            raise CheckError(f"{result.subject}: {result.reason}") from result.error

    test.__name__ = f"test_{check.name}"
    test.__doc__ = check.meaning
    return test
