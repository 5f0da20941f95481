"""The model of a run on this process's device, with its tokenizer, renderer and accelerator."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from accelerate import Accelerator

from reasonrl.data.render import PromptRenderer
from reasonrl.model.policy import PolicyModule
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.watch import EvaluationWatch
from reasonrl.trainer.work import SamplingWork

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelBundle:
    """A loaded model. ``policy`` is not wrapped by accelerate; trainers get the wrapped one beside it.

    ``shards``: training is to shard it over the processes. ``gathers``: its weights are gathered for sampling then.
    """

    accelerator: Accelerator
    ranks: Ranks
    policy: PolicyModule
    tokenizer: "PreTrainedTokenizerBase"
    renderer: PromptRenderer
    model_path: str
    precision: str
    shards: bool = False
    gathers: bool = False
    watch: EvaluationWatch = field(default_factory=EvaluationWatch)
    sampling_work: SamplingWork = field(default_factory=SamplingWork)
