"""torch's launcher, where reasonrl starts it: its failures in one line each, and the exit status of the run.

The processes print what was wrong with them; the launcher's own report of it says nothing more.
"""

import logging
import os
import re
import signal
import sys
from collections.abc import Sequence

from reasonrl.errors import one_line

LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"


def main(arguments: Sequence[str]) -> int:
    """Run ``torchrun`` with these arguments; returns the exit status."""
    before = os.environ.get(LOG_LEVEL)
    os.environ.setdefault(LOG_LEVEL, "FATAL")  # it logs each try to connect, with C++ frames
    from torch.distributed import DistError, run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if before is None:  # for the processes
        del os.environ[LOG_LEVEL]
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    args = run.parse_args(list(arguments))
    try:
        run.run(args)
    except ChildFailedError as err:
        code = err.get_first_failure()[1].exitcode
        return 128 - code if code < 0 else code
    except SignalException as err:
        return 128 + signal.Signals(err.sigval).value
    except DistError as err:
        sys.stderr.write(f"error: {explain(one_line(err), args.nnodes, args.master_addr, args.master_port)}\n")
        return 1
    return 0


def explain(text: str, machines: str, address: str, port: int) -> str:
    """What keeps the machines of a run from meeting, in one line; ``text`` is torch's."""
    at = f"{address}:{port}"
    if joined := re.search(r"(\d+)/(\d+) clients joined", text):
        return (
            f"only {joined[1]} of {machines} machines came to {at} in time; start the same command with another "
            "--machine_rank on each, or wait longer with --rdzv_conf timeout=SECONDS"
        )
    if "EADDRINUSE" in text:
        return f"port {port} is in use on this machine; choose another --main_process_port, the same on every machine"
    if "timed out" in text:
        return (
            f"nothing answers at {at}; start the same command with --machine_rank 0 on that machine, and let its "
            "firewall pass the port"
        )
    return f"cannot meet the other machines at {at}: {text}; check the address and the port"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
