"""Options of the task and the reward."""

from dataclasses import dataclass, field

from reasonrl.contracts.options import require, require_choice
from reasonrl_code.limits import Limits

TEMPLATES = ("chat", "base")
SHAPES = ("auto", "humaneval", "mbpp", "apps")
METHODS = ("auto", "bubblewrap", "namespaces", "process")
MAX_PROCESSES = 256


@dataclass(frozen=True)
class CodeConfig:
    """Source and prompt format of the problems. Raises ValueError naming the field."""

    path: str = field(
        default="", metadata={"help": "hub name, or .jsonl, .json or .parquet file; '' = a few bundled examples"}
    )
    subset: str | None = field(default=None, metadata={"help": "configuration of a hub dataset, such as sanitized"})
    train_split: str = field(default="train", metadata={"help": "split of a hub dataset to train on"})
    eval_split: str | None = field(
        default=None,
        metadata={
            "help": "split of a hub dataset to hold out; null = a tenth of train_split; the same split = a benchmark "
            "without training data"
        },
    )
    eval_path: str | None = field(default=None, metadata={"help": "file of held-out problems; null = a tenth of path"})
    shape: str = field(
        default="auto",
        metadata={"help": "columns of a row: humaneval, mbpp or apps; auto = each row by the columns that it has"},
    )
    template: str = field(
        default="chat", metadata={"help": "chat (messages, program in a fenced block) or base (raw text to continue)"}
    )
    shown_tests: int = field(default=1, metadata={"help": "tests of an MBPP row that the prompt shows"})
    max_tests: int = field(default=16, metadata={"help": "tests of a problem that are kept, the first ones"})
    difficulty: str = field(
        default="", metadata={"help": "column with the difficulty, by which evaluations list the accuracy; '' = none"}
    )

    def __post_init__(self) -> None:
        require_choice("shape", self.shape, SHAPES)
        require_choice("template", self.template, TEMPLATES)
        require(bool(self.train_split), "train_split", "a name", self.train_split)
        require(self.shown_tests >= 0, "shown_tests", ">= 0", self.shown_tests)
        require(self.max_tests >= 1, "max_tests", ">= 1", self.max_tests)
        if self.eval_path is not None and self.eval_split is not None:
            raise ValueError("eval_path must be null when eval_split is given")


@dataclass(frozen=True)
class PassedTestsConfig:
    """What a program earns, and what it may take. Raises ValueError naming the field."""

    partial_credit: bool = field(
        default=True, metadata={"help": "true: the fraction of tests passed; false: 1 for all of them, else 0"}
    )
    seconds: float = field(
        default=2.0,
        metadata={
            "help": "processor time of one test with standard input, or of all calls of a function; three times "
            "that and 3 s may elapse"
        },
    )
    program_mb: int = field(default=512, metadata={"help": "address space of each process of the program, MiB"})
    processes: int = field(default=8, metadata={"help": "processes and threads that the program may have at once"})
    files_mb: int = field(default=16, metadata={"help": "size of the working folder, and of each file, MiB"})
    output_kb: int = field(default=256, metadata={"help": "standard output that the program may write, KiB"})
    allow_network: bool = field(
        default=False,
        metadata={"help": "leave the network to programs; needed where the system cannot cut it off"},
    )
    sandbox: str = field(
        default="auto", metadata={"help": "bubblewrap, namespaces or process; auto = the first that works here"}
    )

    def __post_init__(self) -> None:
        require(0.5 <= self.seconds <= 600, "seconds", "in [0.5, 600]", self.seconds)
        require(self.program_mb >= 64, "program_mb", ">= 64", self.program_mb)
        require(1 <= self.processes <= MAX_PROCESSES, "processes", f"in [1, {MAX_PROCESSES}]", self.processes)
        require(self.files_mb >= 1, "files_mb", ">= 1", self.files_mb)
        require(self.output_kb >= 1, "output_kb", ">= 1", self.output_kb)
        require_choice("sandbox", self.sandbox, METHODS)

    def limits(self) -> Limits:
        """The limits of one program."""
        return Limits(
            seconds=self.seconds,
            memory_mb=self.program_mb,
            processes=self.processes,
            files_mb=self.files_mb,
            output_kb=self.output_kb,
            allow_network=self.allow_network,
        )
