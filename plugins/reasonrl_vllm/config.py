"""Options of the rollout backend ``vllm``. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

DTypeName = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class VLLMConfig:
    """What is sampled is the recipe's ``sampling`` section; these options say what the engine may use."""

    dtype: DTypeName = field(
        default="auto",
        metadata={
            "help": "precision of the engine; auto: bfloat16 on a GPU that computes in it, else float32, as "
            "model.dtype"
        },
    )
    max_model_len: int | None = field(
        default=None,
        metadata={"help": "longest prompt + completion in tokens; less needs less memory; null: the model's"},
    )
    max_num_seqs: int = field(
        default=256, metadata={"help": "completions decoded together; more is faster and needs more memory"}
    )
    gpu_memory_utilization: float = field(
        default=0.4, metadata={"help": "share of a GPU's memory for the engine; the trainer has the rest"}
    )
    kv_cache_gib: float | None = field(
        default=None,
        metadata={"help": "size of the key-value cache in GiB; null: 1 on a CPU, what is left on a GPU"},
    )
    tensor_parallel_size: int = field(
        default=1, metadata={"help": "GPUs over which one copy of the model is spread"}
    )
    enforce_eager: bool | None = field(
        default=None,
        metadata={"help": "no compilation, no CUDA graphs: starts faster, runs slower; null: on a CPU only"},
    )
    sleep: bool = field(
        default=True, metadata={"help": "on a GPU: the engine's memory is the trainer's during the update"}
    )

    def __post_init__(self) -> None:
        for name in ("max_model_len", "max_num_seqs", "tensor_parallel_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if not 0.0 < self.gpu_memory_utilization < 1.0:
            raise ValueError(f"gpu_memory_utilization must be in (0, 1), got {self.gpu_memory_utilization}")
        if self.kv_cache_gib is not None and not 0.0 < self.kv_cache_gib < 1e6:
            raise ValueError(f"kv_cache_gib must be a number of GiB > 0, got {self.kv_cache_gib}")
