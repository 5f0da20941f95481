"""Runs commands of an installation without waiting for ``import torch`` each time.

    python forked.py SOCKET [MODULE ...]

Executed by the environment under test.

The libraries are imported and used once; each command is then a fork: a process of its own, with its own folder,
variables and streams, that runs the console script's entry point on its own ``sys.argv``, as the script itself would.
Of reasonrl only the named modules are imported before the fork.
"""

import array
import importlib
import importlib.metadata
import importlib.util
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent


def main(path: str, *modules: str) -> None:
    """Serve for ever; a request is one JSON object with three file descriptors: stdin, stdout, stderr."""
    warm_up(modules)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(16)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
        os.write(1, b"ready\n")
        while True:
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                watch(client)
            client.close()


LIBRARIES = (
    "accelerate",
    "datasets",
    "numpy",
    "omegaconf",
    "peft",
    "pyarrow",
    "rich.live",
    "safetensors.torch",
    "torch",
    "torch._dynamo",
    "torch.distributed.checkpoint.state_dict",
    "transformers",
    "transformers.generation.utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.gemma2.modeling_gemma2",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.qwen2.tokenization_qwen2",
    "typer",
    "yaml",
)
"""What a run imports and takes seconds."""


def warm_up(modules: Sequence[str] = ()) -> None:
    """Import the libraries, let them make what they make at first use, and import these modules."""
    for name in LIBRARIES:
        importlib.import_module(name)
    load_a_model()
    parse_an_option()
    assert not any(name.startswith("reasonrl") for name in sys.modules)
    for name in modules:
        importlib.import_module(name)


def load_a_model() -> None:
    import transformers

    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 8}
    config = transformers.Qwen2Config(**shape, num_attention_heads=2, num_key_value_heads=2)
    with tempfile.TemporaryDirectory() as folder:
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        transformers.AutoModelForCausalLM.from_pretrained(folder)


def parse_an_option() -> None:
    import typer

    app = typer.Typer()

    @app.command()
    def command(path: Path = Path(), flag: bool = False, name: str | None = None) -> None: ...

    app([], standalone_mode=False)


def watch(client: socket.socket) -> None:
    """Start the command, report its exit status, end it when the client goes away."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, streams = receive(client)
    if request["what"] == "shrink":
        enter(request, streams)
        client.sendall(json.dumps(load(HERE / "shrink.py").shrunk(request["argv"], in_child)).encode())
        os._exit(0)
    child = os.fork()
    if child == 0:
        client.close()
        os.setsid()
        os._exit(command(request, streams))
    for stream in streams:
        os.close(stream)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            client.sendall(json.dumps(code if code >= 0 else 128 - code).encode())
            os._exit(0)
        if select.select([client], [], [], 0.01)[0]:  # nothing more is sent, so it has hung up
            os.killpg(child, signal.SIGKILL)
            os._exit(0)


def receive(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The request, which ends with a line end, and its three streams."""
    data, streams = b"", array.array("i")
    while not data.endswith(b"\n"):
        part, ancillary, *_ = client.recvmsg(1 << 16, socket.CMSG_SPACE(3 * streams.itemsize))
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                streams.frombytes(content)
        data += part
    return json.loads(data), list(streams)


def command(request: dict[str, Any], streams: list[int]) -> int:
    """In the child: become the command. Returns its exit status."""
    enter(request, streams)
    if "STRANGER_FAULT" in os.environ:
        load(HERE / "faults.py").inject(os.environ["STRANGER_FAULT"])
    try:
        code = run(request)
    except SystemExit as err:
        code = err.code if isinstance(err.code, int) else int(err.code is not None)
    except BaseException:  # noqa: BLE001 - what the interpreter does with it
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def enter(request: dict[str, Any], streams: list[int]) -> None:
    """Take over the streams, the folder and the variables of the request."""
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:0] = [folder for folder in request["env"].get("PYTHONPATH", "").split(":") if folder]


def run(request: dict[str, Any]) -> int:
    """A console script with arguments, or a Python file."""
    shrink = load(HERE / "shrink.py") if request["shrink"] else None
    argv: list[str] = shrink.shrunk(request["argv"], in_child) if shrink else request["argv"]
    if argv[0] == "reasonrl":
        sys.argv = argv
        return script("reasonrl")
    if shrink:
        shrink.shrink_python(in_child)
    sys.argv = argv[1:]
    sys.path.insert(0, str(Path(argv[1]).resolve().parent))
    runpy.run_path(argv[1], run_name="__main__")
    return 0


def script(name: str) -> int:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=name)
    return int(entry.load()() or 0)


def in_child(argv: list[str]) -> str:
    """What ``reasonrl ...`` prints, in a process of its own so that it leaves nothing behind in this one."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        sys.argv = argv
        code = 1
        try:
            code = script("reasonrl")
        except SystemExit as err:
            code = int(err.code or 0)
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    return text if status == 0 else ""


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(*sys.argv[1:])
