"""What a task brings to its conversations."""

from reasonrl.contracts.protocols import Task
from reasonrl.conversations.loop import Dialogue
from reasonrl.conversations.replies import TaskReplies


def open_dialogue(task: Task, name: str, *, max_turns: int) -> Dialogue | None:
    """Return how the task replies; None if it never does."""
    if getattr(task, "respond", None) is None:
        return None
    return Dialogue(responder=TaskReplies(task, name), max_turns=max_turns)
