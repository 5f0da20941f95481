"""Finds, isolates and lists plugins, and answers "who provides task 'countdown'?". Torch-free.

A broken plugin never breaks another one: whatever goes wrong while it loads becomes the ``error`` of its
``PluginRecord``, and is fatal only when a recipe names something that it should have provided.
"""

from reasonrl.plugins.loading import load_plugins
from reasonrl.plugins.registry import (
    KINDS,
    Component,
    Kind,
    Observer,
    PluginRecord,
    Plugins,
    Provided,
    RewardComponent,
    RunPlugin,
    find_records,
    missing_modules,
    unavailable_reason,
)

__all__ = [
    "KINDS",
    "Component",
    "Kind",
    "Observer",
    "PluginRecord",
    "Plugins",
    "Provided",
    "RewardComponent",
    "RunPlugin",
    "find_records",
    "load_plugins",
    "missing_modules",
    "unavailable_reason",
]
