"""Options of the rollout backend ``vllm``. Torch-free."""

import ipaddress
from dataclasses import dataclass, field, fields
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from reasonrl.contracts.memory import BackendMemory
from reasonrl.contracts.options import require

Mode = Literal["colocate", "server"]
DTypeName = Literal["auto", "float32", "bfloat16", "float16"]
WeightTransfer = Literal["auto", "nccl", "folder"]

OF_THE_SERVER = ("url", "allow_remote", "timeout_s", "retry_s", "weight_transfer", "sync_dir")
"""Options of ``mode: server`` only. All others except ``mode`` are for colocate."""


@dataclass(frozen=True)
class VLLMConfig:
    """Resources of the vLLM engine; the recipe's ``sampling`` section says what to sample."""

    mode: Mode = field(
        default="colocate",
        metadata={"help": "colocate: in the trainer's process; server: an external `vllm serve` at url"},
    )
    url: str | list[str] | None = field(
        default=None,
        metadata={"help": "mode server: its address, such as http://127.0.0.1:8000, or a list of several servers'"},
    )
    allow_remote: bool = field(
        default=False,
        metadata={"help": "mode server: allow a url on another machine; read the security notes in docs/vllm.md first"},
    )
    timeout_s: float = field(default=600.0, metadata={"help": "mode server: request timeout in seconds"})
    retry_s: float = field(
        default=30.0,
        metadata={"help": "mode server: how long to retry requests to an unreachable server, in seconds"},
    )
    weight_transfer: WeightTransfer = field(
        default="auto",
        metadata={
            "help": "mode server: nccl: from GPU to GPU; folder: through shared files; "
            "auto: nccl if both sides have a GPU"
        },
    )
    sync_dir: str | None = field(
        default=None,
        metadata={"help": "weight_transfer folder: the shared folder; null: a temporary folder on this machine"},
    )
    dtype: DTypeName = field(
        default="auto",
        metadata={"help": "precision of the engine; auto: same as the trainer's forward passes"},
    )
    max_model_len: int | None = field(
        default=None,
        metadata={"help": "maximum prompt + completion tokens; less saves memory; null: the model's context"},
    )
    max_num_seqs: int = field(
        default=256, metadata={"help": "completions to decode in parallel; more is faster and needs more memory"}
    )
    gpu_memory_utilization: float = field(
        default=0.4, metadata={"help": "share of GPU memory for the engine; the rest is for the trainer"}
    )
    kv_cache_gib: float | None = field(
        default=None,
        metadata={"help": "size of the KV cache in GiB; null: 1 on a CPU, the remaining memory on a GPU"},
    )
    tensor_parallel_size: int = field(default=1, metadata={"help": "GPUs to shard one copy of the model over"})
    enforce_eager: bool | None = field(
        default=None,
        metadata={"help": "disable compilation and CUDA graphs: starts faster, runs slower; null: only on a CPU"},
    )
    sleep: bool = field(default=True, metadata={"help": "on a GPU: free the engine's memory except while it samples"})

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_mode()
        for url in self.urls:
            check_url(url, allow_remote=self.allow_remote)

    @property
    def urls(self) -> list[str]:
        """The addresses of the servers."""
        return [self.url] if isinstance(self.url, str) else list(self.url or ())

    def plan_memory(self) -> BackendMemory:
        """An engine of its own, on the trainer's GPU unless it is an external server."""
        share = self.gpu_memory_utilization if self.mode == "colocate" else 0.0
        return BackendMemory(
            parallel=self.max_num_seqs,
            sampling=share,
            training=0.0 if self.sleep else share,
            shards=self.tensor_parallel_size,
        )

    def _check_mode(self) -> None:
        """Reject options of the other mode, which would have no effect."""
        if self.mode == "server" and not self.urls:
            raise ValueError("mode server needs url, such as http://127.0.0.1:8000")
        if len({url.rstrip("/") for url in self.urls}) < len(self.urls):
            raise ValueError(f"url must name each server once, got {', '.join(self.urls)}")
        if len(self.urls) > 1 and self.weight_transfer == "nccl":
            raise ValueError(f"weight_transfer must be folder or auto with {len(self.urls)} servers, got nccl")
        for option in fields(self):
            belongs = "server" if option.name in OF_THE_SERVER else "colocate"
            if option.name == "mode" or belongs == self.mode or getattr(self, option.name) == option.default:
                continue
            advice = "set mode: server" if belongs == "server" else "pass it to `vllm serve`"
            raise ValueError(f"{option.name} has no effect with mode {self.mode}; remove it, or {advice}")

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
    """Raise ValueError if ``url`` is malformed, or remote without ``allow_remote``."""
    try:
        parts = urlsplit(url)
    except ValueError as err:  # a malformed IPv6 address
        raise ValueError(f"url must be like http://127.0.0.1:8000, got {url!r}") from err
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not _has_good_port(parts) or not _is_host(host):
        raise ValueError(f"url must be like http://127.0.0.1:8000, got {url!r}")
    if parts.username or parts.password:
        raise ValueError("url must not contain a user name or password; set the key in VLLM_API_KEY")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"url must end after the port, without /v1 or the like, got {url!r}")
    if not allow_remote and not is_loopback(host):
        raise ValueError(
            f"url {url!r} is not on this machine; anyone who can reach vLLM's control endpoints controls the server; "
            "--api-key does not protect them. In a private network set allow_remote: true (docs/vllm.md)"
        )


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only be this machine. Does no DNS lookup."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_host(name: str) -> bool:
    """Whether it may be the name or address of a machine: none has an empty part or one of over 63 characters."""
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False


def _has_good_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False
