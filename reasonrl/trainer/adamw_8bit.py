"""AdamW with both moments in 8 bits, from bitsandbytes, an optional dependency (extra ``low-memory``).

2 bytes of state per parameter and 8 per block of 256, instead of 8 per parameter. Tensors with fewer than 4,096 values
keep moments in float32. Weights stay in float32.
"""

from collections.abc import Iterable
from typing import Any

import torch
from bitsandbytes.optim import AdamW8bit as Blockwise
from torch.optim import Optimizer

CODES = ("state1", "state2")
MAPS = {"qmap1": "dynamic", "qmap2": "udynamic"}
"""Entries of the state that are the same for all parameters, and their names in ``name2qmap``."""


class AdamW8bit(Blockwise):
    """The optimizer of bitsandbytes, with a state of plain tensors that checkpoints can hold.

    Its own ``state_dict`` hides tensors in a nested one, and its ``step`` must be an int.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def state_dict(self) -> dict[str, Any]:
        """The state without the maps from code to value, which are constants."""
        found = Optimizer.state_dict(self)
        return {**found, "state": {key: _without_maps(state) for key, state in found["state"].items()}}

    def load_state_dict(self, state_dict: dict[str, Any], move_to_device: bool = True) -> None:
        """Load a state. torch casts it to the parameters' type, so cast it back: nothing is lost either way."""
        Optimizer.load_state_dict(self, state_dict)
        for parameter, state in self.state.items():
            state["step"] = int(state["step"])
            if "absmax1" in state:
                state.update({key: state[key].to(torch.uint8) for key in CODES})
                state.update({key: self.name2qmap[name].to(parameter.device) for key, name in MAPS.items()})


def _without_maps(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in MAPS}
