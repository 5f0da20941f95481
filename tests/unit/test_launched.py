"""What the launcher of several processes says, and how the ones that accelerate leaves out are started."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.processes import free_port
from typer.testing import CliRunner

from reasonrl.cli import torch_launcher
from reasonrl.cli.app import app
from reasonrl.cli.ranks import Asked, launcher_arguments, parse_launch, ranks_environment, start_missing_ranks
from reasonrl.errors import RecipeError
from reasonrl.importing import module_command
from reasonrl.runs.launched import (
    Place,
    find_place,
    is_first_on_machine,
    is_first_process,
    join_timeout,
    lacks_other_ranks,
    process_timeout,
)

LAUNCHED = {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
TWO = "--num_machines 2 --main_process_ip 10.0.0.1 --main_process_port 29400"


@pytest.mark.parametrize(
    ("environ", "alone"),
    [
        (LAUNCHED, True),
        ({}, False),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, False),
        ({"MASTER_ADDR": "127.0.0.1"}, False),
        ({**LAUNCHED, "LOCAL_RANK": "0"}, False),
        ({**LAUNCHED, "RANK": "0", "WORLD_SIZE": "2"}, False),
        ({**LAUNCHED, "OMPI_COMM_WORLD_SIZE": "2"}, False),
        ({**LAUNCHED, "PMI_SIZE": "2"}, False),
    ],
)
def test_a_process_without_its_other_ranks_is_recognized(environ: dict[str, str], alone: bool) -> None:
    assert lacks_other_ranks(environ) is alone


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("accelerate launch --num_processes 2 -m reasonrl train x", Asked(processes=2)),
        ("/x/bin/accelerate launch --num-processes=4 -m reasonrl train x", Asked(processes=4)),
        ("python -m accelerate.commands.launch --cpu --num_processes 3 -m reasonrl", Asked(processes=3)),
        ("/x/accelerate-launch --num_processes 2 run.py --num_processes 9", Asked(processes=2)),
        (
            f"accelerate launch --cpu --num_processes 4 {TWO} --machine_rank 1 -m reasonrl train",
            Asked(processes=4, machines=2, machine=1, address="10.0.0.1", port=29400),
        ),
        (
            f"accelerate launch --num-processes=2 {TWO.replace('_', '-')} --machine-rank=0 --rdzv_conf timeout=9 x",
            Asked(processes=2, machines=2, machine=0, address="10.0.0.1", port=29400, conf="timeout=9"),
        ),
        ("mpirun -n 2 accelerate-run", None),
        ("sh -c launch", None),
        ("", None),
    ],
)
def test_what_was_asked_for_is_read_from_the_launchers_command(command: str, asked: Asked | None) -> None:
    assert parse_launch(command.split()) == asked


def test_what_accelerates_config_file_says_counts_where_the_command_line_says_nothing(tmp_path: Path) -> None:
    config = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_CPU",
        "num_processes": 6,
        "num_machines": 3,
        "machine_rank": 2,
        "main_process_ip": "node-a",
        "main_process_port": 29501,
        "use_cpu": True,
    }
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(config))
    command = ["accelerate", "launch", "--config_file", str(file), "--machine_rank", "0", "-m", "reasonrl", "train"]
    assert parse_launch(command) == Asked(processes=6, machines=3, machine=0, address="node-a", port=29501)
    with pytest.raises(RecipeError, match=r"cannot be read: .* does not exist"):
        parse_launch(["accelerate", "launch", "--config_file", str(tmp_path / "none.yaml"), "-m", "reasonrl"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (f"--num_processes 2 {TWO}", "--num_machines 2 needs --machine_rank on each machine, 0 to 1"),
        (f"--num_processes 2 {TWO} --machine_rank 2", "needs --machine_rank on each machine, 0 to 1"),
        (f"--num_processes 3 {TWO} --machine_rank 0", "a multiple of --num_machines 2"),
        (f"--num_processes 1 {TWO} --machine_rank 0", "a multiple of --num_machines 2"),
    ],
)
def test_machines_that_cannot_be_started_are_refused(words: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_launch(["accelerate", "launch", *words.split(), "-m", "reasonrl"])


def test_the_arguments_of_torchs_launcher_and_its_environment() -> None:
    alone = launcher_arguments(Asked(processes=3), ["train", "r.yaml", "a=b c"])
    assert alone == [
        "--standalone",
        "--nproc-per-node",
        "3",
        "--no-python",
        *module_command("reasonrl"),
        "train",
        "r.yaml",
        "a=b c",
    ]
    several = Asked(processes=4, machines=2, machine=1, address="10.0.0.1", port=7, conf="timeout=9")
    where = "--nnodes 2 --node-rank 1 --master-addr 10.0.0.1 --master-port 7 --rdzv-conf timeout=9 --nproc-per-node 2"
    assert launcher_arguments(several, ["train"]) == [
        *where.split(),
        "--no-python",
        *module_command("reasonrl"),
        "train",
    ]
    assert ranks_environment({**LAUNCHED, "HOME": "/h"}) == {
        "ACCELERATE_MIXED_PRECISION": "no",
        "HOME": "/h",
        "OMP_NUM_THREADS": "1",
    }
    assert ranks_environment({"OMP_NUM_THREADS": "4"}) == {"OMP_NUM_THREADS": "4"}


def test_nothing_happens_in_a_process_of_its_own() -> None:
    start_missing_ranks({})


def test_an_unknown_number_of_processes_is_refused() -> None:
    """The parent of this test names no number of processes."""
    with pytest.raises(RecipeError, match="use `torchrun --nproc-per-node N"):
        start_missing_ranks(LAUNCHED)


@pytest.mark.parametrize("command", ["train", "sft", "resume", "eval"])
def test_commands_that_run_on_several_processes_start_those_that_are_missing(command: str) -> None:
    done = CliRunner().invoke(app, [command, "no-such-thing"], env=LAUNCHED)
    assert done.exit_code == 2
    assert "use `torchrun --nproc-per-node N" in done.stderr


def test_the_place_of_a_process_is_what_the_launcher_says() -> None:
    assert find_place({}) is None
    assert find_place({"RANK": "0", "WORLD_SIZE": "1"}) is None
    given = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "node-a", "MASTER_PORT": "29400"}
    assert find_place(given) == Place(rank=1, size=4, address="node-a", port=29400)
    elastic = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2"}
    again = find_place({**given, **elastic})
    assert again is not None
    assert (again.has_store, again.attempt) == (True, "2")
    mpi = find_place({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"})
    assert mpi is not None
    assert (mpi.rank, mpi.address) == (1, "127.0.0.1")
    assert not is_first_process({"PMI_RANK": "1", "PMI_SIZE": "2"})
    assert is_first_process({"RANK": "3"}), "left from another program; silent, it would train without a word"
    assert is_first_process({"RANK": "3", "WORLD_SIZE": "1"})
    assert is_first_on_machine({"RANK": "8", "LOCAL_RANK": "0"})
    assert not is_first_on_machine({"RANK": "9", "LOCAL_RANK": "1"})


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK is not set"),
        ({"WORLD_SIZE": "two"}, "the variable WORLD_SIZE is 'two', expected a number"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "rank is 2, expected 0 to 1"),
    ],
)
def test_odd_variables_of_a_launcher_are_refused(environ: dict[str, str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        find_place(environ)


def test_how_long_processes_wait_for_each_other() -> None:
    assert (process_timeout({}), join_timeout({})) == (3600.0, 600.0)
    assert join_timeout({"REASONRL_PROCESS_TIMEOUT_S": "7200"}) == 600.0
    assert join_timeout({"REASONRL_PROCESS_TIMEOUT_S": "2.5"}) == 2.5
    for text in ("soon", "0", "-1", "nan", "inf"):
        with pytest.raises(RecipeError, match=f"REASONRL_PROCESS_TIMEOUT_S is '{text}', expected a number"):
            process_timeout({"REASONRL_PROCESS_TIMEOUT_S": text})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "said"), [(0, "only 1 of 2 machines came to 127.0.0.1:"), (1, "nothing answers at")]
)
def test_a_machine_that_never_comes_ends_torchs_launcher_in_one_line(machine: int, said: str) -> None:
    asked = Asked(processes=2, machines=2, machine=machine, address="127.0.0.1", port=free_port(), conf="timeout=3")
    done = launch(asked)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert said in done.stderr


@pytest.mark.slow
def test_a_port_in_use_ends_torchs_launcher_in_one_line() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        done = launch(Asked(processes=2, machines=2, machine=0, address="127.0.0.1", port=port, conf="timeout=3"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert f"port {port} is in use on this machine; choose another --main_process_port" in done.stderr


def launch(asked: Asked) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", torch_launcher.__name__, *launcher_arguments(asked, ["--version"])]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
