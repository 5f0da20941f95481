"""The tools of a task, and what a chat template shows of them."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from reasonrl.contracts.data import Problem
from reasonrl.contracts.protocols import Task
from reasonrl.contracts.tools import Tools
from reasonrl.errors import RAISABLE, PluginContractError, check_returned, describe, plugin_call


def fetch_tools(task: Task, task_name: str) -> Tools | None:
    """Call ``task.tools()`` and validate the result; None if the task has none."""
    ask = getattr(task, "tools", None)
    if ask is None:
        return None
    with plugin_call(f"task {task_name!r}: tools()") as call:
        tools = ask()
        check_returned(tools is None or isinstance(tools, Tools), call, tools, "Tools or None")
        for function in tools.functions if tools else ():
            hash(function)  # as the cache of the schemas does
            inspect.signature(function)  # as every call does
    return tools


def with_tools(task: Task, task_name: str, problem: Problem) -> Problem:
    """Give a problem whose prompt is messages the schemas of the task's tools.

    Raises:
        PluginContractError: If a function has no docstring, or an argument without a type or a description.
    """
    tools = None if isinstance(problem.prompt, str) else fetch_tools(task, task_name)
    if tools is None:
        return problem
    return replace(problem, tools=tuple(_schema(function, task_name) for function in tools.functions))


@lru_cache(maxsize=64)
def _schema(function: Callable[..., Any], task_name: str) -> dict[str, Any]:
    from transformers.utils.chat_template_utils import get_json_schema  # slow to import, and only for chats

    try:
        schema: dict[str, Any] = get_json_schema(function)
    except RAISABLE as err:
        raise PluginContractError(
            f"task {task_name!r}: tool {function.__name__!r} has no schema: {describe(err)}; give it a docstring with "
            "Args: and a type for each argument"
        ) from err
    return schema
