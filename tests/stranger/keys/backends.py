"""Options of the rollout backends."""

from stranger.keys.algorithms import UNEVEN
from stranger.keys.registry import Observe, effect
from stranger.lab import Lab, Run


@effect("max_batch_rows", of=("rollout_backend.hf",))
def max_batch_rows(lab: Lab, kind: str) -> None:
    """Fewer rows at once: more passes, the same completions."""
    whole, single = lab.run("train"), lab.run("train", "rollout_backend.max_batch_rows=1")
    assert single.probe["sampling_calls"] > 3 * whole.probe["sampling_calls"]
    assert _texts(whole) == _texts(single)


@effect("compact_fraction", of=("rollout_backend.hf",))
def compact_fraction(lab: Lab, kind: str) -> None:
    """Finished rows that stay in the batch cost work and change nothing."""
    options = ({"compact_fraction": fraction, "fused_decoding": False} for fraction in (0.01, 1.0))
    early, late = (lab.run("train", *UNEVEN, *(f"rollout_backend.{k}={v}" for k, v in o.items())) for o in options)
    assert early.probe["sampling_rows"] < late.probe["sampling_rows"]
    assert _texts(early) == _texts(late)


@effect("fused_decoding", of=("rollout_backend.hf",))
def fused_decoding(lab: Lab, kind: str) -> None:
    """The model's own passes decode without it, and the completions are the same."""
    fused, plain = (lab.run("train", f"rollout_backend.fused_decoding={on}") for on in ("true", "false"))
    assert fused.probe["sampling_calls"] < plain.probe["sampling_calls"]
    assert _texts(fused) == _texts(plain)


VLLM = {
    "mode": ("{mode: server, url: 'http://127.0.0.1:8000'}", "{mode: nowhere}"),
    "url": (
        "{mode: server, url: ['http://localhost:8000', 'http://localhost:8001']}",
        "{url: 'http://localhost:8000'}",
    ),
    "allow_remote": (
        "{mode: server, url: 'http://10.0.0.7:8000', allow_remote: true}",
        "{mode: server, url: 'http://10.0.0.7:8000'}",
    ),
    "timeout_s": ("{mode: server, url: 'http://localhost:80', timeout_s: 1}", "{timeout_s: 1}"),
    "retry_s": ("{mode: server, url: 'http://localhost:80', retry_s: 1}", "{retry_s: 1}"),
    "weight_transfer": (
        "{mode: server, url: 'http://localhost:80', weight_transfer: nccl}",
        "{weight_transfer: nccl}",
    ),
    "sync_dir": (
        "{mode: server, url: 'http://localhost:80', weight_transfer: folder, sync_dir: /tmp}",
        "{sync_dir: /tmp}",
    ),
    "dtype": ("{dtype: bfloat16}", "{dtype: int8}"),
    "max_model_len": ("{max_model_len: 512}", "{max_model_len: 0}"),
    "max_num_seqs": ("{max_num_seqs: 8}", "{max_num_seqs: 0}"),
    "gpu_memory_utilization": ("{gpu_memory_utilization: 0.2}", "{gpu_memory_utilization: 1.0}"),
    "kv_cache_gib": ("{kv_cache_gib: 0.5}", "{kv_cache_gib: 0}"),
    "tensor_parallel_size": ("{tensor_parallel_size: 2}", "{tensor_parallel_size: 0}"),
    "enforce_eager": (
        "{enforce_eager: true}",
        "{mode: server, url: 'http://localhost:80', enforce_eager: true}",
    ),
    "sleep": ("{sleep: false}", "{mode: server, url: 'http://localhost:80', sleep: false}"),
}
"""Key -> options that are accepted, and options that are refused because of it."""


def checked(good: str, bad: str) -> Observe:
    """vLLM is not here, and where it is, ``pytest -m vllm`` runs it: here a recipe with its options is checked."""

    def check(lab: Lab, kind: str) -> None:
        for options, status in ((good, 0), (bad, 2)):
            words = ["recipes", "check", "train.yaml", f"rollout_backend={{name: vllm, {options[1:]}"]
            done = lab.commands.reasonrl(*words, "--plugin", "probe_plugin.py", cwd=lab.folder)
            assert done.code == status, done

    return check


for key, options in VLLM.items():
    effect(key, of=("rollout_backend.vllm",))(checked(*options))


def _texts(run: Run) -> list[str]:
    return [record["completion"] for record in run.transcripts()]
