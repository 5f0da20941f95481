"""Sampling with the backend `hf` against transformers' `generate`, its continuous batching, and vLLM on the CPU.

    python benchmarks/rollout.py [--model FOLDER] [--completions 64 256 512] [--group 8] [--tokens 220] [--threads 1]
                                 [--repeats 3] [--only generate] [--vllm-python PYTHON]

Every engine is a process of its own; they take turns on the same prompts. Completions end where the model ends them.
vLLM runs in the environment of `--vllm-python`, in eager mode. For `hf` the table also says how near it comes to the
bound of this machine: the longer of the times that the arithmetic and the reads of weights and cache take at the speeds
measured before each call.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from measure import Channel, Worker, in_turns, ratio, record, show, summary, table, workers

OURS = "hf"
OTHERS = ("generate", "generate_batch", "vllm")
Prompts = Sequence[Sequence[int]]
Sampler = Callable[[Prompts], list[int]]
"""Returns the length of every completion."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="countdown-base", help="name or folder")
    parser.add_argument("--completions", type=int, nargs="+", default=[64, 256, 512], help="sampled together")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=220, help="longest completion")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=OTHERS, default=["generate", "generate_batch"])
    parser.add_argument("--vllm-python", metavar="PYTHON", help="of an environment that has vLLM for the CPU")
    arguments = parser.parse_args()
    for completions in arguments.completions:
        compare(arguments, completions)


def compare(arguments: argparse.Namespace, completions: int) -> None:
    """All engines with so many completions at a time."""
    subject = {
        "model": arguments.model,
        "prompts": completions // arguments.group,
        "group": arguments.group,
        "tokens": arguments.tokens,
    }
    settings = {**subject, "threads": arguments.threads, "side": OURS}
    ours = Worker("rollout.py", settings, threads=arguments.threads)
    others = [*arguments.only, *(["vllm"] if arguments.vllm_python and "vllm" not in arguments.only else [])]
    name = f"{arguments.model}, {completions} completions in groups of {arguments.group}"
    show(f"{name}, {arguments.threads} threads")

    def start(side: str) -> Callable[[], Worker]:
        given = {**settings, "side": side, "model": ours.hello["model"], "eos": ours.hello["eos"]}
        python = {"python": arguments.vllm_python} if side == "vllm" else {}
        return lambda: Worker("rollout.py", given, threads=arguments.threads, **python)

    with workers({OURS: lambda: ours, **{side: start(side) for side in others}}) as sides:
        found = in_turns(sides, arguments.repeats, message={"prompts": ours.hello["prompts"]})
    speeds = {side: [s["tokens"] / s["seconds"] for s in steps] for side, steps in found.items()}
    rows = []
    for side, steps in found.items():
        times = ratio(speeds[OURS], speeds[side])["ratio"]
        mean = sum(s["tokens"] for s in steps) / sum(s["rows"] for s in steps)
        faster = "" if side == OURS else f"{times:.2f}"
        rows.append([side, f"{median(speeds[side]):.0f}", faster, f"{steps[0]['rows']}", f"{mean:.1f}"])
    show(table(("engine", "tokens/s", "hf is faster by", "completions", "mean tokens"), rows))
    bound = median(step["bound"] / step["seconds"] for step in found[OURS])
    show(f"hf reaches {bound:.0%} of the machine's bound")
    record(
        "rollout",
        subject=name,
        completions=completions,
        threads=arguments.threads,
        repeats=arguments.repeats,
        tokens_per_s={side: summary(values) for side, values in speeds.items()},
        times_faster={side: ratio(speeds[OURS], speeds[side]) for side in others},
        mean_tokens={side: sum(s["tokens"] for s in st) / sum(s["rows"] for s in st) for side, st in found.items()},
        share_of_bound=bound,
    )


def work() -> None:
    """An engine's process."""
    channel = Channel()
    settings = channel.receive()
    bound: Callable[[list[int]], float] | None = None
    if settings["side"] == OURS:
        sample, bound, hello = with_ours(settings)
    else:
        hello = {}
        sample = {"generate": with_generate, "generate_batch": with_generate_batch, "vllm": with_vllm}[
            settings["side"]
        ](settings)
    channel.send(**hello)
    while True:
        prompts = channel.receive()["prompts"]
        started = time.perf_counter()
        lengths = sample(prompts)
        seconds = time.perf_counter() - started
        channel.send(
            seconds=seconds, rows=len(lengths), tokens=sum(lengths), bound=bound(lengths) if bound is not None else None
        )


def with_ours(settings: dict[str, Any]) -> tuple[Sampler, Callable[[list[int]], float], dict[str, Any]]:
    from itertools import count

    from subjects import Subject, open_subject, use_threads

    from reasonrl import Problem, RolloutRequest
    from reasonrl.contracts.models import eos_token_ids

    use_threads(settings["threads"])
    bench = open_subject(Subject(**{key: settings[key] for key in ("model", "prompts", "group", "tokens")}))
    drawn = bench.requests()
    seeds, sampling = count(), drawn[0].sampling
    backend = bench.trainer._backend.sync(0)

    def sample(prompts: Prompts) -> list[int]:
        requests = [
            RolloutRequest(
                problem=Problem(id=str(i), prompt=""),
                prompt_ids=tuple(ids),
                group_size=settings["group"],
                sampling=sampling,
                seed=next(seeds),
            )
            for i, ids in enumerate(prompts)
        ]
        return [len(c.token_ids) for group in backend.generate(requests) for c in group.completions]

    prompt_ids = [list(request.prompt_ids) for request in drawn]
    hello = {
        "prompts": prompt_ids,
        "model": bench.bundle.model_path,
        "eos": list(eos_token_ids(bench.bundle.policy.model, bench.bundle.tokenizer)),
    }
    return sample, lambda lengths: bound_of(bench, prompt_ids, lengths, settings["group"]), hello


def bound_of(bench: Any, prompts: Prompts, lengths: Sequence[int], group: int) -> float:
    """Seconds that the arithmetic, or the reads of weights and cache, take at least on this machine."""
    from reasonrl.model.flops import networks
    from reasonrl.trainer.work import RowShape, least_work

    rows = [
        RowShape(i // group, len(prompts[i // group]), len(prompts[i // group]) + n, n) for i, n in enumerate(lengths)
    ]
    network, least = networks(bench.bundle.policy)[0], least_work(rows)
    config = bench.bundle.policy.model.config
    heads = config.num_key_value_heads or config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    weights = 4 * (network.flops.layers + network.flops.head) / 2
    read = weights * max(lengths) + 8 * config.num_hidden_layers * width * least.pairs
    return max(network.flops.forward(least) / (bench.gflops() * 1e9), read / bytes_per_second())


def bytes_per_second() -> float:
    """Reading and writing in a copy of 256 MB."""
    import torch

    a = torch.zeros(1 << 25)
    out, best = torch.empty_like(a), float("inf")
    for _ in range(4):
        started = time.perf_counter()
        out.copy_(a)
        best = min(best, time.perf_counter() - started)
    return 2 * a.numel() * 4 / best


def with_generate(settings: dict[str, Any]) -> Sampler:
    import torch

    model = load(settings)

    @torch.no_grad()
    def sample(prompts: Prompts) -> list[int]:
        width = max(map(len, prompts))
        rows = [ids for ids in prompts for _ in range(settings["group"])]
        ids = torch.tensor([[0] * (width - len(r)) + list(r) for r in rows])
        mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=sampling_of(settings))[:, width:]
        return [until_end(row, settings["eos"]) for row in out.tolist()]

    return sample


def with_generate_batch(settings: dict[str, Any]) -> Sampler:
    from transformers import ContinuousBatchingConfig

    model = load(settings)

    def sample(prompts: Prompts) -> list[int]:
        rows = [list(ids) for ids in prompts for _ in range(settings["group"])]
        # Memory for all at once; by default it takes what is free on the machine.
        longest = max(map(len, rows)) + settings["tokens"]
        batching = ContinuousBatchingConfig(
            num_blocks=len(rows) * -(-longest // 256) + 1, max_batch_tokens=max(2048, len(rows))
        )
        out = model.generate_batch(
            inputs=rows, generation_config=sampling_of(settings), continuous_batching_config=batching
        )
        return [until_end(result.generated_tokens, settings["eos"]) for result in out.values()]

    return sample


def with_vllm(settings: dict[str, Any]) -> Sampler:
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=settings["model"],
        dtype="float32",
        enforce_eager=True,
        skip_tokenizer_init=True,
        max_num_seqs=settings["prompts"] * settings["group"],
        max_model_len=1024,
    )
    sampling = SamplingParams(
        n=settings["group"],
        temperature=1.0,
        max_tokens=settings["tokens"],
        stop_token_ids=settings["eos"],
        detokenize=False,
    )

    def sample(prompts: Prompts) -> list[int]:
        out = engine.generate([{"prompt_token_ids": list(ids)} for ids in prompts], sampling, use_tqdm=False)
        return [len(completion.token_ids) for request in out for completion in request.outputs]

    return sample


def load(settings: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(settings["threads"])
    return AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32).eval()


def sampling_of(settings: dict[str, Any]) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=settings["tokens"],
        eos_token_id=settings["eos"],
        pad_token_id=settings["eos"][0],
    )


def until_end(tokens: Sequence[int], eos: Sequence[int]) -> int:
    """Tokens up to the first that ends the completion, itself included."""
    return next((i + 1 for i, token in enumerate(tokens) if token in eos), len(tokens))


if __name__ == "__main__":
    import sys

    work() if "--worker" in sys.argv else main()
