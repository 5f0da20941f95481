"""Plugins that are wrong in one way each, and what the list must say of them."""

BROKEN = {
    "raises": ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line second line"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "syntax": ("def f(:", "SyntaxError"),
    "imports": ("import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
    "argument": (
        """
        from reasonrl import hookimpl

        @hookimpl
        def reasonrl_tasks(nonsense):
            return []
        """,
        "nonsense",
    ),
    "misspelled": (
        """
        from reasonrl import hookimpl

        @hookimpl
        def reasonrl_taks():
            return []
        """,
        "reasonrl_taks",
    ),
    "unmarked": (
        """
        from reasonrl import hookimpl

        @hookimpl
        def reasonrl_rewards():
            return []

        def reasonrl_tasks():
            return []
        """,
        "reasonrl_tasks is not marked with @reasonrl.hookimpl",
    ),
    "empty": ("x = 1", "no function marked with @reasonrl.hookimpl"),
    "returns_none": (
        """
        from reasonrl import hookimpl

        @hookimpl
        def reasonrl_tasks():
            pass
        """,
        "reasonrl_tasks returned NoneType, expected an iterable of TaskSpec",
    ),
    "returns_text": (
        """
        from reasonrl import hookimpl

        @hookimpl
        def reasonrl_tasks():
            return "toy"
        """,
        "reasonrl_tasks returned str, expected an iterable of TaskSpec",
    ),
    "wrong_spec": (
        """
        from reasonrl import RewardSpec, hookimpl

        @hookimpl
        def reasonrl_tasks():
            return [RewardSpec(name="r", summary="", factory="a:b")]
        """,
        "reasonrl_tasks returned RewardSpec, expected TaskSpec",
    ),
    "bad_name": (
        """
        from reasonrl import TaskSpec, hookimpl

        @hookimpl
        def reasonrl_tasks():
            return [TaskSpec(name="Bad Name", summary="", factory="a:b")]
        """,
        "'Bad Name' must match",
    ),
    "bad_config": (
        """
        from reasonrl import TaskSpec, hookimpl

        @hookimpl
        def reasonrl_tasks():
            return [TaskSpec(name="t", summary="", factory="a:b", config=dict)]
        """,
        "expected a dataclass",
    ),
    "bad_factory": (
        """
        from reasonrl import TaskSpec, hookimpl

        @hookimpl
        def reasonrl_tasks():
            return [TaskSpec(name="t", summary="", factory="no_colon")]
        """,
        "expected 'pkg.mod:Class' or a callable",
    ),
    "reserved_option": (
        """
        from dataclasses import dataclass
        from reasonrl import TaskSpec, hookimpl

        @dataclass(frozen=True)
        class Config:
            name: str = "x"

        @hookimpl
        def reasonrl_tasks():
            return [TaskSpec(name="t", summary="", factory="a:b", config=Config)]
        """,
        "option 'name' is reserved",
    ),
    "generator": (
        """
        from reasonrl import TaskSpec, hookimpl

        @hookimpl
        def reasonrl_tasks():
            yield TaskSpec(name="half", summary="", factory="a:b")
            raise KeyError("later")
        """,
        "KeyError: 'later'",
    ),
    "wrapper": (
        """
        from pluggy import HookimplMarker

        @HookimplMarker("reasonrl")(wrapper=True)
        def reasonrl_tasks():
            return (yield)
        """,
        "hook wrappers are not supported",
    ),
    "unknown_type": (
        """
        from __future__ import annotations
        from dataclasses import dataclass
        from reasonrl import TaskSpec, hookimpl

        @dataclass(frozen=True)
        class Config:
            size: Nowhere = 1

        @hookimpl
        def reasonrl_tasks():
            return [TaskSpec(name="t", summary="", factory="a:b", config=Config)]
        """,
        "name 'Nowhere' is not defined",
    ),
}
