"""Two machines: network namespaces with host names, disks where a test wants, and a cable of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[1]
HIDDEN = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
CABLE = "cable"
ADDRESSES, PORT = ("10.77.0.1", "10.77.0.2"), 29400
LIMIT_S = 300


@dataclass
class Machine:
    """One of them. ``own``: a folder that is a disk of its own there."""

    number: int
    namespace: str
    own: Path | None = None
    environ: Mapping[str, str] = field(default_factory=dict)

    def start(self, *command: object) -> subprocess.Popen[str]:
        """Start a command there."""
        environ = {k: v for k, v in os.environ.items() if k not in HIDDEN and not k.startswith("ACCELERATE_")}
        environ |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
        environ |= {"GLOO_SOCKET_IFNAME": CABLE, "COLUMNS": "400", **self.environ}
        disk = f"mount -t tmpfs none {self.own}; " if self.own else ""
        inside = f'{disk}hostname node-{self.number}; exec "$@"'
        words = ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "--mount", "sh", "-ec", inside, "sh"]
        return subprocess.Popen(
            [*words, *map(str, command)],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def torchrun(self, *words: object) -> subprocess.Popen[str]:
        """Start its process of ``reasonrl WORDS`` with torch's launcher."""
        meets = ["--nnodes", "2", "--node-rank", self.number, "--nproc-per-node", "1"]
        meets += ["--master-addr", ADDRESSES[0], "--master-port", PORT]
        return self.start(sys.executable, "-m", "torch.distributed.run", *meets, "-m", "reasonrl", *words)

    def accelerate(self, *words: object) -> subprocess.Popen[str]:
        """The same with accelerate."""
        meets = ["--num_machines", "2", "--machine_rank", self.number, "--num_processes", "2"]
        meets += ["--main_process_ip", ADDRESSES[0], "--main_process_port", PORT]
        return self.start(sys.executable, "-m", "accelerate.commands.launch", "--cpu", *meets, "-m", "reasonrl", *words)

    def kill(self) -> None:
        """End all that runs there at once, as when the power fails."""
        for pid in run("ip", "netns", "pids", self.namespace).split():
            os.kill(int(pid), signal.SIGKILL)

    def unplug(self) -> None:
        """Cut the cable."""
        run("ip", "-n", self.namespace, "link", "set", CABLE, "down")


def run(*words: object) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


def obstacle() -> str:
    """Why there can be no two machines here; empty if there can."""
    if missing := [name for name in ("ip", "unshare", "mount", "hostname") if shutil.which(name) is None]:
        return f"no command {', '.join(missing)}"
    try:
        with two_machines() as (one, _):
            process = one.start("true")
            out, _ = process.communicate(timeout=30)
            return "" if process.returncode == 0 else out.strip()
    except OSError as err:
        return str(err)


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Connected by a cable; what still runs there at the end is killed."""
    names = [f"reasonrl-{os.getpid()}-{number}" for number in (0, 1)]
    machines = [Machine(number, name) for number, name in enumerate(names)]
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", names[0], "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", names[1])
        for number, name in enumerate(names):
            run("ip", "-n", name, "addr", "add", f"{ADDRESSES[number]}/24", "dev", CABLE)
            run("ip", "-n", name, "link", "set", CABLE, "up")
        yield machines[0], machines[1]
    finally:
        known = run("ip", "netns", "list")
        for machine in machines:
            if machine.namespace in known:
                machine.kill()
                run("ip", "netns", "del", machine.namespace)


def finish(*processes: subprocess.Popen[str]) -> list[tuple[int, str]]:
    """Exit status and output of each, in time."""
    outputs = [process.communicate(timeout=LIMIT_S)[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]
