"""The YAML of a recipe as frozen dataclasses. Ranges are checked here; checks that need a plugin are in ``resolve``.

Lists, not tuples, in config classes: OmegaConf makes tuples immutable.
"""

# ruff: noqa: RUF009 - ``option`` only wraps ``dataclasses.field``

from dataclasses import dataclass
from typing import Any, Literal

from reasonrl.contracts.options import require
from reasonrl.recipe import fields
from reasonrl.recipe.correction import RolloutCorrectionConfig
from reasonrl.recipe.fields import MANY, MAX_EPOCHS, at_least, at_most, expand_user, option, positive
from reasonrl.recipe.sampling import SamplingConfig
from reasonrl.recipe.suites import NAME_PATTERN, EvaluationConfig, Slot

SET_BY_RENDERING = ("messages", "add_generation_prompt")
"""Variables of a chat template that the core sets."""

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters instead of full fine-tuning (arXiv:2106.09685)."""

    rank: int = option("rank of the adapters", 16)
    alpha: float = option("scaling: the adapter's output is multiplied by alpha / rank", 32.0)
    dropout: float = option("dropout on the adapter's input; SFT only, must be 0 in RL", 0.0)
    target_modules: list[str] = option("names of the adapted modules, or all-linear", factory=lambda: ["all-linear"])
    quantization: Literal["nf4"] | None = option(
        "nf4: keep the base model's linear layers in 4 bits (QLoRA, arXiv:2305.14314); needs bitsandbytes", None
    )

    def __post_init__(self) -> None:
        at_least(self, 1, "rank")
        at_most(self, 1 << 16, "rank")
        positive(self, "alpha")
        require(0.0 <= self.dropout < 1.0, "dropout", "in [0, 1)", self.dropout)
        require(bool(self.target_modules), "target_modules", "a non-empty list", self.target_modules)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The starting model: either a path (folder or hub name) or the name of a model that a plugin ships."""

    path: str | None = option(
        "folder (relative to the working directory) or hub name; a PEFT adapter is merged into its base model", None
    )
    name: str | None = option("name of a model that a plugin ships, see `reasonrl plugins list`", None)
    revision: str | None = option("commit, tag or branch on the hub", None)
    init: Literal["pretrained", "random"] = option("random: take only architecture and tokenizer", "pretrained")
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto: bfloat16 on a GPU that supports it, else float32", "auto"
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = option("attention kernel", "auto")
    lora: LoraConfig | None = option("train only LoRA adapters; null = full fine-tuning", None)
    packing: bool = option("train without padding, the prompt of a group once, where attention allows it", True)
    gradient_checkpointing: bool = option("recompute activations: less memory, more time", False)
    sharding: Literal["none", "fsdp"] = option(
        "with several processes, none: each trains with whole weights (DDP); fsdp: each keeps a share of weights, "
        "gradients and optimizer states (FSDP2)",
        "none",
    )
    trust_remote_code: bool = option("run the code in the model's repository; needs path and revision", False)
    chat_template: str | None = option(
        "Jinja file (relative to the working directory); null = the tokenizer's template", None
    )
    chat_template_args: dict[str, Any] = option(
        "variables of the chat template, such as {enable_thinking: false}", factory=dict
    )

    def __post_init__(self) -> None:
        given = [name for name in (self.path, self.name) if name]
        if len(given) != 1:
            raise ValueError("path or name must be set, but not both")
        if self.trust_remote_code and not (self.path and self.revision):
            raise ValueError("trust_remote_code must be false unless path and revision pin the code that would run")
        for name in self.chat_template_args:
            good = name.isidentifier() and name not in SET_BY_RENDERING
            require(good, "chat_template_args", "variable names of the chat template", name)
        if self.chat_template is not None:
            expand_user(self, "chat_template")


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The value function of algorithms that need one."""

    kind: Literal["shared", "separate", "adapter"] = option(
        "shared: a value head on the policy; separate: a copy of the model, trained in full; "
        "adapter: with model.lora, a second set of adapters on the same base",
        "shared",
    )
    learning_rate: float | None = option("null = optimizer.learning_rate", None)
    warmup_steps: int = option(
        "number of first steps that train only the critic (with kind shared, only its head), with the policy frozen",
        0,
    )

    def __post_init__(self) -> None:
        fields.learning_rate(self)
        at_least(self, 0, "warmup_steps")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """One optimizer for policy and critic."""

    name: Literal["adamw", "adamw_8bit", "adamw_bf16"] = option(
        "adamw: 8 bytes of state per trained parameter; adamw_bf16: 4, moments in bfloat16, rounded stochastically; "
        "adamw_8bit: 2, needs bitsandbytes",
        "adamw",
    )
    learning_rate: float = option("peak learning rate", 1e-6)
    beta1: float = option("decay of the first moment", 0.9)
    beta2: float = option("decay of the second moment", 0.999)
    eps: float = option("added to the denominator of the update", 1e-8)
    weight_decay: float = option("decoupled weight decay", 0.0)
    max_grad_norm: float = option("gradients are clipped to this L2 norm", 1.0)
    schedule: Literal["constant", "linear", "cosine"] = option(
        "after the warm-up; linear and cosine decay to 0", "constant"
    )
    warmup_steps: int = option("steps of linear warm-up", 0)

    def __post_init__(self) -> None:
        fields.learning_rate(self)
        positive(self, "eps", "max_grad_norm")
        for name in ("beta1", "beta2"):
            require(0.0 <= getattr(self, name) < 1.0, name, "in [0, 1)", getattr(self, name))
        require(0.0 <= self.weight_decay < float("inf"), "weight_decay", ">= 0", self.weight_decay)
        at_least(self, 0, "warmup_steps")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Length and batch sizes. A step samples prompts_per_step x sampling.group_size completions."""

    steps: int = option("training steps: each samples rollouts, then updates the policy")
    prompts_per_step: int = option("prompts per step, over all processes")
    minibatches: int = option("optimizer steps per pass over the batch", 1)
    update_epochs: int = option("passes over the batch", 1)
    max_tokens_per_microbatch: int = option("tokens per forward pass, padding included; lower = less memory", 16384)
    max_sampling_rounds: int = option(
        "for algorithms that filter groups, such as dapo: maximum sampling rounds of prompts_per_step each", 20
    )
    too_few_groups: Literal["stop", "train"] = option(
        "with too few groups after the last round: stop the run, or train on those available", "stop"
    )
    carry_groups: bool = option(
        "train on surplus groups in the next step, when they are one update stale; false = drop them", True
    )
    max_staleness: int = option(
        "steps that the weights that sample may be behind: 0 = sample, then update; 1 = sample the prompts of the next "
        "step during the update, with a backend that can, such as vllm with mode: server",
        0,
    )
    offload: list[Literal["reference", "optimizer"]] = option(
        "what is kept in host memory except in the policy evaluation (reference, the weights of the KL reference) or "
        "in the update (optimizer, its states); no effect on a CPU",
        factory=list,
    )

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "prompts_per_step", "minibatches", "update_epochs", "max_tokens_per_microbatch")
        at_least(self, 1, "max_sampling_rounds")
        at_most(self, MANY, "prompts_per_step")
        at_most(self, MAX_EPOCHS, "update_epochs")
        at_least(self, 0, "max_staleness")
        at_most(self, 1, "max_staleness")
        if self.prompts_per_step % self.minibatches:
            raise ValueError(
                f"prompts_per_step must be a multiple of minibatches ({self.minibatches}), got {self.prompts_per_step}"
            )


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When checkpoints are saved. The last step is always saved."""

    every: int = option("steps between checkpoints; 0 = only the last step", 50)
    keep: int = option("number of checkpoints to keep; older ones are deleted", 2)
    keep_best: bool = option("also keep the one with the best accuracy on the first suite", True)

    def __post_init__(self) -> None:
        at_least(self, 0, "every")
        at_least(self, 1, "keep")


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """Logging besides metrics.jsonl."""

    transcripts_per_step: int = option("completions per step written to transcripts/", 4)
    token_figures_per_step: int = option(
        "of these, how many with log-prob gap, advantage and entropy of each token; 0 = none", 4
    )
    trackers: list[str] = option("accelerate's tracker names, such as tensorboard or wandb", factory=list)
    project: str | None = option("project in the trackers; null = the recipe's name", None)
    tracker_options: dict[str, Slot] = option("tracker -> arguments, such as {wandb: {tags: [a]}}", factory=dict)
    report: bool = option("write report.html when the run ends", True)

    def __post_init__(self) -> None:
        at_least(self, 0, "transcripts_per_step")
        at_least(self, 0, "token_figures_per_step")
        unused = sorted(set(self.tracker_options) - set(self.trackers))
        require(not unused, "tracker_options", "options of logging.trackers only", unused)


DEFAULT_BACKEND = "hf"


def _hf() -> Slot:
    return {"name": DEFAULT_BACKEND}


def _check_run(recipe: "AnyRecipe") -> None:
    require(bool(NAME_PATTERN.match(recipe.name)), "name", f"a name like {NAME_PATTERN.pattern}", recipe.name)
    require(0 <= recipe.seed < 2**63, "seed", "in [0, 2**63)", recipe.seed)
    require(bool(recipe.output_dir), "output_dir", "a folder", recipe.output_dir)
    expand_user(recipe, "output_dir")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A reinforcement learning run."""

    name: str = option("name of the run; its folder is <name>-<n>")
    seed: int = option("seed of all random numbers", 0)
    output_dir: str = option("parent of the run folders", "runs")
    device: Device = option("device for training and sampling; auto: a GPU if torch sees one, else the CPU", "auto")
    model: ModelConfig = option("the starting model")
    task: Slot = option("slot: the task, which provides the problems")
    rewards: dict[str, Slot] = option(
        "reward name -> {weight, isolation, timeout_s, memory_mb, **config}; empty = the task's defaults", factory=dict
    )
    algorithm: Slot = option("slot: the RL algorithm")
    critic: CriticConfig | None = option("only for algorithms that need a critic", None)
    sampling: SamplingConfig = option("how completions are sampled", factory=SamplingConfig)
    rollout_backend: Slot = option("slot: the backend that samples completions", factory=_hf)
    rollout_correction: RolloutCorrectionConfig | None = option(
        "importance weights that correct for differences between sampler and trainer, with any algorithm", None
    )
    optimizer: OptimizerConfig = option("optimizer and schedule", factory=OptimizerConfig)
    trainer: TrainerConfig = option("steps and batch sizes")
    evaluation: EvaluationConfig = option("evaluation on held-out problems", factory=EvaluationConfig)
    checkpoint: CheckpointConfig = option("when to save checkpoints", factory=CheckpointConfig)
    logging: LoggingConfig = option("transcripts and trackers", factory=LoggingConfig)

    def __post_init__(self) -> None:
        _check_run(self)
        completions = self.trainer.prompts_per_step * self.sampling.group_size
        require(completions <= MANY, "trainer.prompts_per_step x sampling.group_size", f"<= {MANY}", completions)
        lora = self.model.lora
        if lora is not None and lora.dropout:
            raise ValueError(
                "model.lora.dropout must be 0 in reinforcement learning, because dropout makes the trained policy "
                f"differ from the sampled one; got {lora.dropout}"
            )
        kind = self.critic.kind if self.critic is not None else None
        if kind == "separate" and lora is not None and lora.quantization:
            raise ValueError(
                "critic.kind must be shared or adapter with model.lora.quantization, got separate: it would train a "
                "whole second copy of the model in float32"
            )
        if kind == "adapter" and lora is None:
            raise ValueError(
                "critic.kind must be shared or separate without model.lora, got adapter; or set model.lora"
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Demonstrations from a file."""

    path: str = option("hub name, or a .jsonl, .json, .csv or .parquet file with prompts and completions")
    prompt: str = option("column of the prompt: text or messages; a dotted path reads a nested column", "prompt")
    completion: str = option("column of the completion: text or one assistant message", "completion")
    train_on: Literal["last", "all"] = option(
        "of a conversation in the column messages: the assistant's last message, or all of them", "last"
    )
    subset: str | None = option("configuration of a hub dataset", None)
    split: str = option("split of a hub dataset", "train")

    def __post_init__(self) -> None:
        for name in ("path", "prompt", "completion", "split"):
            require(bool(getattr(self, name)), name, "a name", getattr(self, name))
        expand_user(self, "path")


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Length and batch size of SFT."""

    max_tokens: int = option("stop after this many tokens, prompts included")
    tokens_per_batch: int = option("tokens per optimizer step", 8192)
    max_tokens_per_microbatch: int = option("tokens per forward pass, padding included; lower = less memory", 8192)

    def __post_init__(self) -> None:
        at_least(self, 1, "max_tokens", "tokens_per_batch", "max_tokens_per_microbatch")


@dataclass(frozen=True, kw_only=True)
class SftRecipe:
    """Supervised fine-tuning on a task's demonstrations or a file. Has a top-level ``sft`` key."""

    name: str = option("name of the run; its folder is <name>-<n>")
    seed: int = option("seed of all random numbers", 0)
    output_dir: str = option("parent of the run folders", "runs")
    device: Device = option("device for training and sampling; auto: a GPU if torch sees one, else the CPU", "auto")
    model: ModelConfig = option("the starting model")
    task: Slot | None = option("slot: a task that provides demonstrations", None)
    data: DataConfig | None = option("demonstrations from a file, instead of a task", None)
    sft: SftConfig = option("length and batch size")
    rewards: dict[str, Slot] = option("for evaluation; empty = the task's defaults", factory=dict)
    sampling: SamplingConfig = option("for evaluation; its length limits also apply to SFT", factory=SamplingConfig)
    rollout_backend: Slot = option("slot: the backend that samples for evaluation", factory=_hf)
    optimizer: OptimizerConfig = option("optimizer and schedule", factory=OptimizerConfig)
    evaluation: EvaluationConfig = option("evaluation on held-out problems", factory=EvaluationConfig)
    checkpoint: CheckpointConfig = option("when to save checkpoints", factory=CheckpointConfig)
    logging: LoggingConfig = option("transcripts and trackers", factory=LoggingConfig)

    def __post_init__(self) -> None:
        _check_run(self)
        given = [part for part in (self.task, self.data) if part is not None]
        if len(given) != 1:
            raise ValueError("task or data must be set, but not both")
        self._check_what_sft_does_not_read()

    def _check_what_sft_does_not_read(self) -> None:
        """Keys of a section that training recipes have too."""
        for section, key, instead in (
            ("sampling", "group_size", "evaluation.suites.*.samples sets the completions per problem"),
            ("logging", "transcripts_per_step", "SFT steps do not sample completions"),
            ("logging", "token_figures_per_step", "SFT steps do not sample completions"),
        ):
            config = getattr(self, section)
            default = type(config).__dataclass_fields__[key].default
            if getattr(config, key) != default:
                raise ValueError(f"{section}.{key} has no effect in an SFT recipe: {instead}; remove it")


AnyRecipe = Recipe | SftRecipe
