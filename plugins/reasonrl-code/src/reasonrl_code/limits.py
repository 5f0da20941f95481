"""What a program may take."""

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one program: of each test that reads standard input, of all calls of a function together."""

    seconds: float = 2.0
    """Processor time."""
    memory_mb: int = 512
    """Address space of each process."""
    processes: int = 8
    """Processes and threads at once."""
    files_mb: int = 16
    """The working folder, and each file in it."""
    output_kb: int = 256
    allow_network: bool = False
    elapsed: float | None = None
    """Elapsed time, in seconds; None = three times the processor time and 3 s, since the machine may be busy."""

    @property
    def wall_s(self) -> float:
        """The limit of elapsed time."""
        return 3 * self.seconds + 3 if self.elapsed is None else self.elapsed
