"""What a task brings to its conversations."""

from reasonrl.contracts.protocols import Task
from reasonrl.conversations.loop import Dialogue
from reasonrl.conversations.replies import RESPOND_S, TaskReplies
from reasonrl.conversations.tool_replies import ToolReplies
from reasonrl.conversations.toolbox import ToolPool
from reasonrl.data.tools import fetch_tools
from reasonrl.plugins import Component


def open_dialogue(
    task: Task,
    component: Component,
    *,
    seed: int = 0,
    max_turns: int,
    respond_timeout_s: float = RESPOND_S,
    tool_timeout_s: float | None = None,
) -> Dialogue | None:
    """Return how the task replies; None if it never does. Workers for its tools are started.

    Raises:
        PluginContractError: If its tools are not usable, or a worker cannot build the task.
    """
    replies = getattr(task, "respond", None) is not None
    own = TaskReplies(task, component.name, timeout_s=respond_timeout_s) if replies else None
    tools = fetch_tools(task, component.name)
    if tools is None:
        return None if own is None else Dialogue(responder=own, max_turns=max_turns)
    pool = ToolPool(
        component.name, component.spec.factory, component.config, tools, seed=seed, timeout_s=tool_timeout_s
    )
    return Dialogue(responder=ToolReplies(tools, pool, own), max_turns=max_turns, role="tool", close=pool.close)
