"""The YAML of a recipe as frozen dataclasses. Ranges are checked here, what needs a plugin in ``resolve``.

Lists, not tuples, in config classes: OmegaConf makes tuples immutable.
"""

# ruff: noqa: RUF009 - ``option`` only wraps ``dataclasses.field``

import os
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal

from reasonrl.contracts.options import require

NAME_PATTERN = re.compile(r"^(?!\.)[A-Za-z0-9._-]{1,128}\Z")

SET_BY_RENDERING = ("messages", "add_generation_prompt")
"""Variables of a chat template that the core sets."""

ESCAPES = re.compile(r"(\\[nrt])+")
"""A backslash and a letter, which single quotes leave as two characters."""

Device = Literal["auto", "cpu", "cuda", "mps"]

Slot = dict[str, Any]
"""``{name: component, **fields of its config}``."""


def option(text: str, default: object = MISSING, *, factory: Callable[[], object] | None = None) -> Any:
    """A dataclass field with its help text."""
    if factory is not None:
        return field(default_factory=factory, metadata={"help": text})
    return field(default=default, metadata={"help": text})


def _expand_user(config: object, name: str) -> None:
    """A leading ``~`` is the home folder, as a shell would have it."""
    object.__setattr__(config, name, os.path.expanduser(getattr(config, name)))  # it is frozen


def _at_least(config: object, low: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(value is None or value >= low, name, f">= {low}", value)


def _positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(value is None or 0.0 < value < float("inf"), name, "> 0", value)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters instead of full fine-tuning (arXiv:2106.09685)."""

    rank: int = option("rank of the update", 16)
    alpha: float = option("the update is scaled by alpha / rank", 32.0)
    dropout: float = option("on the adapter's input; SFT only: RL needs 0", 0.0)
    target_modules: list[str] = option("module names, or all-linear", factory=lambda: ["all-linear"])

    def __post_init__(self) -> None:
        _at_least(self, 1, "rank")
        _positive(self, "alpha")
        require(0.0 <= self.dropout < 1.0, "dropout", "in [0, 1)", self.dropout)
        require(bool(self.target_modules), "target_modules", "a non-empty list", self.target_modules)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The starting model: either a path (folder or hub name) or the name of one that a plugin ships."""

    path: str | None = option(
        "folder (relative to where you start; a PEFT adapter is merged into its base) or hub name", None
    )
    name: str | None = option("a model that a plugin ships, see `reasonrl plugins list`", None)
    revision: str | None = option("commit, tag or branch on the hub", None)
    init: Literal["pretrained", "random"] = option("random: only architecture and tokenizer", "pretrained")
    dtype: Literal["auto", "float32", "bfloat16"] = option("auto: what the device does best", "auto")
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = option("attention kernel", "auto")
    lora: LoraConfig | None = option("train adapters only; null = all weights", None)
    gradient_checkpointing: bool = option("recompute activations: less memory, more time", False)
    trust_remote_code: bool = option("run the model's own code; needs path and revision", False)
    chat_template: str | None = option("Jinja file (relative to where you start); null = the tokenizer's own", None)
    chat_template_args: dict[str, Any] = option(
        "variables of the chat template, such as {enable_thinking: false}", factory=dict
    )

    def __post_init__(self) -> None:
        given = [name for name in (self.path, self.name) if name]
        require(len(given) == 1, "path", "given, or else name: exactly one of the two", self.path)
        if self.trust_remote_code and not (self.path and self.revision):
            raise ValueError("trust_remote_code must be false unless path and revision pin the code that would run")
        for name in self.chat_template_args:
            good = name.isidentifier() and name not in SET_BY_RENDERING
            require(good, "chat_template_args", "names of variables of the chat template", name)
        if self.chat_template is not None:
            _expand_user(self, "chat_template")


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The value function of algorithms that need one."""

    kind: Literal["shared", "separate"] = option("a value head on the policy's trunk, or a copy of the model", "shared")
    learning_rate: float | None = option("null = the optimizer's", None)
    warmup_steps: int = option(
        "first steps that train the critic only (with kind shared, its head only); policy and sampler stay",
        0,
    )

    def __post_init__(self) -> None:
        _positive(self, "learning_rate")
        _at_least(self, 0, "warmup_steps")


@dataclass(frozen=True, kw_only=True)
class RolloutCorrectionConfig:
    """Importance weights p_trainer / p_sampler of the policy term, for a sampler that differs from the trainer."""

    level: Literal["token", "sequence", "geometric"] = option(
        "ratio of the token, product over the completion, or its geometric mean", "token"
    )
    mode: Literal["truncate", "mask"] = option(
        "cut ratios at the threshold, or drop what is outside [threshold_low, threshold]", "truncate"
    )
    threshold: float = option("largest ratio, >= 1", 2.0)
    threshold_low: float | None = option("smallest ratio with mode mask; null = 1 / threshold", None)

    def __post_init__(self) -> None:
        require(self.threshold >= 1, "threshold", ">= 1", self.threshold)
        low = self.threshold_low
        require(low is None or self.mode == "mask", "threshold_low", "null when mode is truncate", low)
        require(low is None or 0 <= low <= 1, "threshold_low", "in [0, 1]", low)
        if self.level == "geometric" and self.mode == "truncate":
            raise ValueError("level geometric needs mode mask: as a weight, a geometric mean is biased")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How training completions are drawn, whatever the backend."""

    group_size: int = option("completions of each prompt", 1)
    temperature: float = option("> 0; log-probabilities use it too", 1.0)
    max_prompt_tokens: int = option("longest prompt; see overlong_prompts", 256)
    overlong_prompts: Literal["stop", "drop"] = option(
        "a prompt over max_prompt_tokens, or without room for a completion in the model's context, stops the run or is "
        "left out",
        "stop",
    )
    max_completion_tokens: int = option("completions are cut here, with their real reward", 1024)
    stop: list[str] = option("strings that end a completion", factory=list)

    def __post_init__(self) -> None:
        _at_least(self, 1, "group_size", "max_prompt_tokens", "max_completion_tokens")
        _positive(self, "temperature")
        require(all(self.stop), "stop", "a list of non-empty strings", self.stop)
        for text in self.stop:
            if ESCAPES.fullmatch(text):
                raise ValueError(
                    f'stop must be written ["{text}"] with double quotes, got a backslash and the letter {text[1]}'
                )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """One optimizer for policy and critic."""

    name: Literal["adamw"] = option("optimizer", "adamw")
    learning_rate: float = option("peak learning rate", 1e-6)
    beta1: float = option("decay of the mean of gradients", 0.9)
    beta2: float = option("decay of the mean of squared gradients", 0.999)
    eps: float = option("added to the denominator", 1e-8)
    weight_decay: float = option("decoupled weight decay", 0.0)
    max_grad_norm: float = option("gradients are clipped to this L2 norm", 1.0)
    schedule: Literal["constant", "linear", "cosine"] = option("after the warm-up", "constant")
    warmup_steps: int = option("steps of linear warm-up", 0)

    def __post_init__(self) -> None:
        _positive(self, "learning_rate", "eps", "max_grad_norm")
        for name in ("beta1", "beta2"):
            require(0.0 <= getattr(self, name) < 1.0, name, "in [0, 1)", getattr(self, name))
        require(0.0 <= self.weight_decay < float("inf"), "weight_decay", ">= 0", self.weight_decay)
        _at_least(self, 0, "warmup_steps")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """The batch arithmetic, in prompts. prompts x group_size = completions of a step."""

    steps: int = option("rollout-and-update rounds")
    prompts_per_step: int = option("prompts of one step, over all processes")
    minibatches: int = option("optimizer steps per pass over the batch", 1)
    update_epochs: int = option("passes over the batch", 1)
    max_tokens_per_microbatch: int = option("padded tokens of one forward pass; lower = less memory", 16384)
    max_sampling_rounds: int = option(
        "an algorithm that filters groups, such as dapo, may sample prompts_per_step prompts this often in a step", 20
    )
    too_few_groups: Literal["stop", "train"] = option(
        "groups are missing after the last round: stop the run, or train on those there are", "stop"
    )
    carry_groups: bool = option(
        "groups that were kept beyond the need are trained on in the next step, one update late; false = dropped", True
    )

    def __post_init__(self) -> None:
        _at_least(self, 1, "steps", "prompts_per_step", "minibatches", "update_epochs", "max_tokens_per_microbatch")
        _at_least(self, 1, "max_sampling_rounds")
        if self.prompts_per_step % self.minibatches:
            raise ValueError(
                f"prompts_per_step must be a multiple of minibatches ({self.minibatches}), got {self.prompts_per_step}"
            )


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """One set of held-out problems."""

    problems: int = option("how many, the first ones of the eval split", 256)
    samples: int = option("completions of each problem", 1)
    temperature: float = option("0 = greedy", 1.0)
    max_completion_tokens: int | None = option("null = as in sampling", None)
    task: Slot | None = option("another task; null = the recipe's", None)

    def __post_init__(self) -> None:
        _at_least(self, 1, "problems", "samples", "max_completion_tokens")
        require(0.0 <= self.temperature < float("inf"), "temperature", ">= 0", self.temperature)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """When and on what the model is evaluated."""

    every: int = option("steps between evaluations; 0 = only before the first and after the last step", 20)
    suites: dict[str, SuiteConfig] = option(
        "by name; the first one is the headline; null = no evaluation, <name>: null = without this one", factory=dict
    )

    def __post_init__(self) -> None:
        _at_least(self, 0, "every")
        for name in self.suites:
            require(bool(NAME_PATTERN.match(name)), "suites", f"named like {NAME_PATTERN.pattern}", name)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved. The last step always is."""

    every: int = option("steps between checkpoints; 0 = only the last step", 50)
    keep: int = option("older ones are deleted", 2)
    keep_best: bool = option("except the one that did best on the first suite", True)

    def __post_init__(self) -> None:
        _at_least(self, 0, "every")
        _at_least(self, 1, "keep")


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """What is written besides metrics.jsonl."""

    transcripts_per_step: int = option("completions written to transcripts/", 4)
    trackers: list[str] = option("accelerate's tracker names, such as tensorboard or wandb", factory=list)

    def __post_init__(self) -> None:
        _at_least(self, 0, "transcripts_per_step")


DEFAULT_BACKEND = "hf"


def _hf() -> Slot:
    return {"name": DEFAULT_BACKEND}


def _check_run(recipe: "AnyRecipe") -> None:
    require(bool(NAME_PATTERN.match(recipe.name)), "name", f"a name like {NAME_PATTERN.pattern}", recipe.name)
    require(0 <= recipe.seed < 2**63, "seed", "in [0, 2**63)", recipe.seed)
    require(bool(recipe.output_dir), "output_dir", "a folder", recipe.output_dir)
    _expand_user(recipe, "output_dir")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A reinforcement learning run."""

    name: str = option("names the run's folder")
    seed: int = option("fixes every random draw", 0)
    output_dir: str = option("runs are written below it", "runs")
    device: Device = option("where to train and sample; auto: a GPU that torch sees, else the CPU", "auto")
    model: ModelConfig = option("the starting model")
    task: Slot = option("slot: where problems come from")
    rewards: dict[str, Slot] = option(
        "reward name -> {weight, isolation, timeout_s, memory_mb, **config}; empty = the task's", factory=dict
    )
    algorithm: Slot = option("slot: the learning rule")
    critic: CriticConfig | None = option("only for algorithms that need one", None)
    sampling: SamplingConfig = option("how completions are drawn", factory=SamplingConfig)
    rollout_backend: Slot = option("slot: the backend that samples", factory=_hf)
    rollout_correction: RolloutCorrectionConfig | None = option(
        "importance weights for a sampler that differs from the trainer, usable with every algorithm", None
    )
    optimizer: OptimizerConfig = option("optimizer and schedule", factory=OptimizerConfig)
    trainer: TrainerConfig = option("steps and batch sizes")
    evaluation: EvaluationConfig = option("held-out problems", factory=EvaluationConfig)
    checkpoint: CheckpointConfig = option("saving", factory=CheckpointConfig)
    logging: LoggingConfig = option("transcripts and trackers", factory=LoggingConfig)

    def __post_init__(self) -> None:
        _check_run(self)
        lora = self.model.lora
        if lora is not None and lora.dropout:
            raise ValueError(
                "model.lora.dropout must be 0 in reinforcement learning, or the policy that is trained would not be "
                f"the one that sampled; got {lora.dropout}"
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Demonstrations from a file."""

    path: str = option("hub name, or .jsonl, .json, .csv or .parquet file of prompts and completions")
    prompt: str = option("column with the prompt, text or messages; a dotted path reaches into columns", "prompt")
    completion: str = option("column with what to imitate, text or one assistant message", "completion")
    subset: str | None = option("configuration of a hub data set", None)
    split: str = option("split of a hub data set", "train")

    def __post_init__(self) -> None:
        for name in ("path", "prompt", "completion", "split"):
            require(bool(getattr(self, name)), name, "a name", getattr(self, name))
        _expand_user(self, "path")


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """How long and in which bites demonstrations are imitated."""

    max_tokens: int = option("stop after this many tokens, prompts included")
    tokens_per_batch: int = option("tokens of one optimizer step", 8192)
    max_tokens_per_microbatch: int = option("padded tokens of one forward pass; lower = less memory", 8192)

    def __post_init__(self) -> None:
        _at_least(self, 1, "max_tokens", "tokens_per_batch", "max_tokens_per_microbatch")


@dataclass(frozen=True, kw_only=True)
class SftRecipe:
    """Supervised fine-tuning on a task's demonstrations or a file. Has a top-level ``sft`` key."""

    name: str = option("names the run's folder")
    seed: int = option("fixes every random draw", 0)
    output_dir: str = option("runs are written below it", "runs")
    device: Device = option("where to train and sample; auto: a GPU that torch sees, else the CPU", "auto")
    model: ModelConfig = option("the starting model")
    task: Slot | None = option("slot: a task that can demonstrate", None)
    data: DataConfig | None = option("or a file of demonstrations", None)
    sft: SftConfig = option("length and batch size")
    rewards: dict[str, Slot] = option("for evaluation; empty = the task's", factory=dict)
    sampling: SamplingConfig = option("for evaluation, and the limits of a demonstration", factory=SamplingConfig)
    rollout_backend: Slot = option("slot: the backend that samples for evaluation", factory=_hf)
    optimizer: OptimizerConfig = option("optimizer and schedule", factory=OptimizerConfig)
    evaluation: EvaluationConfig = option("held-out problems", factory=EvaluationConfig)
    checkpoint: CheckpointConfig = option("saving", factory=CheckpointConfig)
    logging: LoggingConfig = option("transcripts and trackers", factory=LoggingConfig)

    def __post_init__(self) -> None:
        _check_run(self)
        given = [part for part in (self.task, self.data) if part is not None]
        require(len(given) == 1, "task", "given, or else data: exactly one of the two", f"{len(given)} of them")
        self._check_what_sft_does_not_read()

    def _check_what_sft_does_not_read(self) -> None:
        """Keys of a section that training recipes have too."""
        for section, key, instead in (
            ("sampling", "group_size", "evaluation.suites.*.samples says how many completions a problem has"),
            ("logging", "transcripts_per_step", "imitation samples nothing in its steps"),
        ):
            config = getattr(self, section)
            default = type(config).__dataclass_fields__[key].default
            if getattr(config, key) != default:
                raise ValueError(f"{section}.{key} has no effect in an SFT recipe, {instead}; remove it")


AnyRecipe = Recipe | SftRecipe
