"""Options of the countdown task."""

from dataclasses import dataclass, field

from reasonrl.contracts.options import require, require_choice

SOURCES = ("generated", "dataset")
PUBLIC_DATA = "Jiayi-Pan/Countdown-Tasks-3to4"
TEMPLATES = ("base", "chat", "compact")
CALCULATORS = ("none", "tool", "head")
MAX_NUMBERS = 6
MAX_VALUE = 999_999_999


@dataclass(frozen=True)
class CountdownConfig:
    """Options for problems, prompts and demonstrations.

    The defaults are the ranges commonly quoted for the public data set. The ranges hold for either source:
    rows of a data set outside them are left out. Raises ValueError naming the field when a value is out of
    range.
    """

    source: str = field(default="generated", metadata={"help": "generated (endless, always solvable) or dataset"})
    dataset: str = field(
        default=PUBLIC_DATA,
        metadata={
            "help": "for source dataset: hub name, or .jsonl, .json, .csv or .parquet file with nums and target",
        },
    )
    nums_column: str = field(
        default="nums", metadata={"help": "column with the numbers; a dotted path reads a nested column"}
    )
    target_column: str = field(default="target", metadata={"help": "column with the target"})
    template: str = field(
        default="base", metadata={"help": "base (raw text), chat (messages) or compact (tiny models)"}
    )
    min_numbers: int = field(default=3, metadata={"help": "minimum count of numbers per problem, 2 to 6"})
    max_numbers: int = field(default=4, metadata={"help": "maximum count of numbers per problem, at most 6"})
    min_number: int = field(default=1, metadata={"help": "smallest number, at least 1"})
    max_number: int = field(default=99, metadata={"help": "largest number"})
    min_target: int = field(default=10, metadata={"help": "smallest target, at least 0"})
    max_target: int = field(default=99, metadata={"help": "largest target"})
    numbers_weights: list[float] = field(
        default_factory=list,
        metadata={"help": "relative frequency of min_numbers, ..., max_numbers numbers; empty = equal"},
    )
    calculator: str = field(
        default="none",
        metadata={
            "help": "for template compact: none; tool (the model calls <calc>(5+8)*3</calc> and reads =39); or head, a "
            "control: it writes the same text, results included, by itself"
        },
    )
    mean_attempts: float = field(
        default=2.8,
        metadata={"help": "average failed attempts before a demonstration gives up, >= 1"},
    )
    patient_frac: float = field(
        default=0.0,
        metadata={"help": "share of demonstrations that give up after 1 to patient_attempts instead, uniformly"},
    )
    patient_attempts: int = field(default=16, metadata={"help": "maximum failed attempts of a patient demonstration"})
    aimed_frac: float = field(
        default=0.0,
        metadata={"help": "share of demonstrations that pick the last operation with the target in mind"},
    )

    def __post_init__(self) -> None:
        require_choice("source", self.source, SOURCES)
        require_choice("template", self.template, TEMPLATES)
        require_choice("calculator", self.calculator, CALCULATORS)
        if self.calculator != "none" and self.template != "compact":
            raise ValueError(f"calculator must be none with template {self.template}, got {self.calculator!r}")
        _check_range("numbers", self.min_numbers, self.max_numbers, 2, MAX_NUMBERS)
        _check_range("number", self.min_number, self.max_number, 1, MAX_VALUE)
        _check_range("target", self.min_target, self.max_target, 0, MAX_VALUE)
        require(1.0 <= self.mean_attempts <= 1000.0, "mean_attempts", "in [1, 1000]", self.mean_attempts)
        require(0.0 <= self.patient_frac <= 1.0, "patient_frac", "in [0, 1]", self.patient_frac)
        require(0.0 <= self.aimed_frac <= 1.0, "aimed_frac", "in [0, 1]", self.aimed_frac)
        require(1 <= self.patient_attempts <= 1000, "patient_attempts", "in [1, 1000]", self.patient_attempts)
        _check_weights(self.numbers_weights, self.max_numbers - self.min_numbers + 1)
        if self.source != "dataset" and self.dataset != PUBLIC_DATA:
            raise ValueError(f"dataset must come with source: dataset, got {self.dataset!r} with {self.source}")
        for name in ("dataset", "nums_column", "target_column"):
            is_given = self.source != "dataset" or bool(getattr(self, name))
            require(is_given, name, "a name when source is dataset", getattr(self, name))


def _check_weights(weights: list[float], count: int) -> None:
    is_usable = len(weights) == count and all(w >= 0.0 for w in weights) and 0.0 < sum(weights) < float("inf")
    if weights and not is_usable:
        raise ValueError(
            f"numbers_weights must be empty or {count} weights >= 0, one for each amount from min_numbers to "
            f"max_numbers, got {weights}"
        )


def _check_range(name: str, low: int, high: int, lowest: int, highest: int) -> None:
    require(lowest <= low <= highest, f"min_{name}", f"in [{lowest}, {highest}]", low)
    require(low <= high <= highest, f"max_{name}", f"in [min_{name}, {highest}] = [{low}, {highest}]", high)
