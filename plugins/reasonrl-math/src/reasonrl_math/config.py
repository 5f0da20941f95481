"""Options of the tasks and rewards."""

from dataclasses import dataclass, field

from reasonrl.contracts.options import require, require_choice

TEMPLATES = ("base", "chat")
MAX_FACTOR = 999_999


@dataclass(frozen=True)
class MathConfig:
    """Source and prompt format of the problems. Raises ValueError naming the field."""

    path: str = field(
        default="",
        metadata={"help": "hub name, or .jsonl, .json, .csv or .parquet file; '' = a few bundled examples"},
    )
    subset: str | None = field(default=None, metadata={"help": "configuration of a hub dataset, such as main"})
    train_split: str = field(default="train", metadata={"help": "split of a hub dataset to train on"})
    eval_split: str | None = field(
        default=None,
        metadata={
            "help": "split of a hub dataset to hold out; null = a tenth of train_split; the same split = a benchmark "
            "without training data"
        },
    )
    eval_path: str | None = field(default=None, metadata={"help": "file of held-out problems; null = a tenth of path"})
    question: str = field(
        default="question",
        metadata={"help": "column with the problem: text, or messages, which are used verbatim"},
    )
    answer: str = field(
        default="answer",
        metadata={"help": "column with the answer, or a list of them; a dotted path reads a nested column"},
    )
    difficulty: str = field(
        default="", metadata={"help": "column with the difficulty, by which evaluations list the accuracy; '' = none"}
    )
    marker: str = field(
        default="####",
        metadata={
            "help": "the answer follows this text, if the column has it, else it is in the last \\boxed{}; '' = never"
        },
    )
    unreadable: str = field(
        default="drop",
        metadata={"help": "rows with an unreadable answer: drop (and report the count) or error (with file and line)"},
    )
    template: str = field(default="chat", metadata={"help": "chat (messages) or base (raw text, <think> opened)"})

    def __post_init__(self) -> None:
        require_choice("template", self.template, TEMPLATES)
        require_choice("unreadable", self.unreadable, ("drop", "error"))
        for name in ("question", "answer", "train_split"):
            require(bool(getattr(self, name)), name, "a name", getattr(self, name))
        if self.eval_path is not None and self.eval_split is not None:
            raise ValueError("eval_path must be null when eval_split is given")


@dataclass(frozen=True)
class MultiplicationConfig:
    """Range and prompt format of the products. Raises ValueError naming the field."""

    min_factor: int = field(default=0, metadata={"help": "smallest factor, at least 0"})
    max_factor: int = field(default=999, metadata={"help": f"largest factor, at most {MAX_FACTOR}"})
    template: str = field(
        default="base",
        metadata={"help": "base (raw text), chat (messages) or compact (tiny models: the last '= n' counts)"},
    )

    def __post_init__(self) -> None:
        require_choice("template", self.template, (*TEMPLATES, "compact"))
        require(0 <= self.min_factor <= MAX_FACTOR, "min_factor", f"in [0, {MAX_FACTOR}]", self.min_factor)
        low = self.min_factor + 4
        expected = f"in [min_factor + 4, {MAX_FACTOR}], from {low}"
        require(low <= self.max_factor <= MAX_FACTOR, "max_factor", expected, self.max_factor)


@dataclass(frozen=True)
class MultiplicationRewardConfig:
    """Reward of a wrong number. Raises ValueError outside [0, 1)."""

    format_value: float = field(default=0.1, metadata={"help": "for a number that is not the product"})

    def __post_init__(self) -> None:
        require(0.0 <= self.format_value < 1.0, "format_value", "in [0, 1)", self.format_value)
