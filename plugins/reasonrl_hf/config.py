"""Options of the rollout backend ``hf``."""

from dataclasses import dataclass, field

from reasonrl.contracts.memory import BackendMemory


@dataclass(frozen=True)
class HFConfig:
    """What is sampled is the recipe's ``sampling`` section; these options only trade memory for speed."""

    max_batch_rows: int = field(
        default=512, metadata={"help": "completions decoded together; more is faster and needs more memory"}
    )
    compact_fraction: float = field(
        default=0.125,
        metadata={"help": "share of finished rows at which they are removed from the running batch"},
    )
    fused_decoding: bool = field(
        default=True,
        metadata={"help": "on a CPU in float32, decode Llama, Mistral, Qwen2 and Qwen3 models with fewer operations"},
    )

    def __post_init__(self) -> None:
        if self.max_batch_rows < 1:
            raise ValueError(f"max_batch_rows must be >= 1, got {self.max_batch_rows}")
        if not 0.0 < self.compact_fraction <= 1.0:
            raise ValueError(f"compact_fraction must be in (0, 1], got {self.compact_fraction}")

    def plan_memory(self) -> BackendMemory:
        """The trainer's model samples."""
        return BackendMemory(parallel=self.max_batch_rows, shares_model=True)
