"""Conformance suites, fixtures and fakes for plugin authors. Everything is imported lazily.

    from reasonrl.testing import TaskConformance

    class TestAdd(TaskConformance):
        spec = "add"
        config = {"count": 4}

``check_task("add")`` and the other ``check_*`` functions run the same checks without pytest; ``reasonrl plugins check``
runs them for every component of a plugin.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reasonrl.testing.algorithms import AlgorithmConformance, check_algorithm
    from reasonrl.testing.checks import CheckError, CheckResult, assert_all_hold
    from reasonrl.testing.models import byte_tokenizer, tiny_model_folder
    from reasonrl.testing.plugin import check_plugin
    from reasonrl.testing.policies import TinyPolicy, steer, tiny_policy
    from reasonrl.testing.rewards import RewardConformance, check_reward
    from reasonrl.testing.rollouts import RolloutConformance, check_rollout
    from reasonrl.testing.scripted import ScriptedBackend, scripted_spec
    from reasonrl.testing.tasks import TaskConformance, check_task, completion_of

_HOMES = {
    "AlgorithmConformance": "algorithms",
    "CheckError": "checks",
    "CheckResult": "checks",
    "RewardConformance": "rewards",
    "RolloutConformance": "rollouts",
    "ScriptedBackend": "scripted",
    "TaskConformance": "tasks",
    "TinyPolicy": "policies",
    "assert_all_hold": "checks",
    "byte_tokenizer": "models",
    "check_algorithm": "algorithms",
    "check_plugin": "plugin",
    "check_reward": "rewards",
    "check_rollout": "rollouts",
    "check_task": "tasks",
    "completion_of": "tasks",
    "scripted_spec": "scripted",
    "steer": "policies",
    "tiny_model_folder": "models",
    "tiny_policy": "policies",
}

__all__ = [
    "AlgorithmConformance",
    "CheckError",
    "CheckResult",
    "RewardConformance",
    "RolloutConformance",
    "ScriptedBackend",
    "TaskConformance",
    "TinyPolicy",
    "assert_all_hold",
    "byte_tokenizer",
    "check_algorithm",
    "check_plugin",
    "check_reward",
    "check_rollout",
    "check_task",
    "completion_of",
    "scripted_spec",
    "steer",
    "tiny_model_folder",
    "tiny_policy",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
