"""Options of the rollout backend ``vllm``. Torch-free."""

import ipaddress
from dataclasses import dataclass, field, fields
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from reasonrl.contracts.options import require

Mode = Literal["colocate", "server"]
DTypeName = Literal["auto", "float32", "bfloat16", "float16"]
WeightTransfer = Literal["auto", "nccl", "folder"]

OF_THE_SERVER = ("url", "allow_remote", "timeout_s", "retry_s", "weight_transfer", "sync_dir")
"""Options of ``mode: server`` alone. All others but ``mode`` are an engine's of our own."""


@dataclass(frozen=True)
class VLLMConfig:
    """What is sampled is the recipe's ``sampling`` section; these options say what the engine may use."""

    mode: Mode = field(
        default="colocate",
        metadata={"help": "colocate: in the trainer's process; server: a `vllm serve` that runs at url"},
    )
    url: str | None = field(
        default=None, metadata={"help": "mode server: where it listens, such as http://127.0.0.1:8000"}
    )
    allow_remote: bool = field(
        default=False,
        metadata={
            "help": "mode server: accept a url that is not on this machine; read first what guards it (docs/vllm.md)"
        },
    )
    timeout_s: float = field(default=600.0, metadata={"help": "mode server: longest wait for one answer, in seconds"})
    retry_s: float = field(
        default=30.0,
        metadata={"help": "mode server: how long requests to a server that went away are repeated, in seconds"},
    )
    weight_transfer: WeightTransfer = field(
        default="auto",
        metadata={
            "help": "mode server: nccl: from GPU to GPU; folder: by way of files that both see; "
            "auto: nccl if both have a GPU"
        },
    )
    sync_dir: str | None = field(
        default=None,
        metadata={"help": "weight_transfer folder: where the files go; null: a temporary folder of this machine"},
    )
    dtype: DTypeName = field(
        default="auto",
        metadata={"help": "precision of the engine; auto: that of the trainer's forward passes"},
    )
    max_model_len: int | None = field(
        default=None,
        metadata={"help": "longest prompt + completion in tokens; less needs less memory; null: the model's"},
    )
    max_num_seqs: int = field(
        default=256, metadata={"help": "completions decoded together; more is faster and needs more memory"}
    )
    gpu_memory_utilization: float = field(
        default=0.4, metadata={"help": "share of a GPU's memory for the engine; the trainer has the rest"}
    )
    kv_cache_gib: float | None = field(
        default=None,
        metadata={"help": "size of the key-value cache in GiB; null: 1 on a CPU, what is left on a GPU"},
    )
    tensor_parallel_size: int = field(default=1, metadata={"help": "GPUs over which one copy of the model is spread"})
    enforce_eager: bool | None = field(
        default=None,
        metadata={"help": "no compilation, no CUDA graphs: starts faster, runs slower; null: on a CPU only"},
    )
    sleep: bool = field(
        default=True, metadata={"help": "on a GPU: the engine's memory is the trainer's during the update"}
    )

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_mode()
        if self.url is not None:
            check_url(self.url, allow_remote=self.allow_remote)

    def _check_mode(self) -> None:
        """An option of the other mode would have no effect."""
        if self.mode == "server" and self.url is None:
            raise ValueError("mode server needs url, such as http://127.0.0.1:8000")
        for option in fields(self):
            belongs = "server" if option.name in OF_THE_SERVER else "colocate"
            if option.name == "mode" or belongs == self.mode or getattr(self, option.name) == option.default:
                continue
            advice = "set mode: server" if belongs == "server" else "give it to `vllm serve`"
            raise ValueError(f"{option.name} has no effect with mode {self.mode}; leave it out, or {advice}")

    def _check_ranges(self) -> None:
        for name in ("timeout_s", "retry_s"):
            value = getattr(self, name)
            require(0.0 < value < 1e6, name, "a number of seconds > 0", value)
        for name in ("max_model_len", "max_num_seqs", "tensor_parallel_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, ">= 1", value)
        share, size = self.gpu_memory_utilization, self.kv_cache_gib
        require(0.0 < share < 1.0, "gpu_memory_utilization", "in (0, 1)", share)
        require(size is None or 0.0 < size < 1e6, "kv_cache_gib", "a number of GiB > 0", size)


def check_url(url: str, *, allow_remote: bool) -> None:
    """Raise ValueError if this is not the address of a server that may be used."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not _has_good_port(parts) or not parts.hostname:
        raise ValueError(f"url must be like http://127.0.0.1:8000, got {url!r}")
    if parts.username or parts.password:
        raise ValueError("url must hold no name and password; a key belongs into the variable VLLM_API_KEY")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"url must end after the port, without /v1 or the like, got {url!r}")
    if not allow_remote and not is_loopback(parts.hostname):
        raise ValueError(
            f"url {url!r} is not on this machine; whoever reaches vLLM's control endpoints owns the server, key or "
            "not. In a private network set allow_remote: true (docs/vllm.md)"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant. Names are not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _has_good_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False
