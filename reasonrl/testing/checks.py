"""Conformance checks: their definition, their runner and their pytest classes.

A check is a function of a subject (a component and its environment) that raises ``CheckError`` if the contract is
broken. The ``check_*`` functions, the pytest classes and ``reasonrl plugins check`` all run the same checks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

from reasonrl.errors import RAISABLE, describe, one_line, plugin_code

S = TypeVar("S")
Status = Literal["ok", "failed", "not applicable", "not run"]


OnCheck = Callable[[str, str], None]
"""Called with a component and a check before the check runs."""


def _ignore(subject: str, check: str) -> None:
    """Do nothing."""


_on_check: ContextVar[OnCheck] = ContextVar("on_check", default=_ignore)


@contextmanager
def observe_checks(on_check: OnCheck) -> Iterator[None]:
    """Call ``on_check`` before every check in the block; some take a minute."""
    token = _on_check.set(on_check)
    try:
        yield
    finally:
        _on_check.reset(token)


class CheckError(AssertionError):
    """The component violates its contract."""


class NotApplicableError(Exception):
    """The check does not apply to the component."""


def require(holds: bool, message: str) -> None:
    """Raise ``CheckError(message)`` unless ``holds``."""
    if not holds:
        raise CheckError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """The result of one check on one component.

    ``not applicable``: nothing to check. ``not run``: a check it depends on did not pass. ``error``: the exception.
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
    """A named check. It runs only if all checks in ``after`` passed."""

    name: str
    meaning: str
    function: Callable[[S], None]
    after: tuple[str, ...]


@dataclass
class Checks(Generic[S]):
    """The ordered checks of one kind of component. Call it with dependencies to get a decorator that adds a check."""

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
        """Run every check in order. Exceptions of the component become failures, except Ctrl-C."""
        results: dict[str, CheckResult] = {}
        for check in self.all:
            _on_check.get()(label, check.name)
            if missing := [name for name in check.after if results[name].status != "ok"]:
                needs = f"needs {', '.join(missing)}"
                inapplicable = {results[name].status for name in missing} == {"not applicable"}
                status: Status = "not applicable" if inapplicable else "not run"
                reason = results[missing[0]].reason if inapplicable else needs
                results[check.name] = CheckResult(subject=label, check=check.name, status=status, reason=reason)
            else:
                results[check.name] = _run(check, subject, label)
        return list(results.values())


def _run(check: Check[S], subject: S, label: str) -> CheckResult:
    status: Status = "failed"
    error: BaseException | None = None
    try:
        with plugin_code(f"{label}: {check.name}"):
            check.function(subject)
        return CheckResult(subject=label, check=check.name, status="ok")
    except NotApplicableError as err:
        status, reason = "not applicable", one_line(err)
    except CheckError as err:
        reason, error = one_line(err), err
    except RAISABLE as err:  # a component may raise anything; the error is the result
        reason, error = f"raised {describe(err)}", err
    return CheckResult(subject=label, check=check.name, status=status, reason=reason[:500], error=error)


def assert_all_hold(results: Sequence[CheckResult]) -> None:
    """Raise one AssertionError that lists every failed check."""
    failed = [f"{r.subject}: {r.check}: {r.reason}" for r in results if r.has_failed]
    assert not failed, "; ".join(failed)


class Conformance:
    """Base of the pytest classes. A subclass names a component; each check is one test method.

    ``spec``: Name of an installed component, or a spec. ``config``: Its options, as in a recipe. ``plugins``: Files
    or modules to load as well, as with ``--plugin``.
    """

    spec: ClassVar[Any] = None
    config: ClassVar[Mapping[str, object]] = {}
    plugins: ClassVar[tuple[str, ...]] = ()
    _results: ClassVar[dict[str, CheckResult] | None] = None

    @classmethod
    def run_checks(cls) -> list[CheckResult]:
        """Run all checks; implemented by the class of each kind."""
        raise NotImplementedError

    @classmethod
    def result_of(cls, check: str) -> CheckResult:
        """Return one result. The checks run once per class, because some depend on others."""
        if cls.__dict__.get("_results") is None:
            if cls.spec is None:
                raise CheckError(f"{cls.__name__}.spec must be the name of a component or a spec")
            cls._results = {result.check: result for result in cls.run_checks()}
        assert cls._results is not None
        return cls._results[check]


def add_tests(cls: type[Conformance], checks: Checks[S]) -> None:
    """Give ``cls`` one test method for each check."""
    for check in checks.all:
        setattr(cls, f"test_{check.name}", _method(check))


def _method(check: Check[S]) -> Callable[[Conformance], None]:
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
